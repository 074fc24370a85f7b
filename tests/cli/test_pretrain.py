"""`mmm4rec pretrain`, from a recipe to a base model that `mmm4rec finetune` starts from."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from transformers import AutoModel

from mmm4rec_hf.cli import main
from mmm4rec_hf.data import load_interactions, prepare_sequences
from mmm4rec_hf.items import ItemCatalog


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A file that describes a few steps over one tiny domain."""
    rows = [(f"u{user}", f"i{(user + n) % 7}", 1_400_000_000 + n * 900) for user in range(12) for n in range(6)]
    log = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    prepare_sequences(load_interactions(log), k_core=1, output_dir=tmp_path / "sequences")
    rng = np.random.default_rng(0)
    features = {"text_features": rng.normal(size=(7, 4)), "image_features": rng.normal(size=(7, 3))}
    ItemCatalog([f"i{n}" for n in range(7)], **features).save_pretrained(tmp_path / "catalog")
    sizes = {"hidden_size": 16, "intermediate_size": 16, "head_dim": 4, "state_size": 4, "max_sequence_length": 5}
    content = {
        "domains": [
            {"name": "shop", "catalog": str(tmp_path / "catalog"), "sequences": str(tmp_path / "sequences")},
        ],
        "output_dir": str(tmp_path / "out"),
        "model": sizes | {"num_hidden_layers": 2},
        "max_steps": 3,
        "batch_size": 6,
    }  # fmt: skip
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_recipe_becomes_a_base_model_that_finetune_starts_from(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pretrain", str(recipe), "max_steps=4", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert 0 <= printed["metrics"]["shop/ndcg@10"] <= 1 and printed["metrics"]["shop/loss"] > 0
    assert AutoModel.from_pretrained(printed["model"]).config.num_hidden_layers == 2
    changes = [f"sequences={tmp_path}/sequences", f"catalog={tmp_path}/catalog", f"output_dir={tmp_path}/tuned"]
    changes += [f"start_from={printed['model']}", "model.num_hidden_layers=1", "training.num_train_epochs=1"]
    assert main(["finetune", *changes, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["protocol"]["num_items"] == 7


def test_a_person_reads_a_table_and_what_it_means(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", str(recipe)]) == 0
    printed = capsys.readouterr().out
    assert "ties by" in printed and "ndcg@10" in printed and "start_from=" in printed
    row = next(line.split() for line in printed.splitlines() if line.startswith("shop"))
    assert len(row) == 6 and all(float(value) >= 0 for value in row[1:])


@pytest.mark.parametrize(
    ("arguments", "message", "status"),
    [
        (["nowhere.yaml"], "nowhere.yaml does not exist, or is no file", 1),
        (["max_stesp=3"], "no option is named 'max_stesp'; did you mean 'max_steps'?", 2),
        (["max_steps=3"], "domains, output_dir must be given", 2),
    ],
)
def test_a_failure_is_one_line_with_its_remedy(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str, status: int
) -> None:
    assert main(["pretrain", *arguments]) == status
    out, err = capsys.readouterr()
    assert out == "" and message in err and err.count("\n") == 1
