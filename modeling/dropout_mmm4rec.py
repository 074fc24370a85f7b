"""Dropout whose random numbers cost little on a CPU."""

import torch
from torch import Tensor, nn

_LEVELS = 2**16


class MMM4RecDropout(nn.Dropout):
    """
    As `nn.Dropout`. On a CPU one 64-bit random number decides on four values, where torch draws one each and spends
    most of the time on that. The probability is rounded to 1 / 65536, and the values that stay are scaled by what it
    was rounded to, so that their expectation is exact.
    """

    def forward(self, x: Tensor) -> Tensor:
        dropped = round(self.p * _LEVELS)
        if not self.training or dropped in (0, _LEVELS) or x.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(x)
        draws = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        keep = (draws.view(torch.int16)[: x.numel()] >= dropped - _LEVELS // 2).view(x.shape)
        return x * keep.to(x.dtype).mul_(_LEVELS / (_LEVELS - dropped))


__all__ = ["MMM4RecDropout"]
