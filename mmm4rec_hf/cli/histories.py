"""Histories of many users from a file, one user after the other."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mmm4rec_hf.data import load_interactions
from mmm4rec_hf.data.engines import stream
from mmm4rec_hf.data.splits import in_time_order

History = dict[str, Any]


def read_histories(path: Path, time_unit: str | None = None) -> Iterator[History]:
    """
    Histories out of a file of users, or out of a log of interactions.

    Args:
        path (`Path`): JSON lines or Parquet with `user_id`, `items` and `timestamps` (lists), a row a user; or a log
            of any form that [`load_interactions`] reads, a row an event.
        time_unit (`str`, *optional*): Of a log's numbers; told by their magnitude by default.

    Yields:
        `dict`: `user_id`, `items` and, where there are times, `timestamps`.

    Raises:
        FileNotFoundError: If the file is not there.
        ValueError: For a line that is no history, naming it.
    """
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    if path.suffix == ".parquet" and pa.types.is_nested(_type_of_items(path)):
        return _from_parquet(path)
    if path.suffix in (".jsonl", ".json") and _first_line_has_items(path):
        return _from_json_lines(path)
    return _from_log(path, time_unit)


def _from_json_lines(path: Path) -> Iterator[History]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{path}, line {number} is no JSON; each line is an object of one user") from error
            if not isinstance(record, dict) or not isinstance(record.get("items"), list):
                raise ValueError(f'{path}, line {number} has no list "items"')
            # A file without user ids is told apart by its lines, from 1 on.
            yield {"user_id": str(number)} | record


def _from_parquet(path: Path) -> Iterator[History]:
    file = pq.ParquetFile(path)
    number = 0
    for batch in file.iter_batches():
        for record in batch.to_pylist():
            number += 1
            yield {"user_id": str(number)} | record


def _from_log(path: Path, time_unit: str | None) -> Iterator[History]:
    log = in_time_order(load_interactions(path, time_unit=time_unit).frame).sort("user_id", "position")
    history: History | None = None
    for batch in stream(log.select("user_id", "item_id", "timestamp")):
        columns = (batch.column(name).to_pylist() for name in ("user_id", "item_id", "timestamp"))
        for user, item, timestamp in zip(*columns, strict=True):
            if history is None or history["user_id"] != user:
                if history is not None:
                    yield history
                history = {"user_id": user, "items": [], "timestamps": []}
            history["items"].append(item)
            history["timestamps"].append(timestamp)
    if history is not None:
        yield history


def _type_of_items(path: Path) -> pa.DataType:
    schema = pq.read_schema(path)
    return schema.field("items").type if "items" in schema.names else pa.null()


def _first_line_has_items(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            record = json.loads(file.readline())
        except ValueError:
            return False
    return isinstance(record, dict) and "items" in record
