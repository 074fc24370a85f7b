"""Logs of one record a line: JSON or, in old Amazon files, Python literals, which are parsed and never evaluated."""

import ast
import json
import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

import narwhals as nw
import polars as pl

from mmm4rec_hf.modeling.ids_mmm4rec import canonical_id

from ..columns import LogColumns
from .files import DECOMPRESSION_ERRORS, RawLog, describe, open_bytes

logger = logging.getLogger(__name__)

# Records may lack fields, so the columns are told by the first of them together.
RECORDS_FOR_COLUMNS = 100
RECORDS_PER_PART = 100_000
REPORTED_LINES = 10

Record = tuple[str, Mapping[str, Any]]


def read_json_lines(paths: list[Path], columns: LogColumns) -> RawLog:
    """A log from one or many files of one record a line, one after the other.

    A line that is neither JSON nor a Python literal of a dictionary is dropped, counted as `bad_lines` and logged with
    its number. Bytes that are no UTF-8 are read as latin-1.

    Raises:
        ValueError: If no line of the files is a record, or a record's values cannot be read; naming the line.
    """
    bad_lines: dict[Path, list[int]] = {path: [] for path in paths}
    records = chain.from_iterable(_records(path, bad_lines[path]) for path in paths)
    raw = read_records(records, columns, describe(paths))
    for path, numbers in bad_lines.items():
        if numbers:
            shown = ", ".join(map(str, numbers[:REPORTED_LINES])) + (", ..." if len(numbers) > REPORTED_LINES else "")
            logger.warning("%s: dropped %d lines that are no records: %s", path, len(numbers), shown)
    return RawLog(raw.frame, raw.columns, raw.where, {"bad_lines": sum(map(len, bad_lines.values()))})


def read_records(records: Iterable[Record], columns: LogColumns, where: str) -> RawLog:
    """A log from dictionaries, each with the place to name in errors."""
    records = iter(records)
    first = list(islice(records, RECORDS_FOR_COLUMNS))
    if not first:
        raise ValueError(f"{where} holds no records: one JSON object a line is expected")
    names = list(dict.fromkeys(name for _, record in first for name in record))
    found = columns.resolve(names, where)
    parts = []
    records = chain(first, records)
    while part := list(islice(records, RECORDS_PER_PART)):
        values = {
            ours: [READERS[ours](record.get(theirs), place) for place, record in part]
            for ours, theirs in found.items()
        }
        parts.append(pl.DataFrame(values, schema={ours: TYPES[ours] for ours in found}))
    frame = nw.from_native(pl.concat(parts).lazy())
    return RawLog(frame, LogColumns(**{ours: ours for ours in found}), where)


def parse_line(line: bytes) -> dict[str, Any] | None:
    """The record of a line; None where there is none."""
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = line.decode("latin-1")
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        try:
            record = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            return None
    return record if isinstance(record, dict) else None


def _records(path: Path, bad_lines: list[int]) -> Iterator[Record]:
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


def _array(path: Path, content: bytes, bad_lines: list[int]) -> Iterator[Record]:
    """The records of a file that is one JSON array."""
    try:
        records = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} begins like a JSON array, but is none: {error}") from error
    for number, record in enumerate(records, start=1):
        if isinstance(record, dict):
            yield f"{path}, record {number}", record
        else:
            bad_lines.append(number)


def _id(value: Any, place: str) -> str | None:
    if value is None or value == "":
        return None
    try:
        return canonical_id(value)
    except TypeError as error:
        raise TypeError(f"{place}: {error}") from None


def _time(value: Any, place: str) -> str | None:
    """A time as a string, whatever it is: the whole column is read by the same rules later."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise ValueError(f"{place}: the timestamp is missing; drop such records or give them a time")
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TypeError(f"{place}: the timestamp is {value!r}; expected a number or an ISO 8601 string")
    return value if isinstance(value, str) else str(value)


def _rating(value: Any, place: str) -> float | None:
    return float(value) if isinstance(value, int | float) and abs(value) < 2**53 else None


def _order(value: Any, place: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 2**63:
        raise TypeError(f"{place}: the order is {value!r}; expected an integer")
    return value


READERS = {"user_id": _id, "item_id": _id, "timestamp": _time, "rating": _rating, "order": _order}
TYPES = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.String, "rating": pl.Float64, "order": pl.Int64}
