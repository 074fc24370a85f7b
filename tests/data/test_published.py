import json
from pathlib import Path
from typing import Any

import pytest

from mmm4rec_hf.data import load_interactions, prepare_sequences
from mmm4rec_hf.data.published import write_published

HISTORIES: dict[str, list[tuple[str, int]]] = {
    "u": [("b", 10), ("a", 20), ("a", 20), ("c", 30), ("b", 40)],
    "v": [("c", 5), ("b", 6), ("a", 7)],
}
ITEMS = {"a": 1, "b": 2, "c": 3, "unused": 4}


def write_lines(path: Path, lines: list[Any]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def publish(folder: Path, with_test: bool = True) -> None:
    """As the published preparation writes it; users are numbered in another order than their names'."""
    users = {"v": 0, "u": 1}
    sequences = {users[user]: [[ITEMS[item], time] for item, time in events] for user, events in HISTORIES.items()}
    write_lines(folder / "item2id.jsonl", [list(pair) for pair in ITEMS.items()])
    write_lines(folder / "user2id.jsonl", [list(pair) for pair in users.items()])
    upto = -1 if with_test else 1
    prefixes = [[user, events[:n]] for user, events in sequences.items() for n in range(2, len(events) + upto)]
    write_lines(folder / "train_seq.jsonl", prefixes)
    if with_test:
        write_lines(folder / "eval_seq.jsonl", [[user, events[:-1]] for user, events in sequences.items()])
        write_lines(folder / "test_seq.jsonl", [[user, events] for user, events in sequences.items()])


@pytest.mark.parametrize("zero", [0, "0"])
def test_the_id_zero_is_a_user_and_an_item_like_others(tmp_path: Path, zero: Any) -> None:
    write_lines(tmp_path / "item2id.jsonl", [["x", 1], [zero, 2]])
    write_lines(tmp_path / "user2id.jsonl", [[zero, 0]])
    write_lines(tmp_path / "test_seq.jsonl", [[0, [[2, 5], [1, 6], [2, 7]]]])
    prepared = prepare_sequences(load_interactions(tmp_path), k_core=1)
    assert prepared.item_ids == ["x", "0"] and prepared.user_ids == ["0"]
    assert prepared["test"][0]["input_ids"].tolist() == [2, 1] and prepared["test"][0]["labels"] == 2


def lines_of(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("with_test", [True, False])
def test_published_files_give_back_the_log_with_its_ids(tmp_path: Path, with_test: bool) -> None:
    publish(tmp_path, with_test)
    log = load_interactions(tmp_path)
    rows = log.frame.sort("order").select("user_id", "item_id", "timestamp").collect("polars").rows()
    for user, events in HISTORIES.items():
        assert [(item, time) for owner, item, time in rows if owner == user] == events
    assert log.item_ids == ["a", "b", "c", "unused"]


def test_published_files_written_back_hold_the_same_lines(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    publish(tmp_path / "in")
    prepared = prepare_sequences(load_interactions(tmp_path / "in", format="published"), k_core=1)
    assert prepared.statistics["duplicated_rows"] == 0
    write_published(prepared, tmp_path / "out")
    assert lines_of(tmp_path / "out" / "item2id.jsonl") == lines_of(tmp_path / "in" / "item2id.jsonl")
    for name in ("train_seq.jsonl", "eval_seq.jsonl", "test_seq.jsonl"):
        contents = []
        for folder in (tmp_path / "in", tmp_path / "out"):
            users = {index: user for user, index in lines_of(folder / "user2id.jsonl")}
            contents.append(sorted([users[user], events] for user, events in lines_of(folder / name)))
        assert contents[0] == contents[1], name


def test_published_files_replace_nothing(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    publish(tmp_path / "in")
    prepared = prepare_sequences(load_interactions(tmp_path / "in"), k_core=1)
    prepared.save_to_disk(tmp_path / "sequences")
    for folder, named in (("in", "eval_seq.jsonl, item2id.jsonl, "), ("sequences", "events.arrow, items.arrow, ")):
        before = {path: path.read_bytes() for path in (tmp_path / folder).iterdir()}
        with pytest.raises(ValueError, match=f"{folder} holds something else .* would be lost: {named}"):
            write_published(prepared, tmp_path / folder)
        assert {path: path.read_bytes() for path in (tmp_path / folder).iterdir()} == before


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("test_seq.jsonl", [0, [[9, 1], [1, 2]]], "line 3: item 9 is not among the 4"),
        ("test_seq.jsonl", [0, [[0, 1], [1, 2]]], "line 3: item 0 is not among the 4"),
        ("test_seq.jsonl", [2, [[1, 1]]], "line 3: user 2 is not among the 2"),
        ("test_seq.jsonl", [0, [1, 2]], r"line 3 must be \[user, \[\[item, time\], ...\]\]"),
        ("test_seq.jsonl", {"user": 1}, "line 3 must be"),
        ("item2id.jsonl", ["d", 4], "line 5: index 4 was given to 'unused' before"),
        ("item2id.jsonl", ["d", 6], "indices must count up from 1"),
        ("user2id.jsonl", ["w"], r"line 3 must be \[id, index\]"),
        ("user2id.jsonl", ["v", 2], "line 3: 'v' was given index 0 before, now 2; give each index an id of its own"),
        ("item2id.jsonl", ["b", 5], "line 5: 'b' was given index 2 before, now 5"),
    ],
)
def test_published_lines_of_another_form_are_refused_with_their_number(
    tmp_path: Path, file: str, line: Any, message: str
) -> None:
    publish(tmp_path)
    with (tmp_path / file).open("a") as appended:
        appended.write(json.dumps(line) + "\n")
    with pytest.raises(ValueError, match=message):
        load_interactions(tmp_path)


def test_a_number_and_its_text_are_one_id_and_have_one_index(tmp_path: Path) -> None:
    publish(tmp_path)
    write_lines(tmp_path / "user2id.jsonl", [["1", 0], [1, 1]])
    with pytest.raises(ValueError, match=r"user2id\.jsonl, line 2: '1' was given index 0 before, now 1"):
        load_interactions(tmp_path)


def test_a_folder_without_published_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not hold item2id.jsonl"):
        load_interactions(tmp_path, format="published")
