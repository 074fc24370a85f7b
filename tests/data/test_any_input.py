"""Whatever a file or frame holds, it is read, or refused with ValueError or TypeError.

A list of strings names files, which are found or not.
"""

import bz2
import datetime
import gzip
import json
import lzma
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from polars.testing.parametric import series

from mmm4rec_hf.data import Interactions, load_interactions, prepare_sequences

pytestmark = pytest.mark.filterwarnings("ignore:timestamps of", "ignore::SyntaxWarning", "ignore:.*invalid escape")
relaxed = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])

SUFFIXES = [
    ".csv",
    ".tsv",
    ".txt",
    ".jsonl",
    ".json",
    ".json.gz",
    ".csv.xz",
    ".tsv.bz2",
    ".parquet",
    ".inter",
    ".data",
]
COMPRESS: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
FORMATS = ["auto", "csv", "tsv", "jsonl", "parquet", "amazon-2018", "amazon-2023", "movielens", "recbole", "published"]
HEADERS = ["user_id,item_id,timestamp", "user_id:token\titem_id:token\ttimestamp:float", "user,item,rating,time", ""]
pieces = st.sampled_from(
    [",", "\t", "\n", '"', "::", "u", "1", "1387670400", "1387670400000", "é", "\x00", "'", ".", "-1"]
)


def read(source: Any, **arguments: Any) -> Interactions | None:
    """The log, or None if it was refused in the way it should."""
    try:
        log = load_interactions(source, **arguments)
        frame = log.frame.collect("polars")
    except (ValueError, TypeError, FileNotFoundError) as error:
        assert str(error)
        return None
    assert frame.schema["user_id"] == frame.schema["item_id"]
    assert not frame["user_id"].is_null().any() and not frame["timestamp"].is_null().any()
    return log


@relaxed
@given(st.sampled_from(SUFFIXES), st.sampled_from(FORMATS), st.binary(max_size=200), st.booleans())
def test_files_of_any_bytes(suffix: str, format: str, content: bytes, compress: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"log{suffix}"
        path.write_bytes(COMPRESS.get(path.suffix, bytes)(content) if compress else content)
        read(path, format=format)
        read(folder, format=format)


names = st.sampled_from(
    ["a.csv", "b.csv", "ratings.csv", "movies.csv", "u.data", "ratings.dat", "x.inter", "item2id.jsonl", "_SUCCESS"]
)


@relaxed
@given(st.dictionaries(names, st.sampled_from([*HEADERS, "1::2::3::4", "1\t2\t3\t4"]), max_size=4))
def test_folders_of_any_files(files: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, header in files.items():
            (Path(folder) / name).write_text(f"{header}\nu,a,1\nu\ta\t2\n")
        read(folder)
        read([Path(folder) / name for name in files])


@relaxed
@given(
    st.sampled_from([".csv", ".tsv", ".inter", ".csv.gz", ".tsv.xz", ".txt.bz2"]),
    st.sampled_from(HEADERS),
    st.lists(pieces, max_size=40),
)
def test_text_files_that_are_almost_right(suffix: str, header: str, body: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"log{suffix}"
        path.write_bytes(COMPRESS.get(path.suffix, bytes)(f"{header}\n{''.join(body)}".encode()))
        log = read(path)
        if log is not None:
            prepare_sequences(log, k_core=0)


values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
    st.datetimes().map(str),
    st.integers(-(2**63), 2**63 - 1),
)
records = st.fixed_dictionaries({}, optional=dict.fromkeys(("user_id", "item_id", "timestamp", "rating"), values))


@relaxed
@given(st.lists(st.one_of(records, values), max_size=5), st.sampled_from([None, "s", "ns"]))
def test_json_lines_of_any_values(lines: list[Any], time_unit: str | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.jsonl"
        path.write_text("\n".join(map(json.dumps, lines)))
        read(path, time_unit=time_unit)
    read(lines, time_unit=time_unit)


# pandas itself fails on a signalling NaN.
decimals = st.decimals().filter(lambda value: not value.is_snan())
cells = st.one_of(values, st.datetimes(), st.dates(), decimals, st.binary(max_size=3), st.just(pd.NaT), st.just(pd.NA))
columns = st.one_of(
    st.lists(cells, min_size=3, max_size=3),
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=3, max_size=3),
    st.lists(st.floats(), min_size=3, max_size=3),
    st.lists(st.text(max_size=3), min_size=3, max_size=3),
    st.lists(st.datetimes(), min_size=3, max_size=3),
    st.lists(st.datetimes(timezones=st.just(datetime.timezone.utc)), min_size=3, max_size=3),
)


@relaxed
@given(columns, columns, columns, st.one_of(st.none(), columns))
@example(["u"] * 3, ["a"] * 3, [1, 2, 3], [None, 4.5, -(2**63) - 1])
def test_pandas_frames_of_any_values(users: Any, items: Any, times: Any, ratings: Any) -> None:
    data = {"user_id": users, "item_id": items, "timestamp": times}
    try:
        frame = pd.DataFrame(data if ratings is None else data | {"rating": ratings})
    except (OverflowError, ValueError):
        return
    log = read(frame)
    if log is not None:
        prepare_sequences(log, k_core=0)


TYPES = [
    *(
        pl.String,
        pl.Categorical,
        pl.Int8,
        pl.Int64,
        pl.UInt64,
        pl.Int128,
        pl.Float32,
        pl.Float64,
        pl.Boolean,
        pl.Binary,
    ),
    *(pl.Date, pl.Time, pl.Datetime("ns"), pl.Datetime("ms", "Asia/Tokyo"), pl.Duration("us"), pl.Decimal(20, 3)),
    *(pl.List(pl.Int64), pl.Struct({"a": pl.String}), pl.Null),
]
if pl.__version__.startswith("1."):
    TYPES.remove(pl.Int128)  # which polars 1.20 cannot draw
typed = st.sampled_from(TYPES).flatmap(lambda dtype: series(dtype=dtype, min_size=2, max_size=2))
ids = st.just(pl.Series(["u", "v"])) | series(dtype=pl.UInt64, min_size=2, max_size=2) | typed


@settings(relaxed, max_examples=200)
@given(ids, ids, typed | st.just(pl.Series([3, 1])), st.none() | ids, st.booleans())
def test_columns_of_any_type(users: pl.Series, items: pl.Series, times: pl.Series, order: Any, in_file: bool) -> None:
    frame = pl.DataFrame({"user_id": users, "item_id": items, "timestamp": times})
    options = {} if order is None else {"order_column": "place"}
    frame = frame if order is None else frame.with_columns(place=order)
    if not in_file:
        log = read(frame, **options)
    else:
        with tempfile.TemporaryDirectory() as folder:
            try:
                frame.write_parquet(Path(folder) / "log.parquet")
            except pl.exceptions.PolarsError:
                return
            log = read(Path(folder), **options)
    if log is not None:
        prepare_sequences(log, k_core=0)


published_lines = st.one_of(
    values,
    st.tuples(st.text(max_size=2), st.integers(0, 3)),
    st.tuples(st.integers(0, 2), st.lists(st.tuples(st.integers(0, 3), st.integers()), max_size=3)),
)


@relaxed
@given(*[st.lists(published_lines, max_size=3) for _ in range(3)])
def test_published_files_of_any_lines(items: list[Any], users: list[Any], sequences: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        files = {"item2id.jsonl": items, "user2id.jsonl": users, "test_seq.jsonl": sequences}
        for name, lines in files.items():
            (Path(folder) / name).write_text("\n".join(map(json.dumps, lines)))
        read(folder)
