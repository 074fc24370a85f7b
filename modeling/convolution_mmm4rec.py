"""Causal depthwise convolutions over histories, and the activation that follows each of them."""

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .kernels_mmm4rec import causal_conv_kernel
from .packing_mmm4rec import MMM4RecLayout

# Slots multiplied at a time: what is written stays in a core's cache.
_BLOCK = 256

_ACTIVATIONS: dict[str, Callable[..., Tensor]] = {"silu": F.silu, "hardswish": F.hardswish}
# From the gradient behind the activation that in front of it, written over what went in.
_TURN_INTO_GRADIENT: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "silu": lambda grad, x: torch.ops.aten.silu_backward.grad_input(grad, x, grad_input=x),
    "hardswish": lambda grad, x: torch.ops.aten.hardswish_backward.out(grad, x, out=x),
}


def depthwise_conv(channels: int, kernel_size: int, dtype: torch.dtype | None = None) -> nn.Conv1d:
    """A depthwise convolution; its first `kernel_size - 1` outputs see padding, its last ones are to be cut off."""
    return nn.Conv1d(channels, channels, kernel_size, groups=channels, padding=kernel_size - 1, dtype=dtype)


def causal_conv(conv: nn.Conv1d, x: Tensor) -> Tensor:
    """[b, c, l] -> [b, c, l]: a depthwise convolution that sees no later position."""
    return conv(x)[..., : x.shape[-1]]


