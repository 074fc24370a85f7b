"""Catalogues: features are keyed by item id, made once, kept on disk, and refused where they are broken."""

import datetime
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from mmm4rec_hf import (
    MMM4RecConfig,
    MMM4RecForSequentialRecommendation,
    MMM4RecProcessor,
    SequentialRecommendationPipeline,
    recommend_frame,
)
from mmm4rec_hf.cli import main
from mmm4rec_hf.items import ItemCatalog, ItemEncoder

ITEMS = [
    {"item_id": "007", "title": "abc", "brand": "x"},
    {"item_id": 7, "title": "abcdef"},
    {"item_id": "z", "description": "a b"},
    {"item_id": "mute"},
]


def letters(texts: list[str]) -> np.ndarray:
    """A text's length and how often it holds an `a`: vectors that can be told by hand."""
    return np.array([[len(text), text.count("a")] for text in texts], dtype=float)


def mean_colour(pictures: list[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(picture, dtype=float).mean(axis=(0, 1)) for picture in pictures])


@pytest.fixture
def encoder() -> ItemEncoder:
    return ItemEncoder(text_encoder=letters, image_encoder=mean_colour)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    Image.new("RGB", (4, 3), (10, 20, 30)).save(tmp_path / "dark.png")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    records = [dict(item) for item in ITEMS]
    records[1]["image"], records[2]["image"] = "dark.png", "broken.jpg"
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return tmp_path


def test_texts_follow_the_published_template_and_missing_ones_are_marked(shop: Path, encoder: ItemEncoder) -> None:
    catalog = ItemCatalog.from_items(shop / "items.jsonl").encode(encoder)
    assert catalog.item_ids == ["007", "7", "z", "mute"]
    texts = ["Title: abc ; Brand: x ;", "Title: abcdef ;", "Description: a b ;", ""]
    np.testing.assert_array_equal(catalog.text_features, letters(texts))
    assert catalog.text_mask.tolist() == [True, True, True, False]


def test_missing_and_broken_pictures_are_white_ones_marked_and_counted(
    shop: Path, encoder: ItemEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("WARNING"):
        catalog = ItemCatalog.from_items(shop / "items.jsonl").encode(encoder, shop / "features")
    np.testing.assert_allclose(catalog.image_features, [[255] * 3, [10, 20, 30], [255] * 3, [255] * 3])
    assert catalog.image_mask.tolist() == [False, True, False, False]
    assert "1 of 4 pictures cannot be used and count as missing: 1 no picture of these formats" in caplog.text
    assert "3 of 4 items have no usable picture: a white picture is encoded" in caplog.text
    assert "1 of 4 items have no text: an empty text is encoded" in caplog.text
    caplog.clear()
    ItemCatalog.from_items(shop / "items.jsonl").encode(encoder, shop / "features")
    assert "3 of 4 items have no usable picture" in caplog.text
    zeros = ItemEncoder(text_encoder=letters, image_encoder=mean_colour, missing="zeros")
    catalog = ItemCatalog.from_items(shop / "items.jsonl").encode(zeros)
    np.testing.assert_allclose(catalog.image_features, [[0] * 3, [10, 20, 30], [0] * 3, [0] * 3])


def test_a_shop_without_any_picture_or_text_is_encoded(encoder: ItemEncoder, caplog: pytest.LogCaptureFixture) -> None:
    catalog = ItemCatalog.from_items([{"item_id": "a"}, {"item_id": "b"}]).encode(encoder)
    np.testing.assert_array_equal(catalog.image_features, [[255] * 3] * 2)
    np.testing.assert_array_equal(catalog.text_features, letters(["", ""]))
    assert not catalog.image_mask.any() and not catalog.text_mask.any()
    assert "2 of 2 items have no usable picture" in caplog.text and "2 of 2 items have no text" in caplog.text


@pytest.mark.parametrize("sizes", [{"batch_size": 0}, {"shard_size": 0}, {"shard_size": -1}], ids=str)
def test_sizes_that_hold_nothing_are_refused(encoder: ItemEncoder, tmp_path: Path, sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(sizes))} must be at least 1"):
        ItemCatalog.from_items([{"item_id": "a"}]).encode(encoder, tmp_path / "features", **sizes)
    assert not (tmp_path / "features").exists()


