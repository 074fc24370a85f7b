"""Two rankings that need no training, as the yardstick beside a model: what is popular, and what reads alike."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import datasets
import numpy as np
import torch
from tqdm.auto import tqdm

from .metrics import DEFAULT_KS, metrics_from_counts, ranking_counts


class Baseline(ABC):
    """A ranking of all items for each history."""

    @abstractmethod
    def score(self, histories: Sequence[np.ndarray]) -> torch.Tensor:
        """Scores every item for every history.

        Args:
            histories (`Sequence[np.ndarray]`): Item indices 1 to `num_items` a user, oldest first.

        Returns:
            `torch.Tensor` of shape `(len(histories), num_items + 1)`; column 0, the padding item, holds -inf.
        """


class PopularityBaseline(Baseline):
    """Ranks by the number of training events of an item, the same for every user."""

    def __init__(self) -> None:
        self._counts: torch.Tensor | None = None

    def fit(self, dataset: datasets.Dataset, num_items: int) -> "PopularityBaseline":
        """Counts the events in a split's histories.

        Args:
            dataset (`datasets.Dataset`): With a column `input_ids`, each training event once. The validation split is
                such a one: a user's history there is all that user's training events.
            num_items (`int`): The size of the catalogue.
        """
        counts = np.zeros(num_items + 1)
        for batch in dataset.select_columns("input_ids").iter(batch_size=1000):
            for history in batch["input_ids"]:
                items = np.asarray(history, dtype=np.int64)
                if items.size and not 1 <= items.min() <= items.max() <= num_items:
                    raise ValueError(f"a history holds items {items.min()}..{items.max()}, outside 1..{num_items}")
                counts += np.bincount(items, minlength=num_items + 1)
        counts[0] = -np.inf
        self._counts = torch.from_numpy(counts)
        return self

    def score(self, histories: Sequence[np.ndarray]) -> torch.Tensor:
        """See [`Baseline.score`]."""
        if self._counts is None:
            raise ValueError("the popularity baseline has no counts yet; call fit(dataset, num_items) first")
        return self._counts.expand(len(histories), -1)


class TextSimilarityBaseline(Baseline):
    """Ranks by the cosine between an item's text features and those of the last item of the history."""

    def __init__(self) -> None:
        self._features: torch.Tensor | None = None

    def fit(self, text_features: np.ndarray | torch.Tensor) -> "TextSimilarityBaseline":
        """Takes the features over.

        Args:
            text_features (`np.ndarray` or `torch.Tensor` of shape `(num_items, size)`): Row i is item i + 1, as in
                `ItemCatalog.text_features`. A row of zeros (a missing text) has cosine 0 with everything.
        """
        features = torch.as_tensor(text_features, dtype=torch.float32)
        if features.ndim != 2:
            raise ValueError(f"text_features must be [items, size], got shape {tuple(features.shape)}")
        self._features = torch.nn.functional.normalize(features, dim=1, eps=1e-12)
        return self

    def score(self, histories: Sequence[np.ndarray]) -> torch.Tensor:
        """See [`Baseline.score`].

        Raises:
            ValueError: If a history is empty.
        """
        if self._features is None:
            raise ValueError("the text baseline has no features yet; call fit(catalog.text_features) first")
        empty = [row for row, history in enumerate(histories) if len(history) == 0]
        if empty:
            raise ValueError(f"history {empty[0]} is empty: there is no last item to compare with")
        last = torch.tensor([int(history[-1]) for history in histories])
        if last.min() < 1 or last.max() > len(self._features):
            raise ValueError(f"a history ends with an item outside 1..{len(self._features)}")
        similarities = self._features[last - 1] @ self._features.T
        return torch.nn.functional.pad(similarities, (1, 0), value=-torch.inf)


def evaluate_baseline(
    baseline: Baseline,
    dataset: datasets.Dataset,
    *,
    ks: Sequence[int] = DEFAULT_KS,
    batch_size: int = 256,
    exclude_history: bool = False,
) -> dict[str, Any]:
    """Full-ranking metrics of a baseline on a split, by the functions that the models are measured with.

    Args:
        baseline (`Baseline`): Fitted.
        dataset (`datasets.Dataset`): Rows of `input_ids` (the history, oldest first) and `labels` (the target item).
        ks (`Sequence[int]`, *optional*, defaults to `(10, 20, 50)`): The cut-offs.
        batch_size (`int`, *optional*, defaults to 256): Users scored at a time; memory is `batch_size` x items.
        exclude_history (`bool`, *optional*, defaults to `False`):
            Whether the items of the history leave the ranking (never the target). The published protocol keeps them.

    Returns:
        `dict[str, float]`: As [`metrics_from_counts`].
    """
    counts = []
    columns = dataset.select_columns(["input_ids", "labels"])
    for batch in tqdm(columns.iter(batch_size=batch_size), total=-(-len(dataset) // batch_size), disable=None):
        histories = [np.asarray(history, dtype=np.int64) for history in batch["input_ids"]]
        labels = torch.tensor([int(label) for label in batch["labels"]])
        padded = None
        if exclude_history:
            padded = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(h) for h in histories], batch_first=True)
        counts.append(ranking_counts(baseline.score(histories), labels, history=padded))
    return metrics_from_counts(torch.cat(counts) if counts else torch.zeros(0, 2, dtype=torch.int64), ks)
