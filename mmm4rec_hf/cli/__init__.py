"""The command `mmm4rec`: each sub-command is a file of this folder with `add_parser(subparsers)` and `run(args)`."""

import argparse
from collections.abc import Sequence
from types import ModuleType

from .. import __version__
from . import convert, demo, encode, evaluate, finetune, prepare, pretrain, push, recommend, report, serve
from .running import run_command

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


def build_parser() -> argparse.ArgumentParser:
    """The parser of `mmm4rec` with all its sub-commands."""
    parser = argparse.ArgumentParser(prog="mmm4rec", description="Multi-modal sequential recommendation.")
    parser.add_argument("--version", action="version", version=f"mmm4rec {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    subparsers = parser.add_subparsers(dest="command", metavar="command", required=True)
    for command in COMMANDS.values():
        command.add_parser(subparsers)
    for subparser in subparsers.choices.values():
        # Also after the sub-command; without a default of its own, which would undo the one before it.
        subparser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """
    Runs `mmm4rec`.

    Args:
        argv (`Sequence[str]`, *optional*): Arguments after the program's name, those of the process by default.

    Returns:
        `int`: Exit status: 0 done, 1 failed with one line on stderr, 130 interrupted. Wrong usage exits with 2.
    """
    args = build_parser().parse_args(argv)
    return run_command("mmm4rec", lambda: COMMANDS[args.command].run(args), args.debug)