def test_a_second_run_encodes_a_batch_to_compare_and_a_changed_item_its_own_shard(shop: Path) -> None:
    seen: list[str] = []

    def counting(texts: list[str]) -> np.ndarray:
        seen.extend(texts)
        return letters(texts)

    encoder = ItemEncoder(text_encoder=counting)
    catalog = ItemCatalog.from_items(shop / "items.jsonl")
    first = catalog.encode(encoder, shop / "features", shard_size=2)
    seen.clear()
    again = catalog.encode(encoder, shop / "features", batch_size=1, shard_size=2)
    assert seen == ["Title: abc ; Brand: x ;"]
    seen.clear()
    np.testing.assert_array_equal(first.text_features, again.text_features)
    catalog.records[3]["title"] = "new"
    changed = catalog.encode(encoder, shop / "features", batch_size=1, shard_size=2)
    assert sorted(seen) == ["Description: a b ;", "Title: abc ; Brand: x ;", "Title: new ;"]
    np.testing.assert_array_equal(changed.text_features[3], letters(["Title: new ;"])[0])


def test_another_encoders_features_are_not_mixed_in(shop: Path, encoder: ItemEncoder) -> None:
    catalog = ItemCatalog.from_items(shop / "items.jsonl")
    catalog.encode(encoder, shop / "features")
    other = ItemEncoder(text_encoder=letters, image_encoder=mean_colour, text_fields=("title",))
    with pytest.raises(ValueError, match="another encoder.*fields"):
        catalog.encode(other, shop / "features")
    replaced = catalog.encode(other, shop / "features", overwrite=True)
    np.testing.assert_array_equal(replaced.text_features[0], letters(["Title: abc ;"])[0])


def test_a_selection_keeps_features_with_their_items(shop: Path, encoder: ItemEncoder) -> None:
    catalog = ItemCatalog.from_items(shop / "items.jsonl").encode(encoder)
    chosen = catalog.select(["z", "007"])
    assert chosen.item_ids == ["z", "007"] and chosen.titles == [None, "abc"]
    np.testing.assert_array_equal(chosen.text_features, catalog.text_features[[2, 0]])
    np.testing.assert_array_equal(chosen.image_mask, catalog.image_mask[[2, 0]])
    with pytest.raises(ValueError, match="'nowhere'"):
        catalog.select(["nowhere"])


def test_added_items_are_encoded_alike_and_removed_ones_leave(shop: Path, encoder: ItemEncoder) -> None:
    catalog = ItemCatalog.from_items(shop / "items.jsonl").encode(encoder)
    catalog.add_items([{"item_id": "new", "title": "aaa"}])
    assert catalog.item_ids[-1] == "new"
    np.testing.assert_array_equal(catalog.text_features[-1], letters(["Title: aaa ;"])[0])
    catalog.remove_items(["7", "mute"])
    assert catalog.item_ids == ["007", "z", "new"] and len(catalog.image_features) == 3
    with pytest.raises(ValueError, match="'z'"):
        catalog.add_items([{"item_id": "z", "title": "twice"}])


