"""The three datasets that train, choose and test a model, in memory and on disk."""

import contextlib
import glob
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmm4rec_hf.modeling.ids_mmm4rec import canonical_id
from mmm4rec_hf.outputs import refuse_other_files, replace_folder
from mmm4rec_hf.plain_json import read_object

from .events import HistoryRows, UserEvents

logger = logging.getLogger(__name__)

EVENTS_FILE, USERS_FILE, ITEMS_FILE, ABOUT_FILE = "events.arrow", "users.arrow", "items.arrow", "sequences.json"
# What belongs to sequences: what `mmm4rec prepare` says of them, and shards beside them; and what `datasets` keeps
# next to a file whose rows were mapped or shuffled, under a name of `tempfile` until it is whole.
_BESIDE = (
    *("prepare.json", "shards/shards.json", "shards/item_ids.json", "shards/shard-*.parquet"),
    *("cache-*.arrow", "tmp????????"),
)


class SequenceDatasets(datasets.DatasetDict):
    """The splits of a log: `train`, `validation` and `test`, whose rows point into one table of events.

    A row, once read, is `{"input_ids": int64 array, "timestamps": int64 array, "labels": int}`: a user's events up to
    a point, as 1-based item indices, and the item that followed. What is stored is where the history starts and ends,
    so that the splits take memory by the number of rows, and the events by the number of events.

    Args:
        splits (`Mapping[str, datasets.Dataset]`): Columns `input_ids`, a struct of `start` and `end`, and `labels`.
        events (`UserEvents`): What the rows point into.
        item_ids (`list[str]`): The items in the order of the indices: index `i` is `item_ids[i - 1]`, 0 is the
            padding.
        statistics (`dict[str, int]`): What was read, kept and dropped, by reason.
        max_sequence_length (`int`, *optional*): How many of the last events of a history a row shows; by default all.
    """

    def __init__(
        self,
        splits: Mapping[str, datasets.Dataset],
        events: UserEvents,
        item_ids: list[str],
        statistics: dict[str, int],
        max_sequence_length: int | None = None,
    ) -> None:
        transform = HistoryRows(events, max_sequence_length, item_ids)
        super().__init__({name: split.with_transform(transform) for name, split in splits.items()})
        self.user_events = events
        self.item_ids = item_ids
        self.statistics = statistics
        self.max_sequence_length = max_sequence_length

    @property
    def events(self) -> datasets.Dataset:
        """All events, user by user in time order: `item` (int32, 1-based) and `timestamp` (int64 unix seconds)."""
        return self.user_events.table

    @property
    def user_ids(self) -> list[str]:
        """The users, in the order in which their events are stored."""
        return self.user_events.users.data.column("user_id").to_pylist()

    def pointers_of(self, split: str | datasets.Dataset) -> tuple[np.ndarray, np.ndarray]:
        """Where in `events` the history of each row starts and where it ends; the target stands at the end."""
        rows = self[split] if isinstance(split, str) else split
        pointers = rows.with_format("arrow")[:]["input_ids"]
        return pc.struct_field(pointers, "start").to_numpy(), pc.struct_field(pointers, "end").to_numpy()

    def user_ids_of(self, split: str | datasets.Dataset) -> list[str]:
        """The user of each row of a split, or of a selection of its rows."""
        starts, _ = self.pointers_of(split)
        users = self.user_events.users_of(starts)
        return self.user_events.users.data.column("user_id").take(pa.array(users)).to_pylist()

    def align(self, item_ids: Sequence[str | int]) -> "SequenceDatasets":
        """The same datasets with the item indices of another order, such as a catalogue's or a model's.

        Args:
            item_ids (`Sequence[str]`): Every item that has events here, in any order, and any others.

        Raises:
            ValueError: Naming items with events that `item_ids` lacks, or an id that stands there twice.
        """
        wanted = checked_item_ids(item_ids)
        if wanted == self.item_ids:
            return self
        place = {item: index for index, item in enumerate(wanted, start=1)}
        # [I + 1]; 0 also stands for items that are not wanted, and stays if they have no events.
        indices = np.array([0, *(place.get(item, 0) for item in self.item_ids)], dtype=np.int64)
        if missing := self.unknown_items(wanted):
            raise ValueError(
                f"{len(missing)} items with events are not among the {len(wanted)} item ids given: "
                f"{shown_ids(missing)}; add them, or give the ids to prepare_sequences(item_ids=)"
            )
        events = self.user_events.with_items(indices)
        splits = {name: _with_labels(split, indices) for name, split in self.items()}
        return SequenceDatasets(splits, events, wanted, self.statistics, self.max_sequence_length)

    def unknown_items(self, item_ids: Sequence[str | int]) -> list[str]:
        """The items with events that are not among others, such as a model's; sorted as strings."""
        known = {canonical_id(item) for item in item_ids}
        return sorted({self.item_ids[index - 1] for index in self._items_with_events()} - known)

    @property
    def days(self) -> tuple[str, str] | None:
        """`tuple(str, str)`, *optional*: The days of the first and the last event, ISO dates in UTC."""
        ends = pc.min_max(self.events.data.column("timestamp")).as_py()
        return None if ends["min"] is None else (_day(ends["min"]), _day(ends["max"]))

    @property
    def num_items_with_events(self) -> int:
        """`int`: Of how many items there are events; of others a catalogue may have told."""
        return len(self._items_with_events())

    def _items_with_events(self) -> list[int]:
        return pc.unique(self.events.data.column("item")).to_pylist()

    def save_to_disk(self, dataset_dict_path: str | os.PathLike) -> None:
        """Write everything to a folder, which appears whole or not at all; `load_from_disk` reads it back.

        Args:
            dataset_dict_path (`str` or `os.PathLike`): The folder. Datasets that lie there already are replaced.
        """
        with replace_sequences(Path(dataset_dict_path)) as folder:
            self.write_splits(folder)
            _write_table(folder / EVENTS_FILE, self.events.data.table)
            logger.info("saved %d events of %d users", len(self.user_events), len(self.user_events.users))

    def write_splits(self, folder: Path) -> None:
        """Write all but the events to a folder."""
        for name, split in self.items():
            _write_table(folder / f"{name}.arrow", split.with_format("arrow")[:])
        _write_table(folder / USERS_FILE, self.user_events.users.data.table)
        _write_table(folder / ITEMS_FILE, pa.table({"item_id": pa.array(self.item_ids, pa.string())}))
        about = {
            "splits": list(self),
            "statistics": self.statistics,
            "max_sequence_length": self.max_sequence_length,
        }
        (folder / ABOUT_FILE).write_text(json.dumps(about, indent=2), encoding="utf-8")

    @staticmethod
    def load_from_disk(dataset_dict_path: str | os.PathLike) -> "SequenceDatasets":
        """Read what `save_to_disk` wrote; the events and the rows stay on disk, memory-mapped.

        Raises:
            FileNotFoundError: If the folder is not there.
            ValueError: If it holds other datasets, or was damaged.
        """
        folder = Path(dataset_dict_path)
        if not folder.is_dir():
            raise FileNotFoundError(f"no such folder: {folder}")
        if not (folder / ABOUT_FILE).is_file():
            raise ValueError(
                f"{folder} holds no sequence datasets: {ABOUT_FILE} is missing; prepare_sequences makes them"
            )
        try:
            about = json.loads((folder / ABOUT_FILE).read_text(encoding="utf-8"))
            events, users, items = (_read_table(folder / name) for name in (EVENTS_FILE, USERS_FILE, ITEMS_FILE))
            splits = {name: _read_table(folder / f"{name}.arrow", name) for name in about["splits"]}
            for name, split in splits.items():
                _check_split(name, split)
            return SequenceDatasets(
                splits,
                UserEvents(events, users),
                items.data.column("item_id").to_pylist(),
                about["statistics"],
                about["max_sequence_length"],
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, pa.ArrowException) as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise ValueError(f"{folder} is damaged ({reason}); prepare the sequences again") from error


