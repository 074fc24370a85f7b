"""The time path: intervals between events, how they modulate the state space layers, and the Fourier filter.

Everything here is computed in float32, also in half precision and under autocast: intervals span nine orders of
magnitude.
Signals have the shape [b, h, l]; an optional mask [b, 1, l] (1 where an event stands) keeps padding out of them.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .configuration_mmm4rec import MMM4RecConfig
from .convolution_mmm4rec import depthwise_conv
from .dropout_mmm4rec import MMM4RecDropout


class MMM4RecTimeLinear(nn.Linear):
    """A linear layer of the time path: in float32, whatever its dtype and its input's."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.float(), self.weight.float(), self.bias.float())


def float32_causal_conv(conv: nn.Conv1d, x: Tensor) -> Tensor:
    """`causal_conv(conv, x)` in float32, whatever the dtype of either."""
    size, length = conv.kernel_size[0], x.shape[-1]
    weight, padded = conv.weight.float(), F.pad(x.float(), (size - 1, 0))  # [c, 1, K], [b, c, l + K - 1]
    if not torch.is_grad_enabled():
        return F.conv1d(padded, weight, None if conv.bias is None else conv.bias.float(), groups=conv.groups)
    # Over so few channels K products are several times faster than torch's convolution with its gradient.
    taps = [weight[:, :, k] * padded[..., k : k + length] for k in range(size)]
    y = torch.stack(taps).sum(0)
    return y if conv.bias is None else y + conv.bias.float().unsqueeze(-1)


def event_intervals(timestamps: Tensor) -> Tensor:
    """[b, l] int64 unix seconds -> [b, l] float32 seconds since the event before, 0 for the first."""
    first = torch.zeros_like(timestamps[:, :1])
    # Subtracted as integers: float32 holds unix seconds to two minutes only.
    return torch.cat([first, timestamps[:, 1:] - timestamps[:, :-1]], dim=1).float()


def log_intervals(intervals: Tensor) -> Tensor:
    """
    Seconds on a logarithmic scale: 0 stands for 50 minutes, and a unit more for 55 times as long, so that seconds are
    near -2, a day is 0.8 and a year 2.3. The first event, which none came before, gets 0.

    Args:
        intervals (`torch.Tensor` of shape `(b, l)`): As [`event_intervals`] gives them; a negative one counts as 0.
    """
    logs = (intervals.clamp_min(0).log1p() - 8) / 4
    return logs * (torch.arange(intervals.shape[1], device=intervals.device) > 0)


class MMM4RecTimeNorm(nn.Module):
    """
    LayerNorm over the positions of a history; with a mask, over its events alone. Time signals that have a scale keep
    it: with `time_mode="log"` there are only weights and biases of positions.
    """

    def __init__(self, config: MMM4RecConfig):
        super().__init__()
        self.eps = config.norm_eps
        self.keeps_scale = config.time_mode == "log"
        self.weight = nn.Parameter(torch.ones(config.max_sequence_length, dtype=torch.float32))
        self.bias = nn.Parameter(torch.zeros(config.max_sequence_length, dtype=torch.float32))

    def forward(self, signal: Tensor, mask: Tensor | None = None) -> Tensor:
        weight, bias = self.weight.float(), self.bias.float()
        if self.keeps_scale:
            scaled = signal * weight + bias
            return scaled if mask is None else mask * scaled
        if mask is None:
            return F.layer_norm(signal, weight.shape, weight, bias, self.eps)
        count = mask.sum(-1, keepdim=True).clamp_min(1)
        centred = mask * (signal - (mask * signal).sum(-1, keepdim=True) / count)
        variance = centred.square().sum(-1, keepdim=True) / count
        return mask * (centred * torch.rsqrt(variance + self.eps) * weight + bias)


class MMM4RecTimeModulation(nn.Module):
    """tau: what the intervals multiply the step sizes of a state space layer with."""

    def __init__(self, config: MMM4RecConfig, activation: Callable[[Tensor], Tensor]):
        super().__init__()
        length, heads = config.max_sequence_length, config.num_heads
        self.dropout = MMM4RecDropout(config.time_dropout)
        self.scale_in = MMM4RecTimeLinear(length, length, dtype=torch.float32)
        self.scale_out = MMM4RecTimeLinear(length, length, dtype=torch.float32)
        self.conv_1 = depthwise_conv(heads, config.conv_kernel, dtype=torch.float32)
        self.conv_2 = depthwise_conv(heads, config.conv_kernel, dtype=torch.float32)
        self.activation = activation

    def forward(self, intervals: Tensor) -> Tensor:
        # [b, h, l] -> [b, h, l]
        with torch.autocast(intervals.device.type, enabled=False):
            hidden = F.silu(self.scale_in(self.dropout(intervals)))
            scale = F.tanhshrink(self.scale_out(hidden))
            tau = self.activation(float32_causal_conv(self.conv_1, intervals * scale))
            return self.activation(float32_causal_conv(self.conv_2, tau))


