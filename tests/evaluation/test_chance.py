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
from mmm4rec_hf.evaluation.chance import told_number, warn_at_chance
from mmm4rec_hf.evaluation.evaluator import evaluate_model


@pytest.mark.parametrize(
    ("hit_rate", "is_said"),
    # Chance is 10 in 100; of 900 users its standard error is sqrt(0.1 x 0.9 / 900) = 0.01.
    [(0.0, True), (0.1, True), (0.119, True), (0.121, False), (1.0, False)],
)
def test_two_standard_errors_above_chance_are_better_than_it(
    caplog: pytest.LogCaptureFixture, hit_rate: float, is_said: bool
) -> None:
    # Users of one value tell of no interval.
    assert warn_at_chance("hr@10", np.full(900, hit_rate), 10, 100) == is_said
    assert ("a random order of 100 items has 0.1000" in caplog.text) == is_said


def test_a_hit_rate_at_two_standard_errors_exactly_is_still_within_them() -> None:
    # Chance is a half; of 16 users its standard error is sqrt(0.25 / 16) = 1/8.
    users = [f"u{n}" for n in range(16)]
    assert warn_at_chance("hr@50", np.full(16, 0.75), 50, 100, users)
    assert not warn_at_chance("hr@50", np.full(16, 0.8125), 50, 100, users)


def test_a_user_s_targets_are_one_draw_and_are_told_as_targets(caplog: pytest.LogCaptureFixture) -> None:
    # A half of the hits is chance; two standard errors are 1/4 over 16 users, 1/8 if 64 targets were as many draws.
    assert warn_at_chance("hr@50", np.full(64, 0.75), 50, 100, np.tile(np.arange(16), 4))
    assert "0.7500 over 64 targets of 16 users; a random order of 100 items has 0.5000" in caplog.text
    # Whose they are is not known, so that each is a draw.
    assert not warn_at_chance("hr@50", np.full(64, 0.75), 50, 100)
    assert warn_at_chance("hr@50", np.full(64, 0.5), 50, 100) and "0.5000 over 64 targets; a random" in caplog.text


@pytest.mark.parametrize(("rate", "is_said"), [(0.5, True), (0.625, False)])
def test_of_users_who_are_all_above_chance_nothing_is_said(rate: float, is_said: bool) -> None:
    # Two standard errors of one draw a user are 0.71. The interval begins at the lesser user, who is drawn twice in a
    # quarter of the draws; a half is chance itself.
    hits = np.array([rate, 1, rate, 1, rate, 1, rate])
    assert warn_at_chance("hr@50", hits, 50, 100, ["a", "b"] * 3 + ["a"]) == is_said


def test_how_far_users_differ_tells_whether_many_targets_of_few_users_are_above_chance(
    caplog: pytest.LogCaptureFixture,
) -> None:
    # Chance is 0.05, and its two standard errors over 20 users 0.0975. Every draw of these has 0.1 at least.
    users = np.repeat(np.arange(20), 100)
    hits = np.tile(np.arange(100) < 10, 20) | (np.tile(np.arange(100) < 17, 20) & (users < 10))
    assert hits.mean() == 0.135
    assert not warn_at_chance("hr@50", hits.astype(float), 50, 1000, users)
    # All that two of the users have: neither is in (18/20)^20 = 12 of 100 draws.
    assert warn_at_chance("hr@50", (users < 2).astype(float), 50, 1000, users)
    assert "over 2,000 targets of 20 users; a random order of 1000 items has 0.0500" in caplog.text
    # Draws of one user are all the same; two standard errors of one draw are 0.44.
    assert warn_at_chance("hr@50", (np.arange(100) < 40).astype(float), 50, 1000, ["u"] * 100)


def test_chance_is_that_of_the_items_left_to_each_target(caplog: pytest.LogCaptureFixture) -> None:
    # 25 of 100 items, 25 of 50 and 25 of 20, which are always hit: 7 hits of 12.
    assert warn_at_chance("hr@25", np.full(3, 0.5833), 25, [100, 50, 20], ["a", "b", "c"])
    assert "over 3 users; a random order of 20 to 100 items has 0.5833" in caplog.text


@pytest.mark.parametrize("k", [10, 20])
def test_where_every_order_hits_there_is_nothing_to_say(k: int) -> None:
    assert not warn_at_chance(f"hr@{k}", np.ones(900), k, 10)


def test_a_random_order_is_nearly_always_found_out() -> None:
    rng = np.random.default_rng(0)
    # Places of targets in random orders of 200 items, of 500 users, a hundred times.
    said = [warn_at_chance("hr@20", (rng.integers(0, 200, 500) < 20).astype(float), 20, 200) for _ in range(100)]
    assert 90 <= sum(said) <= 100


@pytest.mark.parametrize(
    ("targets", "users", "told"),
    [(0, 0, "0 users"), (1, 1, "1 user"), (2000, int("2000"), "2,000 users"), (0, None, "0 targets"),
     (2, 1, "2 targets of 1 user"), (1, None, "1 target"), (3000, 2000, "3,000 targets of 2,000 users"),
     (3000, None, "3,000 targets")],
)  # fmt: skip
def test_targets_are_told_as_users_where_each_has_one(targets: int, users: int | None, told: str) -> None:
    assert told_number(targets, users) == told


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
    assert left[2] == 5 and sorted(left[3].tolist()) == [13, 13, 13, 14] and left[4] == ["a", "a", "a", "b"]
    assert all_items[2:] == (5, 16, ["a", "a", "a", "b"])
    assert left[1].shape == (4,) and left[1].mean() == pytest.approx(metrics["hr@5"])


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
