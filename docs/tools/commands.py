"""The page of the command line, out of the parsers themselves."""

import os
from typing import Any

MARK = "<!-- commands -->"
WIDTH = 80


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Puts every command's help in the place of the mark; MkDocs calls it for each page."""
    return markdown.replace(MARK, command_pages()) if MARK in markdown else markdown


def command_pages() -> str:
    """A section a command: its help, as the terminal shows it."""
    from mmm4rec_hf.cli import build_parser
    from mmm4rec_hf.cli.parsing import all_parsers

    before = os.environ.get("COLUMNS")
    # argparse breaks lines at the width of the terminal that the documentation is built in.
    os.environ["COLUMNS"] = str(WIDTH)
    try:
        sections = [
            f"## {parser.prog}\n\n```text\n{parser.format_help()}```\n" for parser in all_parsers(build_parser())
        ]
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
    return "\n".join(sections)
