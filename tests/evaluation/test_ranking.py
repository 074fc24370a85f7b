"""Ranks by blocks against sorting every score, whatever the batch and the block; coverage against whole rankings."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmm4rec_hf import MMM4RecConfig, MMM4RecDataCollator, MMM4RecForSequentialRecommendation
from mmm4rec_hf.evaluation import HistoryCollator, ItemRanker, metrics_from_counts, ranking
from mmm4rec_hf.evaluation.ranking import alike_items

OPTIONS = {
    "hidden_size": 8,
    "intermediate_size": 8,
    "head_dim": 4,
    "n_groups": 2,
    "state_size": 2,
    "max_sequence_length": 4,
    "text_feature_size": 3,
    "image_feature_size": 2,
}


def model_of(kinds: list[int], seed: int = 0, **changes: Any) -> MMM4RecForSequentialRecommendation:
    """A model with one item a kind given; items of one kind have equal features."""
    torch.manual_seed(seed)
    model = MMM4RecForSequentialRecommendation(MMM4RecConfig(**(OPTIONS | changes)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    text, image = torch.randn(20, 3), torch.randn(20, 2)
    ids = [str(number) for number in range(len(kinds))]
    model.set_items(SimpleNamespace(item_ids=ids, text_features=text[kinds], image_features=image[kinds]))
    return model.eval()


def naive_order(model: Any, user: torch.Tensor, kinds: list[int], left_out: set[int]) -> list[list[int]]:
    """Rows that stay in the ranking, best first; rows of one kind together, in their order."""
    with torch.no_grad():
        vectors = model.fused_item_embeds(*model.item_embeds()).double()
    scores: dict[int, float] = {}
    groups: dict[int, list[int]] = {}
    for row, kind in enumerate(kinds, start=1):
        scores.setdefault(kind, float(vectors[row] @ user.double()))
        if row not in left_out:
            groups.setdefault(kind, []).append(row)
    return [groups[kind] for kind in sorted(groups, key=lambda kind: -scores[kind])]


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_ranks_losses_and_coverage_are_those_of_whole_rankings(data: Any) -> None:
    kinds = data.draw(st.lists(st.integers(0, 6), min_size=2, max_size=14))
    b = data.draw(st.integers(1, 5))
    exclude = data.draw(st.booleans())
    model = model_of(kinds, data.draw(st.integers(0, 20)))
    users = torch.randn(b, 8)
    rows = st.integers(1, len(kinds))
    labels = [data.draw(rows) for _ in range(b)]
    histories = [data.draw(st.lists(rows, max_size=5)) for _ in range(b)]
    history = torch.tensor([h + [0] * (5 - len(h)) for h in histories])
    ks = (1, 3, 20)

    expected, covered = [], {k: set() for k in ks}
    for user, label, seen in zip(users, labels, histories, strict=True):
        order = naive_order(model, user, kinds, set(seen) - {label} if exclude else set())
        above = 0
        for group in order:
            if label in group:
                expected.append([above, len(group)])
            above += len(group)
        for k in ks:
            covered[k] |= set(sum(order, [])[:k])
    with torch.no_grad():
        scores = users.double() @ model.fused_item_embeds(*model.item_embeds())[1:].double().T / 0.8
    losses = torch.nn.functional.cross_entropy(scores, torch.tensor(labels) - 1, reduction="none")

    block, batch = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 5))
    with pytest.MonkeyPatch.context() as patch:
        if data.draw(st.booleans()):
            patch.setattr(ranking, "LARGEST_TABLE", 0)
        ranker = ItemRanker(model, exclude_history=exclude, coverage_at=ks, block_size=block)
    parts = [
        ranker.rank(users[i : i + batch], torch.tensor(labels)[i : i + batch], history[i : i + batch])
        for i in range(0, b, batch)
    ]
    assert torch.cat([counts for counts, _ in parts]).tolist() == expected
    torch.testing.assert_close(torch.cat([loss for _, loss in parts]), losses)
    assert {k: set(ranker.covered[i].nonzero().flatten().tolist()) for i, k in enumerate(ks)} == covered
    assert ranker.coverage() == {f"coverage@{k}": len(covered[k]) / len(kinds) for k in ks}


def test_items_with_equal_features_tie_wherever_they_stand_and_part_once_they_have_biases() -> None:
    kinds = [number % 7 for number in range(101)]
    model = model_of(kinds)
    found, first_rows = alike_items(model)
    assert found[1:].tolist() == [kind + 1 for kind in kinds] and first_rows.tolist() == list(range(8))
    counts, _ = ItemRanker(model).rank(torch.randn(101, 8), torch.arange(1, 102))
    assert counts[:, 1].tolist() == [kinds.count(kind) for kind in kinds]
    biased = model_of(kinds, use_item_bias=True)
    with torch.no_grad():
        biased.items.text_bias[1:4] = 0
        biased.items.text_bias[4:].normal_()
    assert len(alike_items(biased)[1]) == 102


def test_ranks_agree_with_the_model_and_its_padding_item_where_that_competes() -> None:
    model = model_of([0, 1, 2, 3, 4], score_padding_item=True)
    batch = {"input_ids": torch.tensor([[1, 3], [2, 0]]), "timestamps": torch.tensor([[10, 25], [7, 0]])}
    labels = torch.tensor([2, 5])
    with torch.no_grad():
        output = model(**batch)
    counts, losses = ItemRanker(model).rank(output.user_embeds, labels)
    assert counts[:, 0].tolist() == (output.logits > output.logits.gather(1, labels[:, None])).sum(1).tolist()
    expected = torch.nn.functional.cross_entropy(output.logits, labels, reduction="none")
    torch.testing.assert_close(losses.float(), expected)


def test_an_excluded_item_gives_its_place_to_the_next_best_whatever_the_block() -> None:
    model = model_of(list(range(7)))
    user = torch.randn(1, 8)
    order = [group[0] for group in naive_order(model, user[0], list(range(7)), set())]
    for block in range(1, 9):
        for seen in range(1, 8):
            ranker = ItemRanker(model, exclude_history=True, coverage_at=(1, 2), block_size=block)
            target = order[-1] if seen != order[-1] else order[-2]
            counts, _ = ranker.rank(user, torch.tensor([target]), torch.tensor([[seen, 0]]))
            kept = [row for row in order if row != seen]
            assert counts.tolist() == [[kept.index(target), 1]]
            assert [set(line.nonzero().flatten().tolist()) for line in ranker.covered] == [{kept[0]}, set(kept[:2])]


def test_a_draw_ranks_the_target_among_the_drawn_items_alone() -> None:
    model = model_of(list(range(12)))
    users, labels = torch.randn(30, 8), torch.randint(1, 13, (30,))
    ranker = ItemRanker(model, sampled=4, seed=3)
    drawn = set(ranker.competes.nonzero().flatten().tolist())
    assert len(drawn) == 4 and 0 not in drawn
    with torch.no_grad():
        vectors = model.fused_item_embeds(*model.item_embeds()).double()
    counts, losses = ranker.rank(users, labels)
    for user, label, count, loss in zip(users, labels.tolist(), counts.tolist(), losses, strict=True):
        candidates = sorted(drawn | {label})
        scores = vectors[candidates] @ user.double() / 0.8
        place = candidates.index(label)
        assert count == [int((scores > scores[place]).sum()), 1]
        torch.testing.assert_close(loss, -scores.log_softmax(0)[place])
    assert torch.equal(ItemRanker(model, sampled=4, seed=3).competes, ranker.competes)
    assert torch.equal(ItemRanker(model, sampled=4).competes, ItemRanker(model, sampled=4, seed=0).competes)
    assert int(ItemRanker(model, sampled=1).competes.sum()) == 1
    with pytest.raises(ValueError, match="sampled must be between 1 and the model's 12 items, got 0"):
        ItemRanker(model, sampled=0)


def test_a_target_outside_of_the_draw_that_the_user_has_seen_takes_nothing_from_it() -> None:
    model = model_of(list(range(8)))
    ranker = ItemRanker(model, sampled=3, exclude_history=True)
    user, outside = torch.randn(1, 8), int((~ranker.competes[1:]).nonzero()[0, 0]) + 1
    counts, _ = ranker.rank(user, torch.tensor([outside]), torch.tensor([[0, 0]]))
    seen, _ = ranker.rank(user, torch.tensor([outside]), torch.tensor([[outside, outside]]))
    assert counts.tolist() == seen.tolist() and counts[0, 1] == 1


def test_a_draw_may_hold_any_item_but_the_padding_item() -> None:
    model = model_of([0, 1, 2, 3, 4])
    drawn = torch.stack([ItemRanker(model, sampled=1, seed=seed).competes for seed in range(60)])
    assert drawn.any(0).tolist() == [False, True, True, True, True, True]


def test_wrong_arguments_name_the_remedy() -> None:
    model = model_of([0, 1, 2])
    for sampled in (4, 9):
        with pytest.raises(ValueError, match=f"sampled must be between 1 and the model's 3 items, got {sampled}"):
            ItemRanker(model, sampled=sampled)
    with pytest.raises(ValueError, match="block_size must be at least 1"):
        ItemRanker(model, block_size=0)
    with pytest.raises(ValueError, match="HistoryCollator"):
        ItemRanker(model, exclude_history=True).rank(torch.zeros(1, 8), torch.tensor([1]))
    for target in (-1, 0, 4, 9):
        with pytest.raises(ValueError, match=rf"target {target} is outside the catalogue's items 1\.\.3"):
            ItemRanker(model).rank(torch.zeros(1, 8), torch.tensor([target]))
    with pytest.raises(ValueError, match="first in row 1"):
        ItemRanker(model).rank(torch.tensor([[0.0] * 8, [np.nan] * 8, [np.inf] * 8]), torch.tensor([1, 1, 1]))
    with pytest.raises(ValueError, match="holds no items"):
        ItemRanker(MMM4RecForSequentialRecommendation(MMM4RecConfig(**OPTIONS)))
    with torch.no_grad():
        model.items.text_features[2] = torch.inf
    with pytest.raises(ValueError, match="item vectors hold NaN or infinity"):
        ItemRanker(model)


def test_a_batch_keeps_the_whole_history_beside_the_cropped_one() -> None:
    collate = HistoryCollator(MMM4RecDataCollator(2))
    rows = [
        {"input_ids": [4, 5, 6], "timestamps": [1, 2, 3], "labels": 7},
        {"input_ids": [8], "timestamps": [1], "labels": 9},
    ]
    batch = collate(rows)
    assert batch["input_ids"].tolist() == [[5, 6], [8, 0]]
    assert batch["history"].tolist() == [[4, 5, 6], [8, 0, 0]]


def test_recall_is_the_hit_rate_with_one_target() -> None:
    metrics = metrics_from_counts(np.array([[0, 1], [4, 2], [30, 1]]), ks=(5, 20))
    assert metrics["recall@5"] == metrics["hr@5"] == pytest.approx(1.5 / 3)
    assert metrics["recall@20"] == metrics["hr@20"] == pytest.approx(2 / 3)


def test_many_items_that_differ_are_of_as_many_kinds() -> None:
    model = MMM4RecForSequentialRecommendation(MMM4RecConfig(**OPTIONS))
    ids = [str(number) for number in range(300)]
    text, image = torch.arange(900.0).view(300, 3) + 1, torch.ones(300, 2)
    model.set_items(SimpleNamespace(item_ids=ids, text_features=text, image_features=image))
    kinds, first_rows = alike_items(model)
    assert kinds.tolist() == first_rows.tolist() == list(range(301))


def test_alike_items_of_which_some_have_a_term_are_ranked_the_same_whatever_the_block() -> None:
    """Six kinds of three items each, of which one stood near others: two kinds a vector, in blocks of every size."""
    features = [number % 6 for number in range(18)]
    model = model_of(features, use_cooccurrence=True, cooccurrence_context=1, num_neighbours=4)
    neighbours, counts = torch.zeros(19, 4, dtype=torch.long), torch.zeros(19, 4)
    neighbours[1:, 0], counts[1:, 0] = torch.arange(1, 19) % 6 + 13, 3.0  # of each, one of the last six
    model.set_cooccurrence(neighbours, counts)
    histories = torch.tensor([[4], [12], [17]])
    users = torch.randn(3, 8)
    with torch.no_grad():
        vectors = model.fused_item_embeds(*model.item_embeds()).double()
        terms = model.cooccurrence_terms(histories, torch.ones_like(histories))
        scores = users.double() @ vectors.T / 0.8
        # Items of the same features have the same product, whatever their rows round to.
        for row in range(7, 19):
            scores[:, row] = scores[:, (row - 1) % 6 + 1]
        # One event, one neighbour: the term is weight * log(1 + exp(log_scale) * 3).
        term = model.cooccurrence.weight * torch.log1p(model.cooccurrence.log_scale.exp() * 3)
    for line, item in enumerate(histories[:, 0].tolist()):
        scores[line, item % 6 + 13] += term.double()
    for label in range(1, 19):
        target = scores[:, label, None]
        expected = torch.stack([(scores[:, 1:] > target).sum(1), (scores[:, 1:] == target).sum(1)], 1)
        for block in (1, 2, 3, 4, 5, 7, 12, 100):
            found, losses = ItemRanker(model, block_size=block).rank(users, torch.full((3,), label), None, terms)
            assert found.tolist() == expected.tolist()
            torch.testing.assert_close(losses, -scores[:, 1:].log_softmax(1)[:, label - 1], atol=1e-6, rtol=0)


@pytest.mark.parametrize("history", [[1, 4, 0], [1, 1, 4], [1, 4, 4], [4, 1, 5]], ids=str)
def test_a_padding_item_that_competes_is_covered_whatever_fills_the_history(history: list[int]) -> None:
    model = MMM4RecForSequentialRecommendation(MMM4RecConfig(**(OPTIONS | {"score_padding_item": True})))
    text, image = torch.zeros(5, 3), torch.zeros(5, 2)
    text[2:], image[2:] = torch.randn(3, 3), torch.randn(3, 2)  # the first two look like the padding item
    model.set_items(SimpleNamespace(item_ids=list("abcde"), text_features=text, image_features=image))
    model.eval()
    ranker = ItemRanker(model, exclude_history=True, coverage_at=(6,))
    ranker.rank(torch.randn(1, 8), torch.tensor([2]), torch.tensor([history]))
    # All that is left: neither what was seen nor more, and row 0 with the others.
    assert ranker.covered[0].tolist() == [row == 0 or row not in history for row in range(6)]


def test_ties_are_covered_in_the_order_of_rows() -> None:
    model = model_of([0, 1] * 50)
    user = torch.randn(1, 8)
    best = naive_order(model, user[0], [0, 1] * 50, set())[0]
    ranker = ItemRanker(model, coverage_at=(3,))
    _, losses = ranker.rank(user.requires_grad_(), torch.tensor([1]))
    assert ranker.covered[0].nonzero().flatten().tolist() == best[:3] and not losses.requires_grad
