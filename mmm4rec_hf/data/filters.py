"""What leaves a log before it is split: duplicated rows, items outside the catalogue, and all below the k-core."""

import itertools
import logging
from collections.abc import Sequence

import narwhals as nw

from . import engines

logger = logging.getLogger(__name__)


def drop_duplicates(log: nw.LazyFrame) -> nw.LazyFrame:
    """Rows that agree in all but their order become one, in the first one's place; repeats at other times stay."""
    names = [name for name in log.collect_schema().names() if name != "order"]
    return log.group_by(*names).agg(nw.col("order").min())


def keep_items(log: nw.LazyFrame, item_ids: Sequence[str]) -> nw.LazyFrame:
    """The events of the items that a catalogue holds."""
    return log.join(engines.strings_beside(log, "item_id", item_ids), on="item_id", how="semi")


def k_core(log: nw.LazyFrame, k: int) -> nw.LazyFrame:
    """The largest part of a log in which every user and every item has at least `k` events.

    Only the ids that are still in are kept between rounds, not the log; the log is read twice a round.

    Args:
        log (`nw.LazyFrame`): Has the columns `user_id` and `item_id`.
        k (`int`): The least number of events; 1 and below keep everything.
    """
    if k <= 1:
        return log
    items = _frequent(log, "item_id", k)
    sizes = (-1, -1)
    for number in itertools.count(1):
        users = _frequent(log.join(items, on="item_id", how="semi"), "user_id", k)
        previous, sizes = sizes, (engines.count(users), engines.count(items))
        logger.info("%d-core, round %d: %d users and %d items", k, number, *sizes)
        if sizes == previous:
            break
        items = _frequent(log.join(users, on="user_id", how="semi"), "item_id", k)
    return log.join(items, on="item_id", how="semi").join(users, on="user_id", how="semi")


def _frequent(log: nw.LazyFrame, name: str, k: int) -> nw.LazyFrame:
    return engines.keep(log.group_by(name).agg(events=nw.len()).filter(nw.col("events") >= k).select(name))
