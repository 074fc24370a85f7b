"""Two processes with half of each batch do what one process does with all of it."""

import os
import signal
import subprocess
import sys
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

# With a step to die before, for every process, or -1.
SCRIPT = """
import os, signal, sys
from mmm4rec_hf.training import pretraining
from mmm4rec_hf.training.recipes import load_recipe

original = pretraining.Pretraining._step

def step(self, batches):
    if self.progress.step == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, batches)

pretraining.Pretraining._step = step
pretraining.pretrain(load_recipe(pretraining.PretrainRecipe, sys.argv[1]))
"""


def run_two(recipe: dict[str, Any], folder: Path, die_before: int = -1) -> list[subprocess.CompletedProcess]:
    """The run in two processes that find each other through a port of this machine."""
    script, file = folder / "script.py", folder / f"{Path(recipe['output_dir']).name}.yaml"
    script.write_text(SCRIPT)
    file.write_text(yaml.safe_dump(recipe))
    shared = {
        "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(20000 + os.getpid() % 20000),
        "ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    running = [
        subprocess.Popen(
            [sys.executable, str(script), str(file), str(die_before)],
            env=os.environ | shared | {"RANK": rank, "LOCAL_RANK": rank},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    ended = [(process, process.communicate()[1]) for process in running]
    return [subprocess.CompletedProcess(process.args, process.returncode, "", err) for process, err in ended]


def weights_of(recipe: dict[str, Any]) -> dict[str, torch.Tensor]:
    return load_file(Path(recipe["output_dir"]) / "model" / "model.safetensors")


def without_dropout(recipe: dict[str, Any]) -> dict[str, Any]:
    dropouts = dict.fromkeys(("hidden_dropout", "embedding_dropout", "time_dropout"), 0.0)
    return recipe | {"model": recipe["model"] | dropouts}


@pytest.mark.parametrize("negatives", ["domain", "all"])
def test_two_processes_with_half_the_batch_each_equal_one(
    make_recipe: MakeRecipe, tmp_path: Path, negatives: str
) -> None:
    options: dict[str, Any] = {
        "negatives": negatives, "max_steps": 5, "eval_steps": None, "save_steps": None, "learning_rate": 1e-3,
        "gradient_accumulation_steps": 2, "max_grad_norm": 1.0,
    }  # fmt: skip
    one, two = (without_dropout(make_recipe(name, **options)) for name in ("one", "two"))
    pretrain(build(PretrainRecipe, one, "test"))
    for process in run_two(two, tmp_path):
        assert process.returncode == 0, process.stderr
    logs = [(Path(recipe["output_dir"]) / "log.jsonl").read_text().splitlines() for recipe in (one, two)]
    for line, other in zip(*(map(yaml.safe_load, log) for log in logs), strict=True):
        assert line == pytest.approx(other, abs=1e-4)
    expected, found = weights_of(one), weights_of(two)
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, atol=1e-5, rtol=0, msg=name)


@pytest.mark.parametrize("shards", [None, 3], ids=["mapped", "shards"])
def test_two_killed_processes_go_on_as_if_they_had_not_been(
    make_recipe: MakeRecipe, tmp_path: Path, shards: int | None
) -> None:
    whole, stopped = make_recipe("whole"), make_recipe("stopped")
    if shards is not None:
        domain = whole["domains"][0]
        write_shards(SequenceDatasets.load_from_disk(domain["sequences"]), tmp_path / "shards", shards)
        domain["shards"] = str(tmp_path / "shards")
        assert stopped["domains"][0] is domain
    for process in run_two(whole, tmp_path):
        assert process.returncode == 0, process.stderr
    assert {process.returncode for process in run_two(stopped, tmp_path, die_before=5)} == {-signal.SIGKILL}
    for process in run_two(stopped, tmp_path):
        assert process.returncode == 0, process.stderr
    assert (tmp_path / "whole" / "log.jsonl").read_text() == (tmp_path / "stopped" / "log.jsonl").read_text()
    expected, found = weights_of(whole), weights_of(stopped)
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


def test_a_batch_that_cannot_be_divided_is_refused_by_every_process(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    for process in run_two(make_recipe(batch_size=9), tmp_path):
        assert process.returncode == 1
        assert "batch_size 9 cannot be divided among 2 processes" in process.stderr
