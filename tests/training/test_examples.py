"""The scripts of examples/ from tiny shops to a recommender, by `python` and by `torchrun`."""

import contextlib
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModel, pipeline

from mmm4rec_hf import MMM4RecForSequentialRecommendation
from mmm4rec_hf.evaluation.evaluator import Evaluation

from ..launched import together

Run = Callable[..., subprocess.CompletedProcess]
Fail = Callable[..., tuple[Any, str, str]]
TINY = [
    "model.hidden_size=16", "model.intermediate_size=16", "model.head_dim=4", "model.state_size=4",
    "model.max_sequence_length=6", "batch_size=8",
]  # fmt: skip
LAUNCHERS = {
    "python": [sys.executable],
    "torchrun": [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"],
}


@pytest.fixture
def run(repository: Path, tmp_path: Path) -> Run:
    """Runs one of the scripts in a folder of its own."""

    def start(launcher: str, script: str, config: str, *changes: str) -> subprocess.CompletedProcess:
        command = [*LAUNCHERS[launcher], str(repository / "examples" / script)]
        command += ["--config", str(repository / "configs" / config), *changes]
        knowing = together(2) if launcher == "torchrun" else contextlib.nullcontext({"CUDA_VISIBLE_DEVICES": ""})
        with knowing as environment:
            done = subprocess.run(
                command, cwd=tmp_path, env=os.environ | environment, capture_output=True, text=True, check=False,
                timeout=600,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
        return done

    return start


@pytest.fixture
def fail(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Fail:
    """Runs one of the scripts in this process; its exit status, and what it wrote to stdout and stderr."""

    def start(script: str, config: str, *changes: str) -> tuple[Any, str, str]:
        path = str(repository / "examples" / script)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [path, "--config", str(repository / "configs" / config), *changes])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(path, run_name="__main__")
        return ended.value.code, *capsys.readouterr()

    return start


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_two_shops_become_a_base_of_two_layers_and_that_a_recommender_of_one(
    run: Run, make_domain: Callable[..., dict[str, Any]], tmp_path: Path, launcher: str
) -> None:
    for name in ("movies_a", "beauty"):
        make_domain(name)
    pretrained = run(
        launcher, "pretrain.py", "pretrain_movies_beauty.yaml", f"data_dir={tmp_path}", "output_dir=base", *TINY,
        "max_steps=3",
    )  # fmt: skip
    # One table, whatever the number of processes.
    assert pretrained.stdout.count("Validation split") == 1 and "movies_a" in pretrained.stdout
    assert AutoModel.from_pretrained(tmp_path / "base" / "model").config.num_hidden_layers == 2

    shop = [f"sequences={tmp_path}/beauty/sequences", f"catalog={tmp_path}/beauty/catalog"]
    tuned = run(
        launcher, "finetune.py", "finetune_published.yaml", *shop, "output_dir=tuned", "start_from=base/model",
        "training.per_device_train_batch_size=8", "training.num_train_epochs=1",
    )  # fmt: skip
    assert tuned.stdout.count("95% interval") == 1
    model = MMM4RecForSequentialRecommendation.from_pretrained(tmp_path / "tuned" / "model")
    assert model.config.num_hidden_layers == 1 and model.config.use_item_bias
    assert Evaluation.load(tmp_path / "tuned" / "evaluation").protocol["num_items"] == 12
    recommend = pipeline("sequential-recommendation", model=str(tmp_path / "tuned" / "model"), device="cpu")
    history = {"items": ["beauty3", "beauty4"], "timestamps": [1_400_000_000, 1_400_090_000]}
    assert len(recommend(history, top_k=3)) == 3


@pytest.mark.parametrize(
    ("script", "config", "changes", "message", "status"),
    [
        ("pretrain.py", "pretrain_published.yaml", ["output_dir=x"], "'food/catalog' is no folder", 1),
        ("finetune.py", "finetune_published.yaml", [], "sequences, catalog, output_dir must be given", 2),
    ],
)
def test_a_failure_is_one_line_and_its_exit_status(
    fail: Fail, script: str, config: str, changes: list[str], message: str, status: int
) -> None:
    found, out, err = fail(script, config, *changes)
    assert found == status and out == ""
    assert err.splitlines()[-1].startswith(f"{script}: error: ") and message in err
    assert "Traceback" not in err


def test_wrong_usage_is_exit_status_2(fail: Fail) -> None:
    status, _, err = fail("pretrain.py", "pretrain_published.yaml", "--conifg")
    assert status == 2 and "unrecognized arguments: --conifg" in err
