"""A tiny shop with drawn pictures and awkward titles, a model of it, and servers of that model."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image, ImageDraw
from transformers import pipeline

from mmm4rec_hf import ItemCatalog, ItemEncoder, MMM4RecConfig, MMM4RecForSequentialRecommendation
from mmm4rec_hf.items.recorded import recorded_encoder
from mmm4rec_hf.serving.api import create_api
from mmm4rec_hf.serving.loading import load_recommender
from mmm4rec_hf.serving.recommender import Recommender
from mmm4rec_hf.training.saving import load_processor, save_encoded_catalog, save_recommender

from ..tiny_encoders import save_tiny_encoders

COLOURS = ["red", "green", "blue", "orange", "purple", "teal"]
SHAPES = ["circle", "square", "star", "bar", "cross"]
# What would run, or break a page, if a title were taken for HTML or for a template.
HOSTILE = [
    "<script>window.pwned=1</script>",
    '<img src="x" onerror="window.pwned=1">',
    "\"><svg onload='window.pwned=1'>",
    "${window.pwned=1} {{constructor}} `b`",
]
PLAIN_TITLES = [f"{colour.title()} {shape}" for colour in COLOURS for shape in SHAPES]
TITLES = [*PLAIN_TITLES, *HOSTILE, "Crème brûlée", None]
# Ids that numbers, paths and addresses damage.
ODD_IDS = ["007", "7", "a/../b", "x/image", "é,&=?#%", "9007199254740993"]
IDS = [*(f"item-{n}" for n in range(len(TITLES) - len(ODD_IDS))), *ODD_IDS]
MODEL = {"hidden_size": 16, "intermediate_size": 16, "head_dim": 4, "state_size": 4, "max_sequence_length": 6}


def draw(colour: str, shape: str) -> Image.Image:
    """A picture of an item."""
    picture = Image.new("RGB", (48, 64), "white")
    pen = ImageDraw.Draw(picture)
    if shape == "circle":
        pen.ellipse((6, 14, 42, 50), fill=colour)
    elif shape == "square":
        pen.rectangle((8, 16, 40, 48), fill=colour)
    elif shape == "star":
        pen.regular_polygon((24, 32, 20), 3, fill=colour)
    elif shape == "bar":
        pen.rectangle((18, 6, 30, 58), fill=colour)
    else:
        pen.line((8, 16, 40, 48), fill=colour, width=8)
        pen.line((8, 48, 40, 16), fill=colour, width=8)
    return picture


def records() -> list[dict[str, Any]]:
    """The shop's items; the last ones have no picture."""
    items: list[dict[str, Any]] = []
    for number, (item_id, title) in enumerate(zip(IDS, TITLES, strict=True)):
        item: dict[str, Any] = {"item_id": item_id, "description": f"number {number}"}
        if title is not None:
            item["title"] = title
        if number < len(PLAIN_TITLES):
            item["image"] = f"{number}.png"
        items.append(item)
    return items


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`items.jsonl`, pictures, and the two tiny encoders `bert` and `vit`."""
    folder = tmp_path_factory.mktemp("shop")
    for number, title in enumerate(PLAIN_TITLES):
        draw(*title.lower().split()).save(folder / f"{number}.png")
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in records()))
    torch.manual_seed(0)
    words = ["number", *COLOURS, *SHAPES, *map(str, range(10))]
    save_tiny_encoders(folder / "bert", folder / "vit", words)
    return folder


@pytest.fixture(scope="session")
def encoder(shop: Path) -> ItemEncoder:
    """The encoder of the shop's catalogue."""
    return ItemEncoder(text_encoder=shop / "bert", image_encoder=shop / "vit", device="cpu")


@pytest.fixture(scope="session")
def catalog(shop: Path, encoder: ItemEncoder) -> ItemCatalog:
    """The shop's catalogue with features, saved as `catalog` too."""
    catalog = ItemCatalog.from_items(shop / "items.jsonl").encode(encoder)
    save_encoded_catalog(catalog, encoder, shop / "catalog")
    return catalog


def write_run(folder: Path, shop: Path, catalog: ItemCatalog, **options: Any) -> Path:
    """What fine-tuning writes, with weights that were drawn: `model/`, with the catalogue in it."""
    torch.manual_seed(1)
    config = MMM4RecConfig(text_feature_size=16, image_feature_size=16, **MODEL, **options)
    model = MMM4RecForSequentialRecommendation(config)
    model.set_items(catalog)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Times must be seen in two decimals of a score.
            parameter += (2.0 if "time" in name else 0.3) * torch.randn_like(parameter)
    save_recommender(model, load_processor(shop / "catalog"), catalog, folder / "model")
    return folder


@pytest.fixture(scope="session")
def run(shop: Path, catalog: ItemCatalog) -> Path:
    """A run of a model that reads times as published: normalised within a history."""
    return write_run(shop / "run", shop, catalog)


@pytest.fixture(scope="session")
def timed_run(shop: Path, catalog: ItemCatalog) -> Path:
    """A run of a model that tells minutes from months."""
    return write_run(shop / "timed_run", shop, catalog, time_mode="log")


@pytest.fixture(scope="session")
def reference(run: Path) -> Any:
    """The pipeline by itself, as `transformers` loads it."""
    return pipeline("sequential-recommendation", model=str(run / "model"), device="cpu")


@pytest.fixture
def load(run: Path, shop: Path) -> Iterator[Callable[..., Recommender]]:
    """Loads recommenders of the shop, and closes them."""
    loaded = []

    def load_one(run: Path = run, **options: Any) -> Recommender:
        def find(info: Any) -> ItemEncoder:
            encoders = {"text_encoder": str(shop / "bert"), "image_encoder": str(shop / "vit")}
            return recorded_encoder(info, device="cpu", **encoders)

        recommender = load_recommender(run, **({"device": "cpu", "find_encoder": find} | options))
        loaded.append(recommender)
        return recommender

    yield load_one
    for recommender in loaded:
        recommender.close()


@pytest.fixture
def recommender(load: Callable[..., Recommender]) -> Recommender:
    """A recommender that takes new items."""
    return load()


@pytest.fixture
def client(recommender: Recommender) -> Iterator[TestClient]:
    """The API of that recommender, without a network."""
    with TestClient(create_api(recommender)) as client:
        yield client


@pytest.fixture
def serve() -> Iterator[Callable[[Any], str]]:
    """Serves applications on the loopback until the test ends; gives their addresses."""
    import uvicorn

    from mmm4rec_hf.serving.server import address, bind

    running = []

    def start(app: Any) -> str:
        sock = bind("127.0.0.1", 0)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
        thread.start()
        running.append((server, thread, sock))
        deadline = time.monotonic() + 30
        while not server.started:
            assert thread.is_alive() and time.monotonic() < deadline, "the server did not start"
            time.sleep(0.01)
        return address(sock)

    yield start
    for server, thread, sock in running:
        server.should_exit = True
        thread.join(10)
        sock.close()
