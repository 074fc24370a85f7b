"""What is asked of a trained model beside its ranks: whether it reads times."""

from typing import TYPE_CHECKING

import torch

from mmm4rec_hf import MMM4RecDataCollator, MMM4RecForSequentialRecommendation

if TYPE_CHECKING:
    import datasets

USERS, LONGEST_GAP = 256, 10**6


@torch.no_grad()
def time_effect(model: MMM4RecForSequentialRecommendation, rows: "datasets.Dataset") -> float:
    """
    How far user vectors move when the times of the histories are others: gaps drawn up to 11 days.

    Args:
        model ([`MMM4RecForSequentialRecommendation`]): The model, with items.
        rows (`datasets.Dataset`): Rows of prepared sequences, aligned with the model's items; the first 256 count.

    Returns:
        `float`: Mean of |u - u'| / |u|: 0 for a model that reads no times.
    """
    if not model.config.use_time:
        return 0.0
    model.eval()
    count = min(USERS, len(rows))
    batch = MMM4RecDataCollator(model.config.max_sequence_length)([rows[place] for place in range(count)])
    inputs = {name: batch[name] for name in ("input_ids", "timestamps", "attention_mask")}
    gaps = torch.randint(1, LONGEST_GAP, inputs["timestamps"].shape, generator=torch.Generator().manual_seed(0))
    others = inputs | {"timestamps": gaps.cumsum(1) * inputs["attention_mask"]}
    users, moved = model.user_embeds(**inputs), model.user_embeds(**others)
    return float(((users - moved).norm(dim=1) / users.norm(dim=1)).mean())
