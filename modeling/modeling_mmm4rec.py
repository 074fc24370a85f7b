"""MMM4Rec (arXiv 2506.02916): a multi-modal state space model for sequential recommendation.

Letters in shape comments: b batch, l `max_sequence_length`, H `hidden_size`, E `inner_size`, h heads, p `head_dim`,
g groups, n `state_size`.
"""

import copy
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import ModelOutput, cached_file, can_return_tuple, logging

from .configuration_mmm4rec import MMM4RecConfig
from .convolution_mmm4rec import depthwise_conv, history_conv, window_conv
from .items_mmm4rec import MMM4RecItems, agreed_encoder, check_catalog, l2_normalize, missing_items, previous_rows
from .loss_mmm4rec import (
    check_labels,
    cross_entropy_of_scores,
    draw_negatives,
    full_cross_entropy,
    in_batch_cross_entropy,
    sampled_cross_entropy,
)
from .packing_mmm4rec import MMM4RecLayout, one_history_a_row, pack_histories
from .ssd_mmm4rec import is_short, ssd
from .time_mmm4rec import (
    MMM4RecFourierFilter,
    MMM4RecTimeGate,
    MMM4RecTimeModulation,
    MMM4RecTimeNorm,
    event_intervals,
)

logger = logging.get_logger(__name__)

