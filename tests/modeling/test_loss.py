"""Losses against numbers computed by hand, against plain forms, and against what they estimate."""

import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mmm4rec_hf import MMM4RecForSequentialRecommendation
from mmm4rec_hf.modeling import loss_mmm4rec
from mmm4rec_hf.modeling.items_mmm4rec import l2_normalize
from mmm4rec_hf.modeling.loss_mmm4rec import (
    cross_entropy_of_scores,
    draw_negatives,
    full_cross_entropy,
    in_batch_cross_entropy,
    sampled_cross_entropy,
)

MakeModel = Callable[..., MMM4RecForSequentialRecommendation]
Batch = dict[str, torch.Tensor]


def test_cross_entropy_of_scores_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3.0), 0.0], [math.log(2.0), 0.0, 0.0]])
    labels = torch.tensor([1, 2])
    # Probabilities of the targets: 3/5 and 1/4.
    total = -(math.log(3 / 5) + math.log(1 / 4))
    assert math.isclose(cross_entropy_of_scores(logits, labels).item(), total / 2, rel_tol=1e-6)
    assert math.isclose(cross_entropy_of_scores(logits, labels, num_items_in_batch=8).item(), total / 8, rel_tol=1e-6)
    labels = torch.tensor([-100, 2])
    assert math.isclose(cross_entropy_of_scores(logits, labels).item(), math.log(4), rel_tol=1e-6)


def test_scores_that_are_there_may_have_the_padding_item_for_a_target() -> None:
    logits, labels = torch.tensor([[0.0, math.log(3.0)]]), torch.tensor([0])
    assert math.isclose(cross_entropy_of_scores(logits, labels).item(), math.log(4), rel_tol=1e-6)
    for label in (-1, 2):
        with pytest.raises(ValueError, match=f"label {label} is none"):
            cross_entropy_of_scores(logits, torch.tensor([label]))


def test_a_batch_without_any_label_has_loss_zero_and_zero_gradients() -> None:
    users, items = torch.randn(2, 3, requires_grad=True), torch.randn(4, 3)
    loss = full_cross_entropy(users, items, torch.tensor([-100, -100]), 1.0)
    loss.backward()
    assert loss.item() == 0 and not users.grad.any()


@pytest.mark.parametrize("label", [0, 4, 7, -1, -99, -101])
def test_a_label_outside_the_catalogue_is_refused(label: int) -> None:
    with pytest.raises(ValueError, match=f"label {label} is none of the model's items 1..3"):
        full_cross_entropy(torch.zeros(1, 2), torch.zeros(4, 2), torch.tensor([label]), 1.0)


def naive_full(users: Any, items: Any, labels: Any, temperature: float, padding: bool, count: int | None) -> Any:
    """Row by row, in float64."""
    first = 0 if padding else 1
    losses = [
        -((items[first:] @ user) / temperature).log_softmax(0)[label - first]
        for user, label in zip(users, labels.tolist(), strict=True)
        if label != -100
    ]
    return sum(losses) / (count or len(losses))


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_the_loss_over_chunks_of_items_has_the_plain_value_and_gradients(data: Any) -> None:
    b, num_items, width = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 40)), data.draw(st.integers(1, 8))
    padding, count = data.draw(st.booleans()), data.draw(st.sampled_from([None, 17]))
    chunk = data.draw(st.integers(1, 50))
    kept = data.draw(st.integers(0, 4))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    users, items = (torch.randn(n, width, generator=generator) for n in (b, num_items + 1))
    labels = torch.randint(1, num_items + 1, (b,), generator=generator)
    labels[1::3] = -100

    results = []
    for form in ("naive", "plain", "chunked"):
        u, v = ((x.double() if form == "naive" else x.clone()).requires_grad_() for x in (users, items))
        if form == "naive":
            loss = naive_full(u, v, labels, 0.7, padding, count)
        else:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(loss_mmm4rec, "PLAIN_SCORES", 0 if form == "chunked" else 10**9)
                patch.setattr(loss_mmm4rec, "_CHUNK_SCORES", chunk * b)
                patch.setattr(loss_mmm4rec, "_KEPT_SCORES", kept * chunk * b)
                loss = full_cross_entropy(u, v, labels, 0.7, score_padding_item=padding, num_items_in_batch=count)
        loss.backward()
        results.append((loss.detach().float(), u.grad.float(), v.grad.float()))
    for got in results[1:]:
        for value, expected in zip(got, results[0], strict=True):
            torch.testing.assert_close(value, expected, atol=1e-5, rtol=1e-5)


