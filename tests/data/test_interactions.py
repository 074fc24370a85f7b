import bz2
import codecs
import gzip
import json
import logging
import lzma
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from mmm4rec_hf.data import Interactions, load_interactions
from mmm4rec_hf.data.readers import files

# Ids that integers, floats and sloppy parsers damage; the times are not in order.
ROWS = [
    ("007", "0001388703", 1387670430),
    ("007", "1.0", 1387670400),
    ("9007199254740993", "a,b", 1387670400),
    ("9007199254740992", "é", 1387670461),
]


def rows_of(log: Interactions) -> list[tuple[str, str, int]]:
    return log.frame.sort("order").select("user_id", "item_id", "timestamp").collect("polars").rows()


def csv_text(separator: str = ",", header: str = "user_id,item_id,timestamp") -> str:
    lines = [header.replace(",", separator)]
    lines += [separator.join((user, f'"{item}"', str(time))) for user, item, time in ROWS]
    return "\n".join(lines) + "\n"


def json_text(**renamed: str) -> str:
    names = [renamed.get(name, name) for name in ("user_id", "item_id", "timestamp")]
    return "\n".join(json.dumps(dict(zip(names, row, strict=True))) for row in ROWS)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("log.csv", csv_text().encode()),
        ("bom.csv", b"\xef\xbb\xbf" + csv_text().encode()),
        ("crlf.csv", csv_text().replace("\n", "\r\n").encode()),
        ("semicolon.csv", csv_text(";").encode()),
        ("log.tsv", csv_text("\t").encode()),
        ("log.csv.gz", gzip.compress(csv_text().encode())),
        ("log.csv.bz2", bz2.compress(csv_text().encode())),
        ("log.csv.xz", lzma.compress(csv_text().encode())),
        ("log.jsonl", json_text().encode()),
        ("log.jsonl.gz", gzip.compress(json_text().encode())),
        ("log.json", ("[" + json_text().replace("\n", ",") + "]").encode()),
        ("aliases.csv", csv_text(header="userId,movieId,time").encode()),
        ("aliases.jsonl", json_text(user_id="reviewerID", item_id="asin", timestamp="unixReviewTime").encode()),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_files_of_every_kind_keep_ids_to_the_letter(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    log = load_interactions(tmp_path / name)
    assert rows_of(log) == ROWS
    assert log.statistics["rows_read"] == 4


def test_parquet_and_frames_of_every_library_give_the_same_log(tmp_path: Path) -> None:
    frame = pl.DataFrame(ROWS, schema=["user_id", "item_id", "timestamp"], orient="row")
    frame.write_parquet(tmp_path / "log.parquet")
    datasets.Dataset.from_polars(frame).save_to_disk(str(tmp_path / "dataset"))
    sources: list[Any] = [
        tmp_path / "log.parquet",
        tmp_path / "dataset",
        frame,
        frame.lazy(),
        frame.to_arrow(),
        frame.to_pandas(),
        frame.to_pandas().astype(object),
        datasets.Dataset.from_polars(frame),
        frame.to_dicts(),
        iter(frame.to_dicts()),
    ]
    for source in sources:
        assert rows_of(load_interactions(source)) == ROWS, type(source)


def test_integer_ids_of_any_size_are_kept() -> None:
    large = [2**53 + 1, 2**53, 2**63 - 1]
    frame = pl.DataFrame({"user": [1, 1, 1], "item": large, "time": [1, 2, 3]})
    assert [item for _, item, _ in rows_of(load_interactions(frame))] == [str(item) for item in large]
    beyond = pd.DataFrame({"user": [0, "0", 10**30], "item": ["a"] * 3, "time": [1, 2, 3]})
    assert [user for user, _, _ in rows_of(load_interactions(beyond))] == ["0", "0", str(10**30)]


def test_many_files_are_read_in_the_order_given_and_a_folder_by_name(tmp_path: Path) -> None:
    for name, row in zip(("b.csv", "a.csv"), ("u,1,5", "u,2,5"), strict=True):
        (tmp_path / name).write_text(f"user_id,item_id,timestamp\n{row}\n")
    given = load_interactions([tmp_path / "b.csv", tmp_path / "a.csv"])
    assert [item for _, item, _ in rows_of(given)] == ["1", "2"]
    assert [item for _, item, _ in rows_of(load_interactions(tmp_path))] == ["2", "1"]


def test_a_folder_with_items_beside_the_interactions_gives_the_interactions(tmp_path: Path) -> None:
    (tmp_path / "interactions.csv").write_text(csv_text())
    (tmp_path / "items.jsonl").write_text('{"item_id": "1.0"}\n')
    assert rows_of(load_interactions(tmp_path)) == ROWS


RATINGS = [("1", "10", 4.0, 978300760), ("2", "20", 3.0, 978302109)]


def write_movielens_100k(folder: Path) -> None:
    (folder / "u.data").write_text("".join(f"{u}\t{i}\t{r:.0f}\t{t}\n" for u, i, r, t in RATINGS))


def write_movielens_1m(folder: Path) -> None:
    (folder / "ratings.dat").write_text("".join(f"{u}::{i}::{r:.0f}::{t}\n" for u, i, r, t in RATINGS))
    (folder / "movies.dat").write_bytes(b"1::\xe9::Drama\n")


def write_movielens_latest(folder: Path) -> None:
    lines = "".join(f"{u},{i},{r},{t}\n" for u, i, r, t in RATINGS)
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + lines)
    for name in ("movies.csv", "tags.csv", "links.csv"):
        (folder / name).write_text("movieId,title\n10,x\n")


