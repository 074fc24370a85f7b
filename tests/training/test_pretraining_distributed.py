"""Two processes with half of each batch do what one process does with all of it."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from mmm4rec_hf.data import SequenceDatasets
from mmm4rec_hf.training.pretraining import PretrainRecipe, pretrain
from mmm4rec_hf.training.recipes import build
from mmm4rec_hf.training.shards import write_shards

pytestmark = pytest.mark.slow

MakeRecipe = Callable[..., dict[str, Any]]
Runs = Callable[[list[dict[str, Any]]], tuple[list[list[int]], list[dict[str, Any]]]]


def weights_of(recipe: dict[str, Any]) -> dict[str, torch.Tensor]:
    return load_file(Path(recipe["output_dir"]) / "model" / "model.safetensors")


def without_dropout(recipe: dict[str, Any]) -> dict[str, Any]:
    dropouts = dict.fromkeys(("hidden_dropout", "embedding_dropout", "time_dropout"), 0.0)
    return recipe | {"model": recipe["model"] | dropouts}


@pytest.mark.parametrize("negatives", ["domain", "all"])
def test_two_processes_with_half_the_batch_each_equal_one(
    make_recipe: MakeRecipe, run_all: Runs, negatives: str
) -> None:
    options: dict[str, Any] = {
        "negatives": negatives, "max_steps": 5, "eval_steps": None, "save_steps": None, "learning_rate": 1e-3,
        "gradient_accumulation_steps": 2, "max_grad_norm": 1.0,
    }  # fmt: skip
    one, two = (without_dropout(make_recipe(name, **options)) for name in ("one", "two"))
    pretrain(build(PretrainRecipe, one, "test"))
    codes, _ = run_all([{"pretrain": two, "processes": 2}])
    assert codes == [[0, 0]]
    logs = [(Path(recipe["output_dir"]) / "log.jsonl").read_text().splitlines() for recipe in (one, two)]
    for line, other in zip(*(map(yaml.safe_load, log) for log in logs), strict=True):
        assert line == pytest.approx(other, abs=1e-4)
    expected, found = weights_of(one), weights_of(two)
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, atol=1e-5, rtol=0, msg=name)


@pytest.mark.parametrize("shards", [None, 3], ids=["mapped", "shards"])
def test_two_killed_processes_go_on_as_if_they_had_not_been(
    make_recipe: MakeRecipe, run_all: Runs, tmp_path: Path, shards: int | None
) -> None:
    whole, stopped = make_recipe("whole"), make_recipe("stopped")
    if shards is not None:
        domain = whole["domains"][0]
        write_shards(SequenceDatasets.load_from_disk(domain["sequences"]), tmp_path / "shards", shards)
        domain["shards"] = str(tmp_path / "shards")
        assert stopped["domains"][0] is domain
    again = {"pretrain": stopped, "processes": 2}
    codes, _ = run_all([{"pretrain": whole, "processes": 2}, again | {"kill_at": ("_step", 6)}, again])
    assert codes == [[0, 0], [-signal.SIGKILL, -signal.SIGKILL], [0, 0]]
    assert (tmp_path / "whole" / "log.jsonl").read_text() == (tmp_path / "stopped" / "log.jsonl").read_text()
    expected, found = weights_of(whole), weights_of(stopped)
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


def test_a_run_of_two_processes_does_not_go_on_in_one_or_three(
    make_recipe: MakeRecipe, run_all: Runs, tmp_path: Path
) -> None:
    recipe = make_recipe(batch_size=12)
    codes, _ = run_all([{"pretrain": recipe, "processes": 2, "kill_at": ("_step", 6)}])
    assert codes == [[-signal.SIGKILL, -signal.SIGKILL]]
    for processes in (1, 3):
        codes, _ = run_all([{"pretrain": recipe, "processes": processes}])
        assert codes == [[1] * processes]
        refused = f"checkpoint-000000004 has what 2 processes wrote, these are {processes}; start as many as before"
        for rank in range(processes):
            assert refused in (tmp_path / f"log-0-{rank}.txt").read_text()


def test_a_batch_that_cannot_be_divided_is_refused_by_every_process(
    make_recipe: MakeRecipe, run_all: Runs, tmp_path: Path
) -> None:
    codes, _ = run_all([{"pretrain": make_recipe(batch_size=9), "processes": 2}])
    assert codes == [[1, 1]]
    for rank in (0, 1):
        log = (tmp_path / f"log-0-{rank}.txt").read_text()
        assert "batch_size 9 cannot be divided among 2 processes" in log
