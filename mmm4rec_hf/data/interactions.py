"""Any log of who used what when, as one frame of known columns."""

import logging
import os
from dataclasses import dataclass
from typing import Any

import narwhals as nw

from mmm4rec_hf.data import engines
from mmm4rec_hf.data.canonical import canonical_log
from mmm4rec_hf.data.columns import LogColumns
from mmm4rec_hf.data.readers.delimited import read_delimited
from mmm4rec_hf.data.readers.files import RawLog, existing_paths
from mmm4rec_hf.data.readers.recbole import read_recbole

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Interactions:
    """A log of interactions in known columns, on the engine that holds it.

    Args:
        frame (`nw.LazyFrame`): One row an event: `user_id` and `item_id` (string), `timestamp` (int64 unix seconds),
            `order` (int64, the log's own order), `rating` (float64, if the log has one) and `subsecond` (int64
            nanoseconds, if the log's clock is finer than a second).
        statistics (`dict[str, int]`): `rows_read`, and what was dropped by reason: `rows_without_user`,
            `rows_without_item`, `bad_lines`.
    """

    frame: nw.LazyFrame
    statistics: dict[str, int]


def load_interactions(
    source: Any,
    format: str = "auto",
    *,
    user_column: str | None = None,
    item_column: str | None = None,
    timestamp_column: str | None = None,
    rating_column: str | None = None,
    order_column: str | None = None,
    time_unit: str | None = None,
) -> Interactions:
    """Read a log of interactions from files or a data frame.

    Columns are found by their usual names (`user_id`, `userId`, `reviewerID`, `item_id`, `movieId`, `asin`,
    `timestamp`, `unixReviewTime`, ...) or told. Rows without a user or an item id are dropped, counted and logged.

    Args:
        source (`str`, `os.PathLike`, `list` of these, data frame or `datasets.Dataset`): A file, a folder, several
            files of one kind, or a frame of any library narwhals knows. Frames of DuckDB and PySpark stay on their
            engine.
        format (`str`, *optional*, defaults to `"auto"`): `"csv"`, `"tsv"`, `"recbole"`; `"auto"` goes by the names.
        user_column (`str`, *optional*): The column of user ids.
        item_column (`str`, *optional*): The column of item ids.
        timestamp_column (`str`, *optional*): The column of times: numbers, ISO 8601 strings or datetimes.
        rating_column (`str`, *optional*): The column of ratings.
        order_column (`str`, *optional*): Integers that order events of the same time; by default the order of the
            rows.
        time_unit (`str`, *optional*): `"s"`, `"ms"`, `"us"` or `"ns"`; by default told by the numbers' magnitude.

    Returns:
        `Interactions`: The log, its ids as strings and its times as int64 unix seconds.

    Raises:
        FileNotFoundError: For a path that does not exist.
        ValueError: For files, columns or values that cannot be read, naming them and the remedy.
        TypeError: For sources and columns of an unknown type.
    """
    columns = LogColumns(user_column, item_column, timestamp_column, rating_column, order_column)
    if isinstance(source, str | os.PathLike | list | tuple):
        raw = _read_files(source, format, columns)
    else:
        raw = RawLog(engines.adopt(source), columns, f"the {type(source).__name__}")
    frame, statistics = canonical_log(raw, time_unit)
    logger.info("%s: read %d rows", raw.where, statistics["rows_read"])
    return Interactions(frame, statistics)


def _read_files(source: Any, format: str, columns: LogColumns) -> RawLog:
    paths = existing_paths(source)
    if format == "recbole" or (format == "auto" and paths[0].suffix == ".inter"):
        return read_recbole(paths[0], columns)
    return read_delimited(paths, columns)