def checked_item_ids(item_ids: Sequence[str | int]) -> list[str]:
    """Item ids as strings, each of which may stand there once.

    Raises:
        ValueError: Naming an id that stands there twice, or if there is none.
    """
    ids = [canonical_id(item) for item in item_ids]
    if not ids:
        raise ValueError("item_ids is empty")
    seen: set[str] = set()
    for item in ids:
        if item in seen:
            raise ValueError(f"item id {item!r} stands twice among the item ids; 7 and '7' are the same id")
        seen.add(item)
    return ids


def shown_ids(ids: Sequence[str]) -> str:
    """The first of some ids, for a message."""
    return ", ".join([*map(repr, ids[:5]), *(["..."] if len(ids) > 5 else [])])


def why_empty(name: str, split: str | None) -> str:
    """
    Why a split has no rows, for a message.

    Args:
        name (`str`): Of the split: `"train"`, `"validation"` or `"test"`.
        split (`str`, *optional*): How the log was split, `"leave_one_out"` or `"temporal"`; `None` if nothing tells.
    """
    reasons = {
        # A user's last event tests, the one before validates, the first has no history.
        "leave_one_out": {
            "train": "no user has four events",
            "validation": "no user has three events",
            "test": "no user has two events",
        },
        "temporal": {
            "train": "no user has two events before valid_from",
            "validation": "no user has an event from valid_from to before test_from and one before it",
            "test": "no user has an event from test_from on and one before it",
        },
    }
    return reasons.get(split or "", {}).get(name, "no user has enough events for it")


