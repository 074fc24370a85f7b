"""`mmm4rec push`: a saved model's folder, or a catalogue's, to the Hub.

The work is done by `push_folder` of `modeling/hub_mmm4rec.py` and, for a catalogue, `push_catalog` of
`items/storage.py`.
"""

import argparse
from pathlib import Path
from typing import Any

from ..saved_models import CONFIG_NAME, MODEL_NAME, model_type
from .output import add_json_option, hide_bars_without_terminal, print_json


def add_parser(subparsers: Any) -> None:
    """Adds `push` to the command's parser."""
    parser = subparsers.add_parser(
        "push",
        help="upload a model or a catalogue to the Hub",
        description=(
            "Reads a folder that `finetune`, `pretrain`, `convert` or `encode` wrote, or save_pretrained, and uploads "
            "it as one commit: a model with its code, items, processor and card, a catalogue as a data set. Every "
            "field of the items goes along, prices and notes too, unless --fields chooses; the log names them. "
            "Pictures go along that were saved into the folder; other paths of pictures are left out, and counted. "
            "Links out of the folder are refused, files of other kinds left out. A card on the Hub stays that has no "
            "mark of an earlier upload, or was changed since. The token is that of `hf auth login` or HF_TOKEN."
        ),
        epilog="example: mmm4rec push run/model organization/films --license apache-2.0 --private",
    )
    parser.add_argument("folder", type=Path, help="a model's folder (or the run's that wrote it), or a catalogue's")
    parser.add_argument("repo_id", metavar="org/name", help="the repository, made where it is missing")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--revision", metavar="BRANCH", help="the branch, made where it is missing (default: main)")
    parser.add_argument("--license", metavar="ID", help="written into the card, e.g. apache-2.0 or cc-by-4.0")
    parser.add_argument(
        "--fields",
        metavar="NAMES",
        help="fields of the items that go along besides item_id and title, e.g. brand,image (default: all)",
    )
    add_json_option(parser)


def run(args: argparse.Namespace) -> None:
    """Runs `mmm4rec push`."""
    hide_bars_without_terminal()
    if (args.folder / MODEL_NAME / CONFIG_NAME).is_file():
        args.folder /= MODEL_NAME
    if (args.folder / CONFIG_NAME).is_file():
        commit, kind = _push_model(args), "model"
    elif (args.folder / "catalog.json").is_file():
        commit, kind = _push_catalog(args), "catalogue"
    else:
        raise ValueError(
            f"{args.folder} holds neither a model (config.json) nor a catalogue (catalog.json); name the folder that "
            "finetune, pretrain, convert or encode wrote"
        )
    if args.json:
        print_json({"repo_id": args.repo_id, "kind": kind, "commit": commit})
        return
    print(f"The {kind} is {args.repo_id}: {commit}")


def _push_model(args: argparse.Namespace) -> str:
    from ..modeling import MMM4RecConfig
    from ..modeling.hub_mmm4rec import push_folder

    found = model_type(args.folder / CONFIG_NAME)
    if found != MMM4RecConfig.model_type:
        raise ValueError(f"{args.folder} holds a model of type {found!r}, not {MMM4RecConfig.model_type!r}")
    commit = push_folder(
        args.folder,
        args.repo_id,
        private=args.private or None,
        revision=args.revision,
        license=args.license,
        fields=_fields(args),
    )
    return str(commit.commit_url)


def _push_catalog(args: argparse.Namespace) -> str:
    from ..items import ItemCatalog
    from ..items.storage import push_catalog

    return push_catalog(
        ItemCatalog.from_pretrained(args.folder),
        args.repo_id,
        saved=args.folder,
        private=args.private or None,
        revision=args.revision,
        license=args.license,
        fields=_fields(args),
    )


def _fields(args: argparse.Namespace) -> list[str] | None:
    return None if args.fields is None else [name.strip() for name in args.fields.split(",") if name.strip()]
