"""Amazon reviews: the ratings-only CSV and the reviews of 2018, and the files of 2023."""

from dataclasses import replace
from pathlib import Path

from ..columns import LogColumns
from .delimited import read_delimited
from .files import RawLog, kind_of
from .records import read_json_lines

RATINGS_2018 = ["asin", "reviewerID", "overall", "unixReviewTime"]


def read_amazon_2018(paths: list[Path], columns: LogColumns) -> RawLog:
    """Ratings-only CSV files, which have no header, or files of reviews, one JSON object or Python literal a line."""
    columns = _with_defaults(
        columns, user_id="reviewerID", item_id="asin", timestamp="unixReviewTime", rating="overall"
    )
    if kind_of(paths[0]) == ".csv":
        return read_delimited(paths, columns, separator=",", header=RATINGS_2018)
    return read_json_lines(paths, columns)


def read_amazon_2023(paths: list[Path], columns: LogColumns) -> RawLog:
    """Reviews of 2023, JSON lines or the ratings' CSV; items are the parents, as in their metadata."""
    columns = _with_defaults(columns, user_id="user_id", item_id="parent_asin", timestamp="timestamp", rating="rating")
    return (
        read_delimited(paths, columns, separator=",")
        if kind_of(paths[0]) == ".csv"
        else read_json_lines(paths, columns)
    )


def _with_defaults(columns: LogColumns, **names: str) -> LogColumns:
    told = {ours: name for ours, name in vars(columns).items() if name is not None}
    return replace(columns, **(names | told))
