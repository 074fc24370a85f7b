"""From token vectors to one vector a text, by the rule that a model's folder states."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

POOLINGS = ("mean", "cls", "max", "last")

# The switches of sentence-transformers' 1_Pooling/config.json.
_SENTENCE_TRANSFORMERS_MODES = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "last",
}


@dataclass(frozen=True)
class SentencePooling:
    """What a sentence-transformers folder states of itself; `None` where it states nothing."""

    pooling: str | None = None
    normalize: bool = False
    max_tokens: int | None = None


def sentence_pooling(read_json: Callable[[str], Any]) -> SentencePooling:
    """Reads the sentence-transformers files beside a model.

    Args:
        read_json (`Callable[[str], Any]`): From a path in the model's folder to its content, `None` where absent.

    Raises:
        ValueError: If the folder pools in a way, or has a further layer, that this package does not compute.
    """
    modules = read_json("modules.json")
    if modules is None:
        return SentencePooling()
    kinds = [module["type"].rsplit(".", 1)[-1] for module in modules]
    if unknown := set(kinds) - {"Transformer", "Pooling", "Normalize"}:
        raise ValueError(
            f"the sentence-transformers model has layers of kind {sorted(unknown)}; pass its encode method as a "
            "callable: text_encoder=SentenceTransformer(...).encode"
        )
    pooling = None
    if "Pooling" in kinds:
        config = read_json(f"{modules[kinds.index('Pooling')]['path']}/config.json")
        on = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
        modes = [_SENTENCE_TRANSFORMERS_MODES[key] for key in on if key in _SENTENCE_TRANSFORMERS_MODES]
        if isinstance(config.get("pooling_mode"), str):
            on = modes = [config["pooling_mode"]]
        if len(on) != 1 or len(modes) != 1 or modes[0] not in POOLINGS:
            raise ValueError(f"the model's folder pools by {on}; give pooling= one of {', '.join(POOLINGS)}")
        pooling = modes[0]
    settings = read_json("sentence_bert_config.json") or {}
    return SentencePooling(pooling, "Normalize" in kinds, settings.get("max_seq_length"))


def pool_tokens(hidden: torch.Tensor, mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """One vector a text.

    Args:
        hidden (`torch.Tensor` of shape `(batch_size, length, size)`): Token vectors, padded on the right.
        mask (`torch.Tensor` of shape `(batch_size, length)`): 1 for tokens, 0 for padding.
        pooling (`str`): `"mean"`, `"cls"`, `"max"` or `"last"`, over tokens alone.

    Returns:
        `torch.Tensor` of shape `(batch_size, size)`.
    """
    if pooling == "mean":
        weights = mask[..., None].to(hidden.dtype)
        return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
    if pooling == "cls":
        return hidden[:, 0]
    if pooling == "max":
        return hidden.masked_fill(mask[..., None] == 0, -torch.inf).amax(1)
    if pooling == "last":
        last = (mask.sum(1) - 1).clamp(min=0)
        return hidden[torch.arange(len(hidden), device=hidden.device), last]
    raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}, got {pooling!r}")
