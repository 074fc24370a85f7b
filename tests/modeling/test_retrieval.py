"""The best items by blocks are those of all scores, whatever the sizes, the coarse pass and what is left out."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import pipeline

from mmm4rec_hf import MMM4RecForSequentialRecommendation, MMM4RecProcessor
from mmm4rec_hf.modeling import retrieval_mmm4rec as retrieval
from mmm4rec_hf.modeling.retrieval_mmm4rec import TopItems

Model = Callable[..., MMM4RecForSequentialRecommendation]
Catalog = Callable[..., SimpleNamespace]


@pytest.fixture(params=[True, False], ids=["bfloat16", "float32"])
def by_blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets catalogues of a few items take the way of large ones."""
    monkeypatch.setattr(retrieval, "_FEW_SCORES", 0)
    monkeypatch.setattr(retrieval, "_BLOCK", 64)
    monkeypatch.setattr(retrieval, "_PAIRS", 256)
    monkeypatch.setattr(retrieval, "_AGAIN", 4096)
    monkeypatch.setattr(retrieval, "_multiplies_bfloat16", lambda device: request.param)


def naive(users: torch.Tensor, vectors: torch.Tensor, k: int, excluded: list[list[int]]) -> torch.Tensor:
    scores = users.double() @ vectors.double().T
    for user, rows in enumerate(excluded):
        scores[user, rows] = -torch.inf
    return scores.sort(dim=1, descending=True).values[:, :k].float()


@pytest.mark.usefixtures("by_blocks")
@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(1, 5), st.integers(1, 40), st.floats(0, 50), st.integers(0, 2**31), st.data())
def test_scores_are_those_of_all_items_and_belong_to_their_rows(
    num_items: int, num_users: int, k: int, offset: float, seed: int, data: st.DataObject
) -> None:
    draw = torch.Generator().manual_seed(seed)
    # Far from the origin, all items look alike to a coarse score; rounded, some of them are level.
    vectors = torch.randn(num_items, 8, generator=draw).mul(2).round() / 2 + offset
    users = torch.randn(num_users, 8, generator=draw)
    rows = st.lists(st.integers(0, num_items - 1), max_size=num_items)
    excluded = [data.draw(rows) for _ in range(num_users)]
    scores, found = TopItems(vectors).search(users, k, excluded)
    expected = naive(users, vectors, k, excluded)
    assert scores.shape == found.shape == (num_users, min(k, num_items))
    torch.testing.assert_close(scores, expected, atol=1e-3, rtol=1e-5)
    for user in range(num_users):
        kept = [row for row, score in zip(found[user].tolist(), scores[user].tolist(), strict=True) if score > -1e30]
        assert len(set(kept)) == len(kept) and not set(kept) & set(excluded[user])
        torch.testing.assert_close(vectors[kept] @ users[user], scores[user, : len(kept)], atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize("num_users", [1, 2, 16, 17])
def test_scores_of_a_small_catalogue_are_those_of_all_items_for_few_users_and_for_many(num_users: int) -> None:
    draw = torch.Generator().manual_seed(num_users)
    vectors, users = torch.randn(50, 8, generator=draw), torch.randn(num_users, 8, generator=draw)
    excluded = [[user, user + 20] for user in range(num_users)]
    scores, rows = TopItems(vectors).search(users, 10, excluded)
    torch.testing.assert_close(scores, naive(users, vectors, 10, excluded))
    torch.testing.assert_close((vectors[rows] * users.unsqueeze(1)).sum(2), scores)


def test_a_catalogue_of_several_blocks_gives_the_best_of_all_items() -> None:
    draw = torch.Generator().manual_seed(0)
    vectors, users = torch.randn(40_000, 8, generator=draw), torch.randn(120, 8, generator=draw)
    scores, rows = TopItems(vectors).search(users, 10)
    torch.testing.assert_close(scores, naive(users, vectors, 10, [[]] * 120))
    torch.testing.assert_close((vectors[rows] * users.unsqueeze(1)).sum(2), scores)


@pytest.mark.usefixtures("by_blocks")
def test_items_that_are_all_level_are_found_without_a_score_of_each_at_once() -> None:
    scores, rows = TopItems(torch.ones(5000, 4)).search(torch.ones(3, 4), 7, [[0], [], list(range(4999))])
    assert scores[:2].eq(4).all() and all(len(set(line)) == 7 for line in rows[:2].tolist())
    assert 0 not in rows[0] and scores[2].isfinite().sum() == 1 and rows[2, 0] == 4999


@pytest.mark.usefixtures("by_blocks")
def test_a_pipeline_recommends_the_same_by_blocks_and_after_a_weight_has_changed(
    lively_model: Model, tiny_catalog: Catalog
) -> None:
    model, processor = lively_model(), MMM4RecProcessor(max_sequence_length=8)
    for part in (model, processor):
        part.set_items(tiny_catalog([f"{n:04d}" for n in range(200)]))
    recommend: Any = pipeline("sequential-recommendation", model=model, processor=processor, device="cpu")
    history = {"items": processor.item_ids[3:6], "timestamps": [1_300_000_000 + n for n in range(3)]}
    for _ in range(2):
        found = recommend(history, top_k=15)
        with torch.no_grad():
            logits = model(**processor(histories=[history], return_tensors="pt")).logits[0]
        logits[[0, 4, 5, 6]] = -torch.inf
        expected = logits.topk(15)
        assert [item["score"] for item in found] == pytest.approx(expected.values.tolist(), abs=1e-4)
        assert [item["item_id"] for item in found] == [processor.item_ids[row - 1] for row in expected.indices]
        with torch.no_grad():
            model.model.text_projection.weight.neg_()
