"""Histories of many users from a file, one user after the other."""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import narwhals as nw
import pyarrow as pa
import pyarrow.parquet as pq

from mmm4rec_hf.data import Interactions, load_interactions
from mmm4rec_hf.data.histories import stream_histories
from mmm4rec_hf.data.readers.files import KINDS, kind_of, log_files, text_lines
from mmm4rec_hf.data.readers.parquet import DAMAGE, read_parquet_batches, unreadable
from mmm4rec_hf.evaluation.protocol import PREPARE_NAME, read_source
from mmm4rec_hf.plain_json import read_json

logger = logging.getLogger(__name__)

History = dict[str, Any]
# Ids that an error names.
_SHOWN = 3


class HistoryFile(NamedTuple):
    """
    What a file holds.

    Args:
        histories (`Iterator[dict]`): Each with `user_id`, `items` and, where there are times, `timestamps`.
        time_unit (`str`, *optional*): The unit of these timestamps: of a log they are seconds, whatever the log's own.
    """

    histories: Iterator[History]
    time_unit: str | None


def open_histories(
    path: Path,
    *,
    users: Sequence[str] | None = None,
    time_unit: str | None = None,
    time_format: str | None = None,
    format: str = "auto",
    user_column: str | None = None,
    item_column: str | None = None,
    timestamp_column: str | None = None,
    rating_column: str | None = None,
    order_column: str | None = None,
    layout: Mapping[str, str] | None = None,
) -> HistoryFile:
    """
    Histories out of a file of users, or out of a log of interactions.

    Args:
        path (`Path`): JSON lines or Parquet with `user_id`, `items` and `timestamps` (lists), a row a user, compressed
            or not, a file or a folder of parts; or a log of any form that [`load_interactions`] reads, a row an event.
        users (`Sequence[str]`, *optional*): The only users whose histories are read, in the order wanted. Of one with
            several rows each row is a history, as it is without this.
        time_unit (`str`, *optional*): Of numbers; told by their magnitude by default.
        format, time_format, user_column, item_column, timestamp_column (*optional*):
            Of a log, as for [`load_interactions`]; the columns count for a file of users too.
        rating_column, order_column (`str`, *optional*):
            Of a log: what also tells its rows apart, and what orders its events of the same time.
        layout (`Mapping[str, str]`, *optional*):
            Where nothing else is told: these columns, where the file has them, and of a log this `time_unit` and
            `time_format`.

    Raises:
        FileNotFoundError: If the file is not there.
        ValueError: For users that the file does not hold, and, while it is read, for a line that is no history.
    """
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    if (path / PREPARE_NAME).is_file():
        source = " ".join(read_source(path)) or "as it was given to prepare"
        raise ValueError(f"{path} holds sequences, not the log that they were made of; give the log, {source}")
    layout = layout or {}
    files = _files_of(path) if format == "auto" else []
    lists = _lists_of(files)
    told = {"user_id": user_column, "items": item_column, "timestamps": timestamp_column}
    usual = dict(zip(told, map(layout.get, ("user_column", "item_column", "timestamp_column")), strict=True))
    names = _Names(*(told[ours] or _known_name(ours, usual[ours], lists) for ours in told))
    if lists.get(names.items):
        if names.user_id not in lists:
            logger.warning(
                "%s has no %s: its users are numbered, from 1; user_column= tells where ids stand",
                *(path, names.user_id),
            )
        for name, column in (("rating_column", rating_column), ("order_column", order_column)):
            if column is not None:
                raise ValueError(
                    f"{name}= is for a log, a row an event; {path} holds lists of items in their order: leave it out"
                )
        if time_format is not None:
            raise ValueError(
                f"time_format= is for a log, a row an event; the times of {path} are lists: write ISO 8601"
            )
        histories = (_from_parquet if _is_parquet(files) else _from_json_lines)(files, names)
        return HistoryFile(histories if users is None else iter(_chosen(histories, users, path)), time_unit)
    columns = {
        "user_column": user_column,
        "item_column": item_column,
        "timestamp_column": timestamp_column,
        "rating_column": rating_column,
        "order_column": order_column,
    }
    times = {"time_unit": time_unit or layout.get("time_unit"), "time_format": time_format}
    log = load_interactions(path, format=format, usual_columns=layout, **times, **columns)
    return HistoryFile(_from_log(log) if users is None else iter(_of_users(log, users, path)), "s")


