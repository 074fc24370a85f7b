"""Counts of near items: what they add to scores, losses and ranks, and that they follow the catalogue."""

import logging
import math
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from hypothesis import given, settings
from hypothesis import strategies as st

from mmm4rec_hf import MMM4RecConfig, MMM4RecForSequentialRecommendation
from mmm4rec_hf.data.cooccurrence import near_items
from mmm4rec_hf.evaluation.ranking import ItemRanker
from mmm4rec_hf.modeling import cooccurrence_mmm4rec, loss_mmm4rec
from mmm4rec_hf.modeling.loss_mmm4rec import full_cross_entropy

SIZES: dict[str, Any] = {
    "hidden_size": 8, "intermediate_size": 8, "head_dim": 4, "n_groups": 4, "state_size": 4, "max_sequence_length": 6,
    "text_feature_size": 5, "image_feature_size": 4, "use_cooccurrence": True, "cooccurrence_context": 2,
    "cooccurrence_window": 2, "num_neighbours": 16,
}  # fmt: skip
Row = dict[str, Any]


def catalog(ids: list[str], seed: int = 0) -> SimpleNamespace:
    rng = np.random.default_rng(seed)
    by_id = {item: (rng.normal(size=5), rng.normal(size=4)) for item in sorted(ids)}
    return SimpleNamespace(
        item_ids=ids,
        text_features=np.array([by_id[item][0] for item in ids], dtype=np.float32),
        image_features=np.array([by_id[item][1] for item in ids], dtype=np.float32),
    )


def make_model(num_items: int, **options: Any) -> MMM4RecForSequentialRecommendation:
    torch.manual_seed(0)
    model = MMM4RecForSequentialRecommendation(MMM4RecConfig(**(SIZES | options)))
    model.set_items(catalog([str(n) for n in range(1, num_items + 1)]))
    return model.eval()


def rows_of(history: list[int]) -> list[Row]:
    """A training row for every event but the first."""
    return [{"input_ids": history[:place], "labels": history[place]} for place in range(1, len(history))]


def counted(rows: list[Row], window: int) -> dict[tuple[int, int], float]:
    """n(one, two) by the definition."""
    counts: dict[tuple[int, int], float] = defaultdict(float)
    for row in rows:
        for steps, item in enumerate(reversed(row["input_ids"][-window:]), start=1):
            pairs = {(item, row["labels"]), (row["labels"], item)}
            for pair in pairs:
                counts[pair] += 1 / steps
    return counts


def table(neighbours: torch.Tensor, counts: torch.Tensor) -> dict[tuple[int, int], float]:
    return {
        (item, int(other)): float(count)
        for item in range(len(counts))
        for other, count in zip(neighbours[item], counts[item], strict=True)
        if count > 0
    }


@given(st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=7), min_size=1, max_size=4), st.integers(1, 3))
@settings(deadline=None, max_examples=50)
def test_counts_are_those_of_the_definition(histories: list[list[int]], window: int) -> None:
    rows = [row for history in histories for row in rows_of(history)]
    found = table(*near_items(rows, 5, window))
    expected = counted(rows, window)
    assert found.keys() == expected.keys()
    assert all(found[pair] == pytest.approx(expected[pair]) for pair in expected)


def test_the_nearest_are_kept_and_other_items_are_refused() -> None:
    rows = [{"input_ids": [2], "labels": 1}] * 3 + [{"input_ids": [3], "labels": 1}] * 2
    rows += [{"input_ids": [4], "labels": 1}]
    neighbours, counts = near_items(rows, 4, window=1, most=2)
    assert neighbours[1].tolist() == [2, 3] and counts[1].tolist() == [3, 2]
    assert near_items([], 4)[1].sum() == 0
    with pytest.raises(ValueError, match=r"items 7\.\.7, outside 1\.\.4"):
        near_items([{"input_ids": [1], "labels": 7}], 4)


