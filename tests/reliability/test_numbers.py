"""Numbers at their extremes: finite outputs and gradients, and features that are no numbers named by their item."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from mmm4rec_hf import (
    ItemCatalog,
    MMM4RecConfig,
    MMM4RecForSequentialRecommendation,
    MMM4RecProcessor,
    SequentialRecommendationPipeline,
)

LEAST, MOST = -(2**63), 2**63 - 1
DECADE = 315_576_000
TIMES = {
    "all zero": [0, 0, 0, 0, 0, 0],
    "all equal": [1_400_000_000] * 6,
    "negative": [-(10**9), -5 * 10**8, -10, -9, -8, -1],
    "year 3000": [32_503_680_000 + n for n in range(6)],
    "decades apart": [0, DECADE, DECADE + 1, 5 * DECADE, 5 * DECADE + 1, 9 * DECADE],
    "backwards": [10**9, 10**8, 10**7, 100, 10, 0],
    "least and most": [LEAST, 0, MOST, LEAST, MOST, 0],
    "halves": [0, MOST // 2, MOST, MOST // 2, 0, MOST // 2],
}
IDS = [f"item {n}" for n in range(1, 13)]
TINY = {
    "hidden_size": 16, "intermediate_size": 24, "head_dim": 4, "n_groups": 4, "state_size": 4, "text_feature_size": 6,
    "image_feature_size": 5,
}  # fmt: skip


def catalog_of(scale: float = 1.0) -> SimpleNamespace:
    draw = np.random.default_rng(0)
    text, image = (scale * draw.normal(size=(12, size)).astype(np.float32) for size in (6, 5))
    return SimpleNamespace(item_ids=IDS, titles=IDS, text_features=text, image_features=image)


def lively(catalog: SimpleNamespace, **changes: Any) -> MMM4RecForSequentialRecommendation:
    """A model of these items whose every path matters."""
    torch.manual_seed(0)
    model = MMM4RecForSequentialRecommendation(MMM4RecConfig(**(TINY | changes)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.endswith(("A_log", "dt_bias")):
                parameter += 0.3 * torch.randn_like(parameter)
    model.set_items(catalog)
    if model.cooccurrence is not None:
        neighbours, counts = torch.zeros(13, 2, dtype=torch.long), torch.zeros(13, 2)
        neighbours[1:, 0], counts[1:, 0] = torch.arange(12) % 12 + 1, 3
        model.set_cooccurrence(neighbours, counts)
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("time_mode", ["masked", "published", "log"])
@pytest.mark.parametrize("use_cooccurrence", [False, True])
@pytest.mark.parametrize("length", [1, 8])
def test_any_times_and_features_of_zero_give_finite_outputs_and_gradients(
    dtype: torch.dtype, time_mode: str, use_cooccurrence: bool, length: int
) -> None:
    options = {"time_mode": time_mode, "use_cooccurrence": use_cooccurrence, "max_sequence_length": length}
    stamps = torch.tensor(list(TIMES.values()))[:, -length:]
    batch = {"input_ids": torch.tensor([[1, 2, 3, 4, 5, 6]] * len(TIMES))[:, -length:], "timestamps": stamps}
    for scale in (1.0, 0.0):
        model = lively(catalog_of(scale), **options).to(dtype).train()
        output = model(**batch, labels=torch.arange(len(TIMES)) % 12 + 1)
        output.loss.backward()
        finite = torch.isfinite(output.user_embeds).all(dim=1).tolist()
        assert torch.isfinite(output.loss) and all(finite), f"{dict(zip(TIMES, finite, strict=True))}, {scale}"
        learned = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
        assert len(learned) > 20 and all(torch.isfinite(gradient).all() for gradient in learned.values()), learned
        with torch.no_grad():
            assert torch.isfinite(model(**batch).logits[:, 1:]).all()


@pytest.mark.parametrize("name", list(TIMES))
def test_the_pipeline_ranks_for_any_times(name: str) -> None:
    catalog = catalog_of()
    processor = MMM4RecProcessor(max_sequence_length=8)
    processor.set_items(catalog)
    recommend = SequentialRecommendationPipeline(model=lively(catalog).eval(), processor=processor)
    found = recommend({"items": IDS[:6], "timestamps": TIMES[name]}, top_k=12, time_unit="s")
    assert {item["item_id"] for item in found} == set(IDS[6:])
    assert np.isfinite([item["score"] for item in found]).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_features_that_a_precision_cannot_hold_are_refused_and_change_nothing(dtype: torch.dtype) -> None:
    model = lively(catalog_of()).to(dtype)
    before = model.items.image_features.clone()
    changed = catalog_of()
    changed.image_features[3, 2] = 65_520 if dtype == torch.float16 else 3.4e38
    with pytest.raises(ValueError, match="image features of item number 4 of the catalogue are beyond .*float16"):
        model.set_items(changed)
    assert torch.equal(model.items.image_features, before) and model.item_ids == IDS
    changed.image_features[3, 2] = 65_500
    model.set_items(changed)
    assert torch.isfinite(model.items.image_features).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_saved_catalogue_that_was_changed_by_hand_names_the_item(tmp_path: Path, value: float) -> None:
    plain = catalog_of()
    ItemCatalog(IDS, text_features=plain.text_features, image_features=plain.image_features).save_pretrained(tmp_path)
    arrays = load_file(tmp_path / "features.safetensors")
    arrays["text_features"][7, 1] = value
    save_file(arrays, tmp_path / "features.safetensors")
    with pytest.raises(ValueError, match="is damaged .*text features of 1 items hold NaN or infinity, .* 'item 8'"):
        ItemCatalog.from_pretrained(tmp_path)


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e39"])
def test_features_in_an_items_file_name_the_item(tmp_path: Path, value: str) -> None:
    lines = [json.dumps({"item_id": name, "text_features": [0.5, 1.0]}) for name in ("a", "b", "c")]
    lines[1] = lines[1].replace("0.5", value)
    (tmp_path / "items.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match="text features of 1 items hold NaN or infinity, first of item 'b'"):
        ItemCatalog.from_items(tmp_path / "items.jsonl")


def test_items_that_are_added_with_features_that_are_no_numbers_change_nothing() -> None:
    plain = catalog_of()
    catalog = ItemCatalog(IDS, text_features=plain.text_features)
    with pytest.raises(ValueError, match="first of item 'new'"):
        catalog.add_items([{"item_id": "new", "text_features": [np.nan] * 6}])
    assert catalog.item_ids == IDS and len(catalog.text_features) == 12
