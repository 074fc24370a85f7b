# Copyright 2026 The mmm4rec_hf authors. Licensed under the Apache License, Version 2.0.
"""Configuration of MMM4Rec (arXiv 2506.02916)."""

import difflib
import inspect
import json
import os
import shutil
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

TASK = "sequential-recommendation"

# The classes that a saved folder offers to a process in which this package is absent (`trust_remote_code=True`).
# `AutoModel` is the backbone, whichever model was saved; the model with its catalogue is the one "for pretraining".
_AUTO_MAP = {
    "AutoConfig": "configuration_mmm4rec.MMM4RecConfig",
    "AutoModel": "modeling_mmm4rec.MMM4RecModel",
    "AutoModelForPreTraining": "modeling_mmm4rec.MMM4RecForSequentialRecommendation",
    "AutoProcessor": "processing_mmm4rec.MMM4RecProcessor",
}
# Arguments of every transformers model that look like a misspelt option of this one.
_FOREIGN_NAMES = {"attn_implementation", "experts_implementation"}
# Beyond these, float32 holds no rate, or scores and weights leave it.
_RANGES = {
    "score_temperature": (1e-6, 1e6), "norm_eps": (1e-30, 1.0), "initializer_range": (0.0, 1e3),
    "time_initializer_range": (0.0, 1e3), "time_step_min": (1e-30, 1e3), "time_step_max": (1e-30, 1e3),
    "time_step_floor": (0.0, 1e3),
}  # fmt: skip
_CUSTOM_PIPELINE: dict[str, Any] = {
    "impl": "pipeline_mmm4rec.SequentialRecommendationPipeline",
    "pt": ["AutoModelForPreTraining"],
    "type": "multimodal",
}
_MOST_LABELS = 10_000
_OBJECTS = {"auto_map", "per_layer_config", "quantization_config", "rope_scaling"}


def _is_integer(value: Any) -> bool:
    """Whether it is one, or the decimals of one, as the keys of JSON are."""
    return type(value) is int or (isinstance(value, str) and value.removeprefix("-").isdecimal())


