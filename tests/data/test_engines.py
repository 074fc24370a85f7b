"""The same log on every engine: the same split, row for row."""

import datetime
import random
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from mmm4rec_hf import recommend_frame
from mmm4rec_hf.data import SequenceDatasets, load_interactions, prepare_sequences
from mmm4rec_hf.data.histories import stream_histories

random.seed(0)
LOG = pl.DataFrame(
    {
        "user_id": [f"u{random.randrange(40)}" for _ in range(1500)],
        "item_id": [random.choice(["a'b", "ü", "007", "7", *(f"i{n}" for n in range(40))]) for _ in range(1500)],
        "timestamp": [1387670400 + random.randrange(500) for _ in range(1500)],
        "rating": [random.choice([1.0, 5.0, None]) for _ in range(1500)],
    }
)
LOG = pl.concat([LOG, LOG[:20]])
TEMPORAL = {"split": "temporal", "valid_from": 1387670700, "test_from": 1387670800}
ITEMS = [*sorted(set(LOG["item_id"]) - {"i3", "i4"}), "cold"]
ARGUMENTS: list[Any] = [
    pytest.param({}, id="defaults"),
    pytest.param({"k_core": 25}, id="25-core"),
    pytest.param(TEMPORAL, id="temporal"),
    pytest.param(TEMPORAL | {"k_core": 15}, id="temporal-15-core"),
    pytest.param({"item_ids": ITEMS}, id="catalogue"),
    pytest.param(TEMPORAL | {"item_ids": ITEMS}, id="temporal-catalogue"),
]


def contents(prepared: SequenceDatasets) -> dict[str, Any]:
    rows = {
        split: [(r["input_ids"].tolist(), r["timestamps"].tolist(), r["labels"]) for r in prepared[split]]
        for split in prepared
    }
    about = {"users": prepared.user_ids, "items": prepared.item_ids, "statistics": prepared.statistics}
    return rows | about


def expected(arguments: dict[str, Any], log: pl.DataFrame = LOG) -> dict[str, Any]:
    return contents(prepare_sequences(load_interactions(log), **arguments))


def spark_frame(spark: Any, log: pl.DataFrame, schema: str) -> Any:
    return spark.createDataFrame(log.rows(), schema)


SPARK_SCHEMA = "user_id string, item_id string, timestamp long, rating double"


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_pandas_gives_the_split_of_polars(arguments: dict[str, Any]) -> None:
    assert contents(prepare_sequences(load_interactions(LOG.to_pandas()), **arguments)) == expected(arguments)


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_duckdb_gives_the_split_of_polars(arguments: dict[str, Any]) -> None:
    duckdb = pytest.importorskip("duckdb")
    # Before DuckDB 1.4 a connection that nobody holds is closed.
    connection = duckdb.connect()
    relation = connection.from_arrow(LOG.to_arrow())
    assert contents(prepare_sequences(load_interactions(relation), **arguments)) == expected(arguments)


@pytest.mark.parametrize("setting", ["default_order = 'DESC'", "default_null_order = 'NULLS LAST'"])
def test_no_setting_of_duckdb_changes_the_order_of_events(setting: str) -> None:
    duckdb = pytest.importorskip("duckdb")
    connection = duckdb.connect()
    connection.execute(f"SET {setting}")
    rows = [("b", "x", 3), ("a", "x", 1), ("a", "y", 2), ("b", "z", 5), ("a", "z", 9)]
    log = pl.DataFrame(rows, ["user_id", "item_id", "timestamp"], orient="row")
    relation = connection.from_arrow(log.to_arrow())
    prepared = prepare_sequences(load_interactions(relation), k_core=1)
    assert contents(prepared) | {"statistics": None} == {
        "users": ["a", "b"],
        "items": ["x", "y", "z"],
        "train": [],
        "validation": [([1], [1], 2)],
        "test": [([1, 2], [1, 2], 3), ([1], [3], 3)],
        "statistics": None,
    }
    histories = [
        tuple(event.values()) for batch in stream_histories(load_interactions(relation)) for event in batch.to_pylist()
    ]
    assert histories == [("a", "x", 1), ("a", "y", 2), ("a", "z", 9), ("b", "x", 3), ("b", "z", 5)]
    # The first row that is wrong is the one that is named.
    early, late = ("a", "x", "noon"), ("b", "y", "night")
    wrong = pl.DataFrame([early, late], ["user_id", "item_id", "timestamp"], orient="row")
    with pytest.raises(ValueError, match="timestamp 'noon' of user 'a'"):
        load_interactions(connection.from_arrow(wrong.to_arrow()))


