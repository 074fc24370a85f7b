"""Tells transformers' Auto classes and pipelines about MMM4Rec; importing mmm4rec_hf does it."""

from transformers import AutoConfig, AutoModel, AutoModelForPreTraining, AutoProcessor
from transformers.pipelines import PIPELINE_REGISTRY

from .modeling import (
    MMM4RecConfig,
    MMM4RecForSequentialRecommendation,
    MMM4RecModel,
    MMM4RecProcessor,
    SequentialRecommendationPipeline,
)
from .modeling.configuration_mmm4rec import TASK


def register() -> None:
    """Registers the configuration, the models, the processor and the pipeline; calling it again changes nothing."""
    AutoConfig.register(MMM4RecConfig.model_type, MMM4RecConfig, exist_ok=True)
    AutoModel.register(MMM4RecConfig, MMM4RecModel, exist_ok=True)
    AutoModelForPreTraining.register(MMM4RecConfig, MMM4RecForSequentialRecommendation, exist_ok=True)
    AutoProcessor.register(MMM4RecConfig, MMM4RecProcessor, exist_ok=True)
    if TASK not in PIPELINE_REGISTRY.get_supported_tasks():
        PIPELINE_REGISTRY.register_pipeline(
            TASK,
            pipeline_class=SequentialRecommendationPipeline,
            pt_model=AutoModelForPreTraining,
            type="multimodal",
        )
