"""Logs that are in memory already, or on an engine: data frames, `datasets.Dataset`, lists of dictionaries."""

from collections.abc import Iterable, Mapping
from typing import Any

import datasets
import narwhals as nw
import polars as pl
import pyarrow as pa

from .. import engines
from ..columns import LogColumns
from .files import RawLog
from .records import READERS, TYPES, read_records


def read_frame(source: Any, columns: LogColumns) -> RawLog:
    """A log from a frame; lazy ones of DuckDB and PySpark stay on their engine, what is in memory goes to polars.

    Args:
        source (`datasets.Dataset`, data frame or `Iterable[Mapping]`): The log.
        columns (`LogColumns`): What is known of its columns.

    Raises:
        TypeError: For objects that are none of these.
        ValueError: For unknown or ambiguous columns, and columns of mixed types.
    """
    where = f"the {type(source).__name__}"
    if isinstance(source, datasets.DatasetDict | datasets.IterableDatasetDict):
        raise TypeError(f"a log is one dataset, got splits {list(source)}; give one of them, or concatenate them")
    if isinstance(source, datasets.Dataset):
        found = columns.resolve(source.column_names, where)
        # Only what is needed: other columns may hold pictures, which would be decoded.
        source = source.select_columns(list(found.values())).with_format("arrow")[:]
    frame = nw.from_native(source, pass_through=True)
    if isinstance(frame, nw.LazyFrame):
        return RawLog(engines.adopted(frame), columns, where)
    if not isinstance(frame, nw.DataFrame):
        if isinstance(source, Iterable):
            return read_records(_dictionaries(source), columns, where)
        raise TypeError(
            "a log must be a path, a data frame, a datasets.Dataset or a list of dictionaries, got "
            f"{type(source).__name__}"
        )
    found = columns.resolve(frame.columns, where)
    values = pl.DataFrame({ours: _values(frame[theirs], ours, where) for ours, theirs in found.items()})
    return RawLog(nw.from_native(values.lazy()), LogColumns.ours(found), where)


def _dictionaries(source: Iterable[Any]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    for row, record in enumerate(source):
        if not isinstance(record, Mapping):
            raise TypeError(f"row {row} of the log is {type(record).__name__}; expected a dictionary")
        yield f"row {row}", record


def _values(column: nw.Series, ours: str, where: str) -> pl.Series:
    """A column in polars; columns of Python objects value by value, so that large integers stay exact."""
    if column.dtype == nw.Object:
        values = zip(column, column.is_null().to_list(), strict=True)
        read = [
            READERS[ours](None if is_missing else value, f"row {row} of {where}")
            for row, (value, is_missing) in enumerate(values)
        ]
        return pl.Series(read, dtype=TYPES[ours])
    try:
        return column.to_polars()
    except (pa.ArrowException, pl.exceptions.PolarsError, TypeError, OverflowError) as error:
        raise ValueError(f"the {ours} column of {where} holds values that are not of one type: {error}") from error
