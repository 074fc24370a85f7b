"""MMM4Rec (arXiv 2506.02916): multi-modal sequential recommendation as Hugging Face models.

Importing this package registers the models with transformers' Auto classes and pipelines. Everything else loads on
first use: the import itself needs no torch, and serving a model imports neither datasets nor polars.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .lazy import load_on_use
from .registration import register

if TYPE_CHECKING:
    from . import modeling as modeling
    from .data import MMM4RecDataCollator, count_near_items, load_interactions, prepare_sequences
    from .frames import recommend_frame
    from .items import ItemCatalog, ItemEncoder
    from .modeling import (
        MMM4RecConfig,
        MMM4RecForSequentialRecommendation,
        MMM4RecModel,
        MMM4RecProcessor,
        SequentialRecommendationPipeline,
    )
    from .training.trainer import MMM4RecTrainer

__version__ = "0.1.0"

_LAZY = {
    "ItemCatalog": ".items",
    "ItemEncoder": ".items",
    "MMM4RecConfig": ".modeling",
    "MMM4RecDataCollator": ".data",
    "MMM4RecForSequentialRecommendation": ".modeling",
    "MMM4RecModel": ".modeling",
    "MMM4RecProcessor": ".modeling",
    "MMM4RecTrainer": ".training.trainer",
    "SequentialRecommendationPipeline": ".modeling",
    "count_near_items": ".data",
    "load_interactions": ".data",
    "prepare_sequences": ".data",
    "recommend_frame": ".frames",
}

__all__ = [
    "ItemCatalog",
    "ItemEncoder",
    "MMM4RecConfig",
    "MMM4RecDataCollator",
    "MMM4RecForSequentialRecommendation",
    "MMM4RecModel",
    "MMM4RecProcessor",
    "MMM4RecTrainer",
    "SequentialRecommendationPipeline",
    "count_near_items",
    "load_interactions",
    "prepare_sequences",
    "recommend_frame",
]

register()
_load = load_on_use(__name__, _LAZY)


def __getattr__(name: str) -> Any:
    if name == "modeling":
        return importlib.import_module(".modeling", __name__)
    return _load(name)


def __dir__() -> list[str]:
    return sorted(globals() | _LAZY)
