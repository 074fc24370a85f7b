"""Rankings by counting and by likeness, which need no training: the yardstick beside a model."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import datasets
import numpy as np
import torch
from tqdm.auto import tqdm

from mmm4rec_hf.data.cooccurrence import near_pairs, read_histories

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

        Raises:
            ValueError: If a history holds an item outside the catalogue.
        """
        counts = np.zeros(num_items + 1)
        for history in read_histories(dataset, num_items):
            counts += np.bincount(history, minlength=num_items + 1)
        counts[0] = -np.inf
        self._counts = torch.from_numpy(counts)
        return self

    def score(self, histories: Sequence[np.ndarray]) -> torch.Tensor:
        """See [`Baseline.score`]."""
        if self._counts is None:
            raise ValueError("the popularity baseline has no counts yet; call fit(dataset, num_items) first")
        return self._counts.expand(len(histories), -1)


class FeatureSimilarityBaseline(Baseline):
    """
    Ranks by the cosine between an item's features (of texts, or of pictures) and those of the last item.

    Args:
        exclude_last (`bool`, *optional*, defaults to `False`):
            Whether the last item itself, always the most similar, gets -inf instead.
    """

    def __init__(self, exclude_last: bool = False) -> None:
        self.exclude_last = exclude_last
        self._features: torch.Tensor | None = None

    def fit(self, features: np.ndarray | torch.Tensor) -> "FeatureSimilarityBaseline":
        """Takes the features over.

        Args:
            features (`np.ndarray` or `torch.Tensor` of shape `(num_items, size)`): Row i is item i + 1, as in
                `ItemCatalog.text_features` and `ItemCatalog.image_features`. A row of zeros (a missing text) has
                cosine 0 with everything.
        """
        features = torch.as_tensor(features).double()
        if features.ndim != 2:
            raise ValueError(f"features must be [items, size], got shape {tuple(features.shape)}")
        self._features = torch.nn.functional.normalize(features, dim=1, eps=1e-12)
        return self

    def score(self, histories: Sequence[np.ndarray]) -> torch.Tensor:
        """See [`Baseline.score`].

        Raises:
            ValueError: If a history is empty.
        """
        if self._features is None:
            raise ValueError("the similarity baseline has no features yet; call fit(catalog.text_features) first")
        _check_histories(histories, len(self._features))
        last = torch.tensor([int(history[-1]) for history in histories])
        # Rows that are equal must tie; the last bits of a product depend on its place in the matrix.
        similarities = (self._features[last - 1] @ self._features.T).float()
        if self.exclude_last:
            similarities.scatter_(1, last[:, None] - 1, -torch.inf)
        return torch.nn.functional.pad(similarities, (1, 0), value=-torch.inf)


class _NeighbourBaseline(Baseline):
    """Ranks by weights between two items, summed over the last items of the history, and a little by popularity."""

    def __init__(self, context: int, context_decay: float, backoff: float) -> None:
        if context < 1:
            raise ValueError(
                f"context must be at least 1, got {context}: scores come from the last items of a history"
            )
        self.context = context
        self.context_decay = context_decay
        self.backoff = backoff
        self._weights: torch.Tensor | None = None  # sparse [I+1, I+1]: row a candidate, column an item of the history
        self._popularity: torch.Tensor | None = None  # [I+1]: shares of the most popular item's events, times backoff

    def score(self, histories: Sequence[np.ndarray]) -> torch.Tensor:
        """See [`Baseline.score`].

        Raises:
            ValueError: If a history is empty.
        """
        if self._weights is None or self._popularity is None:
            raise ValueError("the baseline has no weights yet; call fit(dataset, num_items) first")
        num_items = len(self._weights) - 1
        _check_histories(histories, num_items)
        recent = [np.asarray(history)[: -self.context - 1 : -1] for history in histories]
        users = np.repeat(np.arange(len(recent)), [len(items) for items in recent])
        ages = np.concatenate([np.arange(1, len(items) + 1) for items in recent])
        shares = torch.zeros(num_items + 1, len(recent), dtype=torch.float64)
        places = (torch.from_numpy(np.concatenate(recent)), torch.from_numpy(users))
        shares.index_put_(places, torch.from_numpy(ages ** -float(self.context_decay)), accumulate=True)
        scores = torch.sparse.mm(self._weights, shares).T
        # Sums of equal parts in another order differ in their last bits, and must still tie: float32 has none of them.
        scores = scores.float().double() + self._popularity
        scores[:, 0] = -torch.inf
        return scores

    def _fit(self, pairs: torch.Tensor, weights: torch.Tensor, items: torch.Tensor, num_items: int) -> None:
        """Takes over the weights of pairs (candidate, item of the history), those of equal pairs summed, and the
        items of all training events."""
        shape = (num_items + 1, num_items + 1)
        self._weights = torch.sparse_coo_tensor(pairs, weights, shape, check_invariants=False).coalesce()
        counts = torch.bincount(items, minlength=num_items + 1).double()
        self._popularity = self.backoff * counts / counts.max().clamp_min(1)


