"""Recommendations for a data frame of events, as a data frame of the same kind."""

import os
from collections.abc import Callable
from typing import Any

import datasets
import narwhals as nw
import polars as pl
import pyarrow as pa

from .data import load_interactions
from .data.engines import beside
from .data.histories import stream_histories

COLUMNS = {
    "user_id": pl.String, "rank": pl.Int32, "item_id": pl.String, "score": pl.Float64, "text_score": pl.Float64,
    "image_score": pl.Float64, "title": pl.String,
}  # fmt: skip


def recommend_frame(
    recommender: Any,
    frame: Any,
    *,
    batch_size: int = 256,
    time_unit: str | None = None,
    time_format: str | None = None,
    user_column: str | None = None,
    item_column: str | None = None,
    timestamp_column: str | None = None,
    rating_column: str | None = None,
    order_column: str | None = None,
    **options: Any,
) -> Any:
    """
    Recommends items to every user of a log.

    Args:
        recommender ([`SequentialRecommendationPipeline`]): What recommends.
        frame (data frame that narwhals knows, `datasets.Dataset` or list of dictionaries):
            A row an event: user, item and time, in any order.
        batch_size (`int`, *optional*, defaults to 256): Users that are scored at once.
        time_unit, time_format, user_column, item_column, timestamp_column, rating_column, order_column (*optional*):
            As for [`load_interactions`]. All but the order are found by themselves by default; give the order that
            the log was prepared by. Duplicated rows count once, as there, and their number is logged.
        options: As for the pipeline: `top_k`, `exclude_history`, `candidates`, `unknown_items`, `empty_histories`.

    Returns:
        The same kind as was given, of columns `user_id`, `rank` (from 1 on), `item_id`, `score`,
        `text_score`, `image_score`, with `use_cooccurrence` also `cooccurrence_score`, and `title`; users in the order
        of their ids as strings. Lazy frames stay on their engine: polars', DuckDB's, as a temporary table of its
        connection, or Spark's.

    Raises:
        TypeError: If `frame` is of another kind, such as the name of a file.
        ValueError: If the frame has no such columns or no events, or as the pipeline.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    as_given = _as_given(frame)
    log = load_interactions(
        frame,
        time_unit=time_unit,
        time_format=time_format,
        user_column=user_column,
        item_column=item_column,
        timestamp_column=timestamp_column,
        rating_column=rating_column,
        order_column=order_column,
    )
    events = pl.DataFrame(pa.Table.from_batches(stream_histories(log)))
    users = events.group_by("user_id", maintain_order=True).agg("item_id", "timestamp")
    histories = [
        {"items": items, "timestamps": times}
        for items, times in zip(users["item_id"].to_list(), users["timestamp"].to_list(), strict=True)
    ]
    lists = recommender(histories, batch_size=batch_size, time_unit="s", **options)
    rows = [
        {"user_id": user, "rank": rank} | item
        for user, items in zip(users["user_id"].to_list(), lists, strict=True)
        for rank, item in enumerate(items, start=1)
    ]
    columns = dict(COLUMNS)
    if recommender.model.config.use_cooccurrence:
        title = columns.pop("title")
        columns |= {"cooccurrence_score": pl.Float64, "title": title}
    return as_given(pl.DataFrame(rows, schema=columns))


def _as_given(frame: Any) -> Callable[[pl.DataFrame], Any]:
    """What makes of the answer what was given, found before anyone waits for the answer."""
    first = frame[0] if isinstance(frame, list | tuple) and frame else frame
    if isinstance(first, str | os.PathLike):
        raise TypeError(
            f"frame must be a data frame, a datasets.Dataset or a list of dictionaries, got {frame!r}; read the file "
            "first, as by polars.read_csv, or use mmm4rec recommend --input"
        )
    if isinstance(frame, datasets.Dataset):
        return lambda answer: datasets.Dataset(datasets.table.InMemoryTable(answer.to_arrow()))
    known = nw.from_native(frame, pass_through=True)
    if isinstance(known, nw.LazyFrame):
        return lambda answer: beside(known, answer).to_native()
    if not isinstance(known, nw.DataFrame):
        return pl.DataFrame.to_dicts
    if known.implementation is nw.Implementation.POLARS:
        return lambda answer: answer
    return lambda answer: nw.from_arrow(answer.to_arrow(), backend=known.implementation).to_native()
