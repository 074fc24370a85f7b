"""The approximate index: rows of the model, a high recall, exact scores, and clear errors."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import pipeline

from mmm4rec_hf import MMM4RecConfig, MMM4RecForSequentialRecommendation, MMM4RecProcessor

pytest.importorskip("faiss", reason="the extra `faiss` is not installed")
from mmm4rec_hf.index import FaissIndex  # noqa: E402  # after the skip

SIZES = {"hidden_size": 16, "intermediate_size": 16, "head_dim": 4, "n_groups": 4, "state_size": 4}


@pytest.fixture(scope="module")
def recommend() -> Any:
    torch.manual_seed(0)
    config = MMM4RecConfig(**SIZES, text_feature_size=6, image_feature_size=5, max_sequence_length=8)
    model, processor = MMM4RecForSequentialRecommendation(config), MMM4RecProcessor(max_sequence_length=8)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    ids = [f"i{n}" for n in range(4000)]
    items = SimpleNamespace(
        item_ids=ids, titles=ids, text_features=torch.randn(4000, 6), image_features=torch.randn(4000, 5)
    )
    for part in (model, processor):
        part.set_items(items)
    return pipeline("sequential-recommendation", model=model, processor=processor, device="cpu")


def histories() -> list[dict[str, list]]:
    return [
        {"items": [f"i{(7 * user + n) % 4000}" for n in range(6)], "timestamps": [1_300_000_000 + n for n in range(6)]}
        for user in range(40)
    ]


def test_what_it_finds_is_nearly_the_exact_list_with_exact_scores(recommend: Any, tmp_path: Path) -> None:
    exact = recommend(histories(), top_k=20)
    FaissIndex.build(recommend.model).save(tmp_path / "items.faiss")
    index = FaissIndex.load(tmp_path / "items.faiss")
    assert index.num_items == 4000
    recommend.use_index(index)
    try:
        found = recommend(histories(), top_k=20)
        everything = recommend(histories()[:2], top_k=5, candidates=["i1", "i9"])
    finally:
        recommend.use_index(None)
    shared = 0
    for history, one, other in zip(histories(), exact, found, strict=True):
        scores = {item["item_id"]: item["score"] for item in one}
        assert len(other) == 20 and not set(history["items"]) & {item["item_id"] for item in other}
        assert [item["score"] for item in other] == sorted((item["score"] for item in other), reverse=True)
        for item in other:
            if item["item_id"] in scores:
                shared += 1
                assert item["score"] == pytest.approx(scores[item["item_id"]], abs=1e-5)
    assert shared / (20 * len(exact)) > 0.8
    assert all({item["item_id"] for item in items} <= {"i1", "i9"} for items in everything)


def test_searching_every_cell_finds_every_item(recommend: Any) -> None:
    index = FaissIndex.build(recommend.model, num_cells=8, num_searched=8)
    rows = index.search(torch.randn(2, 16), 4000)
    assert sorted(rows[0].tolist()) == list(range(1, 4001))
    one = FaissIndex.build(recommend.model, num_cells=64, num_searched=1)
    assert (one.search(torch.randn(2, 16), 4000) == 0).any()


def test_numbers_and_files_that_cannot_be_are_refused(recommend: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"num_searched \(9\) must be in 1..num_cells \(8\)"):
        FaissIndex.build(recommend.model, num_cells=8, num_searched=9)
    with pytest.raises(ValueError, match="none.faiss cannot be read as an index"):
        FaissIndex.load(tmp_path / "none.faiss")
    (tmp_path / "broken.faiss").write_bytes(b"IwFlxxxx")
    with pytest.raises(ValueError, match="broken.faiss cannot be read as an index"):
        FaissIndex.load(tmp_path / "broken.faiss")
