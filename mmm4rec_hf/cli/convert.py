"""`mmm4rec convert`: published checkpoints to folders of ours, and back."""

import argparse
from pathlib import Path
from typing import Any

from ..saved_models import find_model
from .output import add_json_option, hide_bars_without_terminal, print_json


def add_parser(subparsers: Any) -> None:
    """Adds `convert` and its two directions to the command's parser."""
    parser = subparsers.add_parser(
        "convert",
        help="convert published checkpoints to models, and back",
        epilog="example: mmm4rec convert to-published out model.ckpt",
    )
    directions = parser.add_subparsers(dest="direction", metavar="direction", required=True)
    _add_published(directions)
    _add_to_published(directions)


def _add_published(directions: Any) -> None:
    parser = directions.add_parser(
        "published",
        help="a published .ckpt and its YAML file to a folder",
        description=(
            "Reads a published checkpoint (full, light, or without item biases), the YAML file it was trained with, "
            "and the published data folder (item2id.jsonl, text_feat.pth, image_feat.pth). Writes a folder that "
            "recommends: weights, items, catalogue, processor and model card; outputs are the published ones to the "
            "last rank. Names, shapes and counts are checked; nothing in a checkpoint is run."
        ),
        epilog="example: mmm4rec convert published best_epoch_model.ckpt --config config.yaml --data data -o model",
    )
    parser.add_argument("checkpoint", type=Path, help="the .ckpt file")
    parser.add_argument("--config", type=Path, required=True, help="the YAML file that the published code ran with")
    parser.add_argument("--data", type=Path, help="the published data folder; without it: the backbone alone")
    parser.add_argument("--output", "-o", type=Path, required=True, help="the folder to write, empty or absent")
    parser.add_argument(
        "--mode",
        choices=("published", "new"),
        default="published",
        help="new: padding and scoring as in new models, which changes scores (default: %(default)s)",
    )
    parser.add_argument(
        "--encoder",
        metavar="NAME",
        help="the joint model that made the features, e.g. google/siglip-base-patch16-224: recorded and saved along",
    )
    add_json_option(parser)


def _add_to_published(directions: Any) -> None:
    parser = directions.add_parser(
        "to-published",
        help="a folder to a published checkpoint",
        description=(
            "Reads a model's folder (or its Hub name) and writes a checkpoint that the published code loads, and "
            "beside it the YAML file with the model's shape."
        ),
        epilog="example: mmm4rec convert to-published out model.ckpt",
    )
    parser.add_argument("model", help="a model's folder or Hub name")
    parser.add_argument("output", type=Path, help="the .ckpt file to write")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="also write the items and their features there")
    add_json_option(parser)


def run(args: argparse.Namespace) -> None:
    """Runs `mmm4rec convert`."""
    hide_bars_without_terminal()
    if args.direction == "published":
        _run_published(args)
    else:
        _run_to_published(args)


def _run_published(args: argparse.Namespace) -> None:
    from ..conversion import convert_published

    encoder = None
    if args.encoder is not None:
        from ..items import ItemEncoder

        encoder = ItemEncoder(args.encoder)
    converted = convert_published(args.checkpoint, args.config, args.output, args.data, args.mode, encoder)
    config = converted.model.config
    if args.json:
        summary = {
            "output": str(args.output),
            "layers": config.num_hidden_layers,
            "items": config.num_items,
            "epoch": converted.checkpoint.epoch,
            "best_valid_score": converted.checkpoint.best_valid_score,
            "mode": args.mode,
            "notes": converted.notes,
        }
        print_json(summary)
        return
    items = "no items" if config.num_items is None else f"{config.num_items:,} items"
    print(f"A model of {config.num_hidden_layers} layers and {items} is in {args.output}")


def _run_to_published(args: argparse.Namespace) -> None:
    from ..conversion import convert_to_published

    notes = convert_to_published(find_model(args.model), args.output, args.data)
    if args.json:
        print_json({"output": str(args.output), "config": str(args.output.with_suffix(".yaml")), "notes": notes})
        return
    print(f"The checkpoint is {args.output}, its configuration {args.output.with_suffix('.yaml')}")
