"""Output folders belong to one recipe, and what no run wrote is left alone."""

import errno
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from accelerate import Accelerator

from mmm4rec_hf.training.finetuning import FinetuneRecipe, finetune
from mmm4rec_hf.training.folders import claim_output
from mmm4rec_hf.training.pretraining import PretrainRecipe, pretrain
from mmm4rec_hf.training.recipes import build


@dataclass
class Recipe:
    output_dir: str
    rate: float = 0.5


@pytest.mark.parametrize(
    "name",
    [
        *("model/mine.py", "evaluation/results.csv", "log.jsonl", "training.json", "checkpoints"),
        *("checkpoints/checkpoint-3/.env", "checkpoints/checkpoint-3", "checkpoints/checkpoint-best/mine.bin"),
        "checkpoints/.checkpoint-000000003.partial/mine.bin",
    ],
)
def test_what_no_run_wrote_is_not_taken_for_a_run(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("of the user")
    with pytest.raises(ValueError, match=f"holds {name.partition('/')[0]}, but no recipe.json.*another output_dir"):
        claim_output(tmp_path, Recipe(str(tmp_path)))
    assert path.read_text() == "of the user" and not (tmp_path / "recipe.json").exists()


def test_a_folder_with_other_things_and_empty_folders_is_taken(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("of the user")
    (tmp_path / "checkpoints").mkdir()
    claim_output(tmp_path, Recipe(str(tmp_path), 0.25))
    assert json.loads((tmp_path / "recipe.json").read_text())["rate"] == 0.25
    # It is a run's now, whatever that has written.
    (tmp_path / "log.jsonl").write_text("")
    claim_output(tmp_path, Recipe(str(tmp_path), 0.25))


@pytest.mark.parametrize("kind", ["fine-tuning", "pretraining"])
def test_what_is_no_checkpoint_stays_beside_those_of_a_run(
    make_recipe: Callable[..., dict[str, Any]], tmp_path: Path, kind: str
) -> None:
    checkpoints = tmp_path / "out" / "checkpoints"
    names = ("runs/now/events.out.tfevents.1", ".env", "epoch-3.pt", "my-checkpoint-1/model.bin", "checkpoint.bin")
    for name in names:
        (checkpoints / name).parent.mkdir(parents=True, exist_ok=True)
        (checkpoints / name).write_text(f"{name} of the user")
    # Checkpoints are written twice, and the first one is removed.
    if kind == "pretraining":
        pretrain(build(PretrainRecipe, make_recipe(max_steps=4, save_steps=2, save_total_limit=1), "test"))
    else:
        recipe = make_recipe()
        shop = {name: recipe["domains"][0][name] for name in ("sequences", "catalog")}
        training = {"max_steps": 4, "save_steps": 2, "save_strategy": "steps", "eval_strategy": "no"}
        training |= {"load_best_model_at_end": False}
        values = shop | {"output_dir": recipe["output_dir"], "model": recipe["model"], "training": training}
        finetune(build(FinetuneRecipe, values, "test"))
    assert [int(path.name.split("-")[1]) for path in checkpoints.glob("checkpoint-*")] == [4]
    assert {name: (checkpoints / name).read_text() for name in names} == {n: f"{n} of the user" for n in names}


def test_a_pretraining_whose_recipe_cannot_be_written_leaves_its_folder_free(
    make_recipe: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe(max_steps=1, save_steps=None, report_to=["tensorboard"])

    def begin(self: Accelerator, name: str) -> None:
        # Where Accelerate's TensorBoard writes.
        (Path(str(self.logging_dir)) / name).mkdir(parents=True)
        (Path(str(self.logging_dir)) / name / "events.out.tfevents.1").write_bytes(b"events")

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("mmm4rec_hf.training.pretraining.Accelerator.init_trackers", begin)
    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space left"):
        patched.setattr("mmm4rec_hf.training.folders.write_json", full)
        pretrain(build(PretrainRecipe, recipe, "test"))
    assert list((tmp_path / "out").rglob("events.out.tfevents.1")) and not (tmp_path / "out" / "recipe.json").exists()
    pretrain(build(PretrainRecipe, recipe | {"report_to": []}, "test"))


def test_a_moved_run_goes_on_by_its_recipe(tmp_path: Path) -> None:
    claim_output(tmp_path / "one", Recipe(str(tmp_path / "one")))
    written = (tmp_path / "one" / "recipe.json").read_text()
    (tmp_path / "one").rename(tmp_path / "two")
    for name in (str(tmp_path / "two"), f"{tmp_path}/two/"):
        claim_output(Path(name), Recipe(name))
        with pytest.raises(ValueError, match=r"another recipe \(rate 0.5 before, 0.75 now\)"):
            claim_output(Path(name), Recipe(name, 0.75))
    assert (tmp_path / "two" / "recipe.json").read_text() == written


def test_a_recipe_that_is_no_recipe_is_named(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text("[]")
    with pytest.raises(ValueError, match=r"recipe.json is damaged: it must hold a JSON object"):
        claim_output(tmp_path, Recipe(str(tmp_path)))


def test_a_pretraining_that_was_moved_is_read_by_its_command(
    make_recipe: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    recipe = make_recipe("one", max_steps=2, eval_steps=2)
    metrics = pretrain(build(PretrainRecipe, recipe, "test"))
    (tmp_path / "one").rename(tmp_path / "two")
    assert pretrain(build(PretrainRecipe, recipe | {"output_dir": f"{tmp_path}/two/"}, "test")) == metrics
    assert not (tmp_path / "one").exists()


def test_both_trainings_leave_the_folder_of_a_user_as_it_is(
    make_recipe: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    mine = tmp_path / "project" / "model" / "mine.py"
    mine.parent.mkdir(parents=True)
    mine.write_text("x")
    recipe = make_recipe("project", max_steps=1)
    shop = {name: recipe["domains"][0][name] for name in ("sequences", "catalog")}
    with pytest.raises(ValueError, match="project holds model, but no recipe.json"):
        pretrain(build(PretrainRecipe, recipe, "test"))
    with pytest.raises(ValueError, match="project holds model, but no recipe.json"):
        finetune(build(FinetuneRecipe, shop | {"output_dir": recipe["output_dir"], "model": recipe["model"]}, "test"))
    assert [path.name for path in mine.parent.iterdir()] == ["mine.py"]
