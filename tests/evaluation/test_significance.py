"""Metrics of single targets, intervals over users, and the paired test, against enumeration and other routes."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmm4rec_hf.evaluation import significance
from mmm4rec_hf.evaluation.metrics import metric_values, metrics_from_counts
from mmm4rec_hf.evaluation.significance import bootstrap_intervals, has_width, paired_p_values


def test_the_values_of_a_target_are_the_mean_over_the_places_of_its_ties() -> None:
    # First alone; second or third; place 9 or 10 of ten and beyond.
    values = metric_values(np.array([[0, 1], [1, 2], [9, 3]]), [10])
    assert values["hr@10"] == pytest.approx([1, 1, 1 / 3])
    assert values["mrr@10"] == pytest.approx([1, (1 / 2 + 1 / 3) / 2, (1 / 10) / 3])
    assert values["ndcg@10"] == pytest.approx([1, (1 / np.log2(3) + 1 / 2) / 2, 1 / np.log2(11) / 3])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 8)), min_size=1, max_size=30))
def test_the_means_of_the_values_are_the_metrics(pairs: list[tuple[int, int]]) -> None:
    counts = np.array(pairs)
    values, metrics = metric_values(counts, [1, 10, 50]), metrics_from_counts(counts, [1, 10, 50])
    for name, column in values.items():
        assert column.mean() == pytest.approx(metrics[name]), name


def test_an_interval_holds_the_quantiles_of_all_resamples_of_three_users() -> None:
    values, users = np.array([[0.0], [1.0], [5.0]]), ["u", "v", "w"]
    means = [np.mean([values[place, 0] for place in drawn]) for drawn in itertools.product(range(3), repeat=3)]
    low, high = bootstrap_intervals(values, users, num_resamples=40_000, confidence=0.8)
    assert (low[0], high[0]) == pytest.approx(tuple(np.quantile(means, [0.1, 0.9])), abs=1e-9)


def test_the_targets_of_one_user_are_drawn_together() -> None:
    # Two users; the first has three targets: a resample has 6, 4 or 2 targets, its mean is 1, 3/4 or 0.
    values, users = np.array([[1.0], [1.0], [1.0], [0.0]]), ["u", "u", "u", "v"]
    low, high = bootstrap_intervals(values, users, num_resamples=2000)
    assert (low[0], high[0]) == (0.0, 1.0)
    low, high = bootstrap_intervals(values, users, num_resamples=4001, confidence=0.4)
    assert (low[0], high[0]) == (0.75, 0.75)


def test_an_interval_of_equal_values_is_a_point_and_a_wider_confidence_contains_a_narrower_one() -> None:
    low, high = bootstrap_intervals(np.full((9, 1), 0.3), [str(n) for n in range(9)])
    assert low[0] == pytest.approx(0.3) and high[0] == pytest.approx(0.3)
    rng = np.random.default_rng(0)
    values, users = rng.normal(size=(50, 2)), [str(n) for n in range(50)]
    narrow, wide = (bootstrap_intervals(values, users, confidence=level) for level in (0.5, 0.99))
    assert (wide[0] <= narrow[0]).all() and (narrow[1] <= wide[1]).all()
    # Of 50 values the standard error of the mean is sd / sqrt(50), 1.96 of which make half an interval of 95%.
    low, high = bootstrap_intervals(values, users)
    expected = 2 * 1.96 * values.std(axis=0) / np.sqrt(50)
    assert high - low == pytest.approx(expected, rel=0.15)


def test_a_p_value_is_the_share_of_signs_that_reach_as_far() -> None:
    # Of the 16 sign patterns of 1, 2, 3, 4 those with |sum| >= 8 are +-10 and +-8: four.
    differences, users = np.array([[1.0], [2.0], [3.0], [4.0]]), ["a", "b", "c", "d"]
    assert paired_p_values(differences, users)[0] == pytest.approx(2 / 16, abs=0.02)
    assert paired_p_values(differences * [[-1], [1], [1], [1]], users)[0] == pytest.approx(4 / 16, abs=0.02)


def test_sums_that_are_equal_but_for_rounding_are_equally_far() -> None:
    # 0.3 + 0.1 + 0.2 - 0.2 is 0.4 and a little in floats; in tenths everything is exact.
    patterns = [np.dot(signs, [3, 1, 2, -2]) for signs in itertools.product((-1, 1), repeat=4)]
    share = np.mean(np.abs(patterns) >= 4)
    differences = np.array([[0.3, 1.0], [0.1, 1.0], [0.2, 1.0], [-0.2, 1.0]])
    values = paired_p_values(differences, list("abcd"))
    # Of ones, 2 of the 16 patterns have one sign.
    assert values.shape == (2,) and values == pytest.approx([share, 2 / 16], abs=0.02)


def test_one_draw_is_enough_and_an_odd_number_of_them_has_a_share_of_one() -> None:
    assert paired_p_values(np.zeros((3, 1)), list("abc"), num_resamples=1)[0] == 1.0
    assert paired_p_values(np.zeros((3, 1)), list("abc"), num_resamples=7)[0] == 1.0


def test_the_defaults_are_those_of_the_documentation() -> None:
    values, users = np.random.default_rng(2).normal(size=(300, 1)), [str(n) for n in range(300)]
    named = bootstrap_intervals(values, users, num_resamples=1000, confidence=0.95, seed=0)
    assert np.array_equal(bootstrap_intervals(values, users), named)
    few = values[:4], users[:4]
    assert paired_p_values(*few) == paired_p_values(*few, num_resamples=10_000, seed=0)


def test_resamples_come_in_blocks_that_fit_the_memory_and_make_up_their_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(significance, "_BLOCK_CELLS", 7)
    assert list(significance._blocks(10, 2)) == [3, 3, 3, 1]
    assert list(significance._blocks(3, 9)) == [1, 1, 1]


def test_two_runs_that_are_equal_differ_by_chance_and_a_user_counts_once() -> None:
    assert paired_p_values(np.zeros((5, 1)), list("abcde"))[0] == 1.0
    # One user's hundred targets are one draw: no number of them makes a difference significant.
    assert paired_p_values(np.ones((100, 1)), ["u"] * 100)[0] == 1.0


def test_the_same_seed_draws_the_same() -> None:
    values, users = np.random.default_rng(1).normal(size=(20, 1)), [str(n) for n in range(20)]
    first, again, other = (bootstrap_intervals(values, users, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((0, 1)), []), "no users to resample"),
        ((np.zeros((2, 1)), ["u"]), "for 1 users"),
        ((np.zeros((1, 1)), ["u", "v"]), "for 2 users"),
        ((np.zeros((2, 1, 1)), ["u", "v"]), r"\[targets, metrics\]"),
        ((np.zeros(2), ["u", "v"]), r"\[targets, metrics\]"),
    ],
)
def test_values_that_do_not_fit_the_users_are_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap_intervals(*arguments)


@pytest.mark.parametrize("confidence", [95, 1.5, 1, 0, -0.5])
def test_a_confidence_that_is_no_share_is_refused(confidence: float) -> None:
    with pytest.raises(ValueError, match=f"confidence must be between 0 and 1, got {confidence}"):
        bootstrap_intervals(np.zeros((1, 1)), ["u"], confidence=confidence)


def test_a_test_without_a_draw_is_refused() -> None:
    with pytest.raises(ValueError, match="num_resamples must be at least 1, got 0"):
        paired_p_values(np.zeros((1, 1)), ["u"], num_resamples=0)


def test_equal_ends_are_no_interval_whatever_rounding_makes_of_them() -> None:
    assert not has_width(0.1 + 0.2, 0.3) and not has_width(0.0, 0.0) and not has_width(-1.0, -1.0)
    assert has_width(0.0, 1e-6) and has_width(-1e-6, 1e-6)
    low, high = bootstrap_intervals(np.full((7, 1), 0.1), [str(n) for n in range(7)])
    assert not has_width(low[0], high[0])
