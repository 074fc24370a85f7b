"""`mmm4rec recommend`: users of every kind of file, times, ids, reasons, and what is left out."""

import bz2
import gzip
import json
import logging
import lzma
import shutil
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from transformers.utils.logging import warning_once

from mmm4rec_hf import ItemCatalog, MMM4RecForSequentialRecommendation, MMM4RecProcessor
from mmm4rec_hf.cli import main
from mmm4rec_hf.cli.histories import HistoryFile, open_histories
from mmm4rec_hf.cli.recommend import _nearest
from mmm4rec_hf.data import SequenceDatasets
from mmm4rec_hf.training.record import RunRecord, describe_data, layout_of_log

from .conftest import ITEMS, MODEL, START, USERS, history_of, refusal


@pytest.fixture
def recommend(model: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[dict[str, Any]]]:
    """`mmm4rec recommend` for one history: what it prints as JSON."""

    def run(*options: str) -> list[dict[str, Any]]:
        capsys.readouterr()
        assert main(["recommend", str(model), "--device", "cpu", "--json", *options]) == 0
        return json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def recommend_all(model: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, list[dict[str, Any]]]]:
    """`mmm4rec recommend --input`: the recommendations of each user."""

    def run(path: Path, *options: str) -> dict[str, list[dict[str, Any]]]:
        capsys.readouterr()
        assert main(["recommend", str(model), "--device", "cpu", "--input", str(path), *options]) == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return {line["user_id"]: line["recommendations"] for line in lines}

    return run


def ids(recommendations: list[dict[str, Any]]) -> list[str]:
    return [entry["item_id"] for entry in recommendations]


