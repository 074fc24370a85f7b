"""Whatever items, features and saved catalogues hold, they are read, or refused with one clear line."""

import bz2
import gzip
import json
import lzma
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmm4rec_hf.items import ItemCatalog, ItemEncoder

pytestmark = pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore:.*invalid escape", "ignore::RuntimeWarning")
relaxed = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])

SUFFIXES = [".csv", ".tsv", ".txt", ".jsonl", ".json", ".parquet", ".item", ".csv.gz", ".json.bz2", ".jsonl.xz"]
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress,
}  # fmt: skip
FORMATS = ["auto", "amazon-2018", "amazon-2023", "movielens", "recbole"]


def read(source: Any, **arguments: Any) -> ItemCatalog | None:
    """The catalogue, or None if it was refused in the way it should."""
    try:
        catalog = ItemCatalog.from_items(source, **arguments)
    except (ValueError, TypeError, FileNotFoundError) as error:
        assert str(error)
        return None
    assert len(catalog) == len(set(catalog.item_ids)) > 0 and "" not in catalog.item_ids
    for features in (catalog.text_features, catalog.image_features):
        assert features is None or (len(features) == len(catalog) and np.isfinite(features).all())
    return catalog


def lengths(texts: list[str]) -> np.ndarray:
    return np.array([[len(text)] for text in texts], dtype=float)


def brightness(pictures: list[Any]) -> np.ndarray:
    return np.array([[np.asarray(picture).mean()] for picture in pictures])


ENCODER = ItemEncoder(text_encoder=lengths, image_encoder=brightness, num_workers=1)


def encode_and_save(catalog: ItemCatalog | None) -> None:
    """What can be read can be encoded, saved and loaded with the same ids."""
    if catalog is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        encoded = catalog.encode(ENCODER, Path(folder) / "shards")
        encoded.save_pretrained(Path(folder) / "saved", save_images=True)
        assert ItemCatalog.from_pretrained(Path(folder) / "saved").item_ids == catalog.item_ids


@relaxed
@given(st.sampled_from(SUFFIXES), st.sampled_from(FORMATS), st.binary(max_size=200), st.booleans())
def test_files_of_any_bytes(suffix: str, format: str, content: bytes, compress: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"items{suffix}"
        path.write_bytes(COMPRESS.get(path.suffix, bytes)(content) if compress else content)
        read(path, format=format)
        read(folder, format=format)


pieces = st.sampled_from(
    [",", "\t", "\n", '"', "::", "|", ";", "1", "0", "a", "é", "\x00", "\r", "item_id", "{", "[]"]
)


@relaxed
@given(
    st.sampled_from(["items.csv", "items.tsv", "a.item", "u.item", "movies.dat", "movies.csv"]),
    st.sampled_from(["item_id,title", "item_id:token\ttitle:token_seq", "movieId,title,genres", "1::a::b", ""]),
    st.lists(pieces, max_size=40),
)
def test_text_files_that_are_almost_right(name: str, header: str, body: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).write_bytes(f"{header}\n{''.join(body)}".encode())
        read(Path(folder) / name)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates().map(str),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
FIELDS = (
    *("item_id", "asin", "parent_asin", "title", "brand", "description", "image", "images", "imageURL"),
    *("imageURLHighRes", "categories", "text_features", "image_features"),
)
records = st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, values))
with_ids = st.fixed_dictionaries({"item_id": st.text(min_size=1, max_size=3) | st.integers()}, optional=dict.fromkeys(
    ("title", "brand", "image"), values
))  # fmt: skip


@relaxed
@given(st.lists(records | with_ids | values, max_size=5), st.sampled_from(FORMATS))
def test_records_of_any_values(rows: list[Any], format: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "items.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)))
        read(path, format=format)
    read(rows, format=format)


@settings(relaxed, max_examples=40)
@given(st.lists(with_ids, min_size=1, max_size=4))
def test_what_can_be_read_can_be_encoded_and_saved(rows: list[Any]) -> None:
    encode_and_save(read(rows))


cells = st.lists(values | st.binary(max_size=3), min_size=2, max_size=2)
columns = st.one_of(
    cells,
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=2, max_size=2),
    st.lists(st.text(max_size=3), min_size=2, max_size=2),
    st.lists(st.floats(), min_size=2, max_size=2),
    st.lists(st.datetimes(), min_size=2, max_size=2),
)


@settings(relaxed, max_examples=60)
@given(columns, columns, columns)
def test_frames_of_any_values(ids: Any, titles: Any, images: Any) -> None:
    frame = pd.DataFrame({"item_id": pd.Series(ids, dtype=object), "title": titles, "image": images})
    encode_and_save(read(frame))
    encode_and_save(read(frame.convert_dtypes()))
    try:
        typed = pl.DataFrame({"item_id": ids, "title": titles, "image": images})
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):
        return
    encode_and_save(read(typed))


matrices = st.one_of(
    values,
    st.lists(values, max_size=3),
    st.lists(st.lists(st.floats(width=32) | st.integers(), max_size=3), max_size=3),
    st.sampled_from(
        [
            np.zeros((2, 3, 1)),
            np.zeros((2, 0)),
            np.zeros(2),
            np.array([["a"], ["b"]]),
            np.array([[None], [1.0]], dtype=object),
            np.full((2, 2), 1e300),
            np.ones((2, 2), dtype=complex),
            np.ones((2, 2), dtype=bool),
            np.array([["2020-01-01"]] * 2, dtype="datetime64[D]"),
        ]
    ),
)


@relaxed
@given(matrices, matrices, st.none() | values | st.just(np.array([True, False])))
def test_features_and_masks_of_any_shape_and_type(text: Any, image: Any, mask: Any) -> None:
    try:
        catalog = ItemCatalog(["a", "b"], text_features=text, image_features=image, text_mask=mask)
    except (ValueError, TypeError) as error:
        assert "features" in str(error) or "mask" in str(error)
        return
    for features in (catalog.text_features, catalog.image_features):
        assert features is None or (features.dtype == np.float32 and len(features) == 2 and features.shape[1] > 0)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("catalog")
    features = {"text_features": np.eye(3), "image_features": np.eye(3), "image_mask": np.array([True, False, True])}
    catalog = ItemCatalog(["a", "0", "é"], [{"title": "x"}, {}, {"image": "p.png"}], **features)  # type: ignore[arg-type]
    catalog.save_pretrained(folder)
    return folder


@settings(relaxed, max_examples=150)
@given(
    st.sampled_from(["items.jsonl", "features.safetensors", "catalog.json"]),
    st.floats(0, 1),
    st.binary(max_size=8) | st.sampled_from([b"null", b"[]", b'"a"', b"1e999", b"\n", b"\xff", b"{}"]),
    st.sampled_from(["replace", "insert", "cut", "whole"]),
)
def test_a_damaged_catalogue_is_loaded_or_refused(
    saved: Path, name: str, place: float, noise: bytes, damage: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(saved, folder, dirs_exist_ok=True)
        path = Path(folder) / name
        content = path.read_bytes()
        start = int(place * len(content))
        path.write_bytes(
            {
                "replace": content[:start] + noise + content[start + len(noise) :],
                "insert": content[:start] + noise + content[start:],
                "cut": content[:start],
                "whole": noise,
            }[damage]
        )
        try:
            catalog = ItemCatalog.from_pretrained(folder)
        except ValueError as error:
            assert folder in str(error)
            return
        assert len(catalog) == 3
        for features in (catalog.text_features, catalog.image_features):
            assert features is None or len(features) == 3
