"""The published data format: `train_seq.jsonl`, `eval_seq.jsonl`, `test_seq.jsonl`, `item2id.jsonl`, `user2id.jsonl`.

A line of the first three is `[user, [[item, time], ...]]`, indices of users from 0 and of items from 1, and the last
item is the target; a line of the last two is `[id, index]`. Every prefix of every history is written out there, so a
file takes the square of a history's length.
"""

import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import narwhals as nw
import numpy as np
import polars as pl

from mmm4rec_hf.modeling.ids_mmm4rec import canonical_id
from mmm4rec_hf.outputs import replace_folder
from mmm4rec_hf.plain_json import read_json

from .columns import LogColumns
from .readers.files import RawLog
from .sequence_datasets import SequenceDatasets

logger = logging.getLogger(__name__)

SEQUENCE_FILES = {"train": "train_seq.jsonl", "validation": "eval_seq.jsonl", "test": "test_seq.jsonl"}
ITEM_FILE, USER_FILE = "item2id.jsonl", "user2id.jsonl"


def is_published(folder: Path) -> bool:
    """Whether a folder holds the published format."""
    return (folder / ITEM_FILE).is_file() and any((folder / name).is_file() for name in SEQUENCE_FILES.values())


def read_published(folder: Path) -> RawLog:
    """The log behind published files: every user's whole history, with the ids of `item2id.jsonl` and `user2id.jsonl`.

    Whole histories are the lines of `test_seq.jsonl`, or, where it is absent (merged pretraining data), each user's
    longest line of `train_seq.jsonl`. `prepare_sequences(data, k_core=1)` then makes the published split of it.

    Raises:
        ValueError: For missing files, lines of another form and indices without an id, naming file and line.
    """
    if not is_published(folder):
        raise ValueError(f"{folder} does not hold {ITEM_FILE} and one of {', '.join(SEQUENCE_FILES.values())}")
    items, users = published_item_ids(folder), _ids(folder / USER_FILE, first=0)
    source = folder / SEQUENCE_FILES["test"]
    if not source.is_file():
        source = folder / SEQUENCE_FILES["train"]
        logger.warning("%s has no test_seq.jsonl; each user's longest line of train_seq.jsonl is taken", folder)
    histories: dict[int, list[list[int]]] = {}
    for user, events in _sequences(source, len(users), len(items)):
        if len(events) > len(histories.get(user, ())):
            histories[user] = events
    if not histories:
        raise ValueError(f"{source} holds no events")
    lengths = [len(events) for events in histories.values()]
    flat = np.array([event for events in histories.values() for event in events], dtype=np.int64)  # [N, 2]
    frame = pl.LazyFrame(
        {
            "user_id": pl.Series(users).gather(np.repeat(list(histories), lengths)),
            "item_id": pl.Series(items).gather(flat[:, 0] - 1),
            "timestamp": flat[:, 1],
        }
    )
    columns = LogColumns.ours(["user_id", "item_id", "timestamp"])
    return RawLog(nw.from_native(frame), columns, str(folder), deduplicated=True, item_ids=items)


def published_item_ids(folder: Path) -> list[str]:
    """The ids of `item2id.jsonl`, in the order of their indices.

    Raises:
        ValueError: For a missing file and lines of another form.
    """
    return _ids(folder / ITEM_FILE, first=1)


def write_published(datasets: SequenceDatasets, folder: str | os.PathLike) -> None:
    """Write datasets in the published format; the folder appears whole or not at all. Features are not part of it.

    Features of a model's items join them by `mmm4rec convert to-published --data`, where indices are the model's.

    Args:
        datasets (`SequenceDatasets`): What `prepare_sequences` returns, or `align(model.item_ids)` of it.
        folder (`str` or `os.PathLike`): A folder that is not there yet, or is empty.

    Raises:
        ValueError: If `folder` holds anything.
    """
    with replace_folder(Path(folder), ()) as target:
        for ids, name, first in ((datasets.item_ids, ITEM_FILE, 1), (datasets.user_ids, USER_FILE, 0)):
            _write_lines(target / name, ([identifier, index] for index, identifier in enumerate(ids, start=first)))
        for split, name in SEQUENCE_FILES.items():
            _write_lines(target / name, _lines(datasets, split))


def _lines(datasets: SequenceDatasets, split: str) -> Iterator[Any]:
    pointers = datasets.pointers_of(split)
    for start, end, user in zip(*pointers, datasets.user_events.users_of(pointers[0]), strict=True):
        items, timestamps = datasets.user_events.slice(int(start), int(end) + 1)
        yield [int(user), np.stack([items, timestamps], axis=1).tolist()]


def _write_lines(path: Path, lines: Iterator[Any]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for line in lines:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _ids(path: Path, first: int) -> list[str]:
    """Ids by index; the lines may stand in any order, the indices count up from `first`."""
    ids: dict[int, str] = {}
    indices: dict[str, int] = {}
    for number, (written, index) in _parsed(path, _is_id_line, "[id, index]"):
        identifier = canonical_id(written)
        if index in ids:
            raise ValueError(f"{path}, line {number}: index {index} was given to {ids[index]!r} before")
        # Two indices of one id would be merged; 1 and "1" are the same id.
        if identifier in indices:
            raise ValueError(
                f"{path}, line {number}: {identifier!r} was given index {indices[identifier]} before, now {index}; "
                "give each index an id of its own"
            )
        ids[index], indices[identifier] = identifier, index
    if sorted(ids) != list(range(first, first + len(ids))):
        raise ValueError(f"{path}: the indices must count up from {first}")
    return [ids[index] for index in sorted(ids)]


def _sequences(path: Path, users: int, items: int) -> Iterator[tuple[int, list[list[int]]]]:
    for number, (user, events) in _parsed(path, _is_sequence_line, "[user, [[item, time], ...]]"):
        if not 0 <= user < users:
            raise ValueError(f"{path}, line {number}: user {user} is not among the {users} of {USER_FILE}")
        unknown = next((item for item, _ in events if not 1 <= item <= items), None)
        if unknown is not None:
            raise ValueError(f"{path}, line {number}: item {unknown} is not among the {items} of {ITEM_FILE}")
        yield user, events


def _parsed(path: Path, is_valid: Callable[[Any], bool], form: str) -> Iterator[tuple[int, Any]]:
    if not path.is_file():
        raise ValueError(f"{path} is missing")
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                value = read_json(line)
            except ValueError:
                value = None
            if not is_valid(value):
                raise ValueError(f"{path}, line {number} must be {form}")
            yield number, value


def _is_index(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def _is_id_line(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != 2 or not _is_index(value[1]):
        return False
    return (isinstance(value[0], str) and value[0] != "") or _is_index(value[0])


def _is_sequence_line(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and _is_index(value[0])
        and isinstance(value[1], list)
        and all(isinstance(event, list) and len(event) == 2 and all(map(_is_index, event)) for event in value[1])
    )
