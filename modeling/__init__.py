"""
What travels to a Hub repository: configuration, models, processor, pipeline and their helpers. Each loads on first
use: who asks for the configuration does without the others.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .configuration_mmm4rec import MMM4RecConfig
    from .modeling_mmm4rec import (
        MMM4RecForSequentialRecommendation,
        MMM4RecModel,
        MMM4RecModelOutput,
        MMM4RecOutput,
    )
    from .pipeline_mmm4rec import SequentialRecommendationPipeline
    from .pretrained_mmm4rec import MMM4RecPreTrainedModel
    from .processing_mmm4rec import MMM4RecProcessor

_FILES = {
    "MMM4RecConfig": "configuration_mmm4rec",
    "MMM4RecForSequentialRecommendation": "modeling_mmm4rec",
    "MMM4RecModel": "modeling_mmm4rec",
    "MMM4RecModelOutput": "modeling_mmm4rec",
    "MMM4RecOutput": "modeling_mmm4rec",
    "MMM4RecPreTrainedModel": "pretrained_mmm4rec",
    "MMM4RecProcessor": "processing_mmm4rec",
    "SequentialRecommendationPipeline": "pipeline_mmm4rec",
}

__all__ = [
    "MMM4RecConfig",
    "MMM4RecForSequentialRecommendation",
    "MMM4RecModel",
    "MMM4RecModelOutput",
    "MMM4RecOutput",
    "MMM4RecPreTrainedModel",
    "MMM4RecProcessor",
    "SequentialRecommendationPipeline",
]


def __getattr__(name: str) -> Any:
    if name in _FILES:
        return getattr(importlib.import_module(f"{__name__}.{_FILES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
