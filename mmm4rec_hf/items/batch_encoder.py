"""What every encoder of one modality looks like, and how a user's function becomes one."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from transformers import BaseImageProcessor, PreTrainedTokenizerBase

# The name of an encoder that looks at nothing.
NO_ENCODER = "none"


class BatchEncoder(ABC):
    """Turns a list of texts, or of RGB pictures, into one vector each.

    Attributes:
        info (`dict[str, Any]`):
            Identifies the vectors: `encoder`, `revision`, `pooling`. Written beside the features, and compared before
            features of two runs are mixed; with `revision=None` some vectors are compared as well.
        tokenizer (`PreTrainedTokenizerBase`, *optional*): Of a text encoder that has one.
        image_processor (`BaseImageProcessor`, *optional*): Of an image encoder that has one.
    """

    info: dict[str, Any]
    tokenizer: PreTrainedTokenizerBase | None = None
    image_processor: BaseImageProcessor | None = None

    @abstractmethod
    def __call__(self, batch: list[Any]) -> np.ndarray:
        """Encodes a batch.

        Args:
            batch (`list`): Texts, or `PIL.Image.Image` in mode RGB.

        Returns:
            `np.ndarray` of shape `(len(batch), size)`, float32. A vector must not depend on its batch mates.
        """


class CallableEncoder(BatchEncoder):
    """A user's function as an encoder.

    Its name is all that identifies it, which stays when its code, or a model that it calls, is another one. So before
    its features are mixed with those of an earlier run, some of these are computed again.

    Args:
        function (`Callable[[list], np.ndarray]`): From a list to an array or tensor of one row an element.
    """

    def __init__(self, function: Callable[[list[Any]], Any]) -> None:
        self._function = function
        named = function if inspect.isroutine(function) else type(function)
        self.info = {"encoder": f"{named.__module__}.{named.__qualname__}", "revision": None, "pooling": None}

    def __call__(self, batch: list[Any]) -> np.ndarray:
        """See [`BatchEncoder.__call__`]."""
        owner = self._function.__self__ if inspect.ismethod(self._function) else self._function
        if isinstance(owner, torch.nn.Module):
            with inference_mode_of(owner):
                return as_features(self._function(batch), len(batch), self.info["encoder"])
        return as_features(self._function(batch), len(batch), self.info["encoder"])


class NoEncoder(BatchEncoder):
    """What stands for an encoder where texts, or pictures, are not looked at: one zero an item."""

    def __init__(self) -> None:
        self.info = {"encoder": NO_ENCODER, "revision": None, "pooling": None}

    def __call__(self, batch: list[Any]) -> np.ndarray:
        """See [`BatchEncoder.__call__`]."""
        return np.zeros((len(batch), 1), dtype=np.float32)


@contextmanager
def inference_mode_of(model: torch.nn.Module, dtype: torch.dtype = torch.float32) -> Iterator[None]:
    """Runs a model without dropout and gradients, and gives every module its mode back afterwards.

    Args:
        model (`torch.nn.Module`): The model.
        dtype (`torch.dtype`, *optional*, defaults to `torch.float32`): bfloat16 or float16 for mixed precision.
    """
    modes = [(module, module.training) for module in model.modules()]
    parameter = next(model.parameters(), None)
    device_type = parameter.device.type if parameter is not None else "cpu"
    model.eval()
    try:
        with torch.inference_mode(), torch.autocast(device_type, dtype=dtype, enabled=dtype != torch.float32):
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def as_features(output: Any, rows: int, name: str) -> np.ndarray:
    """What an encoder returned, as a float32 matrix on the host.

    Raises:
        ValueError: If it is not one row an element.
    """
    if isinstance(output, torch.Tensor):
        output = output.detach().float().cpu().numpy()
    features = np.asarray(output, dtype=np.float32)
    if features.ndim != 2 or len(features) != rows:
        raise ValueError(f"the encoder {name} returned shape {features.shape} for {rows} inputs; it must be [n, size]")
    return features
