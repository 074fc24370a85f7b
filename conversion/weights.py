"""Names of weights: the published checkpoint's and ours. Pure functions of dictionaries, both ways."""

import re
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")

# Of a catalogue: they lie in the published data folder.
FEATURES = ("items.text_features", "items.image_features")
# The published code owns the shared TiSSD twice, once a branch; we own it once.
_SHARED = re.compile(r"(encoder|decoder)_ssd_layers\.\d+\.ssd\.")

# Published name -> ours.
_TOP = {
    "text_adapter.0": "model.text_projection",
    "vision_adapter.0": "model.image_projection",
    "text_in_layer_norm": "model.encoder.text_norm",
    "vision_in_layer_norm": "model.encoder.image_norm",
    "layer_norm_time": "model.encoder.time_norm",
    "text_item_embedding_bias": "items.text_bias",
    "vision_item_embedding_bias": "items.image_bias",
    "fusion_factor": "items.fusion_factor",
}
_STATE_SPACE = {
    "conv1d4time_1": "time_modulation.conv_1",
    "conv1d4time_2": "time_modulation.conv_2",
    "mlp4time_scale.1": "time_modulation.scale_in",
    "mlp4time_scale.3": "time_modulation.scale_out",
    "dt_bias": "dt_bias",
    "A_log": "A_log",
    "D": "D",
    "norm": "norm",
    "out_proj": "out_proj",
}
_SELF_SSD = _STATE_SPACE | {
    "in_proj": "in_proj",
    "conv1d_1": "conv",
    "time_gate_residual.1": "time_gate.gate",
    "time_layer_norm": "time_gate.norm",
}
_CROSS_SSD = _STATE_SPACE | {
    "u_in_proj": "content_proj",
    "z_in_proj": "gate_proj",
    "q_in_proj": "query_proj",
    "u_conv1d": "content_conv",
    "q_conv1d": "query_conv",
}
_FFN = {"fc1": "fc1", "fc2": "fc2", "layer_norm": "norm"}
# The published names of the first two filters name the other branch: "text" acts on the image branch's signal.
_FOURIER = {
    "text_complex_weight.0": "image_filter",
    "vision_complex_weight.0": "text_filter",
    "co_complex_weight.0": "output_filter",
}


def _layer(j: int) -> dict[str, str]:
    encoder, decoder, ours = f"encoder_ssd_layers.{j}", f"decoder_ssd_layers.{j}", f"model.encoder.layers.{j}"
    return {
        f"{encoder}.layer_norm": f"{ours}.text_norm",
        f"{decoder}.layer_norm": f"{ours}.image_norm",
        f"{decoder}.co_layer_norm": f"{ours}.cross_norm",
        **{f"{encoder}.ssd.{old}": f"{ours}.ssd.{new}" for old, new in _SELF_SSD.items()},
        **{f"{decoder}.co_ssd.{old}": f"{ours}.cross_ssd.{new}" for old, new in _CROSS_SSD.items()},
        **{f"{encoder}.ffn.{old}": f"{ours}.text_ffn.{new}" for old, new in _FFN.items()},
        **{f"{decoder}.ffn.{old}": f"{ours}.image_ffn.{new}" for old, new in _FFN.items()},
        **{f"{decoder}.{old}": f"{ours}.fourier_filter.{new}" for old, new in _FOURIER.items()},
    }


def from_published(weights: Mapping[str, T]) -> dict[str, T]:
    """
    Renames a published checkpoint's weights to those of [`MMM4RecForSequentialRecommendation`].

    Args:
        weights (`Mapping[str, T]`): The published `"model"` dictionary; the values are passed on as they are.

    Returns:
        `dict[str, T]`: The same values under our names, without the decoder's copy of the shared TiSSD and the static
        fusion's unused scalar.

    Raises:
        ValueError: Naming every key that no published model has.
    """
    names = dict(_TOP)
    for j in published_layers(weights):
        names |= _layer(j)
    renamed, unknown = {}, []
    for key, value in weights.items():
        if key.startswith("decoder") and _SHARED.match(key):
            continue
        if key == "fusion_factor" and getattr(value, "shape", None) == ():
            continue
        module = _owner(key, names)
        if module is None:
            unknown.append(key)
        else:
            renamed[names[module] + key[len(module) :]] = value
    if unknown:
        raise ValueError(f"no MMM4Rec checkpoint has the weights {', '.join(sorted(unknown))}")
    return renamed


def to_published(weights: Mapping[str, T]) -> dict[str, T]:
    """
    Renames the weights of [`MMM4RecForSequentialRecommendation`] to those of a published checkpoint.

    Args:
        weights (`Mapping[str, T]`): The model's state dictionary; the values are passed on as they are.

    Returns:
        `dict[str, T]`: The same values under the published names, the shared TiSSD once for each branch, without the
        features, which a published checkpoint leaves out.

    Raises:
        ValueError: Naming every key that a published model has no place for.
    """
    names = {ours: published for published, ours in _TOP.items()}
    for j in {int(key.split(".")[3]) for key in weights if key.startswith("model.encoder.layers.")}:
        names |= {ours: published for published, ours in _layer(j).items()}
    renamed, unplaced = {}, []
    for key, value in weights.items():
        if key in FEATURES:
            continue
        module = _owner(key, names)
        if module is None:
            unplaced.append(key)
            continue
        published = names[module] + key[len(module) :]
        renamed[published] = value
        copy = decoder_copy(published)
        if copy is not None:
            renamed[copy] = value
    if unplaced:
        raise ValueError(f"a published checkpoint has no place for the weights {', '.join(sorted(unplaced))}")
    return renamed


def decoder_copy(name: str) -> str | None:
    """The decoder's name of a weight that the encoder shares with it, both published; `None` for other weights."""
    return name.replace("encoder", "decoder", 1) if name.startswith("encoder") and _SHARED.match(name) else None


def published_layers(weights: Mapping[str, T]) -> set[int]:
    """Numbers of the layers that a published checkpoint's names speak of."""
    found = (re.match(r"(?:encoder|decoder)_ssd_layers\.(\d+)\.", key) for key in weights)
    return {int(match[1]) for match in found if match}


def _owner(key: str, names: Mapping[str, str]) -> str | None:
    """The module, or the weight itself, that has a name: of `a.b.c` that is `a.b.c`, `a.b` or `a`."""
    parts = key.split(".")
    prefixes = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((prefix for prefix in prefixes if prefix in names), None)
