"""Files of one record a line: JSON or, in old Amazon files, Python literals, which are parsed and never evaluated."""

import ast
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .files import DECOMPRESSION_ERRORS, decoded, open_bytes

logger = logging.getLogger(__name__)

REPORTED_LINES = 10

# What to call a record in messages, and the record.
Record = tuple[str, Mapping[str, Any]]


def json_records(path: Path, bad_lines: list[int]) -> Iterator[Record]:
    """The records of a file of one a line, or of one JSON array. Bytes that are no UTF-8 are read as latin-1.

    Args:
        path (`Path`): The file, plain or compressed.
        bad_lines (`list[int]`): Gets the numbers of lines that are neither JSON nor a Python literal of a dictionary.

    Raises:
        ValueError: For a file that cannot be decompressed, or begins like an array and is none.
    """
    name = str(path)
    try:
        with open_bytes(path) as file:
            if file.peek(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):  # type: ignore[attr-defined]
                yield from _array(path, file.read(), bad_lines)
                return
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                record = parse_line(line)
                if record is None:
                    bad_lines.append(number)
                else:
                    yield f"{name}, line {number}", record
    except DECOMPRESSION_ERRORS as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def log_bad_lines(path: Path, numbers: list[int]) -> None:
    """Says which lines were dropped."""
    if numbers:
        shown = ", ".join(map(str, numbers[:REPORTED_LINES])) + (", ..." if len(numbers) > REPORTED_LINES else "")
        logger.warning("%s: dropped %d lines that are no records: %s", path, len(numbers), shown)


def parse_line(line: bytes) -> dict[str, Any] | None:
    """The record of a line; None where there is none."""
    text = decoded(line)
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        try:
            record = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            return None
    return record if isinstance(record, dict) else None


def _array(path: Path, content: bytes, bad_lines: list[int]) -> Iterator[Record]:
    """The records of a file that is one JSON array."""
    try:
        records = json.loads(decoded(content))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} begins like a JSON array, but is none: {error}") from error
    for number, record in enumerate(records, start=1):
        if isinstance(record, dict):
            yield f"{path}, record {number}", record
        else:
            bad_lines.append(number)
