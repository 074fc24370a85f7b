"""Pairs of near items, by hand."""

import numpy as np

from mmm4rec_hf.data.cooccurrence import near_pairs


def test_pairs_by_hand() -> None:
    before, after, weights = near_pairs([np.array([7, 8, 9]), np.array([5]), np.array([8, 7])], window=2)
    pairs = sorted(zip(before.tolist(), after.tolist(), weights.tolist(), strict=True))
    assert pairs == [(7, 8, 1.0), (7, 9, 0.5), (8, 7, 1.0), (8, 9, 1.0)]