LETTERS = [("A", "x", 1), ("a", "x", 2), ("a", "X", 3), ("A", "X", 4), ("B", "x", 5), ("A", "x", 1), ("B", "X", 6)]


def check_letters(log: Any) -> None:
    """Of frames that hold [`LETTERS`]: no two ids that differ in their letters are one, and the bytes sort them."""
    prepared = prepare_sequences(load_interactions(log), k_core=1)
    assert (prepared.user_ids, prepared.item_ids) == (["A", "B", "a"], ["X", "x"])
    assert prepared.statistics["duplicated_rows"] == 1
    rows = [(row["input_ids"].tolist(), row["timestamps"].tolist(), row["labels"]) for row in prepared["test"]]
    assert rows == [([2], [1], 1), ([2], [5], 1), ([2], [2], 1)]
    of_catalog = prepare_sequences(load_interactions(log), k_core=1, item_ids=["x"])
    assert of_catalog.statistics["rows_outside_catalog"] == 3
    # Each user has two events and each item three.
    with pytest.raises(ValueError, match="nothing is left of the log: no users and items with 3 events"):
        prepare_sequences(load_interactions(log), k_core=3)


@pytest.mark.parametrize(
    ("setting", "user_type"),
    [("SELECT 1", "VARCHAR COLLATE NOCASE"), ("SET default_collation = 'NOCASE'", "VARCHAR")],
)
def test_duckdb_compares_ids_to_the_letter_whatever_its_collation(setting: str, user_type: str) -> None:
    duckdb = pytest.importorskip("duckdb")
    connection = duckdb.connect()
    connection.execute(setting)
    connection.execute(f"CREATE TABLE log (user_id {user_type}, item_id {user_type}, timestamp BIGINT)")
    connection.executemany("INSERT INTO log VALUES (?, ?, ?)", LETTERS)
    check_letters(connection.table("log"))


@pytest.mark.slow
def test_spark_compares_ids_to_the_letter_whatever_its_collation(spark: Any) -> None:
    if not hasattr(pytest.importorskip("pyspark.sql.functions"), "collate"):
        pytest.skip("this Spark knows no collations")
    text = "string collate UTF8_LCASE"
    check_letters(spark.createDataFrame(LETTERS, f"user_id {text}, item_id {text}, timestamp long"))


@pytest.mark.slow
@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_spark_gives_the_split_of_polars(spark: Any, arguments: dict[str, Any]) -> None:
    frame = spark_frame(spark, LOG, SPARK_SCHEMA)
    assert contents(prepare_sequences(load_interactions(frame), **arguments)) == expected(arguments)


