"""`mmm4rec encode --text-fields`: the title by either of its names, and names that nothing has."""

from pathlib import Path

import numpy as np
import pytest

from mmm4rec_hf import ItemCatalog, ItemEncoder
from mmm4rec_hf.cli import main

PRODUCTS = "sku;name;category;price\n1;iron spade;spade;3\n2;steel saw;saw;4\n3;medium steel saw;spade;5\n"


@pytest.fixture
def products(tmp_path: Path) -> Path:
    path = tmp_path / "products.csv"
    path.write_text(PRODUCTS)
    return path


def encode(path: Path, shop: Path, text_fields: str, *options: str) -> int:
    command = ["encode", str(path), "--output", str(path.with_name("catalog")), "--text-encoder", str(shop / "bert")]
    return main([*command, "--text-fields", text_fields, *options])


@pytest.mark.parametrize("text_fields", ["name,category", "title,category"])
@pytest.mark.parametrize("given", ["title", "name"])
def test_a_new_item_is_encoded_as_the_row_of_the_file_was(
    products: Path, shop: Path, text_fields: str, given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert encode(products, shop, text_fields) == 0
    also = "Texts are made of {}; --text-fields also takes price.\n"
    assert also.format(text_fields.replace(",", ", ")) in capsys.readouterr().out
    catalog = ItemCatalog.from_pretrained(products.with_name("catalog"))
    encoder = ItemEncoder(
        text_encoder=shop / "bert", image_encoder="none", text_fields=text_fields.split(","), device="cpu"
    )
    catalog.add_items([{"sku": "new", given: "medium steel saw", "category": "spade"}], encoder=encoder)
    assert catalog.text_features is not None
    np.testing.assert_allclose(catalog.text_features[3], catalog.text_features[2], atol=1e-5)
    assert catalog.records[3] == {name: text for name, text in catalog["3"].items() if name != "price"}
    # The title is read: another one makes another vector.
    catalog.add_items([{"sku": "other", given: "Title 1 2 7", "category": "spade"}], encoder=encoder)
    assert abs(catalog.text_features[4] - catalog.text_features[3]).max() > 1e-3


@pytest.mark.parametrize(
    ("text_fields", "told"),
    [
        (
            "title,categry",
            "--text-fields: no item has 'categry', of which texts are to be made; did you mean 'category'?",
        ),
        ("title,colour", "no item has 'colour', of which texts are to be made; there are category, price, title"),
        # Given, it is no default.
        ("title,brand,description", "no item has 'brand', of which texts are to be made; there are"),
    ],
)
def test_a_text_field_that_no_item_has_is_wrong_use(
    products: Path, shop: Path, text_fields: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert encode(products, shop, text_fields) == 2
    assert told in capsys.readouterr().err.splitlines()[-1]
    assert not products.with_name("catalog").exists()


def test_a_title_by_a_name_of_its_own_is_asked_for(
    products: Path, shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    products.write_text(PRODUCTS.replace("name", "label"))
    assert encode(products, shop, "title,category") == 2
    assert "if the title has another name, give --title-column" in capsys.readouterr().err.splitlines()[-1]
    assert encode(products, shop, "title,category", "--title-column", "label") == 0
    assert capsys.readouterr().out.startswith("Texts are made of title, category")