def test_scores_have_the_term_of_the_definition() -> None:
    model, without = make_model(5), make_model(5, use_cooccurrence=False)
    rows = rows_of([1, 2, 3, 2, 5]) + rows_of([3, 1, 1, 4])
    model.set_cooccurrence(*near_items(rows, 5, window=2))
    with torch.no_grad():
        model.cooccurrence.weight.fill_(0.7)
        model.cooccurrence.log_scale.fill_(0.2)
    without.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("cooccurrence")})
    # Two items are looked up, whatever stands before them; padding on either side is none.
    ids = torch.tensor([[4, 1, 3, 0], [0, 0, 0, 2], [5, 3, 3, 0]])
    times = torch.arange(4).repeat(3, 1) * 1000
    with torch.no_grad():
        plain, raised = (m(input_ids=ids, timestamps=times).logits for m in (without, model))
    n = counted(rows, 2)
    for line, recent in enumerate([[3, 1], [2], [3, 3]]):
        for item in range(1, 6):
            s = sum(age**-0.5 * n[other, item] for age, other in enumerate(recent, start=1))
            expected = plain[line, item].item() + 0.7 * math.log(1 + math.exp(0.2) * s)
            assert raised[line, item].item() == pytest.approx(expected, abs=1e-5)


def test_the_origins_of_several_items_are_those_of_each_history() -> None:
    model = make_model(5)
    rows = rows_of([1, 2, 3, 2, 5]) + rows_of([3, 1, 1, 4])
    model.set_cooccurrence(*near_items(rows, 5, window=2))
    ids = torch.tensor([[4, 1, 3], [2, 0, 0], [5, 3, 3]])
    items = torch.tensor([[1, 2, 3, 5], [5, 4, 3, 1], [2, 2, 1, 4]])
    recent, parts = model.cooccurrence.origins(ids, ids > 0, items)
    assert recent.tolist() == [[3, 1], [2, 0], [3, 3]]
    n = counted(rows, 2)
    for line, before in enumerate(recent.tolist()):
        for place, item in enumerate(items[line].tolist()):
            expected = [age**-0.5 * n[other, item] for age, other in enumerate(before, start=1)]
            assert parts[line, place].tolist() == pytest.approx(expected, abs=1e-6)
    assert (parts > 0).any(dim=2).any(dim=1).all()


@pytest.mark.parametrize("is_set", [False, True])
def test_a_training_without_counts_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, is_set: bool
) -> None:
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    cooccurrence_mmm4rec.logger.warning_once.cache_clear()
    model = make_model(4)
    if is_set:
        model.set_cooccurrence(*near_items(rows_of([1, 2, 3]), 4))
    model.eval()
    _terms(model, [1, 2], None)
    assert not caplog.records
    model.train()
    _terms(model, [1, 2], 3)
    told = ["use_cooccurrence adds nothing" in record.getMessage() for record in caplog.records]
    assert told == ([] if is_set else [True])


def test_in_training_a_row_does_not_see_its_own_target_counted() -> None:
    # All that is known of items 1 and 2 is this row: nothing is left to add.
    model = make_model(4)
    model.set_cooccurrence(*near_items([{"input_ids": [3, 1], "labels": 2}], 4, window=2))
    ids, mask = torch.tensor([[3, 1]]), torch.ones(1, 2, dtype=torch.long)
    rows, added = model.cooccurrence(ids, mask, torch.tensor([2]))
    assert added[rows == 2].abs().max() < 1e-6
    rows, added = model.cooccurrence(ids, mask)
    assert added[rows == 2].item() == pytest.approx(math.log(1 + 1 + 2**-0.5 / 2))
    # Row 0 is padding where no mask tells.
    rows, added = model.cooccurrence_terms(torch.tensor([[3, 1, 0]]))
    assert added[rows == 2].item() == pytest.approx(math.log(1 + 1 + 2**-0.5 / 2))
    # Another row that tells the same stays.
    model.set_cooccurrence(*near_items([{"input_ids": [3, 1], "labels": 2}] * 2, 4, window=2))
    rows, added = model.cooccurrence(ids, mask, torch.tensor([2]))
    assert added[rows == 2].item() == pytest.approx(math.log(1 + 1 + 2**-0.5 / 2))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=6), st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
