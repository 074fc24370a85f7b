"""What a folder holds, and which encoder made a catalogue's features."""

import copy
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from huggingface_hub import constants

from mmm4rec_hf import ItemCatalog, ItemEncoder, SequentialRecommendationPipeline
from mmm4rec_hf.items.recorded import recorded_encoder
from mmm4rec_hf.serving.loading import load_recommender

from .conftest import IDS, TITLES
from .test_recommender import history


@pytest.fixture
def given(shop: Path) -> dict[str, str]:
    """The encoders by their folders."""
    return {"text_encoder": str(shop / "bert"), "image_encoder": str(shop / "vit")}


@pytest.fixture
def info(run: Path) -> dict[str, Any]:
    """What the catalogue records of its encoders."""
    return json.loads((run / "model" / "catalog" / "catalog.json").read_text())["features"]


def served(*arguments: Any, **options: Any) -> list[str]:
    """The items that are served."""
    recommender = load_recommender(*arguments, device="cpu", find_encoder=None, **options)
    try:
        assert recommender.recommend([history(recommender.state.catalog.item_ids[0])], top_k=1)[0]
        return recommender.state.catalog.item_ids
    finally:
        recommender.close()


def test_a_run_and_the_model_in_it_are_the_same(run: Path) -> None:
    assert served(run) == served(run / "model") == IDS


def test_another_catalogue_takes_the_place_of_the_models_own(run: Path, shop: Path, tmp_path: Path) -> None:
    ItemCatalog.from_pretrained(shop / "catalog").select(IDS[4:9]).save_pretrained(tmp_path)
    assert served(run, catalog=tmp_path) == IDS[4:9]


def scores(recommender: Any) -> dict[str, float]:
    items = recommender.recommend([history("item-1", "item-2")], top_k=50, exclude_history=False)[0]
    return {item["item_id"]: item["score"] for item in items}


def test_a_catalogue_of_the_same_ids_brings_its_own_features_and_titles(
    run: Path, shop: Path, encoder: ItemEncoder, tmp_path: Path
) -> None:
    saved = ItemCatalog.from_pretrained(shop / "catalog")
    records = [record | {"title": f"New {row}"} for row, record in enumerate(saved.records)]
    ItemCatalog(IDS, records, root=shop).encode(encoder).save_pretrained(tmp_path)
    recommender = load_recommender(run, catalog=tmp_path, device="cpu", find_encoder=lambda _: encoder)
    try:
        served = scores(recommender)
        # What the model gives with these features: that of the pipeline, whose model is told them.
        reference = transformers.pipeline("sequential-recommendation", model=str(run / "model"), device="cpu")
        before = reference(history("item-1", "item-2"), top_k=50, exclude_history=False)
        reference.set_items(ItemCatalog.from_pretrained(tmp_path))
        after = reference(history("item-1", "item-2"), top_k=50, exclude_history=False)
        assert served == pytest.approx({item["item_id"]: item["score"] for item in after}, abs=1e-4)
        assert max(abs(item["score"] - served[item["item_id"]]) for item in before) > 0.1
        assert recommender.state.pipeline.processor.title(3) == "New 2"
        # And an added item changes none of them.
        recommender.add_item("added", {"title": "Red circle"})
        grown = scores(recommender)
        assert {item_id: grown[item_id] for item_id in IDS} == pytest.approx(served, abs=1e-4)
    finally:
        recommender.close()


def test_a_catalogue_of_the_same_ids_by_another_encoder_is_refused(run: Path, shop: Path, tmp_path: Path) -> None:
    saved = ItemCatalog.from_pretrained(shop / "catalog")
    saved.feature_info["text"]["revision"] = "sha256:" + "0" * 64
    saved.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="the model reads text features of .*, the catalogue's were made by"):
        load_recommender(run, catalog=tmp_path, device="cpu", find_encoder=None)


