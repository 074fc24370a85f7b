import logging
import pickle
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmm4rec_hf.data import Interactions, SequenceDatasets, load_interactions, prepare_sequences

Row = tuple[str, list[str], list[int], str]


def log_of(rows: list[tuple[Any, ...]], **columns: Any) -> Interactions:
    names = ["user_id", "item_id", "timestamp", "rating"][: len(rows[0])]
    return load_interactions(pl.DataFrame(rows, schema=names, orient="row", strict=False), **columns)


def rows_of(prepared: SequenceDatasets, split: str) -> list[Row]:
    """A split in external ids: user, history, its times, target."""
    names = dict(enumerate(prepared.item_ids, start=1))
    return [
        (user, [names[i] for i in row["input_ids"]], row["timestamps"].tolist(), names[row["labels"]])
        for user, row in zip(prepared.user_ids_of(split), prepared[split], strict=True)
    ]


# Users in no order, times in no order, two ties, one duplicated row. Item x and user w leave the 2-core together:
# x has two events, one of them w's, and w has two, one of them x's.
HAND_MADE = [
    ("v", "b", 50),
    ("u", "d", 40),
    ("u", "a", 10),
    ("v", "a", 50),
    ("u", "c", 30),
    ("u", "b", 30),
    ("w", "x", 5),
    ("u", "a", 10),
    ("v", "c", 20),
    ("u", "a", 60),
    ("v", "d", 70),
    ("w", "y", 6),
    ("v", "x", 80),
]


def test_a_hand_made_log_is_split_as_by_hand() -> None:
    # u: a10 c30 b30 d40 a60, v: c20 b50 a50 d70, once y, w and x are out.
    prepared = prepare_sequences(log_of(HAND_MADE), k_core=2)
    assert prepared.item_ids == ["a", "b", "c", "d"]
    assert prepared.user_ids == ["u", "v"]
    assert rows_of(prepared, "train") == [
        ("u", ["a"], [10], "c"),
        ("u", ["a", "c"], [10, 30], "b"),
        ("v", ["c"], [20], "b"),
    ]
    assert rows_of(prepared, "validation") == [
        ("u", ["a", "c", "b"], [10, 30, 30], "d"),
        ("v", ["c", "b"], [20, 50], "a"),
    ]
    assert rows_of(prepared, "test") == [
        ("u", ["a", "c", "b", "d"], [10, 30, 30, 40], "a"),
        ("v", ["c", "b", "a"], [20, 50, 50], "d"),
    ]
    assert prepared.statistics == {
        "rows_read": 13,
        "rows_without_user": 0,
        "rows_without_item": 0,
        "duplicated_rows": 1,
        "rows_below_k_core": 3,
        "users_below_k_core": 1,
        "items_below_k_core": 2,
        "events": 9,
        "users": 2,
        "items": 4,
        "train_rows": 3,
        "validation_rows": 2,
        "test_rows": 2,
    }
    assert prepared.events["item"][:5] == [1, 3, 2, 4, 1]
    assert prepared.events["timestamp"][:5] == [10, 30, 30, 40, 60]


def test_times_are_kept_to_the_second() -> None:
    # In float32 both times are 1387670400.
    prepared = prepare_sequences(log_of([("u", "b", 1387670430), ("u", "a", 1387670400)]), k_core=1)
    assert rows_of(prepared, "test") == [("u", ["a"], [1387670400], "b")]
    assert np.diff(prepared.events["timestamp"]).tolist() == [30]


def test_an_unsorted_log_is_sorted_by_time() -> None:
    prepared = prepare_sequences(log_of([("u", "1", 30), ("u", "2", 10), ("u", "3", 20)]), k_core=1)
    assert rows_of(prepared, "test") == [("u", ["2", "3"], [10, 20], "1")]


