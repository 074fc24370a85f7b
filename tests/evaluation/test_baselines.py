"""Baselines on splits small enough to rank by hand."""

import datasets
import numpy as np
import pytest
import torch

from mmm4rec_hf.evaluation.baselines import PopularityBaseline, TextSimilarityBaseline, evaluate_baseline


def split(histories: list[list[int]], labels: list[int]) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"input_ids": histories, "labels": labels})


def test_popularity_counts_every_training_event_once():
    baseline = PopularityBaseline().fit(split([[1, 2, 2], [2, 3]], [1, 1]), num_items=4)
    assert baseline.score([np.array([1])]).tolist() == [[-np.inf, 1.0, 3.0, 1.0, 0.0]]


def test_popularity_refuses_items_outside_the_catalogue():
    with pytest.raises(ValueError, match=r"items 1..9, outside 1..4"):
        PopularityBaseline().fit(split([[1, 9]], [1]), num_items=4)


def test_similar_text_ranks_by_the_cosine_with_the_last_item():
    features = np.array([[2.0, 0.0], [0.0, 3.0], [1.0, 1.0], [0.0, 0.0]])
    scores = TextSimilarityBaseline().fit(features).score([np.array([2, 1]), np.array([4])])
    expected = torch.tensor([[-torch.inf, 1.0, 0.0, 0.5**0.5, 0.0], [-torch.inf, 0.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(scores, expected)


def test_similar_text_refuses_an_empty_history():
    with pytest.raises(ValueError, match="history 1 is empty"):
        TextSimilarityBaseline().fit(np.eye(2)).score([np.array([1]), np.array([], dtype=np.int64)])


@pytest.mark.parametrize("baseline", [PopularityBaseline(), TextSimilarityBaseline()])
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
