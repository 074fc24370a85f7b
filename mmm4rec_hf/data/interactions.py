"""Any log of who used what when, as one frame of known columns."""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import narwhals as nw

from .columns import LogColumns
from .normalization import normalized_log
from .published import is_published, read_published
from .readers.amazon import read_amazon_2018, read_amazon_2023
from .readers.delimited import read_delimited
from .readers.files import KINDS, RawLog, existing_paths, kind_of, log_files
from .readers.frames import read_frame
from .readers.movielens import ratings_file, read_movielens
from .readers.parquet import read_parquet
from .readers.recbole import read_recbole
from .readers.records import read_json_lines

logger = logging.getLogger(__name__)

FOLDER_FORMATS = ("movielens", "recbole", "published", "dataset")
FORMATS = ("auto", "csv", "tsv", "jsonl", "parquet", "amazon-2018", "amazon-2023", *FOLDER_FORMATS)


@dataclass(frozen=True)
class Interactions:
    """A log of interactions in known columns, on the engine that holds it.

    Args:
        frame (`nw.LazyFrame`): One row an event: `user_id` and `item_id` (string), `timestamp` (int64 unix seconds),
            `order` (int64, the log's own order), `row` (int64, the order of the rows, where another column is the
            log's order), `rating` (float64, if the log has one) and `subsecond` (int64 nanoseconds, if the log's clock
            is finer than a second).
        statistics (`dict[str, int]`): `rows_read`, and what was dropped by reason: `rows_without_user`,
            `rows_without_item`, `bad_lines`.
        deduplicated (`bool`, *optional*, defaults to `False`): Whether rows that agree in all they hold are events of
            their own, as in the published format.
        item_ids (`list[str]`, *optional*): The items in the log's own order, as in the published format.
        time_unit (`str`, *optional*): The unit of the log's numbers, where it was told.
        time_format (`str`, *optional*): How the log writes its times, where it was told.
    """

    frame: nw.LazyFrame
    statistics: dict[str, int]
    deduplicated: bool = False
    item_ids: list[str] | None = None
    time_unit: str | None = None
    time_format: str | None = None


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
    time_format: str | None = None,
    usual_columns: Mapping[str, str] | None = None,
) -> Interactions:
    """Read a log of interactions from files or a data frame.

    Columns are found by their usual names (`user_id`, `userId`, `reviewerID`, `item_id`, `movieId`, `asin`,
    `timestamp`, `unixReviewTime`, ...) or told. Rows without a user or an item id are dropped, counted and logged.

    Args:
        source (`str`, `os.PathLike`, `list` of these, data frame or `datasets.Dataset`): A file, a folder, several
            files of one kind, or a frame of any library narwhals knows. Frames of DuckDB and PySpark stay on their
            engine.
        format (`str`, *optional*, defaults to `"auto"`): `"csv"`, `"tsv"`, `"jsonl"`, `"parquet"`, `"amazon-2018"`,
            `"amazon-2023"`, `"movielens"`, `"recbole"`, `"published"` or `"dataset"`
            (what `datasets` saved to disk). `"auto"` goes by the names of the files; only
            the headerless CSV of Amazon 2018 has to be named.
        user_column (`str`, *optional*): The column of user ids.
        item_column (`str`, *optional*): The column of item ids.
        timestamp_column (`str`, *optional*): The column of times: numbers, ISO 8601 strings or datetimes.
        rating_column (`str`, *optional*): The column of ratings.
        order_column (`str`, *optional*): Integers that order events of the same time; where these are equal, as by
            default, the order of the rows does.
        time_unit (`str`, *optional*): `"s"`, `"ms"`, `"us"` or `"ns"`; by default told by the numbers' magnitude.
        time_format (`str`, *optional*): How times are written that are no ISO 8601, by the directives of `strftime`,
            such as `"%d.%m.%Y %H:%M"`, `"%m/%d/%Y %I:%M %p"` or `"%Y%m%d"`; they are taken for UTC.
        usual_columns (`Mapping[str, str]`, *optional*): What columns are called in other logs of the same source, such
            as `{"user_column": "kunde"}`, and their `time_format`: it counts where nothing is told and the log has
            such a column, and writes all of its times so.

    Returns:
        `Interactions`: The log, its ids as strings and its times as int64 unix seconds.

    Raises:
        FileNotFoundError: For a path that does not exist.
        ValueError: For files, columns or values that cannot be read, naming them and the remedy.
        TypeError: For sources and columns of an unknown type.
    """
    columns = LogColumns(user_column, item_column, timestamp_column, rating_column, order_column, usual_columns or {})
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {format!r}")
    if _names_files(source):
        raw = _read_files(existing_paths(source), format, columns)
    elif format == "auto":
        raw = read_frame(source, columns)
    else:
        raise ValueError(f"format={format!r} is for files, got {type(source).__name__}; leave it out")
    unit = "ms" if format == "amazon-2023" and time_unit is None else time_unit
    frame, statistics = normalized_log(raw, unit, time_format, (usual_columns or {}).get("time_format"))
    logger.info("%s: read %d rows", raw.where, statistics["rows_read"])
    return Interactions(frame, statistics, raw.deduplicated, raw.item_ids, time_unit, time_format)


def _names_files(source: Any) -> bool:
    if isinstance(source, list | tuple):
        return all(isinstance(path, str | os.PathLike) for path in source)
    return isinstance(source, str | os.PathLike)


def _read_files(paths: list[Path], format: str, columns: LogColumns) -> RawLog:
    if format == "auto" and len(paths) == 1:
        format = _format_of(paths[0])
    if format in FOLDER_FORMATS:
        if len(paths) > 1:
            raise ValueError(f"format={format!r} takes one folder or file, got {len(paths)}")
        return _read_folder(paths[0], format, columns)
    files = log_files(paths, any_kind=format != "auto")
    if format == "amazon-2018":
        return read_amazon_2018(files, columns)
    if format == "amazon-2023":
        return read_amazon_2023(files, columns)
    kind = KINDS[kind_of(files[0])] if format == "auto" else format
    if kind == "jsonl":
        return read_json_lines(files, columns)
    if kind == "parquet":
        return read_parquet(files, columns)
    return read_delimited(files, columns, separator="\t" if kind == "tsv" else None)


def _read_folder(path: Path, format: str, columns: LogColumns) -> RawLog:
    if format == "recbole":
        return read_recbole(path, columns)
    if format == "movielens":
        return read_movielens(path, columns)
    if format == "published":
        return read_published(path)
    return read_frame(datasets.load_from_disk(str(path)), columns)


def _format_of(path: Path) -> str:
    """The format of what has a layout of its own, told by file names; `"auto"` for plain files and folders of them."""
    if path.suffix == ".inter" or (path.is_dir() and any(path.glob("*.inter"))):
        return "recbole"
    if path.name in ("u.data", "ratings.dat"):
        return "movielens"
    if path.is_dir():
        if is_published(path):
            return "published"
        ratings = ratings_file(path)
        if ratings is not None and (ratings.suffix != ".csv" or (path / "movies.csv").is_file()):
            return "movielens"
        if (path / "dataset_info.json").is_file() or (path / "dataset_dict.json").is_file():
            return "dataset"
    return "auto"
