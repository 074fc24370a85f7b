"""New items may call their fields as the shop's own file did, or by usual names."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmm4rec_hf.items import ItemCatalog, ItemEncoder

from .test_catalog import letters, mean_colour

PRODUCTS = [{"Artikel": "a", "Label": "aa", "File": "red.png"}, {"Artikel": "b", "Label": "b"}]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    Image.new("RGB", (3, 3), (200, 0, 0)).save(tmp_path / "red.png")
    (tmp_path / "products.jsonl").write_text("".join(json.dumps(record) + "\n" for record in PRODUCTS))
    return tmp_path


@pytest.fixture
def encoder() -> ItemEncoder:
    return ItemEncoder(text_encoder=letters, image_encoder=mean_colour)


@pytest.fixture
def catalog(shop: Path, encoder: ItemEncoder) -> ItemCatalog:
    """Saved and loaded, of a file with names that nobody can guess."""
    columns = {"id_column": "Artikel", "title_column": "Label", "image_column": "File"}
    ItemCatalog.from_items(shop / "products.jsonl", **columns).encode(encoder).save_pretrained(shop / "catalog")
    return ItemCatalog.from_pretrained(shop / "catalog", root=shop)


@pytest.mark.parametrize(
    "item",
    [
        {"Artikel": "new", "Label": "aaa", "File": "red.png"},
        {"item_id": "new", "title": "aaa", "image": "red.png"},
        {"sku": "new", "Name": "aaa", "photo": "red.png"},
    ],
    ids=["the file's names", "ours", "usual ones"],
)
def test_a_new_item_is_read_whatever_its_fields_are_called(
    catalog: ItemCatalog, encoder: ItemEncoder, item: dict[str, str]
) -> None:
    catalog.select(["b", "a"]).add_items([item], encoder=encoder)  # a selection knows the names as well
    catalog.add_items([item], encoder=encoder)
    assert catalog.item_ids == ["a", "b", "new"] and catalog.titles == ["aa", "b", "aaa"]
    np.testing.assert_array_equal(catalog.text_features[-1], letters(["Title: aaa ;"])[0])
    np.testing.assert_array_equal(catalog.image_features[-1], [200, 0, 0])
    catalog.remove_items(["a"])
    catalog.add_items([item | {next(iter(item)): "again"}], encoder=encoder)
    assert catalog.titles == ["b", "aaa", "aaa"]


def test_an_id_of_ours_goes_before_the_file_s(catalog: ItemCatalog, encoder: ItemEncoder) -> None:
    catalog.add_items([{"item_id": "c", "Artikel": "7", "title": "a"}], encoder=encoder)
    assert catalog.item_ids[-1] == "c"


def test_what_texts_are_made_of_is_no_picture(shop: Path) -> None:
    texts = ItemEncoder(text_encoder=letters, image_encoder=mean_colour, text_fields=["poster"])
    catalog = ItemCatalog.from_items([{"item_id": "a", "poster": "by Ann"}], root=shop).encode(texts)
    catalog.add_items([{"item_id": "b", "poster": "red.png"}])
    assert catalog.image_mask.tolist() == [False, False] and catalog.text_mask.all()


def test_a_picture_by_another_name_stays_in_its_folder_too(
    catalog: ItemCatalog, encoder: ItemEncoder, shop: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (shop / "more").mkdir()
    (shop / "more" / "new.jsonl").write_text('{"Artikel": "new", "Label": "aaa", "File": "../red.png"}\n')
    catalog.add_items(shop / "more" / "new.jsonl", encoder=encoder)
    assert "lead out of" in caplog.text and catalog.image_mask.tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (
            {"Artikel": "n", "Bezeichnung": "aaa", "price": 3},
            "item 'n' has no text: it has 'Bezeichnung', 'price', and texts of this catalogue are made of "
            r"'title' \(or 'Label'\), 'brand', 'description'",
        ),
        (
            {"Artikel": "n", "name": "a", "product name": "b"},
            "'name', 'product name' of a new item may each be the tit",
        ),
        ({"Artikel": "n", "Label": "a", "photo": "red.png", "img": "x"}, "'photo', 'img' .* may each be the image"),
    ],
    ids=["nothing is read", "two titles", "two pictures"],
)
def test_what_cannot_be_read_is_asked_for_and_nothing_is_added(
    catalog: ItemCatalog, encoder: ItemEncoder, item: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        catalog.add_items([item], encoder=encoder)
    assert catalog.item_ids == ["a", "b"] and len(catalog.text_features) == 2


def test_a_new_item_without_text_is_told_what_texts_are_made_of(
    catalog: ItemCatalog, encoder: ItemEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    # A picture alone, or one among others: as in any catalogue.
    catalog.add_items([{"item_id": "seen", "price": 3, "image": "red.png"}], encoder=encoder)
    catalog.add_items([{"item_id": "mute", "price": 3}, {"item_id": "told", "title": "a"}], encoder=encoder)
    assert catalog.text_mask.tolist() == [True, True, False, False, True]
    assert "1 of 2 items have no text: an empty text is encoded; texts are made of title, brand" in caplog.text


def test_a_field_that_texts_are_made_of_keeps_its_name(shop: Path) -> None:
    made = ItemCatalog.from_items([{"item_id": "a", "name": "x"}])
    encoder = ItemEncoder(text_encoder=letters, text_fields=["name"])
    catalog = made.encode(encoder)
    catalog.add_items([{"item_id": "b", "name": "aaa"}])
    np.testing.assert_array_equal(catalog.text_features, letters(["Name: x ;", "Name: aaa ;"]))
    assert catalog.titles[1] == "aaa"


def test_a_column_that_no_item_has_is_named(shop: Path) -> None:
    with pytest.raises(ValueError, match="title_column='Labels' is no field of any item; there are 'Label', 'File'"):
        ItemCatalog.from_items(shop / "products.jsonl", id_column="Artikel", title_column="Labels")
