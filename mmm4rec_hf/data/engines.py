"""What narwhals leaves to each engine: the order of the rows, keeping an intermediate result, and getting rows out.

The log is filtered and split by narwhals expressions alone, wherever the frame lives: polars for files and data frames
in memory, DuckDB and Spark for frames of theirs, which stay there until the finished events are written out.
"""

import tempfile
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import narwhals as nw
import polars as pl
import pyarrow as pa
import pyarrow.dataset as pads

ENGINES = (nw.Implementation.POLARS, nw.Implementation.DUCKDB, nw.Implementation.PYSPARK)


def adopted(frame: nw.LazyFrame) -> nw.LazyFrame:
    """The frame itself, if its engine is one that can do the work.

    Raises:
        TypeError: If it is neither polars, DuckDB nor PySpark.
    """
    if frame.implementation not in ENGINES:
        raise TypeError(
            f"lazy frames must be of polars, DuckDB or PySpark, got {frame.implementation}; collect it, or write it "
            "to Parquet and give the file"
        )
    return frame


def with_row_numbers(frame: nw.LazyFrame, name: str) -> nw.LazyFrame:
    """The frame with an int64 column that counts up in the engine's row order: narwhals numbers lazy rows by a column.

    Spark's numbers have gaps, and follow the order of its partitions: that of the file for a file read as it is.
    """
    native: Any = frame.to_native()
    if frame.implementation is nw.Implementation.DUCKDB:
        return nw.from_native(native.project(f'*, row_number() OVER () AS "{name}"'))
    if frame.implementation is nw.Implementation.PYSPARK:
        from pyspark.sql import functions

        return nw.from_native(native.withColumn(name, functions.monotonically_increasing_id()))
    return nw.from_native(native.with_row_index(name).with_columns(pl.col(name).cast(pl.Int64)))


def with_epoch_microseconds(frame: nw.LazyFrame, name: str) -> nw.LazyFrame:
    """The frame with a date or datetime column replaced by int64 microseconds since 1970; without a zone it is UTC.

    narwhals has no such number on lazy SQL engines, and Spark reads naive times in the zone of its session.
    """
    native: Any = frame.to_native()
    if frame.implementation is nw.Implementation.DUCKDB:
        dtype = frame.collect_schema()[name]
        instant = f'"{name}"' if isinstance(dtype, nw.Datetime) and dtype.time_zone else f'"{name}"::TIMESTAMP'
        return nw.from_native(native.project(f'* REPLACE (epoch_us({instant}) AS "{name}")'))
    if frame.implementation is nw.Implementation.PYSPARK:
        from pyspark.sql import functions

        if native.schema[name].dataType.typeName() == "timestamp":
            return nw.from_native(native.withColumn(name, functions.unix_micros(name)))
        since = f"timestampdiff(MICROSECOND, TIMESTAMP_NTZ'1970-01-01 00:00:00', CAST(`{name}` AS TIMESTAMP_NTZ))"
        return nw.from_native(native.withColumn(name, functions.expr(since)))
    return frame.with_columns(nw.col(name).cast(nw.Datetime("us")).dt.timestamp("us"))


def holds_nanoseconds(frame: nw.LazyFrame, name: str) -> bool:
    """Whether a column is of points in time to the nanosecond."""
    if frame.implementation is nw.Implementation.DUCKDB:
        # narwhals knows none of those with a zone.
        native: Any = frame.to_native()
        return str(native.types[native.columns.index(name)]) in ("TIMESTAMP_NS", "TIMESTAMPTZ_NS")
    dtype = frame.collect_schema()[name]
    return isinstance(dtype, nw.Datetime) and dtype.time_unit == "ns"


def with_epoch_nanoseconds(frame: nw.LazyFrame, name: str) -> nw.LazyFrame:
    """The frame with a column that [`holds_nanoseconds`] replaced by their int64 number since 1970, UTC."""
    if frame.implementation is nw.Implementation.DUCKDB:
        native: Any = frame.to_native()
        # The infinities are missing, as in `epoch_us`; DuckDB before 1.4 gives the least and the largest number.
        number = f'epoch_ns("{name}")'
        finite = f"nullif(nullif({number}, 9223372036854775807), -9223372036854775807)"
        return nw.from_native(native.project(f'* REPLACE ({finite} AS "{name}")'))
    return frame.with_columns(nw.col(name).dt.timestamp("ns"))


def compared_to_the_letter(frame: nw.LazyFrame, names: Sequence[str]) -> nw.LazyFrame:
    """The frame with columns of strings that are compared and sorted by their bytes, whatever their collation was."""
    native: Any = frame.to_native()
    if frame.implementation is nw.Implementation.DUCKDB:
        replaced = ", ".join(f'"{name}" COLLATE "binary" AS "{name}"' for name in names)
        return nw.from_native(native.project(f"* REPLACE ({replaced})"))
    if frame.implementation is nw.Implementation.PYSPARK:
        from pyspark.sql import functions

        # Before Spark 4 there are no others.
        if hasattr(functions, "collate"):
            columns = {name: functions.collate(name, "UTF8_BINARY") for name in names}
            return nw.from_native(native.withColumns(columns))
    return frame