ITEM_IDS_NAME = "item_ids.json"
_ALIGNMENT = 64  # bytes, as torch allocates


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
        self.dropout = nn.Dropout(config.hidden_dropout)

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
        together = layout.together()
        if together is not None:
            together = together.repeat(len(x) // layout.history.numel(), 1, 1, 1)
        y = ssd(
            x.unflatten(-1, (config.num_heads, config.head_dim)).unflatten(0, rows),
            delta.unflatten(0, rows),
            -self.A_log.float().exp(),
            B.unflatten(-1, (config.n_groups, config.state_size)).unflatten(0, rows),
            C.unflatten(-1, (config.n_groups, config.state_size)).unflatten(0, rows),
            self.D.float(),
            implementation=config.ssd_implementation,
            chunk_size=config.chunk_size,
            together=together,
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

    def forward(self, x: Tensor, tau: Tensor | None, layout: MMM4RecLayout, wanted: Tensor | None) -> Tensor:
        """
        Args:
            x (`torch.Tensor` of shape `(r * s, H)`): The slots of `r` branches.
            tau (`torch.Tensor` of shape `(r * s, h)`, *optional*): What multiplies the step sizes.
            layout ([`MMM4RecLayout`]): Which slots belong together.
            wanted (`torch.LongTensor` of shape `(q,)`, *optional*): The slots whose output is read.

        Returns:
            `torch.Tensor` of shape `(r * s, H)` or `(q, H)`.
        """
        inner = self.splits[0]
        weight, bias = self.in_proj.weight, self.in_proj.bias
        content, dt = F.linear(x, weight[inner:], bias[inner:]).split(self.splits[1:], dim=-1)
        content, B, C = history_conv(self.conv, content, layout, self.activation).split(self.conv_splits, dim=-1)
        y = self.scan(content, dt, B, C, tau, layout)
        if wanted is not None:
            x, y = x[wanted], y[wanted]
        return self.out_proj(self.norm(y, gate=F.linear(x, weight[:inner], bias[:inner])))


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
        x, dt = self.content_proj(content).split(self.splits, dim=-1)
        x, B = history_conv(self.content_conv, x, layout, self.activation).split(self.conv_splits, dim=-1)
        C = self.query_proj(query)
        if events is None:
            C = history_conv(self.query_conv, C, layout, self.activation)
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
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(
        self,
        text: Tensor,
        image: Tensor,
        both_time: Tensor | None,
        mask: Tensor | None,
        layout: MMM4RecLayout,
        last_only: bool,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """
        Args:
            text (`torch.Tensor` of shape `(s, H)`): The text branch.
            image (`torch.Tensor` of shape `(s, H)`): The image branch.
            both_time (`torch.Tensor` of shape `(2, b, h, l)`, *optional*): Time signals of both.
            mask (`torch.Tensor` of shape `(b, 1, l)`, *optional*): Keeps padding out of the time signals.
            layout ([`MMM4RecLayout`]): Which slots belong together.
            last_only (`bool`):
                Whether the image branch is read at each history's last event alone; then it is returned as `(b, H)`.

        Returns:
            `tuple`: text, image and both_time of the next layer.
        """
        tau, both_time, cross_tau = self.read_time(both_time, mask, layout)
        wanted = events = None
        image_slots: Any = slice(None)
        if last_only:
            window, events = layout.window(self.conv_kernel)
            image_slots = window.flatten()
            wanted = torch.cat([torch.arange(len(text), device=text.device), len(text) + image_slots])
        mixed = self.ssd(torch.cat([text, image]), tau, layout, wanted)
        text_mixed, image_mixed = mixed[: len(text)], mixed[len(text) :]
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


@dataclass
class MMM4RecOutput(ModelOutput):
    """
    Output of [`MMM4RecForSequentialRecommendation`].

    Args:
        loss (`torch.FloatTensor`, a scalar, *optional*, with `labels`):
            Cross entropy as `item_loss` says, the mean over rows that have a label; in evaluation `"sampled"` is over
            all items.
        logits (`torch.FloatTensor` of shape `(b, num_items + 1)`, *optional*):
            Scores; column 0 is the padding item, which holds the lowest float32 unless `score_padding_item`. `None` in
            training with `labels`: the loss does without all of them.
        user_embeds (`torch.FloatTensor` of shape `(b, H)`): User vectors.
        hidden_states (`tuple(torch.FloatTensor)`, *optional*): As in [`MMM4RecModelOutput`].
        text_hidden_states (`tuple(torch.FloatTensor)`, *optional*): As in [`MMM4RecModelOutput`].
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    user_embeds: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    text_hidden_states: tuple[Tensor, ...] | None = None


class MMM4RecPreTrainedModel(PreTrainedModel):
    """Initialisation and loading, as every transformers model."""

    config_class = MMM4RecConfig
    config: MMM4RecConfig
    base_model_prefix = "model"
    input_modalities = ["text", "image"]
    supports_gradient_checkpointing = True
    _no_split_modules = ["MMM4RecLayer"]
    # Rates and times lose their meaning in half precision, so they stay float32 when a model is loaded in it.
    _keep_in_fp32_modules_strict = ["A_log", "dt_bias", "D", "time_norm", "time_modulation", "time_gate"]

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As every transformers model; a loaded model gives the bits of the saved one."""
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        # Weights mapped from a file start anywhere, and products of a few rows round by where their operands start.
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.device.type == "cpu" and tensor.data_ptr() % _ALIGNMENT:
                tensor.data = tensor.data.clone()
        return loaded

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        config = self.config
        if isinstance(module, nn.Linear):
            init.normal_(module.weight, mean=0.0, std=config.initializer_range)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Conv1d):
            bound = 1 / module.kernel_size[0] ** 0.5  # torch's default for depthwise convolutions
            for parameter in module.parameters():
                init.uniform_(parameter, -bound, bound)
        elif isinstance(module, nn.LayerNorm | MMM4RecTimeNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, MMM4RecRMSNorm):
            init.ones_(module.weight)
        elif isinstance(module, MMM4RecStateSpace):
            init.ones_(module.D)
            init.copy_(module.A_log, torch.empty_like(module.A_log).uniform_(1, 16).log())
            low, high = torch.tensor([config.time_step_min, config.time_step_max]).log().tolist()
            step = torch.empty_like(module.dt_bias).uniform_(low, high).exp().clamp_min(config.time_step_floor)
            init.copy_(module.dt_bias, step + torch.log(-torch.expm1(-step)))  # the inverse of softplus
        elif isinstance(module, MMM4RecItems):
            # Features are zero, and every item ties, until a catalogue is set.
            for tensor in (*module.parameters(), *module.buffers()):
                init.zeros_(tensor)
            for vector in (module.missing_text, module.missing_image):
                if vector is not None:
                    # A vector of zeros could not be normalised, and would never learn.
                    init.normal_(vector, mean=0.0, std=config.initializer_range)


class MMM4RecEncoder(nn.Module):
    """The layers over one canonical batch: events at positions 0..n-1 of l."""

    def __init__(self, config: MMM4RecConfig):
        super().__init__()
        self.config = config
        self.text_norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps)
        self.image_norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps)
        self.dropout = nn.Dropout(config.embedding_dropout)
        self.time_norm = MMM4RecTimeNorm(config) if config.use_time else None
        self.time_dropout = nn.Dropout(config.time_dropout)
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
        layout = pack_histories(mask) if self.can_pack() else one_history_a_row(mask)
        ids = layout.gather(input_ids)
        text, image = self.enter(F.embedding(ids, text_table), F.embedding(ids, image_table))
        both_time, time_mask = self.enter_time(timestamps, mask)
        for j, layer in enumerate(self.layers, start=1):
            text, image, both_time = layer(text, image, both_time, time_mask, layout, j == len(self.layers))
        return image

    def can_pack(self) -> bool:
        """Whether histories can stand side by side: not where lengths may not be looked at, nor in every SSD form."""
        form = self.config.ssd_implementation
        quadratic = form == "quadratic" or (form == "auto" and is_short(self.config.max_sequence_length))
        return quadratic and not torch.compiler.is_compiling()

    def enter(self, text: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Both branches' input of the first layer."""
        return self.text_norm(self.dropout(text)), self.image_norm(self.dropout(image))

    def enter_time(self, timestamps: Tensor | None, mask: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """[b, l], [b, l] -> time signals of both branches, [2, b, h, l], and their mask, [b, 1, l]."""
        time_mask = mask.unsqueeze(1).float() if self.config.time_mode == "masked" else None
        if self.time_norm is None or timestamps is None:
            return None, time_mask
        intervals = event_intervals(timestamps).unsqueeze(1)  # [b, 1, l]
        if time_mask is not None:
            intervals = time_mask * intervals
        # Each branch draws a dropout of its own; the heads start from the same signal.
        both = self.time_dropout(torch.stack([intervals, intervals]))
        return self.time_norm(both, time_mask).expand(-1, -1, self.config.num_heads, -1), time_mask


def canonical_positions(attention_mask: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """
    Where the last `length` events of each history stand, whatever its padding.

    Args:
        attention_mask (`torch.Tensor` of shape `(b, s)`): Non-zero where an event stands.
        length (`int`): l.

    Returns:
        `tuple(torch.Tensor)`: Positions in the input, `(b, l)`, and the canonical mask, `(b, l)`: events first.
    """
    events = attention_mask != 0
    total = events.sum(1, keepdim=True)
    count = total.clamp_max(length)
    places = torch.arange(length, device=events.device)
    mask = places < count
    events_first = (~events).to(torch.uint8).argsort(dim=1, stable=True)
    wanted = (places + total - count).clamp_max(events.shape[1] - 1)
    return events_first.gather(1, wanted), mask


class MMM4RecModel(MMM4RecPreTrainedModel):
    """
    The backbone: item features and times of a history to a user vector, free of any catalogue.

    Args:
        config ([`MMM4RecConfig`]): Configuration.
    """

    main_input_name = "text_features"
    _keys_to_ignore_on_load_unexpected = [r"^items\."]

    def __init__(self, config: MMM4RecConfig):
        super().__init__(config)
        self.text_projection = nn.Linear(config.text_feature_size, config.hidden_size)
        self.image_projection = nn.Linear(config.image_feature_size, config.hidden_size)
        self.encoder = MMM4RecEncoder(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.text_projection

    def set_input_embeddings(self, value: nn.Linear) -> None:
        self.text_projection = value

    @can_return_tuple
    def forward(
        self,
        text_features: Tensor | None = None,
        image_features: Tensor | None = None,
        timestamps: Tensor | None = None,
        attention_mask: Tensor | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> MMM4RecModelOutput:
        r"""
        Args:
            text_features (`torch.FloatTensor` of shape `(b, s, text_feature_size)`):
                Text features of the items of each history, oldest first; of more than l events the last l count.
            image_features (`torch.FloatTensor` of shape `(b, s, image_feature_size)`): Their image features.
            timestamps (`torch.LongTensor` of shape `(b, s)`, *optional* without `use_time`):
                When each event happened, in unix seconds.
            attention_mask (`torch.Tensor` of shape `(b, s)`, *optional*):
                1 where an event stands, 0 for padding, on either side; without it every position is an event.
            output_hidden_states (`bool`, *optional*): Whether to return every layer's output.

        Returns:
            [`MMM4RecModelOutput`]
        """
        if text_features is None or image_features is None:
            raise ValueError("MMM4RecModel needs both text_features and image_features")
        if attention_mask is None:
            attention_mask = torch.ones(text_features.shape[:2], device=text_features.device)
        timestamps = check_timestamps(timestamps, attention_mask, self.config)
        index, mask = canonical_positions(attention_mask, self.config.max_sequence_length)
        embeds = []
        for features, projection in (
            (text_features, self.text_projection),
            (image_features, self.image_projection),
        ):
            if features.shape[:2] != attention_mask.shape:
                raise ValueError(
                    f"features of shape {tuple(features.shape)} do not fit an attention_mask of shape "
                    f"{tuple(attention_mask.shape)}"
                )
            features = features.gather(1, index.unsqueeze(-1).expand(-1, -1, features.shape[-1]))
            features = features.to(projection.weight.dtype) * mask.unsqueeze(-1)
            embeds.append(projection(features))
        if timestamps is not None:
            timestamps = timestamps.gather(1, index) * mask
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        return self.encoder(*embeds, timestamps, mask, output_hidden_states)

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """
        Saves the backbone, whose configuration names no catalogue, also where it is part of a model that holds one.

        Args:
            save_directory (`str` or `os.PathLike`): The folder, made if it is absent.
            kwargs: Passed on to [`~PreTrainedModel.save_pretrained`].
        """
        num_items, self.config.num_items = self.config.num_items, None
        try:
            super().save_pretrained(save_directory, **kwargs)
        finally:
            self.config.num_items = num_items


def check_timestamps(timestamps: Tensor | None, attention_mask: Tensor, config: MMM4RecConfig) -> Tensor | None:
    """The timestamps as int64, or `None` for a model without time; errors name what is wrong."""
    if not config.use_time:
        return None
    if timestamps is None:
        raise ValueError("timestamps (unix seconds, int64) are needed: this model was configured with use_time=True")
    if timestamps.is_floating_point():
        raise TypeError(
            f"timestamps must be integers, got {timestamps.dtype}: float32 holds unix seconds to two minutes only"
        )
    if timestamps.shape != attention_mask.shape:
        raise ValueError(
            f"timestamps of shape {tuple(timestamps.shape)} do not fit histories of shape "
            f"{tuple(attention_mask.shape)}"
        )
    return timestamps.long()


class MMM4RecForSequentialRecommendation(MMM4RecPreTrainedModel):
    """
    The backbone with a catalogue: histories of items to scores of every item.

    Args:
        config ([`MMM4RecConfig`]): Configuration; with `num_items=None` set a catalogue before anything is scored.
    """

    main_input_name = "input_ids"

    def __init__(self, config: MMM4RecConfig):
        super().__init__(config)
        self.model = MMM4RecModel(config)
        self.items = MMM4RecItems(config)
        self._item_ids: list[str] | None = None
        self.post_init()
        # The backbone's silence about items must not be inherited: here they are weights like the others.
        self._keys_to_ignore_on_load_unexpected = None

    def get_input_embeddings(self) -> nn.Module:
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Linear) -> None:
        self.model.set_input_embeddings(value)

    @property
    def item_ids(self) -> list[str] | None:
        """`list[str]`, *optional*: External ids of rows 1..num_items; `None` where a catalogue was not set by ids."""
        return self._item_ids

    def set_items(self, catalog: Any) -> None:
        """
        Sets or replaces the catalogue. What was learned for an item (bias, fusion weights) stays with its id; new
        items start at the values of an untrained model and can be recommended at once.

        Args:
            catalog (`ItemCatalog` or any object with `item_ids`, `text_features` and `image_features`):
                Features of shape `(num_items, text_feature_size)` and `(num_items, image_feature_size)`; with
                `text_mask` and `image_mask` as well where the model has `learned_missing`, and `feature_info`, from
                which the configuration takes `feature_encoder` the first time.

        Raises:
            ValueError: As [`check_catalog`], [`missing_items`] and [`agreed_encoder`].
        """
        item_ids, text, image = check_catalog(catalog, self.config)
        missing = missing_items(catalog, self.config)
        feature_encoder = agreed_encoder(catalog, self.config)
        old_rows = previous_rows(item_ids, self._item_ids)
        learned = self.items.learned_by_row & dict(self.items.named_parameters()).keys()
        if old_rows is None and learned:
            logger.warning(f"dropped {', '.join(sorted(learned))}: this model does not know its items by id")
        self.items.set(text, image, old_rows, like=self.model.text_projection.weight, missing=missing)
        self.config.num_items = len(item_ids)
        self.config.feature_encoder = feature_encoder
        self._item_ids = item_ids

    def set_item_frequencies(self, counts: Tensor) -> None:
        """
        Tells how often each item is a target of the training data, which the in-batch loss with `use_log_q` and the
        sampled loss with `negative_sampling="frequency"` ask for. [`MMM4RecTrainer`] counts by itself. The frequencies
        are not saved with the model.

        Args:
            counts (`torch.Tensor` of shape `(num_items + 1,)`): By row; an item that never was one counts as 1.

        Raises:
            ValueError: For another shape, or counts that are negative or not finite.
        """
        self.items.set_frequencies(counts)

    def item_embeds(self, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Text and image embeddings e of every item, each `(num_items + 1, H)`, or of the given rows, `(n, H)`."""
        items = self.items
        if items.text_features is None or items.image_features is None:
            raise ValueError(
                "this model holds no items; load it with from_pretrained(..., catalog=catalog) or call "
                "set_items(catalog) before scoring"
            )
        text = self.model.text_projection(items.text_features if rows is None else items.text_features[rows])
        image = self.model.image_projection(items.image_features if rows is None else items.image_features[rows])
        text, image = items.with_missing(text, image, rows)
        if items.text_bias is not None and items.image_bias is not None:
            text = text + (items.text_bias if rows is None else items.text_bias[rows])
            image = image + (items.image_bias if rows is None else items.image_bias[rows])
        return text, image

    def fused_item_embeds(self, text: Tensor, image: Tensor, rows: Tensor | None = None) -> Tensor:
        """[n, H], [n, H] -> [n, H] float32: scores are user vectors times these, over the temperature."""
        text, image = l2_normalize(text), l2_normalize(image)
        weights = self.items.fusion_weights(rows)
        return text + image if weights is None else weights[..., :1] * text + weights[..., 1:] * image

    def user_embeds(
        self,
        input_ids: Tensor,
        timestamps: Tensor | None = None,
        attention_mask: Tensor | None = None,
        item_embeds: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """
        User vectors without the scores of items.

        Args:
            input_ids (`torch.LongTensor` of shape `(b, s)`): As [`~MMM4RecForSequentialRecommendation.forward`].
            timestamps (`torch.LongTensor` of shape `(b, s)`, *optional*): As there.
            attention_mask (`torch.Tensor` of shape `(b, s)`, *optional*): As there.
            item_embeds (`tuple(torch.Tensor)`, *optional*):
                What [`~MMM4RecForSequentialRecommendation.item_embeds`] returned, where it serves many batches.

        Returns:
            `torch.Tensor` of shape `(b, H)`.
        """
        input_ids, timestamps, mask = self._last_events(input_ids, timestamps, attention_mask)
        text, image = self.item_embeds() if item_embeds is None else item_embeds
        return self.model.encoder.user_embeds(input_ids, text, image, timestamps, mask)

    @torch.no_grad()
    def modality_scores(self, user_embeds: Tensor, item_rows: Tensor) -> tuple[Tensor, Tensor]:
        """
        The two parts of scores.

        Args:
            user_embeds (`torch.Tensor` of shape `(b, H)`): User vectors.
            item_rows (`torch.LongTensor` of shape `(b, k)`): Rows of the items.

        Returns:
            `tuple(torch.Tensor)`: Text and image part, each `(b, k)`; their sum is the score.
        """
        parts = []
        weights = self.items.fusion_weights()
        for column, embeds in enumerate(self.item_embeds()):
            part = torch.einsum("bh,bkh->bk", user_embeds.float(), l2_normalize(embeds)[item_rows])
            if weights is not None:
                part = part * weights.expand(self.items.num_rows, 2)[item_rows, column]
            parts.append(part / self.config.score_temperature)
        return parts[0], parts[1]

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        timestamps: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Any,
    ) -> MMM4RecOutput:
        r"""
        Args:
            input_ids (`torch.LongTensor` of shape `(b, s)`):
                Rows 1..num_items of the items of each history, oldest first; 0 is padding.
            timestamps (`torch.LongTensor` of shape `(b, s)`, *optional* without `use_time`):
                When each event happened, in unix seconds.
            attention_mask (`torch.Tensor` of shape `(b, s)`, *optional*):
                1 where an event stands; without it, where `input_ids` is not 0.
            labels (`torch.LongTensor` of shape `(b,)`, *optional*):
                Row of the item that came next; the loss leaves out rows with -100.
            output_hidden_states (`bool`, *optional*): Whether to return every layer's output.
            num_items_in_batch (`torch.Tensor` or `int`, *optional*):
                Divides the sum of the rows' losses: with gradients that are accumulated over batches, the number of
                labels in all of them. Without it the loss is the mean of this batch.

        Returns:
            [`MMM4RecOutput`]

        Raises:
            ValueError: If the model holds no items, a label is none of them, or shapes do not fit.
        """
        if input_ids is None:
            raise ValueError("MMM4RecForSequentialRecommendation needs input_ids")
        input_ids, timestamps, mask = self._last_events(input_ids, timestamps, attention_mask)
        with_states = bool(self.config.output_hidden_states if output_hidden_states is None else output_hidden_states)
        logits = loss = None
        if labels is not None and self.training and self.config.item_loss != "full":
            users, states, loss = self._loss_over_few(
                input_ids, timestamps, mask, labels, num_items_in_batch, with_states
            )
        else:
            text, image = self.item_embeds()
            users, states = self._encode(input_ids, text, image, timestamps, mask, with_states)
            fused = self.fused_item_embeds(text, image)
            if labels is None or not self.training:
                logits = self._logits(users, fused)
            if labels is not None:
                loss = self._loss_over_all(users, fused, logits, labels, num_items_in_batch)
        return MMM4RecOutput(
            loss=loss,
            logits=logits,
            user_embeds=users,
            hidden_states=states.hidden_states,
            text_hidden_states=states.text_hidden_states,
        )

    def _last_events(
        self, input_ids: Tensor, timestamps: Tensor | None, attention_mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """[b, s], [b, s], [b, s] -> [b, l] each: the last events first, and their mask."""
        if attention_mask is None:
            attention_mask = input_ids != 0
        timestamps = check_timestamps(timestamps, attention_mask, self.config)
        index, mask = canonical_positions(attention_mask, self.config.max_sequence_length)
        if timestamps is not None:
            timestamps = timestamps.gather(1, index) * mask
        return input_ids.gather(1, index) * mask, timestamps, mask

    def _encode(
        self,
        input_ids: Tensor,
        text: Tensor,
        image: Tensor,
        timestamps: Tensor | None,
        mask: Tensor,
        output_hidden_states: bool,
    ) -> tuple[Tensor, MMM4RecModelOutput]:
        """[b, l], [n, H], [n, H], [b, l], [b, l] -> [b, H] and what was asked for; ids are rows of the tables."""
        encoder = self.model.encoder
        if not output_hidden_states:
            return encoder.user_embeds(input_ids, text, image, timestamps, mask), MMM4RecModelOutput()
        output = encoder(F.embedding(input_ids, text), F.embedding(input_ids, image), timestamps, mask, True)
        return output.user_embeds, output

    def _loss_over_all(
        self,
        user_embeds: Tensor,
        fused: Tensor,
        logits: Tensor | None,
        labels: Tensor,
        num_items_in_batch: Tensor | int | None,
    ) -> Tensor:
        """The loss where every item's vector is at hand: in training by all items, and in evaluation."""
        config = self.config
        check_labels(labels, len(fused), config.score_padding_item)
        if config.item_loss == "in_batch":
            targets = fused[labels.clamp_min(0)]
            return self._in_batch_loss(user_embeds, targets, labels, num_items_in_batch)
        if logits is not None:
            return cross_entropy_of_scores(logits, labels, num_items_in_batch)
        return full_cross_entropy(
            user_embeds,
            fused,
            labels,
            config.score_temperature,
            score_padding_item=config.score_padding_item,
            num_items_in_batch=num_items_in_batch,
        )

    def _loss_over_few(
        self,
        input_ids: Tensor,
        timestamps: Tensor | None,
        mask: Tensor,
        labels: Tensor,
        num_items_in_batch: Tensor | int | None,
        output_hidden_states: bool,
    ) -> tuple[Tensor, MMM4RecModelOutput, Tensor]:
        """The in-batch and the sampled loss in training, for which only the items that take part are embedded."""
        config, num_rows = self.config, self.items.num_rows
        check_labels(labels, num_rows, config.score_padding_item)
        targets = labels.clamp_min(0)
        negatives, log_expected = targets.new_empty(0), None
        if config.item_loss == "sampled":
            log_q = self._log_q() if config.needs_item_frequencies else None
            negatives, log_expected = draw_negatives(num_rows, config.num_sampled_negatives, log_q, labels.device)
        rows, places = torch.cat([input_ids.flatten(), targets, negatives]).unique(return_inverse=True)
        history, target_places, negative_places = places.split([input_ids.numel(), len(targets), len(negatives)])
        text, image = self.item_embeds(rows)
        users, states = self._encode(history.view_as(input_ids), text, image, timestamps, mask, output_hidden_states)
        fused = self.fused_item_embeds(text, image, rows)
        if log_expected is None:
            loss = self._in_batch_loss(users, fused[target_places], labels, num_items_in_batch)
        else:
            loss = sampled_cross_entropy(
                users,
                fused[target_places],
                fused[negative_places],
                labels,
                negatives,
                log_expected,
                config.score_temperature,
                num_items_in_batch=num_items_in_batch,
            )
        return users, states, loss

    def _in_batch_loss(
        self, user_embeds: Tensor, targets: Tensor, labels: Tensor, num_items_in_batch: Tensor | int | None
    ) -> Tensor:
        config = self.config
        several = torch.distributed.is_available() and torch.distributed.is_initialized()
        return in_batch_cross_entropy(
            user_embeds,
            targets,
            labels,
            config.score_temperature,
            mask_same_target=config.mask_same_target,
            item_log_q=self._log_q() if config.use_log_q else None,
            # In evaluation a process may be alone.
            gather=config.gather_negatives and self.training and several,
            num_items_in_batch=num_items_in_batch,
        )

    def _log_q(self) -> Tensor:
        if self.items.log_q is None:
            raise ValueError(
                "the loss needs to know how often each item is a target: call model.set_item_frequencies(counts), or "
                "train with MMM4RecTrainer, which counts them"
            )
        return self.items.log_q

    def _logits(self, user_embeds: Tensor, fused: Tensor) -> Tensor:
        # [b, H], [I+1, H] -> [b, I+1]. In half precision neighbours in the ranking would tie.
        with torch.autocast(user_embeds.device.type, enabled=False):
            logits = user_embeds.float() @ fused.float().T / self.config.score_temperature
        if not self.config.score_padding_item:
            padding = torch.arange(logits.shape[1], device=logits.device) == 0
            logits = logits.masked_fill(padding, torch.finfo(logits.dtype).min)
        return logits

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: Any, *args: Any, catalog: Any = None, **kwargs: Any
    ) -> Any:
        r"""
        Loads a model as every transformers model, with two more rules.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`): A Hub name or a folder.
            catalog (`ItemCatalog`, *optional*):
                The catalogue to recommend from, for the start of a fine-tuning: the backbone (and a fusion shared by
                all items) is kept, what belonged to the checkpoint's own catalogue is dropped, and both are logged.

        Raises:
            ValueError: If the checkpoint lacks weights that cannot start fresh, or the catalogue does not fit.
        """
        output_loading_info = kwargs.pop("output_loading_info", False)
        if catalog is not None:
            kwargs["config"] = cls._config_without_items(pretrained_model_name_or_path, kwargs)
        loaded: Any = super().from_pretrained(pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs)
        model, info = loaded
        fresh_by_design = {
            f"items.{name}" for name in ("text_bias", "image_bias", "fusion_factor", "missing_text", "missing_image")
        }
        lacking = sorted(set(info["missing_keys"]) - fresh_by_design)
        # Who asks for the loading info, or gives the weights as a dictionary, judges for himself.
        if lacking and not output_loading_info and pretrained_model_name_or_path is not None:
            raise ValueError(
                f"{pretrained_model_name_or_path} lacks the weights {', '.join(lacking)}; it is no complete "
                "checkpoint for this configuration"
            )
        if catalog is not None:
            dropped = sorted(key for key in info["unexpected_keys"] if key.startswith("items."))
            logger.warning(
                f"kept the backbone of {pretrained_model_name_or_path}; dropped what belonged to its own catalogue: "
                f"{', '.join(dropped) or 'nothing'}; started fresh: {', '.join(info['missing_keys']) or 'nothing'}"
            )
            model.set_items(catalog)
        elif pretrained_model_name_or_path is not None:
            model._item_ids = _load_item_ids(pretrained_model_name_or_path, model.config.num_items, kwargs)
        return (model, info) if output_loading_info else model

    @classmethod
    def _config_without_items(cls, name: Any, kwargs: dict[str, Any]) -> MMM4RecConfig:
        """The checkpoint's configuration with the options in `kwargs`, which it takes out, and no catalogue."""
        config = kwargs.pop("config", None)
        if config is None:
            options = {key: kwargs.pop(key) for key in list(kwargs) if key in MMM4RecConfig.__annotations__}
            config = cls.config_class.from_pretrained(name, **_hub_kwargs(kwargs), **options)
        config = copy.deepcopy(config)
        config.num_items = None
        return config

    def save_pretrained(
        self, save_directory: str | os.PathLike, is_main_process: bool = True, push_to_hub: bool = False, **kwargs: Any
    ) -> None:
        """
        Saves the model with its catalogue: as every transformers model, and the item ids beside it.

        Args:
            save_directory (`str` or `os.PathLike`): The folder, made if it is absent.
            is_main_process (`bool`, *optional*, defaults to `True`): Whether this process writes the shared files.
            push_to_hub (`bool`, *optional*, defaults to `False`): Whether to upload the folder as well.
            kwargs: Passed on to [`~PreTrainedModel.save_pretrained`].
        """
        if is_main_process:
            os.makedirs(save_directory, exist_ok=True)
            path = Path(save_directory) / ITEM_IDS_NAME
            if self._item_ids is not None:
                partial = path.with_suffix(".partial")
                partial.write_text(json.dumps(self._item_ids, ensure_ascii=False), encoding="utf-8")
                partial.replace(path)
            else:
                path.unlink(missing_ok=True)
        super().save_pretrained(save_directory, is_main_process=is_main_process, push_to_hub=push_to_hub, **kwargs)


def _hub_kwargs(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Of the arguments of `from_pretrained`, those that say where and how files are found."""
    names = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder", "proxies")
    return {key: value for key, value in kwargs.items() if key in names}


def _load_item_ids(name: Any, num_items: int | None, kwargs: dict[str, Any]) -> list[str] | None:
    """The ids saved beside the weights, or `None` where there are none."""
    path = cached_file(
        name,
        ITEM_IDS_NAME,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        **_hub_kwargs(kwargs),
    )
    if path is None:
        return None
    item_ids: Sequence[Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    if len(item_ids) != num_items:
        raise ValueError(
            f"{ITEM_IDS_NAME} of {name} names {len(item_ids)} items, the weights hold {num_items}; save it again"
        )
    return [str(item_id) for item_id in item_ids]


__all__ = [
    "MMM4RecForSequentialRecommendation",
    "MMM4RecModel",
    "MMM4RecModelOutput",
    "MMM4RecOutput",
    "MMM4RecPreTrainedModel",
]
