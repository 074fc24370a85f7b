"""Logs of interactions in, datasets and batches out."""

from .collator import MMM4RecDataCollator
from .cooccurrence import count_near_items
from .interactions import Interactions, load_interactions
from .sequence_datasets import SequenceDatasets
from .sequences import prepare_sequences

__all__ = [
    "Interactions",
    "MMM4RecDataCollator",
    "SequenceDatasets",
    "count_near_items",
    "load_interactions",
    "prepare_sequences",
]