def test_nothing_of_a_row_is_left_where_nothing_else_is_known(
    history: list[int], target: int, context: int, window: int
) -> None:
    # Items may repeat, inside what is looked up and before it.
    model = make_model(4, cooccurrence_context=context, cooccurrence_window=window)
    model.set_cooccurrence(*near_items([{"input_ids": history, "labels": target}], 4, window=window))
    rows, added = model.cooccurrence(torch.tensor([history]), torch.ones(1, len(history)), torch.tensor([target]))
    assert added[rows == target].abs().sum() < 1e-5
    # What the row tells of other items stays, and so does what another row tells of the target.
    both = [{"input_ids": history, "labels": target}, {"input_ids": history, "labels": target % 4 + 1}]
    model.set_cooccurrence(*near_items(both, 4, window=window))
    given = dict(zip(*map(torch.Tensor.tolist, (x[0] for x in _terms(model, history, target))), strict=True))
    model.set_cooccurrence(*near_items(both[1:], 4, window=window))
    alone = dict(zip(*map(torch.Tensor.tolist, (x[0] for x in _terms(model, history, None))), strict=True))
    assert given.get(target, 0.0) == pytest.approx(alone.get(target, 0.0), abs=1e-5)


def _terms(model: Any, history: list[int], target: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    targets = None if target is None else torch.tensor([target])
    return model.cooccurrence(torch.tensor([history]), torch.ones(1, len(history)), targets)


def test_a_target_alone_loses_what_its_row_added_and_never_more_than_there_is() -> None:
    model = make_model(4, cooccurrence_context=1)
    neighbours, counts = torch.zeros(5, 3, dtype=torch.long), torch.zeros(5, 3)
    neighbours[2] = torch.tensor([3, 4, 1])
    for count_of_target, left in ((5.0, 4.0), (0.5, 0.0)):
        counts[2] = torch.tensor([count_of_target, 2.0, 1.0])
        model.set_cooccurrence(neighbours, counts)
        ids = torch.tensor([[1, 2]])
        with torch.no_grad():
            (rows,), (terms,) = model.cooccurrence(ids, torch.ones_like(ids), torch.tensor([3]))
        found = {row: term for row, term in zip(rows.tolist(), terms.tolist(), strict=True) if row}
        assert found == pytest.approx({1: math.log(2), 3: math.log(1 + left), 4: math.log(3)})


def test_an_evaluation_sees_all_counts_whether_or_not_it_is_told_the_targets() -> None:
    model, rows = make_model(5), rows_of([1, 2, 3, 2, 5]) + rows_of([3, 1, 1, 4])
    model.set_cooccurrence(*near_items(rows, 5, window=2))
    batch = {"input_ids": torch.tensor([[1, 2], [3, 1]]), "timestamps": torch.tensor([[1, 2], [3, 4]]) * 1000}
    with torch.no_grad():
        plain, told = model(**batch), model(**batch, labels=torch.tensor([3, 4]))
    torch.testing.assert_close(told.logits, plain.logits)


def test_counts_move_with_their_items() -> None:
    model = make_model(3)
    neighbours, counts = torch.zeros(4, 1, dtype=torch.long), torch.zeros(4, 1)
    neighbours[1], neighbours[2], counts[1:3] = 2, 1, 4.0
    model.set_cooccurrence(neighbours, counts)
    # The second is the first now, a new one the second, the first the third.
    model.cooccurrence.set_rows(3, torch.tensor([2, 0, 1]))
    assert table(model.cooccurrence.neighbours, model.cooccurrence.counts) == {(1, 3): 4.0, (3, 1): 4.0}


def test_the_loss_in_chunks_is_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = torch.Generator().manual_seed(0)
    labels = torch.tensor([1, 7, -100, 3])
    rows = torch.stack([torch.randperm(8, generator=draw)[:4] + 1 for _ in range(4)])
    rows[0, 3], rows[3] = 0, torch.tensor([3, 1, 2, 4])
    results = []
    for most in (2**24, 0):
        monkeypatch.setattr(loss_mmm4rec, "PLAIN_SCORES", most)
        monkeypatch.setattr(loss_mmm4rec, "_CHUNK_SCORES", 8)
        for first in (False, True):
            draw.manual_seed(1)
            users, items, added = (torch.randn(*shape, generator=draw) for shape in ((4, 3), (9, 3), (4, 4)))
            if not first:
                items[0] = 200 * users[0]  # the padding item, which takes no part, would win by far
            for tensor in (users, items, added):
                tensor.requires_grad_()
            terms = rows, torch.where(rows > 0, added, 0)
            loss = full_cross_entropy(users, items, labels, 0.8, score_padding_item=first, terms=terms)
            results.append([loss.detach(), *torch.autograd.grad(loss, (users, items, added))])
    for plain, chunked in zip(results[:2], results[2:], strict=True):
        for one, two in zip(plain, chunked, strict=True):
            torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)


