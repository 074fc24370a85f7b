"""Logs in Parquet: one file, many, or a folder of parts."""

from pathlib import Path

import narwhals as nw
import polars as pl

from ..columns import LogColumns
from .files import RawLog, describe


def read_parquet(paths: list[Path], columns: LogColumns) -> RawLog:
    """A log from Parquet files with the same columns, one after the other; only the columns needed are read.

    Raises:
        ValueError: For files that are no Parquet or differ in their columns, and unknown or ambiguous columns.
    """
    where = describe(paths)
    try:
        frame = pl.scan_parquet(paths, glob=False)
        found = columns.resolve(frame.collect_schema().names(), where)
        frame = frame.select(pl.col(theirs).alias(ours) for ours, theirs in found.items()).collect().lazy()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise ValueError(f"{where} cannot be read as Parquet: {str(error).splitlines()[0]}") from error
    return RawLog(nw.from_native(frame), LogColumns(**{name: name for name in found}), where)