class CooccurrenceBaseline(_NeighbourBaseline):
    """
    Ranks by how often an item followed the last ones in the training log. With a window of 1 these are the counts of
    transitions, a first-order Markov chain.

    Args:
        window (`int`, *optional*, defaults to 5): How many steps ahead an item counts as following.
        decay (`float`, *optional*, defaults to 1.0): A pair k steps apart counts `k ** -decay`.
        symmetric (`bool`, *optional*, defaults to `False`): Whether an item that came before counts as well.
        context (`int`, *optional*, defaults to 1): How many of the last items of a history are looked up.
        context_decay (`float`, *optional*, defaults to 1.0): The j-th last of them counts `j ** -context_decay`.
        backoff (`float`, *optional*, defaults to 1e-6):
            Added for the most popular item, and for others by their share of its events, so that items level with each
            other, mostly those never seen beside the history's, stand in the order of popularity; 0 leaves them tied.

    Raises:
        ValueError: If `window` or `context` is below 1.
    """

    def __init__(
        self,
        window: int = 5,
        decay: float = 1.0,
        symmetric: bool = False,
        context: int = 1,
        context_decay: float = 1.0,
        backoff: float = 1e-6,
    ) -> None:
        super().__init__(context, context_decay, backoff)
        if window < 1:
            raise ValueError(f"window must be at least 1 step, got {window}")
        self.window = window
        self.decay = decay
        self.symmetric = symmetric

    def fit(self, dataset: datasets.Dataset, num_items: int) -> "CooccurrenceBaseline":
        """Counts the pairs in a split's histories; arguments as [`PopularityBaseline.fit`]."""
        histories = list(read_histories(dataset, num_items))
        items = np.concatenate([*histories, np.zeros(0, dtype=np.int64)])
        before, after, weights = near_pairs(histories, self.window, self.decay)
        pairs, counts = torch.from_numpy(np.stack([after, before])), torch.from_numpy(weights)
        if self.symmetric:
            pairs, counts = torch.cat([pairs, pairs.flip(0)], 1), counts.repeat(2)
        self._fit(pairs, counts, torch.from_numpy(items), num_items)
        return self


