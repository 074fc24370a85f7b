"""What the sub-commands print: tables for people, one JSON object for programs, no bars where nobody looks."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Any


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Adds `--json`."""
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")


def print_json(content: Any) -> None:
    """Prints one JSON object on stdout."""
    print(json.dumps(content, indent=2, ensure_ascii=False))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """
    Prints aligned columns, the first to the left and the others to the right. Titles and ids are of others: what a
    terminal might obey, such as an escape sequence, is shown as a replacement character.
    """
    rows = [
        ["".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in cell) for cell in row] for row in rows
    ]
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    for row in (header, *rows):
        first, *others = (
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join([first, *others]).rstrip())


def hide_bars_without_terminal() -> None:
    """
    Turns progress bars off where stderr is no terminal, such as a log file. A library that is not loaded yet, and may
    never be, is told by what it reads when it is.
    """
    if sys.stderr.isatty():
        return
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()  # which transformers asks when it is loaded
    if "transformers" in sys.modules:
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
    if "datasets" in sys.modules:
        import datasets

        datasets.disable_progress_bars()
    else:
        os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
