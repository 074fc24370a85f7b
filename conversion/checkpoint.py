"""Published checkpoint files: read, and checked against a configuration."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmm4rec_hf.modeling import MMM4RecConfig, MMM4RecForSequentialRecommendation

from .untrusted import DTYPES, check_tensor, load_tensors
from .weights import decoder_copy, from_published, published_layers, to_published

ITEM_BIASES = ("text_item_embedding_bias", "vision_item_embedding_bias")
_SHOWN = 10


@dataclass(frozen=True)
class PublishedCheckpoint:
    """What a published checkpoint holds that is of use here; the optimizer's state is not.

    Args:
        weights (`dict[str, torch.Tensor]`): By published name.
        epoch (`int`, *optional*): The epoch after which it was written.
        best_valid_score (`float`, *optional*): The best score on the validation users up to then.
    """

    weights: dict[str, Tensor]
    epoch: int | None = None
    best_valid_score: float | None = None


def read_checkpoint(path: Path) -> PublishedCheckpoint:
    """
    Reads a published checkpoint in its full form (weights, optimizer, epoch, score) or its light one (weights alone).

    Args:
        path (`Path`): What `torch.save` wrote.

    Raises:
        ValueError: If the file is not there, is damaged, would run code, or is no such checkpoint.
    """
    content = load_tensors(path)
    weights = content.get("model") if isinstance(content, dict) else None
    if not isinstance(weights, dict):
        held = f"keys {', '.join(map(str, list(content)[:_SHOWN]))}" if isinstance(content, dict) else "no dictionary"
        raise ValueError(f"{path} is no published checkpoint: it has no dictionary of weights under 'model' ({held})")
    others = [str(k) for k, value in weights.items() if not (isinstance(k, str) and isinstance(value, Tensor))]
    if others:
        raise ValueError(f"{path} is no published checkpoint: {_listed(others)} under 'model' are no named tensors")
    for name, value in weights.items():
        check_tensor(value, f"{path}: {name}")
    broken = [name for name, value in weights.items() if not value.isfinite().all()]
    if broken:
        raise ValueError(f"{path}: {_listed(broken)} hold NaN or infinity; the run that wrote them had failed")
    epoch, score = content.get("epoch"), content.get("best_val_score")
    return PublishedCheckpoint(
        weights,
        epoch=epoch if isinstance(epoch, int) else None,
        best_valid_score=_number(score),
    )


def _number(value: Any) -> float | None:
    if isinstance(value, Tensor) and value.numel() == 1 and value.device.type == "cpu" and value.dtype in DTYPES:
        value = value.item()
    return value if isinstance(value, float) else None


def checked_weights(weights: Mapping[str, Tensor], config: MMM4RecConfig) -> dict[str, Tensor]:
    """
    Published weights under our names, after all that a configuration says of them was checked.

    Args:
        weights (`Mapping[str, torch.Tensor]`): By published name.
        config ([`MMM4RecConfig`]): With the feature sizes and `num_items`.

    Returns:
        `dict[str, torch.Tensor]`: All of the model's weights but the features.

    Raises:
        ValueError: For unknown and missing names, another number of layers, another length, other shapes, and copies
            of the shared TiSSD that differ.
    """
    renamed = from_published(weights)
    _check_layers_and_length(weights, config)
    with torch.device("meta"):
        model = MMM4RecForSequentialRecommendation(config)
    shapes = to_published({name: value.shape for name, value in model.state_dict().items()})
    present = set(weights) - ({"fusion_factor"} if config.fusion == "static" else set())
    missing, left = sorted(set(shapes) - present), sorted(present - set(shapes))
    if missing:
        raise ValueError(f"the checkpoint lacks the weights {_listed(missing)}")
    if left:
        raise ValueError(
            f"the configuration has no use for the weights {_listed(left)} of the checkpoint; is it of another run?"
        )
    different = [
        f"{name} {tuple(weights[name].shape)} instead of {tuple(shape)}"
        for name, shape in shapes.items()
        if weights[name].shape != shape
    ]
    if different:
        raise ValueError(f"the checkpoint's shapes are not those of the configuration: {_listed(different)}")
    _check_copies(weights)
    return renamed


def _check_layers_and_length(weights: Mapping[str, Tensor], config: MMM4RecConfig) -> None:
    layers = published_layers(weights)
    if layers != set(range(config.num_hidden_layers)):
        raise ValueError(
            f"the checkpoint has {len(layers)} layers, the configuration says num_layers: {config.num_hidden_layers}"
        )
    norm = weights.get("layer_norm_time.weight")
    if norm is not None and norm.shape != (config.max_sequence_length,):
        raise ValueError(
            f"the checkpoint reads {norm.numel()} events of a history, the configuration says max_len: "
            f"{config.max_sequence_length}; the length cannot be changed afterwards"
        )


def _check_copies(weights: Mapping[str, Tensor]) -> None:
    """The two branches share their TiSSD, which is kept once: copies that differ are of another model."""
    copies = {copy: value for name, value in weights.items() if (copy := decoder_copy(name)) is not None}
    differing = [copy for copy, value in copies.items() if not torch.equal(value, weights[copy])]
    if differing:
        raise ValueError(
            f"the branches of the checkpoint do not share their state space layers: {_listed(differing)} differ from "
            "the encoder's"
        )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
