"""New items whose fields have the names of the shop's file, ours, or wrong ones."""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from mmm4rec_hf import ItemCatalog, ItemEncoder
from mmm4rec_hf.serving.api import create_api
from mmm4rec_hf.serving.page import Page
from mmm4rec_hf.serving.recommender import Recommender

from .conftest import write_run
from .test_recommender import png

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
    ("item_id", "texts", "message"),
    [
        ("new", ["x" * 10_001, "bar"], "has 10,001 characters; at most 10,000 are taken"),
        ("new", ["red bar", "x" * 10_001], "category has 10,001 characters; at most 10,000 are taken"),
        ("x" * 201, ["red bar", "bar"], "the id has 201 characters; at most 200 are taken"),
        ("x" * 200, ["x" * 10_000, "x" * 10_000], ""),
    ],
)
def test_the_page_s_form_takes_no_more_than_its_fields_say(
    shop_recommender: Recommender, item_id: str, texts: list[str], message: str
) -> None:
    told = Page(shop_recommender).add(item_id, None, *texts)[0]
    assert message in told and ("The item was not added" in told) is bool(message)
    assert len(shop_recommender.state.catalog) == (2 if message else 3)


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


@pytest.mark.parametrize("learned", [{"use_item_bias": True}, {"use_item_bias": True, "use_cooccurrence": True}])
def test_what_a_new_item_lacks_is_told(
    load: Callable[..., Recommender], shop: Path, catalog: ItemCatalog, tmp_path: Path, learned: dict[str, bool]
) -> None:
    with TestClient(create_api(load(write_run(tmp_path, shop, catalog, **learned)))) as client:
        answer = client.post("/items", data={"item_id": "new", "title": "red bar"})
    assert (answer.status_code, answer.json()["not_learned"]) == (201, list(learned))


@pytest.fixture
def film_client(
    load: Callable[..., Recommender], shop: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TestClient]:
    """The API of films whose file has its own names for the id, the title and the picture."""
    models: dict[str, Any] = {"text_encoder": shop / "bert", "image_encoder": shop / "vit"}
    encoder = ItemEncoder(**models, text_fields=["title", "kind"], device="cpu")
    films = [{"film_no": str(n), "label": f"red {n}", "kind": "bar", "frame": f"{n}.png"} for n in range(3)]
    names = {"id_column": "film_no", "title_column": "label", "image_column": "frame"}
    catalog = ItemCatalog.from_items(films, root=shop, **names).encode(encoder)
    with TestClient(create_api(load(write_run(tmp_path_factory.mktemp("films"), shop, catalog)))) as client:
        yield client


@pytest.mark.parametrize("picture", ["frame", "image", "poster"])
@pytest.mark.parametrize("form", [{"film_no": "x1"}, {"item_id": "x1"}, {"item_id": "x1", "film_no": "x1"}])
def test_id_and_picture_go_by_the_names_of_the_file(
    film_client: TestClient, form: dict[str, str], picture: str
) -> None:
    answer = film_client.post("/items", data={"label": "blue", **form}, files={picture: ("a.png", png("red", "bar"))})
    assert answer.status_code == 201, answer.text
    assert answer.json() == {
        "item_id": "x1",
        "title": "blue",
        "has_image": True,
        "num_items": 4,
        "ignored_fields": [],
        "not_learned": [],
    }
    shown = Image.open(io.BytesIO(film_client.get("/items/x1/image").content))
    red, green, blue = shown.getpixel((shown.width // 2, shown.height // 2))
    assert red > 200 and green < 60 and blue < 60
    assert "film_no" not in film_client.get("/items/x1").json()["fields"]


@pytest.mark.parametrize(
    ("form", "pictures", "message"),
    [
        ({"label": "blue"}, [], "item_id: Field required, or as 'film_no'; send a form, not JSON, such as curl -F"),
        ({"film_no": "x1", "item_id": "x2", "label": "blue"}, [], "item_id and 'film_no' are one field"),
        ({"film_no": "x" * 201, "label": "blue"}, [], "film_no is the id, of 1 to 200 characters, and has 201"),
        ({"film_no": "2", "label": "blue"}, [], "item '2' is in the catalogue already"),
        (
            {"film_no": "x1", "frame": "/etc/passwd"},
            [],
            "'frame' is the picture, and a text was sent; upload its file",
        ),
        ({"film_no": "x1", "poster": "1.png"}, [], "'poster' is the picture, and a text was sent; upload its file"),
        ({"film_no": "x1"}, ["frame", "image"], "'frame' is a second picture of this item; give one"),
        ({"film_no": "x1"}, ["poster", "frame"], "'frame' is a second picture of this item; give one"),
        ({"film_no": "x1"}, ["kind"], "form field 'kind' is a text, and a file was sent"),
        ({"film_no": "x1"}, ["scan"], "unknown form field 'scan'; a picture goes by 'frame'"),
        ({"filmno": "x1", "label": "blue"}, [], "unknown form field 'filmno' (other texts go into fields={...}); did"),
    ],
)
def test_an_id_or_a_picture_that_is_unclear_is_told(
    film_client: TestClient, form: dict[str, str], pictures: list[str], message: str
) -> None:
    files = [(name, ("a.png", png("red", "bar"))) for name in pictures]
    answer = film_client.post("/items", data=form, files=files or None)
    assert answer.status_code in (409, 422) and message in answer.json()["detail"]
    assert film_client.get("/health").json()["num_items"] == 3


@pytest.mark.parametrize(
    "fields",
    [
        {"frame": "x", "poster": "{path}"},
        {"photo": "{path}"},
        {"asin": "x2", "imUrl": "{path}"},
        {"parent_asin": "x2", "images": "{path}"},
    ],
)
@pytest.mark.parametrize("path", ["../secret.png", "http://elsewhere.example/a.png"])
def test_no_field_of_a_new_item_becomes_its_picture(
    film_client: TestClient, fields: dict[str, str], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    for name in ("images", "encoder"):
        monkeypatch.setattr(f"mmm4rec_hf.items.{name}.load_picture", lambda *some, **_: asked.append(some))
    sent = {name: text.format(path=path) for name, text in fields.items()}
    form = {"item_id": "x1", "label": "red", "kind": "bar", "fields": json.dumps(sent)}
    answer = film_client.post("/items", data=form)
    assert (answer.status_code, answer.json()["item_id"], answer.json()["has_image"]) == (201, "x1", False)
    assert film_client.get("/items/x1/image").status_code == 404
    assert film_client.get("/items/x1").json()["fields"].keys() >= set(answer.json()["ignored_fields"])
    assert asked == [] and film_client.get("/health").json()["num_items"] == 4


def test_the_id_among_the_fields_is_the_id(film_client: TestClient) -> None:
    form = {"item_id": "x1", "label": "red"}
    answer = film_client.post("/items", data=form | {"fields": '{"film_no": "x2"}'})
    assert answer.status_code == 422 and "'film_no' is the id, and differs from 'x1' here" in answer.json()["detail"]
    answer = film_client.post("/items", data=form | {"fields": '{"film_no": "x1"}'})
    assert (answer.status_code, answer.json()["item_id"], answer.json()["ignored_fields"]) == (201, "x1", [])
    assert "film_no" not in film_client.get("/items/x1").json()["fields"]
