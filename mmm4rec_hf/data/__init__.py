"""Logs of interactions in, datasets and batches out. Each loads on first use: reading a log needs no torch."""

from typing import TYPE_CHECKING

from mmm4rec_hf.lazy import load_on_use

if TYPE_CHECKING:
    from .collator import MMM4RecDataCollator
    from .cooccurrence import count_near_items
    from .interactions import Interactions, load_interactions
    from .sequence_datasets import SequenceDatasets
    from .sequences import prepare_sequences

_FILES = {
    "Interactions": ".interactions",
    "MMM4RecDataCollator": ".collator",
    "SequenceDatasets": ".sequence_datasets",
    "count_near_items": ".cooccurrence",
    "load_interactions": ".interactions",
    "prepare_sequences": ".sequences",
}

__all__ = [
    "Interactions",
    "MMM4RecDataCollator",
    "SequenceDatasets",
    "count_near_items",
    "load_interactions",
    "prepare_sequences",
]

__getattr__ = load_on_use(__name__, _FILES)