def test_events_of_the_same_time_keep_the_order_of_the_log() -> None:
    rows = [("u", 9, 10), ("u", 3, 10), ("u", 7, 10)]
    assert rows_of(prepare_sequences(log_of(rows), k_core=1), "test") == [("u", ["9", "3"], [10, 10], "7")]
    placed = pl.DataFrame([(*row, place) for row, place in zip(rows, (3, 1, 2), strict=True)], orient="row")
    placed.columns = ["user_id", "item_id", "timestamp", "place"]
    prepared = prepare_sequences(load_interactions(placed, order_column="place"), k_core=1)
    assert rows_of(prepared, "test") == [("u", ["3", "7"], [10, 10], "9")]


def test_a_finer_clock_orders_the_events_of_one_second() -> None:
    rows = [("u", "late", 1387670400900), ("u", "early", 1387670400100)]
    prepared = prepare_sequences(log_of(rows, time_unit="ms"), k_core=1)
    assert rows_of(prepared, "test") == [("u", ["early"], [1387670400], "late")]


def test_all_forms_of_time_give_one_split() -> None:
    forms = [
        [1387670400, 1387670430],
        [1387670400.0, 1387670430.0],
        ["1387670400", "1387670430"],
        ["2013-12-22T00:00:00Z", "2013-12-22T00:00:30Z"],
        [np.datetime64("2013-12-22T00:00:00", "us").item(), np.datetime64("2013-12-22T00:00:30", "us").item()],
    ]
    for times in forms:
        prepared = prepare_sequences(log_of([("u", "a", times[1]), ("u", "b", times[0])]), k_core=1)
        assert rows_of(prepared, "test") == [("u", ["b"], [1387670400], "a")], times