def test_a_catalogue_without_features_brings_titles_to_a_model_that_knows_its_ids(
    run: Path, reference: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ItemCatalog(IDS, [{"title": f"New {row}"} for row in range(len(IDS))]).save_pretrained(tmp_path / "bare")
    recommender = load_recommender(run, catalog=tmp_path / "bare", device="cpu")
    try:
        assert "bare has no features: the model keeps those it has" in caplog.text
        items = recommender.recommend([history("item-1")], top_k=3)[0]
        expected = reference(history("item-1"), top_k=3)
        assert [item["item_id"] for item in items] == [item["item_id"] for item in expected]
        assert [item["title"] for item in items] == [f"New {IDS.index(item['item_id'])}" for item in items]
    finally:
        recommender.close()
    ItemCatalog(IDS[:3]).save_pretrained(tmp_path / "fewer")
    with pytest.raises(ValueError, match="no text features; encode it first"):
        load_recommender(run, catalog=tmp_path / "fewer", device="cpu")


def test_the_models_own_catalogue_is_not_set_again(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SequentialRecommendationPipeline, "set_items", None)
    assert served(run) == IDS


def test_a_model_without_its_catalogue_is_served_by_title(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(run / "model", tmp_path / "model", ignore=shutil.ignore_patterns("catalog"))
    with caplog.at_level(logging.WARNING):
        recommender = load_recommender(tmp_path / "model", device="cpu", find_encoder=recorded_encoder)
    assert "its items are served by title" in caplog.text
    found, entries = recommender.search("", 1, 100)
    assert [entry["title"] for entry in entries] == TITLES and not any(entry["has_image"] for entry in entries)
    assert recommender.encoder_problem is not None and "has no features" in recommender.encoder_problem
    assert recommender.recommend([history("item-2")], why=True)[0][0]["why"]["text"]["item_id"] == "item-2"
    recommender.close()


def test_a_catalogue_that_an_earlier_model_left_is_not_served_in_place_of_the_model(
    run: Path, shop: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(run / "model", folder)
    recommend = transformers.pipeline("sequential-recommendation", model=str(folder), device="cpu")
    recommend.set_items(ItemCatalog.from_pretrained(shop / "catalog").select(IDS[:7]))
    recommend.save_pretrained(folder)
    assert ItemCatalog.from_pretrained(folder / "catalog").item_ids == IDS
    assert served(folder) == IDS[:7]
    (told,) = [record.getMessage() for record in caplog.records if "other items" in record.getMessage()]
    assert f"catalog holds other items ({len(IDS)}) than the model (7)" in told and "--catalog" in told
    # Who names it means it.
    assert served(folder, catalog=folder / "catalog") == IDS


def test_a_base_model_is_served_with_a_catalogue_only(run: Path, shop: Path, tmp_path: Path, reference: Any) -> None:
    reference.model.model.save_pretrained(tmp_path)
    processor = copy.copy(reference.processor)
    processor._set_items([], [])
    processor.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds no items: it is a base model; give it a catalogue by --catalog"):
        load_recommender(tmp_path, device="cpu")
    assert served(tmp_path, catalog=shop / "catalog") == IDS


def test_what_is_no_model_is_named(run: Path, shop: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is a catalogue, not a model.*--catalog"):
        load_recommender(shop / "catalog")
    with pytest.raises(ValueError, match="holds a model of type 'bert'"):
        load_recommender(shop / "bert")
    with pytest.raises(ValueError, match="holds no model"):
        load_recommender(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder: .*absent"):
        load_recommender(tmp_path / "absent")


def test_an_encoder_is_found_by_what_the_catalogue_records(info: dict[str, Any], given: dict[str, str]) -> None:
    encoder = recorded_encoder(info, device="cpu", **given)
    assert encoder.info == info and encoder.text_fields == ("title", "brand", "description")


def test_a_folders_name_alone_does_not_lead_to_it(info: dict[str, Any], given: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"text features were made by a model in a folder 'bert'.*--text-encoder"):
        recorded_encoder(info)
    with pytest.raises(ValueError, match=r"image features were made by a model in a folder 'vit'.*--image-encoder"):
        recorded_encoder(info, text_encoder=given["text_encoder"])


def test_another_encoder_is_refused(info: dict[str, Any], given: dict[str, str], shop: Path, tmp_path: Path) -> None:
    from transformers import ViTModel

    other = ViTModel.from_pretrained(shop / "vit")
    with torch.no_grad():
        other.layernorm.weight += 1
    other.save_pretrained(tmp_path / "vit")
    shutil.copy(shop / "vit" / "preprocessor_config.json", tmp_path / "vit")
    with pytest.raises(ValueError, match="image features were made with another encoder: revision 'sha256:"):
        recorded_encoder(info, device="cpu", **(given | {"image_encoder": str(tmp_path / "vit")}))
    with pytest.raises(ValueError, match="cannot be loaded"):
        recorded_encoder(info, device="cpu", **(given | {"image_encoder": str(tmp_path)}))


def test_fields_policy_and_pooling_are_those_of_the_record(given: dict[str, str], shop: Path) -> None:
    encoder = ItemEncoder(
        **given, device="cpu", text_fields=["title", "colour"], missing="zeros", pooling="cls", dtype=torch.bfloat16
    )
    # Through JSON, as a saved catalogue holds it.
    info = json.loads(json.dumps(encoder.info))
    assert recorded_encoder(info, device="cpu", **given).info == info


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": {"encoder": "shop.code.encode", "revision": None, "pooling": None}}, "which is no model's name"),
        ({"text": {}}, "does not tell what made its text features"),
        (
            {"text": {"encoder": "nobody/no-such-model", "revision": "0" * 40, "pooling": "mean"}},
            "nobody/no-such-model and .* cannot be loaded",
        ),
    ],
)
def test_why_there_is_no_encoder_is_told(
    info: dict[str, Any], given: dict[str, str], change: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=message):
        recorded_encoder(info | change, device="cpu", image_encoder=given["image_encoder"])


def test_a_joint_model_is_loaded_once_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    text = {"encoder": "org/joint", "revision": "a" * 40, "pooling": "get_text_features", "missing": "white"}
    info = {"text": text | {"fields": ["title"]}, "image": text | {"pooling": "get_image_features"}}
    asked: dict[str, Any] = {}

    class Joint:
        def __init__(self, name: str, **options: Any) -> None:
            asked.update(options, name=name)
            self.info = info

    monkeypatch.setattr("mmm4rec_hf.items.recorded.ItemEncoder", Joint)
    recorded_encoder(info, device="cpu")
    assert (asked["name"], asked["revision"], asked["text_fields"]) == ("org/joint", "a" * 40, ["title"])
