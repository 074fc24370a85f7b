"""Encoders out of transformers models: joint ones (SigLIP, CLIP), text models, image models."""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    MODEL_MAPPING,
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from mmm4rec_hf.hub import check_hub_name, fetching
from mmm4rec_hf.modeling.fetching_mmm4rec import optional_file
from mmm4rec_hf.packaged_encoders import packaged_names

from .batch_encoder import BatchEncoder, as_features, inference_mode_of
from .pooling import pool_tokens, sentence_pooling

logger = logging.getLogger(__name__)

# Where neither the tokenizer nor the configuration states a limit.
DEFAULT_MAX_TOKENS = 512


class PretrainedEncoder(BatchEncoder):
    """What the encoders of this module share: where they run, and what identifies them.

    Args:
        model (`PreTrainedModel`): The model, on its device.
        name (`str`): The name or folder that it was loaded from.
        dtype (`torch.dtype`): bfloat16 or float16 for mixed precision, float32 for none.
        pooling (`str`): How a vector is made of the model's outputs, recorded in `info`.
    """

    def __init__(self, model: PreTrainedModel, name: str, dtype: torch.dtype, pooling: str) -> None:
        self.model: Any = model
        self.dtype = dtype
        revision = _revision(model, name)
        self.info = {"encoder": _public_name(name, revision), "revision": revision, "pooling": pooling}
        if dtype != torch.float32:
            self.info["dtype"] = str(dtype).removeprefix("torch.")

    def _features(self, output: Any, rows: int) -> np.ndarray:
        return as_features(output, rows, self.info["encoder"])


class JointTextEncoder(PretrainedEncoder):
    """The text side of a joint model, by its `get_text_features`.

    Texts are padded to the model's full length: SigLIP pools the last position, so that anything shorter would give
    another vector.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str, dtype: torch.dtype
    ) -> None:
        super().__init__(model, name, dtype, pooling="get_text_features")
        self.tokenizer: PreTrainedTokenizerBase = tokenizer
        self.max_tokens = _max_tokens(tokenizer, model.config.text_config)

    def __call__(self, batch: list[str]) -> np.ndarray:
        """See [`BatchEncoder.__call__`]."""
        tokens = self.tokenizer(
            batch, padding="max_length", truncation=True, max_length=self.max_tokens, return_tensors="pt"
        )
        with inference_mode_of(self.model, self.dtype):
            output = self.model.get_text_features(**tokens.to(self.model.device))
        return self._features(output if isinstance(output, torch.Tensor) else output.pooler_output, len(batch))


class JointImageEncoder(PretrainedEncoder):
    """The image side of a joint model, by its `get_image_features`."""

    def __init__(self, model: PreTrainedModel, image_processor: Any, name: str, dtype: torch.dtype) -> None:
        super().__init__(model, name, dtype, pooling="get_image_features")
        self.image_processor: Any = image_processor

    def __call__(self, batch: list[Any]) -> np.ndarray:
        """See [`BatchEncoder.__call__`]."""
        pixels = self.image_processor(images=batch, return_tensors="pt")
        with inference_mode_of(self.model, self.dtype):
            output = self.model.get_image_features(**pixels.to(self.model.device))
        return self._features(output if isinstance(output, torch.Tensor) else output.pooler_output, len(batch))


class TextEncoder(PretrainedEncoder):
    """A text model whose token vectors are pooled.

    Args:
        pooling (`str`): `"mean"`, `"cls"`, `"max"` or `"last"`.
        normalize (`bool`): Whether vectors are scaled to length 1.
        max_tokens (`int`, *optional*): Longer texts are cut; by default the model's own limit.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        name: str,
        dtype: torch.dtype,
        *,
        pooling: str,
        normalize: bool,
        max_tokens: int | None,
    ) -> None:
        super().__init__(model, name, dtype, pooling=f"{pooling}, normalized" if normalize else pooling)
        # Positions count from the left, so that left padding would move a text along with its batch mates.
        tokenizer.padding_side = "right"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        self.tokenizer: PreTrainedTokenizerBase = tokenizer
        self.pooling = pooling
        self.normalize = normalize
        self.max_tokens = min(max_tokens or DEFAULT_MAX_TOKENS, _max_tokens(tokenizer, model.config))

    def __call__(self, batch: list[str]) -> np.ndarray:
        """See [`BatchEncoder.__call__`]."""
        tokens = self.tokenizer(
            batch, padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt"
        ).to(self.model.device)
        with inference_mode_of(self.model, self.dtype):
            hidden = self.model(**tokens).last_hidden_state.float()
            vectors = pool_tokens(hidden, tokens["attention_mask"], self.pooling)
            if self.normalize:
                vectors = torch.nn.functional.normalize(vectors, dim=1, eps=1e-12)
        return self._features(vectors, len(batch))


class ImageEncoder(PretrainedEncoder):
    """An image model, by its own pooled output where its checkpoint has one.

    Args:
        pooling (`str`): `"pooler"` for the model's pooled output, `"cls"` for the first position.
    """

    def __init__(
        self, model: PreTrainedModel, image_processor: Any, name: str, dtype: torch.dtype, pooling: str
    ) -> None:
        super().__init__(model, name, dtype, pooling)
        self.image_processor: Any = image_processor
        self.pooling = pooling

    def __call__(self, batch: list[Any]) -> np.ndarray:
        """See [`BatchEncoder.__call__`]."""
        pixels = self.image_processor(images=batch, return_tensors="pt").to(self.model.device)
        with inference_mode_of(self.model, self.dtype):
            output = self.model(**pixels)
            vectors = output.pooler_output if self.pooling == "pooler" else output.last_hidden_state[:, 0]
        return self._features(vectors.flatten(1), len(batch))


