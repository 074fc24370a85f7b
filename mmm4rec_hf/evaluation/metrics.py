"""HR@K, NDCG@K and MRR@K of full rankings, from two numbers a user: the items above the target, and level with it.

The two numbers are all that leaves a batch, so memory grows with batch x items and never with users x items, and they
are summed over processes without loss. A target that ties with other items gets the expectation of each metric over a
random order of the tie, in closed form.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import EvalPrediction

DEFAULT_KS: tuple[int, ...] = (10, 20, 50)


def ranking_counts(
    scores: torch.Tensor | tuple[torch.Tensor, ...],
    labels: torch.Tensor,
    *,
    history: torch.Tensor | None = None,
    score_padding_item: bool = False,
) -> torch.Tensor:
    """Counts, for each user, the items above the target and the items level with it.

    With its two positional arguments it is what [`~transformers.Trainer`] calls `preprocess_logits_for_metrics`.

    Args:
        scores (`torch.Tensor` of shape `(batch_size, num_items + 1)`):
            One score an item, column 0 for the padding item. Of a tuple (a model's further outputs) the first counts.
        labels (`torch.Tensor` of shape `(batch_size,)`):
            The target items, 1 to `num_items`.
        history (`torch.Tensor` of shape `(batch_size, length)`, *optional*):
            Items to leave out of the ranking, 0 where padded. The target itself always stays in.
        score_padding_item (`bool`, *optional*, defaults to `False`):
            Whether column 0 competes, as it does in the published evaluation.

    Returns:
        `torch.Tensor` of shape `(batch_size, 2)`, int64: candidates with a strictly larger score than the target's,
        and candidates with an equal score, the target included.

    Raises:
        ValueError: If a score is NaN, a target is outside the catalogue, or the shapes do not fit.
    """
    if isinstance(scores, tuple):
        scores = scores[0]
    if scores.ndim != 2 or labels.shape != scores.shape[:1]:
        raise ValueError(
            f"scores must be [batch, items + 1] and labels [batch], got {list(scores.shape)} and {list(labels.shape)}"
        )
    if torch.isnan(scores).any():
        row = int(torch.isnan(scores).any(dim=1).nonzero()[0, 0])
        raise ValueError(f"scores hold NaN (first in row {row}): they cannot be ranked; check the model")
    labels = labels.long()
    outside = (labels < 1) | (labels >= scores.shape[1])
    if outside.any():
        raise ValueError(
            f"target {int(labels[outside][0])} is outside the catalogue's items 1..{scores.shape[1] - 1}; "
            "build the dataset and the model from the same item ids"
        )

    target = scores.gather(1, labels[:, None])
    larger, equal = scores > target, scores == target
    if history is not None:
        excluded = torch.zeros_like(larger).scatter_(1, history.long(), True).scatter_(1, labels[:, None], False)
        larger &= ~excluded
        equal &= ~excluded
    first = 0 if score_padding_item else 1
    return torch.stack([larger[:, first:].sum(1), equal[:, first:].sum(1)], dim=1)


def metrics_from_counts(counts: np.ndarray | torch.Tensor, ks: Sequence[int] = DEFAULT_KS) -> dict[str, float]:
    """Turns the counts of [`ranking_counts`] into metrics, each the mean over users of its expectation over ties.

    With g items above the target and e level with it, the target's place is uniform over g, ..., g + e - 1, so
    HR@K = clip(K - g, 0, e) / e, and NDCG@K and MRR@K are the means of 1 / log2(place + 2) and 1 / (place + 1) over
    those places, 0 from place K on. With one target a user recall@K is HR@K under another name.

    Args:
        counts (`np.ndarray` or `torch.Tensor` of shape `(num_users, 2)`): What [`ranking_counts`] returned.
        ks (`Sequence[int]`, *optional*, defaults to `(10, 20, 50)`): The cut-offs.

    Returns:
        `dict[str, float]`: `hr@K`, `recall@K`, `ndcg@K` and `mrr@K` for each K, then `users` and `tied_targets`, the
        number of rows (users with one target each, else targets) and of those whose target ties with another item.

    Raises:
        ValueError: If `counts` is empty or of another shape, or a K is not positive.
    """
    counts = np.asarray(counts)
    if counts.ndim != 2 or counts.shape[1] != 2 or not np.issubdtype(counts.dtype, np.integer):
        raise ValueError(
            f"counts must be integers of shape [users, 2], got {counts.dtype} of shape {counts.shape}; give the "
            "trainer preprocess_logits_for_metrics=ranking_counts"
        )
    if len(counts) == 0:
        raise ValueError("there are no users to evaluate: the split is empty")
    above, level = counts[:, 0], counts[:, 1]
    if above.min() < 0 or level.min() < 1:
        raise ValueError("counts must be >= 0 above and >= 1 level (the target itself): they are no ranking")

    for k in ks:
        if k < 1:
            raise ValueError(f"a cut-off must be at least 1, got {k}")
    metrics: dict[str, float] = {name: float(np.mean(values)) for name, values in metric_values(counts, ks).items()}
    for k in ks:
        metrics[f"recall@{k}"] = metrics[f"hr@{k}"]
    return metrics | {"users": len(counts), "tied_targets": int((level > 1).sum())}


def metric_values(counts: np.ndarray, ks: Sequence[int]) -> dict[str, np.ndarray]:
    """
    Metrics of each target, whose means are those of [`metrics_from_counts`].

    Args:
        counts (`np.ndarray` of shape `(num_targets, 2)`): What [`ranking_counts`] returned.
        ks (`Sequence[int]`): The cut-offs.

    Returns:
        `dict[str, np.ndarray]`: `hr@K`, `ndcg@K` and `mrr@K` for each K, float64 of shape `(num_targets,)`: the
        expectation over a random order of ties.
    """
    above, level = counts[:, 0], counts[:, 1]
    values = {}
    for k in ks:
        begin, end = np.minimum(above, k), np.minimum(above + level, k)
        # Of a K beyond every target's place no more gains are made than there are places.
        places = np.arange(end.max()) if len(end) else end
        for name, gains in (
            ("hr", np.ones(len(places))),
            ("ndcg", 1 / np.log2(places + 2)),
            ("mrr", 1 / (places + 1)),
        ):
            cumulated = np.concatenate([[0.0], np.cumsum(gains)])
            values[f"{name}@{k}"] = (cumulated[end] - cumulated[begin]) / level
    return values


def compute_metrics(prediction: EvalPrediction) -> dict[str, Any]:
    """HR, recall, NDCG and MRR at 10, 20, 50 as [`~transformers.Trainer`]'s `compute_metrics`.

    Args:
        prediction (`EvalPrediction`): Whose `predictions` are counts: the trainer must have been given
            `preprocess_logits_for_metrics=ranking_counts`.

    Returns:
        `dict[str, float]`: As [`metrics_from_counts`].
    """
    counts: Any = prediction.predictions
    if isinstance(counts, list):
        # With eval_do_concat_batches=False, an array a batch.
        counts = np.concatenate(counts)
    return metrics_from_counts(np.asarray(counts))
