"""Item records from what a user has: JSON lines, tables, lists of dictionaries, public data sets' own layouts."""

import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

import datasets
import narwhals
import numpy as np

from mmm4rec_hf.data.columns import candidates_for
from mmm4rec_hf.data.readers.delimited import read_table
from mmm4rec_hf.data.readers.files import KINDS, existing_paths, kind_of
from mmm4rec_hf.data.readers.json_lines import json_records, log_bad_lines
from mmm4rec_hf.data.readers.parquet import read_parquet_table
from mmm4rec_hf.modeling.ids_mmm4rec import canonical_id
from mmm4rec_hf.suggestions import did_you_mean, nearest

from .amazon import FORMATS as AMAZON_FORMATS
from .amazon import amazon_format, amazon_record
from .fields import usual_fields
from .movielens import FILES as MOVIELENS_FILES
from .movielens import read_movielens_items
from .recbole import read_recbole_items
from .text import is_absent

logger = logging.getLogger(__name__)

FORMATS = ("auto", *AMAZON_FORMATS, "movielens", "recbole")
ITEM_FILES = ("items.jsonl", "items.jsonl.gz", "items.csv", "items.parquet")
# Records may lack fields, so the id's field and the layout are told by the first of them together.
RECORDS_FOR_NAMES = 100
_HALVES = re.compile("[\ud800-\udfff]")


def read_items(
    source: Any, format: str = "auto", id_column: str | None = None, *, known_id: str | None = None
) -> tuple[list[str], list[dict[str, Any]]]:
    """Reads items, each id once.

    Args:
        source (`str`, `os.PathLike`, data frame, `datasets.Dataset` or `Iterable[Mapping]`):
            A file (`.jsonl`, `.json`, `.csv`, `.tsv`, `.parquet`, plain or compressed), a folder that holds an
            `items` file or the films of MovieLens or RecBole's `.item` file, any data frame that narwhals knows, a
            `datasets.Dataset`, or dictionaries.
        format (`str`, *optional*, defaults to `"auto"`): `"amazon-2018"` or `"amazon-2023"` for metadata files,
            `"movielens"` or `"recbole"`. `"auto"` knows each by the names of files or fields.
        id_column (`str`, *optional*): The field that holds the item id; by default found by its usual names.
        known_id (`str`, *optional*): What a field is called that may hold the item id in the place of `item_id`.

    Returns:
        `tuple[list[str], list[dict]]`: Ids as strings, and records without their ids.

    Raises:
        FileNotFoundError: For a path that does not exist.
        ValueError: If nothing could be read, the id's field is unclear, or a record has two ids that differ.
        TypeError: For records that are no dictionaries, and ids that are neither strings nor integers.
    """
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {format!r}")
    rows: Iterator[Mapping[str, Any]] = map(_plain_row, _rows(source, format))
    first = list(islice(rows, RECORDS_FOR_NAMES))
    if not first:
        raise ValueError(f"no items were read from {_name(source)}")
    names = list(dict.fromkeys(name for row in first for name in row))
    rows = chain(first, rows)
    if id_column is None and known_id in names:
        rows, id_column = (_with_one_id(row, known_id) for row in rows), "item_id"
    layout = format if format in AMAZON_FORMATS else None
    if layout is not None and id_column is not None:
        raise ValueError(f"format={format!r} has its own field of ids; leave id_column={id_column!r} out")
    if format == "auto" and id_column is None:
        layout = amazon_format(names)
    if layout is not None:
        logger.info("%s: read as %s", _name(source), layout)
        rows, id_column = (amazon_record(row, layout) for row in rows), "item_id"
    return _by_id(rows, id_column or find_id_column(names), _name(source))


def _by_id(rows: Iterable[Mapping[str, Any]], id_column: str, where: str) -> tuple[list[str], list[dict[str, Any]]]:
    """The first record of each id; those without an id and the others of an id are counted and logged."""
    records: dict[str, dict[str, Any]] = {}
    without_id = repeated = different = 0
    names: dict[str, None] = {}
    for row in rows:
        record = {field: value for field, value in row.items() if value is not None}
        item_id = record.pop(id_column, None)
        if _is_no_id(item_id):
            without_id += 1
            names |= dict.fromkeys(record)
            continue
        item_id, record = canonical_id(item_id), _whole(record)
        if item_id in records:
            repeated += 1
            different += _differs(records[item_id], record)
        else:
            records[item_id] = record
    if not records:
        likely = nearest(id_column, names)
        raise ValueError(
            f"none of the {without_id} records of {where} has an item id in {id_column!r}; "
            f"{did_you_mean(likely) + ' ' if likely else ''}they have {', '.join(names) or 'nothing else'}"
        )
    if without_id:
        logger.warning("%d records have no %s and were dropped", without_id, id_column)
    if repeated:
        logger.warning(
            "%d records repeat an item id and were dropped, the first of each id kept; %d of them differ from it",
            repeated,
            different,
        )
    return list(records), list(records.values())


def _with_one_id(row: Mapping[str, Any], known_id: str) -> Mapping[str, Any]:
    """A record whose id is called `item_id`, whichever of its two names it had."""
    record = dict(row)
    theirs, ours = record.pop(known_id, None), record.get("item_id")
    if _is_no_id(theirs):
        return record
    if not _is_no_id(ours) and str(ours) != str(theirs):
        raise ValueError(
            f"'item_id' and {known_id!r} are one field of this catalogue, and a new item has {ours!r} and {theirs!r}; "
            "give one of them"
        )
    return record | {"item_id": theirs}


