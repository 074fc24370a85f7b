"""A word where a model ranks no better than a random order."""

import logging
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from mmm4rec_hf import MMM4RecForSequentialRecommendation
from mmm4rec_hf.data import SequenceDatasets, load_interactions, prepare_sequences
from mmm4rec_hf.evaluation import evaluator
from mmm4rec_hf.evaluation.chance import warn_at_chance
from mmm4rec_hf.evaluation.evaluator import evaluate_model


@pytest.mark.parametrize(
    ("hit_rate", "is_said"),
    # Chance is 10 in 100; of 900 users its standard error is sqrt(0.1 x 0.9 / 900) = 0.01.
    [(0.0, True), (0.1, True), (0.119, True), (0.121, False), (1.0, False)],
)
def test_two_standard_errors_above_chance_are_better_than_it(
    caplog: pytest.LogCaptureFixture, hit_rate: float, is_said: bool
) -> None:
    assert warn_at_chance("hr@10", hit_rate, 10, 900, 100) == is_said
    assert ("a random order of 100 items has 0.1000" in caplog.text) == is_said


def test_a_hit_rate_at_two_standard_errors_exactly_is_still_within_them() -> None:
    # Chance is a half; of 16 users its standard error is sqrt(0.25 / 16) = 1/8.
    assert warn_at_chance("hr@50", 0.75, 50, 16, 100)
    assert not warn_at_chance("hr@50", 0.8125, 50, 16, 100)


def test_a_user_s_targets_are_one_draw_and_are_told_as_targets(caplog: pytest.LogCaptureFixture) -> None:
    # A half of the hits is chance; two standard errors are 1/4 over 16 users, 1/8 if 64 targets were as many draws.
    assert warn_at_chance("hr@50", 0.75, 50, 16, 100, 64)
    assert "0.7500 over 64 targets of 16 users; a random order of 100 items has 0.5000" in caplog.text


def test_chance_is_that_of_the_items_left_to_each_target(caplog: pytest.LogCaptureFixture) -> None:
    # 25 of 100 items, 25 of 50 and 25 of 20, which are always hit: 7 hits of 12.
    assert warn_at_chance("hr@25", 0.5833, 25, 3, [100, 50, 20])
    assert "over 3 users; a random order of 20 to 100 items has 0.5833" in caplog.text


@pytest.mark.parametrize("k", [10, 20])
def test_where_every_order_hits_there_is_nothing_to_say(k: int) -> None:
    assert not warn_at_chance(f"hr@{k}", 1.0, k, 900, 10)


def test_a_random_order_is_nearly_always_found_out() -> None:
    rng = np.random.default_rng(0)
    # Places of targets in random orders of 200 items, of 500 users, a hundred times.
    said = [warn_at_chance("hr@20", float((rng.integers(0, 200, 500) < 20).mean()), 20, 500, 200) for _ in range(100)]
    assert 90 <= sum(said) <= 100


def test_an_evaluation_counts_the_items_that_a_history_leaves_and_users_apart_from_targets(
    model: MMM4RecForSequentialRecommendation, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of 16 items; `a` has three targets after i0, i1, i0, the last of them i0 again, and `b` one after i2, i3, i4.
    log = pl.DataFrame(
        [("a", "i0", 1), ("a", "i1", 2), ("a", "i0", 3), ("b", "i2", 1), ("b", "i3", 2), ("b", "i4", 3),
         ("a", "i3", 21), ("a", "i4", 22), ("a", "i0", 23), ("b", "i0", 24)],
        schema=["user_id", "item_id", "timestamp"], orient="row",
    )  # fmt: skip
    sequences = prepare_sequences(load_interactions(log), k_core=1, split="temporal", valid_from=10, test_from=20)
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(evaluator, "warn_at_chance", lambda *values: asked.append(values))
    metrics = evaluate_model(model, sequences, "test", ks=(5,), exclude_history=True).metrics
    assert (metrics["users"], metrics["targets"]) == (2, 4)
    evaluate_model(model, sequences, "test", ks=(5,))
    (left, all_items) = asked
    # Out go i0 and i1; then i3, too; of i0, which is the target, i1, i3 and i4 the last three; and i2, i3 and i4.
    assert left[3] == 2 and sorted(left[4].tolist()) == [13, 13, 13, 14] and left[5] == 4
    assert all_items[3:] == (2, 16, 4)


def test_an_evaluation_says_that_a_model_cannot_tell_its_items_apart(
    model: MMM4RecForSequentialRecommendation, sequences: SequenceDatasets, caplog: pytest.LogCaptureFixture
) -> None:
    ids = model.item_ids
    alike = SimpleNamespace(item_ids=ids, text_features=np.ones((16, 5)), image_features=np.ones((16, 3)))
    model.set_items(alike)
    with caplog.at_level(logging.WARNING, logger="mmm4rec_hf.evaluation.chance"):
        metrics = evaluate_model(model, sequences, "test", ks=(2, 4)).metrics
    assert metrics["hr@4"] == pytest.approx(4 / 16)
    assert caplog.text.count("no better than chance") == 1 and "hr@4 of the test split is 0.2500" in caplog.text