def test_duplicated_rows_are_dropped_and_repeats_at_other_times_kept(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        prepared = prepare_sequences(log_of([("u", 1, 10), ("u", 1, 10), ("u", 1, 20)]), k_core=1)
    assert rows_of(prepared, "test") == [("u", ["1"], [10], "1")]
    assert prepared.statistics["duplicated_rows"] == 1
    assert "dropped 1 of 3 rows: duplicated_rows" in caplog.text
    # Another rating is another row, as in the published preparation.
    rated = prepare_sequences(log_of([("u", 1, 10, 4.0), ("u", 1, 10, 5.0)]), k_core=1)
    assert rated.statistics["duplicated_rows"] == 0


def test_duplicates_are_found_across_files_and_a_part_of_a_second_makes_another_row(tmp_path: Path) -> None:
    lines = ["u,1,1387670400100", "u,1,1387670400100", "u,1,1387670400900", "u,2,1387670401000"]
    for name, part in (("a.csv", lines[:1]), ("b.csv", lines[1:])):
        (tmp_path / name).write_text("\n".join(["user_id,item_id,timestamp", *part]))
    prepared = prepare_sequences(load_interactions(tmp_path, time_unit="ms"), k_core=1)
    assert prepared.statistics["duplicated_rows"] == 1
    assert rows_of(prepared, "test") == [("u", ["1", "1"], [1387670400, 1387670400], "2")]


@pytest.mark.parametrize("ids", [[0, 1, 2], ["0", "1", "2"]])
def test_an_external_id_of_zero_is_an_item_like_others(ids: list[Any]) -> None:
    prepared = prepare_sequences(log_of([("0", item, time) for time, item in enumerate(ids)]), k_core=1)
    assert prepared.item_ids == ["0", "1", "2"]
    assert prepared["test"][0]["input_ids"].tolist() == [1, 2]
    assert rows_of(prepared, "test") == [("0", ["0", "1"], [0, 1], "2")]


@pytest.mark.parametrize("ids", [[2**53 + 1, 2**53], ["0001388703", "1388703"], ["1.0", "1"], ["007", "7"]])
def test_ids_that_look_alike_stay_apart(ids: list[Any]) -> None:
    prepared = prepare_sequences(log_of([(user, item, 1) for user in ids for item in ids]), k_core=1)
    assert sorted(prepared.item_ids) == sorted(prepared.user_ids) == sorted(map(str, ids))


def test_a_repeated_item_stays_the_target_of_its_row() -> None:
    prepared = prepare_sequences(log_of([("u", 1, 1), ("u", 2, 2), ("u", 1, 3)]), k_core=1)
    assert rows_of(prepared, "test") == [("u", ["1", "2"], [1, 2], "1")]


def test_users_with_few_events_have_rows_only_where_a_history_is_left() -> None:
    rows = [(f"u{n}", f"i{k}", k) for n in range(1, 5) for k in range(n)]
    prepared = prepare_sequences(log_of(rows), k_core=1)
    assert [user for user, *_ in rows_of(prepared, "test")] == ["u2", "u3", "u4"]
    assert [user for user, *_ in rows_of(prepared, "validation")] == ["u3", "u4"]
    assert [user for user, *_ in rows_of(prepared, "train")] == ["u4"]
    assert prepared.statistics["users"] == 4


def test_a_temporal_split_has_nothing_of_after_the_cut_in_earlier_rows() -> None:
    rows = [
        *[("u", item, time) for item, time in (("a", 10), ("b", 20), ("a", 100), ("new", 110), ("b", 200))],
        *[("v", item, time) for item, time in (("b", 15), ("a", 25), ("a", 99))],
        *[("late", item, time) for item, time in (("a", 150), ("b", 250))],
    ]
    prepared = prepare_sequences(log_of(rows), k_core=2, split="temporal", valid_from=100, test_from=200)
    # "new" is first seen after the cut; "late" has no event before it, and its first one has no history.
    assert prepared.item_ids == ["a", "b"]
    assert rows_of(prepared, "train") == [
        ("u", ["a"], [10], "b"),
        ("v", ["b"], [15], "a"),
        ("v", ["b", "a"], [15, 25], "a"),
    ]
    assert rows_of(prepared, "validation") == [("u", ["a", "b"], [10, 20], "a")]
    assert rows_of(prepared, "test") == [
        ("late", ["a"], [150], "b"),
        ("u", ["a", "b", "a"], [10, 20, 100], "b"),
    ]
    assert prepared.statistics["rows_of_items_unseen_before_cut"] == 1


def test_events_after_the_cut_do_not_help_into_the_k_core() -> None:
    rows = [("u", "a", 1), ("u", "b", 2), ("v", "a", 3), ("v", "b", 4), ("w", "a", 5), ("w", "c", 6), ("w", "c", 100)]
    prepared = prepare_sequences(log_of(rows), k_core=2, split="temporal", valid_from=50, test_from=60)
    assert [user for user, *_ in rows_of(prepared, "train")] == ["u", "v"]
    assert prepared.item_ids == ["a", "b"]


def test_what_a_user_outside_the_core_did_before_the_cut_is_history_alone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mmm4rec_hf")
    core = [(f"u{user}", f"i{item}", 10 * item + user) for user in range(5) for item in range(6)]
    others = [
        *[("x", item, time) for item, time in (("i0", 1), ("i1", 2), ("odd", 3), ("i2", 4), ("i3", 5))],
        *[("x", item, time) for item, time in (("i5", 100), ("i4", 110), ("i3", 200))],
        # Nothing of the first is after the cut, and of the second nothing that counts.
        *[("y", "i0", 1), ("y", "i1", 2), ("z", "i0", 1), ("z", "new", 100)],
    ]
    cuts: dict[str, Any] = {"split": "temporal", "valid_from": 100, "test_from": 200}
    prepared = prepare_sequences(log_of([*others, *core]), k_core=5, **cuts)
    assert rows_of(prepared, "train") == rows_of(prepare_sequences(log_of(core), k_core=5, **cuts), "train")
    past = ["i0", "i1", "i2", "i3"]
    assert rows_of(prepared, "validation") == [
        ("x", past, [1, 2, 4, 5], "i5"),
        ("x", [*past, "i5"], [1, 2, 4, 5, 100], "i4"),
    ]
    assert rows_of(prepared, "test") == [("x", [*past, "i5", "i4"], [1, 2, 4, 5, 100, 110], "i3")]
    assert prepared.user_ids == ["u0", "u1", "u2", "u3", "u4", "x"] and prepared.item_ids == [*past, "i4", "i5"]
    statistics = prepared.statistics
    assert statistics["rows_of_history_alone"] == 4 and statistics["rows_of_items_unseen_before_cut"] == 1
    # y and z, of which the second is of after the cut too, with an item that is not; and "odd".
    assert statistics["users_below_k_core"] == 2 and statistics["items_below_k_core"] == 1
    assert statistics["rows_below_k_core"] == 4 and statistics["rows_read"] == statistics["events"] + 5
    assert "4 rows before valid_from are history alone" in caplog.text
    # A catalogue has an index for every item of its own.
    items = [*prepared.item_ids, "odd"]
    prepared = prepare_sequences(log_of([*others, *core]), k_core=5, item_ids=items, **cuts)
    assert rows_of(prepared, "validation")[0] == ("x", ["i0", "i1", "odd", "i2", "i3"], [1, 2, 3, 4, 5], "i5")


def test_a_catalogue_gives_the_indices_and_keeps_items_without_events() -> None:
    rows = [("u", "a", 1), ("u", "b", 2), ("u", "z", 3), ("u", "a", 4)]
    prepared = prepare_sequences(log_of(rows), k_core=1, item_ids=["c", "b", "a"])
    assert prepared.item_ids == ["c", "b", "a"]
    assert prepared["test"][0]["input_ids"].tolist() == [3, 2]
    assert prepared["test"][0]["labels"] == 3
    assert prepared.statistics["rows_outside_catalog"] == 1
    later = [("u", "a", 1), ("u", "b", 2), ("u", "c", 100)]
    cold = prepare_sequences(
        log_of(later), k_core=1, item_ids=["a", "b", "c"], split="temporal", valid_from=50, test_from=200
    )
    assert rows_of(cold, "validation") == [("u", ["a", "b"], [1, 2], "c")]


def test_aligned_datasets_hold_the_same_events_in_other_indices(tmp_path: Path) -> None:
    prepared = prepare_sequences(log_of(HAND_MADE), k_core=2, max_sequence_length=2)
    aligned = prepared.align(["d", "extra", "c", "b", "a"])
    for split in prepared:
        assert rows_of(aligned, split) == rows_of(prepared, split)
    assert aligned["test"]["labels"] == [5, 1]
    assert aligned.max_sequence_length == 2
    assert prepared.align(prepared.item_ids) is prepared
    with pytest.raises(ValueError, match="1 items with events .* 'd'"):
        prepared.align(["a", "b", "c"])
    with pytest.raises(ValueError, match="'a' stands twice"):
        prepared.align(["a", "a"])


def test_what_was_saved_is_loaded_memory_mapped_and_equal(tmp_path: Path) -> None:
    prepared = prepare_sequences(log_of(HAND_MADE), k_core=2, max_sequence_length=3)
    prepared.save_to_disk(tmp_path / "a")
    direct = prepare_sequences(log_of(HAND_MADE), k_core=2, max_sequence_length=3, output_dir=tmp_path / "b")
    for loaded in (SequenceDatasets.load_from_disk(tmp_path / "a"), direct):
        assert isinstance(loaded, SequenceDatasets)
        assert loaded.item_ids == prepared.item_ids
        assert loaded.user_ids == prepared.user_ids
        assert loaded.statistics == prepared.statistics
        assert loaded.max_sequence_length == 3
        assert loaded.events.cache_files
        for split in prepared:
            assert rows_of(loaded, split) == rows_of(prepared, split)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_splits_without_rows_are_saved_and_loaded(tmp_path: Path) -> None:
    # One user of two events: a test target, and nothing to train or validate on.
    prepared = prepare_sequences(log_of([("u", "a", 1), ("u", "b", 2)]), k_core=1, output_dir=tmp_path / "a")
    prepared.save_to_disk(tmp_path / "b")
    for loaded in (prepared, SequenceDatasets.load_from_disk(tmp_path / "b")):
        assert [len(loaded[split]) for split in ("train", "validation", "test")] == [0, 0, 1]
        assert rows_of(loaded, "train") == [] and rows_of(loaded, "test") == [("u", ["a"], [1], "b")]
        assert loaded["test"].split == "test"


def test_a_selection_of_rows_is_saved_as_selected(tmp_path: Path) -> None:
    prepared = prepare_sequences(log_of(HAND_MADE), k_core=2)
    rows = {"train": prepared["train"].select([2, 0])}
    chosen = SequenceDatasets(rows, prepared.user_events, prepared.item_ids, {})
    chosen.save_to_disk(tmp_path / "a")
    loaded = SequenceDatasets.load_from_disk(tmp_path / "a")
    assert rows_of(loaded, "train") == [("v", ["c"], [20], "b"), ("u", ["a"], [10], "c")]


@pytest.mark.parametrize("name", ["events", "users", "items", "train", "sequences"])
@pytest.mark.parametrize("damage", ["absent", "empty", "cut", "other"])
def test_a_damaged_folder_is_refused(tmp_path: Path, name: str, damage: str) -> None:
    prepare_sequences(log_of(HAND_MADE), k_core=2, output_dir=tmp_path / "a")
    path = tmp_path / "a" / (f"{name}.json" if name == "sequences" else f"{name}.arrow")
    content = path.read_bytes()
    if damage == "absent":
        path.unlink()
    else:
        path.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "other": b"[1]"}[damage])
    with pytest.raises(ValueError, match=r"is damaged|holds no sequence datasets"):
        SequenceDatasets.load_from_disk(tmp_path / "a")


