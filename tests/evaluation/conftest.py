"""A tiny shop in memory and a model that holds its items."""

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from mmm4rec_hf import MMM4RecConfig, MMM4RecForSequentialRecommendation
from mmm4rec_hf.data import SequenceDatasets, load_interactions, prepare_sequences
from mmm4rec_hf.items import ItemCatalog


@pytest.fixture
def sequences() -> SequenceDatasets:
    """25 users with 4 to 11 events each, of items i0..i14."""
    rng = np.random.default_rng(0)
    rows: list[tuple[str, str, int]] = []
    for user in range(25):
        for n, item in enumerate(rng.integers(0, 15, rng.integers(4, 12))):
            rows.append((f"u{user}", f"i{item}", 1_400_000_000 + 1000 * n))
    log = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    return prepare_sequences(load_interactions(log), k_core=1)


@pytest.fixture
def catalog() -> ItemCatalog:
    """The items in another order, two of them alike, and one that nobody ever had."""
    rng = np.random.default_rng(1)
    arrays: dict[str, Any] = {
        "text_features": rng.normal(size=(16, 5)).astype(np.float32),
        "image_features": rng.normal(size=(16, 3)).astype(np.float32),
    }
    for array in arrays.values():
        array[3] = array[9]
    masks = {"text_mask": np.arange(16) % 4 != 0, "image_mask": np.arange(16) % 3 != 0}
    return ItemCatalog([f"i{n}" for n in (15, *reversed(range(15)))], **arrays, **masks)


@pytest.fixture
def model(catalog: ItemCatalog) -> MMM4RecForSequentialRecommendation:
    """Random weights, large enough that users differ."""
    torch.manual_seed(0)
    sizes = {"text_feature_size": 5, "image_feature_size": 3, "hidden_size": 16, "intermediate_size": 16}
    config = MMM4RecConfig(**sizes, head_dim=4, state_size=4, max_sequence_length=6, initializer_range=0.3)
    model = MMM4RecForSequentialRecommendation(config)
    model.set_items(catalog)
    return model.eval()
