"""Filter and split a log, then store its events once and the rows that point into them."""

import contextlib
import logging
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import datasets
import narwhals as nw
import numpy as np
import pyarrow as pa

from . import engines, filters, splits
from .events import EventWriter, UserEvents
from .interactions import Interactions
from .sequence_datasets import EVENTS_FILE, SequenceDatasets, checked_item_ids, replace_sequences
from .times import point_in_time

if TYPE_CHECKING:
    from mmm4rec_hf.items import ItemCatalog

__all__ = ["SequenceDatasets", "prepare_sequences"]

logger = logging.getLogger(__name__)


def prepare_sequences(
    data: Interactions,
    *,
    k_core: int = 5,
    split: str = "leave_one_out",
    valid_from: int | str | datetime | None = None,
    test_from: int | str | datetime | None = None,
    catalog: "ItemCatalog | None" = None,
    item_ids: Sequence[str | int] | None = None,
    max_sequence_length: int | None = None,
    output_dir: str | os.PathLike | None = None,
) -> SequenceDatasets:
    """Sequences to train and test on, from a log of interactions.

    Rows that agree in user, item, time and rating are dropped but for the first. A user's events are sorted by time,
    and those of the same time by the log's order. All that is dropped is counted in `statistics` and logged.

    - `"leave_one_out"`, as published: of a user's events e1 ... en, en is the test target, e(n-1) the validation
      target, e2 ... e(n-2) are training targets, each with all events before it as history. The k-core is taken of the
      whole log.
    - `"temporal"`: every event from `test_from` on is a test target, every one from `valid_from` on a validation
      target, the rest train. The k-core is taken of the events before `valid_from` alone, so that nothing after the
      cut decides what is trained on; later events count if their item is in this core, or in the catalogue. Of users
      outside the core, earlier events of such items are history of their later ones, and train nothing. What the core
      drops of the others is no history either: it would be one in training.

    Args:
        data (`Interactions`): What `load_interactions` returns.
        k_core (`int`, *optional*, defaults to 5): The least number of events of every user and item; 1 keeps all.
        split (`str`, *optional*, defaults to `"leave_one_out"`): `"leave_one_out"` or `"temporal"`.
        valid_from (`int`, `str` or `datetime`, *optional*): With `"temporal"`: where validation begins, as the
            log's times are written, in its `time_unit` or `time_format` where these were told, or in ISO 8601.
        test_from (`int`, `str` or `datetime`, *optional*): With `"temporal"`: where testing begins, likewise.
        catalog (`ItemCatalog`, *optional*): Its items, in its order, are the indices; events of others are dropped.
        item_ids (`Sequence[str]`, *optional*): The same as a list of ids. By default the items that are left, sorted
            as strings.
        max_sequence_length (`int`, *optional*): How many of the last events of a history a row shows; by default all.
        output_dir (`str` or `os.PathLike`, *optional*): Where to save the datasets; they are then memory-mapped.

    Returns:
        `SequenceDatasets`: The splits `train`, `validation` and `test`.

    Raises:
        TypeError: If `data` is no `Interactions`.
        ValueError: If an argument is out of place, or nothing is left of the log.
    """
    if not isinstance(data, Interactions):
        raise TypeError(f"data must be what load_interactions returns, got {type(data).__name__}; call it first")
    if k_core < 0:
        raise ValueError(f"k_core must be at least 0, got {k_core}; 0 and 1 keep all users and items")
    if max_sequence_length is not None and max_sequence_length < 1:
        raise ValueError(f"max_sequence_length must be at least 1, got {max_sequence_length}")
    if catalog is not None and item_ids is not None:
        raise ValueError("give either catalog or item_ids: a catalogue has its own item ids")
    if catalog is not None:
        item_ids = catalog.item_ids
    elif item_ids is None:
        item_ids = data.item_ids
    known_items = None if item_ids is None else checked_item_ids(item_ids)
    cuts = _cuts(data, split, valid_from, test_from)

    statistics = dict(data.statistics)
    log = _filtered(data, k_core, cuts, known_items, statistics)
    if known_items is None:
        known_items = sorted(log.select("item_id").unique().collect("polars")["item_id"].to_list())
    log = splits.in_time_order(log)
    log = splits.leave_one_out(log) if cuts is None else splits.temporal(log, *cuts)
    log = engines.in_order(log, "user_id", "position").select("user_id", "item_id", "timestamp", "role")
    if output_dir is None:
        return _stored(log, None, known_items, statistics, max_sequence_length)
    with replace_sequences(Path(output_dir)) as folder:
        _stored(log, folder, known_items, statistics, max_sequence_length).write_splits(folder)
    return SequenceDatasets.load_from_disk(output_dir)


def _cuts(
    data: Interactions, split: str, valid_from: int | str | datetime | None, test_from: int | str | datetime | None
) -> tuple[int, int] | None:
    """The two cut times of a temporal split in unix seconds; None for leave-one-out."""
    if split == "leave_one_out":
        if valid_from is not None or test_from is not None:
            raise ValueError('valid_from and test_from belong to split="temporal"; leave-one-out has no cut times')
        return None
    if split != "temporal":
        raise ValueError(f"split must be 'leave_one_out' or 'temporal', got {split!r}")
    if valid_from is None or test_from is None:
        raise ValueError('split="temporal" needs valid_from= and test_from=, such as "2016-01-01"')
    first, second = _cut(data, valid_from=valid_from), _cut(data, test_from=test_from)
    if first >= second:
        unit = "" if data.time_unit is None else f", numbers by the log's time_unit={data.time_unit!r}"
        raise ValueError(
            f"valid_from must be before test_from, got {valid_from!r} and {test_from!r}, which are read as "
            f"{np.datetime64(first, 's')} and {np.datetime64(second, 's')}{unit}"
        )
    return first, second


