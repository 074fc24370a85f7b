"""Whole histories out of a log, of the events that training would take and in its order."""

import logging
from collections.abc import Iterator

import pyarrow as pa

from .engines import in_order, stream
from .filters import distinct_events
from .interactions import Interactions
from .splits import in_time_order

logger = logging.getLogger(__name__)


def stream_histories(data: Interactions) -> Iterator[pa.RecordBatch]:
    """The events of a log, one user after the other, each in time order.

    As in `prepare_sequences`, rows that agree in user, item, time and rating are dropped but for the first; their
    number is logged.

    Args:
        data (`Interactions`): What `load_interactions` returns.

    Returns:
        `Iterator[pa.RecordBatch]`: Columns `user_id`, `item_id` (string) and `timestamp` (int64 unix seconds); users
        in the order of their ids.
    """
    log, duplicated = distinct_events(data)
    if duplicated:
        logger.warning("dropped %d duplicated rows: each event counts once, as in training", duplicated)
    ordered = in_order(in_time_order(log), "user_id", "position")
    return stream(ordered.select("user_id", "item_id", "timestamp"))
