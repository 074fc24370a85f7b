"""`mmm4rec prepare`: a log of interactions to a folder of sequences."""

import argparse
import contextlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..packaged_encoders import IMAGE_FROM_PACKAGE, TEXT_FROM_PACKAGE
from .columns import add_log_options, log_options
from .output import add_json_option, hide_bars_without_terminal, print_json, print_table

if TYPE_CHECKING:
    from ..data import SequenceDatasets

logger = logging.getLogger(__name__)


def add_parser(subparsers: Any) -> None:
    """Adds `prepare` to the command's parser."""
    parser = subparsers.add_parser(
        "prepare",
        help="turn a log of interactions into sequences to train and test on",
        description=(
            "Reads who used what when (CSV, TSV, JSON lines, Parquet, or a folder of MovieLens, Amazon, RecBole or "
            "the published format), keeps users and items with enough events, sorts by time, and splits. Writes a "
            "folder that holds the splits, the item ids in the order of their indices, and prepare.json, which says "
            "how they were made. What is dropped is counted."
        ),
        epilog=(
            "examples:\n"
            "  mmm4rec prepare ratings.csv --output sequences\n"
            "  mmm4rec prepare log.parquet -o sequences --user-column kunde --item-column artikel --time-unit ms"
        ),
    )
    parser.add_argument("log", nargs="+", help="a file, a folder, or several files of one kind")
    parser.add_argument(
        "--output",
        "-o",
        type=Path,
        required=True,
        help="the folder to write; of an earlier one only what prepare wrote is replaced",
    )
    add_log_options(parser)
    parser.add_argument(
        "--k-core", type=int, default=5, help="least events of a user and of an item (default: %(default)s)"
    )
    parser.add_argument(
        "--split",
        choices=("leave_one_out", "temporal"),
        default="leave_one_out",
        help="each user's last two events, or all events from two dates on (default: %(default)s)",
    )
    parser.add_argument("--valid-from", metavar="TIME", help="with temporal: where validation begins, e.g. 2016-01-01")
    parser.add_argument("--test-from", metavar="TIME", help="with temporal: where testing begins")
    parser.add_argument("--items", type=Path, metavar="CATALOG", help="a saved catalogue whose items alone count")
    parser.add_argument(
        "--shards",
        type=int,
        metavar="N",
        help="also write the training histories as N Parquet files, which `pretrain` can stream",
    )
    add_json_option(parser)


def run(args: argparse.Namespace) -> None:
    """Runs `mmm4rec prepare`."""
    hide_bars_without_terminal()
    from ..data import load_interactions, prepare_sequences
    from ..data.sequence_datasets import check_sequences_folder, replace_sequences
    from ..evaluation.protocol import PREPARE_NAME, read_layout, read_preparation
    from ..outputs import write_json
    from ..training.shards import write_shards

    check_sequences_folder(args.output)
    catalog = None
    if args.items is not None:
        from ..items import ItemCatalog

        catalog = ItemCatalog.from_pretrained(args.items)
    source = args.log[0] if len(args.log) == 1 else args.log
    options = log_options(args)
    interactions = load_interactions(source, **options)
    made: dict[str, Any] = {"split": args.split, "k_core": args.k_core}
    if args.split == "temporal":
        made |= {"valid_from": args.valid_from, "test_from": args.test_from}
    layout = {name: value for name, value in options.items() if name != "format" and value is not None}
    before: dict[str, Any] = {}
    # A file that cannot be read is replaced with all the rest.
    with contextlib.suppress(OSError, ValueError):
        before = read_preparation(args.output)
        before |= read_layout(args.output) if before else {}
    # All in one go: sequences without what says how they were made would be taken for whole.
    with replace_sequences(args.output) as partial:
        sequences = prepare_sequences(
            interactions,
            k_core=args.k_core,
            split=args.split,
            valid_from=args.valid_from,
            test_from=args.test_from,
            catalog=catalog,
            output_dir=partial,
        )
        if args.shards is not None:
            write_shards(sequences, partial / "shards", args.shards)
        write_json(partial / PREPARE_NAME, made | {"source": args.log, "layout": layout})
    if before:
        _tell_replaced(args.output, before, made | layout)
    _tell_empty_splits(sequences, args.split)
    days = dict(zip(("first_event", "last_event"), sequences.days or (), strict=False))
    if args.json:
        print_json({"output": str(args.output), "prepared": made, "statistics": sequences.statistics} | days)
        return
    rows = [[name.replace("_", " "), f"{count:,}"] for name, count in sequences.statistics.items()]
    print_table(["", "number"], rows)
    if days:
        # Whoever knows the log sees here a time that was read in another unit, or by another calendar.
        print(f"\nThe first event is of {days['first_event']}, the last of {days['last_event']} (UTC).")
    _print_left_out(sequences, args.k_core, args.valid_from)
    print(f"\nThe sequences are in {args.output}; next, with your items' file in the place of ITEMS, and without")
    print("--image-encoder where they have no pictures:")
    encoders = f"--text-encoder {TEXT_FROM_PACKAGE} --image-encoder {IMAGE_FROM_PACKAGE}"
    print(f"  mmm4rec encode ITEMS --sequences {args.output} {encoders} --output catalog")


def _tell_replaced(output: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Warns where sequences that were prepared by other options are gone."""
    differ = [name for name in before | now if before.get(name) != now.get(name)]
    if not differ:
        return
    then, since = (
        ", ".join(f"{name}={told[name]}" if told.get(name) is not None else f"no {name}" for name in differ)
        for told in (before, now)
    )
    logger.warning(
        "%s held sequences prepared with %s, which are replaced by ones with %s: a model that was trained on the old "
        "ones is no longer tested on them; to have both, name another --output",
        *(output, then, since),
    )


def _tell_empty_splits(sequences: "SequenceDatasets", split: str) -> None:
    """Warns of splits without rows: the first to notice would be the command that needs them."""
    from ..data.sequence_datasets import why_empty

    needed = {
        "train": "finetune and pretrain have nothing to learn from",
        "validation": "finetune cannot choose the best epoch",
        "test": "finetune and evaluate have nothing to evaluate",
    }
    for name, rows in sequences.items():
        if len(rows) == 0:
            logger.warning("the split %r is empty, as %s: %s", name, why_empty(name, split), needed[name])


def _print_left_out(sequences: "SequenceDatasets", k_core: int, valid_from: str | None) -> None:
    """Prints how many items and users the k-core took, of how many, and what keeps them."""
    items, users = (sequences.statistics[f"{name}_below_k_core"] for name in ("items", "users"))
    if not items and not users:
        return
    all_items, all_users = sequences.num_items_with_events + items, sequences.statistics["users"] + users
    until = "" if valid_from is None else f" before {valid_from}"
    print(f"\n{items:,} of {all_items:,} items and {users:,} of {all_users:,} users have fewer than {k_core} events")
    print(f"among those that stay{until}, and are left out; --k-core 1 keeps them.")
