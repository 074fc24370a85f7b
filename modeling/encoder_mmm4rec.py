"""The layers: two branches that share a state space layer, then the image branch reads the text branch.

Letters in shape comments: b batch, l `max_sequence_length`, s slots of a layout, H `hidden_size`, E `inner_size`, h
heads, p `head_dim`, g groups, n `state_size`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import ModelOutput

from .configuration_mmm4rec import MMM4RecConfig
from .convolution_mmm4rec import depthwise_conv, history_conv, views, window_conv
from .dropout_mmm4rec import MMM4RecDropout
from .packing_mmm4rec import MMM4RecLayout, one_history_a_row, pack_histories
from .ssd_mmm4rec import PACKING_FORMS, ssd, ssd_form
from .time_mmm4rec import (
    MMM4RecFourierFilter,
    MMM4RecTimeGate,
    MMM4RecTimeModulation,
    MMM4RecTimeNorm,
    event_intervals,
    log_intervals,
)


def apart(linear: nn.Linear, x: Tensor, sizes: Sequence[int], wanted: Sequence[int]) -> list[Tensor]:
    """
    Parts of `linear(x)`, each computed where it is wanted and in memory of its own.

    Args:
        linear (`nn.Linear`): Any module in its place, such as an adapter, is called as a whole.
        x (`torch.Tensor` of shape `(s, in_features)`): Its input.
        sizes (`Sequence[int]`): Features of each part.
        wanted (`Sequence[int]`): Numbers of the parts.

    Returns:
        `list(torch.Tensor)`: Each of shape `(s, size)`.
    """
    if type(linear) is not nn.Linear or linear._forward_hooks or linear._forward_pre_hooks:
        parts = linear(x).split(list(sizes), dim=-1)
        return [parts[number] for number in wanted]
    weights, biases = views(linear.weight, sizes, 0), views(linear.bias, sizes, 0)
    return [F.linear(x, weights[number], biases[number]) for number in wanted]


class MMM4RecRMSNorm(nn.Module):
    """Mamba-2's gated norm: the gate first, then one RMSNorm over all of E."""

    def __init__(self, size: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        x32 = x.float() * F.silu(gate.float())
        x32 = x32 * torch.rsqrt(x32.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * x32.to(x.dtype)


class MMM4RecMLP(nn.Module):
    """FFN(x) = LN(dropout(fc2(dropout(Hardswish(fc1(x))))) + x)."""

    def __init__(self, config: MMM4RecConfig):
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps)
        self.dropout = MMM4RecDropout(config.hidden_dropout)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.dropout(F.hardswish(self.fc1(x)))
        return self.norm(self.dropout(self.fc2(hidden)) + x)


class MMM4RecStateSpace(nn.Module):
    """What the self and the cross state space layer share: step sizes, SSD, gated norm and the projection out."""

    def __init__(self, config: MMM4RecConfig, activation: str):
        super().__init__()
        self.config = config
        self.activation = activation
        self.dt_bias = nn.Parameter(torch.zeros(config.num_heads, dtype=torch.float32))
        self.A_log = nn.Parameter(torch.zeros(config.num_heads, dtype=torch.float32))
        self.D = nn.Parameter(torch.ones(config.num_heads, dtype=torch.float32))
        self.norm = MMM4RecRMSNorm(config.inner_size, config.norm_eps)
        self.out_proj = nn.Linear(config.inner_size, config.hidden_size)
        self.time_modulation = MMM4RecTimeModulation(config, ACT2FN[activation]) if config.use_time else None

    def scan(self, x: Tensor, dt: Tensor, B: Tensor, C: Tensor, tau: Tensor | None, layout: MMM4RecLayout) -> Tensor:
        """[s, E], [s, h], [s, g n], [s, g n], [s, h] -> [s, E]"""
        config, rows = self.config, (-1, layout.length)
        dt = dt.float()
        if tau is not None:
            dt = dt * tau
        delta = F.softplus(dt + self.dt_bias.float())
        sequence = layout.sequence()
        if sequence is not None:
            sequence = sequence.repeat(len(x) // sequence.numel(), 1)
        y = ssd(
            x.unflatten(-1, (config.num_heads, config.head_dim)).unflatten(0, rows),
            delta.unflatten(0, rows),
            -self.A_log.float().exp(),
            B.unflatten(-1, (config.n_groups, config.state_size)).unflatten(0, rows),
            C.unflatten(-1, (config.n_groups, config.state_size)).unflatten(0, rows),
            self.D.float(),
            implementation=config.ssd_implementation,
            chunk_size=config.chunk_size,
            sequence=sequence,
        )
        return y.flatten(2).flatten(0, 1)


class MMM4RecTimeAwareSSD(MMM4RecStateSpace):
    """TiSSD: self mixing of one modality's sequence, with step sizes that depend on the intervals."""

    def __init__(self, config: MMM4RecConfig):
        super().__init__(config, "silu")
        groups_state = config.n_groups * config.state_size
        self.splits = (config.inner_size, config.inner_size + 2 * groups_state, config.num_heads)
        self.conv_splits = (config.inner_size, groups_state, groups_state)
        self.in_proj = nn.Linear(config.hidden_size, sum(self.splits))
        self.conv = depthwise_conv(self.splits[1], config.conv_kernel)
        self.time_gate = MMM4RecTimeGate(config) if config.use_time else None

    def forward(
        self, x: Tensor, tau: Tensor | None, layout: MMM4RecLayout, wanted: Tensor | None, rows: Tensor | None
    ) -> Tensor:
        """
        Args:
            x (`torch.Tensor` of shape `(r * s, H)` or `(n, H)`): The slots of `r` branches, or different inputs.
            tau (`torch.Tensor` of shape `(r * s, h)`, *optional*): What multiplies the step sizes.
            layout ([`MMM4RecLayout`]): Which slots belong together.
            wanted (`torch.LongTensor` of shape `(q,)`, *optional*): The slots whose output is read.
            rows (`torch.LongTensor` of shape `(r * s,)`, *optional*): Which of the different inputs each slot holds.

        Returns:
            `torch.Tensor` of shape `(r * s, H)` or `(q, H)`.
        """
        content, dt = apart(self.in_proj, x, self.splits, (1, 2))
        if rows is not None:
            content, dt = content.index_select(0, rows), dt.index_select(0, rows)
        content, B, C = history_conv(self.conv, content, layout, self.activation, self.conv_splits)
        y = self.scan(content, dt, B, C, tau, layout)
        if wanted is not None:
            y = y[wanted]
        if rows is not None:
            (z,) = apart(self.in_proj, x, self.splits, (0,))
            z = z.index_select(0, rows if wanted is None else rows[wanted])
        else:
            (z,) = apart(self.in_proj, x if wanted is None else x[wanted], self.splits, (0,))
        return self.out_proj(self.norm(y, gate=z))


class MMM4RecTimeAwareCrossSSD(MMM4RecStateSpace):
    """TiCoSSD: the image branch asks (C), the text branch answers (X, B), both gate."""

    def __init__(self, config: MMM4RecConfig):
        super().__init__(config, config.cross_ssd_activation)
        groups_state = config.n_groups * config.state_size
        self.splits = (config.inner_size + groups_state, config.num_heads)
        self.conv_splits = (config.inner_size, groups_state)
        self.content_proj = nn.Linear(config.hidden_size, sum(self.splits))
        self.query_proj = nn.Linear(config.hidden_size, groups_state)
        self.gate_proj = nn.Linear(config.hidden_size, config.inner_size)
        self.content_conv = depthwise_conv(self.splits[0], config.conv_kernel)
        self.query_conv = depthwise_conv(groups_state, config.conv_kernel)

    def forward(
        self, query: Tensor, content: Tensor, tau: Tensor | None, layout: MMM4RecLayout, events: Tensor | None
    ) -> Tensor:
        """
        Args:
            query (`torch.Tensor` of shape `(s, H)` or `(b, conv_kernel, H)`):
                The image branch, at every slot, or the last positions of each history.
            content (`torch.Tensor` of shape `(s, H)`): The text branch.
            tau (`torch.Tensor` of shape `(s, h)`, *optional*): What multiplies the step sizes.
            layout ([`MMM4RecLayout`]): Which slots belong together.
            events (`torch.Tensor` of shape `(b, conv_kernel)`, *optional*):
                Which of the last positions are events; with it the output at each history's last event alone is read.

        Returns:
            `torch.Tensor` of shape `(s, H)` or `(b, H)`.
        """
        x, dt = apart(self.content_proj, content, self.splits, (0, 1))
        x, B = history_conv(self.content_conv, x, layout, self.activation, self.conv_splits)
        C = self.query_proj(query)
        if events is None:
            (C,) = history_conv(self.query_conv, C, layout, self.activation)
        else:
            C = window_conv(self.query_conv, C, events, self.activation)
            C = torch.zeros_like(B).index_copy(0, layout.last, C)
        y = self.scan(x, dt, B, C, tau, layout)
        if events is not None:
            y, query, content = y[layout.last], query[:, -1], content[layout.last]
        return self.out_proj(self.norm(y, gate=self.gate_proj(query + content)))


class MMM4RecLayer(GradientCheckpointingLayer):
    """Both branches pass the same TiSSD, then the image branch reads the text branch through the Cross-SSD."""

    def __init__(self, config: MMM4RecConfig):
        super().__init__()
        self.conv_kernel = config.conv_kernel
        self.ssd = MMM4RecTimeAwareSSD(config)
        self.cross_ssd = MMM4RecTimeAwareCrossSSD(config)
        self.fourier_filter = MMM4RecFourierFilter(config) if config.use_time else None
        self.text_norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps)
        self.image_norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps)
        self.cross_norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps)
        self.text_ffn = MMM4RecMLP(config) if config.use_ffn else nn.Identity()
        self.image_ffn = MMM4RecMLP(config) if config.use_ffn else nn.Identity()
        self.dropout = MMM4RecDropout(config.hidden_dropout)

    def forward(
        self,
        text: Tensor,
        image: Tensor,
        both_time: Tensor | None,
        mask: Tensor | None,
        layout: MMM4RecLayout,
        last_only: bool,
        rows: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """
        Args:
            text (`torch.Tensor` of shape `(s, H)` or `(n, H)`): The text branch, by slots, or different inputs.
            image (`torch.Tensor` of shape `(s, H)` or `(n, H)`): The image branch.
            both_time (`torch.Tensor` of shape `(2, b, h, l)`, *optional*): Time signals of both.
            mask (`torch.Tensor` of shape `(b, 1, l)`, *optional*): Keeps padding out of the time signals.
            layout ([`MMM4RecLayout`]): Which slots belong together.
            last_only (`bool`):
                Whether the image branch is read at each history's last event alone; then it is returned as `(b, H)`.
            rows (`torch.LongTensor` of shape `(s,)`, *optional*): Which of the different inputs each slot holds.

        Returns:
            `tuple`: text, image and both_time of the next layer.
        """
        tau, both_time, cross_tau = self.read_time(both_time, mask, layout)
        inputs, both_rows = torch.cat([text, image]), None
        if rows is not None:
            both_rows = torch.cat([rows, len(text) + rows])
            text, image = text[rows], image[rows]
        slots = text.shape[0]  # len() would make an exported program's batch size a constant
        wanted = events = None
        image_slots: Any = slice(None)
        if last_only:
            window, events = layout.window(self.conv_kernel)
            image_slots = window.flatten()
            wanted = torch.cat([torch.arange(slots, device=text.device), slots + image_slots])
        mixed = self.ssd(inputs, tau, layout, wanted, both_rows)
        text_mixed, image_mixed = mixed[:slots], mixed[slots:]
        text = self.text_ffn(self.text_norm(self.dropout(text_mixed) + text))
        image = self.image_norm(self.dropout(image_mixed) + image[image_slots])
        if events is None:
            cross = self.cross_ssd(image, text, cross_tau, layout, None)
            image = image + text
        else:
            windows = image.unflatten(0, events.shape)
            cross = self.cross_ssd(windows, text, cross_tau, layout, events)
            image = windows[:, -1] + text[layout.last]
        image = self.image_ffn(self.cross_norm(self.dropout(cross) + image))
        return text, image, both_time

    def read_time(
        self, both_time: Tensor | None, mask: Tensor | None, layout: MMM4RecLayout
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """tau of both branches, `(2 * s, h)`, their time signals for the next layer, and the Cross-SSD's tau."""
        modulation, gate = self.ssd.time_modulation, self.ssd.time_gate
        fourier, cross_modulation = self.fourier_filter, self.cross_ssd.time_modulation
        if both_time is None or modulation is None or gate is None or cross_modulation is None or fourier is None:
            return None, both_time, None
        tau = modulation(both_time.flatten(0, 1)).unflatten(0, (2, -1))
        both_time = gate(both_time, tau, mask)
        cross_tau = cross_modulation(fourier(both_time[1], both_time[0], mask))
        slots = torch.cat([layout.gather(branch.transpose(1, 2)) for branch in tau])
        return slots, both_time, layout.gather(cross_tau.transpose(1, 2))


@dataclass
class MMM4RecModelOutput(ModelOutput):
    """
    Output of [`MMM4RecModel`]. Events stand at positions 0..n-1 of l, whatever the padding of the input.

    Args:
        last_hidden_state (`torch.FloatTensor` of shape `(b, l, H)`): Output of the last layer's image branch.
        user_embeds (`torch.FloatTensor` of shape `(b, H)`): That output at the last event.
        hidden_states (`tuple(torch.FloatTensor)`, *optional*, with `output_hidden_states=True`):
            `num_hidden_layers + 1` tensors of shape `(b, l, H)`: the image branch's input and each layer's output.
        text_hidden_states (`tuple(torch.FloatTensor)`, *optional*): The same of the text branch.
    """

    last_hidden_state: Tensor | None = None
    user_embeds: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    text_hidden_states: tuple[Tensor, ...] | None = None


class MMM4RecEncoder(nn.Module):
    """The layers over one canonical batch: events at positions 0..n-1 of l."""

    def __init__(self, config: MMM4RecConfig):
        super().__init__()
        self.config = config
        self.text_norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps)
        self.image_norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps)
        self.dropout = MMM4RecDropout(config.embedding_dropout)
        self.time_norm = MMM4RecTimeNorm(config) if config.use_time else None
        self.time_dropout = MMM4RecDropout(config.time_dropout)
        self.layers = nn.ModuleList([MMM4RecLayer(config) for _ in range(config.num_hidden_layers)])

    def forward(
        self,
        text_embeds: Tensor,
        image_embeds: Tensor,
        timestamps: Tensor | None,
        mask: Tensor,
        output_hidden_states: bool = False,
    ) -> MMM4RecModelOutput:
        """Every position's output: [b, l, H], [b, l, H], [b, l], [b, l]"""
        layout = one_history_a_row(mask)
        text, image = self.enter(text_embeds, image_embeds)
        both_time, time_mask = self.enter_time(timestamps, mask)
        text_states, image_states = [text], [image]
        for layer in self.layers:
            text, image, both_time = layer(
                text.flatten(0, 1), image.flatten(0, 1), both_time, time_mask, layout, last_only=False
            )
            text, image = text.view_as(text_embeds), image.view_as(image_embeds)
            text_states.append(text)
            image_states.append(image)
        return MMM4RecModelOutput(
            last_hidden_state=image,
            user_embeds=image.flatten(0, 1)[layout.last],
            hidden_states=tuple(image_states) if output_hidden_states else None,
            text_hidden_states=tuple(text_states) if output_hidden_states else None,
        )

    def user_embeds(
        self, input_ids: Tensor, text_table: Tensor, image_table: Tensor, timestamps: Tensor | None, mask: Tensor
    ) -> Tensor:
        """
        The output at the last event of each history and nothing else, with as little padding as can be.

        Args:
            input_ids (`torch.LongTensor` of shape `(b, l)`): Rows of the tables.
            text_table (`torch.Tensor` of shape `(I + 1, H)`): Text embeddings of items.
            image_table (`torch.Tensor` of shape `(I + 1, H)`): Image embeddings of items.
            timestamps (`torch.LongTensor` of shape `(b, l)`, *optional*): In unix seconds.
            mask (`torch.Tensor` of shape `(b, l)`): The canonical mask.

        Returns:
            `torch.Tensor` of shape `(b, H)`.
        """
        layout = pack_histories(mask) if self.can_pack(mask.device) else one_history_a_row(mask)
        rows: Tensor | None = None
        ids = layout.gather(input_ids)
        if layout.packed and not (self.dropout.training and self.dropout.p > 0):
            # Without dropout an item enters the first layer alike wherever it stands.
            ids, rows = ids.unique(return_inverse=True)
        text, image = self.enter(F.embedding(ids, text_table), F.embedding(ids, image_table))
        both_time, time_mask = self.enter_time(timestamps, mask)
        for j, layer in enumerate(self.layers, start=1):
            text, image, both_time = layer(text, image, both_time, time_mask, layout, j == len(self.layers), rows)
            rows = None
        return image

    def can_pack(self, device: torch.device) -> bool:
        """Whether histories can stand side by side: not where lengths may not be looked at, nor in every SSD form."""
        form = ssd_form(self.config.ssd_implementation, self.config.max_sequence_length, device)
        return form in PACKING_FORMS and not torch.compiler.is_compiling()

    def enter(self, text: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Both branches' input of the first layer."""
        return self.text_norm(self.dropout(text)), self.image_norm(self.dropout(image))

    def enter_time(self, timestamps: Tensor | None, mask: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """[b, l], [b, l] -> time signals of both branches, [2, b, h, l], and their mask, [b, 1, l]."""
        mode = self.config.time_mode
        time_mask = None if mode == "published" else mask.unsqueeze(1).float()
        if self.time_norm is None or timestamps is None:
            return None, time_mask
        intervals = event_intervals(timestamps)
        intervals = (log_intervals(intervals) if mode == "log" else intervals).unsqueeze(1)  # [b, 1, l]
        if time_mask is not None:
            intervals = time_mask * intervals
        # Each branch draws a dropout of its own; the heads start from the same signal.
        both = self.time_dropout(torch.stack([intervals, intervals]))
        return self.time_norm(both, time_mask).expand(-1, -1, self.config.num_heads, -1), time_mask


__all__ = [
    "MMM4RecEncoder",
    "MMM4RecLayer",
    "MMM4RecModelOutput",
    "MMM4RecRMSNorm",
    "MMM4RecStateSpace",
]