class ItemKNNBaseline(_NeighbourBaseline):
    """
    Ranks by the cosine between items as sets of users, summed over the history: item-based collaborative filtering.

    Args:
        neighbours (`int`, *optional*): Of each item of the history only so many nearest items score, and those level
            with the last of them; by default all.
        shrinkage (`float`, *optional*, defaults to 0.0):
            Added to the denominator of the cosine, so that few common users make no strong neighbours.
        context (`int`, *optional*, defaults to 20): How many of the last items of a history are looked up.
        context_decay (`float`, *optional*, defaults to 0.0): The j-th last of them counts `j ** -context_decay`.
        backoff (`float`, *optional*, defaults to 1e-6):
            Added for the most popular item, and for others by their share of its events, so that items level with each
            other, mostly those never seen beside the history's, stand in the order of popularity; 0 leaves them tied.

    Raises:
        ValueError: If `neighbours` or `context` is below 1, or `shrinkage` below 0.
    """

    def __init__(
        self,
        neighbours: int | None = None,
        shrinkage: float = 0.0,
        context: int = 20,
        context_decay: float = 0.0,
        backoff: float = 1e-6,
    ) -> None:
        super().__init__(context, context_decay, backoff)
        if neighbours is not None and neighbours < 1:
            raise ValueError(f"neighbours must be at least 1, or None for all, got {neighbours}")
        if shrinkage < 0:
            raise ValueError(f"shrinkage must be at least 0, got {shrinkage}")
        self.neighbours = neighbours
        self.shrinkage = shrinkage

    def fit(self, dataset: datasets.Dataset, num_items: int) -> "ItemKNNBaseline":
        """Compares the items of a split's histories; arguments as [`PopularityBaseline.fit`].

        An item is no neighbour of itself. Memory grows with the number of pairs of items that share a user.
        """
        histories = list(read_histories(dataset, num_items))
        sets = [np.unique(history) for history in histories]
        items = torch.from_numpy(np.concatenate([*sets, np.zeros(0, dtype=np.int64)]))
        users = torch.from_numpy(np.repeat(np.arange(len(sets)), [len(s) for s in sets]))
        ones = torch.ones(len(items), dtype=torch.float64)
        shape = (num_items + 1, max(len(sets), 1))
        held = torch.sparse_coo_tensor(torch.stack([items, users]), ones, shape, check_invariants=False)
        with warnings.catch_warnings():
            # The product is computed in another layout, of which torch warns that it may change.
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
            common = torch.sparse.mm(held, held.T).coalesce()  # users of both items, [I+1, I+1]
        pairs, counts = common.indices(), common.values()
        sizes = torch.bincount(items, minlength=num_items + 1).double()
        cosines = counts / ((sizes[pairs[0]] * sizes[pairs[1]]).sqrt() + self.shrinkage)
        others = pairs[0] != pairs[1]
        pairs, cosines = pairs[:, others], cosines[others]
        if self.neighbours is not None:
            near = _largest_of_each(pairs[1].numpy(), cosines.numpy(), self.neighbours)
            pairs, cosines = pairs[:, near], cosines[near]
        events = torch.from_numpy(np.concatenate([*histories, np.zeros(0, dtype=np.int64)]))
        self._fit(pairs, cosines, events, num_items)
        return self


def _check_histories(histories: Sequence[np.ndarray], num_items: int) -> None:
    """Refuses histories that are empty or hold other items."""
    for row, history in enumerate(histories):
        if len(history) == 0:
            raise ValueError(f"history {row} is empty: there is no last item to go by")
        if not 1 <= min(history) <= max(history) <= num_items:
            raise ValueError(f"history {row} holds items {min(history)}..{max(history)}, outside 1..{num_items}")


def _largest_of_each(groups: np.ndarray, values: np.ndarray, count: int) -> torch.Tensor:
    """Whether each value is among the `count` largest of its group, or level with the last of them."""
    order = np.lexsort((-values, groups))
    starts = np.searchsorted(groups[order], np.arange(groups.max(initial=-1) + 2))
    last = np.minimum(starts[:-1] + count, starts[1:]) - 1  # place of the least value kept; -1 off in an empty group
    least = values[order][np.maximum(last, 0)] if len(values) else np.zeros(0)
    return torch.from_numpy(values >= least[groups])


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
    return metrics_from_counts(baseline_counts(baseline, dataset, batch_size, exclude_history), ks)


def baseline_counts(
    baseline: Baseline, dataset: datasets.Dataset, batch_size: int = 256, exclude_history: bool = False
) -> torch.Tensor:
    """Items above and level with each target, int64 of shape `(num_rows, 2)`, see [`ranking_counts`].

    Args:
        baseline, dataset, batch_size, exclude_history: As for [`evaluate_baseline`].
    """
    counts = []
    columns = dataset.select_columns(["input_ids", "labels"])
    batches = columns.iter(batch_size=batch_size)
    for batch in tqdm(batches, desc="Baseline", total=-(-len(dataset) // batch_size), disable=None):
        histories = [np.asarray(history, dtype=np.int64) for history in batch["input_ids"]]
        labels = torch.tensor([int(label) for label in batch["labels"]])
        padded = None
        if exclude_history:
            padded = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(h) for h in histories], batch_first=True)
        counts.append(ranking_counts(baseline.score(histories), labels, history=padded))
    return torch.cat(counts) if counts else torch.zeros(0, 2, dtype=torch.int64)