def test_every_item_can_be_recommended_and_the_history_is_not(
    recommend: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for item in ITEMS:
        assert sorted(ids(recommend("--history", item, "--top-k", "50"))) == sorted({*ITEMS} - {item})
    assert ids(recommend("--history", "7", "--candidates", "0", "007", "cold", "--top-k", "50")).count("0") == 1
    assert set(ids(recommend("--history", "0", "--candidates", "0", "cold"))) == {"cold"}
    caplog.set_level(logging.INFO, "mmm4rec_hf")
    assert set(ids(recommend("--history", "0", "--candidates", "nowhere", "cold", "far"))) == {"cold"}
    assert caplog.messages.count("2 of 3 candidates are unknown to the model ('nowhere', 'far')") == 1
    assert len(recommend("--history", "0", "--include-history", "--top-k", "50")) == len(ITEMS)


def test_nothing_is_left_to_recommend_to_someone_who_had_everything(
    recommend: Any, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert recommend("--history", *ITEMS, "--top-k", "10") == []
    assert main(["recommend", str(model), "--device", "cpu", "--history", *ITEMS]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert ids(recommend("--history", *ITEMS[:-1], "--top-k", "10")) == ["cold"]


@pytest.mark.filterwarnings("ignore:timestamps of")
def test_every_form_of_time_gives_the_same_scores(recommend: Any) -> None:
    seconds = [START, START + 30]
    forms: list[list[str]] = [
        [str(time) for time in seconds],
        [str(time * 1000) for time in seconds],
        [str(time * 10**9) for time in seconds],
        [datetime.fromtimestamp(time, timezone.utc).isoformat() for time in seconds],
        ["2013-12-22T01:00:00+01:00", "2013-12-21T20:30:30-03:30"],
        [f"{time}.0" for time in seconds],
    ]
    lists = [recommend("--history", "1", "2", "--timestamps", *form) for form in forms]
    assert all(found == lists[0] for found in lists)
    # Two events out of order are put in it.
    assert recommend("--history", "2", "1", "--timestamps", *reversed(forms[0])) == lists[0]
    assert recommend("--history", "2", "1", "--timestamps", *forms[0]) != lists[0]


def test_a_log_and_files_of_histories_give_the_same_recommendations(
    recommend: Any, recommend_all: Any, shop: Path, tmp_path: Path
) -> None:
    from_log = recommend_all(shop / "log.csv", "--time-unit", "ms")
    assert sorted(from_log) == sorted(USERS)
    items, times = zip(*history_of(1), strict=True)
    alone = recommend("--history", *items, "--timestamps", *map(str, times))
    assert ids(alone) == ids(from_log["00"])
    assert [entry["score"] for entry in alone] == pytest.approx([e["score"] for e in from_log["00"]], abs=1e-5)
    histories = [
        {"user_id": user, "items": [item for item, _ in history_of(n)], "timestamps": [t for _, t in history_of(n)]}
        for n, user in enumerate(USERS)
    ]
    (tmp_path / "users.jsonl").write_text("\n".join(map(json.dumps, histories)))
    pl.DataFrame(histories).write_parquet(tmp_path / "users.parquet")
    for name in ("users.jsonl", "users.parquet"):
        found = recommend_all(tmp_path / name)
        assert {user: ids(entries) for user, entries in found.items()} == {
            user: ids(entries) for user, entries in from_log.items()
        }


def test_a_folder_of_parts_named_as_a_file_is_a_log_as_for_prepare(
    recommend_all: Any, shop: Path, tmp_path: Path
) -> None:
    log = pl.read_csv(shop / "log.csv", infer_schema=False)
    folder = tmp_path / "log.parquet"
    folder.mkdir()
    (folder / "_SUCCESS").touch()
    log[:20].write_parquet(folder / "part-00000.parquet")
    log[20:].write_parquet(folder / "part-00001.parquet")
    from_log = recommend_all(shop / "log.csv", "--time-unit", "ms")
    assert recommend_all(folder, "--time-unit", "ms") == from_log
    alone = recommend_all(folder, "--time-unit", "ms", "--json", "--user", "u3")
    assert list(alone) == ["u3"] and ids(alone["u3"]) == ids(from_log["u3"])


def test_users_in_parts_compressed_or_of_another_suffix_are_read_alike(tmp_path: Path) -> None:
    users = [{"user_id": "a", "items": ["1", "2"]}, {"user_id": "b", "items": ["7"]}, {"user_id": "ü", "items": ["0"]}]
    lines = "".join(json.dumps(user, ensure_ascii=False) + "\n" for user in users).encode()
    expected = {"a": ["1", "2"], "b": ["7"], "ü": ["0"]}
    for name, content in {
        "users.jsonl": b"\n" + lines,
        "users.ndjson": lines,
        "users.json": b"\xef\xbb\xbf" + lines,
        "USERS.JSONL": lines,
        "users.jsonl.gz": gzip.compress(lines),
        "users.ndjson.bz2": bz2.compress(lines),
        "users.json.xz": lzma.compress(lines),
    }.items():
        (tmp_path / name).write_bytes(content)
        assert read_users(open_histories(tmp_path / name)) == expected, name
        assert read_users(open_histories(tmp_path / name, users=["b"])) == {"b": ["7"]}, name
    table = pl.DataFrame(users)
    table.write_parquet(tmp_path / "users.pq")
    assert read_users(open_histories(tmp_path / "users.pq")) == expected
    for folder in ("users.parquet", "users.json"):
        (tmp_path / "parts" / folder).mkdir(parents=True)
    for number, part in enumerate((table[:0], table[:1], table[1:])):
        part.write_parquet(tmp_path / "parts" / "users.parquet" / f"part-{number}.parquet")
        text = part.write_ndjson().encode()
        (tmp_path / "parts" / "users.json" / f"part-{number}.json.gz").write_bytes(gzip.compress(text))
    for folder in ("users.parquet", "users.json"):
        assert read_users(open_histories(tmp_path / "parts" / folder)) == expected, folder


def test_users_without_ids_in_parts_are_numbered_through(tmp_path: Path) -> None:
    for name, lines in (("a.jsonl", ['{"items": ["1"]}', "", '{"items": ["2"]}']), ("b.jsonl", ['{"items": ["7"]}'])):
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    # By the line, of which the second is empty.
    assert read_users(open_histories(tmp_path)) == {"1": ["1"], "3": ["2"], "4": ["7"]}


def test_parts_of_which_one_is_damaged_or_holds_no_lists_are_refused_by_name(tmp_path: Path) -> None:
    table = pl.DataFrame({"user_id": ["a"], "items": [["1"]]})
    table.write_parquet(tmp_path / "a.parquet")
    table.with_columns(items=pl.lit("1")).write_parquet(tmp_path / "b.parquet")
    with pytest.raises(ValueError, match=r'b\.parquet has no column "items" of lists, as .*a\.parquet has'):
        list(open_histories(tmp_path).histories)
    lines = gzip.compress(b"".join(b'{"items": ["%d"]}\n' % n for n in range(20_000)))
    (tmp_path / "users.jsonl.gz").write_bytes(lines[:-2000])
    with pytest.raises(ValueError, match=r"users\.jsonl\.gz cannot be read: "):
        list(open_histories(tmp_path / "users.jsonl.gz").histories)


def test_a_user_of_two_lines_has_both_whether_asked_for_or_not(tmp_path: Path) -> None:
    path = tmp_path / "users.jsonl"
    rows = [{"user_id": "a", "items": ["1"]}, {"user_id": "b", "items": ["0"]}, {"user_id": "a", "items": ["2"]}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for users in (["a"], ["b", "a"], ["a", "a"]):
        found = [(row["user_id"], row["items"]) for row in open_histories(path, users=users).histories]
        wanted = {"a": [("a", ["1"]), ("a", ["2"])], "b": [("b", ["0"])]}
        assert found == [row for user in dict.fromkeys(users) for row in wanted[user]]


@pytest.fixture
def orders(shop: Path, tmp_path: Path) -> Path:
    """The log with columns of its own, semicolons and ISO times."""
    log = pl.read_csv(shop / "log.csv", infer_schema=False).rename({"user_id": "kunde", "item_id": "artikel"})
    seconds = pl.from_epoch(pl.col("timestamp").cast(pl.Int64), "ms").dt.to_string("%Y-%m-%d %H:%M:%S")
    log.with_columns(seconds.alias("gekauft")).drop("timestamp").write_csv(tmp_path / "orders.csv", separator=";")
    return tmp_path / "orders.csv"


COLUMNS = ["--user-column", "kunde", "--item-column", "artikel", "--timestamp-column", "gekauft"]


def test_a_log_of_other_columns_is_told_as_to_prepare(
    recommend_all: Any, model: Path, shop: Path, orders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from_log = recommend_all(shop / "log.csv", "--time-unit", "ms")
    assert recommend_all(orders, *COLUMNS) == from_log
    # Names that belong to a file of users, too.
    histories = [{"kunde": user, "artikel": [item for item, _ in history_of(n)],
                  "gekauft": [time * 1000 for _, time in history_of(n)]} for n, user in enumerate(USERS)]  # fmt: skip
    (tmp_path / "users.jsonl").write_text("\n".join(map(json.dumps, histories)))
    pl.DataFrame(histories).write_parquet(tmp_path / "users.parquet")
    for name in ("users.jsonl", "users.parquet"):
        found = recommend_all(tmp_path / name, *COLUMNS, "--time-unit", "ms")
        assert {user: ids(entries) for user, entries in found.items()} == {
            user: ids(entries) for user, entries in from_log.items()
        }
    said = refusal(capsys, "recommend", str(model), "--input", str(orders))
    assert "no user_id, item_id or timestamp column found" in said and "user_column" not in said
    assert "Give --user-column, --item-column and --timestamp-column;" in said
    said = refusal(capsys, "recommend", str(model), "--input", str(orders), "--user-column", "customer")
    assert "--user-column customer is no column of" in said


def test_times_of_another_writing_are_told_once(
    recommend_all: Any, model: Path, shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = pl.read_csv(shop / "log.csv", infer_schema=False)
    written = pl.from_epoch(pl.col("timestamp").cast(pl.Int64), "ms").dt.to_string("%d.%m.%Y %H:%M:%S")
    orders = tmp_path / "orders.csv"
    log.with_columns(timestamp=written).write_csv(orders)
    told = refusal(capsys, "prepare", str(orders), "--output", str(tmp_path / "sequences"))
    # All of 22 December 2013: with this day there is one order of day and month.
    assert "nor an ISO 8601 time; give --time-format how times are written, here '%d.%m.%Y %H:%M:%S'" in told
    said = refusal(capsys, "recommend", str(model), "--input", str(shop / "sequences"))
    assert f"holds sequences, not the log that they were made of; give the log, {shop / 'log.csv'}" in said
    line = ["prepare", str(orders), "--output", str(tmp_path / "sequences"), "--k-core", "1", "--time-format"]
    swapped = refusal(capsys, *line, "%m.%d.%Y %H:%M:%S")
    # Quoted, to be copied into a shell.
    assert "day and month may be swapped: give --time-format '%d.%m.%Y %H:%M:%S'" in swapped
    with pytest.raises(SystemExit, match="2"):
        main([*line, "%H:%M"])
    assert "error: argument --time-format: '%H:%M' holds no date: a year %Y" in capsys.readouterr().err
    capsys.readouterr()
    assert main([*line, "%d.%m.%Y %H:%M:%S"]) == 0
    days = [datetime.fromtimestamp(int(time) / 1000, timezone.utc).date() for time in log["timestamp"]]
    assert f"The first event is of {min(days)}, the last of {max(days)} (UTC)." in capsys.readouterr().out
    # A unit by which no calendar has the day.
    other = ["prepare", str(shop / "log.csv"), "--output", str(tmp_path / "other"), "--k-core", "1", "--time-unit"]
    assert main([*other, "s"]) == 0
    first = min(map(int, log["timestamp"]))
    assert f"The first event is of {first:,} seconds from 1970, the last of" in capsys.readouterr().out
    run = tmp_path / "run"
    shutil.copytree(model, run / "model")
    RunRecord(run).begin(0, data=describe_data(SequenceDatasets.load_from_disk(line[3]), line[3]))
    from_log = recommend_all(shop / "log.csv", "--time-unit", "ms")
    assert list(read_users(open_histories(orders, layout=layout_of_log(run / "model")))) == list(from_log)
    assert recommend_all(orders, "--time-format", "%d.%m.%Y %H:%M:%S") == from_log
    (tmp_path / "users.jsonl").write_text('{"user_id": "one", "items": ["1"], "timestamps": ["1.1.2018"]}')
    users = ["recommend", str(model), "--input", str(tmp_path / "users.jsonl"), "--time-format", "%d.%m.%Y"]
    assert "--time-format is for a log, a row an event" in refusal(capsys, *users)
    users = ["recommend", str(model), "--history", "1", "--timestamps", "20181201", "--time-format", "%Y%m%d"]
    assert main(users) == 2 and "--time-format tells how a file is laid out" in capsys.readouterr().err


def test_a_file_of_users_is_read_by_the_names_of_the_prepared_log(
    recommend_all: Any, model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mmm4rec_hf")
    users = tmp_path / "users.jsonl"
    users.write_text('{"kunde": "new", "artikel": ["1", "2"]}\n')
    run = tmp_path / "run"
    shutil.copytree(model, run / "model")
    layout = {"user_column": "kunde", "item_column": "artikel", "timestamp_column": "gekauft"}
    RunRecord(run).begin(0, data={"layout": layout})
    assert list(read_users(open_histories(users, layout=layout_of_log(run / "model")))) == ["new"]
    # Our own names come first, as does what is told.
    users.write_text('{"kunde": "other", "user_id": "new", "items": ["1", "2"]}\n')
    assert list(read_users(open_histories(users, layout=layout))) == ["new"]
    assert list(read_users(open_histories(users, layout=layout, user_column="kunde"))) == ["other"]
    assert not caplog.messages
    users.write_text('{"buyer": "new", "items": ["1", "2"]}\n{"buyer": "b", "items": ["1"]}\n')
    assert list(recommend_all(users)) == ["1", "2"]
    assert [line for line in caplog.messages if "has no user_id: its users are numbered, from 1" in line]


def read_users(file: HistoryFile) -> dict[str, list[str]]:
    return {history["user_id"]: history["items"] for history in file.histories}


def test_why_is_told_by_the_nearest_of_the_history_in_every_form(
    model: Path, recommend: Any, recommend_all: Any, shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = [item for item, _ in history_of(0)]
    without = recommend("--history", *seen)
    found = recommend("--history", *seen, "--why")
    assert [{name: value for name, value in item.items() if name != "why"} for item in found] == without
    network = MMM4RecForSequentialRecommendation.from_pretrained(model).eval()
    catalog = ItemCatalog.from_pretrained(model / "catalog")
    rows = {item: row for row, item in enumerate(catalog.item_ids, start=1)}
    with torch.no_grad():
        tables = [table.double() for table in network.item_embeds()]
    for item in found:
        own = rows[item["item_id"]]
        for name, table, mask in zip(("text", "image"), tables, (catalog.text_mask, catalog.image_mask), strict=True):
            present = np.ones(len(rows), bool) if mask is None else mask
            near = [i for i in dict.fromkeys(seen) if rows[i] != own and present[[rows[i] - 1, own - 1]].all()]
            cosines = torch.cosine_similarity(table[own], table[[rows[i] for i in near]]) if near else None
            if cosines is None:
                assert item["why"][name] is None
                continue
            best = near[int(cosines.argmax())]
            assert item["why"][name] == {
                "item_id": best,
                "title": catalog.titles[rows[best] - 1],
                "similarity": pytest.approx(float(cosines.max()), abs=1e-5),
            }
    assert any(item["why"]["image"] is None for item in found) and any(item["why"]["image"] for item in found)
    # Without its catalogue nothing says that the picture of these items stands for one they have not.
    bare = tmp_path / "bare"
    shutil.copytree(model, bare, ignore=shutil.ignore_patterns("catalog"))
    capsys.readouterr()
    assert main(["recommend", str(bare), "--device", "cpu", "--json", "--why", "--history", *seen]) == 0
    others = json.loads(capsys.readouterr().out)
    assert [item["why"]["text"] for item in others] == [item["why"]["text"] for item in found]
    assert all(item["why"]["image"] for item in others)
    log = shop / "log.csv"
    everybody = recommend_all(log, "--time-unit", "ms", "--why")
    assert list(everybody) == [*recommend_all(log, "--time-unit", "ms")]
    assert all(item["why"]["text"] for items in everybody.values() for item in items)
    command = ["recommend", str(model), "--device", "cpu", "--why"]
    assert main([*command, "--history", *seen, "--top-k", "1"]) == 0
    header, row = capsys.readouterr().out.splitlines()
    near = found[0]["why"]["text"]
    assert header.endswith("nearest of the history") and f"text: {near['title']} ({near['similarity']:.2f})" in row
    assert main([*command, "--input", str(log), "--output", str(tmp_path / "x.csv")]) == 2
    assert "--why has no columns in a .csv file; write .jsonl" in capsys.readouterr().err


def test_why_tells_a_cosine_of_text_and_picture_and_a_share_of_the_log() -> None:
    near = {"item_id": "1", "title": None}
    why = {"text": near | {"similarity": 0.987}, "image": None, "cooccurrence": near | {"title": "B", "share": 0.625}}
    assert _nearest(why) == "text: 1 (0.99), log: B (62%)"


def test_what_prepare_was_told_of_the_log_need_not_be_told_again(
    recommend_all: Any, model: Path, shop: Path, orders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from_log = recommend_all(shop / "log.csv", "--time-unit", "ms")
    # `customer` and `sku` are usual names, and hold other ids.
    log = pl.read_csv(orders, separator=";", infer_schema=False)
    log = log.with_columns(customer=pl.lit("one"), sku=pl.lit("1"))
    log.write_csv(tmp_path / "orders.csv")
    assert (
        main(["prepare", str(tmp_path / "orders.csv"), "-o", str(tmp_path / "told"), *COLUMNS, "--k-core", "1"]) == 0
    )
    run = tmp_path / "run"
    shutil.copytree(model, run / "model")
    record = RunRecord(run)
    sequences = SequenceDatasets.load_from_disk(tmp_path / "told")
    record.begin(0, data=describe_data(sequences, tmp_path / "told"))

    def from_run(*options: str) -> dict[str, list[dict[str, Any]]]:
        capsys.readouterr()
        command = ["recommend", str(run), "--device", "cpu", "--input", str(tmp_path / "orders.csv"), *options]
        assert main(command) == 0
        lines = map(json.loads, capsys.readouterr().out.splitlines())
        return {line["user_id"]: line["recommendations"] for line in lines}

    assert from_run() == from_log
    # What is told counts.
    assert list(from_run("--user-column", "customer")) == ["one"]
    # A log without these columns is read by usual names.
    log.select("customer", "sku", date="gekauft").write_csv(tmp_path / "orders.csv")
    assert list(from_run()) == ["one"]


def test_seconds_of_a_log_stay_seconds_whatever_its_unit(
    recommend_all: Any, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Any] = []
    times_of = MMM4RecProcessor._times

    def recording(histories: Any, unit: str | None) -> Any:
        times = times_of(histories, unit)
        read.extend(seconds.tolist() for seconds, _ in times or [])
        return times

    monkeypatch.setattr(MMM4RecProcessor, "_times", staticmethod(recording))
    recommend_all(shop / "log.csv", "--time-unit", "ms", "--user", "u3", "0", "--json")
    assert read == [[time for _, time in history_of(USERS.index(user))] for user in ("u3", "0")]


def test_customers_are_asked_for_by_their_ids(
    recommend_all: Any, model: Path, orders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    everybody = recommend_all(orders, *COLUMNS)
    found = recommend_all(orders, *COLUMNS, "--json", "--user", "u3", "--user", "00", "u3")
    assert list(found) == ["u3", "00"]
    for user, entries in found.items():
        assert ids(entries) == ids(everybody[user])
        assert [entry["score"] for entry in entries] == pytest.approx([e["score"] for e in everybody[user]], abs=1e-5)
    command = ["recommend", str(model), "--device", "cpu", "--input", str(orders), *COLUMNS]
    capsys.readouterr()
    assert main([*command, "--user", "00", "--top-k", "1"]) == 0
    head, events, header, row = capsys.readouterr().out.splitlines()[:4]
    assert head.split() == ["user", "events", "the", "last", "ones"] and events.split()[:2] == ["00", "6"]
    last = [item for item, _ in history_of(USERS.index("00"))][-3:]
    processor = MMM4RecProcessor.from_pretrained(model)
    titles = dict(zip(processor.item_ids, map(processor.title, range(1, len(ITEMS) + 1)), strict=True))
    assert events.endswith(", ".join(titles[item] or item for item in last))
    assert header.startswith("rank") and row.split()[0] == "1" and row.split()[4] == everybody["00"][0]["item_id"]
    said = refusal(capsys, *command, "--user", "u3", "0000")
    assert f"'0000' is no user of {orders}, which has '0', '00', '9007199254740993', ...;" in said
    users = tmp_path / "users.jsonl"
    users.write_text('{"user_id": 7, "items": ["1"]}\n{"user_id": "b", "items": ["2"]}\n')
    assert list(recommend_all(users, "--json", "--user", "7")) == [7]
    one, two, three, four = ITEMS[:4]
    unsorted = {"user_id": "c", "items": [one, "none", two, three, four], "timestamps": [50, 70, 40, 60, 10]}
    users.write_text(json.dumps(unsorted) + "\n" + users.read_text().replace("}", ', "timestamps": [5]}'))
    assert main(["recommend", str(model), "--device", "cpu", "--input", str(users), "--user", "c"]) == 0
    events = capsys.readouterr().out.splitlines()[1]
    assert events.split()[:2] == ["c", "5"]
    assert events.endswith(", ".join(titles[item] or item for item in (two, one, three)))
    # In a unit that is told numbers of any size are of one.
    users.write_text(json.dumps(unsorted | {"timestamps": [2, 7, 1_500_000_000_000, 86_400_000, 1]}) + "\n")
    capsys.readouterr()
    command = ["recommend", str(model), "--device", "cpu", "--input", str(users), "--user", "c", "--time-unit", "ms"]
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[1].endswith(", ".join(titles[item] or item for item in (one, three, two)))
    assert "magnitude" not in err
    users.write_text("".join(json.dumps({"user_id": user, "items": ["1"]}) + "\n" for user in ("c", "7", "b")))
    said = refusal(capsys, "recommend", str(model), "--input", str(users), "--user", "x", "y")
    assert f"'x', 'y' are no users of {users}, which has 'c', '7', 'b', ...;" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--user", "u3"], "--user picks users out of a file"),
        (["--user-column", "kunde", "--format", "csv"], "--user-column, --format tell how a file is laid out"),
    ],
)
def test_options_of_a_file_without_one_are_wrong_use(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["recommend", "nowhere", "--history", "1", *options]) == 2
    assert message in capsys.readouterr().err


def test_recommendations_are_written_with_their_ids_to_the_letter(model: Path, shop: Path, tmp_path: Path) -> None:
    (tmp_path / "users.jsonl").write_text('{"user_id": 0, "items": [0]}\n{"user_id": "00", "items": ["0"]}\n')
    for suffix in ("csv", "parquet", "jsonl"):
        target = tmp_path / f"out.{suffix}"
        command = ["recommend", str(model), "--device", "cpu", "--input", str(tmp_path / "users.jsonl")]
        assert main([*command, "--output", str(target), "--top-k", "50"]) == 0
        if suffix == "jsonl":
            lines = [json.loads(line) for line in target.read_text().splitlines()]
            rows = [(str(line["user_id"]), entry["item_id"]) for line in lines for entry in line["recommendations"]]
        else:
            frame = pl.read_csv(target, infer_schema=False) if suffix == "csv" else pl.read_parquet(target)
            rows = frame.select("user_id", "item_id").rows()
        assert sorted(rows) == sorted((user, item) for user in ("0", "00") for item in ITEMS if item != "0")


def test_unknown_items_are_skipped_or_an_error(
    recommend: Any, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert recommend("--history", "1", "99") == recommend("--history", "1")
    line = refusal(capsys, "recommend", str(model), "--history", "1", "99", "--unknown-items", "error")
    assert "'99' is not in the catalogue of 12 items" in line


def test_a_user_without_events_is_an_error_or_gets_the_default_ranking(
    recommend_all: Any,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = tmp_path / "users.jsonl"
    path.write_text('{"user_id": "none", "items": []}\n{"user_id": "one", "items": ["1"]}\n')
    for asked in (["--empty-histories", "error"], ["--user", "none"]):
        line = refusal(capsys, "recommend", str(model), "--input", str(path), *asked)
        assert "error: the history of user 'none' holds no known item" in line and "--empty-histories default" in line
        assert "(no events); --empty-histories skip leaves such users out; or pass --empty-histories default" in line
    caplog.set_level(logging.INFO, "mmm4rec_hf")
    found = recommend_all(path, "--empty-histories", "default", "--top-k", "50")
    assert "1 of 2 users have no known item ('none') and get the ranking of someone without events" in caplog.messages
    assert sorted(ids(found["none"])) == sorted(ITEMS) and len(found["one"]) == len(ITEMS) - 1
    # Alone, without a user, the same list.
    capsys.readouterr()
    alone = ["recommend", str(model), "--device", "cpu", "--empty-histories", "default", "--top-k", "50", "--json"]
    assert main(alone) == 0
    assert ids(json.loads(capsys.readouterr().out)) == ids(found["none"])
    assert main(["recommend", str(model)]) == 2
    assert "give --history ID ..., or --input FILE" in capsys.readouterr().err


def test_users_without_a_known_item_are_left_out_and_counted(
    recommend_all: Any,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "mmm4rec_hf")
    skipped = "{} events are of items that the model does not know ({}), and are skipped"
    histories = {"none": [], "one": ["1"], "strange": ["nowhere", "nothing"], "half": ["nowhere", "2"], "two": ["2"]}
    path = tmp_path / "users.jsonl"
    path.write_text("\n".join(json.dumps({"user_id": user, "items": items}) for user, items in histories.items()))
    for size in ("1", "2", "256"):
        caplog.clear()
        warning_once.cache_clear()
        found = recommend_all(path, "--empty-histories", "skip", "--batch-size", size)
        assert list(found) == ["one", "half", "two"]
        assert ids(found["half"]) == ids(found["two"]) and "2" not in ids(found["two"])
        told = (
            "2 of 5 users have no known item ('none', 'strange') and are left out; --empty-histories default gives "
            "them the ranking of someone without events"
        )
        assert caplog.messages.count(told) == 1
        # Counted, and not warned of besides.
        assert not [message for message in caplog.messages if "catalogue does not hold" in message]
        # One of "half" and both of "strange", of six events in all.
        assert caplog.messages.count(skipped.format("3 of 6", "'nowhere', 'nothing'")) == 1
    # By default, too, unless nobody is left, as where another column holds the items.
    assert list(recommend_all(path)) == ["one", "half", "two"]
    path.write_text("\n".join(json.dumps({"user_id": user, "items": ["nowhere"]}) for user in histories))
    target = tmp_path / "out.csv"
    line = refusal(capsys, "recommend", str(model), "--input", str(path), "--output", str(target))
    assert "none of the 5 users of" in line and "whose ids look like" in line and not target.exists()
    path.write_text("\n".join(json.dumps({"user_id": user, "items": items}) for user, items in histories.items()))
    # Items of a file that must all be known are still told.
    line = refusal(
        *(capsys, "recommend", str(model), "--input", str(path)),
        *("--empty-histories", "skip", "--unknown-items", "error"),
    )
    assert "'nowhere' is not in the catalogue" in line
    assert main(["recommend", str(model), "--history", "1", "--empty-histories", "skip"]) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"items": ["1"]}\nnot json\n', "line 2 is no JSON"),
        ('{"items": ["1"]}\n{"items": "1"}\n', 'line 2 has no list "items"'),
        ('{"items": [1.5]}\n', "an id must be a string or an integer, got 1.5"),
        ('{"items": ["1"], "timestamps": ["noon"]}\n', "'noon'"),
        ('{"items": ["1"], "timestamps": [1, 2]}\n', "1 items and 2 timestamps"),
        ('{"user_id": "u", "item_id": "1"}\n', "no timestamp column found"),
        ("", "holds no records"),
    ],
)
def test_a_broken_file_of_users_is_one_line(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, message: str
) -> None:
    (tmp_path / "users.jsonl").write_text(content)
    line = refusal(capsys, "recommend", str(model), "--input", str(tmp_path / "users.jsonl"), "--output",
                   str(tmp_path / "out.csv"))  # fmt: skip
    assert message in line
    assert [path.name for path in tmp_path.iterdir()] == ["users.jsonl"]


def test_a_log_without_times_is_learned_by_the_order_of_its_rows(
    shop: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events = [(item, user) for n, user in enumerate(USERS) for item, _ in history_of(n)]
    log = tmp_path / "log.csv"
    pl.DataFrame(events, schema=["item_id", "user_id"], orient="row").write_csv(log)
    told = refusal(capsys, "prepare", str(log), "--output", str(tmp_path / "prepared"), "--k-core", "1")
    assert "Give --timestamp-column; a log without times needs a column that numbers its rows;" in told
    pl.read_csv(log, infer_schema=False).with_row_index("row").write_csv(log)
    prepared, run = tmp_path / "prepared", tmp_path / "run"
    command = ["prepare", str(log), "--output", str(prepared), "--k-core", "1", "--timestamp-column", "row"]
    assert main(command) == 0
    sequences = SequenceDatasets.load_from_disk(prepared)
    assert [sequences.item_ids[index - 1] for index in sequences.events["item"]] == [item for item, _ in events]
    changes = [f"model.{name}={value}" for name, value in (MODEL | {"use_time": "false"}).items()]
    changes += [f"sequences={prepared}", f"catalog={shop / 'catalog'}", f"output_dir={run}"]
    assert main(["finetune", *changes, "training.num_train_epochs=1"]) == 0
    capsys.readouterr()
    assert main(["recommend", str(run), "--device", "cpu", "--history", "0", "7", "--json"]) == 0
    out, err = capsys.readouterr()
    assert len(json.loads(out)) == 10 and "a day apart" not in err


def test_recommend_reads_events_of_one_time_in_the_order_that_prepare_was_told(
    recommend_all: Any, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # By time and line: 0, 1, 2, 7.
    log = tmp_path / "log.csv"
    log.write_text("user,item,date,line\nu,2,2020-01-01,3\nu,1,2020-01-01,2\nu,0,2020-01-01,1\nu,7,2020-01-02,1\n")
    prepared = tmp_path / "prepared"
    assert main(["prepare", str(log), "--output", str(prepared), "--k-core", "1", "--order-column", "line"]) == 0
    sequences = SequenceDatasets.load_from_disk(prepared)
    assert [sequences.item_ids[index - 1] for index in sequences.events["item"]] == ["0", "1", "2", "7"]
    run = tmp_path / "run"
    shutil.copytree(model, run / "model")
    RunRecord(run).begin(0, data=describe_data(sequences, prepared))
    layout = layout_of_log(run / "model")
    for users in (None, ["u"]):
        assert read_users(open_histories(log, users=users, layout=layout)) == {"u": ["0", "1", "2", "7"]}
    # The command, told or by the record of its run, answers as for the list in this order.
    times = ["2020-01-01"] * 3 + ["2020-01-02"]
    (tmp_path / "users.jsonl").write_text(
        json.dumps({"user_id": "u", "items": ["0", "1", "2", "7"], "timestamps": times})
    )
    expected = recommend_all(tmp_path / "users.jsonl")
    assert recommend_all(log, "--order-column", "line") == expected != recommend_all(log)
    capsys.readouterr()
    assert main(["recommend", str(run), "--device", "cpu", "--input", str(log)]) == 0
    assert json.loads(capsys.readouterr().out) == {"user_id": "u", "recommendations": expected["u"]}
    # A list is in its own order.
    assert read_users(open_histories(tmp_path / "users.jsonl", layout=layout)) == {"u": ["0", "1", "2", "7"]}
    line = ["recommend", str(model), "--input", str(tmp_path / "users.jsonl"), "--order-column", "line"]
    assert "--order-column is for a log, a row an event;" in refusal(capsys, *line)
    assert main(["recommend", str(model), "--history", "1", "--order-column", "line"]) == 2


def test_recommend_counts_a_duplicated_row_once_as_prepare_does(
    recommend_all: Any,
    model: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    log, once, prepared = tmp_path / "log.csv", tmp_path / "once.csv", tmp_path / "prepared"
    rows = ["u,0,1,5", "v,1,1,5", "u,0,1,5", "u,0,2,5", "v,1,1,5", "u,1,3,5", "u,1,3,4"]
    log.write_text("\n".join(["user,item,time,rating", *rows]))
    once.write_text("\n".join(["user,item,time,rating", *dict.fromkeys(rows)]))
    # At another time, or with another rating, it is another event.
    histories = {"u": ["0", "0", "1", "1"], "v": ["1"]}
    assert main(["prepare", str(log), "--output", str(prepared), "--k-core", "1"]) == 0
    sequences = SequenceDatasets.load_from_disk(prepared)
    assert [sequences.item_ids[index - 1] for index in sequences.events["item"]] == sum(histories.values(), [])
    for users, dropped in ((None, 2), (["v", "u"], 2), (["u"], 1)):
        caplog.clear()
        assert read_users(open_histories(log, users=users)) == {user: histories[user] for user in users or "uv"}
        assert [line for line in caplog.messages if line.startswith(f"dropped {dropped} duplicated rows")]
    assert recommend_all(log) == recommend_all(once)
    # Which of two columns the ratings are can be said.
    log.write_text(log.read_text().replace("rating", "rating,score").replace(",5", ",5,1").replace(",4", ",4,1"))
    assert "say which with --rating-column rating" in refusal(capsys, "recommend", str(model), "--input", str(log))
    assert read_users(open_histories(log, rating_column="rating")) == histories
    assert read_users(open_histories(log, rating_column="score")) == histories | {"u": ["0", "0", "1"]}
    # The published format has none: what it repeats happened again.
    folder = tmp_path / "published"
    folder.mkdir()
    (folder / "item2id.jsonl").write_text('["0", 1]\n')
    (folder / "user2id.jsonl").write_text('["u", 0]\n')
    (folder / "test_seq.jsonl").write_text("[0, [[1, 5], [1, 5]]]\n")
    caplog.clear()
    assert read_users(open_histories(folder)) == {"u": ["0", "0"]} and "duplicated" not in caplog.text
