"""Item records from what a user has: JSON lines, tables, lists of dictionaries, Amazon metadata."""

import logging
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets
import narwhals
import polars

from mmm4rec_hf.data.readers.delimited import read_table
from mmm4rec_hf.data.readers.files import KINDS, kind_of
from mmm4rec_hf.data.readers.json_records import json_records, log_bad_lines
from mmm4rec_hf.modeling.ids_mmm4rec import canonical_id

from .amazon import FORMATS as AMAZON_FORMATS
from .amazon import amazon_record

logger = logging.getLogger(__name__)

ID_COLUMNS = ("item_id", "parent_asin", "asin", "itemId", "movieId", "product_id", "article_id", "sku", "id")
ITEM_FILES = ("items.jsonl", "items.jsonl.gz", "items.csv", "items.parquet")
SEPARATORS = {"csv": ",", "tsv": "\t"}


def read_items(
    source: Any, format: str = "auto", id_column: str | None = None
) -> tuple[list[str], list[dict[str, Any]]]:
    """Reads items, each id once.

    Args:
        source (`str`, `os.PathLike`, data frame, `datasets.Dataset` or `Iterable[Mapping]`):
            A file (`.jsonl`, `.json`, `.csv`, `.tsv`, `.parquet`, plain or compressed), a folder that holds an
            `items` file, any data frame that narwhals knows, a `datasets.Dataset`, or dictionaries.
        format (`str`, *optional*, defaults to `"auto"`): `"amazon-2018"` or `"amazon-2023"` for metadata files.
        id_column (`str`, *optional*): The field that holds the item id; by default found by its usual names.

    Returns:
        `tuple[list[str], list[dict]]`: Ids as strings, and records without their ids.

    Raises:
        ValueError: If nothing could be read, or the id's field is unclear.
    """
    if format not in ("auto", *AMAZON_FORMATS):
        raise ValueError(f"format must be one of auto, {', '.join(AMAZON_FORMATS)}, got {format!r}")
    rows: Iterable[Mapping[str, Any]] = _rows(source)
    if format != "auto":
        rows, id_column = (amazon_record(row, format) for row in rows), "item_id"
    records: dict[str, dict[str, Any]] = {}
    without_id = repeated = different = 0
    for row in rows:
        if id_column is None:
            id_column = find_id_column(row)
        record = {str(field): value for field, value in row.items() if not _is_absent(value)}
        item_id = record.pop(id_column, None)
        if item_id is None or item_id == "":
            without_id += 1
            continue
        item_id = canonical_id(item_id)
        if item_id in records:
            repeated += 1
            different += _differs(records[item_id], record)
        else:
            records[item_id] = record
    if without_id:
        logger.warning("%d records have no %s and were dropped", without_id, id_column)
    if repeated:
        logger.warning(
            "%d records repeat an item id and were dropped, the first of each id kept; %d of them differ from it",
            repeated,
            different,
        )
    if not records:
        raise ValueError(f"no items were read from {_name(source)}")
    return list(records), list(records.values())


def find_id_column(row: Mapping[str, Any]) -> str:
    """The field of a record that holds its id.

    Raises:
        ValueError: If none of the usual names is there, or several are and none is `item_id`.
    """
    found = [name for name in ID_COLUMNS if name in row]
    if not found:
        raise ValueError(f"no field of {sorted(row)} is an item id's usual name; give id_column=")
    if len(found) > 1 and found[0] != "item_id":
        raise ValueError(f"the item id may be any of {found}; give id_column=")
    return found[0]


def _name(source: Any) -> str:
    return str(source) if isinstance(source, str | os.PathLike) else f"a {type(source).__name__}"


def _differs(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return repr(sorted(first.items(), key=lambda item: item[0])) != repr(
        sorted(second.items(), key=lambda item: item[0])
    )


def _is_absent(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _rows(source: Any) -> Iterable[Mapping[str, Any]]:
    if isinstance(source, str | os.PathLike):
        return _file_rows(_item_file(Path(source)))
    if isinstance(source, Mapping):
        raise TypeError("items must be a list of dictionaries, one an item, not one dictionary")
    if isinstance(source, datasets.Dataset):
        return _dataset_rows(source)
    frame = narwhals.from_native(source, pass_through=True)
    if isinstance(frame, narwhals.LazyFrame):
        frame = frame.collect()
    return frame.iter_rows(named=True) if isinstance(frame, narwhals.DataFrame) else _dictionaries(source)


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
    if path.is_dir():
        found = [path / name for name in ITEM_FILES if (path / name).is_file()]
        if len(found) != 1:
            raise ValueError(f"{path} must hold one of {', '.join(ITEM_FILES)}, found {[file.name for file in found]}")
        return found[0]
    if not path.is_file():
        raise ValueError(f"{path} does not exist")
    return path


def _file_rows(path: Path) -> Iterable[Mapping[str, Any]]:
    kind = KINDS.get(kind_of(path))
    if kind == "jsonl":
        return _json_rows(path)
    if kind == "parquet":
        return _parquet_rows(path)
    if kind is not None:
        return read_table(path, SEPARATORS[kind]).iter_rows(named=True)
    raise ValueError(f"{path} is none of {', '.join(KINDS)} (plain, .gz, .bz2 or .xz)")


def _json_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    bad_lines: list[int] = []
    for _, record in json_records(path, bad_lines):
        yield record
    log_bad_lines(path, bad_lines)


def _parquet_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        table = polars.read_parquet(path, glob=False)
    except (polars.exceptions.PolarsError, polars.exceptions.PanicException) as error:
        raise ValueError(f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}") from error
    return table.iter_rows(named=True)
