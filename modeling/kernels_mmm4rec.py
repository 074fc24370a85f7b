"""
The optional CUDA kernels: mamba-ssm's chunked scan and causal-conv1d's convolution. Nothing needs them, and nothing
happens for them on a CPU; where they are wanted and cannot be had, torch gives the same numbers after one warning.
"""

import importlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from transformers.utils import logging

logger = logging.get_logger(__name__)

_CONV_WIDTHS = (2, 3, 4)
_CONV_MULTIPLE = 8  # channels, as the kernel's vectorised loads need it


def chunk_scan(device: torch.device) -> Callable[..., Tensor] | None:
    """`mamba_chunk_scan_combined` for tensors on `device`, or `None`."""
    if not _can_run_on(device):
        return None
    return _imported("mamba_ssm.ops.triton.ssd_combined", "mamba_chunk_scan_combined", "mamba-ssm")


def causal_conv_kernel(conv: torch.nn.Conv1d, device: torch.device) -> Callable[..., Tensor] | None:
    """`causal_conv1d_fn` for a depthwise convolution on `device`, or `None`."""
    fits = conv.kernel_size[0] in _CONV_WIDTHS and conv.out_channels % _CONV_MULTIPLE == 0
    if not fits or not _can_run_on(device):
        return None
    return _imported("causal_conv1d", "causal_conv1d_fn", "causal-conv1d")


def _can_run_on(device: torch.device) -> bool:
    # What torch.compile makes of the torch forms it could not make with a kernel in their middle.
    return device.type == "cuda" and not torch.compiler.is_compiling()


@lru_cache
def _imported(module: str, name: str, package: str) -> Callable[..., Any] | None:
    # By name: transformers refuses remote code whose import statements it cannot satisfy.
    try:
        return getattr(importlib.import_module(module), name)
    except Exception as error:  # a build for another torch fails with whatever its loader raises
        reason = " ".join(str(error).split())
        logger.warning(
            f"{package} cannot be used ({type(error).__name__}: {reason}); torch computes the same, more slowly: "
            f"install a {package} that was built for torch {torch.__version__}"
        )
        return None


__all__ = ["causal_conv_kernel", "chunk_scan"]