def test_a_saved_catalogue_loads_equal(shop: Path, encoder: ItemEncoder, tmp_path: Path) -> None:
    catalog = ItemCatalog.from_items(shop / "items.jsonl").encode(encoder)
    catalog.save_pretrained(tmp_path / "saved")
    loaded = ItemCatalog.from_pretrained(tmp_path / "saved")
    assert loaded.item_ids == catalog.item_ids and loaded.titles == catalog.titles
    assert loaded.feature_info == catalog.feature_info
    for name in ("text_features", "image_features", "text_mask", "image_mask"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(catalog, name))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"item_ids": ["a", "a"]}, "'a' stands more than once"),
        ({"item_ids": [1, "1"]}, "'1' stands more than once"),
        ({"item_ids": ["a", "b"], "text_features": [[1.0], [float("nan")]]}, "'b'"),
        ({"item_ids": ["a", "b"], "image_features": [[1.0]]}, "1.*2|2.*1"),
        ({"item_ids": ["a"], "records": []}, "1 item ids and 0 records"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ItemCatalog(**arguments)


def test_a_text_has_the_same_vector_alone_and_beside_a_long_one(
    text_model: Path, sentence_model: Path, clip_model: Path
) -> None:
    for encoder in (
        ItemEncoder(text_encoder=text_model),
        ItemEncoder(text_encoder=sentence_model),
        ItemEncoder(clip_model),
    ):
        alone, _ = encoder.encode_texts(["a"])
        beside, _ = encoder.encode_texts(["a", "a " + "b c d " * 100, "zz"])
        np.testing.assert_allclose(alone[0], beside[0], atol=1e-5)
        assert np.abs(beside[0] - beside[2]).max() > 1e-3


def test_sentence_vectors_are_the_normalised_mean_over_the_texts_own_tokens(sentence_model: Path) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(sentence_model), AutoModel.from_pretrained(sentence_model).eval()
    inputs = tokenizer("abc", return_tensors="pt")
    with torch.no_grad():
        mean = model(**inputs).last_hidden_state[0].mean(0)
    expected = (mean / mean.norm()).numpy()
    np.testing.assert_allclose(
        ItemEncoder(text_encoder=sentence_model).encode_texts(["abc"])[0][0], expected, atol=1e-5
    )


def test_encoding_switches_dropout_off_and_back() -> None:
    import torch

    class Noisy(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dropout = torch.nn.Dropout(0.5)

        def forward(self, texts: list[str]) -> torch.Tensor:
            return self.dropout(torch.ones(len(texts), 50))

    module = Noisy().train()
    features, _ = ItemEncoder(text_encoder=module).encode_texts(["a", "b"])
    assert (features == 1).all() and module.training and module.dropout.training


TITLES = {
    "number": (300, "300"),
    "zero": (0, "0"),
    "fraction": (1.5, "1.5"),
    "list": (["Alien", "the first"], "Alien, the first"),
    "array": (np.array(["Alien", None], dtype=object), "Alien"),
    "date": (datetime.date(1999, 1, 2), "1999-01-02"),
    "text": (" to \u00a0 the  letter", " to \u00a0 the  letter"),
    "none": (None, None),
    "gap": (float("nan"), None),
    "empty list": ([], None),
}


def test_titles_are_texts_whatever_the_file_holds(tmp_path: Path) -> None:
    catalog = ItemCatalog(TITLES, [{"title": title} for title, _ in TITLES.values()])
    assert catalog.titles == [text for _, text in TITLES.values()]
    catalog.save_pretrained(tmp_path)
    assert ItemCatalog.from_pretrained(tmp_path).titles == catalog.titles


def test_items_whose_titles_are_no_texts_are_recommended_into_every_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "items.jsonl").write_text(
        '{"item_id": "a", "title": 300}\n{"item_id": "b", "title": ["x", "y"]}\n{"item_id": "c"}\n'
    )
    encoder = ItemEncoder(text_encoder=letters, image_encoder="none", device="cpu")
    catalog = ItemCatalog.from_items(tmp_path).encode(encoder)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "head_dim": 4, "n_groups": 4, "state_size": 4}
    config = MMM4RecConfig(**sizes, text_feature_size=catalog.text_features.shape[1], image_feature_size=1)
    recommender: Any = SequentialRecommendationPipeline(
        MMM4RecForSequentialRecommendation(config), processor=MMM4RecProcessor(), device="cpu"
    )
    recommender.set_items(catalog)
    log = pl.DataFrame({"user_id": ["u"], "item_id": ["c"], "timestamp": [1_600_000_000]})
    rows = recommend_frame(recommender, log, top_k=3, exclude_history=False).to_dicts()
    assert {row["item_id"]: row["title"] for row in rows} == {"a": "300", "b": "x, y", "c": None}
    recommender.save_pretrained(tmp_path / "model")
    users = tmp_path / "users.jsonl"
    users.write_text('{"user_id": "u", "items": ["c"], "timestamps": [1600000000]}\n')
    command = ["recommend", str(tmp_path / "model"), "--device", "cpu"]
    assert main([*command, "--input", str(users), "--output", str(tmp_path / "lists.parquet")]) == 0
    assert set(pl.read_parquet(tmp_path / "lists.parquet")["title"]) == {"300", "x, y"}
    capsys.readouterr()
    assert main([*command, "--history", "c"]) == 0
    table = capsys.readouterr().out
    assert re.search(r"a +300$", table, re.MULTILINE) and re.search(r"b +x, y$", table, re.MULTILINE)


def test_the_shared_folders_load_by_one_call_each(real_data: Path) -> None:
    counts = {"movies_a": (1682, 1663), "movies_b": (1702, 1702), "beauty": (842, 0), "fashion_items": (600, 600)}
    for name, (items, pictures) in counts.items():
        catalog = ItemCatalog.from_items(real_data / name)
        assert len(catalog) == items
        assert sum("image" in record for record in catalog.records) == pictures
    assert "0153115021" in ItemCatalog.from_items(real_data / "fashion_items").item_ids