def test_an_arrow_file_with_a_broken_description_is_refused(tmp_path: Path) -> None:
    times = range(1_387_670_400, 1_387_670_406)
    log = pl.DataFrame({"user_id": ["first", "other"] * 3, "item_id": list("abcabc"), "timestamp": times})
    prepare_sequences(load_interactions(log), k_core=0).save_to_disk(tmp_path / "made")
    table = pa.table({"item_id": ["a", "b", "c"]}).replace_schema_metadata(
        {"huggingface": '{"info": {"features": "x"}}'}
    )
    with (
        pa.OSFile(str(tmp_path / "made" / "items.arrow"), "wb") as file,
        pa.ipc.new_stream(file, table.schema) as writer,
    ):
        writer.write_table(table)
    with pytest.raises(ValueError, match="is damaged"):
        SequenceDatasets.load_from_disk(tmp_path / "made")


@pytest.mark.parametrize("name", ["items.arrow", "users.arrow"])
def test_arrow_files_whose_offsets_lie_are_refused(tmp_path: Path, name: str) -> None:
    """Arrow itself would read far outside the file, and the process would be killed."""
    times = range(1_387_670_400, 1_387_670_406)
    log = pl.DataFrame({"user_id": ["first", "other"] * 3, "item_id": list("abcabc"), "timestamp": times})
    prepare_sequences(load_interactions(log), k_core=0).save_to_disk(tmp_path / "made")
    content = (tmp_path / "made" / name).read_bytes()
    # Of users polars made the column, whose offsets take 8 bytes.
    offsets = np.array([0, 1, 2, 3], np.int32) if name == "items.arrow" else np.array([0, 5, 10], np.int64)
    assert content.count(offsets.tobytes()) == 1
    for value in (2**30, -(2**30)):
        changed = offsets.copy()
        changed[1] = value
        (tmp_path / "made" / name).write_bytes(content.replace(offsets.tobytes(), changed.tobytes()))
        with pytest.raises(ValueError, match="is damaged"):
            SequenceDatasets.load_from_disk(tmp_path / "made")


