"""Tiny models and catalogues for the tests of modeling/."""

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import pipeline

from mmm4rec_hf import MMM4RecConfig, MMM4RecForSequentialRecommendation, MMM4RecProcessor

IDS = ["0", "1", "2", "3", "4", "5"]
T = 1_300_000_000

TINY = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "head_dim": 4,
    "n_groups": 4,
    "state_size": 4,
    "max_sequence_length": 8,
    "text_feature_size": 6,
    "image_feature_size": 5,
}


def history(*items: Any) -> dict[str, list]:
    """A history of items a minute apart, as the processor reads it."""
    return {"items": list(items), "timestamps": [T + 60 * n for n in range(len(items))]}


@pytest.fixture
def tiny_config() -> Callable[..., MMM4RecConfig]:
    # Through JSON, as a saved one: its words are equal to those in the code, and other objects.
    def make(**changes: Any) -> MMM4RecConfig:
        config = MMM4RecConfig(**(TINY | changes))
        return MMM4RecConfig.from_dict(json.loads(config.to_json_string(use_diff=False)))

    return make


@pytest.fixture
def tiny_catalog() -> Callable[..., SimpleNamespace]:
    def make(item_ids: list[str], seed: int = 0) -> SimpleNamespace:
        # Features depend on the id alone, so that the same item looks the same in every catalogue.
        text, image = [], []
        for item_id in item_ids:
            generator = torch.Generator().manual_seed(hash_of(item_id) + seed)
            text.append(torch.randn(TINY["text_feature_size"], generator=generator))
            image.append(torch.randn(TINY["image_feature_size"], generator=generator))
        return SimpleNamespace(
            item_ids=item_ids,
            titles=[f"Title {item_id}" for item_id in item_ids],
            text_features=torch.stack(text),
            image_features=torch.stack(image),
        )

    return make


def hash_of(text: str) -> int:
    return int.from_bytes(text.encode()[:6], "big")


@pytest.fixture
def lively_model(tiny_config: Callable[..., MMM4RecConfig]) -> Callable[..., MMM4RecForSequentialRecommendation]:
    """A model whose every path matters: the published initialisation leaves time numerically dead."""

    def make(**changes: Any) -> MMM4RecForSequentialRecommendation:
        torch.manual_seed(0)
        model = MMM4RecForSequentialRecommendation(
            tiny_config(num_items=12) if not changes else tiny_config(**({"num_items": 12} | changes))
        )
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if not name.endswith(("A_log", "dt_bias")):
                    parameter += 0.3 * torch.randn_like(parameter)
            for features in (model.items.text_features, model.items.image_features):
                features[1:].normal_()
        return model.eval()

    return make


@pytest.fixture
def make_pipeline(
    lively_model: Callable[..., MMM4RecForSequentialRecommendation], tiny_catalog: Callable[..., SimpleNamespace]
) -> Callable[..., Any]:
    """A pipeline of a lively model with these items, of another configuration where it is told."""

    def make(ids: list[str] = IDS, **changes: Any) -> Any:
        model, processor = lively_model(**changes), MMM4RecProcessor(max_sequence_length=8)
        model.set_items(tiny_catalog(ids))
        processor.set_items(tiny_catalog(ids))
        return pipeline("sequential-recommendation", model=model, processor=processor, device="cpu")

    return make


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    """Three histories, right-padded, of 5, 2 and 8 events."""
    input_ids = torch.tensor([[1, 5, 3, 5, 2, 0, 0, 0], [7, 4, 0, 0, 0, 0, 0, 0], [2, 9, 8, 12, 1, 6, 3, 11]])
    gaps = torch.randint(1, 10**6, input_ids.shape, generator=torch.Generator().manual_seed(1))
    return {
        "input_ids": input_ids,
        "attention_mask": (input_ids != 0).long(),
        "timestamps": (1_400_000_000 + gaps.cumsum(1)) * (input_ids != 0),
        "labels": torch.tensor([4, 9, 12]),
    }
