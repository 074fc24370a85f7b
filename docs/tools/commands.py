"""The page of the command line, out of the parsers themselves."""

import argparse
import os
from collections.abc import Iterator
from typing import Any

MARK = "<!-- commands -->"
WIDTH = 80


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Puts every command's help in the place of the mark; MkDocs calls it for each page."""
    return markdown.replace(MARK, command_pages()) if MARK in markdown else markdown


def command_pages() -> str:
    """A section a command: its help, as the terminal shows it."""
    from mmm4rec_hf.cli import build_parser

    before = os.environ.get("COLUMNS")
    # argparse breaks lines at the width of the terminal that the documentation is built in.
    os.environ["COLUMNS"] = str(WIDTH)
    try:
        sections = [f"## {parser.prog}\n\n```text\n{parser.format_help()}```\n" for parser in _parsers(build_parser())]
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
    return "\n".join(sections)


def _parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A parser and those below it."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from _parsers(child)
