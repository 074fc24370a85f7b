"""
Parquet: logs of one file, many, or a folder of parts, and tables; and what a small file may unpack to.

PyArrow reads them, as polars asks for as much memory as a damaged page says, and ends the process where there is less.
"""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import narwhals as nw
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ..columns import LogColumns
from .files import MOST_TIMES, RawLog, describe, most_unpacked

# What a value takes in memory at least, a missing one too.
VALUE_BYTES = 8
TEXTS = (pl.String, pl.Binary, pl.Categorical, pl.Enum)
DAMAGE = (pl.exceptions.PolarsError, pl.exceptions.PanicException, pa.ArrowException, OSError)


def read_parquet(paths: list[Path], columns: LogColumns) -> RawLog:
    """A log from Parquet files with the same columns, one after the other; only the columns needed are read.

    Raises:
        ValueError: For files that are no Parquet, differ in their columns, or in types that no one type holds without
            loss, or hold far more than their size, and for unknown or ambiguous columns.
    """
    where = describe(paths)
    try:
        names = [pq.read_schema(path).names for path in paths]
        found = columns.resolve(names[0], where)
        for path, others in zip(paths, names, strict=True):
            # Columns that nobody reads, such as the index of a filtered data frame, may stand in some files alone.
            if others != names[0] and columns.resolve(others, str(path)) != found:
                differing = ", ".join(sorted(set(names[0]) ^ set(others)))
                raise ValueError(
                    f"{path} and {paths[0]} differ in their columns, by {differing}; prepare files of the same columns"
                )
        check_declared(paths, found.values())
        tables = [_frame(_open(path).read(columns=list(found.values()))) for path in paths]
    except DAMAGE as error:
        raise unreadable(where, error) from error
    table = pl.DataFrame(
        [_of_one_kind([table[theirs] for table in tables], ours, paths).alias(ours) for ours, theirs in found.items()]
    )
    check_unpacked(table, paths)
    return RawLog(nw.from_native(table.lazy()), LogColumns.ours(found), where)


def _of_one_kind(parts: list[pl.Series], ours: str, paths: Sequence[Path]) -> pl.Series:
    """
    A column of several files, one after the other, whose types may differ where nothing is lost by it.

    Raises:
        ValueError: For other types, naming the column and two of the files.
    """
    # A column of missing values alone has no type of its own.
    places = {part.dtype: place for place, part in reversed(list(enumerate(parts))) if part.dtype != pl.Null}
    kind = _common_kind(places, ours) if len(places) > 1 else next(iter(places), pl.Null())
    try:
        if kind is not None:
            return pl.concat([part if part.dtype == kind else _cast(part, kind) for part in parts])
        has_zone = any(getattr(kind, "time_zone", None) for kind in places)
        reason = "bring both to UTC, with a zone in both or in neither" if has_zone else "bring both to one type"
    except pl.exceptions.PolarsError as error:
        reason = str(error).splitlines()[0]
    (first, one), (second, other) = sorted(
        ((place, kind) for kind, place in places.items()), key=lambda pair: pair[0]
    )[:2]
    raise ValueError(
        f"the {ours} column {parts[0].name!r} is of type {one} in {paths[first]} and of type {other} in "
        f"{paths[second]}: {reason}"
    )


def _cast(part: pl.Series, kind: pl.DataType) -> pl.Series:
    cast = part.cast(kind)
    if isinstance(kind, pl.Datetime):
        # polars lets what nanoseconds cannot tell wrap around in earlier versions.
        lost = part.filter(cast.cast(part.dtype) != part)
        if len(lost):
            raise pl.exceptions.InvalidOperationError(f"{lost[0]} is no time from 1677 to 2262")
    return cast


def _common_kind(kinds: Collection[pl.DataType], ours: str) -> pl.DataType | None:
    """The type that takes the values of all these types as they are, if there is one."""
    integers = [kind for kind in kinds if kind.is_integer()]
    texts = [kind for kind in kinds if kind in (pl.String, pl.Categorical, pl.Enum)]
    if ours == "rating":
        return pl.Float64() if all(kind.is_numeric() for kind in kinds) else None
    if len(integers) + len(texts) == len(kinds):
        # Ids are text in the end, and times of text may be written in digits.
        return pl.String() if texts or ours.endswith("_id") else pl.Int64()
    if ours != "timestamp":
        return None
    if all(kind.is_integer() or kind == pl.Float64 for kind in kinds):
        # An integer that loses digits by it is beyond those that are taken of floats.
        return pl.Float64()
    if not all(isinstance(kind, pl.Date | pl.Datetime) for kind in kinds):
        return None
    zones = {getattr(kind, "time_zone", None) for kind in kinds}
    if len(zones) > 1 and None in zones:
        return None
    units: list[Any] = [getattr(kind, "time_unit", "ms") for kind in kinds]
    return pl.Datetime(max(units, key=("ms", "us", "ns").index), None if None in zones else "UTC")