def test_a_batch_of_more_users_than_a_chunk_has_scores_goes_over_one_item_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loss_mmm4rec, "PLAIN_SCORES", 0)
    monkeypatch.setattr(loss_mmm4rec, "_CHUNK_SCORES", 2)
    # Scores 0, ln 2 and ln 3 of three items: shares 1/6, 2/6 and 3/6.
    users, items = torch.ones(3, 1), torch.tensor([[9.0], [0.0], [math.log(2.0)], [math.log(3.0)]])
    loss = full_cross_entropy(users, items, torch.tensor([1, 2, 3]), 1.0)
    assert math.isclose(loss.item(), (math.log(6) + math.log(3) + math.log(2)) / 3, rel_tol=1e-6)


def test_no_more_is_held_at_once_than_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    held, shares_of = [], loss_mmm4rec._shares

    def noting(users: torch.Tensor, part: torch.Tensor, reference: Any, buffer: torch.Tensor) -> torch.Tensor:
        held.append((len(part), tuple(buffer.shape)))
        return shares_of(users, part, reference, buffer)

    monkeypatch.setattr(loss_mmm4rec, "_shares", noting)
    monkeypatch.setattr(loss_mmm4rec, "PLAIN_SCORES", 0)
    monkeypatch.setattr(loss_mmm4rec, "_KEPT_SCORES", 0)
    monkeypatch.setattr(loss_mmm4rec, "_CHUNK_SCORES", 17)
    users = torch.randn(3, 2).requires_grad_()
    full_cross_entropy(users, torch.randn(12, 2), torch.tensor([1, 2, 3]), 1.0).backward()
    # 11 items compete; three users have 15 scores with five of them. Forward, and again for the gradients.
    assert held == 2 * [(5, (3, 5)), (5, (3, 5)), (1, (3, 5))]
    # Vectors of nine, six or four items a user, each of two values.
    for e in (9, 6):
        assert loss_mmm4rec._FewScores._parts(users, torch.zeros(3, e)) == [slice(0, 1), slice(1, 2), slice(2, 3)]
    assert loss_mmm4rec._FewScores._parts(users, torch.zeros(3, 4)) == [slice(0, 2), slice(2, 4)]


