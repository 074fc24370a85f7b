"""A folder that a recommender is saved to is replaced where it is one's own, and no other model's."""

import json
from pathlib import Path

import numpy as np
import pytest

from mmm4rec_hf.items import ItemCatalog
from mmm4rec_hf.modeling import MMM4RecConfig, MMM4RecForSequentialRecommendation, MMM4RecProcessor
from mmm4rec_hf.training.saving import save_recommender

# As the Hub has it of a model that reads texts and images.
OTHER_MODEL = (
    "model.safetensors", "pytorch_model.bin", "tokenizer.json", "preprocessor_config.json", "README.md",
    ".gitattributes",
)  # fmt: skip


def save(folder: Path) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "head_dim": 4, "state_size": 4}
    model = MMM4RecForSequentialRecommendation(MMM4RecConfig(**sizes, text_feature_size=4, image_feature_size=3))
    features = {"text_features": np.eye(3, 4), "image_features": np.eye(3, 3)}
    catalog = ItemCatalog(["a", "b", "c"], [{"title": name} for name in "abc"], **features)
    model.set_items(catalog)
    save_recommender(model, MMM4RecProcessor(), catalog, folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ('{"model_type": "siglip"}', "there holds a model of type 'siglip', not 'mmm4rec', which would be lost; "),
        ('{"_class_name": "UNet"}', "there holds a model of type None, not 'mmm4rec', which would be lost; "),
        ('{"model_type": ["mmm4rec"]}', r"there holds a model of type \['mmm4rec'\], not 'mmm4rec', which would be"),
        ("[]", r"config\.json holds no JSON object: the model there may be another's, and would be lost; "),
        ('{"model_type": "mmm4r', r"config\.json holds no JSON object: the model there may be another's, and would"),
        (
            None,
            r"there holds something else .* lost: README\.md, model\.safetensors, preprocessor_config\.json, token",
        ),
    ],
)
def test_another_model_is_not_replaced(tmp_path: Path, config: str | None, message: str) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    for name in OTHER_MODEL:
        (folder / name).write_text("theirs")
    if config is not None:
        (folder / "config.json").write_text(config)
    before = contents(folder)
    with pytest.raises(ValueError, match=message) as told:
        save(folder)
    assert str(told.value).endswith("name another folder, or move this away")
    assert contents(folder) == before and [path.name for path in tmp_path.iterdir()] == ["there"]


def test_an_earlier_recommender_is_replaced_and_what_lies_beside_it_stays(tmp_path: Path) -> None:
    save(tmp_path / "model")
    written = contents(tmp_path / "model")
    assert json.loads(written["config.json"])["model_type"] == "mmm4rec"
    assert {"model.safetensors", "README.md", "processor_config.json", "catalog/catalog.json"} <= written.keys()
    for name in written.keys() - {"config.json"}:
        (tmp_path / "model" / name).write_bytes(b"earlier")
    mine = ("LICENSE", "catalog/notes.txt", "model_before.safetensors", "onnx/model.safetensors")
    for name in mine:
        (tmp_path / "model" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "model" / name).write_bytes(b"mine")
    save(tmp_path / "model")
    found = contents(tmp_path / "model")
    assert found.keys() == {*written, *mine}
    assert {name for name in found if found[name] == b"mine"} == set(mine) and b"earlier" not in found.values()
