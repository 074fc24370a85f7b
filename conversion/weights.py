"""Names of weights: the published checkpoint's and ours. Pure functions of dictionaries, both ways."""

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")

# Published name -> ours. The published code owns the shared TiSSD twice, once a branch; we own it once.
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
    layers = {
        int(key.split(".")[1]) for key in weights if key.startswith(("encoder_ssd_layers.", "decoder_ssd_layers."))
    }
    names = dict(_TOP)
    for j in layers:
        names |= _layer(j)
    renamed, unknown = {}, []
    for key, value in weights.items():
        if key.startswith("decoder_ssd_layers.") and key.split(".")[2] == "ssd":
            continue
        if key == "fusion_factor" and getattr(value, "shape", None) == ():
            continue
        module = next((name for name in (key, *_prefixes(key)) if name in names), None)
        if module is None:
            unknown.append(key)
        else:
            renamed[names[module] + key[len(module) :]] = value
    if unknown:
        raise ValueError(f"no MMM4Rec checkpoint has the weights {', '.join(sorted(unknown))}")
    return renamed


def _prefixes(key: str) -> list[str]:
    """`a.b.c` -> `a.b`, `a`: the modules that may own a weight, the innermost first."""
    parts = key.split(".")
    return [".".join(parts[:n]) for n in range(len(parts) - 1, 0, -1)]