@pytest.mark.parametrize("name", ["_ChunkedCrossEntropy", "_FewScores", "_AllGather"])
def test_gradients_of_gradients_are_refused_where_they_would_be_wrong(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    users, items = torch.randn(3, 2).requires_grad_(), torch.randn(5, 2).requires_grad_()
    others: dict[str, tuple[Any, ...]] = {
        "_ChunkedCrossEntropy": (items, torch.tensor([1, 2, 3]), 1, 2),
        "_FewScores": (items, torch.tensor([[1, 2]] * 3)),
        "_AllGather": (),
    }

    def gradient(rank: int) -> torch.Tensor:
        result = getattr(loss_mmm4rec, name).apply(users, *others[name])
        # Of squares: what flows back depends on the input itself.
        return torch.autograd.grad(result.square().sum(), users, create_graph=True)[0]

    (found,) = Processes(monkeypatch, 1).run(gradient)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        found.sum().backward()


@pytest.mark.parametrize("kept", [0, 2])
@pytest.mark.parametrize("scale", [0.0, 30.0, 60.0, 1000.0])
@pytest.mark.parametrize("highest", [11, 4])  # of the last chunk of two items, of the second
def test_scores_far_above_those_of_the_first_chunk_of_items_lose_nothing(
    monkeypatch: pytest.MonkeyPatch, scale: float, kept: int, highest: int
) -> None:
    monkeypatch.setattr(loss_mmm4rec, "PLAIN_SCORES", 0)
    monkeypatch.setattr(loss_mmm4rec, "_CHUNK_SCORES", 2 * 4)
    monkeypatch.setattr(loss_mmm4rec, "_KEPT_SCORES", kept * 2 * 4)
    torch.manual_seed(0)
    users, items = torch.randn(4, 3), torch.randn(12, 3)
    # Item by item further up: what the first chunk tells of the largest score is ever more wrong.
    users[:, 0], items[:, 0] = 1.0, torch.linspace(0, scale, 12).roll(highest - 11)
    labels = torch.tensor([1, 5, 11, 7])
    results = []
    for double in (True, False):
        u, v = ((x.double() if double else x.clone()).requires_grad_() for x in (users, items))
        loss = naive_full(u, v, labels, 1.0, False, None) if double else full_cross_entropy(u, v, labels, 1.0)
        loss.backward()
        results.append((loss.detach().float(), u.grad.float(), v.grad.float()))
    for value, expected in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(value, expected, atol=1e-5, rtol=1e-5)


def test_in_batch_cross_entropy_as_published_counts_a_second_row_of_the_same_target_as_a_negative() -> None:
    users = torch.tensor([[math.log(2.0), 0.0], [0.0, math.log(2.0)]]) * 0.5
    targets, labels = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([5, 5])
    # Over a temperature of 0.5: row 1 scores ln 2 and ln 2, row 2 scores 0 and 0; both targets have probability 1/2.
    loss = in_batch_cross_entropy(users, targets, labels, 0.5, mask_same_target=False)
    assert math.isclose(loss.item(), math.log(2), rel_tol=1e-6)
    assert in_batch_cross_entropy(users, targets, labels, 0.5).item() == 0


# Scores of three rows: exp() of each row times the temperature 1, columns are the rows' targets.
BATCH_SCORES = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]).log()


def test_the_same_target_elsewhere_in_the_batch_is_no_negative() -> None:
    labels = torch.tensor([5, 5, 7])
    loss = in_batch_cross_entropy(BATCH_SCORES, torch.eye(3), labels, 1.0)
    # Row 1: 1 against 3; row 2: 5 against 6; row 3: 9 against 7 and 8.
    expected = -(math.log(1 / 4) + math.log(5 / 11) + math.log(9 / 24)) / 3
    assert math.isclose(loss.item(), expected, rel_tol=1e-6)
    published = in_batch_cross_entropy(BATCH_SCORES, torch.eye(3), labels, 1.0, mask_same_target=False)
    expected = -(math.log(1 / 6) + math.log(5 / 15) + math.log(9 / 24)) / 3
    assert math.isclose(published.item(), expected, rel_tol=1e-6)


def test_a_row_without_a_label_is_neither_a_row_nor_a_negative() -> None:
    loss = in_batch_cross_entropy(BATCH_SCORES, torch.eye(3), torch.tensor([5, -100, 7]), 1.0)
    expected = -(math.log(1 / 4) + math.log(9 / 16)) / 2
    assert math.isclose(loss.item(), expected, rel_tol=1e-6)


def test_log_q_divides_each_other_target_by_how_often_it_is_expected() -> None:
    log_q = torch.tensor([0.0, 0.5, 0.2, 0.3]).log()
    loss = in_batch_cross_entropy(BATCH_SCORES, torch.eye(3), torch.tensor([1, 2, 3]), 1.0, item_log_q=log_q)
    # Two others a row: expected 2 x 0.5, 2 x 0.2 and 2 x 0.3 times.
    rows = [1 / (1 + 2 / 0.4 + 3 / 0.6), 5 / (4 / 1.0 + 5 + 6 / 0.6), 9 / (7 / 1.0 + 8 / 0.4 + 9)]
    assert math.isclose(loss.item(), -sum(map(math.log, rows)) / 3, rel_tol=1e-6)
    loss = in_batch_cross_entropy(BATCH_SCORES, torch.eye(3), torch.tensor([1, 2, -100]), 1.0, item_log_q=log_q)
    # One other a row: expected 0.5 and 0.2 times.
    assert math.isclose(loss.item(), -(math.log(1 / (1 + 2 / 0.2)) + math.log(5 / (4 / 0.5 + 5))) / 2, rel_tol=1e-6)