def _cut(data: Interactions, **named: int | str | datetime) -> int:
    """The unix seconds of a cut, given by its name."""
    ((name, value),) = named.items()
    try:
        return point_in_time(value, data.time_unit, data.time_format)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}={value!r} {error}") from error


def _doubt_cuts(log: nw.LazyFrame, cuts: tuple[int, int]) -> None:
    """Warns of cuts before or behind all events, as of ones that were read in another unit than was meant."""
    first, last = engines.one_row(log.select(first=nw.col("timestamp").min(), last=nw.col("timestamp").max())).values()
    for name, cut in zip(("valid_from", "test_from"), cuts, strict=True):
        if not first < cut <= last:
            logger.warning(
                "%s is read as %s (UTC), and %s event of the log, from %s to %s, is before it",
                *(name, np.datetime64(cut, "s"), "every" if cut > last else "no"),
                *(np.datetime64(first, "s"), np.datetime64(last, "s")),
            )


def _filtered(
    data: Interactions,
    k: int,
    cuts: tuple[int, int] | None,
    known_items: list[str] | None,
    statistics: dict[str, int],
) -> nw.LazyFrame:
    """What is left of a log before it is split; what is not is counted in `statistics`."""
    log, statistics["duplicated_rows"] = filters.distinct_events(data)
    if known_items is not None:
        log, statistics["rows_outside_catalog"] = filters.kept(log, filters.keep_items(log, known_items))
        if engines.count(log) == 0:
            raise ValueError(
                f"none of the log's items is among the {len(known_items)} item ids given, such as {known_items[0]!r}; "
                "ids are compared to the letter"
            )
    read = log
    if cuts is None:
        log, statistics["rows_below_k_core"] = filters.kept(log, filters.k_core(log, k))
    else:
        _doubt_cuts(log, cuts)
        log = _core_before(log, k, cuts[0], known_items is None, statistics)
        # Ids of later events alone are not below the core, they are unseen.
        read = read.filter(nw.col("timestamp") < cuts[0])
    for name in ("user_id", "item_id"):
        gone = read.select(name).unique().join(log.select(name).unique(), on=name, how="anti")
        statistics[f"{name.removesuffix('_id')}s_below_k_core"] = engines.count(gone) if k > 1 else 0
    if engines.count(log) == 0:
        raise ValueError(f"nothing is left of the log: no users and items with {k} events each; lower k_core")
    for reason in ("duplicated_rows", "rows_outside_catalog", "rows_below_k_core", "rows_of_items_unseen_before_cut"):
        if statistics.get(reason):
            logger.warning("dropped %d of %d rows: %s", statistics[reason], statistics["rows_read"], reason)
    return log


def _core_before(log: nw.LazyFrame, k: int, cut: int, drop_unseen: bool, statistics: dict[str, int]) -> nw.LazyFrame:
    """The k-core of the events before the cut, and those after it of its items, or of the catalogue's.

    With what the users of these later events did before the cut, if they are not in the core; the column `trains` is
    false of it.
    """
    early, late = log.filter(nw.col("timestamp") < cut), log.filter(nw.col("timestamp") >= cut)
    core, statistics["rows_below_k_core"] = filters.kept(early, filters.k_core(early, k))
    if engines.count(core) == 0:
        raise ValueError(f"no users and items with {k} events each before valid_from; lower k_core or cut later")
    past = early.join(core.select("user_id").unique(), on="user_id", how="anti")
    if drop_unseen:
        seen = core.select("item_id").unique()
        late, statistics["rows_of_items_unseen_before_cut"] = filters.kept(
            late, late.join(seen, on="item_id", how="semi")
        )
        past = past.join(seen, on="item_id", how="semi")
    past = engines.keep(past.join(late.select("user_id").unique(), on="user_id", how="semi"))
    statistics["rows_of_history_alone"] = engines.count(past)
    statistics["rows_below_k_core"] -= statistics["rows_of_history_alone"]
    if statistics["rows_of_history_alone"]:
        logger.info(
            "%d rows before valid_from are history alone: their users are outside the %d-core and train nothing",
            *(statistics["rows_of_history_alone"], k),
        )
    names = core.collect_schema().names()
    parts = [
        part.select(*names, trains=nw.lit(trains)) for part, trains in ((core, True), (past, False), (late, True))
    ]
    return engines.keep(nw.concat(parts))


def _stored(
    log: nw.LazyFrame,
    folder: Path | None,
    item_ids: list[str],
    statistics: dict[str, int],
    max_sequence_length: int | None,
) -> SequenceDatasets:
    """The datasets of a log with roles; the events go to a folder, or to memory."""
    memory = pa.BufferOutputStream()
    with contextlib.ExitStack() as stack:
        sink = memory if folder is None else stack.enter_context(pa.OSFile(str(folder / EVENTS_FILE), "wb"))
        writer = EventWriter(sink, item_ids)
        writer.write_all(engines.stream(log))
    if folder is None:
        table = datasets.Dataset.from_buffer(memory.getvalue())
    else:
        table = datasets.Dataset.from_file(str(folder / EVENTS_FILE))
    users = writer.users()
    rows = {
        name: datasets.Dataset(datasets.table.InMemoryTable(writer.rows(name, users)), split=datasets.NamedSplit(name))
        for name in splits.ROLES
    }
    statistics |= {"events": len(table), "users": len(users), "items": len(item_ids)}
    statistics |= {f"{name}_rows": len(split) for name, split in rows.items()}
    events = UserEvents(table, datasets.Dataset(datasets.table.InMemoryTable(users)))
    return SequenceDatasets(rows, events, item_ids, statistics, max_sequence_length)
