"""`mmm4rec report`: what runs came to, as one page with pictures."""

import argparse
from pathlib import Path
from typing import Any

from .output import add_json_option, hide_bars_without_terminal, print_json
from .running import UsageError


def add_parser(subparsers: Any) -> None:
    """Adds `report` to the command's parser."""
    parser = subparsers.add_parser(
        "report",
        help="write one page on runs: curves, metrics beside baselines, subgroups, cost",
        description=(
            "Reads the folders of runs: the output_dir of `finetune`, `pretrain`, `demo` or of MMM4RecTrainer, or the "
            "--output of `evaluate`. Writes one HTML page that needs no other file and no network, and its pictures "
            "as PNGs beside it: metrics beside baselines with 95% intervals and paired tests, subgroups, learning "
            "curves, cost, and in words data, split, protocol, training, date, machine and versions."
        ),
        epilog="example: mmm4rec report run other-run --output report.html",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run's folder; others are tested against the first")
    parser.add_argument(
        "--output", "-o", type=Path, default=Path("report.html"), help="the page (default: %(default)s)"
    )
    parser.add_argument(
        "--metric", default="ndcg@10", help="what curves, subgroups and the summary show (default: %(default)s)"
    )
    parser.add_argument("--title", help="of the page (default: the names of the runs)")
    add_json_option(parser)


def run(args: argparse.Namespace) -> None:
    """Runs `mmm4rec report`."""
    if args.output.suffix not in (".html", ".htm"):
        raise UsageError(f"--output is a page and must end in .html, got {args.output.name!r}")
    hide_bars_without_terminal()
    from ..reporting import write_report

    page, *pictures = write_report(args.runs, args.output, metric=args.metric, title=args.title)
    if args.json:
        print_json({"output": str(page), "pictures": [str(picture) for picture in pictures]})
        return
    print(f"The report is {page}; its pictures lie beside it: {', '.join(picture.name for picture in pictures)}")