@pytest.mark.slow
def test_a_log_on_spark_is_never_collected(spark: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyspark.sql.classic.dataframe import DataFrame

    collected = []
    for name in ("collect", "toPandas", "toArrow", "toLocalIterator"):
        original = getattr(DataFrame, name)

        def counting(self: Any, *args: Any, original: Any = original, **kwargs: Any) -> Any:
            collected.append(self.count())
            return original(self, *args, **kwargs)

        monkeypatch.setattr(DataFrame, name, counting)
    frame = spark_frame(spark, LOG, SPARK_SCHEMA)
    prepared = prepare_sequences(load_interactions(frame))
    assert prepared.statistics["events"] > 1000
    # One-row aggregates, and the list of items.
    assert max(collected) == len(prepared.item_ids)


# Few times and few places, so that rows alone order most events; some rows stand twice, in other places.
PLACED = LOG.with_columns(
    timestamp=pl.col("timestamp") // 100 * 100, place=pl.Series([random.randrange(3) for _ in range(len(LOG))])
)


def in_place() -> list[tuple[str, str]]:
    """Users and items in the order of user, time, place and row, each row once."""
    rows = enumerate(PLACED.rows())
    numbered = [(user, time, place, row, item, rating) for row, (user, item, time, rating, place) in rows]
    events = dict.fromkeys((user, time, item, rating) for user, time, _, _, item, rating in sorted(numbered))
    return [(user, item) for user, _, item, _ in events]


def check_places(frame: Any) -> None:
    for _ in range(2):
        prepared = prepare_sequences(load_interactions(frame, order_column="place"), k_core=1)
        users = [user for user, count in prepared.user_events.users.to_pandas().values for _ in range(count)]
        items = [prepared.item_ids[index - 1] for index in prepared.events["item"]]
        assert list(zip(users, items, strict=True)) == in_place()
        assert prepared.statistics["duplicated_rows"] == len(LOG) - len(in_place())


@pytest.mark.parametrize("kind", ["polars", "lazy", "pandas", "pyarrow"])
def test_rows_of_one_time_and_place_keep_their_order(kind: str) -> None:
    frames = {"polars": PLACED, "lazy": PLACED.lazy(), "pandas": PLACED.to_pandas(), "pyarrow": PLACED.to_arrow()}
    check_places(frames[kind])


def test_rows_of_one_time_and_place_keep_their_order_on_duckdb() -> None:
    duckdb = pytest.importorskip("duckdb")
    connection = duckdb.connect()
    check_places(connection.from_arrow(PLACED.to_arrow()))


@pytest.mark.slow
def test_rows_of_one_time_and_place_keep_their_order_on_spark(spark: Any) -> None:
    check_places(spark_frame(spark, PLACED, f"{SPARK_SCHEMA}, place long"))


@pytest.mark.slow
def test_a_frame_of_spark_is_answered_by_one(spark: Any) -> None:
    def last_item_first(histories: list[dict[str, Any]], **_: Any) -> list[list[dict[str, Any]]]:
        parts = {"text_score": 0.25, "image_score": 0.5}
        items = [[history["items"][-1], *history["items"][:-1]] for history in histories]
        return [
            [
                {"item_id": item, "score": 0.75 - n, **parts, "title": None if n else "Ü'"}
                for n, item in enumerate(theirs)
            ]
            for theirs in items
        ]

    recommender: Any = last_item_first
    recommender.model = SimpleNamespace(config=SimpleNamespace(use_cooccurrence=False))
    log = spark.createDataFrame(
        [("v", "i1", 3), ("u", "i5", 1), ("v", "i3", 1), ("v", "i2", 2)],
        "user_id string, item_id string, timestamp long",
    )
    result = recommend_frame(recommender, log)
    assert isinstance(result, type(log)) and dict(result.dtypes)["rank"] == "int"
    assert [tuple(row) for row in result.sort("user_id", "rank").collect()] == [
        ("u", 1, "i5", 0.75, 0.25, 0.5, "Ü'"),
        ("v", 1, "i1", 0.75, 0.25, 0.5, "Ü'"),
        ("v", 2, "i3", -0.25, 0.25, 0.5, None),
        ("v", 3, "i2", -1.25, 0.25, 0.5, None),
    ]


TIMES = [
    ("timestamp_ntz", datetime.datetime(2013, 12, 22, 1, 2, 3, 400), None),
    ("timestamp", datetime.datetime(2013, 12, 22, 1, 2, 3, tzinfo=datetime.timezone.utc), "UTC"),
    ("string", "2013-12-22T01:02:03.0004Z", None),
    ("string", "2013-12-22 02:02:03+01:00", None),
    ("long", 1387674123, None),
    ("double", 1387674123.0, None),
    ("decimal(12,2)", Decimal("1387674123.00"), None),
]


@pytest.mark.slow
@pytest.mark.parametrize(("spark_type", "value", "zone"), TIMES, ids=lambda value: str(value).replace(" ", "_"))
def test_every_type_of_time_is_one_second_on_every_engine(
    spark: Any, spark_type: str, value: Any, zone: str | None
) -> None:
    duckdb = pytest.importorskip("duckdb")
    log = pl.DataFrame({"user_id": ["u"], "item_id": ["a"], "timestamp": [value]})
    spark_log = spark.createDataFrame([("u", "a", value)], f"user_id string, item_id string, timestamp {spark_type}")
    connection = duckdb.connect()
    connection.execute("SET TimeZone='America/New_York'")
    for frame in (log, log.to_pandas(), connection.from_arrow(log.to_arrow()), spark_log):
        loaded = load_interactions(frame).frame.collect("polars")
        assert loaded["timestamp"].to_list() == [1387674123], type(frame)


# 2013-12-22 01:02:03 is second 1387674123, as `date -u -d @1387674123` says.
@pytest.mark.parametrize(
    ("of_duckdb", "second", "nanosecond"),
    [
        ("TIMESTAMP_NS '2013-12-22 01:02:03.123456789'", 1387674123, 123456789),
        ("TIMESTAMP_NS '1969-12-31 23:59:59.999999999'", -1, 999999999),
        ("TIMESTAMP_S '2013-12-22 01:02:03'", 1387674123, 0),
        ("TIMESTAMP_MS '2013-12-22 01:02:03.004'", 1387674123, 4_000_000),
        ("TIMESTAMP '2013-12-22 01:02:03.000004'", 1387674123, 4_000),
        ("TIMESTAMPTZ '2013-12-22 02:02:03+01'", 1387674123, 0),
    ],
)
def test_every_clock_of_duckdb_is_read(of_duckdb: str, second: int, nanosecond: int) -> None:
    duckdb = pytest.importorskip("duckdb")
    connection = duckdb.connect()
    connection.execute("SET TimeZone='America/New_York'")
    relation = connection.sql(f"SELECT 'u' AS user_id, 'a' AS item_id, {of_duckdb} AS timestamp")
    loaded = load_interactions(relation).frame.collect("polars")
    assert loaded.select("timestamp", "subsecond").rows() == [(second, nanosecond)]


def test_nanoseconds_with_a_zone_are_read_on_duckdb(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    times = pl.Series([1387674123123456789]).cast(pl.Datetime("ns", "Europe/Berlin"))
    path = tmp_path / "log.parquet"
    pl.DataFrame({"user_id": ["u"], "item_id": ["a"], "timestamp": times}).write_parquet(path)
    connection = duckdb.connect()
    connection.execute("SET TimeZone='America/New_York'")
    loaded = load_interactions(connection.read_parquet(str(path))).frame.collect("polars")
    # Earlier versions of DuckDB read such times in microseconds.
    (row,) = loaded.select("timestamp", "subsecond").rows()
    assert row in [(1387674123, 123456789), (1387674123, 123456000)]


@pytest.mark.parametrize("kind", ["TIMESTAMP", "TIMESTAMP_NS", "TIMESTAMPTZ", "DATE"])
def test_infinite_times_of_duckdb_are_refused(kind: str) -> None:
    duckdb = pytest.importorskip("duckdb")
    connection = duckdb.connect()
    relation = connection.sql(f"SELECT 'u' AS user_id, 'a' AS item_id, 'infinity'::{kind} AS timestamp")
    with pytest.raises(ValueError, match="of user 'u' and item 'a' is infinite; drop such rows"):
        load_interactions(relation)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:timestamps of")
def test_nanoseconds_round_down_on_every_engine(spark: Any) -> None:
    duckdb = pytest.importorskip("duckdb")
    times = [1387670400999999999, -(2**63)]
    log = pl.DataFrame({"user_id": ["u"] * 2, "item_id": ["a"] * 2, "timestamp": times})
    spark_log = spark_frame(spark, log, "user_id string, item_id string, timestamp long")
    connection = duckdb.connect()
    for frame in (log, connection.from_arrow(log.to_arrow()), spark_log):
        loaded = load_interactions(frame).frame.sort("order").collect("polars")
        rows = [(1387670400, 999999999), (-9223372037, 145224192)]
        assert loaded.select("timestamp", "subsecond").rows() == rows, type(frame)


@pytest.mark.slow
@pytest.mark.parametrize("spark_type", ["double", "string"])
def test_decimals_round_down_on_every_engine(spark: Any, spark_type: str) -> None:
    duckdb = pytest.importorskip("duckdb")
    times = [1387670400.25, -1.25, 3.0, -2.0, 0.5]
    values = times if spark_type == "double" else [str(time) for time in times]
    log = pl.DataFrame({"user_id": ["u"] * 5, "item_id": ["a"] * 5, "timestamp": values})
    spark_log = spark_frame(spark, log, f"user_id string, item_id string, timestamp {spark_type}")
    expected = [(1387670400, 250_000_000), (-2, 750_000_000), (3, 0), (-2, 0), (0, 500_000_000)]
    connection = duckdb.connect()
    for frame in (log, log.to_pandas(), connection.from_arrow(log.to_arrow()), spark_log):
        loaded = load_interactions(frame).frame.sort("order").collect("polars")
        assert loaded.select("timestamp", "subsecond").rows() == expected, type(frame)


@pytest.mark.slow
def test_wrong_logs_on_spark_are_refused_as_elsewhere(spark: Any) -> None:
    times = spark.createDataFrame([("u", "a", "noon")], "user_id string, item_id string, timestamp string")
    with pytest.raises(ValueError, match="timestamp 'noon' of user 'u' and item 'a'"):
        load_interactions(times)
    ids = spark.createDataFrame([(1.5, "a", 1)], "user_id double, item_id string, timestamp long")
    with pytest.raises(TypeError, match="user_id column .* Float64"):
        load_interactions(ids)


def test_other_lazy_engines_are_refused_with_the_remedy() -> None:
    ibis = pytest.importorskip("ibis", reason="ibis is not installed")
    with pytest.raises(TypeError, match="polars, DuckDB or PySpark"):
        load_interactions(ibis.memtable(LOG.to_arrow()))