def read_parquet_table(path: Path) -> pl.DataFrame:
    """
    A Parquet file as a whole.

    Raises:
        ValueError: If it is no Parquet, or holds far more than its size.
    """
    try:
        check_declared([path])
        table = _frame(_open(path).read())
    except DAMAGE as error:
        raise unreadable(path, error) from error
    check_unpacked(table, [path])
    return table


def read_parquet_batches(path: Path) -> Iterator[pl.DataFrame]:
    """A Parquet file a batch of rows after the other; errors are those of [`read_parquet_table`]."""
    try:
        check_declared([path])
        for batch in _open(path).iter_batches():
            table = _frame(batch)
            check_unpacked(table, [path])
            yield table
    except DAMAGE as error:
        raise unreadable(path, error) from error


def _open(path: Path) -> pq.ParquetFile:
    # Nanoseconds, which the times of older writers are read in otherwise, wrap around before 1677 and after 2262.
    return pq.ParquetFile(path, coerce_int96_timestamp_unit="us")


def _frame(table: pa.Table | pa.RecordBatch) -> pl.DataFrame:
    # Texts that are no UTF-8, and places beyond the end: polars takes what it is given for whole.
    table.validate(full=True)
    return pl.DataFrame(table)


def unreadable(where: str | Path, error: BaseException) -> ValueError:
    """What is told of files that are no Parquet, or damaged."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return ValueError(f"{where} cannot be read as Parquet: {reason}")


def check_declared(paths: Sequence[Path], columns: Collection[str] | None = None) -> None:
    """
    Reads the ends of Parquet files, which say how much they hold.

    Args:
        paths (`Sequence[Path]`): The files.
        columns (`Collection[str]`, *optional*): Those that will be read; by default all.

    Raises:
        ValueError: If that is more than 256 MB and 200 times their size.
        pyarrow.ArrowException, OSError: If they are no Parquet.
    """
    total = 0
    for path in paths:
        about = pq.read_metadata(path)
        for group in map(about.row_group, range(about.num_row_groups)):
            for chunk in map(group.column, range(about.num_columns)):
                name = chunk.path_in_schema
                if columns is None or any(name == column or name.startswith(f"{column}.") for column in columns):
                    total += max(chunk.total_uncompressed_size, VALUE_BYTES * chunk.num_values, 0)
    _check(total, paths)


def check_unpacked(table: pl.DataFrame, paths: Sequence[Path]) -> None:
    """
    Measures the texts of a table as whoever takes its rows gets them: in the file, and in the table too, each stands
    once and the rows point to it.

    Args:
        table (`pl.DataFrame`): What was read.
        paths (`Sequence[Path]`): From where.

    Raises:
        ValueError: If it is more than 256 MB and 200 times the size of the files.
    """
    _check(sum(map(_size, table.get_columns())), paths)


def _size(column: pl.Series) -> int:
    """The bytes of a column's texts."""
    kind = column.dtype
    if isinstance(kind, pl.List | pl.Array):
        # Numbers, such as features, are in the table as large as they are.
        return _size(column.explode()) if kind.inner in TEXTS or kind.inner.is_nested() else 0
    if isinstance(kind, pl.Struct):
        return sum(map(_size, column.struct.unnest().get_columns()))
    if kind == pl.Binary:
        return int(column.bin.size().sum())
    return int(column.cast(pl.String).str.len_bytes().sum()) if kind in TEXTS else 0


def _check(size: int, paths: Sequence[Path]) -> None:
    if size > most_unpacked(paths):
        raise ValueError(
            f"{describe(list(paths))} unpacks to {size:,} bytes, more than {MOST_TIMES} times its size, which no log "
            "or list of items does; write it as CSV if it is meant"
        )