def test_a_row_that_is_alone_has_loss_zero_and_zero_gradients_with_log_q() -> None:
    users = torch.randn(3, 3).requires_grad_()
    log_q = torch.tensor([0.0, 0.5, 0.2, 0.3]).log()
    loss = in_batch_cross_entropy(users, torch.eye(3), torch.tensor([-100, 2, -100]), 1.0, item_log_q=log_q)
    loss.backward()
    assert loss.item() == 0 and not users.grad.any()


def test_sampled_cross_entropy_by_hand() -> None:
    users, targets = torch.tensor([[1.0], [2.0]]), torch.tensor([[math.log(2.0)], [math.log(3.0)]])
    negatives = torch.tensor([4, 9])
    vectors, expected_times = torch.tensor([[math.log(3.0)], [math.log(5.0)]]), torch.tensor([0.5, 0.25])
    loss = sampled_cross_entropy(
        users, targets, vectors, torch.tensor([7, 4]), negatives, expected_times.log(), temperature=1.0
    )
    # Row 1: 2 against 3 / 0.5 and 5 / 0.25. Row 2: 3^2 against 5^2 / 0.25; its own target was drawn and is left out.
    expected = -(math.log(2 / (2 + 6 + 20)) + math.log(9 / (9 + 100))) / 2
    assert math.isclose(loss.item(), expected, rel_tol=1e-6)


def test_a_draw_that_holds_every_item_once_gives_the_full_cross_entropy() -> None:
    users, items = torch.randn(4, 3), torch.randn(8, 3)
    labels, negatives = torch.tensor([1, 5, 5, 7]), torch.arange(1, 8)
    sampled = sampled_cross_entropy(users, items[labels], items[1:], labels, negatives, torch.zeros(7), 0.6)
    torch.testing.assert_close(sampled, full_cross_entropy(users, items, labels, 0.6))


@pytest.mark.parametrize(("num_rows", "count", "expected"), [(5, 2, 2 / 4), (4, 5, 5 / 3)])
def test_a_uniform_draw_expects_each_item_alike(num_rows: int, count: int, expected: float) -> None:
    rows, log_expected = draw_negatives(num_rows, count, None, torch.device("cpu"))
    assert rows.shape == (count,) and set(rows.tolist()) <= set(range(1, num_rows))
    torch.testing.assert_close(log_expected, torch.full((count,), math.log(expected)))


@pytest.mark.parametrize("log_q", [None, torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4]).log()])
def test_drawn_items_come_as_often_as_is_said(log_q: torch.Tensor | None) -> None:
    torch.manual_seed(0)
    rows, log_expected = draw_negatives(5, 40_000, log_q, torch.device("cpu"))
    counts = torch.bincount(rows, minlength=5)
    assert counts[0] == 0
    for row in range(1, 5):
        expected = log_expected[rows == row][0].exp().item()
        assert abs(counts[row].item() - expected) < 5 * math.sqrt(expected)


def learned_shares(use_log_q: bool) -> torch.Tensor:
    """Softmax of the scores that the in-batch loss learns where users are all alike and items differ in popularity."""
    torch.manual_seed(0)
    popularity = torch.tensor([0.4, 0.3, 0.2, 0.1])
    scores = torch.zeros(4, 1, requires_grad=True)
    optimizer = torch.optim.Adam([scores], lr=0.02)
    log_q = torch.cat([torch.zeros(1), popularity]).log() if use_log_q else None
    total = torch.zeros(4)
    for step in range(1200):
        labels = torch.multinomial(popularity, 64, replacement=True) + 1
        loss = in_batch_cross_entropy(torch.ones(64, 1), scores[labels - 1], labels, 1.0, item_log_q=log_q)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step >= 600:
            total += scores.detach().flatten().softmax(0)
    return total / 600


