"""From an item's text and picture to its two feature vectors."""

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from transformers import BaseImageProcessor, PreTrainedTokenizerBase

from mmm4rec_hf.processes import local_device

from .batch_encoder import NO_ENCODER, BatchEncoder, CallableEncoder, NoEncoder
from .download import PictureDownloader
from .images import PictureError, load_picture, white_picture
from .pretrained import load_image_encoder, load_joint, load_text_encoder
from .text import PUBLISHED_TEXT_FIELDS, item_text

logger = logging.getLogger(__name__)

EncoderLike = str | os.PathLike[str] | Callable[[list[Any]], Any] | BatchEncoder
# What stands for a missing text or picture, and how it is called where the missing ones are counted.
MISSING_POLICIES = {
    "text": {"white": "an empty text is encoded", "zeros": "features are zeros", "learned": "left to the model"},
    "image": {"white": "a white picture is encoded", "zeros": "features are zeros", "learned": "left to the model"},
}


class ItemEncoder:
    """Encodes items with frozen models: a joint one, or one for texts and one for pictures.

    Args:
        model_name (`str` or `os.PathLike`, *optional*):
            A joint model (SigLIP, CLIP and their like), by Hub name or folder.
        text_encoder (`str`, `os.PathLike`, `BatchEncoder` or `Callable`, *optional*):
            In place of `model_name`: any text model, the text side of a joint one, or a function from a list of texts
            to an array of one row a text. A sentence-transformers folder is pooled as it states, others by the mean.
            `"none"` looks at no text: a zero stands for each, for a shop of pictures alone.
        image_encoder (`str`, `os.PathLike`, `BatchEncoder` or `Callable`, *optional*):
            In place of `model_name`: any image model, the image side of a joint one, or a function from a list of
            `PIL.Image.Image` in RGB to an array of one row a picture. `"none"` looks at no picture, for a shop of
            texts alone.
        text_fields (`Sequence[str]`, *optional*, defaults to `("title", "brand", "description")`):
            The fields that make an item's text, see [`item_text`].
        missing (`"white"`, `"zeros"` or `"learned"`, *optional*, defaults to `"white"`):
            What stands for a missing or unreadable picture and a missing text. `"white"`, the published rule: a white
            picture and an empty text are encoded. `"zeros"`: rows of zeros. `"learned"`: rows of zeros, in whose place
            a model with `learned_missing=True` puts a vector of its own. Always a mask says which rows.
        pooling (`str`, *optional*): `"mean"`, `"cls"`, `"max"` or `"last"`, against what a text model's folder states.
        revision (`str`, *optional*): The Hub revision of `model_name`, or of the encoders given by name.
        device (`torch.device` or `str`, *optional*): By default the accelerator where there is one.
        dtype (`torch.dtype`, *optional*, defaults to `torch.float32`):
            `torch.bfloat16` or `torch.float16` for mixed precision. Features come out in float32.
        download (`bool`, *optional*, defaults to `False`):
            Whether pictures given as http(s) addresses are fetched, see [`PictureDownloader`].
        cache_dir (`str` or `os.PathLike`, *optional*): Where fetched pictures are kept.
        num_workers (`int`, *optional*, defaults to 4): Threads that read pictures while the model runs.

    Raises:
        ValueError: If no model is given, or one modality twice.
    """

    def __init__(
        self,
        model_name: str | os.PathLike[str] | None = None,
        *,
        text_encoder: EncoderLike | None = None,
        image_encoder: EncoderLike | None = None,
        text_fields: Sequence[str] = PUBLISHED_TEXT_FIELDS,
        missing: Literal["white", "zeros", "learned"] = "white",
        pooling: str | None = None,
        revision: str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
        download: bool = False,
        cache_dir: str | os.PathLike[str] | None = None,
        num_workers: int = 4,
    ) -> None:
        if (model_name is None) == (text_encoder is None and image_encoder is None):
            raise ValueError("give either a joint model's name or text_encoder= and / or image_encoder=")
        if missing not in MISSING_POLICIES["text"]:
            raise ValueError(f"missing must be one of {', '.join(MISSING_POLICIES['text'])}, got {missing!r}")
        if isinstance(text_fields, str) or not text_fields:
            raise ValueError(f"text_fields must be a list of field names, got {text_fields!r}")
        if model_name is None and all(_is_none(encoder) for encoder in (text_encoder, image_encoder)):
            raise ValueError(
                f"text_encoder={text_encoder!r} and image_encoder={image_encoder!r} read nothing of an item"
            )
        where = local_device() if device is None else torch.device(device)
        self.text_encoder: BatchEncoder | None
        self.image_encoder: BatchEncoder | None
        if model_name is not None:
            self.text_encoder, self.image_encoder = load_joint(os.fspath(model_name), revision, where, dtype)
        else:
            self.text_encoder = _as_encoder(
                text_encoder, lambda name: load_text_encoder(name, revision, where, dtype, pooling)
            )
            self.image_encoder = _as_encoder(
                image_encoder, lambda name: load_image_encoder(name, revision, where, dtype)
            )
        self.text_fields = tuple(text_fields)
        self.missing = missing
        self.num_workers = num_workers
        self.fetch = PictureDownloader(cache_dir) if download else None

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        """`PreTrainedTokenizerBase`, *optional*: The text model's, for the processor saved beside a model."""
        return None if self.text_encoder is None else self.text_encoder.tokenizer

    @property
    def image_processor(self) -> BaseImageProcessor | None:
        """`BaseImageProcessor`, *optional*: The image model's, for the processor saved beside a model."""
        return None if self.image_encoder is None else self.image_encoder.image_processor

    @property
    def info(self) -> dict[str, dict[str, Any]]:
        """`dict`: For `"text"` and `"image"`, where there is an encoder, all that its features depend on."""
        info: dict[str, dict[str, Any]] = {}
        if self.text_encoder is not None:
            info["text"] = {**self.text_encoder.info, "fields": list(self.text_fields), "missing": self.missing}
        if self.image_encoder is not None:
            info["image"] = {**self.image_encoder.info, "missing": self.missing}
        return info

    @property
    def reads_texts(self) -> bool:
        """`bool`: Whether there is a text model, of whatever kind."""
        return self.text_encoder is not None and not isinstance(self.text_encoder, NoEncoder)

    def text_of(self, record: dict[str, Any]) -> str | None:
        """The text that is encoded for an item, `None` where it has none of the fields."""
        return item_text(record, self.text_fields)

    def encode_texts(self, texts: Sequence[str | None], batch_size: int = 16) -> tuple[np.ndarray, np.ndarray]:
        """Encodes texts, those of similar length together.

        Args:
            texts (`Sequence[str]`): `None` for a missing one.
            batch_size (`int`, *optional*, defaults to 16): Texts a batch.

        Returns:
            `tuple[np.ndarray, np.ndarray]`: Features `(len(texts), size)`, float32, and the mask `(len(texts),)`,
            False for a missing text.
        """
        if self.text_encoder is None:
            raise ValueError("this encoder has no text model; give ItemEncoder text_encoder=")
        if isinstance(self.text_encoder, NoEncoder):
            return self.text_encoder(list(texts)), np.zeros(len(texts), dtype=bool)
        mask = np.array([text is not None for text in texts], dtype=bool)
        present = sorted(np.flatnonzero(mask).tolist(), key=lambda row: len(texts[row] or ""), reverse=True)
        batches = (
            (rows, [texts[row] for row in rows])
            for rows in (present[start : start + batch_size] for start in range(0, len(present), batch_size))
        )
        return self._fill(batches, mask, self.text_encoder, ""), mask

    def encode_images(
        self,
        images: Sequence[Any],
        batch_size: int = 16,
        *,
        root: str | os.PathLike[str] | None = None,
        problems: Counter[str] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Encodes pictures; one that cannot be used counts as missing.

        Args:
            images (`Sequence`): What [`load_picture`] takes, `None` for a missing one.
            batch_size (`int`, *optional*, defaults to 16): Pictures a batch.
            root (`str` or `os.PathLike`, *optional*): The folder of relative paths.
            problems (`Counter[str]`, *optional*):
                Counts the pictures that could not be used, by reason. Without it they are logged.

        Returns:
            `tuple[np.ndarray, np.ndarray]`: Features `(len(images), size)`, float32, and the mask `(len(images),)`,
            False for a missing picture.
        """
        if self.image_encoder is None:
            raise ValueError("this encoder has no image model; give ItemEncoder image_encoder=")
        if isinstance(self.image_encoder, NoEncoder):
            return self.image_encoder(list(images)), np.zeros(len(images), dtype=bool)
        mask = np.array([image is not None for image in images], dtype=bool)
        found: Counter[str] = Counter() if problems is None else problems
        batches = self._read_pictures(images, np.flatnonzero(mask).tolist(), mask, batch_size, root, found)
        features = self._fill(batches, mask, self.image_encoder, white_picture())
        if problems is None:
            log_problems(found, len(images), root)
        return features, mask

    def _read_pictures(
        self,
        images: Sequence[Any],
        rows: list[int],
        mask: np.ndarray,
        batch_size: int,
        root: str | os.PathLike[str] | None,
        problems: Counter[str],
    ) -> Iterator[tuple[list[int], list[Image.Image]]]:
        """Batches of readable pictures, the next read in threads while one is encoded; clears the mask of bad ones."""

        def read(row: int) -> Image.Image | str:
            try:
                return load_picture(images[row], root=root, fetch=self.fetch)
            except PictureError as error:
                return str(error)

        chunks = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
        with ThreadPoolExecutor(max(1, self.num_workers)) as pool:
            ahead = [pool.submit(read, row) for row in chunks[0]] if chunks else []
            for number, chunk in enumerate(chunks):
                results = [future.result() for future in ahead]
                following = chunks[number + 1] if number + 1 < len(chunks) else []
                ahead = [pool.submit(read, row) for row in following]
                usable = [
                    (row, result) for row, result in zip(chunk, results, strict=True) if not isinstance(result, str)
                ]
                for row, result in zip(chunk, results, strict=True):
                    if isinstance(result, str):
                        mask[row] = False
                        problems[result] += 1
                if usable:
                    yield [row for row, _ in usable], [picture for _, picture in usable]

    def _fill(
        self, batches: Iterator[tuple[list[int], list[Any]]], mask: np.ndarray, encoder: BatchEncoder, stand_in: Any
    ) -> np.ndarray:
        """Features of all rows; `mask` is final once the batches are through."""
        features: np.ndarray | None = None
        for rows, batch in batches:
            vectors = encoder(batch)
            if features is None:
                features = np.zeros((len(mask), vectors.shape[1]), dtype=np.float32)
            features[rows] = vectors
        if features is None or (self.missing == "white" and not mask.all()):
            vector = encoder([stand_in])[0]
            if features is None:
                features = np.zeros((len(mask), len(vector)), dtype=np.float32)
            if self.missing == "white":
                features[~mask] = vector
        return features


def log_problems(problems: Counter[str], total: int, root: str | os.PathLike[str] | None = None) -> None:
    """Says once how many pictures could not be used, and why."""
    if problems:
        reasons = "; ".join(f"{count:,} {reason}" for reason, count in problems.most_common())
        where = ""
        if problems["no such file"]:
            where = f" (paths start from {root or 'the working directory'}; root= names another place)"
        logger.warning(
            "%d of %d pictures cannot be used and count as missing: %s%s", problems.total(), total, reasons, where
        )


def _as_encoder(encoder: EncoderLike | None, load: Callable[[str], BatchEncoder]) -> BatchEncoder | None:
    if encoder is None or isinstance(encoder, BatchEncoder):
        return encoder
    if _is_none(encoder):
        return NoEncoder()
    if isinstance(encoder, str | os.PathLike):
        return load(os.fspath(encoder))
    if callable(encoder):
        return CallableEncoder(encoder)
    raise TypeError(f"an encoder must be a model's name, a folder or a function, got {type(encoder).__name__}")


def _is_none(encoder: Any) -> bool:
    return encoder is None or (isinstance(encoder, str) and encoder == NO_ENCODER)