def test_ranks_and_losses_are_those_of_the_scores() -> None:
    # Items 3 and 4 look the same, but only one of them stood near others.
    model = make_model(6)
    items = catalog([str(n) for n in range(1, 7)])
    items.text_features[3], items.image_features[3] = items.text_features[2], items.image_features[2]
    items.text_features[5], items.image_features[5] = items.text_features[4], items.image_features[4]
    model.set_items(items)
    model.set_cooccurrence(*near_items(rows_of([1, 3, 2, 1, 3]), 6, window=2))
    ids, times = torch.tensor([[1, 2], [2, 1], [4, 3]]), torch.tensor([[1000, 2000]] * 3)
    inputs = {"input_ids": ids, "timestamps": times, "attention_mask": torch.ones(3, 2, dtype=torch.long)}
    for label in range(1, 7):
        labels = torch.full((3,), label)
        for block in (2, 100):
            ranker = ItemRanker(model, block_size=block)
            with torch.no_grad():
                logits = model(**inputs).logits
                users = model.user_embeds(**inputs)
                terms = model.cooccurrence_terms(ids, inputs["attention_mask"])
            counts, losses = ranker.rank(users, labels, None, terms)
            target = logits[:, label : label + 1]
            assert counts[:, 0].tolist() == (logits[:, 1:] > target + 1e-5).sum(1).tolist()
            assert counts[:, 1].tolist() == ((logits[:, 1:] - target).abs() <= 1e-5).sum(1).tolist()
            expected = torch.nn.functional.cross_entropy(logits[:, 1:], labels - 1, reduction="none")
            torch.testing.assert_close(losses.float(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("num_items", [4, 300])
def test_counts_stay_with_their_items_and_in_the_folder(tmp_path: Path, num_items: int) -> None:
    model = make_model(num_items)
    model.set_cooccurrence(*near_items(rows_of([1, 2, 3, 4]), num_items, window=2))
    with torch.no_grad():
        model.cooccurrence.weight.fill_(0.5)
    before = table(model.cooccurrence.neighbours, model.cooccurrence.counts)
    model.save_pretrained(tmp_path / "model")
    loaded = MMM4RecForSequentialRecommendation.from_pretrained(tmp_path / "model")
    assert table(loaded.cooccurrence.neighbours, loaded.cooccurrence.counts) == before
    assert loaded.cooccurrence.weight.item() == 0.5 and loaded.cooccurrence.is_set

    # 2 and 4 stay, 1 and 3 go, 9 has no counts yet.
    loaded.set_items(catalog(["4", "9", "2"]))
    after = table(loaded.cooccurrence.neighbours, loaded.cooccurrence.counts)
    assert after == {(1, 3): before[4, 2], (3, 1): before[2, 4]}
    # A fine-tuning on other data counts anew.
    fresh = MMM4RecForSequentialRecommendation.from_pretrained(tmp_path / "model", catalog=catalog(["4", "9", "2"]))
    assert not fresh.cooccurrence.is_set


def test_the_largest_counts_are_kept_and_places_without_one_are_empty() -> None:
    model = make_model(3, num_neighbours=2)
    model.set_cooccurrence(
        torch.tensor([[1, 2, 3], [3, 2, 1], [1, 3, 1], [2, 2, 2]]),
        torch.tensor([[5.0, 5, 5], [1, 3, 2], [0, 7, 0], [0, 0, 0]]),
    )
    # The padding item's, the first, are not read.
    assert model.cooccurrence.counts.tolist() == [[0, 0], [3, 2], [7, 0], [0, 0]]
    assert model.cooccurrence.neighbours[1:].tolist() == [[2, 1], [3, 0], [0, 0]]
    assert model.cooccurrence.is_set
    model.set_cooccurrence(torch.ones(4, 1, dtype=torch.long), torch.zeros(4, 1))
    assert not model.cooccurrence.is_set and not model.cooccurrence.neighbours.any()


def test_an_old_checkpoint_can_start_to_count(tmp_path: Path) -> None:
    make_model(4, use_cooccurrence=False).save_pretrained(tmp_path / "model")
    model = MMM4RecForSequentialRecommendation.from_pretrained(tmp_path / "model", use_cooccurrence=True)
    assert not model.cooccurrence.is_set and model.cooccurrence.weight.item() == 1


@pytest.mark.parametrize(
    ("neighbours", "counts", "told"),
    [
        (torch.ones(3, 1, dtype=torch.long), torch.ones(3, 1), r"\(3, 1\).*must be \(5, n\)"),
        (torch.ones(5, 1, dtype=torch.long), torch.ones(5, 2), r"\(5, 1\) and \(5, 2\).*must be \(5, n\)"),
        (torch.ones(5, 2, dtype=torch.long), torch.ones(5, 1), r"\(5, 2\) and \(5, 1\).*must be \(5, n\)"),
        (torch.ones(6, 1, dtype=torch.long), torch.ones(6, 1), r"\(6, 1\).*must be \(5, n\)"),
        (torch.ones(5, dtype=torch.long), torch.ones(5), r"\(5,\).*must be \(5, n\)"),
        (torch.ones(5, 1, 1, dtype=torch.long), torch.ones(5, 1, 1), r"\(5, 1, 1\).*must be \(5, n\)"),
        (torch.ones(5, 1, dtype=torch.long), -torch.ones(5, 1), "not negative"),
        (torch.full((5, 1), 5), torch.ones(5, 1), r"rows 5\.\.5, outside 0\.\.4"),
        (torch.full((5, 1), 9), torch.ones(5, 1), r"rows 9\.\.9, outside 0\.\.4"),
        (torch.full((5, 1), -1), torch.ones(5, 1), r"rows -1\.\.-1, outside 0\.\.4"),
        (torch.tensor([[0, 1]] * 5), torch.full((5, 2), 0.5), "neighbour 0, which stands for none, has a count"),
        (
            torch.tensor([[1, 2, 3, 1]] * 3 + [[4, 2, 4, 1], [1, 1, 2, 3]]),
            torch.tensor([[0, 1.0, 1, 1]] * 3 + [[1, 1, 2, 1], [1, 1, 1, 1]]),
            "item 4 is a neighbour of item 3 twice; add up its counts",
        ),
        (torch.tensor([[1, 1]] * 5), torch.ones(5, 2), "item 1 is a neighbour of item 0 twice"),
    ],
)
def test_counts_that_do_not_fit_are_refused(neighbours: torch.Tensor, counts: torch.Tensor, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        make_model(4).set_cooccurrence(neighbours, counts)
    with pytest.raises(ValueError, match="use_cooccurrence=True only"):
        make_model(4, use_cooccurrence=False).set_cooccurrence(neighbours, counts)


def test_other_losses_are_refused() -> None:
    with pytest.raises(StrictDataclassError, match="item_loss='full'"):
        MMM4RecConfig(use_cooccurrence=True, item_loss="in_batch")