@contextlib.contextmanager
def replace_sequences(target: Path) -> Iterator[Path]:
    """
    As [`replace_folder`].

    Raises:
        ValueError: As [`check_sequences_folder`].
    """
    with replace_folder(target, _sequence_files(target)) as partial:
        yield partial


def check_sequences_folder(target: Path) -> None:
    """
    Makes sure that sequences can be written to a folder without the loss of anything but earlier ones.

    Raises:
        ValueError: If `target` holds something else than sequences, naming it.
    """
    refuse_other_files(target, _sequence_files(target))


def _sequence_files(folder: Path) -> list[str]:
    """The files of the sequences that lie in a folder."""
    names = {"train", "validation", "test"}
    # Damaged ones are replaced as well.
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        names |= {glob.escape(name) for name in read_object(folder / ABOUT_FILE)["splits"]}
    return [ABOUT_FILE, EVENTS_FILE, USERS_FILE, ITEMS_FILE, *(f"{name}.arrow" for name in sorted(names)), *_BESIDE]


def _with_labels(split: datasets.Dataset, indices: np.ndarray) -> datasets.Dataset:
    table = split.with_format("arrow")[:]
    labels = pa.array(indices[table.column("labels").to_numpy()])
    table = table.set_column(table.schema.get_field_index("labels"), "labels", labels)
    return datasets.Dataset(datasets.table.InMemoryTable(table), split=split.split)


def _check_split(name: str, split: datasets.Dataset) -> None:
    """Refuses a table that is no split: its rows would fail only once they are read."""
    schema = split.data.schema
    places = schema.field("input_ids").type
    if not pa.types.is_struct(places) or {"start", "end"} - {field.name for field in places}:
        raise ValueError(f"{name}: input_ids must hold start and end, found {places}")
    if not pa.types.is_integer(schema.field("labels").type):
        raise ValueError(f"{name}: labels must be integers, found {schema.field('labels').type}")


def _read_table(path: Path, split: str | None = None) -> datasets.Dataset:
    dataset = datasets.Dataset.from_file(str(path), split=None if split is None else datasets.NamedSplit(split))
    # Arrow trusts the places that a file names; a wrong one would end the process. Of numbers no page is read for it.
    dataset.data.table.validate(full=True)
    return dataset


def _write_table(path: Path, table: pa.Table) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)


def _day(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, timezone.utc).date().isoformat()
    except (ValueError, OverflowError, OSError):
        return f"{seconds:,} seconds from 1970"  # beyond the calendar, by a unit that was doubted
