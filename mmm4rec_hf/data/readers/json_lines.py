"""Files of one record a line: JSON or, in old Amazon files, Python literals, which are parsed and never evaluated."""

import ast
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from mmm4rec_hf.plain_json import read_json

from .files import DECOMPRESSION_ERRORS, decoded, open_bytes

logger = logging.getLogger(__name__)

REPORTED_LINES = 10
# Reviews and metadata take some kilobytes, features in an items file a hundred; a longer line is never read whole.
MAX_LINE_BYTES = 16 << 20
# Literals take Python's own parser a thousand times their size.
MAX_LITERAL_CHARACTERS = 1 << 20
# Deeper ones can be read, and end what writes or compares them.
MAX_DEPTH = 64

# What to call a record in messages, and the record.
Record = tuple[str, Mapping[str, Any]]


def json_records(path: Path, bad_lines: list[int]) -> Iterator[Record]:
    """The records of a file of one a line, or of one JSON array. Bytes that are no UTF-8 are read as Windows-1252.

    Args:
        path (`Path`): The file, plain or compressed.
        bad_lines (`list[int]`):
            Gets the numbers of lines that are neither JSON nor a Python literal of a dictionary, or longer or nested
            deeper than any data.

    Raises:
        ValueError: For a file that cannot be decompressed, or begins like an array and is none.
    """
    name = str(path)
    try:
        with open_bytes(path) as file:
            if file.peek(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):  # type: ignore[attr-defined]
                yield from _array(path, file.read(), bad_lines)
                return
            for number, line in enumerate(_lines(file), start=1):
                if not line.strip():
                    continue
                record = None if len(line) > MAX_LINE_BYTES else parse_line(line)
                if record is None:
                    bad_lines.append(number)
                else:
                    yield f"{name}, line {number}", record
    except DECOMPRESSION_ERRORS as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    """The lines of a file, of one that is too long its beginning, one byte longer than may be."""
    while line := file.readline(MAX_LINE_BYTES + 1):
        yield line
        while len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE_BYTES + 1)


def log_bad_lines(path: Path, numbers: list[int]) -> None:
    """Says which lines were dropped."""
    if numbers:
        shown = ", ".join(map(str, numbers[:REPORTED_LINES])) + (", ..." if len(numbers) > REPORTED_LINES else "")
        logger.warning("%s: dropped %d lines that are no records: %s", path, len(numbers), shown)


def parse_line(line: bytes) -> dict[str, Any] | None:
    """The record of a line; None where there is none. Of a key that stands twice the last value counts, as in JSON."""
    text = decoded(line)
    try:
        record = read_json(text)
    except ValueError:
        record = _literal(text)
    return record if isinstance(record, dict) and not _is_deep(record) else None


def _literal(text: str) -> Any:
    """A Python literal, which is parsed and never evaluated; None where there is none."""
    if len(text) > MAX_LITERAL_CHARACTERS:
        return None
    try:
        value = ast.literal_eval(text.strip())
        # Integers beyond what Python writes in decimals can be given in hexadecimals.
        repr(value)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None
    return value


def _is_deep(value: Any) -> bool:
    """Whether lists and dictionaries lie in each other deeper than those of data."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, dict | list | tuple | set)
        ]
        if not level:
            return False
    return True


def _array(path: Path, content: bytes, bad_lines: list[int]) -> Iterator[Record]:
    """The records of a file that is one JSON array."""
    try:
        records = read_json(decoded(content))
    except ValueError as error:
        raise ValueError(f"{path} begins like a JSON array, but is none: {error}") from error
    for number, record in enumerate(records, start=1):
        if isinstance(record, dict) and not _is_deep(record):
            yield f"{path}, record {number}", record
        else:
            bad_lines.append(number)
