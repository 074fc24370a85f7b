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
from mmm4rec_hf.modeling.retrieval_mmm4rec import HistoryTerms, TopItems

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
def test_what_is_left_out_hides_nothing_in_any_block() -> None:
    draw = torch.Generator().manual_seed(0)
    vectors, users = torch.randn(1000, 8, generator=draw), torch.randn(5, 8, generator=draw)
    # Nearly every group holds better items than the best that are left.
    excluded = (users @ vectors.T).topk(300, dim=1).indices.tolist()
    scores, rows = TopItems(vectors).search(users, 5, excluded)
    torch.testing.assert_close(scores, naive(users, vectors, 5, excluded))
    torch.testing.assert_close((vectors[rows] * users.unsqueeze(1)).sum(2), scores)


@pytest.mark.usefixtures("by_blocks")
def test_what_is_left_out_does_not_stand_for_the_best_that_is_left() -> None:
    # The best that are left score below the middle of all items, in the one group of which none is left out.
    scores = torch.full((160,), -5.0)
    scores[:16], scores[16::16] = -1.0, 100.0
    found, rows = TopItems(scores.unsqueeze(1)).search(torch.ones(1, 1), 3, [list(range(16, 160, 16))])
    assert found.tolist() == [[-1.0] * 3] and {*rows[0].tolist()} <= {*range(16)}


@pytest.mark.usefixtures("by_blocks")
def test_the_last_group_is_as_good_as_its_own_few_items() -> None:
    scores = torch.zeros(84)
    # The last block has 20 items, a whole group and one of four items.
    scores[70], scores[0] = 10.0, 5.0
    found, rows = TopItems(scores.unsqueeze(1)).search(torch.ones(1, 1), 2)
    assert found.tolist() == [[10.0, 5.0]] and rows.tolist() == [[70, 0]]


# 5000 items are 313 groups of 16: three users at a time, or one where even one has more.
@pytest.mark.parametrize(("again", "users_at_once"), [(3 * 313 * 16, [3, 3, 1]), (313 * 16 - 1, [1] * 7)])
@pytest.mark.usefixtures("by_blocks")
def test_items_that_are_all_level_are_found_without_a_score_of_each_at_once(
    monkeypatch: pytest.MonkeyPatch, again: int, users_at_once: list[int]
) -> None:
    monkeypatch.setattr(retrieval, "_AGAIN", again)
    score_again, at_once = TopItems._score_again, []

    def counted(self: TopItems, users: torch.Tensor, chosen: torch.Tensor, *others: Any) -> Any:
        at_once.append(len(chosen))
        return score_again(self, users, chosen, *others)

    monkeypatch.setattr(TopItems, "_score_again", counted)
    left = [list(range(1, 5000)), list(range(5000)), *([user, 70 * user, 4999 - user] for user in range(2, 7))]
    excluded = [sorted({*range(5000)} - {*rows}) for rows in left]
    users = torch.arange(1.0, 8.0).unsqueeze(1).expand(7, 4)
    scores, rows = TopItems(torch.ones(5000, 4)).search(users, 7, excluded)
    assert at_once == users_at_once
    for user in range(7):
        count = min(7, len(left[user]))
        assert scores[user].tolist() == [4.0 * (user + 1)] * count + [-torch.inf] * (7 - count)
        found = {*rows[user, :count].tolist()}
        assert len(found) == count and found <= {*left[user]}


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
def test_the_best_item_is_found_though_only_what_it_loses_by_rounding_tells_it() -> None:
    # As above: 43.2 in full, 0 once the item is rounded. The other has 40.
    best = [256 + 0.9] * 32 + [-(256 - 0.45)] * 32 + [0.0]
    vectors = planted(160, at_20=[0.0] * 64 + [40.0], at_100=best)
    scores, rows = TopItems(vectors).search(torch.ones(1, 65), 1)
    assert rows.tolist() == [[100]] and scores.item() == pytest.approx(43.2, abs=0.01)


def rounded(vectors: torch.Tensor) -> torch.Tensor:
    return vectors.bfloat16().double()