def test_saving_replaces_datasets_and_nothing_else(tmp_path: Path) -> None:
    prepared = prepare_sequences(log_of(HAND_MADE), k_core=2)
    prepared.save_to_disk(tmp_path / "a")
    prepared.save_to_disk(tmp_path / "a")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(ValueError, match="holds something else"):
        prepared.save_to_disk(tmp_path / "mine")
    with pytest.raises(ValueError, match="holds no sequence datasets"):
        SequenceDatasets.load_from_disk(tmp_path / "mine")
    with pytest.raises(FileNotFoundError):
        SequenceDatasets.load_from_disk(tmp_path / "absent")


def test_a_failure_leaves_no_half_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lower k_core"):
        prepare_sequences(log_of(HAND_MADE), k_core=9, output_dir=tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_selected_and_shuffled_rows_know_their_users() -> None:
    prepared = prepare_sequences(log_of(HAND_MADE), k_core=2)
    shuffled = prepared["train"].select([2, 0])
    assert prepared.user_ids_of(shuffled) == ["v", "u"]
    assert [row["input_ids"].tolist() for row in shuffled] == [[3], [1]]


def test_rows_survive_pickling_and_hold_no_prefixes(tmp_path: Path) -> None:
    length = 10_000
    rows = [("u", item % 50, item) for item in range(length)]
    prepared = prepare_sequences(log_of(rows), output_dir=tmp_path / "long", max_sequence_length=20)
    assert len(prepared["train"]) == length - 3
    assert prepared["train"][-1]["timestamps"].tolist() == list(range(length - 23, length - 3))
    stored = sum(file.stat().st_size for file in (tmp_path / "long").rglob("*.arrow"))
    # 12 bytes an event, 24 bytes a row; the prefixes would be half a gigabyte.
    assert stored < 60 * length
    copy = pickle.loads(pickle.dumps(prepared["train"]))
    assert len(pickle.dumps(prepared["train"])) < 100_000
    assert copy[5]["input_ids"].tolist() == prepared["train"][5]["input_ids"].tolist()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "random"}, "split must be 'leave_one_out' or 'temporal', got 'random'"),
        ({"split": "temporal"}, "needs valid_from= and test_from="),
        ({"split": "temporal", "valid_from": 20, "test_from": 10}, "valid_from must be before test_from"),
        ({"split": "temporal", "valid_from": 1, "test_from": 2}, "before valid_from"),
        ({"valid_from": 10}, 'belong to split="temporal"'),
        ({"k_core": 100}, "100 events each; lower k_core"),
        ({"item_ids": ["nothing"]}, "none of the log's items is among the 1 item ids"),
        ({"item_ids": []}, "item_ids is empty"),
        ({"max_sequence_length": 0}, "max_sequence_length must be at least 1"),
        ({"k_core": -1}, "k_core must be at least 0"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prepare_sequences(log_of(HAND_MADE), **arguments)


def test_a_raw_frame_is_refused_with_the_remedy() -> None:
    with pytest.raises(TypeError, match="load_interactions"):
        prepare_sequences(pl.DataFrame())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("folder", "events", "users", "items"),
    [("movies_a", 99_287, 943, 1_349), ("movies_b", 14_152, 426, 762), ("beauty", 14_621, 1_404, 680)],
)
def test_real_logs_have_the_known_5_cores(real_data: Path, folder: str, events: int, users: int, items: int) -> None:
    prepared = prepare_sequences(load_interactions(real_data / folder))
    statistics = prepared.statistics
    assert (statistics["events"], statistics["users"], statistics["items"]) == (events, users, items)
    assert len(prepared["test"]) == len(prepared["validation"]) == users
    assert len(prepared["train"]) == events - 3 * users


