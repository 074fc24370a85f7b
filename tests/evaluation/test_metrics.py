"""Metrics against hand-computed values, against rankings written out, and through the Trainer's evaluation loop."""

import math
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import EvalPrediction, Trainer, TrainingArguments

from mmm4rec_hf.evaluation import compute_metrics, metrics_from_counts, ranking_counts
from mmm4rec_hf.evaluation.metrics import metric_values


def test_a_target_in_second_place_has_the_metrics_computed_by_hand():
    scores = torch.tensor([[9.0, 0.1, 0.9, 0.5, 0.2]])
    counts = ranking_counts(scores, torch.tensor([3]))
    assert counts.tolist() == [[1, 1]] and counts.dtype == torch.int64
    metrics = metrics_from_counts(counts, ks=(1, 2))
    assert metrics["hr@1"] == 0.0 and metrics["hr@2"] == 1.0
    assert metrics["ndcg@2"] == pytest.approx(0.6309297535714575)
    assert metrics["mrr@2"] == 0.5
    assert metrics["users"] == 1 and metrics["tied_targets"] == 0


def test_the_padding_row_competes_only_where_it_is_asked_for():
    scores, labels = torch.tensor([[9.0, 1.0, 2.0]]), torch.tensor([2])
    assert ranking_counts(scores, labels).tolist() == [[0, 1]]
    assert ranking_counts(scores, labels, score_padding_item=True).tolist() == [[1, 1]]


def test_a_target_among_three_equal_scores_hits_at_one_a_third_of_the_time():
    counts = ranking_counts(torch.tensor([[0.0, 1.0, 1.0, 1.0, 0.0]]), torch.tensor([2]))
    metrics = metrics_from_counts(counts, ks=(1, 2))
    assert metrics["hr@1"] == pytest.approx(1 / 3) and metrics["hr@2"] == pytest.approx(2 / 3)
    assert metrics["ndcg@2"] == pytest.approx((1 + 1 / math.log2(3)) / 3)
    assert metrics["tied_targets"] == 1


def naive_expectation(scores: list[int], target: int, k: int) -> tuple[float, float, float]:
    """HR, NDCG and MRR averaged over every order of the items that respects their scores."""
    totals, orders = np.zeros(3), 0
    for order in permutations(range(len(scores))):
        if all(scores[a] >= scores[b] for a, b in zip(order, order[1:], strict=False)):
            orders += 1
            place = order.index(target)
            if place < k:
                totals += (1, 1 / math.log2(place + 2), 1 / (place + 1))
    return tuple(totals / orders)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=5), st.data())
def test_metrics_equal_the_mean_over_all_orders_of_the_ties(scores, data):
    target = data.draw(st.integers(0, len(scores) - 1))
    k = data.draw(st.integers(1, 6))
    counts = ranking_counts(torch.tensor([[7.0, *scores]]), torch.tensor([target + 1]))
    metrics = metrics_from_counts(counts, ks=(k,))
    expected = naive_expectation(scores, target, k)
    assert [metrics[f"{name}@{k}"] for name in ("hr", "ndcg", "mrr")] == pytest.approx(expected)


def test_an_excluded_history_leaves_the_ranking_but_never_takes_the_target_along():
    scores = torch.tensor([[0.0, 3.0, 2.0, 1.0], [0.0, 3.0, 3.0, 1.0]])
    history = torch.tensor([[1, 2], [0, 1]])
    counts = ranking_counts(scores, torch.tensor([2, 2]), history=history)
    assert counts.tolist() == [[0, 1], [0, 1]]
    assert ranking_counts(scores, torch.tensor([2, 2])).tolist() == [[1, 1], [0, 2]]


def test_ranks_below_masked_scores_stay_defined():
    scores = torch.tensor([[0.0, -math.inf, -math.inf, 1.0]])
    assert ranking_counts(scores, torch.tensor([2])).tolist() == [[1, 2]]


def test_nan_scores_name_the_first_row_that_has_one():
    scores = torch.tensor([[0.0, 1.0, 2.0], [0.0, 1.0, math.nan], [math.nan, 1.0, 2.0]])
    with pytest.raises(ValueError, match="NaN .first in row 1"):
        ranking_counts(scores, torch.tensor([1, 1, 1]))


@pytest.mark.parametrize(
    ("scores", "labels"), [((3,), (3,)), ((2, 3, 4), (2,)), ((2, 3), (1,)), ((2, 3), (3,)), ((2, 3), (2, 1))]
)
def test_scores_and_targets_of_other_shapes_are_refused(scores, labels):
    with pytest.raises(ValueError, match=r"scores must be \[batch, items \+ 1\] and labels \[batch\]"):
        ranking_counts(torch.zeros(scores), torch.ones(labels, dtype=torch.int64))


