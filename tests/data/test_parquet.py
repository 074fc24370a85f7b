"""Every reader of a whole Parquet file refuses one that is cut off, no Parquet, or holds far more than its size."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmm4rec_hf import ItemCatalog
from mmm4rec_hf.cli.histories import open_histories
from mmm4rec_hf.data import load_interactions
from mmm4rec_hf.data.readers import files
from mmm4rec_hf.data.readers.parquet import read_parquet_batches, read_parquet_table
from mmm4rec_hf.evaluation.evaluator import Evaluation
from mmm4rec_hf.evaluation.yardsticks import load_baselines

USERS = pl.DataFrame({"user_id": ["a", "b"], "items": [["1"], ["1", "2"]]})
TARGETS = pl.DataFrame({"user_id": ["a", "b"], "item_id": ["1", "2"], "above": [0, 1], "level": [1, 1]})


def read_evaluation(path: Path) -> pl.DataFrame:
    protocol = {"split": "test", "num_items": 2, "exclude_history": False, "score_padding_item": False, "ks": [1]}
    (path.parent / "metrics.json").write_text(json.dumps({"metrics": {}, "protocol": protocol | {"prepared": {}}}))
    return Evaluation.load(path.parent).targets


READERS: dict[str, tuple[str, Callable[[Path], object], pl.DataFrame]] = {
    "log": (
        "log.parquet",
        load_interactions,
        pl.DataFrame({"user_id": ["a"], "item_id": ["1"], "timestamp": [1_700_000_000]}),
    ),
    "items": ("items.parquet", ItemCatalog.from_items, pl.DataFrame({"item_id": ["1"], "title": ["One"]})),
    "users": ("users.parquet", lambda path: list(open_histories(path).histories), USERS),
    "evaluation": ("targets.parquet", read_evaluation, TARGETS),
    "baselines": (
        "baselines.parquet",
        lambda path: load_baselines(
            path.parent, Evaluation(TARGETS, {"num_items": 2, "score_padding_item": False}, {})
        ),
        pl.DataFrame({"popularity above": [0, 1], "popularity level": [1, 1]}),
    ),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_file_that_is_cut_off_or_none_is_refused_by_name(tmp_path: Path, reader: str) -> None:
    name, read, table = READERS[reader]
    path = tmp_path / name
    table.write_parquet(path)
    read(path)
    whole = path.read_bytes()
    # The size of the end stands in its last eight bytes: the pages, or the end too, are gone or no Parquet.
    for damaged in (whole[:-9], whole[4:], b"no table" * 9, b"", b"PAR1" + b"\xff" * 60 + whole[-60:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"{name} cannot be read as Parquet: ."):
            read(path)


@pytest.mark.parametrize("reader", READERS)
def test_a_file_that_holds_far_more_than_its_size_is_refused(
    tmp_path: Path, reader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, read, table = READERS[reader]
    path = tmp_path / name
    monkeypatch.setattr(files, "UNPACKED_BYTES", 1 << 20)
    pl.concat([table.head(1)] * 300_000, rechunk=True).write_parquet(path, compression="zstd")
    with pytest.raises(ValueError, match=rf"{name} unpacks to [\d,]+ bytes, more than 200 times its size"):
        read(path)


@pytest.mark.parametrize("reader", READERS)
def test_a_page_that_tells_an_absurd_number_of_values_is_refused(tmp_path: Path, reader: str) -> None:
    # Polars asks for memory for them, and ends the process where there is less.
    name, read, table = READERS[reader]
    path = tmp_path / name
    pq.write_table(pl.concat([table.head(1)] * 50).to_arrow(), path, use_dictionary=False)
    whole = path.read_bytes()
    # The first field of a page's header of version 1, a 32-bit number: 50 values, and -50.
    assert whole.count(b"\x15\x64\x15") >= len(table.columns)
    path.write_bytes(whole.replace(b"\x15\x64\x15", b"\x15\x63\x15"))
    with pytest.raises(ValueError, match=rf"{name} cannot be read as Parquet: .*negative number of values"):
        read(path)


@pytest.mark.parametrize("reader", ["log", "items", "users"])
def test_texts_that_are_no_unicode_are_refused(tmp_path: Path, reader: str) -> None:
    name, read, table = READERS[reader]
    path = tmp_path / name
    texts = [column for column in table.columns if table.schema[column] == pl.String]
    table = table.with_columns(pl.lit("QQQQ").alias(texts[0]))
    pq.write_table(table.to_arrow(), path, compression="none", use_dictionary=False, write_statistics=False)
    whole = path.read_bytes()
    assert whole.count(b"QQQQ") == len(table)
    path.write_bytes(whole.replace(b"QQQQ", b"Q\xff\xfeQ"))
    with pytest.raises(ValueError, match=rf"{name} cannot be read as Parquet: .*[Uu][Tt][Ff]-?8"):
        read(path)


def test_logs_of_other_columns_are_refused_where_these_are_read(tmp_path: Path) -> None:
    log = READERS["log"][2]
    paths = [tmp_path / "may.parquet", tmp_path / "june.parquet"]
    log.write_parquet(paths[0])
    # As the index that pandas writes with the rows of a filtered frame: nobody reads it.
    log.with_columns(__index_level_0__=pl.lit(7)).write_parquet(paths[1])
    for given in (paths, paths[::-1]):
        read = load_interactions(given).frame.collect("polars").select("user_id", "item_id", "timestamp")
        assert read.rows() == [("a", "1", 1_700_000_000)] * 2
    log.with_columns(rating=pl.lit(4)).write_parquet(paths[1])
    with pytest.raises(ValueError, match=r"june.parquet and .*may.parquet differ in their columns, by rating"):
        load_interactions(paths)


HOUR = datetime(2020, 6, 1, 1)  # UTC: second 1590973200
ONE_TYPE: list[tuple[str, list[pl.Series], list[object]]] = [
    ("user_id", [pl.Series([7]), pl.Series(["007"])], ["7", "007"]),
    ("user_id", [pl.Series([7], dtype=pl.Int32), pl.Series([2**63], dtype=pl.UInt64)], ["7", str(2**63)]),
    ("item_id", [pl.Series(["a"], dtype=pl.Categorical), pl.Series(["b"])], ["a", "b"]),
    ("item_id", [pl.Series(["a"], dtype=pl.Enum(["a"])), pl.Series(["b"], dtype=pl.Enum(["b"]))], ["a", "b"]),
    ("timestamp", [pl.Series([1590973200]), pl.Series([5], dtype=pl.Int32)], [1590973200, 5]),
    ("timestamp", [pl.Series([1590973200]), pl.Series(["2020-06-01 01:00:01"])], [1590973200, 1590973201]),
    ("timestamp", [pl.Series([1590973200]), pl.Series([5.0])], [1590973200, 5]),
    ("timestamp", [pl.Series([HOUR], dtype=pl.Datetime(unit)) for unit in ("ms", "ns", "us")], [1590973200] * 3),
    ("timestamp", [pl.Series([HOUR.date()]), pl.Series([HOUR])], [1590973200 - 3600, 1590973200]),
    (
        "timestamp",
        # Three in the morning in Berlin, where summer time is two hours ahead.
        [
            pl.Series([HOUR]).dt.replace_time_zone("UTC"),
            pl.Series([HOUR + timedelta(hours=2)]).cast(pl.Datetime("ms")).dt.replace_time_zone("Europe/Berlin"),
        ],
        [1590973200] * 2,
    ),
    ("rating", [pl.Series([4]), pl.Series([4.5]), pl.Series([None])], [4.0, 4.5, None]),
    ("order", [pl.Series([4], dtype=pl.Int16), pl.Series([2**62])], [4, 2**62]),
]


def write_parts(folder: Path, name: str, values: list[pl.Series]) -> list[Path]:
    paths = [folder / f"{month}.parquet" for month in ("may", "june", "july")[: len(values)]]
    for place, (path, part) in enumerate(zip(paths, values, strict=True)):
        columns: dict[str, object] = {"user_id": ["u"], "item_id": ["a"], "timestamp": [place], name: part}
        pl.DataFrame(columns).write_parquet(path)
    return paths


@pytest.mark.parametrize(("name", "values", "expected"), ONE_TYPE)
def test_parts_of_other_types_are_read_where_nothing_is_lost(
    tmp_path: Path, name: str, values: list[pl.Series], expected: list[object]
) -> None:
    paths = write_parts(tmp_path, name, values)
    for given, wanted in ((paths, expected), (paths[::-1], expected[::-1])):
        read = load_interactions(given, order_column="order" if name == "order" else None)
        assert read.frame.collect("polars")[name].to_list() == wanted


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        (
            "timestamp",
            [pl.Series([HOUR]), pl.Series([HOUR]).dt.replace_time_zone("UTC")],
            r"timestamp column 'timestamp' is of type Datetime\(.*\) in .*may.parquet and of type Datetime\(.*UTC.*\) "
            "in .*june.parquet: bring both to UTC",
        ),
        (
            "user_id",
            [pl.Series([7]), pl.Series([7.0])],
            "user_id column .* Int64 in .*may.* Float64 in .*june.parquet: ",
        ),
        (
            "timestamp",
            [pl.Series([7]), pl.Series([HOUR])],
            "Int64 in .*may.parquet and of type Datetime.*: bring both",
        ),
        ("timestamp", [pl.Series([7]), pl.Series([7.0], dtype=pl.Float32)], "Int64 in .* and of type Float32 in "),
        ("timestamp", [pl.Series([7]), pl.Series([2**63], dtype=pl.UInt64)], "Int64 in .* and of type UInt64 in "),
        (
            "timestamp",
            [pl.Series([datetime(1600, 1, 1)]), pl.Series([HOUR], dtype=pl.Datetime("ns"))],
            "timestamp column .*may.parquet .*june.parquet: .*1600",
        ),
        ("timestamp", [pl.Series([2**53 + 1]), pl.Series([7.0])], "is a float that may have lost digits"),
        ("rating", [pl.Series([4]), pl.Series(["4"])], "rating column 'rating' is of type Int64 in .* String in "),
    ],
)
def test_parts_whose_types_do_not_go_together_are_refused_by_column_and_file(
    tmp_path: Path, name: str, values: list[pl.Series], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load_interactions(write_parts(tmp_path, name, values))


def test_times_of_older_writers_outside_the_range_of_nanoseconds_keep_their_year(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    times = [datetime(1600, 1, 1), datetime(2020, 6, 1, 1, 2, 3, 456_789), datetime(9999, 12, 31)]
    table = pa.table({"user_id": ["u"] * 3, "item_id": list("abc"), "timestamp": pa.array(times, pa.timestamp("us"))})
    # 96 bits each, the form of Hive and of Spark before version 3.
    pq.write_table(table, path, use_deprecated_int96_timestamps=True)
    expected = [(time - datetime(1970, 1, 1)) // timedelta(seconds=1) for time in times]
    assert load_interactions(path).frame.collect("polars")["timestamp"].to_list() == expected
    assert read_parquet_table(path)["timestamp"].to_list() == times
    (batch,) = read_parquet_batches(path)
    assert batch["timestamp"].to_list() == times
