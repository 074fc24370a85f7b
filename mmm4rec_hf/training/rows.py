"""Rows to train on, from sequences on disk or streamed from shards, in an order that can be taken up again."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import datasets
import numpy as np
import pyarrow.parquet as pq
from datasets.distributed import split_dataset_by_node

from mmm4rec_hf.data import SequenceDatasets

from .shards import USERS_PER_GROUP, read_about, shard_files

# Users whose rows are shuffled together when they are streamed.
USERS_PER_BLOCK = 1024


class Row(NamedTuple):
    """One target and what came before it: items `[n]`, 1-based rows of the catalogue, and unix seconds `[n]`."""

    items: np.ndarray
    timestamps: np.ndarray
    target: int


class RowSource(Protocol):
    """An endless, shuffled sequence of rows; one for each process."""

    num_targets: int

    def take(self, first: int, low: int, high: int) -> list[Row]:
        """
        This process's rows of a batch.

        Args:
            first (`int`): How many rows all processes took before the batch.
            low, high (`int`): Which of the batch's rows are this process's.
        """

    def state(self) -> dict[str, Any]:
        """Where it stands, for [`~RowSource.restore`]."""

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on where [`~RowSource.state`] was taken."""


class MappedRows:
    """
    The training rows of sequences on disk, in another random order each epoch. The order is the same for any number of
    processes, and follows from the position alone.

    Args:
        sequences (`SequenceDatasets`): In the catalogue's order of items.
        seed (`int`): Of the orders.
    """

    def __init__(self, sequences: SequenceDatasets, seed: int) -> None:
        self.events = sequences.user_events
        self.starts, self.ends = sequences.pointers_of("train")
        self.num_targets = len(self.starts)
        self.seed = seed
        self._epoch = -1
        self._order = np.empty(0, dtype=np.int64)

    def take(self, first: int, low: int, high: int) -> list[Row]:
        """See [`RowSource.take`]."""
        return [self._row(position) for position in range(first + low, first + high)]

    def state(self) -> dict[str, Any]:
        """Nothing: the position, which all processes share, says it all."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """See [`RowSource.restore`]."""

    def _row(self, position: int) -> Row:
        epoch, place = divmod(position, self.num_targets)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng([self.seed, epoch]).permutation(self.num_targets)
        row = self._order[place]
        items, timestamps = self.events.slice(int(self.starts[row]), int(self.ends[row]) + 1)
        return Row(items[:-1], timestamps[:-1], int(items[-1]))


def held_out_rows(sequences: SequenceDatasets, split: str) -> Iterator[Row]:
    """The rows of a split in their order."""
    for start, end in zip(*(pointers.tolist() for pointers in sequences.pointers_of(split)), strict=True):
        items, timestamps = sequences.user_events.slice(start, end + 1)
        yield Row(items[:-1], timestamps[:-1], int(items[-1]))


def _users(files: list[str]) -> Iterator[dict[str, Any]]:
    """The rows of shards, a user each."""
    for name in files:
        with pq.ParquetFile(name) as file:
            for batch in file.iter_batches(USERS_PER_GROUP):
                yield from batch.to_pylist()


class StreamedRows:
    """
    The training rows of Parquet shards, which may be larger than memory: a block of users is read, and its rows are
    shuffled. Each process reads its share of the shards, or of the users where the shards cannot be dealt evenly.

    Args:
        folder (`Path`): What [`write_shards`] wrote.
        catalog_rows (`np.ndarray` of shape `(num_items + 1,)`): The catalogue's row of each item of the shards.
        seed (`int`): Of the orders.
        process_index (`int`): Which process this is.
        num_processes (`int`): Of how many.
    """

    def __init__(
        self, folder: Path, catalog_rows: np.ndarray, seed: int, process_index: int, num_processes: int
    ) -> None:
        about, _ = read_about(folder)
        self.num_targets = int(about["targets"])
        self.files = shard_files(folder)
        self.catalog_rows = catalog_rows
        self.seed = seed
        self.process = (process_index, num_processes)
        self._epoch, self._block, self._taken = 0, 0, 0
        self._open(None)

    def take(self, first: int, low: int, high: int) -> list[Row]:
        """See [`RowSource.take`]; how many are taken counts, not which."""
        rows: list[Row] = []
        while len(rows) < high - low:
            if self._taken == len(self._rows):
                self._next_block()
            stop = min(len(self._rows), self._taken + high - low - len(rows))
            rows += [self._row(*self._rows[place]) for place in range(self._taken, stop)]
            self._taken = stop
        return rows

    def state(self) -> dict[str, Any]:
        """The epoch, the block, where that begins in the shards and of how many, and the rows taken from it."""
        state = {"epoch": self._epoch, "block": self._block, "begin": self._begin, "taken": self._taken}
        return state | {"files": len(self.files)}

    def restore(self, state: dict[str, Any]) -> None:
        """See [`RowSource.restore`]."""
        # An earlier version noted no number.
        if (files := state.get("files", len(self.files))) != len(self.files):
            raise ValueError(
                f"the run was stopped in {files} shards, there are {len(self.files)} now; give another output_dir, "
                "or remove the folder to start over"
            )
        self._epoch, self._block = state["epoch"], state["block"]
        self._open(state["begin"])
        self._taken = state["taken"]

    def _open(self, begin: dict[str, Any] | None) -> None:
        """Opens the shards in the epoch's order, and reads the block that begins there."""
        order = np.random.default_rng([self.seed, self._epoch]).permutation(len(self.files))
        files = [self.files[place] for place in order]
        # Not load_dataset: to it a folder's name may be a pattern, or a chain of URLs.
        stream = datasets.IterableDataset.from_generator(_users, gen_kwargs={"files": files})
        self._stream = split_dataset_by_node(stream, *self.process)
        read = 0
        if begin is not None and "ArrowExamplesIterable" in json.dumps(begin):
            # Of a run that an earlier version began, where load_dataset read the shards: the blocks say the same.
            read = self._block * USERS_PER_BLOCK
        elif begin is not None:
            self._stream.load_state_dict(begin)
        self._users = iter(self._stream)
        for _ in range(read):
            next(self._users)
        self._read_block()

    def _next_block(self) -> None:
        self._block += 1
        self._taken = 0
        self._read_block()
        if len(self._rows) == 0:
            self._epoch, self._block = self._epoch + 1, 0
            self._open(None)
            if len(self._rows) == 0:
                raise ValueError(
                    f"process {self.process[0]} of {self.process[1]} finds no users in the shards; write more shards, "
                    "or start fewer processes"
                )

    def _read_block(self) -> None:
        self._begin = self._stream.state_dict()
        self._histories: list[tuple[np.ndarray, np.ndarray]] = []
        for user in self._users:
            items = self.catalog_rows[np.asarray(user["input_ids"], dtype=np.int64)]
            self._histories.append((items, np.asarray(user["timestamps"], dtype=np.int64)))
            if len(self._histories) == USERS_PER_BLOCK:
                break
        counts = np.array([len(items) - 1 for items, _ in self._histories], dtype=np.int64)
        users = np.repeat(np.arange(len(counts)), counts)
        ends = np.concatenate([np.arange(1, count + 1) for count in counts]) if len(counts) else users
        shuffled = np.random.default_rng([self.seed, self._epoch, self._block, self.process[0]]).permutation(
            len(users)
        )
        self._rows = np.stack([users, ends], axis=1)[shuffled]

    def _row(self, user: int, end: int) -> Row:
        items, timestamps = self._histories[user]
        return Row(items[:end], timestamps[:end], int(items[end]))
