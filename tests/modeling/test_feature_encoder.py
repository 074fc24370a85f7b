"""A model remembers what made the features it reads, and takes no others."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mmm4rec_hf import MMM4RecConfig, MMM4RecForSequentialRecommendation

Model = Callable[..., MMM4RecForSequentialRecommendation]
Catalog = Callable[..., SimpleNamespace]
MINILM = {"encoder": "minilm", "revision": "sha256:01", "pooling": "mean"}
VIT = {"encoder": "org/vit", "revision": "c0ffee", "pooling": "pooler"}


@pytest.fixture
def told(tiny_catalog: Catalog) -> Callable[..., SimpleNamespace]:
    """A catalogue that tells its encoders."""

    def make(text: dict[str, Any] | None = MINILM, image: dict[str, Any] | None = VIT) -> SimpleNamespace:
        catalog = tiny_catalog(["a", "b"])
        info = {"text": text, "image": image}
        # What does not tell encoders apart is not for the model.
        catalog.feature_info = {name: {**value, "missing": "white"} for name, value in info.items() if value}
        return catalog

    return make


def test_the_first_catalogue_that_tells_is_remembered_and_travels(
    lively_model: Model, told: Any, tiny_catalog: Catalog, tmp_path: Path
) -> None:
    model = lively_model()
    model.set_items(tiny_catalog(["a"]))
    assert model.config.feature_encoder is None
    model.set_items(told(image=None))
    assert model.config.feature_encoder == {"text": MINILM}
    model.set_items(told())
    assert model.config.feature_encoder == {"text": MINILM, "image": VIT}
    model.save_pretrained(tmp_path)
    assert MMM4RecConfig.from_pretrained(tmp_path).feature_encoder == {"text": MINILM, "image": VIT}
    other = told(text={**MINILM, "revision": "sha256:02"})
    with pytest.raises(ValueError, match="sha256:01.*sha256:02"):
        MMM4RecForSequentialRecommendation.from_pretrained(tmp_path, catalog=other)


def test_a_catalogue_may_tell_of_its_pictures_alone(lively_model: Model, told: Any) -> None:
    model = lively_model()
    model.set_items(told(text=None))
    assert model.config.feature_encoder == {"image": VIT}


@pytest.mark.parametrize(
    "change",
    [
        {"text": {**MINILM, "encoder": "mpnet", "revision": "sha256:02"}},
        {"text": {**MINILM, "encoder": "mpnet", "revision": "c0ffee"}},
        {"text": {**MINILM, "pooling": "cls"}},
        {"text": {**MINILM, "pooling": "pooler"}},
        {"image": {**VIT, "revision": "decaf"}},
        {"image": {**VIT, "encoder": "org/clip", "revision": None}},
        {"image": {**VIT, "encoder": "clip", "revision": "sha256:03"}},
    ],
    ids=str,
)
def test_another_encoder_is_refused_with_both_names_and_the_remedy(
    lively_model: Model, told: Any, change: dict[str, Any]
) -> None:
    model = lively_model()
    model.set_items(told())
    before = model.items.text_features.clone()
    ((name, given),) = change.items()
    known = {"text": MINILM, "image": VIT}[name]
    with pytest.raises(ValueError) as raised:
        model.set_items(told(**change))
    message = str(raised.value)
    assert f"{known['encoder']!r}" in message and f"{given['encoder']!r}" in message
    assert "encode the catalogue" in message and "\n" not in message
    assert model.items.text_features.equal(before)
    model.config.feature_encoder = None
    model.set_items(told(**change))


@pytest.mark.parametrize(
    "change",
    [
        # The same weights in a folder of another name; the same Hub model, where one side knows no commit.
        {"text": {**MINILM, "encoder": "all-minilm-copy"}},
        {"image": {**VIT, "revision": None}},
        # The same Hub model, where one side was read from a copy in a folder.
        {"image": {**VIT, "revision": "sha256:03"}},
        {"text": {**MINILM, "revision": "c0ffee"}},
        # A word of a file is another object than the same one in the code.
        {"text": json.loads(json.dumps(MINILM))},
    ],
    ids=str,
)
def test_the_same_encoder_under_another_name_is_taken(lively_model: Model, told: Any, change: dict[str, Any]) -> None:
    model = lively_model()
    model.set_items(told())
    model.set_items(told(**change))
    assert model.config.feature_encoder == {"text": MINILM, "image": VIT}