def history_conv(
    conv: nn.Conv1d, x: Tensor, layout: MMM4RecLayout, activation: str, sizes: Sequence[int] | None = None
) -> tuple[Tensor, ...]:
    """
    The convolution along each history, then its activation.

    Args:
        conv (`nn.Conv1d`): As [`depthwise_conv`] makes it.
        x (`torch.Tensor` of shape `(r * n * l, c)`): The slots of `r` branches that share a layout.
        layout ([`MMM4RecLayout`]): Says where histories begin.
        activation (`"silu"` or `"hardswish"`): What follows.
        sizes (`Sequence[int]`, *optional*): Channels of each tensor to return; one tensor by default.

    Returns:
        `tuple(torch.Tensor)`: Each of shape `(r * n * l, size)`, in x's dtype.
    """
    sizes = (x.shape[1],) if sizes is None else tuple(sizes)
    kernel = causal_conv_kernel(conv, x.device)
    if kernel is not None:
        return _by_kernel(kernel, conv, x, layout, activation).split(sizes, dim=-1)
    if not layout.packed:
        y = _by_rows(conv, x.unflatten(0, (-1, layout.length)))
        return views(_ACTIVATIONS[activation](y.flatten(0, 1)), sizes, -1)
    position = layout.position.repeat(x.shape[0] // len(layout.position))
    weight, bias = _taps(conv, x.dtype)
    found: tuple[Tensor, ...] = _PackedConv.apply(x, weight, bias, activation, sizes, *_edges(position, len(weight)))
    return found


def views(x: Tensor, sizes: Sequence[int], dim: int) -> tuple[Tensor, ...]:
    """
    As `x.split(sizes, dim)`. Without gradients each part is cut out by itself: ONNX makes constants of a weight's
    parts then, where a split would copy all of them in every run.
    """
    if torch.is_grad_enabled():
        return x.split(list(sizes), dim=dim)
    ends = list(accumulate(sizes))
    return tuple(x.narrow(dim, end - size, size) for end, size in zip(ends, sizes, strict=True))


def _by_rows(conv: nn.Conv1d, x: Tensor) -> Tensor:
    """[n, l, c] -> [n, l, c]: `causal_conv` where channels lie together."""
    if torch.is_grad_enabled() or x.dtype != torch.float32:
        return causal_conv(conv, x.transpose(1, 2)).transpose(1, 2)
    # Of a single history K products take half the time of a convolution, and in ONNX less.
    length, (weight, bias) = x.shape[1], _taps(conv, x.dtype)
    padded = F.pad(x, (0, 0, len(weight) - 1, 0))
    y = bias
    for k, tap in enumerate(weight):
        y = torch.addcmul(y, padded[:, k : k + length], tap)
    return y


def _by_kernel(
    kernel: Callable[..., Tensor], conv: nn.Conv1d, x: Tensor, layout: MMM4RecLayout, activation: str
) -> Tensor:
    rows = x.contiguous().unflatten(0, (-1, layout.length)).transpose(1, 2)  # channels last, as sequences need it
    sequence = layout.sequence()
    if sequence is not None:
        sequence = sequence.repeat(len(rows) // len(sequence), 1).to(torch.int32)
    bias = None if conv.bias is None else conv.bias.to(x.dtype)
    fused = activation if activation == "silu" else None
    y = kernel(rows, conv.weight.squeeze(1).to(x.dtype), bias, seq_idx=sequence, activation=fused)
    y = y.transpose(1, 2).flatten(0, 1)
    return y if fused else _ACTIVATIONS[activation](y)


def window_conv(conv: nn.Conv1d, windows: Tensor, events: Tensor, activation: str) -> Tensor:
    """
    The convolution's output at the last event of each history alone, then its activation.

    Args:
        conv (`nn.Conv1d`): As [`depthwise_conv`] makes it.
        windows (`torch.Tensor` of shape `(b, kernel_size, c)`): The last inputs of each history, oldest first.
        events (`torch.Tensor` of shape `(b, kernel_size)`): Which of them are events.
        activation (`"silu"` or `"hardswish"`): What follows.

    Returns:
        `torch.Tensor` of shape `(b, c)`: In the dtype of `windows`.
    """
    weight, bias = _taps(conv, windows.dtype)
    return _ACTIVATIONS[activation]((windows * events.unsqueeze(-1) * weight).sum(1) + bias)


def _taps(conv: nn.Conv1d, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """[K, c], oldest first, and [c]"""
    bias = conv.bias if conv.bias is not None else conv.weight.new_zeros(conv.out_channels)
    return conv.weight.squeeze(1).T.to(dtype), bias.to(dtype)


def _edges(position: Tensor, size: int) -> list[Tensor]:
    """[s] -> the slots that are first, second, ... of a history, then those that are last, last but one, ...: as many
    as a convolution would reach across, `size - 1` of either."""
    first = [(position == place).nonzero().flatten() for place in range(size - 1)]
    last = (position.roll(-1) == 0).nonzero().flatten()
    return first + [last[position[last] >= place] - place for place in range(size - 1)]


class _PackedConv(torch.autograd.Function):
    """
    Convolution with resets, and activation: one pass over all slots as if they were one history, then the slots at a
    history's edge again without their neighbours. Only the input is kept for the gradient; the convolution is so cheap
    that it is computed again.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, activation: str, sizes: tuple[int, ...], *edges: Tensor
    ) -> tuple[Tensor, ...]:
        # [s, c], [K, c], [c], 2 (K - 1) tensors of `_edges`
        ctx.save_for_backward(x, weight, bias, *edges)
        ctx.activation, ctx.sizes = activation, sizes
        before = _convolve(x, weight, bias, edges[: len(edges) // 2])
        # Each in memory of its own, as the operations that follow would copy them otherwise.
        return tuple(_ACTIVATIONS[activation](part) for part in before.split(sizes, dim=1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, weight, bias, *edges = ctx.saved_tensors
        first, last = edges[: len(edges) // 2], edges[len(edges) // 2 :]
        grad = _convolve(x, weight, bias, first)
        for part, of_part in zip(grad.split(ctx.sizes, dim=1), grads, strict=True):
            _TURN_INTO_GRADIENT[ctx.activation](of_part, part)
        grad_x = _correlate(grad, weight, last)
        grad_bias = grad.sum(0)
        grad_weight = torch.empty_like(weight)
        for k in range(len(weight)):
            if k > 0:
                # Their input k slots before belongs to another history.
                grad.index_fill_(0, first[k - 1], 0)
            grad_weight[-1 - k] = _sum_of_products(grad[k:], x[: max(0, len(x) - k)])
        return grad_x, grad_weight, grad_bias, None, None, *(None for _ in edges)


def _convolve(x: Tensor, weight: Tensor, bias: Tensor, first: Sequence[Tensor]) -> Tensor:
    """y_t = bias + sum_k w_k x_(t-k), k within the history: [s, c], [K, c] oldest first, [c] -> [s, c]"""
    y = _native(x, weight, bias)[: len(x)]
    for place, slots in enumerate(first):
        part = torch.addcmul(bias, x[slots], weight[-1])
        for k in range(1, place + 1):
            part.addcmul_(x[slots - k], weight[-1 - k])
        y.index_copy_(0, slots, part)
    return y


def _correlate(grad: Tensor, weight: Tensor, last: Sequence[Tensor]) -> Tensor:
    """The gradient of x: sum_k w_k grad_(t+k), k within the history."""
    size = len(weight)
    y = _native(grad, weight.flip(0), None)[size - 1 :]
    for place, slots in enumerate(last):
        part = grad[slots] * weight[-1]
        for k in range(1, place + 1):
            part.addcmul_(grad[slots + k], weight[-1 - k])
        y.index_copy_(0, slots, part)
    return y


def _native(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """[s, c], [K, c] -> [s + K - 1, c]: over a picture one pixel high, whose channels lie together as slots have them:
    in this form torch's depthwise convolution costs little more than reading its input."""
    size, channels = weight.shape
    image = x.contiguous().view(1, 1, -1, channels).permute(0, 3, 1, 2)
    taps = weight.T.reshape(channels, 1, 1, size)
    y = F.conv2d(image, taps, bias, padding=(0, size - 1), groups=channels)
    return y.permute(0, 2, 3, 1).reshape(-1, channels)


def _sum_of_products(one: Tensor, other: Tensor) -> Tensor:
    """[s, c], [s, c] -> [c], a block at a time, so that products stay in a core's cache."""
    size = _BLOCK if one.device.type == "cpu" else len(one)
    # Sums over all slots: half precision would lose them.
    total = torch.zeros(one.shape[1], dtype=torch.promote_types(one.dtype, torch.float32), device=one.device)
    for pair in zip(one.split(size), other.split(size), strict=True):
        total += torch.mul(*pair).sum(0, dtype=total.dtype)
    return total.to(one.dtype)


__all__ = ["causal_conv", "depthwise_conv", "history_conv", "window_conv"]