def test_log_q_gives_popular_items_their_share_which_the_plain_in_batch_loss_takes_from_them() -> None:
    # What the full cross entropy learns is the share of each item: 0.4, 0.3, 0.2, 0.1.
    torch.testing.assert_close(learned_shares(True), torch.tensor([0.4, 0.3, 0.2, 0.1]), atol=0.02, rtol=0)
    plain = learned_shares(False)
    assert plain[1] < 0.26 and plain[3] > 0.17


def test_the_padding_item_takes_no_part_in_the_loss_of_a_new_model(lively_model: MakeModel, batch: Batch) -> None:
    model = lively_model()
    output = model(**batch)
    expected = F.cross_entropy(output.logits[:, 1:], batch["labels"] - 1)
    torch.testing.assert_close(output.loss, expected)
    published = lively_model(score_padding_item=True)(**batch)
    torch.testing.assert_close(published.loss, F.cross_entropy(published.logits, batch["labels"]))
    assert published.logits[:, 0].abs().max() < 100 and output.logits[:, 0].max() < -1e38


NO_DROPOUT = {"hidden_dropout": 0.0, "embedding_dropout": 0.0, "time_dropout": 0.0}
EVERY_FUSION = ["static", "dynamic_shared", "dynamic_instance"]


@pytest.mark.parametrize("fusion", EVERY_FUSION)
@pytest.mark.parametrize("chunked", [False, True])
def test_training_gives_the_loss_and_gradients_of_evaluation_and_no_scores(
    lively_model: MakeModel, batch: Batch, fusion: str, chunked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = lively_model(fusion=fusion, use_item_bias=True, **NO_DROPOUT)
    expected = model(**batch)
    expected.loss.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    if chunked:
        monkeypatch.setattr(loss_mmm4rec, "PLAIN_SCORES", 0)
        monkeypatch.setattr(loss_mmm4rec, "_CHUNK_SCORES", 15)
    output = model.train()(**batch)
    assert output.logits is None
    torch.testing.assert_close(output.loss, expected.loss)
    output.loss.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("fusion", EVERY_FUSION)
def test_in_batch_training_embeds_a_few_items_and_gives_the_loss_and_gradients_of_all(
    lively_model: MakeModel, batch: Batch, fusion: str
) -> None:
    batch["labels"] = torch.tensor([4, 9, 4])
    model = lively_model(item_loss="in_batch", use_log_q=True, fusion=fusion, use_item_bias=True, **NO_DROPOUT)
    counts = torch.arange(13)
    model.set_item_frequencies(counts)
    expected = model(**batch)
    scores = expected.logits[:, batch["labels"]]
    shares = torch.log(2 * counts[batch["labels"]] / counts.sum())
    scores = scores - shares.expand(3, 3).masked_fill(torch.eye(3, dtype=torch.bool), 0)
    scores[0, 2] = scores[2, 0] = -torch.inf
    torch.testing.assert_close(expected.loss, F.cross_entropy(scores, torch.arange(3)))
    expected.loss.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    output = model.train()(**batch)
    torch.testing.assert_close(output.loss, expected.loss)
    output.loss.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], atol=1e-5, rtol=1e-4)


def test_a_process_that_is_alone_has_nothing_to_gather(lively_model: MakeModel, batch: Batch) -> None:
    losses = []
    for gather in (True, False):
        model = lively_model(item_loss="in_batch", gather_negatives=gather).train()
        torch.manual_seed(0)
        losses.append(model(**batch).loss.item())
        assert model.eval()(**batch).loss.isfinite()
    assert losses[0] == losses[1]