def naive_core(log: list[tuple[str, str, int]], k: int) -> list[tuple[str, str, int]]:
    while True:
        users, items = Counter(user for user, *_ in log), Counter(item for _, item, _ in log)
        left = [(user, item, time) for user, item, time in log if users[user] >= k and items[item] >= k]
        if len(left) == len(log):
            return log
        log = left


def naive_rows(log: list[tuple[str, str, int]], k: int) -> dict[str, set[tuple[Any, ...]]]:
    """The published split in plain Python."""
    kept = naive_core(list(dict.fromkeys(log)), k)
    splits: dict[str, set[tuple[Any, ...]]] = {"train": set(), "validation": set(), "test": set()}
    for user in {user for user, *_ in kept}:
        events = sorted(((item, time) for owner, item, time in kept if owner == user), key=lambda event: event[1])
        for end in range(1, len(events)):
            split = {len(events) - 1: "test", len(events) - 2: "validation"}.get(end, "train")
            splits[split].add((user, tuple(events[:end]), events[end][0]))
    return splits


events = st.tuples(st.sampled_from("uvwxy"), st.sampled_from("abcdef"), st.integers(0, 6))


@settings(max_examples=50, deadline=None)
@given(st.lists(events, min_size=1, max_size=60), st.integers(1, 4))
def test_the_split_equals_the_one_in_plain_python(log: list[tuple[str, str, int]], k: int) -> None:
    expected = naive_rows(log, k)
    if not any(user for split in expected.values() for user in split):
        return
    prepared = prepare_sequences(log_of(log), k_core=k)
    for split in prepared:
        rows = rows_of(prepared, split)
        found = {(user, tuple(zip(items, times, strict=True)), target) for user, items, times, target in rows}
        assert found == expected[split]
        assert len(rows) == len(found)


