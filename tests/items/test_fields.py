"""New items may call their fields as the shop's own file did, or by usual names."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mmm4rec_hf.items import ItemCatalog, ItemEncoder
from mmm4rec_hf.items.images import PictureError

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


def test_new_items_may_have_their_ids_by_either_name_each_its_own(catalog: ItemCatalog, encoder: ItemEncoder) -> None:
    both = {"item_id": 7, "Artikel": "7", "title": "a"}
    rows = [{"item_id": "c", "title": "a"}, {"Artikel": "d", "title": "a"}, both, {"item_id": "", "Artikel": "e"}]
    catalog.add_items([*rows, {"item_id": "f", "Artikel": ""}], encoder=encoder)
    assert catalog.item_ids == ["a", "b", "c", "d", "7", "e", "f"]
    assert not any("Artikel" in record or "item_id" in record for record in catalog.records)


def test_a_new_item_with_two_ids_is_in_question(catalog: ItemCatalog, encoder: ItemEncoder) -> None:
    with pytest.raises(ValueError, match="'item_id' and 'Artikel' are one field .* has 'c' and '7'; give one"):
        catalog.add_items([{"item_id": "c", "Artikel": "7", "title": "a"}], encoder=encoder)
    assert catalog.item_ids == ["a", "b"]


TOLD = [
    {"sku": "1", "item_id": "2", "name": "x", "title": "t", "file": "a.png", "image": "b.png"},
    {"sku": "2", "item_id": "1", "name": "y", "title": "y", "file": "c.png"},
]


def test_a_column_that_was_told_stands_before_one_of_our_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    catalog = ItemCatalog.from_items(TOLD, id_column="sku", title_column="name", image_column="file")
    expected = {"1": {"title": "x", "image": "a.png"}, "2": {"title": "y", "image": "c.png"}}
    assert dict(zip(catalog.item_ids, catalog.records, strict=True)) == expected
    lost = [("item_id", "sku", 2), ("title", "name", 1), ("image", "file", 1)]
    for ours, theirs, number in lost:
        told = f"{number} items have a field {ours!r} beside {theirs!r}, which was told to be it"
        assert caplog.text.count(told) == 1
    catalog.save_pretrained(tmp_path)
    loaded = ItemCatalog.from_pretrained(tmp_path)
    assert dict(zip(loaded.item_ids, loaded.records, strict=True)) == expected


def test_a_field_item_id_may_be_the_title() -> None:
    catalog = ItemCatalog.from_items(TOLD, id_column="sku", title_column="item_id")
    assert dict(zip(catalog.item_ids, catalog.titles, strict=True)) == {"1": "2", "2": "1"}


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
    with pytest.raises(
        PictureError, match=r"the picture '\.\./red\.png' of item 'new' cannot be used: it leads out of"
    ):
        catalog.add_items(shop / "more" / "new.jsonl", encoder=encoder)
    catalog.add_items(shop / "more" / "new.jsonl", encoder=encoder, unreadable_pictures="missing")
    assert "lead out of" in caplog.text and catalog.image_mask.tolist() == [True, False, False]


def test_a_picture_that_a_new_item_names_must_be_readable(
    catalog: ItemCatalog, encoder: ItemEncoder, shop: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (shop / "broken.png").write_bytes(b"no picture")
    cases = [
        (
            {"image": "rde.png"},
            rf"'rde.png' of item 'n' cannot be used: no such file \(paths start from {shop}; root=",
        ),
        ({"image": shop / "rde.png"}, r"rde.png' of item 'n' cannot be used: no such file"),
        ({"File": "broken.png"}, r"'broken.png' of item 'n' cannot be used: no picture of these formats: JPEG"),
        ({"image": b"no picture"}, r"the picture of item 'n' cannot be used: no picture of these formats"),
        ({"image": "/etc/hostname"}, rf"'/etc/hostname' of item 'n' cannot be used: it leads out of {shop}; name one"),
    ]
    for picture, message in cases:
        with pytest.raises(PictureError, match=message) as error:
            catalog.add_items([{"item_id": "n", "title": "a"} | picture], encoder=encoder)
        assert str(error.value).endswith(
            "; correct it, leave the item's image out, or pass unreadable_pictures='missing' to go on without"
        )
        assert catalog.item_ids == ["a", "b"] and len(catalog.image_features) == 2
    several = [{"item_id": f"n{n}", "title": "a", "image": name} for n, name in enumerate(["red.png", "x", "y", "z"])]
    with pytest.raises(PictureError, match=r"'x' of item 'n1' .*, and so with 2 more of 4 items; correct it"):
        catalog.add_items(several, encoder=encoder)
    caplog.clear()
    catalog.add_items(several, encoder=encoder, unreadable_pictures="missing")
    assert catalog.image_mask.tolist()[2:] == [True, False, False, False] and "3 no such file" in caplog.text
    # The colour of a white picture.
    np.testing.assert_array_equal(catalog.image_features[2:], [[200, 0, 0], *[[255, 255, 255]] * 3])
    # None at all, an address that is not fetched unasked, and features that come along need no file.
    catalog.add_items([{"item_id": "none", "title": "a", "image": ""}], encoder=encoder)
    catalog.add_items([{"item_id": "far", "title": "a", "image": "https://example.org/a.png"}], encoder=encoder)
    made = {"text_features": letters(["a"])[0], "image_features": np.array([1.0, 2.0, 3.0])}
    catalog.add_items([{"item_id": "made", "image": "x.png"} | made])
    assert catalog.image_mask.tolist()[6:] == [False, False, True]
    with pytest.raises(ValueError, match="unreadable_pictures must be 'error' or 'missing', got 'white'"):
        catalog.add_items([{"item_id": "m", "title": "a"}], encoder=encoder, unreadable_pictures="white")  # type: ignore[arg-type]


def test_pictures_of_new_items_do_not_count_where_none_are_looked_at(shop: Path) -> None:
    for image_encoder in (None, "none"):
        texts = ItemEncoder(text_encoder=letters, image_encoder=image_encoder)
        catalog = ItemCatalog.from_items([{"item_id": "a", "title": "a"}], root=shop).encode(texts)
        catalog.add_items([{"item_id": "b", "title": "b", "image": "nowhere.png"}])
        assert catalog.item_ids == ["a", "b"]


def test_a_folder_of_pictures_that_is_not_there_is_told(catalog: ItemCatalog, shop: Path) -> None:
    message = rf"no such folder: {shop}/nowhere \(given as root=, where paths of pictures start\)"
    with pytest.raises(FileNotFoundError, match=message):
        ItemCatalog.from_items(shop / "products.jsonl", root=shop / "nowhere")
    with pytest.raises(FileNotFoundError, match=message):
        catalog.add_items([{"item_id": "new", "title": "a"}], root=shop / "nowhere")
    # The folder of a file in the working directory.
    assert len(ItemCatalog.from_items([{"item_id": "a", "title": "a"}], root=os.path.dirname("items.csv"))) == 1


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (
            {"Artikel": "n", "Bezeichnung": "aaa", "price": 3},
            "item 'n' has no text: it has 'Bezeichnung', 'price', and texts of this catalogue are made of "
            r"'title' \(or 'Label'\), 'brand', 'description'",
        ),
        ({"Artikel": "n"}, "item 'n' has no text: it has nothing but its id, and texts of this catalogue are made of"),
        ({"Artikel": "n", "Label": None}, "item 'n' has no text: it has nothing but its id"),
        (
            {"Artikel": "n", "name": "a", "product name": "b"},
            "'name', 'product name' of a new item may each be the tit",
        ),
        ({"Artikel": "n", "Label": "a", "photo": "red.png", "img": "x"}, "'photo', 'img' .* may each be the image"),
    ],
    ids=["nothing is read", "an id", "a gap", "two titles", "two pictures"],
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


SHOP = [
    {"sku": "a", "name": "iron spade", "category": "spade", "price": 3},
    {"sku": "b", "name": "saw", "category": "saw", "price": 4},
]


@pytest.fixture
def texts() -> list[str]:
    """What was encoded, in order."""
    return []


def shop_of(texts: list[str], text_fields: list[str], how: str) -> ItemCatalog:
    def read(batch: list[str]) -> np.ndarray:
        texts.extend(batch)
        return letters(batch)

    catalog = ItemCatalog.from_items(SHOP, id_column="sku", title_column="name" if how == "told" else None)
    return catalog.encode(ItemEncoder(text_encoder=read, text_fields=text_fields))


@pytest.mark.parametrize("how", ["told", "found"])
@pytest.mark.parametrize("given", ["title", "name", "Name", "product name", "title and name"])
@pytest.mark.parametrize(
    ("text_fields", "text"),
    [
        (["name", "category"], "Name: iron spade ; Category: spade ;"),
        (["title", "category"], "Title: iron spade ; Category: spade ;"),
        (["title", "name"], "Title: iron spade ; Name: iron spade ;"),
    ],
)
def test_the_title_and_the_file_s_column_of_it_are_one_field(
    texts: list[str], text_fields: list[str], text: str, given: str, how: str
) -> None:
    catalog = shop_of(texts, text_fields, how)
    assert texts[0] == text and catalog.titles == ["iron spade", "saw"]
    texts.clear()
    names = dict.fromkeys(given.split(" and "), "iron spade")
    catalog.add_items([{"sku": "new", "category": "spade", **names}])
    assert texts == [text] and catalog.titles[-1] == "iron spade"
    np.testing.assert_array_equal(catalog.text_features[-1], catalog.text_features[0])


def test_one_field_of_a_catalogue_that_does_not_record_it(texts: list[str]) -> None:
    catalog = shop_of(texts, ["name", "category"], "found")
    catalog.source_fields.clear()
    catalog.add_items([{"item_id": "new", "title": "iron spade", "category": "spade"}])
    np.testing.assert_array_equal(catalog.text_features[-1], catalog.text_features[0])


def test_a_column_of_the_file_that_was_told_is_read_by_its_own_name(texts: list[str]) -> None:
    catalog = ItemCatalog.from_items([{"sku": "a", "Etikett": "saw", "kind": "tool"}], title_column="Etikett")
    catalog = catalog.encode(ItemEncoder(text_encoder=letters, text_fields=["kind", "Etikett"]))
    np.testing.assert_array_equal(catalog.text_features, letters(["Kind: tool ; Etikett: saw ;"]))
    catalog.add_items([{"sku": "b", "title": "saw", "kind": "tool"}])
    np.testing.assert_array_equal(catalog.text_features[1], catalog.text_features[0])


def test_a_title_that_is_given_twice_and_differs_is_in_question(texts: list[str]) -> None:
    catalog = shop_of(texts, ["name", "category"], "found")
    with pytest.raises(ValueError, match="'title' and 'name' are one field .* has 'saw' and 'spade'; give one"):
        catalog.add_items([{"sku": "new", "title": "saw", "name": "spade", "category": "saw"}])
    texts.clear()
    catalog.add_items([{"sku": "c", "title": "", "name": "spade"}, {"sku": "d", "title": "saw", "name": " "}])
    assert sorted(texts) == ["Name: saw ;", "Name: spade ;"]


def test_a_gap_as_title_is_none_beside_the_file_s_column() -> None:
    records = [{"title": pd.NA, "name": "saw"}, {"title": np.array(["b", "c"]), "name": ["b", "c"]}]
    catalog = ItemCatalog(["a", "b"], records).encode(ItemEncoder(text_encoder=letters, text_fields=["name"]))
    np.testing.assert_array_equal(catalog.text_features, letters(["Name: saw ;", "Name: b, c ;"]))
    catalog.add_items([{"item_id": "c", "title": pd.NA, "name": "spade"}, {"item_id": "d", "title": 3, "name": "3"}])
    np.testing.assert_array_equal(catalog.text_features[2:], letters(["Name: spade ;", "Name: 3 ;"]))


def test_two_columns_that_differ_are_two_fields() -> None:
    items = [{"item_id": "a", "title": "Great!", "name": "saw"}]
    catalog = ItemCatalog.from_items(items).encode(ItemEncoder(text_encoder=letters, text_fields=["name", "title"]))
    catalog.add_items([{"item_id": "b", "title": "Great!", "name": "spade"}])
    np.testing.assert_array_equal(catalog.text_features[1], letters(["Name: spade ; Title: Great! ;"])[0])


@pytest.mark.parametrize(
    ("text_fields", "message"),
    [
        (["title", "categry"], r"no item has 'categry', .*; did you mean 'category'\?$"),
        (["Category"], r"no item has 'Category', .*; did you mean 'category'\?$"),
        (["name", "colour"], "no item has 'colour', .*; there are category, name, price, title$"),
    ],
)
def test_a_text_field_that_no_item_has_is_named(texts: list[str], text_fields: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        shop_of(texts, text_fields, "found")
    assert texts == []


def test_of_the_default_text_fields_any_may_be_absent(texts: list[str]) -> None:
    shop_of(texts, ["title", "brand", "description"], "found")
    assert sorted(texts) == ["Title: iron spade ;", "Title: saw ;"]


def test_a_title_that_is_called_otherwise_is_asked_for() -> None:
    catalog = ItemCatalog.from_items([{"item_id": "a", "label": "saw", "kind": "tool"}])
    with pytest.raises(ValueError, match=r"no item has 'title', .* are kind, label; if the title .* title_column=$"):
        catalog.encode(ItemEncoder(text_encoder=letters, text_fields=["title", "kind"]))


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (
            {"nmae": "saw", "category": "saw"},
            "'new' has a field 'nmae', of which no text is made; did you mean 'name'",
        ),
        ({"name": "saw", "Categories": "saw"}, "'new' has a field 'Categories', .* did you mean 'category'"),
    ],
)
def test_a_field_of_a_new_item_that_is_misspelt_is_asked_for(
    texts: list[str], item: dict[str, str], message: str
) -> None:
    catalog = shop_of(texts, ["name", "category"], "found")
    with pytest.raises(ValueError, match=message):
        catalog.add_items([{"sku": "fine", "name": "x"}, {"sku": "new", **item}])
    assert catalog.item_ids == ["a", "b"]


def test_fields_of_new_items_that_are_not_read_are_told_once(
    texts: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    catalog = shop_of(texts, ["name", "category"], "found")
    # The catalogue's own items have prices, too.
    catalog.add_items([{"sku": "c", "title": "x", "price": 3, "image": "x.png"}])
    assert "not read" not in caplog.text
    # A second name, beside the one that is read, is no slip.
    catalog.add_items([{"sku": n, "name": "x", "colour": "red", "names": "y"} for n in ("d", "e")])
    told = "new items have fields that are not read: colour, names; texts are made of name, category"
    assert [record.getMessage() for record in caplog.records].count(told) == 1
    assert catalog["d"]["colour"] == "red"


def test_a_column_that_no_item_has_is_named(shop: Path) -> None:
    with pytest.raises(ValueError, match="title_column='Labels' is no field of any item; there are 'Label', 'File'"):
        ItemCatalog.from_items(shop / "products.jsonl", id_column="Artikel", title_column="Labels")
