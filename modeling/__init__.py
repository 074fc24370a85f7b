"""What travels to a Hub repository: configuration, models, processor, pipeline and their helpers."""

from .configuration_mmm4rec import MMM4RecConfig
from .modeling_mmm4rec import (
    MMM4RecForSequentialRecommendation,
    MMM4RecModel,
    MMM4RecModelOutput,
    MMM4RecOutput,
    MMM4RecPreTrainedModel,
)
from .pipeline_mmm4rec import SequentialRecommendationPipeline
from .processing_mmm4rec import MMM4RecProcessor

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