def write_recbole(folder: Path) -> None:
    lines = "".join(f"{u}\t{i}\t{r}\t{t}\n" for u, i, r, t in RATINGS)
    (folder / "x.inter").write_text("user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + lines)
    (folder / "x.item").write_text('item_id:token\ttitle:token_seq\n10\t"unclosed\n')


def write_amazon_reviews_2018(folder: Path) -> None:
    records = [
        {"overall": r, "reviewerID": u, "asin": i, "unixReviewTime": t, "reviewTime": "09 1, 2016"}
        for u, i, r, t in RATINGS
    ]
    lines = json.dumps(records[0]) + "\n" + repr(records[1]) + "\n"
    (folder / "Luxury_Beauty_5.json.gz").write_bytes(gzip.compress(lines.encode()))


def write_amazon_reviews_2023(folder: Path) -> None:
    lines = [
        json.dumps({"user_id": u, "asin": "variant", "parent_asin": i, "rating": r, "timestamp": t * 1000 + 7})
        for u, i, r, t in RATINGS
    ]
    (folder / "All_Beauty.jsonl").write_text("\n".join(lines))


@pytest.mark.parametrize(
    "write",
    [
        write_movielens_100k,
        write_movielens_1m,
        write_movielens_latest,
        write_recbole,
        write_amazon_reviews_2018,
        pytest.param(write_amazon_reviews_2023, marks=pytest.mark.filterwarnings("ignore:timestamps of")),
    ],
    ids=lambda write: write.__name__,
)
def test_public_data_sets_are_known_by_their_files(tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path)
    log = load_interactions(tmp_path).frame.sort("order").collect("polars")
    assert log.select("user_id", "item_id", "rating", "timestamp").rows() == RATINGS


def test_the_ratings_only_csv_of_amazon_has_the_item_first_and_no_header(tmp_path: Path) -> None:
    (tmp_path / "Luxury_Beauty.csv").write_text("B00004U9V2,A1Q6MUU0B2ZDQG,2.0,1276560000\n")
    log = load_interactions(tmp_path / "Luxury_Beauty.csv", format="amazon-2018")
    assert rows_of(log) == [("A1Q6MUU0B2ZDQG", "B00004U9V2", 1276560000)]
    with pytest.raises(ValueError, match="no user_id, item_id or timestamp column found.*first line is data"):
        load_interactions(tmp_path / "Luxury_Beauty.csv")


def test_a_time_that_is_none_is_told_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\nu,a,yesterday\n")
    with pytest.raises(ValueError, match=r"log\.csv: timestamp 'yesterday' of user 'u' and item 'a' is neither a"):
        load_interactions(tmp_path / "log.csv")


def test_all_columns_that_are_missing_are_told_at_once() -> None:
    frame = pl.DataFrame({"customer": ["u"], "thing": ["a"], "when": [1_400_000_000], "stars": [3.0]})
    with pytest.raises(ValueError) as caught:
        load_interactions(frame)
    told = str(caught.value)
    assert "no item_id or timestamp column found" in told and "'customer', 'thing', 'when', 'stars'" in told
    assert "Give item_column= and timestamp_column=;" in told
    with pytest.raises(ValueError, match=r"no timestamp column found.*Give timestamp_column=; a log"):
        load_interactions(frame, item_column="thing")
    assert rows_of(load_interactions(frame, item_column="thing", timestamp_column="when")) == [
        ("u", "a", 1_400_000_000)
    ]


def test_two_candidates_for_a_column_are_refused_with_both_names_and_the_argument(tmp_path: Path) -> None:
    frame = pl.DataFrame({"user_id": ["u"], "item_id": ["a"], "asin": ["b"], "time": [1]})
    with pytest.raises(ValueError, match="'item_id' and 'asin' .* item_column='item_id'"):
        load_interactions(frame)
    assert rows_of(load_interactions(frame, item_column="asin")) == [("u", "b", 1)]


@pytest.mark.parametrize(
    "header",
    [
        "customer;sku;bought_at",
        "Buyer ID;Article No.;Order Date",
        "CustomerID;StockCode;InvoiceDate",
        "client;product_id;created_at",
        "customer_id;article_id;t_dat",
        "visitor;article;purchaseDate",
        "shopper_id;item number;event_timestamp",
        "user;SKU;purchased-at",
        "memberId;productNumber;ordered_at",
    ],
)
def test_names_of_shops_orders_are_found_and_other_columns_left_alone(tmp_path: Path, header: str) -> None:
    (tmp_path / "orders.csv").write_text(
        f"order_id;{header};updated_at;price\n9;u;a;2024-03-13 13:36:00;2025-01-01;1\n"
    )
    assert rows_of(load_interactions(tmp_path / "orders.csv")) == [("u", "a", 1_710_336_960)]


def test_of_two_times_of_an_order_none_is_guessed() -> None:
    frame = pl.DataFrame({"customer": ["u"], "sku": ["a"], "order_date": [1], "created_at": [2]})
    with pytest.raises(ValueError, match="'order_date' and 'created_at' .* timestamp_column='order_date'"):
        load_interactions(frame)
    assert rows_of(load_interactions(frame, timestamp_column="created_at")) == [("u", "a", 2)]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"user_column": "who"}, "user_column='who' is no column .* it has 'user_id', 'item_id', 'time'"),
        ({"order_column": "place"}, "order_column='place' is no column"),
        ({"rating_column": "time"}, "'time' .* given for both timestamp and rating"),
        ({"time_unit": "weeks"}, "time_unit must be one of 's', 'ms', 'us', 'ns', got 'weeks'"),
        ({"format": "xml"}, "format must be one of"),
        ({"format": "csv"}, "format='csv' is for files"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(columns: dict[str, str], message: str) -> None:
    frame = pl.DataFrame({"user_id": ["u"], "item_id": ["a"], "time": [1]})
    with pytest.raises(ValueError, match=message):
        load_interactions(frame, **columns)


def test_ids_that_were_read_as_floats_are_refused() -> None:
    with pytest.raises(TypeError, match="user_id column .* Float64"):
        load_interactions(pl.DataFrame({"user_id": [1.0, None], "item_id": ["a", "b"], "time": [1, 2]}))


def test_rows_without_ids_are_dropped_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    frame = pl.DataFrame({"user_id": ["u", None, "", "u"], "item_id": ["a", "b", None, ""], "timestamp": [1, 2, 3, 4]})
    with caplog.at_level(logging.WARNING):
        log = load_interactions(frame)
    assert rows_of(log) == [("u", "a", 1)]
    assert log.statistics == {"rows_read": 4, "rows_without_user": 2, "rows_without_item": 1}
    assert "dropped 3 of 4 rows" in caplog.text


@pytest.mark.parametrize(
    ("columns", "told", "doubted"),
    [
        (["viewer", "clip", "created_at", "watched_at"], None, "'created_at' and 'watched_at' of"),
        (["user_id", "item_id", "date", "seenOn", "boughtTime"], None, "'date', 'seenOn' and 'boughtTime' of"),
        (["reviewerID", "asin", "unixReviewTime", "overall", "reviewTime"], None, None),
        (["userId", "movieId", "timestamp"], "the user_id is read from 'userId', the item_id is read from 'm", None),
        (["user_id", "item_id", "order_date", "updated_at", "duration", "status", "season"], "'order_date'", None),
        # The usual name is ours.
        (["user_id", "item_id", "timestamp", "watched_at"], None, None),
    ],
    ids=str,
)
def test_what_is_taken_for_what_is_told_and_two_that_may_be_the_times_are_refused(
    caplog: pytest.LogCaptureFixture, columns: list[str], told: str | None, doubted: str | None
) -> None:
    caplog.set_level(logging.INFO, "mmm4rec_hf")
    log = pl.DataFrame({name: [1_600_000_000 if name not in columns[:2] else 1] for name in columns})
    options = {"user_column": columns[0], "item_column": columns[1]} if columns[0] == "viewer" else {}
    if doubted is not None:
        with pytest.raises(ValueError, match=f"{doubted} .* may each be the timestamp column; say which"):
            load_interactions(log, **options)
    else:
        load_interactions(log, **options)
        said = [line for line in caplog.messages if "is read from" in line]
        assert len(said) == (told is not None) and (told is None or told in said[0])
    # What is told is no guess, nor is the name that other logs have; one that this log lacks tells nothing.
    if doubted is not None:
        load_interactions(log, **options, usual_columns={"timestamp_column": columns[2]})
        with pytest.raises(ValueError, match=f"{doubted} .* may each be the timestamp column; say which"):
            load_interactions(log, **options, usual_columns={"timestamp_column": "nowhere"})
    caplog.clear()
    load_interactions(log, **options, timestamp_column=columns[2])
    assert not any("timestamp is read" in line for line in caplog.messages)


def test_the_column_that_orders_events_of_one_time_in_other_logs_does_so_here(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.INFO, "mmm4rec_hf")
    columns = {"user_id": ["u"] * 3, "item_id": ["a", "b", "c"], "timestamp": [1] * 3}
    log = pl.DataFrame(columns | {"line": [2, 3, 1], "place": [3, 2, 1]})
    log.write_csv(tmp_path / "log.csv")
    log.write_parquet(tmp_path / "log.parquet")
    log.write_ndjson(tmp_path / "log.jsonl")

    def ordered(source: Any, usual: str, **told: str) -> list[str]:
        loaded = load_interactions(source, usual_columns={"order_column": usual}, **told).frame
        return loaded.sort("order").collect("polars")["item_id"].to_list()

    files = [tmp_path / f"log.{suffix}" for suffix in ("csv", "parquet", "jsonl")]
    for source in (log, log.lazy(), log.to_dicts(), *files):
        caplog.clear()
        assert ordered(source, "line") == ["c", "a", "b"]
        assert len([line for line in caplog.messages if line.endswith(": 'line' orders events of the same time")]) == 1
    # What is told counts, for the order and for another column; where the usual one lacks, that is said.
    assert ordered(log, "line", order_column="place") == ["c", "b", "a"]
    assert ordered(log, "line", rating_column="line") == ["a", "b", "c"]
    assert ordered(log, "nowhere") == ["a", "b", "c"]
    assert "the DataFrame has no column 'nowhere': the order of its rows orders events of the same time" in caplog.text


@pytest.mark.parametrize(
    ("number", "unit", "year"),
    [(1_600_000_000_000, "s", 52671), (1_600_000_000, "ms", 1970), (1_600_000_000, "s", None),
     (32_503_680_000, "s", None), (-31_556_952_000_000, "s", -998030), (1_600_000_000_000, "ms", None)],
)  # fmt: skip
def test_a_unit_that_leads_to_another_age_is_doubted(
    caplog: pytest.LogCaptureFixture, number: int, unit: str, year: int | None
) -> None:
    load_interactions(pl.DataFrame({"user_id": [1], "item_id": [1], "timestamp": [number]}), time_unit=unit)
    doubts = [line for line in caplog.messages if "is another unit meant?" in line]
    assert len(doubts) == (year is not None)
    assert year is None or f"by time_unit='{unit}'" in doubts[0] and f"in the year {year}" in doubts[0]


@pytest.mark.parametrize("order", [None, "n"])
def test_the_first_unreadable_time_is_refused_with_its_user_and_item(tmp_path: Path, order: str | None) -> None:
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp,n\nu,a,1,1\nu,b,noon,3\nv,c,noon,2\n")
    first = "user 'u' and item 'b'" if order is None else "user 'v' and item 'c'"
    with pytest.raises(ValueError, match=f"timestamp 'noon' of {first} is neither"):
        load_interactions(tmp_path / "log.csv", order_column=order)


def test_bad_lines_are_counted_with_their_numbers_and_nothing_is_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [
        json.dumps({"reviewerID": "u", "asin": "B1", "unixReviewTime": 1}).encode(),
        b"{'reviewerID': 'u', 'asin': 'B2', 'unixReviewTime': 2}",
        b"__import__('os').system('touch pwned')",
        b"{'reviewerID': __import__('os').system('touch pwned')}",
        b'{"reviewerID": "u", "asin"',
        b"[1, 2]",
        b"(" * 5000,
        b'{"a":' * 5000,
        "{'reviewerID': 'ü', 'asin': 'B3', 'unixReviewTime': 3}".encode("latin-1"),
    ]
    (tmp_path / "reviews.json").write_bytes(b"\n".join(lines))
    with caplog.at_level(logging.WARNING):
        log = load_interactions(tmp_path / "reviews.json")
    assert rows_of(log) == [("u", "B1", 1), ("u", "B2", 2), ("ü", "B3", 3)]
    assert log.statistics["bad_lines"] == 6
    assert "dropped 6 lines that are no records: 3, 4, 5, 6, 7, 8" in caplog.text
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.csv", b"", "empty.csv"),
        ("empty.tsv", b"", "empty.tsv"),
        ("breaks.tsv", b"\n \n", "breaks.tsv"),
        ("header.csv", b"user_id,item_id,timestamp\n", "no interactions"),
        ("ragged.csv", b"user_id,item_id,timestamp\nu,a,1,2\n", "ragged.csv cannot be read"),
        ("one.csv", b"user_id\nu\n", "neither comma"),
        ("mixed.csv", b"user_id,item_id;timestamp\nu,a;1\n", "comma and semicolon"),
        ("cut.csv.gz", gzip.compress(b"user_id,item_id,timestamp\n" * 50)[:40], "cut.csv.gz cannot be read"),
        ("plain.csv.gz", b"user_id,item_id,timestamp\n", "plain.csv.gz cannot be read"),
        ("empty.jsonl", b"", "holds no records"),
        ("list.json", b"[1, 2", "begins like a JSON array"),
        ("text.parquet", b"user_id", "text.parquet cannot be read as Parquet"),
        ("log.xlsx", b"PK", "log.xlsx is of no known kind"),
        ("ratings.dat", b"1:2:3:4", "none of the 1 rows"),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value else "",
)
def test_wrong_files_are_refused_with_their_name(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_interactions(tmp_path / name)


def test_sources_that_are_no_log_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        load_interactions(tmp_path / "absent.csv")
    with pytest.raises(ValueError, match="holds no file of a known kind"):
        load_interactions(tmp_path)
    with pytest.raises(ValueError, match="list of files is empty"):
        load_interactions([])
    with pytest.raises(TypeError, match="a log must be a path, a data frame"):
        load_interactions(5)
    with pytest.raises(TypeError, match="row 0 of the log is int"):
        load_interactions([1])
    with pytest.raises(TypeError, match="one dataset, got splits"):
        load_interactions(datasets.DatasetDict({"train": datasets.Dataset.from_dict({"user": [1]})}))


def test_files_of_several_kinds_in_a_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(csv_text())
    (tmp_path / "b.jsonl").write_text(json_text())
    with pytest.raises(ValueError, match="files of csv and jsonl; name the files"):
        load_interactions(tmp_path)


def test_what_is_no_utf_8_is_read_as_windows_writes_it_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "log.csv").write_bytes("user_id,item_id,timestamp\nü,„20 € – Größe“,1\n".encode("cp1252"))
    with caplog.at_level(logging.WARNING):
        assert rows_of(load_interactions(tmp_path / "log.csv")) == [("ü", "„20 € – Größe“", 1)]
    assert "read as Windows-1252" in caplog.text
    # Bytes that mean nothing there are kept, so that no two ids become one.
    (tmp_path / "log.csv").write_bytes(b"user_id,item_id,timestamp\n\xfc,\x81\x80,1\n")
    assert rows_of(load_interactions(tmp_path / "log.csv")) == [("ü", "\x81€", 1)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1", "cp1252"])
def test_reviews_in_any_encoding_are_read(tmp_path: Path, encoding: str) -> None:
    mark = {"utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE}.get(encoding, b"")
    review = {"reviewerID": "ü", "asin": "B1", "unixReviewTime": 1}
    texts = {
        "reviews.json": json.dumps(review, ensure_ascii=False),
        "old_reviews.json": repr(review),
        "log.csv": "reviewerID,asin,unixReviewTime\nü,B1,1",
    }
    for name, text in texts.items():
        (tmp_path / name).write_bytes(mark + text.encode(encoding))
        assert rows_of(load_interactions(tmp_path / name)) == [("ü", "B1", 1)], name


@pytest.mark.parametrize("folder", ["movies_a", "movies_b", "beauty"])
def test_real_folders_load_by_one_call(real_data: Path, folder: str) -> None:
    rows = {"movies_a": 100_000, "movies_b": 16_382, "beauty": 16_826}
    assert load_interactions(real_data / folder).statistics["rows_read"] == rows[folder]


def test_arrow_dictionaries_and_large_strings_are_ids() -> None:
    table = pa.table(
        {
            "user_id": pa.array(["u", "v"]).dictionary_encode(),
            "item_id": pa.array(["a", "b"], pa.large_string()),
            "timestamp": pa.array([1, 2], pa.int32()),
        }
    )
    assert rows_of(load_interactions(table)) == [("u", "a", 1), ("v", "b", 2)]


def test_a_column_that_stands_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user_id,item_id,item_id,timestamp\nu,a,b,1\n")
    with pytest.raises(ValueError, match="two columns 'item_id'"):
        load_interactions(tmp_path / "log.csv")


@pytest.mark.parametrize(
    ("order", "error"),
    [
        (["1", "x"], ValueError),
        (["1", None], ValueError),
        ([1, None], ValueError),
        ([1.0, 2.0], TypeError),
        (pl.Series([1, 2**63], dtype=pl.UInt64), ValueError),
    ],
)
def test_an_order_that_is_no_integer_is_refused(order: list[Any], error: type[Exception]) -> None:
    frame = pl.DataFrame({"user_id": ["u", "v"], "item_id": ["a", "a"], "time": [1, 2], "place": order})
    with pytest.raises(error, match="order column of the DataFrame"):
        load_interactions(frame, order_column="place")


def test_objects_in_a_frame_are_read_one_by_one() -> None:
    data: dict[str, Any] = {"user": ["u", 7, "v"], "item": [0, "0", None], "time": ["1970-01-01", 5, 6]}
    data |= {"rating": [Decimal("4.5"), "good", np.float32(2)], "place": [np.int64(2), 1, 2**40]}
    log = (
        load_interactions(pd.DataFrame(data, dtype=object), order_column="place").frame.sort("order").collect("polars")
    )
    assert log.select("user_id", "item_id", "timestamp", "rating", "order").rows() == [
        ("7", "0", 5, None, 1),
        ("u", "0", 0, 4.5, 2),
    ]
    data["place"][1] = 1.5
    with pytest.raises(TypeError, match="row 1 of the DataFrame: the order is 1.5; expected an integer"):
        load_interactions(pd.DataFrame(data, dtype=object), order_column="place")


@pytest.mark.parametrize("column", ["user_id", "item_id"])
def test_an_id_that_is_no_text_is_refused_with_its_line(tmp_path: Path, column: str) -> None:
    record = {"user_id": "u", "item_id": "a", "timestamp": 1}
    lines = [json.dumps(record), json.dumps(record | {column: "b\ud800"})]
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"line 2: the id 'b\\ud800' holds half of a UTF-16 pair"):
        load_interactions(tmp_path / "log.jsonl")


@pytest.mark.parametrize("cut", [0.2, 0.7, 0.99])
def test_a_parquet_file_cut_off_is_refused_by_name(tmp_path: Path, cut: float) -> None:
    path = tmp_path / "log.parquet"
    pl.DataFrame({"user_id": ["u"] * 50, "item_id": ["a"] * 50, "timestamp": range(50)}).write_parquet(path)
    path.write_bytes(path.read_bytes()[: int(cut * path.stat().st_size)])
    with pytest.raises(ValueError, match="log.parquet cannot be read as Parquet"):
        load_interactions(path)


def test_a_parquet_file_that_holds_far_more_than_its_size_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "UNPACKED_BYTES", 1 << 20)
    events = {"user_id": ["u"] * 200_000, "item_id": ["a"] * 200_000, "timestamp": [1] * 200_000}
    path = tmp_path / "log.parquet"
    pl.DataFrame(events).write_parquet(path, compression="zstd")
    with monkeypatch.context() as patch:
        # Before its rows are in memory.
        patch.setattr(pl.LazyFrame, "collect", None)
        with pytest.raises(ValueError, match=r"log.parquet unpacks to 4,800,000 bytes, more than 200 times its size"):
            load_interactions(path)
    # Few rows, of long ids that the file holds once.
    pl.DataFrame({"user_id": ["u" * 1000] * 2000, "item_id": ["a"] * 2000, "timestamp": [1] * 2000}).write_parquet(
        path
    )
    with pytest.raises(ValueError, match=r"log.parquet unpacks to 2,002,000 bytes, more than 200 times its size"):
        load_interactions(path)
    # Columns that are not read do not count.
    frame = pl.DataFrame({"user_id": ["u"] * 2000, "item_id": ["a"] * 2000, "timestamp": range(2000)})
    frame.with_columns(pl.lit("x" * 1000).alias("review")).write_parquet(path)
    assert len(rows_of(load_interactions(path))) == 2000


@pytest.mark.parametrize("name", ["log.csv.gz", "log.jsonl.gz", "log.csv.bz2", "log.jsonl.xz"])
def test_a_damaged_compressed_file_is_refused_by_name(tmp_path: Path, name: str) -> None:
    pack = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}[Path(name).suffix]
    content = bytearray(pack(b"".join(b"%d::%d::5::1387670400\n" % (n % 97, n * n % 89) for n in range(2000))))
    content[60:80] = bytes(range(200, 220))
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} cannot be read"):
        load_interactions(path)
