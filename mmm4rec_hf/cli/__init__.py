"""The command `mmm4rec`: each sub-command is a file of this folder with `add_parser(subparsers)` and `run(args)`."""

import argparse
import functools
import gc
from collections.abc import Sequence
from types import ModuleType

from .. import __version__
from . import convert, demo, encode, evaluate, finetune, prepare, pretrain, push, recommend, report, serve
from .parsing import (
    HelpFormatter,
    Parser,
    add_completion,
    add_options_file,
    all_parsers,
    with_options_of_file,
)
from .running import run_command
from .wording import as_options

COMMANDS: dict[str, ModuleType] = {
    "demo": demo,
    "prepare": prepare,
    "encode": encode,
    "pretrain": pretrain,
    "finetune": finetune,
    "evaluate": evaluate,
    "recommend": recommend,
    "convert": convert,
    "push": push,
    "serve": serve,
    "report": report,
}


DESCRIPTION = "Recommendations from the texts and pictures of items and the times of events, by MMM4Rec models."
EPILOG = """\
A shop from its log to recommendations:

  mmm4rec prepare interactions.csv --output sequences
  mmm4rec encode items.jsonl --sequences sequences --text-encoder minilm --image-encoder efficientnet-lite0 \\
      --output catalog
  mmm4rec finetune sequences=sequences catalog=catalog output_dir=run
  mmm4rec report run --output report.html
  mmm4rec recommend run/model --history 50 172

`mmm4rec COMMAND --help` says what each reads and writes. Exit status: 0 done, 1 failed with one line on stderr, \
2 wrong use, 130 interrupted."""
# Their options are recipes, or too few.
WITHOUT_OPTIONS_FILE = ("pretrain", "finetune", "convert", "push")


def build_parser() -> argparse.ArgumentParser:
    """The parser of `mmm4rec` with all its sub-commands."""
    parser = Parser(
        prog="mmm4rec", description=DESCRIPTION, epilog=EPILOG, formatter_class=HelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"mmm4rec {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    subparsers = parser.add_subparsers(dest="command", metavar="command", required=True)
    for command in COMMANDS.values():
        command.add_parser(subparsers)
    for name, subparser in subparsers.choices.items():
        if name not in WITHOUT_OPTIONS_FILE:
            add_options_file(subparser)
        # Also after the sub-command; without a default of its own, which would undo the one before it.
        subparser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    for each in all_parsers(parser):
        each.formatter_class, each.allow_abbrev = HelpFormatter, False
    add_completion(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """
    Runs `mmm4rec`.

    Args:
        argv (`Sequence[str]`, *optional*): Arguments after the program's name, those of the process by default.

    Returns:
        `int`: Exit status: 0 done, 1 failed and 2 wrong use, each with one line on stderr, 130 interrupted. What the
            parser itself refuses exits with 2.
    """
    if argv is None:
        # This process is the command's alone. What libraries make as they are imported lives to its end, and looking
        # through it after every few hundred objects takes half a second.
        gc.set_threshold(50_000)
    parser = build_parser()
    args = parser.parse_args(with_options_of_file(parser, argv))
    in_words_of_options = functools.partial(as_options, parser, args.command)
    return run_command("mmm4rec", lambda: COMMANDS[args.command].run(args), args.debug, in_words_of_options)