def in_order(frame: nw.LazyFrame, *names: str) -> nw.LazyFrame:
    """The rows sorted by columns without missing values, the least first.

    narwhals leaves the direction of a sort to DuckDB, where a setting of the connection may turn it.
    """
    if frame.implementation is nw.Implementation.DUCKDB:
        native: Any = frame.to_native()
        return nw.from_native(native.order(", ".join(f'"{name}" ASC' for name in names)))
    return frame.sort(*names)


def keep(frame: nw.LazyFrame) -> nw.LazyFrame:
    """The same rows computed once and for all, so that a loop over them does not repeat all that came before."""
    native: Any = frame.to_native()
    if frame.implementation is nw.Implementation.DUCKDB:
        # A temporary table, gone with the connection: the relation's own methods for this differ by DuckDB's version.
        name = f"mmm4rec_{uuid.uuid4().hex}"
        native.query("source", f"CREATE TEMP TABLE {name} AS SELECT * FROM source")
        return nw.from_native(native.query("source", f"SELECT * FROM {name}"))
    if frame.implementation is nw.Implementation.PYSPARK:
        # A checkpoint and not a cache: it also cuts the plan, which otherwise grows with each round.
        return nw.from_native(native.localCheckpoint(eager=True))
    return nw.from_native(native.collect().lazy())


def strings_beside(frame: nw.LazyFrame, name: str, values: Sequence[str]) -> nw.LazyFrame:
    """A one-column table in the engine that holds `frame`, to join with it."""
    native: Any = frame.to_native()
    if frame.implementation is nw.Implementation.DUCKDB:
        quoted = ", ".join("'" + value.replace("'", "''") + "'" for value in values)
        return nw.from_native(native.query("source", f'SELECT unnest([{quoted}]::VARCHAR[]) AS "{name}"'))
    if frame.implementation is nw.Implementation.PYSPARK:
        return nw.from_native(native.sparkSession.createDataFrame([(value,) for value in values], f"{name} string"))
    return nw.from_native(pl.LazyFrame({name: values}, schema={name: pl.String}))


def beside(frame: nw.LazyFrame, table: pl.DataFrame) -> nw.LazyFrame:
    """A table of strings, 32-bit integers and floats in the engine that holds `frame`, its rows in their order."""
    native: Any = frame.to_native()
    if frame.implementation is nw.Implementation.DUCKDB:
        # By a file: a relation tells its connection no other way of taking a table of another library.
        name = f"mmm4rec_{uuid.uuid4().hex}"
        with tempfile.TemporaryDirectory(prefix="mmm4rec-table-") as folder:
            path = Path(folder) / "table.parquet"
            table.write_parquet(path)
            quoted = str(path).replace("'", "''")
            native.query("source", f"CREATE TEMP TABLE {name} AS SELECT * FROM read_parquet('{quoted}')")
        return nw.from_native(native.query("source", f"SELECT * FROM {name}"))
    if frame.implementation is nw.Implementation.PYSPARK:
        types = {pl.String: "string", pl.Int32: "int", pl.Float64: "double"}
        schema = ", ".join(f"`{name}` {types[dtype.base_type()]}" for name, dtype in table.schema.items())
        return nw.from_native(native.sparkSession.createDataFrame(table.rows(), schema))
    return nw.from_native(table.lazy())


def one_row(frame: nw.LazyFrame) -> dict[str, Any]:
    """The only row of an aggregate, as Python values."""
    row = frame.collect("polars").row(0)
    return dict(zip(frame.collect_schema().names(), row, strict=True))


def count(frame: nw.LazyFrame) -> int:
    """The number of rows."""
    return int(one_row(frame.select(rows=nw.len()))["rows"])


def stream(frame: nw.LazyFrame) -> Iterator[pa.RecordBatch]:
    """The rows in their order, a batch at a time; DuckDB and Spark write Parquet, which is read back piecewise."""
    if frame.implementation is nw.Implementation.POLARS:
        yield from frame.to_native().collect().to_arrow().to_batches()
        return
    with tempfile.TemporaryDirectory(prefix="mmm4rec-events-") as folder:
        target = Path(folder) / "events.parquet"
        if frame.implementation is nw.Implementation.DUCKDB:
            # By its own connection: earlier narwhals ask the default one, to which the frame is a stranger.
            frame.to_native().write_parquet(str(target))
        else:
            frame.sink_parquet(str(target))
        # Spark writes a folder of numbered parts in the order of a sort; its own marker files are no Parquet.
        parts = sorted(target.glob("*.parquet")) if target.is_dir() else [target]
        for part in parts:
            yield from pads.dataset(str(part), format="parquet").to_batches()