@strict
class MMM4RecConfig(PreTrainedConfig):
    r"""
    Configuration of [`MMM4RecModel`] and [`MMM4RecForSequentialRecommendation`]. The defaults are those of the
    published recipe for fine-tuning, except the padding and scoring of new models (`time_mode`, `score_padding_item`).

    Args:
        hidden_size (`int`, *optional*, defaults to 256):
            Width H of item, sequence and user vectors.
        intermediate_size (`int`, *optional*, defaults to 256):
            Inner width of the feed-forward networks.
        num_hidden_layers (`int`, *optional*, defaults to 1):
            Number of layers; published: 1 when fine-tuned, 2 when pretrained.
        max_sequence_length (`int`, *optional*, defaults to 20):
            Events L of a history that are read, the last ones. The time path owns L x L weights, so that L is fixed.
        text_feature_size (`int`, *optional*, defaults to 768):
            Width of the items' text features.
        image_feature_size (`int`, *optional*, defaults to 768):
            Width of the items' image features.
        expand (`int`, *optional*, defaults to 2):
            Inner width of the state space layers over `hidden_size`.
        state_size (`int`, *optional*, defaults to 64):
            State size N.
        n_groups (`int`, *optional*, defaults to 8):
            Groups G of heads that share B and C; divides the number of heads.
        head_dim (`int`, *optional*, defaults to 64):
            Head size P; divides `expand * hidden_size`.
        conv_kernel (`int`, *optional*, defaults to 4):
            Width K of the causal depthwise convolutions.
        cross_ssd_activation (`"silu"` or `"hardswish"`, *optional*, defaults to `"silu"`):
            Activation after the convolutions of the Cross-SSD. The published code ran `"hardswish"` there whenever the
            number of heads was not a multiple of 8; its checkpoints of that kind need it.
        use_time (`bool`, *optional*, defaults to `True`):
            Whether the times of events are read.
        time_mode (`"masked"`, `"log"` or `"published"`, *optional*, defaults to `"masked"`):
            How intervals between events enter the time path. `"masked"`: normalised over the history, of whose scale
            nothing is left; padding takes no part. `"log"`: on a logarithmic scale, the same for every history;
            padding takes no part. `"published"`: normalised over all positions, padded ones hold timestamp 0, as in
            the published code.
        point_to_point_gate (`bool`, *optional*, defaults to `False`):
            Whether the time gate holds one value a position instead of one a history.
        use_ffn (`bool`, *optional*, defaults to `True`):
            Whether each branch of a layer ends in a feed-forward network.
        fusion (`"static"`, `"dynamic_shared"` or `"dynamic_instance"`, *optional*, defaults to `"static"`):
            Weights of the text and image scores: 1 and 1, a learned pair, or a learned pair an item.
        use_item_bias (`bool`, *optional*, defaults to `False`):
            Whether each item owns a learned vector a modality (the "with ID" variant).
        use_cooccurrence (`bool`, *optional*, defaults to `False`):
            Whether scores have a term of how often an item stood near the last ones in the training log, see
            [`MMM4RecCooccurrence`]; not of the paper. [`MMM4RecTrainer`] counts.
        cooccurrence_context (`int`, *optional*, defaults to 3): How many of the last items of a history it looks up.
        cooccurrence_window (`int`, *optional*, defaults to 5): Steps that two items count as near, at most.
        num_neighbours (`int`, *optional*, defaults to 256): Items near it that are kept of each item.
        learned_missing (`bool`, *optional*, defaults to `False`):
            Whether items whose text or picture the catalogue marks as missing share a learned vector a modality, in
            place of the embedding of their features.
        modality_dropout (`float`, *optional*, defaults to 0.0):
            In training, the share of items that lose their text or their picture at each step, one of the two by a
            coin: what a model has to learn for items that lack one. Needs `learned_missing`; not of the paper.
        score_temperature (`float`, *optional*, defaults to 0.8):
            Divides the scores.
        score_padding_item (`bool`, *optional*, defaults to `False`):
            Whether the padding item (row 0) competes in the scores and the loss, as published.
        item_loss (`"full"`, `"in_batch"` or `"sampled"`, *optional*, defaults to `"full"`):
            Cross entropy over all items, over the targets of the batch (published for pretraining), or over items that
            are drawn for each batch (in evaluation over all items).
        mask_same_target (`bool`, *optional*, defaults to `True`):
            Whether another row of the batch with the same target is no negative of the `"in_batch"` loss; as published
            it is one.
        use_log_q (`bool`, *optional*, defaults to `False`):
            Whether the `"in_batch"` loss corrects for how often each item is a target (logQ); needs
            [`~MMM4RecForSequentialRecommendation.set_item_frequencies`].
        gather_negatives (`bool`, *optional*, defaults to `False`):
            Whether the targets of all processes are negatives of the `"in_batch"` loss in training.
        num_sampled_negatives (`int`, *optional*, defaults to 4096):
            Items that the `"sampled"` loss draws for each batch.
        negative_sampling (`"uniform"` or `"frequency"`, *optional*, defaults to `"uniform"`):
            How the `"sampled"` loss draws: each item alike, or by how often it is a target, which needs
            [`~MMM4RecForSequentialRecommendation.set_item_frequencies`]. Either is corrected for.
        feature_encoder (`dict[str, dict[str, Any]]`, *optional*):
            For `"text"` and `"image"`, the `encoder`, `revision` and `pooling` that made the features which the model
            reads. Taken from the first catalogue that tells; a later one must agree.
        num_items (`int`, *optional*):
            Items in the catalogue, without the padding item; `None` before any are set.
        hidden_dropout (`float`, *optional*, defaults to 0.4):
            Dropout inside the layers.
        embedding_dropout (`float`, *optional*, defaults to 0.4):
            Dropout of the item vectors that enter the first layer.
        time_dropout (`float`, *optional*, defaults to 0.4):
            Dropout in the time path.
        ssd_implementation (`str`, *optional*, defaults to `"auto"`):
            Form in which the state space operation is computed: `"quadratic"`, `"chunked"`, `"recurrent"`,
            `"mamba_ssm"` (that package's kernel, on CUDA), or `"auto"`, the fastest of them that can be had. All give
            the same numbers.
        chunk_size (`int`, *optional*, defaults to 64):
            Chunk of the `"chunked"` form, in positions.
        norm_eps (`float`, *optional*, defaults to 1e-12):
            Epsilon of every LayerNorm and RMSNorm.
        initializer_range (`float`, *optional*, defaults to 0.02):
            Standard deviation of the linear weights at the start.
        time_initializer_range (`float`, *optional*):
            The same of the linear weights of the time path; `initializer_range` by default, as published, at which
            the time path starts numerically dead: it passes its input on in the third power.
        time_step_min (`float`, *optional*, defaults to 0.001):
            Lower end of the log-uniform draw of the step sizes at the start.
        time_step_max (`float`, *optional*, defaults to 0.1):
            Upper end of that draw.
        time_step_floor (`float`, *optional*, defaults to 0.0001):
            Floor of that draw.

    Example:

    ```python
    >>> from mmm4rec_hf import MMM4RecConfig, MMM4RecModel

    >>> model = MMM4RecModel(MMM4RecConfig(num_hidden_layers=2))
    ```"""

    model_type = "mmm4rec"
    # With these left out the Trainer's predictions are the scores alone.
    keys_to_ignore_at_inference = ["user_embeds", "hidden_states", "text_hidden_states"]

    hidden_size: int = 256
    intermediate_size: int = 256
    num_hidden_layers: int = 1
    max_sequence_length: int = 20
    text_feature_size: int = 768
    image_feature_size: int = 768
    expand: int = 2
    state_size: int = 64
    n_groups: int = 8
    head_dim: int = 64
    conv_kernel: int = 4
    cross_ssd_activation: Literal["silu", "hardswish"] = "silu"
    use_time: bool = True
    time_mode: Literal["masked", "log", "published"] = "masked"
    point_to_point_gate: bool = False
    use_ffn: bool = True
    fusion: Literal["static", "dynamic_shared", "dynamic_instance"] = "static"
    use_item_bias: bool = False
    use_cooccurrence: bool = False
    cooccurrence_context: int = 3
    cooccurrence_window: int = 5
    num_neighbours: int = 256
    learned_missing: bool = False
    modality_dropout: float = 0.0
    score_temperature: float = 0.8
    score_padding_item: bool = False
    item_loss: Literal["full", "in_batch", "sampled"] = "full"
    mask_same_target: bool = True
    use_log_q: bool = False
    gather_negatives: bool = False
    num_sampled_negatives: int = 4096
    negative_sampling: Literal["uniform", "frequency"] = "uniform"
    feature_encoder: dict[str, dict[str, Any]] | None = None
    num_items: int | None = None
    hidden_dropout: float = 0.4
    embedding_dropout: float = 0.4
    time_dropout: float = 0.4
    ssd_implementation: Literal["auto", "quadratic", "chunked", "recurrent", "mamba_ssm"] = "auto"
    chunk_size: int = 64
    norm_eps: float = 1e-12
    initializer_range: float = 0.02
    time_initializer_range: float | None = None
    time_step_min: float = 0.001
    time_step_max: float = 0.1
    time_step_floor: float = 1e-4

    def __post_init__(self, **kwargs: Any) -> None:
        own_names = list(MMM4RecConfig.__annotations__)
        for name in kwargs.keys() - _FOREIGN_NAMES:
            close = difflib.get_close_matches(name, own_names, n=1, cutoff=0.8)
            if close:
                raise ValueError(f"MMM4RecConfig has no option `{name}`; did you mean `{close[0]}`?")
        if not self.is_loaded_remotely():
            # transformers asks for `trust_remote_code` when a configuration names a pipeline; here it is registered.
            kwargs.pop("custom_pipelines", None)
        dtype = self.dtype if self.dtype is not None else kwargs.get("torch_dtype")
        # transformers takes any name of torch's, and has no words for one that is none.
        named = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
        if dtype is not None and not isinstance(named, torch.dtype):
            raise ValueError(
                f"dtype must be the name of one of torch's, such as 'float32' or 'bfloat16', got {dtype!r}"
            )
        self._check_foreign(kwargs)
        super().__post_init__(**kwargs)

    def _check_foreign(self, kwargs: dict[str, Any]) -> None:
        """What every transformers model has and this one does without: taken as it is read, by name or not at all."""
        labels = self.id2label
        if labels is not None and not (isinstance(labels, dict) and all(_is_integer(label) for label in labels)):
            raise ValueError(f"id2label must name labels by their numbers, got {labels!r}; leave it out")
        # transformers makes a name for each.
        number = kwargs.get("num_labels")
        if number is not None and (type(number) is not int or not 0 <= number <= _MOST_LABELS):
            raise ValueError(f"num_labels must be from 0 to {_MOST_LABELS:,}, got {number!r}; leave it out")
        for name in _OBJECTS & kwargs.keys():
            if not isinstance(kwargs[name], dict | None):
                raise ValueError(f"{name} must be an object, got {kwargs[name]!r}; leave it out")
        classes = self.architectures
        if classes is not None and not (isinstance(classes, list) and all(isinstance(one, str) for one in classes)):
            raise ValueError(f"architectures must be a list of names, got {classes!r}; leave it out")
        for name in kwargs.keys() - {"model_type"}:
            if hasattr(type(self), name) and getattr(inspect.getattr_static(type(self), name), "fset", None) is None:
                raise ValueError(f"{name} is a part of MMM4RecConfig's code and no option; leave it out")

    def validate_architecture(self) -> None:
        """Part of the `@strict` validation: values that must fit each other."""
        for name in (
            "hidden_size", "intermediate_size", "num_hidden_layers", "max_sequence_length", "text_feature_size",
            "image_feature_size", "expand", "state_size", "n_groups", "head_dim", "conv_kernel", "chunk_size",
            "num_sampled_negatives", "cooccurrence_context", "cooccurrence_window", "num_neighbours",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.inner_size % self.head_dim:
            raise ValueError(
                f"head_dim ({self.head_dim}) must divide expand * hidden_size "
                f"({self.expand} * {self.hidden_size} = {self.inner_size}); {self._fitting_heads()}"
            )
        if self.num_heads % self.n_groups:
            raise ValueError(
                f"n_groups ({self.n_groups}) must divide the number of heads expand * hidden_size / head_dim "
                f"({self.inner_size} / {self.head_dim} = {self.num_heads}); {self._fitting_heads()}"
            )
        for name in ("hidden_dropout", "embedding_dropout", "time_dropout", "modality_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        if self.modality_dropout and not self.learned_missing:
            raise ValueError(
                f"modality_dropout={self.modality_dropout} needs learned_missing=True: a vector for what is left out"
            )
        if self.use_cooccurrence and self.item_loss != "full":
            raise ValueError(
                f"use_cooccurrence needs item_loss='full', got {self.item_loss!r}: it is learned against all items"
            )
        if self.num_items is not None and self.num_items < 1:
            raise ValueError(f"num_items must be None or at least 1, got {self.num_items}")
        if not 0 < self.time_step_min <= self.time_step_max:
            raise ValueError(
                f"time_step_min ({self.time_step_min}) must be in (0, time_step_max ({self.time_step_max})]"
            )
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:  # NaN is in no range
                raise ValueError(f"{name} must be from {least:g} to {most:g}, got {value}")

    @property
    def needs_item_frequencies(self) -> bool:
        """`bool`: Whether the loss asks how often each item is a target."""
        return (self.item_loss == "in_batch" and self.use_log_q) or (
            self.item_loss == "sampled" and self.negative_sampling == "frequency"
        )

    @property
    def inner_size(self) -> int:
        """`int`: Inner width E of the state space layers."""
        return self.expand * self.hidden_size

    @property
    def num_heads(self) -> int:
        """`int`: Number h of heads."""
        return self.inner_size // self.head_dim

    def _fitting_heads(self) -> str:
        """Values that would pass, for an error: `n_groups` or `head_dim` at most as large as now, or both."""
        sizes = [size for size in range(self.head_dim, 0, -1) if self.inner_size % size == 0]
        remedies = [f"head_dim={size}" for size in sizes if self.inner_size // size % self.n_groups == 0][:1]
        heads = self.inner_size // sizes[0]
        groups = next(groups for groups in range(self.n_groups, 0, -1) if heads % groups == 0)
        if groups != self.n_groups:
            size = "" if sizes[0] == self.head_dim else f" and head_dim={sizes[0]}"
            remedies.insert(0, f"n_groups={groups}{size}")
        return f"give {' or '.join(remedies)}"

    @classmethod
    def _dict_from_json_file(cls, json_file: str | os.PathLike[str]) -> dict[str, Any]:
        """As transformers', which tells no other damage but what is no JSON."""
        try:
            found = super()._dict_from_json_file(json_file)
        except RecursionError as error:
            raise json.JSONDecodeError("lists or objects stand in each other too deeply", "", 0) from error
        if not isinstance(found, dict):
            raise json.JSONDecodeError("it is no object", "", 0)
        return found

    @classmethod
    def is_loaded_remotely(cls) -> bool:
        """Whether this class came from a saved folder's own code instead of the installed package."""
        return cls.__module__.startswith("transformers_modules")

    def save_pretrained(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs: Any) -> None:
        """
        Saves the configuration and beside it the code of the model, so that the folder also loads where this package
        is not installed.

        Args:
            save_directory (`str` or `os.PathLike`): The folder, made if it is absent.
            push_to_hub (`bool`, *optional*, defaults to `False`): Whether to upload the folder as well.
            kwargs: Passed on to [`~PreTrainedConfig.save_pretrained`].
        """
        os.makedirs(save_directory, exist_ok=True)
        for path in Path(__file__).parent.glob("*_mmm4rec.py"):
            shutil.copyfile(path, Path(save_directory) / path.name)
        # Code loaded from a folder holds only the files that were needed so far: what is absent is not promised.
        present = {path.stem for path in Path(save_directory).glob("*_mmm4rec.py")}
        self.auto_map = {auto: name for auto, name in _AUTO_MAP.items() if name.split(".")[0] in present}
        self.custom_pipelines = {TASK: _CUSTOM_PIPELINE} if "pipeline_mmm4rec" in present else {}
        super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)
        if not self.is_loaded_remotely():
            self.custom_pipelines = {}


__all__ = ["MMM4RecConfig"]
