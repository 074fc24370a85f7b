"""A word where a model ranks no better than a random order."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest

from mmm4rec_hf import MMM4RecForSequentialRecommendation
from mmm4rec_hf.data import SequenceDatasets
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


@pytest.mark.parametrize("k", [10, 20])
def test_where_every_order_hits_there_is_nothing_to_say(k: int) -> None:
    assert not warn_at_chance(f"hr@{k}", 1.0, k, 900, 10)


def test_a_random_order_is_nearly_always_found_out() -> None:
    rng = np.random.default_rng(0)
    # Places of targets in random orders of 200 items, of 500 users, a hundred times.
    said = [warn_at_chance("hr@20", float((rng.integers(0, 200, 500) < 20).mean()), 20, 500, 200) for _ in range(100)]
    assert 90 <= sum(said) <= 100


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