@pytest.mark.parametrize("label", [0, -100, 3, 7])
def test_a_target_outside_the_catalogue_is_refused(label):
    with pytest.raises(ValueError, match=f"target {label} is outside the catalogue's items 1..2"):
        ranking_counts(torch.zeros(1, 3), torch.tensor([label]))


def test_metrics_of_nobody_are_refused():
    with pytest.raises(ValueError, match="no users"):
        metrics_from_counts(np.zeros((0, 2), dtype=np.int64))


def test_the_cut_offs_are_ten_twenty_and_fifty_and_recall_is_the_hit_rate():
    metrics = metrics_from_counts(np.array([[15, 1], [3, 2]]))
    names = {f"{name}@{k}" for name in ("hr", "recall", "ndcg", "mrr") for k in (10, 20, 50)}
    assert metrics.keys() == names | {"users", "tied_targets"}
    assert (metrics["recall@10"], metrics["recall@20"], metrics["hr@10"]) == (0.5, 1.0, 0.5)
    assert (metrics["users"], metrics["tied_targets"]) == (2, 1)


def test_a_cut_off_beyond_every_place_takes_no_memory_of_its_size():
    # Places 1, or 3 or 4: a list of all gains up to the cut-off would hold 10**15 of them.
    metrics = metrics_from_counts(np.array([[0, 1], [2, 2]]), ks=(10**15, 3))
    assert metrics[f"hr@{10**15}"] == 1.0 and metrics["hr@3"] == 0.75
    assert metrics[f"mrr@{10**15}"] == pytest.approx((1 + (1 / 3 + 1 / 4) / 2) / 2)
    assert metrics[f"ndcg@{10**15}"] == pytest.approx((1 + (1 / math.log2(4) + 1 / math.log2(5)) / 2) / 2)


def test_of_nobody_there_are_no_values():
    values = metric_values(np.zeros((0, 2), dtype=np.int64), (3,))
    assert {name: column.shape for name, column in values.items()} == dict.fromkeys(("hr@3", "ndcg@3", "mrr@3"), (0,))


@pytest.mark.parametrize("k", [0, -1])
def test_a_cut_off_below_one_is_refused(k):
    with pytest.raises(ValueError, match=f"a cut-off must be at least 1, got {k}"):
        metrics_from_counts(np.array([[0, 1]]), ks=(10, k))


@pytest.mark.parametrize("pair", [[-1, 1], [0, 0], [-5, -5]])
def test_counts_that_are_no_ranking_are_refused(pair):
    with pytest.raises(ValueError, match="they are no ranking"):
        metrics_from_counts(np.array([[0, 1], pair]))


@pytest.mark.parametrize("counts", [np.ones(2, int), np.ones((1, 2, 2), int), np.ones((4, 1), int),
                                    np.ones((4, 3), int), np.ones((4, 2))])  # fmt: skip
def test_counts_of_another_shape_or_type_are_refused(counts):
    with pytest.raises(ValueError, match=r"counts must be integers of shape \[users, 2\]"):
        metrics_from_counts(counts)


def test_logits_in_place_of_counts_name_the_remedy():
    with pytest.raises(ValueError, match="preprocess_logits_for_metrics=ranking_counts"):
        compute_metrics(EvalPrediction(predictions=np.zeros((4, 9), dtype=np.float32), label_ids=np.ones(4)))


class FixedScores(torch.nn.Module):
    """Scores that depend on the row alone, with a second output as models have."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        scores = self.scale * input_ids.float()
        return {"loss": scores.mean(), "logits": scores, "user_embeds": scores[:, :1]}


@pytest.mark.parametrize("batch_size", [2, 5, 9])
def test_the_stock_trainer_gives_the_same_metrics_for_any_batch_size(tmp_path, batch_size):
    rows = [{"input_ids": [0, 1, 2, 3], "labels": 3 - row % 3} for row in range(9)]
    arguments = TrainingArguments(
        output_dir=tmp_path, per_device_eval_batch_size=batch_size, report_to=[], use_cpu=True, disable_tqdm=True
    )
    trainer = Trainer(
        FixedScores(),
        arguments,
        eval_dataset=rows,
        compute_metrics=compute_metrics,
        preprocess_logits_for_metrics=ranking_counts,
    )
    metrics = trainer.evaluate()
    assert metrics["eval_users"] == 9
    assert metrics["eval_mrr@10"] == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