@settings(max_examples=50, deadline=None)
@given(st.lists(events, min_size=20, max_size=60), st.integers(2, 4), st.integers(3, 5))
def test_the_temporal_split_equals_the_one_in_plain_python(log: list[tuple[str, str, int]], k: int, cut: int) -> None:
    distinct = sorted(dict.fromkeys(log), key=lambda event: event[2])
    core = naive_core([event for event in distinct if event[2] < cut], k)
    if not core:
        return
    users, items = {user for user, *_ in core}, {item for _, item, _ in core}
    expected: dict[str, set[tuple[Any, ...]]] = {"train": set(), "validation": set(), "test": set()}
    for user in {user for user, *_ in distinct}:
        theirs = [event for event in distinct if event[0] == user and event[1] in items]
        theirs = [event for event in theirs if event[2] >= cut or event in core or user not in users]
        for end, (_, item, time) in enumerate(theirs):
            split = "train" if time < cut else "validation" if time == cut else "test"
            if end and (split != "train" or user in users):
                expected[split].add((user, tuple((item, time) for _, item, time in theirs[:end]), item))
    prepared = prepare_sequences(log_of(log), k_core=k, split="temporal", valid_from=cut, test_from=cut + 1)
    for split in prepared:
        rows = rows_of(prepared, split)
        found = {(user, tuple(zip(items, times, strict=True)), target) for user, items, times, target in rows}
        assert found == expected[split]


def test_the_datasets_are_a_dataset_dict() -> None:
    prepared = prepare_sequences(log_of(HAND_MADE), k_core=2)
    assert isinstance(prepared, datasets.DatasetDict)
    assert list(prepared) == ["train", "validation", "test"]
    assert prepared["train"].column_names == ["input_ids", "labels"]


