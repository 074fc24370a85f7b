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
    assert int(found.min()) >= 0 and int(found.max()) < num_items  # also where nothing is left
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
        # All of them at once, for a user each: the rest of the last block stands for no item.
        for everything in recommend([history] * 4, top_k=200):
            assert {item["item_id"] for item in everything} == {*processor.item_ids} - {*history["items"]}
        with torch.no_grad():
            model.model.text_projection.weight.neg_()


def planted(num_items: int, **rows: list[float]) -> torch.Tensor:
    """Items that are 0 but for those of the rows `at_N`, and for their opposites, which keep the mean at 0."""
    width = max(map(len, rows.values()))
    vectors = torch.zeros(num_items, width)
    for name, row in rows.items():
        place = int(name.removeprefix("at_"))
        vectors[place, : len(row)] = torch.tensor(row)
        vectors[place + 1] = -vectors[place]
    return vectors


@pytest.mark.usefixtures("by_blocks")
def test_the_best_item_is_found_though_its_score_is_rounded_down_and_anothers_up() -> None:
    """
    Coarse scores of 1 + 2^-8 lie between two numbers of bfloat16: a difference in the 15th bit decides whether they
    are rounded to 1 or to 1 + 2^-7. The coarse vectors have this difference the wrong way round.
    """
    small = 2.0**-13
    slightly_more = small * (1 + 0.9 * 2**-8)  # rounded to `small`
    # Coarse: 1 + 2^-8 + small * 2^-8, which is rounded up. In full it is 1 + 2^-8 + 0.1 * small * 2^-8.
    other = [1.0, 2.0**-8, 2 * small, -slightly_more, -small, small * 2**-8]
    # Coarse: 1 + 2^-8, rounded down to the even 1. In full it is 1 + 2^-8 + 0.9 * small * 2^-8.
    best = [1.0, 2.0**-8, 0.0, slightly_more, -small, 0.0]
    vectors = planted(160, at_20=other, at_100=best)
    users = torch.ones(1, 6)
    assert (vectors.double() @ users[0].double()).argmax() == 100
    assert TopItems(vectors).search(users, 1)[1].tolist() == [[100]]


@pytest.mark.usefixtures("by_blocks")
def test_the_best_item_is_found_though_only_what_the_users_vector_loses_by_rounding_tells_it() -> None:
    # 32 numbers that are rounded down and 32 that are rounded up, all to 256; then one that is exact.
    user = torch.cat([torch.full((32,), 256 + 0.9), torch.full((32,), 256 - 0.45), torch.tensor([256.0])])
    # The sum of the first less the sum of the others is 43.2, and 0 once they are rounded. The other item has 2.
    vectors = planted(160, at_20=[0.0] * 64 + [2.0**-7], at_100=[1.0] * 32 + [-1.0] * 32 + [0.0])
    scores, rows = TopItems(vectors).search(user.unsqueeze(0), 1)
    assert rows.tolist() == [[100]] and scores.item() == pytest.approx(43.2, abs=0.01)


@pytest.mark.usefixtures("by_blocks")
def test_what_is_found_has_no_gradients() -> None:
    scores, _ = TopItems(torch.randn(100, 4).requires_grad_()).search(torch.randn(2, 4).requires_grad_(), 3)
    assert not scores.requires_grad
