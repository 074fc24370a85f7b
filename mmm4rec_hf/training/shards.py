"""Training histories as Parquet files, a row a user, for logs that are streamed instead of held."""

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmm4rec_hf.outputs import replace_folder
from mmm4rec_hf.plain_json import read_json, read_object

if TYPE_CHECKING:
    from mmm4rec_hf.data import SequenceDatasets

logger = logging.getLogger(__name__)

ABOUT_NAME, ITEM_IDS_NAME = "shards.json", "item_ids.json"
_FILES = (ABOUT_NAME, ITEM_IDS_NAME, "shard-*.parquet")
SHARD_SCHEMA = pa.schema(
    {"user_id": pa.string(), "input_ids": pa.list_(pa.int32()), "timestamps": pa.list_(pa.int64())}
)
USERS_PER_GROUP = 1024


def write_shards(sequences: "SequenceDatasets", folder: str | os.PathLike[str], num_shards: int) -> None:
    """
    Writes the training part of each user's history; every event of it but the first is a target.

    Users are dealt to the files at random, always alike, so that each file is a sample of all users.

    Args:
        sequences (`SequenceDatasets`): With a split `train`.
        folder (`str` or `os.PathLike`): The folder to write: `shard-00000.parquet`, ..., `item_ids.json` (the items in
            the order of their 1-based indices) and `shards.json`. Shards that lie there already are replaced.
        num_shards (`int`): Files; a multiple of the number of processes lets each read files of its own.

    Raises:
        ValueError: If there are fewer users to train on than files, or `folder` holds something else than shards.
    """
    starts, stops = _training_histories(sequences)
    if not 1 <= num_shards <= len(starts):
        raise ValueError(f"the number of shards must be from 1 to {len(starts):,}, the users to train on")
    order = np.random.default_rng(0).permutation(len(starts))
    with replace_folder(Path(folder), _FILES) as partial:
        for number, members in enumerate(np.array_split(order, num_shards)):
            with pq.ParquetWriter(partial / f"shard-{number:05d}.parquet", SHARD_SCHEMA) as writer:
                for table in _tables(sequences, starts[members], stops[members]):
                    writer.write_table(table)
        (partial / ITEM_IDS_NAME).write_text(json.dumps(sequences.item_ids, ensure_ascii=False), encoding="utf-8")
        about = {"shards": num_shards, "users": len(starts), "targets": int((stops - starts - 1).sum())}
        (partial / ABOUT_NAME).write_text(json.dumps(about, indent=2), encoding="utf-8")
    left_out = len(sequences.user_ids) - len(starts)
    logger.info("wrote %d users to %d shards; %d users have nothing to train on", len(starts), num_shards, left_out)


def read_about(folder: str | os.PathLike[str]) -> tuple[dict[str, Any], list[str]]:
    """
    The numbers of a folder of shards, and its item ids.

    Raises:
        ValueError: If the folder holds no shards, or not all of them.
    """
    path = Path(folder)
    if not (path / ABOUT_NAME).is_file():
        raise ValueError(f"{path} holds no shards of histories: {ABOUT_NAME} is missing; see mmm4rec prepare --shards")
    about = read_object(path / ABOUT_NAME)
    if len(shard_files(path)) != about["shards"]:
        raise ValueError(f"{path} has {len(shard_files(path))} of its {about['shards']} shards; write them again")
    return about, read_json((path / ITEM_IDS_NAME).read_text(encoding="utf-8"))


def shard_files(folder: Path) -> list[str]:
    """The Parquet files of a folder, in order."""
    return sorted(str(path) for path in folder.glob("shard-*.parquet"))


def _training_histories(sequences: "SequenceDatasets") -> tuple[np.ndarray, np.ndarray]:
    """Where the training events of each user that has targets start and stop in the table of events."""
    starts, ends = sequences.pointers_of("train")
    first, place = np.unique(starts, return_inverse=True)
    stops = np.zeros(len(first), dtype=np.int64)
    np.maximum.at(stops, place, ends + 1)  # the target stands at the end
    return first, stops


def _tables(sequences: "SequenceDatasets", starts: np.ndarray, stops: np.ndarray) -> Iterator[pa.Table]:
    users = sequences.user_events.users.data.column("user_id")
    for begin in range(0, len(starts), USERS_PER_GROUP):
        group = slice(begin, begin + USERS_PER_GROUP)
        bounds = zip(starts[group].tolist(), stops[group].tolist(), strict=True)
        slices = [sequences.user_events.slice(start, stop) for start, stop in bounds]
        names = users.take(pa.array(sequences.user_events.users_of(starts[group]))).cast(pa.string())
        columns = [names, [items for items, _ in slices], [times for _, times in slices]]
        yield pa.table(dict(zip(SHARD_SCHEMA.names, columns, strict=True)), schema=SHARD_SCHEMA)