@pytest.mark.parametrize("sampling", ["uniform", "frequency"])
def test_the_sampled_loss_is_near_the_full_one_and_is_the_full_one_in_evaluation(
    lively_model: MakeModel, batch: Batch, sampling: str
) -> None:
    model = lively_model(item_loss="sampled", negative_sampling=sampling, num_sampled_negatives=20_000, **NO_DROPOUT)
    model.set_item_frequencies(torch.arange(13))
    full = model(**batch)
    torch.testing.assert_close(full.loss, F.cross_entropy(full.logits, batch["labels"]))
    torch.testing.assert_close(model.train()(**batch).loss, full.loss, rtol=0.05, atol=0)


def test_a_loss_that_lacks_frequencies_names_the_remedy(lively_model: MakeModel, batch: Batch) -> None:
    for options in ({"item_loss": "in_batch", "use_log_q": True}, {"item_loss": "sampled"}):
        model = lively_model(**options, negative_sampling="frequency").train()
        with pytest.raises(ValueError, match="set_item_frequencies"):
            model(**batch)
    for shape in ((12,), (14,), (13, 1)):
        with pytest.raises(ValueError, match=r"must be \(13,\)"):
            model.set_item_frequencies(torch.ones(shape))
    for value in (-1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="finite and not negative"):
            model.set_item_frequencies(torch.full((13,), value))


def test_frequencies_are_forgotten_with_the_catalogue_and_not_saved(
    lively_model: MakeModel, tiny_catalog: Callable[..., Any], tmp_path: Any
) -> None:
    model = lively_model(item_loss="sampled", negative_sampling="frequency")
    model.items.is_log_q_counted = True  # by a trainer, before someone knows better
    model.set_item_frequencies(torch.ones(13))
    assert not model.items.is_log_q_counted and "items.log_q" not in model.state_dict()
    model.save_pretrained(tmp_path)
    assert MMM4RecForSequentialRecommendation.from_pretrained(tmp_path).items.log_q is None
    model.set_items(tiny_catalog(["a", "b"]))
    assert model.items.log_q is None


def test_a_padding_item_that_is_a_target_has_no_share_to_correct_for(lively_model: MakeModel, batch: Batch) -> None:
    model = lively_model(item_loss="in_batch", use_log_q=True, score_padding_item=True)
    model.set_item_frequencies(torch.ones(model.items.num_rows))
    for training in (True, False):
        with pytest.raises(ValueError, match="label 0 is none of the model's items 1.."):
            model.train(training)(**batch | {"labels": batch["labels"].clone().index_fill_(0, torch.tensor([0]), 0)})


def test_the_number_of_targets_in_the_accumulated_batch_divides_the_sum(lively_model: MakeModel, batch: Batch) -> None:
    for options in ({}, {"item_loss": "in_batch"}):
        model = lively_model(**options, **NO_DROPOUT)
        for mode in (True, False):
            mean = model.train(mode)(**batch).loss
            torch.testing.assert_close(model(**batch, num_items_in_batch=12).loss, mean * 3 / 12)


def test_user_vectors_come_without_scores(lively_model: MakeModel, batch: Batch) -> None:
    model = lively_model()
    with torch.no_grad():
        expected = model(**batch).user_embeds
        histories = {name: value for name, value in batch.items() if name != "labels"}
        assert torch.equal(model.user_embeds(**histories), expected)
        assert torch.equal(model.user_embeds(**histories, item_embeds=model.item_embeds()), expected)


def test_a_zero_vector_normalises_to_zero_with_a_zero_gradient() -> None:
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0]], requires_grad=True)
    y = l2_normalize(x)
    torch.testing.assert_close(y, torch.tensor([[0.0, 0.0], [0.6, 0.8]]))
    y.sum().backward()
    assert x.grad[0].tolist() == [0.0, 0.0]
    # d(x/|x|)/dx summed over outputs, at (3, 4): (y_2 - 0.6 (0.6 + 0.8), ...)/5
    torch.testing.assert_close(x.grad[1], torch.tensor([(1 - 0.6 * 1.4) / 5, (1 - 0.8 * 1.4) / 5]))


