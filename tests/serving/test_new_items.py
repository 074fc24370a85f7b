"""New items whose fields have the names of the shop's file, ours, or wrong ones."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from mmm4rec_hf import ItemCatalog, ItemEncoder
from mmm4rec_hf.serving.api import create_api
from mmm4rec_hf.serving.page import Page
from mmm4rec_hf.serving.recommender import Recommender

from .conftest import write_run

ITEMS = [
    {"sku": "1", "name": "red bar", "category": "bar", "price": 3},
    {"sku": "2", "name": "blue star", "category": "star", "price": 4},
]


@pytest.fixture(scope="module", params=[["name", "category"], ["title", "category"]], ids=["name", "title"])
def fields_run(request: pytest.FixtureRequest, shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose texts are made of the title, by the one of its names or the other."""
    models: dict[str, Any] = {"text_encoder": shop / "bert", "image_encoder": shop / "vit"}
    encoder = ItemEncoder(**models, text_fields=request.param, device="cpu")
    catalog = ItemCatalog.from_items(ITEMS, id_column="sku").encode(encoder)
    return write_run(tmp_path_factory.mktemp("fields"), shop, catalog)


@pytest.fixture
def shop_recommender(load: Callable[..., Recommender], fields_run: Path) -> Recommender:
    return load(fields_run)


@pytest.fixture
def shop_client(shop_recommender: Recommender) -> Iterator[TestClient]:
    with TestClient(create_api(shop_recommender)) as client:
        yield client


def features(recommender: Recommender) -> np.ndarray:
    catalog = recommender.state.catalog
    assert catalog.text_features is not None
    return catalog.text_features


@pytest.mark.parametrize(
    "form",
    [
        {"title": "red bar", "fields": '{"category": "bar"}'},
        {"name": "red bar", "category": "bar"},
        {"title": "red bar", "category": "bar"},
        {"fields": '{"category": "bar", "name": "red bar"}'},
        {"fields": '{"category": "bar", "title": "red bar"}'},
    ],
)
def test_the_title_is_encoded_by_whichever_name_it_is_sent(
    shop_client: TestClient, shop_recommender: Recommender, form: dict[str, str]
) -> None:
    answer = shop_client.post("/items", data={"item_id": "new"} | form)
    assert (answer.status_code, answer.json()["title"], answer.json()["ignored_fields"]) == (201, "red bar", [])
    np.testing.assert_allclose(features(shop_recommender)[2], features(shop_recommender)[0], atol=1e-5)
    # A title alone is a text.
    assert shop_client.post("/items", data={"item_id": "alone", "title": "purple circle"}).status_code == 201
    assert shop_recommender.state.catalog.text_mask.tolist()[-1]
    assert abs(features(shop_recommender)[-1] - features(shop_recommender)[0]).max() > 1e-3


def test_the_page_s_form_makes_the_same_text(shop_recommender: Recommender) -> None:
    Page(shop_recommender).add("new", None, "red bar", "bar")
    assert shop_recommender.state.catalog.titles[-1] == "red bar"
    np.testing.assert_allclose(features(shop_recommender)[2], features(shop_recommender)[0], atol=1e-5)


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"name": "red", "title": "blue"}, "'title' and 'name' are one field of this catalogue"),
        (
            {"title": "red", "fields": '{"categry": "bar"}'},
            "has a field 'categry', of which no text is made; did you mean 'category'?",
        ),
        (
            {"title": "red", "categry": "bar"},
            "unknown form field 'categry' (other texts go into fields={...}); did you mean 'category'?",
        ),
        (
            {"title": "red", "colour": "red"},
            "unknown form field 'colour' (other texts go into fields={...}); there are category, fields, ",
        ),
        ({"category": "x" * 10_001}, "category has 10,001 characters"),
        ({"fields": '{"colour": "red"}'}, "needs a text ("),
        ({"fields": '{"colour": "red"}'}, "or a picture; it has 'colour'"),
    ],
)
def test_a_field_that_would_say_nothing_is_told(
    shop_client: TestClient, shop_recommender: Recommender, form: dict[str, str], message: str
) -> None:
    answer = shop_client.post("/items", data={"item_id": "new"} | form)
    assert answer.status_code == 422 and message in answer.json()["detail"]
    assert len(shop_recommender.state.catalog) == 2


def test_fields_that_are_kept_and_not_read_are_in_the_answer_each_time(shop_client: TestClient) -> None:
    fields = json.dumps({"colour": "red", "price": "3", "category": "bar"})
    for item_id in ("new", "other"):
        answer = shop_client.post("/items", data={"item_id": item_id, "title": "red", "fields": fields})
        assert answer.json()["ignored_fields"] == ["colour", "price"]
    assert shop_client.get("/items/new").json()["fields"]["colour"] == "red"


def test_equal_items_are_as_alike_as_can_be_and_no_more(
    shop_client: TestClient, shop_recommender: Recommender
) -> None:
    names = [f"{colour} {shape}" for colour in ("red", "green", "teal") for shape in ("bar", "star", "square")]
    for place in range(2):
        for name in names:
            form = {"item_id": f"{name} {place}", "title": name, "category": "bar"}
            assert shop_client.post("/items", data=form).status_code == 201
    found: list[float] = []
    for name in names:
        answer = shop_client.get("/similar", params={"item_id": f"{name} 0", "top_k": 1}).json()["similar"]
        found += [answer[0][part] for part in ("score", "text_score", "image_score")]
        body = {"histories": [{"items": [f"{name} 0"]}], "candidates": [f"{name} 1"], "why": True}
        (items,) = shop_client.post("/recommend", json=body).json()["recommendations"]
        found += [items[0]["why"]["text"]["similarity"]]
    assert max(found) <= 1 and min(found) == pytest.approx(1, abs=1e-5)
