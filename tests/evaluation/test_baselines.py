"""Baselines on splits small enough to rank by hand."""

import datasets
import numpy as np
import pytest
import torch

from mmm4rec_hf.evaluation.baselines import (
    CooccurrenceBaseline,
    FeatureSimilarityBaseline,
    ItemKNNBaseline,
    PopularityBaseline,
    evaluate_baseline,
)


def split(histories: list[list[int]], labels: list[int]) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"input_ids": histories, "labels": labels})


def test_popularity_counts_every_training_event_once():
    baseline = PopularityBaseline().fit(split([[1, 2, 2], [2, 3]], [1, 1]), num_items=4)
    assert baseline.score([np.array([1])]).tolist() == [[-np.inf, 1.0, 3.0, 1.0, 0.0]]


def test_popularity_refuses_items_outside_the_catalogue():
    with pytest.raises(ValueError, match=r"items 1..9, outside 1..4"):
        PopularityBaseline().fit(split([[1, 9]], [1]), num_items=4)


def test_similar_features_rank_by_the_cosine_with_the_last_item():
    features = np.array([[2.0, 0.0], [0.0, 3.0], [1.0, 1.0], [0.0, 0.0]])
    scores = FeatureSimilarityBaseline().fit(features).score([np.array([2, 1]), np.array([4])])
    expected = torch.tensor([[-torch.inf, 1.0, 0.0, 0.5**0.5, 0.0], [-torch.inf, 0.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(scores, expected)


def test_the_last_item_is_no_neighbour_of_itself_on_request():
    features = np.array([[2.0, 0.0], [0.0, 3.0], [4.0, 0.0]])
    scores = FeatureSimilarityBaseline(exclude_last=True).fit(features).score([np.array([2, 1]), np.array([2])])
    assert scores.tolist() == [[-np.inf, -np.inf, 0, 1], [-np.inf, 0, -np.inf, 0]]


def test_equal_features_tie_exactly():
    rows = torch.randn(500, 64, generator=torch.Generator().manual_seed(0))
    features = torch.cat([rows, rows[:3]]).numpy()
    scores = FeatureSimilarityBaseline().fit(features).score([np.array([n]) for n in range(1, 504)])
    assert torch.equal(scores[:, 1:4], scores[:, 501:504])


LOG = [[1, 2, 3], [1, 2], [2, 1, 3, 1], [4]]


def test_transitions_are_counted_from_the_last_item():
    baseline = CooccurrenceBaseline(window=1, backoff=0).fit(split(LOG, [1] * 4), num_items=5)
    # After 1: 2 twice, 3 once. After 3: 1 once. After 4: nothing.
    assert baseline.score([np.array([3, 1]), np.array([3]), np.array([4])]).tolist() == [
        [-np.inf, 0, 2, 1, 0, 0],
        [-np.inf, 1, 0, 0, 0, 0],
        [-np.inf, 0, 0, 0, 0, 0],
    ]


def test_cooccurrence_weighs_by_distance_within_the_window():
    log = split(LOG, [1] * 4)
    after = CooccurrenceBaseline(window=2, decay=1, backoff=0).fit(log, num_items=5)
    # 2 stands one step before 3 and 1, two steps before another 3; 1 two steps before 3 and before itself.
    assert after.score([np.array([2])]).tolist() == [[-np.inf, 1, 0, 1.5, 0, 0]]
    assert after.score([np.array([1])]).tolist() == [[-np.inf, 0.5, 2, 1.5, 0, 0]]
    both = CooccurrenceBaseline(window=2, decay=1, symmetric=True, backoff=0).fit(log, num_items=5)
    assert both.score([np.array([2])]).tolist() == [[-np.inf, 3, 0, 1.5, 0, 0]]
    squared = CooccurrenceBaseline(window=2, decay=2, context=2, context_decay=0, backoff=0).fit(log, num_items=5)
    assert squared.score([np.array([4, 2, 1])]).tolist() == [[-np.inf, 1.25, 2, 2.5, 0, 0]]


def naive_cooccurrence(log, history, num_items, window, decay, symmetric, context, context_decay):
    scores = np.zeros(num_items + 1)
    for age, item in enumerate(reversed(history[-context:]), start=1):
        for events in log:
            for i, first in enumerate(events):
                for k, second in enumerate(events[i + 1 : i + 1 + window], start=1):
                    weight = k**-decay * age**-context_decay
                    scores[second] += weight * (first == item)
                    scores[first] += weight * (symmetric and second == item)
    return scores


def naive_item_knn(log, history, num_items, neighbours, shrinkage, context, context_decay):
    users = [{u for u, events in enumerate(log) if item in events} for item in range(num_items + 1)]
    scores = np.zeros(num_items + 1)
    for age, item in enumerate(reversed(history[-context:]), start=1):
        others = [i for i in range(1, num_items + 1) if i != item and users[i] & users[item]]
        cosines = {
            i: len(users[i] & users[item]) / ((len(users[i]) * len(users[item])) ** 0.5 + shrinkage) for i in others
        }
        least = sorted(cosines.values(), reverse=True)[:neighbours][-1] if cosines else 0
        for i, cosine in cosines.items():
            scores[i] += cosine * age**-context_decay * (cosine >= least * (1 - 1e-12))
    return scores


def random_log(seed, num_items=12):
    rng = np.random.default_rng(seed)
    return [rng.integers(1, num_items, rng.integers(1, 9)).tolist() for _ in range(15)]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("options", [(1, 1.0, False, 1, 1.0), (3, 0.5, False, 4, 1.0), (5, 2.0, True, 20, 0.0)])
def test_cooccurrence_equals_its_naive_form(seed, options):
    log, histories = random_log(seed), random_log(seed + 100)
    scores = (
        CooccurrenceBaseline(*options, backoff=0).fit(split(log, [1] * 15), 12).score(list(map(np.array, histories)))
    )
    expected = [naive_cooccurrence(log, history, 12, *options) for history in histories]
    np.testing.assert_allclose(scores[:, 1:], np.stack(expected)[:, 1:], rtol=1e-6)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("options", [(None, 0.0, 20, 0.0), (3, 0.0, 3, 1.0), (2, 5.0, 1, 0.0)])
def test_item_knn_equals_its_naive_form(seed, options):
    log, histories = random_log(seed), random_log(seed + 100)
    scores = ItemKNNBaseline(*options, backoff=0).fit(split(log, [1] * 15), 12).score(list(map(np.array, histories)))
    expected = [naive_item_knn(log, history, 12, *options) for history in histories]
    np.testing.assert_allclose(scores[:, 1:], np.stack(expected)[:, 1:], rtol=1e-6)


def test_item_knn_compares_sets_of_users():
    baseline = ItemKNNBaseline(backoff=0).fit(split(LOG, [1] * 4), num_items=5)
    # Users of 1, 2: 0, 1, 2; of 3: 0, 2.
    torch.testing.assert_close(
        baseline.score([np.array([3])]), torch.tensor([[-np.inf, 2 / 6**0.5, 2 / 6**0.5, 0, 0, 0]]).double()
    )


@pytest.mark.parametrize("baseline", [CooccurrenceBaseline(), ItemKNNBaseline()])
def test_unseen_pairs_stand_in_the_order_of_popularity(baseline):
    scores = baseline.fit(split([*LOG, [5, 5], [5]], [1] * 6), num_items=6).score([np.array([4])])[0]
    np.testing.assert_allclose(scores[1:], np.array([4, 3, 2, 1, 3, 0]) / 4 * 1e-6)


def test_equal_parts_tie_whatever_their_order():
    # 7 stands 1, 2 and 3 steps after the items 1, 2 and 3, and 8 stands 2, 3 and 1 steps after them.
    log = [[1, 7], [2, 4, 7], [3, 4, 4, 7], [1, 4, 8], [2, 4, 4, 8], [3, 8]]
    one, two, three = 1.0, 2**-0.7, 3**-0.7
    assert (one + two) + three != (two + three) + one
    baseline = CooccurrenceBaseline(window=3, decay=0.7, context=3, context_decay=0).fit(split(log, [1] * 6), 8)
    scores = baseline.score([np.array([3, 2, 1])])
    assert scores[0, 7] == scores[0, 8] == pytest.approx(one + two + three)


@pytest.mark.parametrize(
    "baseline",
    [
        CooccurrenceBaseline().fit(split([[1, 2]], [1]), 2),
        ItemKNNBaseline().fit(split([[1, 2]], [1]), 2),
        FeatureSimilarityBaseline().fit(np.eye(2)),
    ],
)
def test_histories_that_cannot_be_scored_are_refused(baseline):
    with pytest.raises(ValueError, match="history 1 is empty"):
        baseline.score([np.array([1]), np.array([], dtype=np.int64)])
    with pytest.raises(ValueError, match=r"history 0 holds items 1..3, outside 1..2"):
        baseline.score([np.array([3, 1])])


@pytest.mark.parametrize(
    ("form", "options", "message"),
    [
        (CooccurrenceBaseline, {"window": 0}, "window must be at least 1"),
        (CooccurrenceBaseline, {"context": 0}, "context must be at least 1"),
        (ItemKNNBaseline, {"neighbours": 0}, "neighbours must be at least 1"),
        (ItemKNNBaseline, {"shrinkage": -1.0}, "shrinkage must be at least 0"),
    ],
)
def test_options_out_of_range_are_refused(form, options, message):
    with pytest.raises(ValueError, match=message):
        form(**options)


@pytest.mark.parametrize(
    "baseline", [PopularityBaseline(), FeatureSimilarityBaseline(), CooccurrenceBaseline(), ItemKNNBaseline()]
)
def test_an_unfitted_baseline_names_the_remedy(baseline):
    with pytest.raises(ValueError, match="call fit"):
        baseline.score([np.array([1])])


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_metrics_do_not_depend_on_the_block_of_users(batch_size):
    test = split([[1], [1, 2], [3]], [2, 3, 1])
    baseline = PopularityBaseline().fit(split([[2, 2, 2, 3, 3, 1]], [1]), num_items=3)
    metrics = evaluate_baseline(baseline, test, ks=(1, 2), batch_size=batch_size)
    assert metrics["hr@1"] == pytest.approx(1 / 3) and metrics["hr@2"] == pytest.approx(2 / 3)
    assert metrics["mrr@2"] == pytest.approx((1 + 1 / 2) / 3)
    assert metrics["users"] == 3


def test_the_history_leaves_the_ranking_on_request():
    test = split([[1], [1, 2], [3]], [2, 3, 1])
    baseline = PopularityBaseline().fit(split([[2, 2, 2, 3, 3, 1]], [1]), num_items=3)
    metrics = evaluate_baseline(baseline, test, ks=(1,), exclude_history=True)
    assert metrics["hr@1"] == pytest.approx(2 / 3)


def test_an_empty_split_is_refused():
    empty = split([[1]], [1]).select([])
    with pytest.raises(ValueError, match="no users"):
        evaluate_baseline(PopularityBaseline().fit(split([[1]], [1]), num_items=1), empty)
