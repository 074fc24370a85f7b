"""Causal depthwise convolutions over histories, and the activation that follows each of them."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .kernels_mmm4rec import causal_conv_kernel
from .packing_mmm4rec import MMM4RecLayout

# Slots worked on at a time: what the taps write stays in a core's cache.
_BLOCK = 512

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"silu": F.silu, "hardswish": F.hardswish}
_DERIVATIVES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "silu": torch.ops.aten.silu_backward,
    "hardswish": torch.ops.aten.hardswish_backward,
}


def depthwise_conv(channels: int, kernel_size: int, dtype: torch.dtype | None = None) -> nn.Conv1d:
    """A depthwise convolution; its first `kernel_size - 1` outputs see padding, its last ones are to be cut off."""
    return nn.Conv1d(channels, channels, kernel_size, groups=channels, padding=kernel_size - 1, dtype=dtype)


def causal_conv(conv: nn.Conv1d, x: Tensor) -> Tensor:
    """[b, c, l] -> [b, c, l]: a depthwise convolution that sees no later position."""
    return conv(x)[..., : x.shape[-1]]


def history_conv(conv: nn.Conv1d, x: Tensor, layout: MMM4RecLayout, activation: str) -> Tensor:
    """
    The convolution along each history, then its activation.

    Args:
        conv (`nn.Conv1d`): As [`depthwise_conv`] makes it.
        x (`torch.Tensor` of shape `(r * n * l, c)`): The slots of `r` branches that share a layout.
        layout ([`MMM4RecLayout`]): Says where histories begin.
        activation (`"silu"` or `"hardswish"`): What follows.

    Returns:
        `torch.Tensor` of shape `(r * n * l, c)`: In x's dtype.
    """
    kernel = causal_conv_kernel(conv, x.device)
    if kernel is not None:
        return _by_kernel(kernel, conv, x, layout, activation)
    if not layout.packed:
        rows = x.unflatten(0, (-1, layout.length)).transpose(1, 2)
        return _ACTIVATIONS[activation](causal_conv(conv, rows).transpose(1, 2).flatten(0, 1))
    position = layout.position.repeat(x.shape[0] // len(layout.position))
    reaches = [(position >= k).to(x.dtype).unsqueeze(1) for k in range(1, conv.kernel_size[0])]
    weight, bias = _taps(conv, x.dtype)
    return _PackedConv.apply(x, weight, bias, activation, *reaches)


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


class _PackedConv(torch.autograd.Function):
    """
    Convolution with resets, and activation: K multiply-adds of the slots with themselves, shifted. Only the input is
    kept for the gradient; the convolution is so cheap that it is computed again.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, activation: str, *reaches: Tensor) -> Tensor:
        # [s, c], [K, c], [c], K - 1 tensors [s, 1]: 1 where the slot k places before belongs to the same history.
        ctx.save_for_backward(x, weight, bias, *reaches)
        ctx.activation = activation
        y = torch.empty_like(x)
        for begin, end in _blocks(x):
            y[begin:end] = _ACTIVATIONS[activation](_convolve(x, weight, bias, reaches, begin, end))
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, weight, bias, *reaches = ctx.saved_tensors
        (grad,) = grads
        grad_x = torch.empty_like(x)
        # Sums over all slots: half precision would lose them.
        wide = torch.promote_types(weight.dtype, torch.float32)
        grad_weight, grad_bias = torch.zeros_like(weight, dtype=wide), torch.zeros_like(bias, dtype=wide)
        size = len(weight)
        for begin, end in _blocks(x):
            before = _convolve(x, weight, bias, reaches, begin, end)
            block = _DERIVATIVES[ctx.activation](grad[begin:end], before)
            torch.mul(block, weight[-1], out=grad_x[begin:end])
            grad_weight[-1] += (block * x[begin:end]).sum(0)
            grad_bias += block.sum(0)
            for k in range(1, size):
                first = max(begin, k)
                part = block[first - begin :] * reaches[k - 1][first:end]
                grad_x[first - k : end - k].addcmul_(part, weight[-1 - k])
                grad_weight[-1 - k] += part.mul_(x[first - k : end - k]).sum(0)
        return grad_x, grad_weight.to(weight.dtype), grad_bias.to(bias.dtype), None, *(None for _ in reaches)


def _blocks(x: Tensor) -> list[tuple[int, int]]:
    size = _BLOCK if x.device.type == "cpu" else max(len(x), 1)
    return [(begin, min(begin + size, len(x))) for begin in range(0, len(x), size)]


def _convolve(
    x: Tensor, weight: Tensor, bias: Tensor, reaches: list[Tensor] | tuple[Tensor, ...], begin: int, end: int
) -> Tensor:
    """The convolution at the slots `begin` to `end`."""
    y = torch.addcmul(bias, x[begin:end], weight[-1])
    for k, reach in enumerate(reaches, start=1):
        first = max(begin, k)
        y[first - begin :].addcmul_(x[first - k : end - k] * reach[first:end], weight[-1 - k])
    return y


__all__ = ["causal_conv", "depthwise_conv", "history_conv", "window_conv"]
