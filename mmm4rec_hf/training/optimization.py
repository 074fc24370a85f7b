"""Optimizers: which weights decay, and the optimizer of the published recipe."""

import torch
from torch import nn

from mmm4rec_hf.modeling.cooccurrence_mmm4rec import MMM4RecCooccurrence
from mmm4rec_hf.modeling.encoder_mmm4rec import MMM4RecRMSNorm
from mmm4rec_hf.modeling.time_mmm4rec import MMM4RecTimeNorm

# The weights of near items are two numbers for all of them.
_NOT_DECAYED = (nn.LayerNorm, MMM4RecRMSNorm, MMM4RecTimeNorm, MMM4RecCooccurrence)
# Rates, step sizes and skip weights of the state space layers: 0 is no neutral value of theirs.
_STATE_SPACE = {"A_log", "D", "dt_bias"}


def decayed_parameter_names(model: nn.Module) -> list[str]:
    """
    Names of the parameters that weight decay shrinks: all but biases (those of items included), norms, the weights of
    near items, and `A_log`, `D` and `dt_bias`.

    Args:
        model (`nn.Module`): Any model that holds ours.
    """
    return [
        f"{prefix}.{name}" if prefix else name
        for prefix, module in model.named_modules()
        if not isinstance(module, _NOT_DECAYED)
        for name, _ in module.named_parameters(recurse=False)
        if name not in _STATE_SPACE and not name.endswith("bias")
    ]


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """
    Groups for a torch optimizer: with and without weight decay, of the weights that learn.

    Args:
        model (`nn.Module`): Any model that holds ours.
        weight_decay (`float`): Of the first group; 0 in the second.
    """
    decayed = set(decayed_parameter_names(model))
    learning = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    return [
        {"params": [weight for name, weight in learning if name in decayed], "weight_decay": weight_decay},
        {"params": [weight for name, weight in learning if name not in decayed], "weight_decay": 0.0},
    ]


def published_optimizer(
    model: nn.Module, learning_rate: float = 1e-4, weight_decay: float = 0.005
) -> torch.optim.NAdam:
    """
    The optimizer of the published recipe: NAdam with momentum decay 0.004, and an L2 penalty on every weight alike.

    Args:
        model (`nn.Module`): Whose weights learn.
        learning_rate (`float`, *optional*, defaults to 1e-4): Published: 1e-4 in fine-tuning, 2.5e-4 in pretraining.
        weight_decay (`float`, *optional*, defaults to 0.005): Factor of the penalty, which is part of the gradient.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    return torch.optim.NAdam(weights, lr=learning_rate, weight_decay=weight_decay, momentum_decay=0.004)
