"""The published configuration as ours."""

from collections.abc import Mapping
from typing import Any

from mmm4rec_hf.modeling import MMM4RecConfig


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
    """
    num_heads = published["expand"] * published["hidden_size"] // published["head_dim"]
    values: dict[str, Any] = {
        "hidden_size": published["hidden_size"],
        "intermediate_size": published["inner_size"],
        "num_hidden_layers": published["num_layers"],
        "max_sequence_length": published["max_len"],
        "expand": published["expand"],
        "state_size": published["d_state"],
        "n_groups": published["n_groups"],
        "head_dim": published["head_dim"],
        "conv_kernel": published["d_conv"],
        "cross_ssd_activation": "silu" if num_heads % 8 == 0 else "hardswish",
        "use_time": published["is_time"],
        "time_mode": "published",
        "point_to_point_gate": published["p2p_residual"],
        "use_ffn": published["is_ffn"],
        "fusion": published["item_mm_fusion"],
        "use_item_bias": published["is_modality_bias"],
        "score_temperature": float(published["temperature"]),
        "score_padding_item": True,
        "mask_same_target": False,
        "num_items": published["item_num"],
        "hidden_dropout": float(published["dropout_prob"]),
        "embedding_dropout": float(published["embedding_drop_prob"]),
        "time_dropout": float(published["time_dropout_prob"]),
        "norm_eps": float(published["norm_eps"]),
    }
    return MMM4RecConfig(**(values | changes))
