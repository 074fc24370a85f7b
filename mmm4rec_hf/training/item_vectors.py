"""A start for item biases: vectors of which items stand near each other in the training log."""

from typing import TYPE_CHECKING

import numpy as np
import torch

from mmm4rec_hf.data.cooccurrence import near_pairs, read_histories
from mmm4rec_hf.evaluation.yardsticks import training_histories

if TYPE_CHECKING:
    from mmm4rec_hf.data import SequenceDatasets

# Context items are taken by their frequency to this power, so that rare ones do not dominate (Levy et al., 2015).
_SMOOTHING = 0.75
# Beside the embeddings of features, whose length is near 1 at the start: a hint, not the whole item.
_LENGTH = 0.1


def cooccurrence_vectors(sequences: "SequenceDatasets", num_items: int, size: int, window: int = 5) -> torch.Tensor:
    """
    Item vectors from the training log alone: a factorisation of the positive pointwise mutual information of items
    within `window` steps of each other (Levy and Goldberg, 2014), a pair k steps apart counted 1 / k.

    Args:
        sequences (`SequenceDatasets`): With a split `train`.
        num_items (`int`): Items are 1..num_items.
        size (`int`): Width of the vectors.
        window (`int`, *optional*, defaults to 5): Steps between two items, at most.

    Returns:
        `torch.Tensor` of shape `(num_items + 1, size)`: Rows of length 0.1; zeros for the padding item and for items
            that stand near no other. The same each time.
    """
    histories = list(read_histories(training_histories(sequences), num_items))
    before, after, weights = near_pairs(histories, window)
    rows = torch.from_numpy(np.stack([np.concatenate([before, after]), np.concatenate([after, before])]))
    shape = (num_items + 1, num_items + 1)
    counts = torch.sparse_coo_tensor(rows, torch.from_numpy(weights).repeat(2), shape, check_invariants=False)
    information = _positive_information(counts.coalesce())
    vectors = torch.zeros(num_items + 1, size)
    rank = min(size, num_items + 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the factorisation starts from a draw
        left, strengths, _ = torch.svd_lowrank(information.float(), q=min(rank + 10, num_items + 1), niter=4)
    vectors[:, :rank] = (left * strengths.sqrt())[:, :rank]
    lengths = vectors.norm(dim=1, keepdim=True)
    return torch.where(lengths > 1e-6, _LENGTH * vectors / lengths, torch.zeros_like(vectors))


def _positive_information(counts: torch.Tensor) -> torch.Tensor:
    """max(0, log p(i, j) / (p(i) q(j))) of sparse counts, q smoothed."""
    by_item = counts.sum(1).to_dense()
    smoothed = by_item**_SMOOTHING
    row, column = counts.indices()
    expected = by_item[row] * (smoothed / smoothed.sum())[column]
    information = (counts.values() / expected).log().clamp_min(0)
    return torch.sparse_coo_tensor(counts.indices(), information, counts.shape, check_invariants=False).coalesce()


__all__ = ["cooccurrence_vectors"]
