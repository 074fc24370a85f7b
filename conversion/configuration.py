"""The published configuration as ours, and back. Pure functions of dictionaries."""

from collections.abc import Mapping
from typing import Any

from huggingface_hub.errors import StrictDataclassError

from mmm4rec_hf.modeling import MMM4RecConfig

# Published name -> ours.
_NAMES = {
    "hidden_size": "hidden_size",
    "inner_size": "intermediate_size",
    "num_layers": "num_hidden_layers",
    "max_len": "max_sequence_length",
    "expand": "expand",
    "d_state": "state_size",
    "n_groups": "n_groups",
    "head_dim": "head_dim",
    "d_conv": "conv_kernel",
    "is_time": "use_time",
    "p2p_residual": "point_to_point_gate",
    "is_ffn": "use_ffn",
    "item_mm_fusion": "fusion",
    "is_modality_bias": "use_item_bias",
    "temperature": "score_temperature",
    "item_num": "num_items",
    "dropout_prob": "hidden_dropout",
    "embedding_drop_prob": "embedding_dropout",
    "time_dropout_prob": "time_dropout",
    "norm_eps": "norm_eps",
}
_FLAGS = {"is_time", "p2p_residual", "is_ffn", "is_modality_bias"}
_DECIMALS = {"temperature", "dropout_prob", "embedding_drop_prob", "time_dropout_prob", "norm_eps"}
# The published code counts the items when it runs, so that its YAML files need not tell.
_OPTIONAL = {"item_num"}
# In what the published code always differs from a new model; its configuration cannot tell.
PUBLISHED_MODE: dict[str, Any] = {"time_mode": "published", "score_padding_item": True, "mask_same_target": False}


def config_from_published(published: Mapping[str, Any], **changes: Any) -> MMM4RecConfig:
    """
    Translates a published configuration, with everything in which the published code differs from a new model switched
    on: padding that takes part in the time path, the padding item among the scores, negatives in a batch that may be
    the row's own target, and the activation that its Cross-SSD fell back to when the number of heads was not a
    multiple of 8.

    Args:
        published (`Mapping[str, Any]`): The published YAML's values.
        changes: Values of [`MMM4RecConfig`] to use instead.

    Returns:
        [`MMM4RecConfig`]

    Raises:
        ValueError: For names that are not there, values of another type, and values that do not fit each other.
    """
    absent = [name for name in _NAMES if name not in published and name not in _OPTIONAL]
    if absent:
        raise ValueError(f"the published configuration lacks {', '.join(absent)}; is it the YAML file of the model?")
    values = {ours: _value(name, published[name]) for name, ours in _NAMES.items() if name in published}
    if values["head_dim"] < 1:
        raise ValueError(f"head_dim of the published configuration must be at least 1, got {values['head_dim']}")
    num_heads = values["expand"] * values["hidden_size"] // values["head_dim"]
    values |= {
        "cross_ssd_activation": "silu" if num_heads % 8 == 0 else "hardswish",
    } | PUBLISHED_MODE
    try:
        return MMM4RecConfig(**(values | changes))
    except StrictDataclassError as error:
        raise ValueError(f"the published configuration cannot work: {' '.join(str(error).split())}") from error


def config_to_published(config: MMM4RecConfig) -> dict[str, Any]:
    """
    Translates a configuration to the published names, for the published code to run the weights.

    Args:
        config ([`MMM4RecConfig`]): The configuration.

    Returns:
        `dict[str, Any]`: Values for a YAML file.

    Raises:
        ValueError: For options that the published code does not have.
    """
    num_heads = config.num_heads
    expected = "silu" if num_heads % 8 == 0 else "hardswish"
    if config.cross_ssd_activation != expected:
        raise ValueError(
            f"cross_ssd_activation is {config.cross_ssd_activation!r}; with {num_heads} heads the published code "
            f"always computes {expected!r}"
        )
    if config.learned_missing:
        raise ValueError("the published code has no vectors for missing texts and pictures (learned_missing=True)")
    if config.use_cooccurrence:
        raise ValueError("the published code has no term of the scores for near items (use_cooccurrence=True)")
    values = {name: getattr(config, ours) for name, ours in _NAMES.items()}
    return {name: value for name, value in values.items() if value is not None}


def _value(name: str, value: Any) -> Any:
    if name == "item_mm_fusion":
        return value
    if name in _FLAGS:
        if not isinstance(value, bool):
            raise ValueError(f"{name} of the published configuration must be true or false, got {value!r}")
        return value
    try:
        # YAML reads 1e-12, which has no point, as a string.
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} of the published configuration must be a number, got {value!r}") from None
    if name in _DECIMALS:
        return number
    if not number.is_integer():
        raise ValueError(f"{name} of the published configuration must be an integer, got {value!r}")
    return int(number)