def load_joint(
    name: str, revision: str | None, device: torch.device, dtype: torch.dtype
) -> tuple[JointTextEncoder, JointImageEncoder]:
    """Loads a joint model once, as its two encoders.

    Raises:
        ValueError: If the model is not a joint one.
    """
    config = _load_config(name, revision)
    if not _is_joint(config):
        raise ValueError(
            f"{name!r} is a {config.model_type} model, not a joint one of text and images (such as SigLIP or CLIP); "
            "give it as text_encoder= or image_encoder="
        )
    model, missing = _load_model(name, revision, device)
    _warn_of_missing(name, missing)
    tokenizer = _load(AutoTokenizer, name, revision)
    image_processor = _load(AutoImageProcessor, name, revision)
    return JointTextEncoder(model, tokenizer, name, dtype), JointImageEncoder(model, image_processor, name, dtype)


def load_text_encoder(
    name: str, revision: str | None, device: torch.device, dtype: torch.dtype, pooling: str | None = None
) -> BatchEncoder:
    """Loads a text model, or the text side of a joint one.

    Args:
        name (`str`): A folder or a Hub name.
        revision (`str`, *optional*): A Hub revision.
        device (`torch.device`): Where it runs.
        dtype (`torch.dtype`): bfloat16 or float16 for mixed precision.
        pooling (`str`, *optional*):
            `"mean"`, `"cls"`, `"max"` or `"last"`; by default what a sentence-transformers folder states, else
            `"mean"`.
    """
    config = _load_config(name, revision)
    if _is_joint(config):
        return load_joint(name, revision, device, dtype)[0]
    stated = sentence_pooling(lambda path: _read_json(name, revision, path))
    model, missing = _load_model(name, revision, device)
    _warn_of_missing(name, [key for key in missing if "pooler" not in key])
    return TextEncoder(
        model.get_encoder() if config.is_encoder_decoder else model,
        _load(AutoTokenizer, name, revision),
        name,
        dtype,
        pooling=pooling or stated.pooling or "mean",
        normalize=stated.normalize,
        max_tokens=stated.max_tokens,
    )


def load_image_encoder(name: str, revision: str | None, device: torch.device, dtype: torch.dtype) -> BatchEncoder:
    """Loads an image model, or the image side of a joint one; arguments as for [`load_text_encoder`]."""
    if _is_joint(_load_config(name, revision)):
        return load_joint(name, revision, device, dtype)[1]
    model, missing = _load_model(name, revision, device)
    _warn_of_missing(name, [key for key in missing if "pooler" not in key])
    # A classifier's checkpoint often lacks the pooler, which then holds random weights.
    pooling = "cls" if any("pooler" in key for key in missing) else "pooler"
    return ImageEncoder(model, _load(AutoImageProcessor, name, revision), name, dtype, pooling)


def _load_config(name: str, revision: str | None) -> PreTrainedConfig:
    """What is loaded first, so that a name that leads nowhere is told with both places and the reason, in one line."""
    if not Path(name).is_dir():
        check_hub_name(name)
    with fetching(name, "model"):
        config: PreTrainedConfig = _load(AutoConfig, name, revision)
    return config


def _load_model(name: str, revision: str | None, device: torch.device) -> tuple[PreTrainedModel, list[str]]:
    model, report = _load(AutoModel, name, revision, dtype=torch.float32, output_loading_info=True)
    return model.to(device), sorted(report["missing_keys"])


def _load(auto_class: Any, name: str, revision: str | None, **options: Any) -> Any:
    """By one of transformers' own classes; where nothing is said it would ask on the terminal to run another."""
    try:
        return auto_class.from_pretrained(name, revision=revision, trust_remote_code=False, **options)
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        raise ValueError(
            f"{name!r} needs code of its own repository, which is not run; name a model of transformers' own classes, "
            "or give a function as text_encoder= or image_encoder="
        ) from error


def _warn_of_missing(name: str, missing: list[str]) -> None:
    if missing:
        logger.warning(
            "%s: %d weights are not in the checkpoint and stay random (first: %s); its features mean little",
            name,
            len(missing),
            missing[0],
        )


def _is_joint(config: PreTrainedConfig) -> bool:
    """Whether a model embeds texts and pictures side by side; one that reads pictures to write text does not."""
    model_class = MODEL_MAPPING.get(type(config), None)
    return {"text_config", "vision_config"} <= set(config.sub_configs) and "get_text_features" in dir(model_class)


def _max_tokens(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> int:
    limits = [tokenizer.model_max_length]
    positions = config.to_dict().get("max_position_embeddings")
    if positions is not None:
        # RoBERTa's positions begin behind the padding index.
        limits.append(positions - 2 if "roberta" in config.model_type else positions)
    limit = min(limits)
    return int(limit) if limit < 1_000_000 else DEFAULT_MAX_TOKENS


def _read_json(name: str, revision: str | None, path: str) -> Any:
    """A JSON file beside a model, `None` where there is none."""
    file = optional_file(name, path, revision=revision)
    return None if file is None else json.loads(file.read_text(encoding="utf-8"))


def _public_name(name: str, revision: str | None) -> str:
    """
    A Hub name as it is, a model that comes as a package by the name that fetches it, another folder by its last part:
    features travel, and the path to them is nobody's business.
    """
    if not Path(name).is_dir():
        return name
    return packaged_names({"text": {"revision": revision}}).get("text") or Path(name).resolve().name


def _revision(model: PreTrainedModel, name: str) -> str | None:
    """The commit of a Hub model, a digest of a folder's weights."""
    if not Path(name).is_dir():
        return model.config._commit_hash
    digest = hashlib.sha256()
    for file in sorted(Path(name).glob("*.safetensors")) + sorted(Path(name).glob("*.bin")):
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return f"sha256:{digest.hexdigest()[:16]}"
