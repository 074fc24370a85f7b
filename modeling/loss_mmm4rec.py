"""Losses over items."""

import torch
import torch.nn.functional as F
from torch import Tensor


def full_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """
    Cross entropy over all items.

    Args:
        logits (`torch.Tensor` of shape `(b, num_items + 1)`): Scores of every item, column 0 the padding item.
        labels (`torch.Tensor` of shape `(b,)`): Index of the target item; rows with -100 are left out.

    Returns:
        `torch.Tensor`: The mean, in float32.
    """
    return F.cross_entropy(logits.float(), labels)


def in_batch_cross_entropy(user_embeds: Tensor, target_embeds: Tensor, temperature: float) -> Tensor:
    """
    Cross entropy over the batch's own targets: the pretraining loss as published, where another row that holds the
    same target counts as a negative.

    Args:
        user_embeds (`torch.Tensor` of shape `(b, h)`): User vectors.
        target_embeds (`torch.Tensor` of shape `(b, h)`): Fused item vector of each row's target.
        temperature (`float`): Divides the scores.

    Returns:
        `torch.Tensor`: The mean, in float32.
    """
    logits = user_embeds.float() @ target_embeds.float().T / temperature
    return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))


__all__ = ["full_cross_entropy", "in_batch_cross_entropy"]