class Processes:
    """Threads in the places of processes: what `torch.distributed` gives each of them, by the documentation."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
        self.count, self.barrier = count, threading.Barrier(count, timeout=60)
        self.own, self.given = threading.local(), [torch.empty(0)] * count
        for name, stand_in in (
            ("get_world_size", lambda: count),
            ("get_rank", lambda: self.own.rank),
            ("all_gather", self.all_gather),
            ("all_reduce", self.all_reduce),
        ):
            monkeypatch.setattr(loss_mmm4rec.dist, name, stand_in)

    def exchange(self, x: torch.Tensor) -> list[torch.Tensor]:
        self.given[self.own.rank] = x.detach().clone()
        self.barrier.wait()
        exchanged = list(self.given)
        self.barrier.wait()
        return exchanged

    def all_gather(self, parts: list[torch.Tensor], x: torch.Tensor) -> None:
        for part, other in zip(parts, self.exchange(x), strict=True):
            assert part.shape == other.shape
            part.copy_(other)

    def all_reduce(self, x: torch.Tensor) -> None:
        x.copy_(torch.stack(self.exchange(x)).sum(0))

    def run(self, work: Callable[[int], Any]) -> list[Any]:
        """What each made of its rank."""

        def as_rank(rank: int) -> Any:
            self.own.rank = rank
            try:
                return work(rank)
            except BaseException:
                self.barrier.abort()  # the others would wait for it
                raise

        with ThreadPoolExecutor(self.count) as pool:
            return list(pool.map(as_rank, range(self.count)))


@pytest.mark.parametrize("sizes", [(2, 2, 2), (1, 3, 2), (3, 1), (1, 4)])
def test_the_targets_of_all_processes_are_negatives_and_each_gets_its_gradient(
    monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, ...]
) -> None:
    draw = torch.Generator().manual_seed(0)
    users, targets = (torch.randn(sum(sizes), 4, generator=draw, requires_grad=True) for _ in range(2))
    labels = torch.arange(1, sum(sizes) + 1)
    labels[-1] = labels[0]  # the same item in the first and in the last process
    parts = list(zip(users.split(sizes), targets.split(sizes), labels.split(sizes), strict=True))

    def one(rank: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        own_users, own_targets, own_labels = parts[rank]
        leaves = own_users.detach().requires_grad_(), own_targets.detach().requires_grad_()
        loss = in_batch_cross_entropy(*leaves, own_labels, 0.7, gather=True, num_items_in_batch=sum(sizes))
        return loss.detach(), *torch.autograd.grad(loss, leaves)

    found = Processes(monkeypatch, len(sizes)).run(one)
    losses, user_grads, target_grads = zip(*found, strict=True)
    expected = in_batch_cross_entropy(users, targets, labels, 0.7)
    torch.testing.assert_close(sum(losses), expected.detach())
    grads = torch.autograd.grad(expected, (users, targets))
    torch.testing.assert_close(torch.cat(user_grads), grads[0])
    torch.testing.assert_close(torch.cat(target_grads), grads[1])


def test_a_score_of_the_first_chunk_far_above_all_others_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_mmm4rec, "PLAIN_SCORES", 0)
    monkeypatch.setattr(loss_mmm4rec, "_CHUNK_SCORES", 4)
    users, items = torch.tensor([[200.0, 0.0]], requires_grad=True), torch.zeros(13, 2)
    items[1, 0], items[2:, 1] = 1.0, 1.0
    loss = full_cross_entropy(users, items, torch.tensor([2]), 1.0)
    loss.backward()
    assert loss.item() == pytest.approx(200) and users.grad.isfinite().all()


def test_a_batch_of_no_rows_has_loss_zero() -> None:
    assert full_cross_entropy(torch.zeros(0, 4), torch.zeros(5, 4), torch.zeros(0, dtype=torch.long), 1.0) == 0
