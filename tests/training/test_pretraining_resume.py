"""A pretraining that was stopped and went on is one that was not: the same bits in everything that it leaves."""

import json
import logging
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mmm4rec_hf.training import pretraining
from mmm4rec_hf.training.pretraining import Pretraining, PretrainRecipe, pretrain
from mmm4rec_hf.training.recipes import build

from .conftest import Killed

MakeRecipe = Callable[..., dict[str, Any]]
Runs = Callable[[list[dict[str, Any]]], tuple[list[list[int]], list[dict[str, Any]]]]


def run(recipe: dict[str, Any]) -> dict[str, float]:
    return pretrain(build(PretrainRecipe, recipe, "test"))


def run_until(recipe: dict[str, Any], step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stops before the given step is taken, counted from 0."""
    original = Pretraining._step

    def stopping(self: Pretraining, batches: Any) -> float:
        if self.progress.step == step:
            raise Killed
        return original(self, batches)

    with monkeypatch.context() as patched:
        patched.setattr(Pretraining, "_step", stopping)
        with pytest.raises(Killed):
            run(recipe)


def assert_same_runs(one: str | Path, other: str | Path) -> None:
    """Weights, optimizer, schedule, random numbers, data position, best metric and log."""
    one, other = Path(one), Path(other)
    assert (one / "log.jsonl").read_text() == (other / "log.jsonl").read_text()
    weights, others = (load_file(folder / "model" / "model.safetensors") for folder in (one, other))
    assert weights.keys() == others.keys() and all(torch.equal(weights[name], others[name]) for name in weights)
    for checkpoint in sorted((one / "checkpoints").iterdir()):
        twin = other / "checkpoints" / checkpoint.name
        files = sorted(path.relative_to(checkpoint) for path in checkpoint.rglob("*") if path.is_file())
        assert {"model.safetensors", "optimizer.bin", "progress.json", "position-00000.json"} <= {
            str(name) for name in files
        }
        for name in files:
            if name.suffix in (".bin", ".pkl"):
                assert_same(*(torch.load(path / name, weights_only=False) for path in (checkpoint, twin)))
            elif name.name != "manifest.json":
                assert (checkpoint / name).read_bytes() == (twin / name).read_bytes(), name


def assert_same(one: Any, other: Any) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            assert_same(one[name], other[name])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            assert_same(*pair)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert str(one) == str(other)


@pytest.mark.parametrize("negatives", ["domain", "all"])
def test_a_run_that_was_stopped_twice_ends_with_the_bits_of_one_that_was_not(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch, negatives: str
) -> None:
    options = {"negatives": negatives, "gradient_accumulation_steps": 2, "warmup_steps": 4, "max_steps": 10}
    whole, stopped = (make_recipe(name, **options) for name in ("whole", "stopped"))
    expected = run(whole)
    run_until(stopped, 5, monkeypatch)
    run_until(stopped, 7, monkeypatch)
    assert run(stopped) == expected
    assert_same_runs(whole["output_dir"], stopped["output_dir"])


@pytest.mark.slow
def test_any_step_is_as_good_as_another_to_stop_at(make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"early_stopping_patience": 2, "eval_steps": 2, "save_steps": 1, "save_total_limit": 9}
    whole = make_recipe("whole", optimizer="nadam", **options)
    run(whole)
    steps = json.loads((Path(whole["output_dir"]) / "log.jsonl").read_text().splitlines()[-1])["step"]
    assert steps == 8
    for step in range(steps):
        stopped = make_recipe(f"stopped-{step}", optimizer="nadam", **options)
        run_until(stopped, step, monkeypatch)
        run(stopped)
        assert_same_runs(whole["output_dir"], stopped["output_dir"])


@pytest.mark.slow
def test_a_run_killed_at_a_step_and_in_the_middle_of_a_checkpoint_ends_with_the_same_bits(
    make_recipe: MakeRecipe, run_all: Runs, tmp_path: Path
) -> None:
    whole, stopped = make_recipe("whole"), make_recipe("stopped")
    run(whole)
    # The checkpoint of step 2 is written, that of step 4 is cut off; then the run ends at step 5.
    for name, number in (("_manifest", 2), ("_step", 4)):
        codes, _ = run_all([{"pretrain": stopped, "kill_at": (name, number)}])
        assert codes == [[-signal.SIGKILL]]
        if name == "_manifest":
            names = sorted(path.name for path in (tmp_path / "stopped" / "checkpoints").iterdir())
            assert names == [".checkpoint-000000004.partial", "checkpoint-000000002"]
    run(stopped)
    assert_same_runs(whole["output_dir"], stopped["output_dir"])


@pytest.mark.parametrize("save_steps", [2, None], ids=["checkpoints", "none"])
def test_a_run_that_had_ended_is_not_run_again(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, save_steps: int | None
) -> None:
    recipe = make_recipe(save_steps=save_steps)
    expected = run(recipe)
    folder = Path(recipe["output_dir"])
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    caplog.set_level(logging.INFO, "mmm4rec_hf")
    with monkeypatch.context() as patched:
        patched.setattr(Pretraining, "_step", lambda self, batches: pytest.fail("a step was taken"))
        assert run(recipe) == expected and len(expected) > 4
    assert "has ended: nothing is trained" in caplog.text
    assert files == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    # Without its model there is nothing to read.
    weights = (folder / "model" / "model.safetensors").read_bytes()
    shutil.rmtree(folder / "model")
    assert run(recipe) == expected
    assert (folder / "model" / "model.safetensors").read_bytes() == weights


_VALIDATE = pretraining.validate


def score_by(monkeypatch: pytest.MonkeyPatch, *scores: float) -> None:
    """Gives the validations to come these NDCG@10, one after the other."""
    left = iter(scores)

    def scored(*args: Any) -> dict[str, float]:
        score = next(left)
        return {name: score if "ndcg@10" in name else value for name, value in _VALIDATE(*args).items()}

    monkeypatch.setattr(pretraining, "validate", scored)


def test_a_best_model_that_a_run_gone_on_with_does_not_find_again_is_not_kept(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on a GPU, where steps are not the same again: validations of steps 3 and 6, stopped, then others of 6 and 9.
    score_by(monkeypatch, 0.2, 0.9, 0.1, 0.15)
    recipe = make_recipe(max_steps=9, eval_steps=3, save_steps=5)
    folder = Path(recipe["output_dir"])
    run_until(recipe, 4, monkeypatch)
    third = (folder / "model" / "model.safetensors").read_bytes()
    shutil.rmtree(folder)
    score_by(monkeypatch, 0.2, 0.9, 0.1, 0.15)
    run_until(recipe, 7, monkeypatch)
    assert (folder / "model" / "model.safetensors").read_bytes() != third
    metrics = run(recipe)
    assert metrics["a/ndcg@10"] == 0.2 and json.loads((folder / "training.json").read_text())["kept"] == 3
    assert (folder / "model" / "model.safetensors").read_bytes() == third
    card = (folder / "model" / "README.md").read_text()
    assert "step 3" in card and "step 6" not in card


def test_what_a_user_puts_beside_the_model_stays_when_a_better_one_or_an_earlier_takes_its_place(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    score_by(monkeypatch, 0.2, 0.9, 0.1, 0.3)
    recipe = make_recipe(max_steps=9, eval_steps=3, save_steps=5)
    model = Path(recipe["output_dir"]) / "model"
    run_until(recipe, 4, monkeypatch)
    (model / "LICENSE").write_text("draft")
    (model / "notes").mkdir()
    (model / "notes" / "paper.txt").write_text("mine")
    score_by(monkeypatch, 0.2, 0.9, 0.1, 0.3)
    run_until(recipe, 7, monkeypatch)  # from the start, as nothing was saved: better ones at steps 3 and 6
    weights = (model / "model.safetensors").read_bytes()
    assert (model / "LICENSE").read_text() == "draft"
    best = Path(recipe["output_dir"]) / "checkpoints" / "checkpoint-000000005" / "best"
    assert {"config.json", "model.safetensors"} <= {path.name for path in best.iterdir()}
    assert not {"LICENSE", "notes"} & {path.name for path in best.iterdir()}
    # Changed since the checkpoint, whose model comes back.
    (model / "LICENSE").write_text("mine")
    run_until(recipe, 5, monkeypatch)
    assert (model / "model.safetensors").read_bytes() != weights
    assert [(model / name).read_text() for name in ("LICENSE", "notes/paper.txt")] == ["mine"] * 2
    assert run(recipe)["a/ndcg@10"] == 0.3
    assert [(model / name).read_text() for name in ("LICENSE", "notes/paper.txt")] == ["mine"] * 2
    assert sorted(path.name for path in model.parent.iterdir() if path.name.startswith(".")) == []
    # A model's names in a folder that is none are another's: told before the first step.
    record = json.loads((model.parent / "training.json").read_text())
    del record["sessions"][-1]["ended"]
    (model.parent / "training.json").write_text(json.dumps(record))
    (model / "config.json").unlink()
    with pytest.raises(ValueError, match=r"model holds something else .*lost: README.md, .*; name"):
        run(recipe)


def test_a_catalogue_and_a_processor_that_a_user_saves_beside_a_base_model_stay(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    score_by(monkeypatch, 0.2, 0.9, 0.1, 0.3)
    recipe = make_recipe(max_steps=9, eval_steps=3, save_steps=5)
    model = Path(recipe["output_dir"]) / "model"
    # Before the first model is written there, and again after the checkpoint that the run goes on from.
    mine = [
        *("catalog/catalog.json", "catalog/items.jsonl", "catalog/features.safetensors", "catalog/.images.json"),
        *("catalog/images/a.png", "processor_config.json", "preprocessor_config.json", "items.jsonl"),
        *("tokenizer.json", "item_ids.json", "log_layout.json", "model_before.safetensors"),
    ]

    def put(content: str) -> None:
        for name in mine:
            (model / name).parent.mkdir(parents=True, exist_ok=True)
            (model / name).write_text(content)

    run_until(recipe, 0, monkeypatch)
    put("draft")
    run_until(recipe, 7, monkeypatch)  # better ones at steps 3 and 6
    assert {(model / name).read_text() for name in mine} == {"draft"}
    best = Path(recipe["output_dir"]) / "checkpoints" / "checkpoint-000000005" / "best"
    assert (best / "model.safetensors").is_file() and not [name for name in mine if (best / name).exists()]
    put("mine")
    # As an earlier version left it in its checkpoints.
    (best / "tokenizer.json").write_text("draft")
    sixth = (model / "model.safetensors").read_bytes()
    run_until(recipe, 5, monkeypatch)
    assert (model / "model.safetensors").read_bytes() != sixth
    assert {(model / name).read_text() for name in mine} == {"mine"}
    # Another model in place of the run's: told before the first step.
    (model / "config.json").write_text('{"model_type": "siglip"}')
    before = (model / "model.safetensors").read_bytes()
    monkeypatch.setattr(Pretraining, "_step", lambda *_: pytest.fail("it was trained"))
    with pytest.raises(
        ValueError, match=r"model holds a model of type 'siglip', not 'mmm4rec', which would be lost; "
    ):
        run(recipe)
    assert (model / "model.safetensors").read_bytes() == before


def test_a_damaged_checkpoint_is_left_out_and_the_bits_are_the_same(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole, stopped = make_recipe("whole"), make_recipe("stopped")
    run(whole)
    run_until(stopped, 5, monkeypatch)
    newest = Path(stopped["output_dir"]) / "checkpoints" / "checkpoint-000000004"
    weights = newest / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    run(stopped)
    assert f"{newest} is damaged (model.safetensors is not as it was written)" in caplog.text
    assert_same_runs(whole["output_dir"], stopped["output_dir"])


@pytest.fixture
def stopped_run(make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], Path]:
    """A recipe whose run was stopped, and the position in its newest checkpoint, which is not checked any more."""
    recipe = make_recipe()
    run_until(recipe, 5, monkeypatch)
    found = pretraining.last_whole_checkpoint(Path(recipe["output_dir"]) / "checkpoints")
    assert found is not None
    monkeypatch.setattr(pretraining, "last_whole_checkpoint", lambda folder: found)
    return recipe, found / "position-00000.json"


def test_more_processes_than_before_are_refused(stopped_run: tuple[dict[str, Any], Path]) -> None:
    recipe, position = stopped_run
    position.unlink()
    with pytest.raises(ValueError, match="has what 0 processes wrote, these are 1; start as many as before"):
        run(recipe)


def test_fewer_processes_than_before_are_refused(stopped_run: tuple[dict[str, Any], Path]) -> None:
    recipe, position = stopped_run
    position.with_name("position-00001.json").write_text(position.read_text())
    with pytest.raises(ValueError, match="has what 2 processes wrote, these are 1; start as many as before"):
        run(recipe)