class _Names(NamedTuple):
    """What the three fields of a file of users are called."""

    user_id: str
    items: str
    timestamps: str

    def history(self, record: dict[str, Any], number: int) -> History:
        """A record as a history. A file without user ids is told apart by its lines, from 1 on."""
        # A name that was told counts before ours, where a record has both.
        named = {ours: record[name] for ours, name in self._asdict().items() if name in record}
        return {"user_id": str(number)} | record | named


def _chosen(histories: Iterator[History], users: Sequence[str], path: Path) -> list[History]:
    """The histories of some users, in their order."""
    wanted, known = set(users), list[str]()
    found: dict[str, list[History]] = {}
    for history in histories:
        user = str(history["user_id"])
        if user in wanted:
            found.setdefault(user, []).append(history)
        elif len(known) < _SHOWN:
            known.append(user)
    _check_found(users, found, [*found, *known], path)
    return [history for user in dict.fromkeys(users) for history in found[user]]


def _of_users(log: Interactions, users: Sequence[str], path: Path) -> list[History]:
    """As [`_chosen`], of a log, whose other users are never sorted."""
    theirs = replace(log, frame=log.frame.filter(nw.col("user_id").is_in(list(users))))
    found = {history["user_id"]: history for history in _from_log(theirs)}
    if len(found) < len(set(users)):
        known = log.frame.select("user_id").unique().sort("user_id").head(_SHOWN).collect()["user_id"].to_list()
        _check_found(users, found, known, path)
    return [found[user] for user in dict.fromkeys(users)]


def _check_found(users: Sequence[str], found: Collection[str], known: Sequence[str], path: Path) -> None:
    missing = [user for user in dict.fromkeys(users) if user not in found]
    if missing:
        shown = ", ".join(map(repr, missing[:_SHOWN]))
        are = "is" if len(missing) == 1 else "are"
        raise ValueError(
            f"{shown} {are} no user{'' if len(missing) == 1 else 's'} of {path}, which has "
            f"{', '.join(map(repr, known[:_SHOWN]))}, ...; ids are compared to the letter"
        )


def _from_json_lines(files: Sequence[Path], names: _Names) -> Iterator[History]:
    before = 0  # lines of the files before
    for path in files:
        number = 0
        for number, line in text_lines(path):
            try:
                record = read_json(line)
            except ValueError as error:
                raise ValueError(f"{path}, line {number} is no JSON; each line is an object of one user") from error
            if not isinstance(record, dict) or not isinstance(record.get(names.items), list):
                raise ValueError(f'{path}, line {number} has no list "{names.items}"')
            yield names.history(record, before + number)
        before += number


def _from_parquet(files: Sequence[Path], names: _Names) -> Iterator[History]:
    for path in files:
        if not _lists_of([path]).get(names.items):
            raise ValueError(f'{path} has no column "{names.items}" of lists, as {files[0]} has')
    rows = (row for path in files for batch in read_parquet_batches(path) for row in batch.iter_rows(named=True))
    for number, record in enumerate(rows, start=1):
        yield names.history(record, number)


def _from_log(log: Interactions) -> Iterator[History]:
    history: History | None = None
    for batch in stream_histories(log):
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


def _files_of(path: Path) -> list[Path]:
    """The files of a path that may hold a user a row; none of a log with a layout of its own."""
    try:
        return log_files([path], any_kind=False)
    except ValueError:  # which a log's reader tells, where it is one
        return []


def _is_parquet(files: Sequence[Path]) -> bool:
    """Whether files, which are of one kind, are Parquet."""
    return KINDS[kind_of(files[0])] == "parquet"


def _lists_of(files: Sequence[Path]) -> dict[str, bool]:
    """The fields of files that may hold a user a row, and whether each is a list; nothing of another kind of file."""
    if not files:
        return {}
    if _is_parquet(files):
        try:
            schema = pq.read_schema(files[0])
        except DAMAGE as error:
            raise unreadable(files[0], error) from error
        return {field.name: pa.types.is_nested(field.type) for field in schema}
    if KINDS[kind_of(files[0])] != "jsonl":
        return {}
    # Of parts the first may be empty.
    _, line = next((line for path in files for line in text_lines(path)), (0, ""))
    try:
        record = read_json(line)
    except ValueError:
        return {}
    if not isinstance(record, dict):
        return {}
    # A user's line whose items are no list is told as one.
    return {name: isinstance(value, list) or name == "items" for name, value in record.items()}


def _known_name(ours: str, usual: str | None, names: Collection[str]) -> str:
    """Our name of a field, or the usual one where the file has it instead."""
    return usual if usual is not None and ours not in names and usual in names else ours
