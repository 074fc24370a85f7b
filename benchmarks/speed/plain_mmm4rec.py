"""The published formulation written down plainly: the baseline of the speed benchmarks, and a second opinion in tests.

Every branch runs on its own over all L positions of every history, the Fourier filter goes through complex numbers,
the text and the image scores are two products over the whole catalogue, and ranks come from sorting. The weights are
those of a `MMM4RecForSequentialRecommendation`, used in place, so that outputs and gradients can be compared.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmm4rec_hf import MMM4RecForSequentialRecommendation


class PlainMMM4Rec(nn.Module):
    """
    Scores and loss as published, over the weights of `model`.

    Args:
        model ([`MMM4RecForSequentialRecommendation`]): Holds the weights; with a catalogue. `time_mode` is honoured.
    """

    def __init__(self, model: MMM4RecForSequentialRecommendation):
        super().__init__()
        self.model = model
        self.config = model.config

    def forward(self, input_ids: Tensor, timestamps: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """[b, l] right-padded with 0, [b, l], [b] -> the loss, and scores [b, I + 1]."""
        user = self.user_embeds(input_ids, timestamps)
        logits = self.scores(user)
        return F.cross_entropy(logits, labels), logits

    def user_embeds(self, input_ids: Tensor, timestamps: Tensor) -> Tensor:
        backbone, items, encoder = self.model.model, self.model.items, self.model.model.encoder
        mask = input_ids != 0
        text = backbone.text_projection(items.text_features[input_ids])
        image = backbone.image_projection(items.image_features[input_ids])
        if items.text_bias is not None:
            text, image = text + items.text_bias[input_ids], image + items.image_bias[input_ids]
        text = encoder.text_norm(self._dropout(text, self.config.embedding_dropout))
        image = encoder.image_norm(self._dropout(image, self.config.embedding_dropout))
        intervals = torch.diff(timestamps, dim=1, prepend=timestamps[:, :1]).float()
        masked = self.config.time_mode == "masked"
        time_mask = mask.unsqueeze(1).float() if masked else None
        if time_mask is not None:
            intervals = intervals * time_mask[:, 0]
        heads = self.config.num_heads
        text_time, image_time = (
            encoder.time_norm(self._dropout(intervals, self.config.time_dropout).unsqueeze(1), time_mask)
            .expand(-1, heads, -1)
            .contiguous()
            for _ in range(2)
        )
        for layer in encoder.layers:
            mixed, text_time = self._self_ssd(layer.ssd, text, text_time, time_mask)
            text = self._ffn(layer.text_ffn, layer.text_norm(self._dropout(mixed) + text))
            mixed, image_time = self._self_ssd(layer.ssd, image, image_time, time_mask)
            image = layer.image_norm(self._dropout(mixed) + image)
            cross_time = self._fourier_filter(layer.fourier_filter, image_time, text_time)
            if time_mask is not None:
                cross_time = cross_time * time_mask
            cross = self._cross_ssd(layer.cross_ssd, image, text, cross_time)
            image = self._ffn(layer.image_ffn, layer.cross_norm(self._dropout(cross) + image + text))
        return image[torch.arange(len(image)), mask.sum(1) - 1]

    def scores(self, user: Tensor) -> Tensor:
        """[b, H] -> [b, I + 1]: one product over the catalogue for each modality."""
        backbone, items = self.model.model, self.model.items
        text, image = backbone.text_projection(items.text_features), backbone.image_projection(items.image_features)
        if items.text_bias is not None:
            text, image = text + items.text_bias, image + items.image_bias
        text_scores = user @ F.normalize(text, dim=-1).T
        image_scores = user @ F.normalize(image, dim=-1).T
        return (text_scores + image_scores) / self.config.score_temperature

    @staticmethod
    def ranks(scores: Tensor, labels: Tensor) -> Tensor:
        """[b, I + 1], [b] -> [b]: the target's place in the sorted scores."""
        order = scores.argsort(dim=1, descending=True)
        return (order == labels.unsqueeze(1)).nonzero()[:, 1]

    def _dropout(self, x: Tensor, p: float | None = None) -> Tensor:
        return F.dropout(x, self.config.hidden_dropout if p is None else p, self.model.training)

    def _ffn(self, ffn: nn.Module, x: Tensor) -> Tensor:
        hidden = self._dropout(F.hardswish(ffn.fc1(x)))
        return ffn.norm(self._dropout(ffn.fc2(hidden)) + x)

    @staticmethod
    def _conv(conv: nn.Conv1d, x: Tensor) -> Tensor:
        """[b, l, c] -> [b, l, c]"""
        return F.silu(conv(x.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2))

    def _tau(self, modulation: nn.Module, time: Tensor) -> Tensor:
        dropped = self._dropout(time, self.config.time_dropout)
        scale = F.tanhshrink(modulation.scale_out(F.silu(modulation.scale_in(dropped))))
        length = time.shape[-1]
        tau = F.silu(modulation.conv_1(time * scale)[..., :length])
        return F.silu(modulation.conv_2(tau)[..., :length])

    def _self_ssd(self, ssd: nn.Module, x: Tensor, time: Tensor, time_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        z, content, dt = ssd.in_proj(x).split(ssd.splits, dim=-1)
        content, B, C = self._conv(ssd.conv, content).split(ssd.conv_splits, dim=-1)
        tau = self._tau(ssd.time_modulation, time)
        out = self._scan(ssd, content, dt * tau.transpose(1, 2), B, C, z)
        gate = torch.sigmoid(ssd.time_gate.gate(self._dropout(time, self.config.time_dropout)))
        return out, ssd.time_gate.norm(gate * time + (1 - gate) * tau, time_mask)

    def _cross_ssd(self, ssd: nn.Module, query: Tensor, content: Tensor, time: Tensor) -> Tensor:
        x, dt = ssd.content_proj(content).split(ssd.splits, dim=-1)
        x, B = self._conv(ssd.content_conv, x).split(ssd.conv_splits, dim=-1)
        C = self._conv(ssd.query_conv, ssd.query_proj(query))
        z = ssd.gate_proj(query + content)
        tau = self._tau(ssd.time_modulation, time)
        return self._scan(ssd, x, dt * tau.transpose(1, 2), B, C, z)

    def _scan(self, ssd: nn.Module, x: Tensor, dt: Tensor, B: Tensor, C: Tensor, z: Tensor) -> Tensor:
        """The dual form: [b, l, E], [b, l, h], [b, l, G N], [b, l, G N], [b, l, E] -> [b, l, H]"""
        config = self.config
        length, per_group = x.shape[1], config.num_heads // config.n_groups
        delta = F.softplus(dt + ssd.dt_bias)
        scaled = x.unflatten(-1, (config.num_heads, config.head_dim)) * delta.unsqueeze(-1)
        B, C = (t.unflatten(-1, (config.n_groups, -1)).repeat_interleave(per_group, dim=2) for t in (B, C))
        steps = (delta * -ssd.A_log.exp()).transpose(1, 2)  # [b, h, l]
        later = torch.ones(length, length, dtype=torch.bool).tril(-1)
        decay = steps.unsqueeze(-1).expand(*steps.shape, length).masked_fill(~later, 0).cumsum(-2)
        decay = decay.masked_fill(later.T, float("-inf")).exp()
        weights = torch.einsum("blhn,bshn->bhls", C, B) * decay
        y = torch.einsum("bhls,bshp->blhp", weights, scaled) + ssd.D.unsqueeze(-1) * scaled
        y = y.flatten(-2) * F.silu(z)
        y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + ssd.norm.eps) * ssd.norm.weight
        return ssd.out_proj(y)

    @staticmethod
    def _fourier_filter(fourier: nn.Module, image_time: Tensor, text_time: Tensor) -> Tensor:
        def complex_linear(linear: nn.Module, x: Tensor) -> Tensor:
            return torch.complex(linear.real(x.real) - linear.imag(x.imag), linear.imag(x.real) + linear.real(x.imag))

        image, text = (torch.fft.rfft(time, norm="ortho") for time in (image_time, text_time))
        mixed = complex_linear(fourier.image_filter, image) * image + complex_linear(fourier.text_filter, text) * text
        return torch.fft.irfft(complex_linear(fourier.output_filter, mixed), n=image_time.shape[-1], norm="ortho")
