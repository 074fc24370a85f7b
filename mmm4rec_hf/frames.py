"""Recommendations for a data frame of events, as a data frame of the same kind."""

from typing import Any

import narwhals as nw
import polars as pl
import pyarrow as pa

from .data import load_interactions
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
        frame (a data frame that narwhals knows): A row an event: user, item and time, in any order.
        batch_size (`int`, *optional*, defaults to 256): Users that are scored at once.
        time_unit, time_format, user_column, item_column, timestamp_column, rating_column, order_column (*optional*):
            As for [`load_interactions`]. All but the order are found by themselves by default; give the order that
            the log was prepared by. Duplicated rows count once, as there, and their number is logged.
        options: As for the pipeline: `top_k`, `exclude_history`, `candidates`, `unknown_items`, `empty_histories`.

    Returns:
        A data frame of the kind that was given, of columns `user_id`, `rank` (from 1 on), `item_id`, `score`,
        `text_score`, `image_score`, with `use_cooccurrence` also `cooccurrence_score`, and `title`; users in the order
        of their ids as strings.

    Raises:
        ValueError: If the frame has no such columns or no events, or as the pipeline.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
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
    result = pl.DataFrame(rows, schema=columns)
    backend = nw.get_native_namespace(nw.from_native(frame))
    if backend is pl:
        return result
    table = nw.from_native(result, eager_only=True).to_arrow()
    return nw.from_arrow(table, backend=backend).to_native()
