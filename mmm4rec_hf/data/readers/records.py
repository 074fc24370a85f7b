"""Logs of records: files of one a line, and dictionaries in memory."""

from collections.abc import Iterable
from datetime import date
from decimal import Decimal
from itertools import chain, islice
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import narwhals as nw
import numpy as np
import polars as pl

from mmm4rec_hf.modeling.ids_mmm4rec import canonical_id

from ..columns import LogColumns
from .files import RawLog, describe
from .json_lines import Record, json_records, log_bad_lines

# Records may lack fields, so the columns are told by the first of them together.
RECORDS_FOR_COLUMNS = 100
RECORDS_PER_PART = 100_000


def read_json_lines(paths: list[Path], columns: LogColumns) -> RawLog:
    """A log from one or many files of one record a line, one after the other.

    A line that is neither JSON nor a Python literal of a dictionary is dropped, counted as `bad_lines` and logged with
    its number. Bytes that are no UTF-8 are read as Windows-1252.

    Raises:
        ValueError: If no line of the files is a record, or a record's values cannot be read; naming the line.
    """
    bad_lines: dict[Path, list[int]] = {path: [] for path in paths}
    records = chain.from_iterable(json_records(path, bad_lines[path]) for path in paths)
    raw = read_records(records, columns, describe(paths))
    for path, numbers in bad_lines.items():
        log_bad_lines(path, numbers)
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
    return RawLog(frame, LogColumns.ours(found), where)


def _id(value: Any, place: str) -> str | None:
    if value is None or value == "":
        return None
    try:
        return canonical_id(value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{place}: {error}") from None


def _time(value: Any, place: str) -> str:
    """A time as a string, whatever it is: the whole column is read by the same rules later.

    Raises:
        ValueError: For a missing one, and a float that may have lost digits.
        TypeError: For what is no time.
    """
    # NaN, NaT and their kind are the values that differ from themselves.
    if value is None or (isinstance(value, Real | date | np.datetime64) and value != value):
        raise ValueError(f"{place}: the timestamp is missing; drop such records or give them a time")
    if isinstance(value, str):
        return value
    if isinstance(value, Integral) and not isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float) and abs(value) >= 2**53:
        raise ValueError(f"{place}: the timestamp {value!r} is a float that may have lost digits; give an integer")
    if isinstance(value, float | Decimal):
        return format(Decimal(str(value)), "f")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, np.datetime64):
        return str(value)
    raise TypeError(f"{place}: the timestamp is {value!r}; expected a number, an ISO 8601 string or a datetime")


def _rating(value: Any, place: str) -> float | None:
    # No model reads the ratings, so one that is no number is a missing one.
    if not isinstance(value, Real | Decimal):
        return None
    try:
        number = float(value)
    except (OverflowError, ValueError):
        return None
    return number if abs(number) < 2**53 else None


def _order(value: Any, place: str) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or abs(int(value)) >= 2**63:
        raise TypeError(f"{place}: the order is {value!r}; expected an integer")
    return int(value)


# How a value of each of our columns is read wherever it comes as a Python object, and the type of its column.
READERS = {"user_id": _id, "item_id": _id, "timestamp": _time, "rating": _rating, "order": _order}
TYPES = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.String, "rating": pl.Float64, "order": pl.Int64}
