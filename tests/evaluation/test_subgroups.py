"""Groups of targets, against counting by hand."""

from collections import Counter

import numpy as np
import polars as pl
import pytest

from mmm4rec_hf.data import SequenceDatasets
from mmm4rec_hf.evaluation.subgroups import (
    history_groups,
    modality_groups,
    popularity_groups,
    subgroup_means,
    training_events,
)
from mmm4rec_hf.items import ItemCatalog


def test_training_events_are_those_that_a_training_row_shows(sequences: SequenceDatasets) -> None:
    seen: Counter = Counter()
    shown: dict[str, list[int]] = {}
    for user, row in zip(sequences.user_ids_of("train"), sequences["train"], strict=True):
        events = [*row["input_ids"].tolist(), int(row["labels"])]
        shown[user] = max(shown.get(user, []), events, key=len)
    for events in shown.values():
        seen.update(events)
    counts = training_events(sequences)
    assert counts.tolist() == [seen[index] for index in range(len(sequences.item_ids) + 1)]


def test_histories_are_grouped_by_their_length() -> None:
    lengths = np.array([1, 4, 5, 9, 10, 19, 20, 49, 50, 900])
    assert history_groups(lengths) == ["1-4", "1-4", "5-9", "5-9", "10-19", "10-19", "20-49", "20-49", "50+", "50+"]


def test_the_head_is_as_few_items_as_make_half_of_the_events() -> None:
    # 20 events: 8 and 2 of the next are half.
    groups = popularity_groups(np.array([0, 3, 8, 0, 4, 5, 0]))
    assert groups.tolist()[1:] == ["tail", "head", "cold", "tail", "head", "cold"]
    # One item that is half by itself.
    assert popularity_groups(np.array([0, 5, 10, 5])).tolist()[1:] == ["tail", "head", "tail"]


def test_items_are_grouped_by_what_is_known_of_them(catalog: ItemCatalog) -> None:
    groups = modality_groups(catalog)
    for row, group in enumerate(groups):
        expected = {(True, True): "both", (True, False): "text only", (False, True): "picture only"}
        assert group == expected.get((row % 4 != 0, row % 3 != 0), "neither")
    assert set(modality_groups(ItemCatalog(["a", "b"]))) == {"neither"}


def test_means_are_taken_group_by_group() -> None:
    table = pl.DataFrame({"history_length": ["1-4", "5-9", "1-4"], "hr": [1.0, 0.5, 0.0]})
    means = subgroup_means(table, {"hr": "hit rate"})
    assert means == {
        "history_length": {"1-4": {"targets": 2, "hit rate": 0.5}, "5-9": {"targets": 1, "hit rate": 0.5}}
    }
    assert means["history_length"]["1-4"]["hit rate"] == pytest.approx(0.5)


def test_groups_stand_in_their_order_and_not_in_that_of_letters() -> None:
    lengths = [60, 5, 12, 1, 30]
    table = pl.DataFrame(
        {
            "history_length": history_groups(np.array(lengths)),
            "target_popularity": ["tail", "cold", "head", "tail", "head"],
            "hr": [0.0] * 5,
        }
    )
    means = subgroup_means(table, {"hr": "hr"})
    assert list(means["history_length"]) == ["1-4", "5-9", "10-19", "20-49", "50+"]
    assert list(means["target_popularity"]) == ["head", "tail", "cold"]
