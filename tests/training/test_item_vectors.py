"""Item vectors by co-occurrence, on logs small enough to know the answer."""

import numpy as np
import polars as pl
import pytest
import torch

from mmm4rec_hf.data import load_interactions, prepare_sequences
from mmm4rec_hf.data.cooccurrence import near_pairs
from mmm4rec_hf.modeling import MMM4RecConfig, MMM4RecForSequentialRecommendation
from mmm4rec_hf.training.item_vectors import cooccurrence_vectors


def sequences_of(histories: list[list[str]]):
    rows = [(str(user), item, 60 * place) for user, items in enumerate(histories) for place, item in enumerate(items)]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    return prepare_sequences(load_interactions(frame), k_core=1)


def test_pairs_by_hand() -> None:
    before, after, weights = near_pairs([np.array([7, 8, 9]), np.array([5]), np.array([8, 7])], window=2)
    pairs = sorted(zip(before.tolist(), after.tolist(), weights.tolist(), strict=True))
    assert pairs == [(7, 8, 1.0), (7, 9, 0.5), (8, 7, 1.0), (8, 9, 1.0)]


def test_items_of_the_same_company_get_the_same_vector() -> None:
    # The last two events of each user are validation and test; what came before is training.
    sequences = sequences_of([["a", "x", "end", "end"], ["b", "x", "end", "end"], ["c", "y", "end", "end"]])
    vectors = cooccurrence_vectors(sequences, len(sequences.item_ids), size=4)
    row = {item: vectors[place + 1] for place, item in enumerate(sequences.item_ids)}
    for item in "abcxy":
        assert float(row[item].norm()) == pytest.approx(0.1, abs=1e-6)
    torch.testing.assert_close(row["a"], row["b"], atol=1e-5, rtol=0)
    assert abs(float(row["a"] @ row["c"])) < 1e-6
    # Not seen in training, and the padding item.
    assert not row["end"].any() and not vectors[0].any()


def test_the_same_vectors_each_time_and_no_draw_of_the_caller_is_used() -> None:
    sequences = sequences_of([list("abcde"), list("bcdea"), list("cdeab")])
    torch.manual_seed(1)
    first, drawn = cooccurrence_vectors(sequences, 5, size=3), torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(1))
    assert torch.equal(first, cooccurrence_vectors(sequences, 5, size=3))


def test_biases_take_the_vectors_or_say_why_not() -> None:
    options = {"hidden_size": 16, "head_dim": 4, "state_size": 4, "num_items": 3}
    model = MMM4RecForSequentialRecommendation(MMM4RecConfig(use_item_bias=True, **options))
    vectors = torch.randn(4, 16)
    model.items.set_biases(vectors)
    assert torch.equal(model.items.text_bias, vectors) and torch.equal(model.items.image_bias, vectors)
    with pytest.raises(ValueError, match=r"\(3, 16\).*\(4, 16\)"):
        model.items.set_biases(vectors[1:])
    with pytest.raises(ValueError, match="use_item_bias"):
        MMM4RecForSequentialRecommendation(MMM4RecConfig(**options)).items.set_biases(vectors)