def test_a_split_of_other_columns_is_refused_when_it_is_loaded(tmp_path: Path) -> None:
    rows = [(f"u{user}", f"i{place}", 60 * place) for user in range(3) for place in range(4)]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    prepare_sequences(load_interactions(frame), k_core=1, output_dir=tmp_path / "s")
    table = pa.table({"input_ids": [{"begin": 0, "end": 1}], "labels": [1]})
    with pa.OSFile(str(tmp_path / "s" / "test.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(ValueError, match="damaged.*input_ids must hold start and end"):
        SequenceDatasets.load_from_disk(tmp_path / "s")


# 2020-08-01 is the second 1596240000, 2020-09-01 1598918400; an event an hour before and after each.
AUGUST, SEPTEMBER = 1596240000, 1598918400
AROUND = [AUGUST - 3600, AUGUST + 3600, SEPTEMBER - 3600, SEPTEMBER + 3600]


@pytest.mark.parametrize(
    ("times", "told", "cuts"),
    [
        (AROUND, {}, (AUGUST, str(SEPTEMBER))),
        (AROUND, {}, ("2020-08-01", datetime(2020, 9, 1, tzinfo=timezone.utc))),
        # Too small to be read as milliseconds by their size, as the log's are: from 1970 on.
        ([time - AUGUST + 86400 for time in AROUND], {}, (86400, SEPTEMBER - AUGUST + 86400)),
        (
            [(time - AUGUST + 86400) * 1000 for time in AROUND],
            {"time_unit": "ms"},
            ("86400000", (SEPTEMBER - AUGUST + 86400) * 1000),
        ),
        ([time * 1000 for time in AROUND], {"time_unit": "ms"}, (AUGUST * 1000, "2020-09-01")),
        (
            ["31.07.2020", "01.08.2020", "31.08.2020", "01.09.2020"],
            {"time_format": "%d.%m.%Y"},
            ("01.08.2020", " 1.9.2020"),
        ),
        ([20200731, 20200801, 20200831, 20200901], {"time_format": "%Y%m%d"}, ("20200801", 20200901)),
        ([20200731, 20200801, 20200831, 20200901], {"time_format": "%Y%m%d"}, (np.int64(20200801), "2020-09-01")),
        (["31.07.2020", "01.08.2020", "31.08.2020", "01.09.2020"], {"time_format": "%d.%m.%Y"}, (AUGUST, SEPTEMBER)),
    ],
)
def test_cuts_are_written_as_the_times_of_the_log(
    times: list[Any], told: dict[str, str], cuts: tuple[Any, Any], caplog: pytest.LogCaptureFixture
) -> None:
    rows = [("u", item, time) for item, time in zip("aaaa", times, strict=True)]
    prepared = prepare_sequences(
        log_of(rows, **told), k_core=1, split="temporal", valid_from=cuts[0], test_from=cuts[1]
    )
    assert [len(row["input_ids"]) for row in prepared["validation"]] == [1, 2]
    assert [len(row["input_ids"]) for row in prepared["test"]] == [3]
    assert "is read as" not in caplog.text


def test_cuts_outside_of_the_times_of_the_log_are_doubted(caplog: pytest.LogCaptureFixture) -> None:
    log = log_of([("u", "a", time) for time in AROUND])
    prepare_sequences(log, k_core=1, split="temporal", valid_from=AUGUST, test_from="2021-01-01")
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        "test_from is read as 2021-01-01T00:00:00 (UTC), and every event of the log, from 2020-07-31T23:00:00 to "
        "2020-09-01T01:00:00, is before it"
    ]
    caplog.clear()
    with pytest.raises(ValueError, match="before valid_from"):
        prepare_sequences(log, k_core=1, split="temporal", valid_from=20200801, test_from=SEPTEMBER)
    assert "valid_from is read as 1970-08-22T19:20:01 (UTC), and no event of the log, from 2020-07" in caplog.text


@pytest.mark.parametrize(
    ("told", "cut", "error", "message"),
    [
        ({}, "01.08.2020", ValueError, r"valid_from='01.08.2020' is no time that can be read; give it as a number or"),
        ({"time_format": "%d.%m.%Y"}, "1. August", ValueError, "or written as time_format='%d.%m.%Y' says"),
        ({"time_format": "%d.%m.%Y"}, "31.06.2020", ValueError, "valid_from='31.06.2020' is no date or time of day"),
        (
            # Seconds, and a log of milliseconds.
            {"time_unit": "ms"},
            SEPTEMBER,
            ValueError,
            "are read as 1970-01-19T12:08:38 and 1970-01-19T12:08:38, numbers by the log's time_unit='ms'",
        ),
        ({}, [1], TypeError, r"valid_from=\[1\] "),
    ],
)
def test_cuts_that_are_no_times_are_refused_by_name(
    told: dict[str, str], cut: Any, error: type[Exception], message: str
) -> None:
    log = log_of([("u", "a", "01.07.2020" if "time_format" in told else AUGUST)], **told)
    with pytest.raises(error, match=message):
        prepare_sequences(log, k_core=1, split="temporal", valid_from=cut, test_from=SEPTEMBER)