@pytest.mark.parametrize("size", [0.01, 1.0, 100.0])
def test_coarse_scores_are_trusted_as_far_as_rounding_can_take_them_and_hardly_less(
    size: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    What is not looked at again is worse than the k-th for certain. In full, an item whose coarse score c is the k-th
    has at least c - u |c| - e, with u the rounding of a score and e what the vectors' rounding and float32 can change.
    A better one has at least c - u |c| - 2 e before its coarse score is rounded, which can take off u of this again.
    """
    monkeypatch.setattr(retrieval, "_multiplies_bfloat16", lambda device: True)
    draw = torch.Generator().manual_seed(0)
    vectors, users = size * torch.randn(100, 8, generator=draw), torch.randn(6, 8, generator=draw)
    vectors = torch.cat([vectors, -vectors])  # the mean is 0
    search = TopItems(vectors)
    search._prepare()
    coarse, user_lengths = rounded(vectors), users.double().norm(dim=1, keepdim=True)
    longest = coarse.norm(dim=1).max()
    e = user_lengths * ((vectors - coarse).norm(dim=1).max() + 2.0**-15 * longest)
    e += (users - rounded(users)).norm(dim=1, keepdim=True) * longest
    u = 2.0**-8
    for kth in (torch.zeros_like(e), user_lengths * longest, -user_lengths * longest, 3 * e, -3 * e):
        lowest = kth - u * kth.abs() - 2 * e
        lowest = torch.minimum(lowest, kth - u * kth.abs() - 2 * e - u * lowest.abs())
        floor = search._floor(users, kth.float()).double()
        assert (floor < lowest).all() and (floor > lowest - 0.1 * (2 * u * kth.abs() + 2 * e)).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(1, 5), st.integers(1, 8), st.integers(0, 2**31), st.data())
def test_the_best_with_terms_are_those_of_all_scores_with_terms(
    num_items: int, num_users: int, num_terms: int, seed: int, data: st.DataObject
) -> None:
    draw = torch.Generator().manual_seed(seed)
    # Short vectors: terms between -0.9 and 0.9 change the order.
    vectors = torch.randn(num_items + 1, 4, generator=draw) / 2
    users = torch.randn(num_users, 4, generator=draw) / 2
    k = data.draw(st.integers(1, num_items))
    row_lists = st.lists(st.integers(1, num_items), unique=True)
    excluded = [data.draw(row_lists) for _ in range(num_users)]
    allowed = data.draw(st.none() | row_lists)
    rows, of_all = torch.zeros(num_users, num_terms, dtype=torch.long), torch.zeros(num_users, num_items + 1)
    terms = torch.zeros(num_users, num_terms)
    for user in range(num_users):
        own = torch.randperm(num_items, generator=draw)[:num_terms] + 1
        rows[user, : len(own)] = own
        terms[user, : len(own)] = of_all[user, own] = 1.8 * torch.rand(len(own), generator=draw) - 0.9
    products = users @ vectors.T
    products[:, 0] = -torch.inf
    for user, line in enumerate(excluded):
        products[user, line] = -torch.inf
    if allowed is not None:
        products[:, sorted({*range(num_items + 1)} - {*allowed})] = -torch.inf
    added = HistoryTerms(rows, terms)
    found = products.topk(min(k + added.most_lowered, num_items + 1), dim=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrieval, "_PAIRS", data.draw(st.sampled_from([1, 2 * num_terms, 2**17])))
        best, scores = added.best(users, vectors, found.indices, found.values, excluded, allowed, k)
    expected = products + of_all
    torch.testing.assert_close(scores, expected.topk(k, dim=1).values)
    torch.testing.assert_close(added.of(best), of_all.gather(1, best))
    for user in range(num_users):
        kept = best[user][scores[user] > -torch.inf]
        assert len({*kept.tolist()}) == len(kept)
        torch.testing.assert_close(expected[user, kept], scores[user, : len(kept)])


def test_as_many_more_are_looked_for_as_one_user_has_lowered() -> None:
    terms = HistoryTerms(
        torch.arange(1, 9).view(2, 4), torch.tensor([[-1.0, -2.0, -3.0, 0.0], [-1.0, -1.0, 0.5, 0.5]])
    )
    assert terms.most_lowered == 3


@pytest.mark.usefixtures("by_blocks")
def test_what_is_found_has_no_gradients() -> None:
    scores, _ = TopItems(torch.randn(100, 4).requires_grad_()).search(torch.randn(2, 4).requires_grad_(), 3)
    assert not scores.requires_grad


def test_rounded_products_are_for_cpus_that_multiply_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for capabilities, expected in (({"avx512_bf16": True}, True), ({"avx512_bf16": False}, False), ({}, False)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda told=capabilities: told, raising=False)
        assert retrieval._multiplies_bfloat16(torch.device("cpu")) is expected
        assert retrieval._multiplies_bfloat16(torch.device("meta")) is False
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert retrieval._multiplies_bfloat16(torch.device("cpu")) is False


def test_a_block_is_made_of_whole_groups() -> None:
    assert retrieval._BLOCK % retrieval._GROUP == 0


def test_nan_is_returned_of_few_scores_and_refused_of_many() -> None:
    draw = torch.Generator().manual_seed(0)
    few, many = torch.randn(100, 4, generator=draw), torch.randn(3000, 4, generator=draw)
    few[3] = many[3] = torch.nan
    scores, rows = TopItems(few).search(torch.randn(2, 4, generator=draw), 3)
    assert scores[:, 0].isnan().all() and rows[:, 0].tolist() == [3, 3]
    with pytest.raises(ValueError, match="scores hold NaN"):
        TopItems(many).search(torch.randn(2000, 4, generator=draw), 3)


def test_nobody_gets_no_items() -> None:
    scores, rows = TopItems(torch.randn(100, 4)).search(torch.zeros(0, 4), 3)
    assert scores.shape == rows.shape == (0, 3)