def _is_no_id(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value)


def find_id_column(names: Iterable[str]) -> str:
    """The field that holds the ids of records, among the names of their fields.

    Raises:
        ValueError: If none of the usual names is there, or several are and none is `item_id`.
    """
    names = list(names)
    found = [*candidates_for("item_id", names), *(name for name in names if name == "id")]
    if not found:
        # All at once: each is one more run of a command.
        more = [f"{name}_column=" for name in ("title", "image") if not usual_fields(name, names)]
        too = f", and {' and '.join(more)} where items have these by other names" if more else ""
        raise ValueError(f"no field of {sorted(names)} is an item id's usual name; give id_column={too}")
    if len(found) > 1 and "item_id" not in found:
        raise ValueError(f"the item id may be any of {found}; give id_column=")
    return "item_id" if "item_id" in found else found[0]


def _name(source: Any) -> str:
    return str(source) if isinstance(source, str | os.PathLike) else f"a {type(source).__name__}"


def _whole(value: Any) -> Any:
    """
    A value whose texts can be written: halves of UTF-16 pairs, as titles that were cut in the middle of an emoji hold
    them, become U+FFFD. Ids are not changed but refused, since they would be others.
    """
    if isinstance(value, str):
        return value if value.isascii() else _HALVES.sub("\ufffd", value)
    if isinstance(value, list):
        return [_whole(part) for part in value]
    if isinstance(value, dict):
        return {_whole(name): _whole(part) for name, part in value.items()}
    return value


def _differs(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return repr(sorted(first.items(), key=lambda item: item[0])) != repr(
        sorted(second.items(), key=lambda item: item[0])
    )


def _plain_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A record as a file of JSON lines would give it, whatever library holds it: gaps are None, arrays are lists."""
    return {str(name): None if is_absent(value) else _listed(value) for name, value in row.items()}


def _listed(value: Any) -> Any:
    """
    Arrays of texts, and what holds them, as lists: pandas reads any list of a Parquet file as an array. Those of
    numbers stay, as lists of them take ten times the memory.
    """
    if isinstance(value, np.ndarray) and value.dtype.kind in "OU":
        value = value.tolist()
    if isinstance(value, dict):
        return {name: _listed(part) for name, part in value.items()}
    # Features are long lists of numbers; the first value tells.
    if isinstance(value, list) and value and isinstance(value[0], list | dict | np.ndarray):
        return [_listed(part) for part in value]
    return value


def _rows(source: Any, format: str) -> Iterable[Mapping[str, Any]]:
    if isinstance(source, str | os.PathLike):
        return _file_rows(_item_file(existing_paths(source)[0]), format)
    if format in ("movielens", "recbole"):
        raise ValueError(f"format={format!r} is for files, got {type(source).__name__}; leave it out")
    if isinstance(source, datasets.Dataset):
        return _dataset_rows(source)
    frame = narwhals.from_native(source, pass_through=True)
    if isinstance(frame, narwhals.LazyFrame):
        frame = frame.collect()
    if isinstance(frame, narwhals.DataFrame):
        return frame.iter_rows(named=True)
    if isinstance(source, Mapping) or not isinstance(source, Iterable):
        raise TypeError(f"items must be a path, a data frame or a list of dictionaries, got {type(source).__name__}")
    return _dictionaries(source)


def _dictionaries(source: Iterable[Any]) -> Iterator[Mapping[str, Any]]:
    for number, row in enumerate(source):
        if not isinstance(row, Mapping):
            raise TypeError(f"item {number} must be a dictionary, got {type(row).__name__}")
        yield row


def _dataset_rows(dataset: Any) -> Iterator[dict[str, Any]]:
    # Undecoded image cells: a broken picture must not end the reading.
    for name, feature in dataset.features.items():
        if isinstance(feature, datasets.Image):
            dataset = dataset.cast_column(name, datasets.Image(decode=False))
    yield from dataset


def _item_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = [path / name for name in ITEM_FILES if (path / name).is_file()]
    # A folder of ours says so by its file's name; what public data sets hold counts where there is none.
    found = found or [path / name for name in MOVIELENS_FILES if (path / name).is_file()] + sorted(path.glob("*.item"))
    found = sorted(set(found))
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise ValueError(
            f"{path} should hold one file of items ({', '.join(ITEM_FILES)}, {', '.join(MOVIELENS_FILES)} or *.item), "
            f"found {names}; name the file"
        )
    return found[0]


def _file_rows(path: Path, format: str) -> Iterable[Mapping[str, Any]]:
    kind = KINDS.get(kind_of(path))
    if format == "movielens" or (format == "auto" and path.name in MOVIELENS_FILES):
        return read_movielens_items(path)
    if format == "recbole" or (format == "auto" and path.suffix == ".item"):
        return read_recbole_items(path)
    if kind == "jsonl":
        return _json_rows(path)
    if kind == "parquet":
        return _parquet_rows(path)
    if kind is not None:
        return read_table(path, "\t" if kind == "tsv" else None).iter_rows(named=True)
    raise ValueError(f"{path} is none of {', '.join(KINDS)} (plain, .gz, .bz2 or .xz)")


def _json_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    bad_lines: list[int] = []
    for _, record in json_records(path, bad_lines):
        yield record
    log_bad_lines(path, bad_lines)


def _parquet_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    return read_parquet_table(path).iter_rows(named=True)
