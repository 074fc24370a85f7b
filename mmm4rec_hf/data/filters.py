"""What leaves a log before it is split: duplicated rows, items outside the catalogue, and all below the k-core."""

import itertools
import logging
from collections.abc import Sequence

import narwhals as nw

from . import engines
from .columns import ORDER
from .interactions import Interactions

logger = logging.getLogger(__name__)


def kept(before: nw.LazyFrame, after: nw.LazyFrame) -> tuple[nw.LazyFrame, int]:
    """What a filter left of a log, computed, and how many rows it took."""
    after = engines.keep(after)
    return after, engines.count(before) - engines.count(after)


def distinct_events(data: Interactions) -> tuple[nw.LazyFrame, int]:
    """A log without duplicated rows, and how many these were; of what is free of them already, all is kept."""
    return (data.frame, 0) if data.deduplicated else kept(data.frame, drop_duplicates(data.frame))


def drop_duplicates(log: nw.LazyFrame) -> nw.LazyFrame:
    """Rows that agree in all but their order become one, in the first one's place; repeats at other times stay."""
    schema = log.collect_schema().names()
    names, order = [name for name in schema if name not in ORDER], [name for name in ORDER if name in schema]
    if len(order) == 1:
        return log.group_by(*names).agg(nw.col("order").min())
    place = nw.col("order").cum_count().over(*names, order_by=order)
    return log.with_columns(place=place).filter(nw.col("place") == 1).drop("place")


def keep_items(log: nw.LazyFrame, item_ids: Sequence[str]) -> nw.LazyFrame:
    """The events of the items that a catalogue holds."""
    return log.join(engines.strings_beside(log, "item_id", item_ids), on="item_id", how="semi")


def k_core(log: nw.LazyFrame, k: int) -> nw.LazyFrame:
    """The largest part of a log in which every user and every item has at least `k` events.

    The events of all users and items are counted once. A round takes out the ids below `k` and corrects the counts of
    those that shared events with them, so that it costs a look at the log for a few ids, whatever its size.

    Args:
        log (`nw.LazyFrame`): Has the columns `user_id` and `item_id`.
        k (`int`): The least number of events; 1 and below keep everything.
    """
    if k <= 1:
        return log
    counts = {
        name: engines.keep(log.group_by(name).agg(events=nw.len().cast(nw.Int64))) for name in ("user_id", "item_id")
    }
    for number in itertools.count(1):
        dropped = {}
        for name, other in (("item_id", "user_id"), ("user_id", "item_id")):
            below = engines.keep(counts[name].filter(nw.col("events") < k).select(name))
            dropped[name] = engines.count(below)
            if dropped[name]:
                counts[name] = engines.keep(counts[name].filter(nw.col("events") >= k))
                counts[other] = engines.keep(_without_events_of(log, below, name, counts[other], other))
        logger.info("%d-core, round %d: dropped %d items and %d users", k, number, *dropped.values())
        if not any(dropped.values()):
            break
    for name, left in counts.items():
        log = log.join(left.select(name), on=name, how="semi")
    return log


def _without_events_of(
    log: nw.LazyFrame, gone: nw.LazyFrame, name: str, counts: nw.LazyFrame, other: str
) -> nw.LazyFrame:
    """The counts of the `other` ids once the ids `gone` of column `name` are out."""
    lost = log.join(gone, on=name, how="semi").group_by(other).agg(lost=nw.len().cast(nw.Int64))
    left = nw.col("events") - nw.col("lost").fill_null(0)
    return counts.join(lost, on=other, how="left").select(other, events=left)
