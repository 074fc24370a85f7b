"""Histories side by side: nothing is lost, nothing overlaps, and convolutions see their own history only."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mmm4rec_hf.modeling.convolution_mmm4rec import depthwise_conv, history_conv, window_conv
from mmm4rec_hf.modeling.packing_mmm4rec import events_first, one_history_a_row, pack_histories
from mmm4rec_hf.modeling.ssd_mmm4rec import ssd

ACTIVATIONS = {"silu": nn.functional.silu, "hardswish": nn.functional.hardswish}


def mask_of(counts: list[int], length: int) -> torch.Tensor:
    return torch.arange(length) < torch.tensor(counts).unsqueeze(1)


def by_definition(conv: nn.Conv1d, history: torch.Tensor) -> torch.Tensor:
    """[n, c] -> [n, c], one sum of K terms at a time."""
    size = conv.kernel_size[0]
    rows = []
    for t in range(len(history)):
        row = conv.bias.clone()
        for k in range(size):
            if t - k >= 0:
                row = row + conv.weight[:, 0, size - 1 - k] * history[t - k]
        rows.append(row)
    return torch.stack(rows)


@settings(deadline=None)
@given(
    st.integers(1, 12).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.integers(1, n), min_size=1, max_size=40)))
)
def test_every_event_has_one_slot_and_histories_stay_whole(drawn: tuple[int, list[int]]) -> None:
    length, counts = drawn
    layout = pack_histories(mask_of(counts, length))
    owner = layout.history.flatten()
    for history, count in enumerate(counts):
        slots = (owner == history).nonzero()[:, 0].tolist()
        assert slots == list(range(slots[0], slots[0] + count))  # side by side,
        assert slots[0] // length == slots[-1] // length  # in one row,
        assert layout.position[slots].tolist() == list(range(count))  # in order,
        assert layout.source[slots].tolist() == [history * length + t for t in range(count)]
        assert layout.last[history] == slots[-1]
    assert (owner >= 0).sum() == sum(counts)
    # An empty slot reads a padded position, never an event of a history.
    assert not mask_of(counts, length).flatten()[layout.source[owner < 0]].any()
    assert len(layout.history) <= len(counts)


def test_short_histories_share_a_row() -> None:
    layout = pack_histories(mask_of([2, 4, 1, 1], 4))
    assert layout.history.tolist() == [[1, 1, 1, 1], [0, 0, 2, 3]]
    assert layout.gather(torch.arange(16).view(4, 4)).tolist() == [4, 5, 6, 7, 0, 1, 8, 12]


@pytest.mark.parametrize("activation", ["silu", "hardswish"])
@pytest.mark.parametrize("counts", [[3, 1, 2], [6, 6], [5, 4, 3, 2, 1, 6], [1] * 700])
def test_the_packed_convolution_is_the_definition_on_each_history(counts: list[int], activation: str) -> None:
    torch.manual_seed(0)
    conv = depthwise_conv(5, 4).double()
    dense = torch.randn(len(counts), 6, 5, dtype=torch.double, requires_grad=True)
    layout = pack_histories(mask_of(counts, 6))
    (packed,) = history_conv(conv, layout.gather(dense), layout, activation)
    owner = layout.history.flatten()
    cotangent = torch.randn(len(counts), 6, 5, dtype=torch.double)
    leaves = (dense, conv.weight, conv.bias)
    ours = naive = torch.zeros((), dtype=torch.double)
    for history, count in enumerate(counts):
        expected = ACTIVATIONS[activation](by_definition(conv, dense[history, :count]))
        got = packed[owner == history]
        torch.testing.assert_close(got, expected, atol=1e-10, rtol=0)
        naive = naive + (cotangent[history, :count] * expected).sum()
        ours = ours + (cotangent[history, :count] * got).sum()
    for mine, its in zip(torch.autograd.grad(ours, leaves), torch.autograd.grad(naive, leaves), strict=True):
        torch.testing.assert_close(mine, its, atol=1e-9, rtol=0)


def test_gradients_of_gradients_of_the_packed_convolution_are_refused() -> None:
    x = torch.randn(2, 3, 5).requires_grad_()
    layout = pack_histories(mask_of([1, 2], 3))
    (packed,) = history_conv(depthwise_conv(5, 4), layout.gather(x), layout, "silu")
    (grad,) = torch.autograd.grad(packed.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


@pytest.mark.parametrize("gradients", [True, False])
def test_a_history_a_row_is_convolved_by_the_definition_in_either_mode(gradients: bool) -> None:
    torch.manual_seed(0)
    conv, dense = depthwise_conv(5, 4), torch.randn(3, 6, 5)
    with torch.set_grad_enabled(gradients):
        got = history_conv(conv, dense.flatten(0, 1), one_history_a_row(mask_of([6, 2, 4], 6)), "silu", (3, 2))
    assert [part.shape for part in got] == [(18, 3), (18, 2)]
    expected = torch.cat([nn.functional.silu(by_definition(conv, history)) for history in dense])
    torch.testing.assert_close(torch.cat(got, 1), expected, atol=1e-6, rtol=0)


def test_the_window_gives_the_convolution_at_the_last_event() -> None:
    torch.manual_seed(0)
    conv = depthwise_conv(5, 4)
    counts = [1, 2, 3, 6, 4]
    dense = torch.randn(5, 6, 5)
    for layout in (pack_histories(mask_of(counts, 6)), one_history_a_row(mask_of(counts, 6))):
        window, events = layout.window(4)
        assert events.sum(1).tolist() == [1, 2, 3, 4, 4]
        got = window_conv(conv, layout.gather(dense)[window], events, "silu")
        for history, count in enumerate(counts):
            expected = nn.functional.silu(by_definition(conv, dense[history, :count]))[-1]
            torch.testing.assert_close(got[history], expected, atol=1e-6, rtol=0)


def test_the_quadratic_form_keeps_the_histories_of_a_row_apart() -> None:
    torch.manual_seed(0)
    x, dt = torch.randn(1, 7, 4, 3), torch.rand(1, 7, 4)
    B, C = torch.randn(1, 7, 2, 5), torch.randn(1, 7, 2, 5)
    A, D = -torch.rand(4), torch.randn(4)
    sequence = torch.tensor([[0, 0, 0, 1, 1, 1, 1]])
    # As a configuration's file tells it: equal to the word in the code, and another object.
    got = ssd(x, dt, A, B, C, D, json.loads('"quadratic"'), sequence=sequence)
    for part in (slice(0, 3), slice(3, 7)):
        alone = ssd(x[:, part], dt[:, part], A, B[:, part], C[:, part], D, "recurrent")
        torch.testing.assert_close(got[:, part], alone, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="quadratic"):
        ssd(x, dt, A, B, C, D, "chunked", sequence=sequence)


def test_an_adapter_in_the_place_of_a_projection_is_called(lively_model: Callable[..., Any]) -> None:
    """Parts of a projection are computed apart; what stands in its place must not be passed over."""

    class Adapter(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * 1.5

    model = lively_model(num_hidden_layers=2).eval()
    inputs = {"input_ids": torch.tensor([[3, 1, 2], [4, 0, 0]]), "timestamps": torch.tensor([[1, 9, 700], [5, 0, 0]])}
    for layer in model.model.encoder.layers:
        for part, name in ((layer.ssd, "in_proj"), (layer.cross_ssd, "content_proj")):
            linear = getattr(part, name)
            adapter = Adapter(linear.in_features, linear.out_features)
            adapter.load_state_dict(linear.state_dict())
            setattr(part, name, adapter)
    with torch.no_grad():
        adapted = model(**inputs).logits
        for layer in model.model.encoder.layers:
            for adapter in (layer.ssd.in_proj, layer.cross_ssd.content_proj):
                adapter.__class__ = nn.Linear
                adapter.weight *= 1.5
                adapter.bias *= 1.5
        torch.testing.assert_close(adapted, model(**inputs).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("training", [False, True])
def test_items_that_enter_once_give_the_outputs_and_gradients_of_each_event(
    lively_model: Callable[..., Any], batch: dict[str, torch.Tensor], training: bool
) -> None:
    """Without dropout the first layer projects an item once, however often it stands in the batch."""
    model = lively_model(num_hidden_layers=2, embedding_dropout=0.0, hidden_dropout=0.0, time_dropout=0.0)
    model.train(training)

    def step(every_position: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        model.zero_grad()
        # With its hidden states asked for, every event is computed in a slot of its own.
        output = model(**batch, output_hidden_states=every_position)
        output.loss.backward()
        return output.user_embeds.detach(), {name: p.grad for name, p in model.named_parameters()}

    projected = []
    in_proj = model.model.encoder.layers[0].ssd.in_proj
    users, gradients = step(every_position=False)
    expected, their_gradients = step(every_position=True)
    torch.testing.assert_close(users, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradients, their_gradients, atol=1e-5, rtol=1e-4)

    in_proj.register_forward_pre_hook(lambda _, arguments: projected.append(len(arguments[0])))
    step(every_position=False)
    # 11 different items, and the padding that fills the last of 16 slots, in two branches.
    assert set(projected) == {2 * 12}


def test_slots_of_two_histories_by_hand() -> None:
    layout = pack_histories(torch.tensor([[1, 0, 0, 0, 0], [1, 1, 1, 0, 0]]))
    assert layout.history.tolist() == [[1, 1, 1, 0, -1]] and layout.last.tolist() == [3, 2]
    # The kernels' numbers of sequences begin at 0.
    assert layout.sequence().tolist() == [[2, 2, 2, 1, 0]]


def test_a_single_history_is_its_events_whatever_their_width() -> None:
    layout = pack_histories(torch.tensor([[1, 1, 1, 0, 0]]))
    x = torch.arange(15).view(1, 5, 3)
    assert layout.gather(x).tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]] and layout.sequence() is None


def test_events_are_where_a_mask_is_not_zero() -> None:
    positions, mask = events_first(torch.tensor([[0, -1, 0, 2]]), 3)
    assert mask.tolist() == [[True, True, False]] and positions[0, :2].tolist() == [1, 3]


@pytest.mark.parametrize(("length", "kernel"), [(2, 4), (2, 8), (3, 6), (1, 3)])
def test_a_kernel_longer_than_all_slots_gives_the_gradients_of_rows(
    lively_model: Callable[..., Any], length: int, kernel: int
) -> None:
    ids = torch.tensor([[1, 2, 3], [4, 0, 0]])[:, :length]
    grads = []
    for form in ("quadratic", "chunked"):  # packed, and a history a row
        model = lively_model(
            max_sequence_length=length, conv_kernel=kernel, ssd_implementation=form, hidden_dropout=0.0,
            embedding_dropout=0.0, time_dropout=0.0,
        ).train()  # fmt: skip
        model(input_ids=ids, timestamps=ids * 1000, labels=torch.tensor([5, 6])).loss.backward()
        grads.append(model.model.encoder.layers[0].ssd.conv.weight.grad)
    torch.testing.assert_close(grads[0], grads[1], atol=1e-5, rtol=1e-4)
