"""Validation of a pretraining: for each domain the held-out in-batch loss and the metrics of the full ranking."""

import copy
from typing import TYPE_CHECKING

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from mmm4rec_hf.data import SequenceDatasets
from mmm4rec_hf.evaluation.evaluator import evaluate_model
from mmm4rec_hf.modeling import MMM4RecForSequentialRecommendation

from .batches import PretrainingCollator
from .domains import Domain
from .objective import InBatchObjective
from .rows import held_out_rows

if TYPE_CHECKING:
    from .pretraining import PretrainRecipe

SPLIT = "validation"
EVALUATION_BATCH = 256


def validate(
    accelerator: Accelerator,
    recommender: MMM4RecForSequentialRecommendation,
    domains: list[Domain],
    recipe: "PretrainRecipe",
) -> dict[str, float]:
    """
    The numbers of every domain that has validation rows; the processes share the domains.

    Args:
        accelerator (`Accelerator`): Of the run.
        recommender ([`MMM4RecForSequentialRecommendation`]): What is trained; its weights and mode stay as they are.
        domains (`list[Domain]`): Of the run.
        recipe (`PretrainRecipe`): Of the run.

    Returns:
        `dict[str, float]`: `domain/loss`, in batches as near to the training's as the rows allow, then `domain/hr@10`
        and the other metrics of the full ranking. The same in every process.
    """
    # Neither the making of a model that ranks nor a loader's own draw may change what training draws next.
    with torch.random.fork_rng(devices=[]):
        mine: dict[str, float] = {}
        for number, domain in enumerate(domains):
            if number % accelerator.num_processes != accelerator.process_index:
                continue
            if domain.sequences is not None and len(domain.sequences[SPLIT]) > 0:
                numbers = {"loss": _held_out_loss(recommender, domains, number, domain.sequences, recipe)}
                numbers |= _ranking_metrics(recommender, domain, domain.sequences)
                mine |= {f"{domain.name}/{name}": value for name, value in numbers.items()}
    merged: dict[str, float] = {}
    for part in gather_object([mine]):
        merged |= part
    return merged


@torch.no_grad()
def _held_out_loss(
    recommender: MMM4RecForSequentialRecommendation,
    domains: list[Domain],
    number: int,
    sequences: SequenceDatasets,
    recipe: "PretrainRecipe",
) -> float:
    collate = PretrainingCollator(domains, recommender.config.max_sequence_length)
    objective = InBatchObjective(recommender, recipe.mask_same_target, gather=False)
    rows = [(number, row) for row in held_out_rows(sequences, SPLIT)]
    was_training = recommender.training
    recommender.eval()
    total = 0.0
    try:
        # Batches of nearly the same size: the loss grows with the number of negatives.
        for part in np.array_split(np.arange(len(rows)), -(-len(rows) // recipe.batch_size)):
            batch = collate([rows[place] for place in part])
            batch = {name: tensor.to(recommender.device) for name, tensor in batch.items()}
            total += float(objective(**batch)) * len(part)
    finally:
        recommender.train(was_training)
    return total / len(rows)


def _ranking_metrics(
    recommender: MMM4RecForSequentialRecommendation, domain: Domain, sequences: SequenceDatasets
) -> dict[str, float]:
    """By a second model that has the domain's items, and the weights of the first."""
    ranker = MMM4RecForSequentialRecommendation(copy.deepcopy(recommender.config))
    ranker.model = recommender.model
    for name, parameter in recommender.items.named_parameters():
        ranker.items.register_parameter(name, parameter)
    ranker.set_items(domain.catalog)
    evaluation = evaluate_model(ranker.eval(), sequences, SPLIT, batch_size=EVALUATION_BATCH)
    return {name: value for name, value in evaluation.metrics.items() if "@" in name}
