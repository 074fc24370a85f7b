import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmm4rec_hf.data import MMM4RecDataCollator

ROWS = [
    {"input_ids": np.array([4, 5, 6]), "timestamps": np.array([10, 20, 30]), "labels": 7},
    {"input_ids": np.array([9]), "timestamps": np.array([1387670400]), "labels": 1},
]


def test_histories_are_padded_on_the_right_to_the_longest() -> None:
    batch = MMM4RecDataCollator(20)(ROWS)
    assert batch["input_ids"].tolist() == [[4, 5, 6], [9, 0, 0]]
    assert batch["timestamps"].tolist() == [[10, 20, 30], [1387670400, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [7, 1]
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


def test_histories_are_padded_on_the_left_where_asked() -> None:
    batch = MMM4RecDataCollator(20, padding_side="left")(ROWS)
    assert batch["input_ids"].tolist() == [[4, 5, 6], [0, 0, 9]]
    assert batch["timestamps"].tolist() == [[10, 20, 30], [0, 0, 1387670400]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]


@pytest.mark.parametrize("side", ["left", "right"])
def test_of_a_long_history_the_last_events_count(side: str) -> None:
    batch = MMM4RecDataCollator(2, padding_side=side)(ROWS)
    assert batch["input_ids"][0].tolist() == [5, 6]
    assert batch["timestamps"][0].tolist() == [20, 30]


def test_plain_lists_and_rows_without_labels_are_taken() -> None:
    batch = MMM4RecDataCollator(5)([{"input_ids": [1, 2], "timestamps": [3, 4]}])
    assert batch["input_ids"].tolist() == [[1, 2]]
    assert "labels" not in batch


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"input_ids": [], "timestamps": [], "labels": 1}, "row 1 of the batch has an empty history"),
        ({"input_ids": [1], "timestamps": [1], "labels": 0}, "row 1 of the batch has the label 0"),
        ({"input_ids": [1], "timestamps": [1], "labels": -100}, "row 1 of the batch has the label -100"),
        ({"input_ids": [0], "timestamps": [1], "labels": 1}, "index below 1"),
        ({"input_ids": [1, 2], "timestamps": [1], "labels": 1}, "row 1 of the batch has 2 items and 1 timestamps"),
    ],
)
def test_rows_that_would_train_on_the_padding_are_refused(row: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MMM4RecDataCollator(20)([ROWS[0], row])


@pytest.mark.parametrize("arguments", [{"max_sequence_length": 0}, {"max_sequence_length": 1, "padding_side": "top"}])
def test_settings_that_mean_nothing_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must be (at least 1|'right' or 'left')"):
        MMM4RecDataCollator(**arguments)
    with pytest.raises(ValueError, match="at least one row"):
        MMM4RecDataCollator(1)([])


histories = st.lists(st.tuples(st.integers(1, 2**31), st.integers(0, 2**62)), min_size=1, max_size=9)


@given(st.lists(histories, min_size=1, max_size=6), st.integers(1, 10), st.sampled_from(["left", "right"]))
def test_a_batch_equals_one_filled_event_by_event(rows: list[list[tuple[int, int]]], length: int, side: str) -> None:
    features = [{"input_ids": [i for i, _ in row], "timestamps": [t for _, t in row]} for row in rows]
    batch = pickle.loads(pickle.dumps(MMM4RecDataCollator(length, side)))(features)
    longest = min(length, max(map(len, rows)))
    for place, row in enumerate(rows):
        padding = [(0, 0)] * (longest - min(length, len(row)))
        filled = padding + row[-length:] if side == "left" else row[-length:] + padding
        assert batch["input_ids"][place].tolist() == [item for item, _ in filled]
        assert batch["timestamps"][place].tolist() == [time for _, time in filled]
