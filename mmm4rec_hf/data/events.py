"""The events of all users, stored once and sorted, and rows that point into them."""

import bisect
import hashlib
import itertools
import json
from collections.abc import Iterable, Sequence
from typing import Any

import datasets
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from .splits import ROLES

EVENT_SCHEMA = pa.schema({"item": pa.int32(), "timestamp": pa.int64()})
USER_SCHEMA = pa.schema({"user_id": pa.large_string(), "events": pa.int64()})
ROW_SCHEMA = pa.schema({"input_ids": pa.struct({"start": pa.int64(), "end": pa.int64()}), "labels": pa.int64()})
EVENTS_PER_BATCH = 1_000_000


class UserEvents:
    """Every user's events, one user after the other, each in time order.

    Args:
        table (`datasets.Dataset`, `N` rows): `item` (int32, 1-based) and `timestamp` (int64 unix seconds);
            memory-mapped where it was loaded from a file, and then pickled as the file's name.
        users (`datasets.Dataset`, `U` rows): `user_id` and `events`, the number of rows that are the user's.
    """

    def __init__(self, table: datasets.Dataset, users: datasets.Dataset) -> None:
        self.table = table
        self.users = users
        counts = users.data.column("events").to_numpy()
        self.offsets: np.ndarray = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])  # [U + 1]
        if self.offsets[-1] != len(table):
            raise ValueError(
                f"the users' events are {self.offsets[-1]}, the table's {len(table)}: one of the two is cut"
            )
        self._open()

    def _open(self) -> None:
        columns = [self.table.data.column(name).chunks for name in EVENT_SCHEMA.names]
        self._items, self._timestamps = ([chunk.to_numpy() for chunk in chunks] for chunks in columns)
        self._bounds = [0, *itertools.accumulate(map(len, self._items))]

    def __getstate__(self) -> dict[str, Any]:
        # The arrays are views of the table: pickled, they would be copies.
        return {name: value for name, value in vars(self).items() if name in ("table", "users", "offsets")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open()

    def __len__(self) -> int:
        return len(self.table)

    def slice(self, start: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """Items (int32) and timestamps (int64) of the events `start` to `end`, without a copy within one batch."""
        first = bisect.bisect_right(self._bounds, start) - 1
        last = bisect.bisect_right(self._bounds, max(end - 1, start)) - 1
        if first >= len(self._items):
            return np.empty(0, np.int32), np.empty(0, np.int64)
        low, high = start - self._bounds[first], end - self._bounds[first]
        if first == last:
            return self._items[first][low:high], self._timestamps[first][low:high]
        items = np.concatenate(self._items[first : last + 1])[low:high]
        return items, np.concatenate(self._timestamps[first : last + 1])[low:high]

    def users_of(self, starts: np.ndarray) -> np.ndarray:
        """The 0-based users whose events lie at these places of the table."""
        return np.searchsorted(self.offsets, starts, side="right") - 1

    def with_items(self, indices: np.ndarray) -> "UserEvents":
        """The same events with item `i` renamed to `indices[i]`."""
        column = self.table.data.column("item")
        renamed = [pa.array(indices[chunk.to_numpy()].astype(np.int32)) for chunk in column.chunks]
        table = pa.table([pa.chunked_array(renamed, pa.int32()), self.table.data.column("timestamp")], EVENT_SCHEMA)
        return UserEvents(datasets.Dataset(datasets.table.InMemoryTable(table)), self.users)


class HistoryRows:
    """The transform of a split: rows that point at a user's events become those events.

    Args:
        events (`UserEvents`): What the rows point into.
        max_sequence_length (`int`, *optional*): How many of the last events of a history a row shows; by default all.
        item_ids (`Sequence[str]`, *optional*):
            The items in the order of their indices; what is kept of them tells whether a model counts them alike.
    """

    def __init__(
        self, events: UserEvents, max_sequence_length: int | None = None, item_ids: Sequence[str] | None = None
    ) -> None:
        self.events = events
        self.max_sequence_length = max_sequence_length
        self.items = None if item_ids is None else (len(item_ids), _digest(item_ids))

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        rows: dict[str, list[Any]] = {name: values for name, values in batch.items() if name != "input_ids"}
        if "input_ids" in batch:
            histories = [self._history(pointer["start"], pointer["end"]) for pointer in batch["input_ids"]]
            rows["input_ids"] = [items for items, _ in histories]
            rows["timestamps"] = [timestamps for _, timestamps in histories]
        return rows

    def _history(self, start: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        if self.max_sequence_length is not None:
            start = max(start, end - self.max_sequence_length)
        items, timestamps = self.events.slice(start, end)
        return items.astype(np.int64), timestamps


def check_items(rows: Any, item_ids: Sequence[str] | None) -> None:
    """
    Makes sure that rows and a model mean the same items by the same indices.

    Args:
        rows (`datasets.Dataset`): Of a split; rows that do not tell their items pass.
        item_ids (`Sequence[str]`, *optional*): A model's; it may hold more items after those of the rows.

    Raises:
        ValueError: If the model holds other items, or the same in another order.
    """
    format_kwargs = rows.format["format_kwargs"] if isinstance(rows, datasets.Dataset) else {}
    transform = format_kwargs.get("transform")
    if item_ids is None or not isinstance(transform, HistoryRows) or transform.items is None:
        return
    count, digest = transform.items
    if len(item_ids) < count or _digest(item_ids[:count]) != digest:
        raise ValueError(
            f"the rows count {count} items in another order than the model, which holds {len(item_ids)}, or they are "
            "others: every index would stand for another item; give rows of sequences.align(model.item_ids)"
        )


def _digest(item_ids: Sequence[str]) -> str:
    return hashlib.blake2b(json.dumps(list(item_ids)).encode(), digest_size=16).hexdigest()


class EventWriter:
    """Takes a sorted log batch by batch: events go to the sink at once, users and targets are gathered.

    Args:
        sink (`pa.NativeFile`): Where the events go, as an Arrow stream.
        item_ids (`list[str]`): The items in the order of their indices, the first of which is 1.
    """

    def __init__(self, sink: pa.NativeFile, item_ids: list[str]) -> None:
        self._writer = pa.ipc.new_stream(sink, EVENT_SCHEMA)
        self._item_ids = pa.array(item_ids, pa.large_string())
        self._users: list[pl.DataFrame] = []
        self._targets: dict[str, list[np.ndarray]] = {split: [] for split in ROLES}
        self._labels: dict[str, list[np.ndarray]] = {split: [] for split in ROLES}
        self._written = 0

    def write_all(self, batches: Iterable[pa.RecordBatch]) -> None:
        """Take batches with `user_id`, `item_id`, `timestamp` and `role`, sorted by user and position."""
        for batch in batches:
            for start in range(0, len(batch), EVENTS_PER_BATCH):
                self._write(batch.slice(start, EVENTS_PER_BATCH))
        self._writer.close()

    def _write(self, batch: pa.RecordBatch) -> None:
        indices = pc.index_in(batch.column("item_id").cast(pa.large_string()), value_set=self._item_ids)
        items = pc.add(indices, pa.scalar(1, pa.int32()))
        self._writer.write_batch(pa.record_batch([items, batch.column("timestamp")], schema=EVENT_SCHEMA))
        roles = batch.column("role").to_numpy(zero_copy_only=False)
        for split, role in ROLES.items():
            places = np.flatnonzero(roles == role)
            self._targets[split].append(places + self._written)
            self._labels[split].append(items.to_numpy()[places])
        users = pl.Series("user_id", pl.from_arrow(batch.column("user_id")))
        self._users.append(users.rle().struct.unnest().select(user_id="value", events=pl.col("len").cast(pl.Int64)))
        self._written += len(batch)

    def users(self) -> pa.Table:
        """One row a user, in the order of the events."""
        runs = pl.concat(self._users)
        users = runs.group_by("user_id", maintain_order=True).agg(pl.col("events").sum())
        # A user whose events lie in two batches has a run in both, one after the other.
        if len(users) != int((runs["user_id"] != runs["user_id"].shift()).fill_null(True).sum()):
            raise RuntimeError("the engine returned the events out of order: a user's events must be together")
        return users.to_arrow().cast(USER_SCHEMA)

    def rows(self, split: str, users: pa.Table) -> pa.Table:
        """One row a target of a split: where its history starts and ends, and the item."""
        ends, labels = np.concatenate(self._targets[split]), np.concatenate(self._labels[split])
        offsets = np.concatenate([[0], np.cumsum(users.column("events").to_numpy(), dtype=np.int64)])
        starts = offsets[np.searchsorted(offsets, ends, side="right") - 1]
        pointers = pa.StructArray.from_arrays([pa.array(starts), pa.array(ends)], names=["start", "end"])
        return pa.table([pointers, pa.array(labels, pa.int64())], schema=ROW_SCHEMA)