class MMM4RecTimeGate(nn.Module):
    """d': the signal that the next state space layer reads, a gated sum of the intervals and tau."""

    def __init__(self, config: MMM4RecConfig):
        super().__init__()
        length = config.max_sequence_length
        self.dropout = MMM4RecDropout(config.time_dropout)
        self.gate = MMM4RecTimeLinear(length, length if config.point_to_point_gate else 1, dtype=torch.float32)
        self.norm = MMM4RecTimeNorm(config)

    def forward(self, intervals: Tensor, tau: Tensor, mask: Tensor | None) -> Tensor:
        # [b, h, l], [b, h, l] -> [b, h, l]
        with torch.autocast(intervals.device.type, enabled=False):
            gate = torch.sigmoid(self.gate(self.dropout(intervals)))
            return self.norm(gate * intervals + (1 - gate) * tau, mask)


class MMM4RecComplexLinear(nn.Module):
    """A complex linear layer of two real ones, R and S: (R(re) - S(im)) + i (S(re) + R(im))."""

    def __init__(self, size: int):
        super().__init__()
        self.real = MMM4RecTimeLinear(size, size)
        self.imag = MMM4RecTimeLinear(size, size)

    def forward(self, re: Tensor, im: Tensor) -> tuple[Tensor, Tensor]:
        return (
            self.real(re) - self.imag(im),
            self.imag(re) + self.real(im),
        )


class MMM4RecFourierFilter(nn.Module):
    """The dual-channel Fourier filter: the image and the text branch's time signals, mixed in the frequency domain."""

    def __init__(self, config: MMM4RecConfig):
        super().__init__()
        frequencies = config.max_sequence_length // 2 + 1
        self.image_filter = MMM4RecComplexLinear(frequencies)
        self.text_filter = MMM4RecComplexLinear(frequencies)
        self.output_filter = MMM4RecComplexLinear(frequencies)

    def forward(self, image_time: Tensor, text_time: Tensor, mask: Tensor | None) -> Tensor:
        # [b, h, l], [b, h, l] -> [b, h, l]
        with torch.autocast(image_time.device.type, enabled=False):
            cos, sin = self._basis(image_time.shape[-1], image_time.device)
            image_re, image_im = image_time @ cos, -(image_time @ sin)
            text_re, text_im = text_time @ cos, -(text_time @ sin)
            image_weight_re, image_weight_im = self.image_filter(image_re, image_im)
            text_weight_re, text_weight_im = self.text_filter(text_re, text_im)
            mixed_re = image_weight_re * image_re - image_weight_im * image_im
            mixed_re = mixed_re + text_weight_re * text_re - text_weight_im * text_im
            mixed_im = image_weight_re * image_im + image_weight_im * image_re
            mixed_im = mixed_im + text_weight_re * text_im + text_weight_im * text_re
            out_re, out_im = self.output_filter(mixed_re, mixed_im)
            # A real signal's spectrum holds every frequency twice, except the constant and, for even l, the fastest.
            twice = torch.full((cos.shape[1],), 2.0, device=cos.device)
            twice[0] = 1.0
            if image_time.shape[-1] % 2 == 0:
                twice[-1] = 1.0
            signal = (twice * out_re) @ cos.T - (twice * out_im) @ sin.T
            return signal if mask is None else mask * signal

    @staticmethod
    def _basis(length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Orthonormal cosines and sines, each [l, l // 2 + 1]: histories are short, and nothing turns complex."""
        positions = torch.arange(length, device=device)
        # Reduced as integers first, so that the angles keep full precision.
        turns = torch.outer(positions, positions[: length // 2 + 1]) % length
        angles = turns.float() * (2 * math.pi / length)
        return angles.cos() / math.sqrt(length), angles.sin() / math.sqrt(length)


__all__ = [
    "MMM4RecFourierFilter",
    "MMM4RecTimeGate",
    "MMM4RecTimeLinear",
    "MMM4RecTimeModulation",
    "MMM4RecTimeNorm",
    "event_intervals",
    "log_intervals",
]
