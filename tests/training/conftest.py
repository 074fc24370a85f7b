"""Tiny shops: on disk, as `mmm4rec prepare` and `mmm4rec encode` write them, and that of run_trainer.py."""

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from mmm4rec_hf.data import load_interactions, prepare_sequences
from mmm4rec_hf.items import ItemCatalog
from mmm4rec_hf.training.finetuning import FinetuneRecipe
from mmm4rec_hf.training.recipes import build

RUN_TRAINER = Path(__file__).with_name("run_trainer.py")
Runs = Callable[[list[dict[str, Any]]], tuple[list[list[int]], list[dict[str, Any]]]]
MakeFinetuneRecipe = Callable[..., FinetuneRecipe]
TINY_MODEL = {
    "hidden_size": 16, "intermediate_size": 16, "head_dim": 4, "state_size": 4, "max_sequence_length": 6,
}  # fmt: skip


SIZES = TINY_MODEL | {"hidden_dropout": 0.1, "embedding_dropout": 0.1, "time_dropout": 0.1}


class Killed(BaseException):
    """Ends a run as a kill would: nothing catches it."""


@pytest.fixture
def make_domain(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Writes `<name>/sequences` and `<name>/catalog`, and returns the domain's part of a recipe."""

    def make(name: str, users: int = 30, items: int = 12, text_size: int = 5, **catalog: Any) -> dict[str, str]:
        rng = np.random.default_rng(len(name))
        rows = []
        for user in range(users):
            # Round a circle of items: what comes next can be learned.
            start, count = int(rng.integers(items)), int(rng.integers(4, 10))
            times = 1_400_000_000 + np.cumsum(rng.integers(1, 100_000, count))
            rows += [(f"u{user}", f"{name}{(start + n) % items}", int(times[n])) for n in range(count)]
        log = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
        folder = tmp_path / name
        prepare_sequences(load_interactions(log), k_core=1, output_dir=folder / "sequences")
        arrays = {
            "text_features": rng.normal(size=(items, text_size)).astype(np.float32),
            "image_features": rng.normal(size=(items, 3)).astype(np.float32),
        }
        # In another order than that of the sequences.
        item_ids = [f"{name}{n}" for n in reversed(range(items))]
        ItemCatalog(item_ids, **(arrays | catalog)).save_pretrained(folder / "catalog")
        return {"name": name, "catalog": str(folder / "catalog"), "sequences": str(folder / "sequences")}

    return make


@pytest.fixture
def make_recipe(tmp_path: Path, make_domain: Callable[..., dict[str, str]]) -> Callable[..., dict[str, Any]]:
    """A recipe of a pretraining over two tiny domains, as YAML would hold it."""
    domains = [make_domain("a"), make_domain("bb", users=12, items=9)]

    def make(output: str = "out", **changes: Any) -> dict[str, Any]:
        recipe: dict[str, Any] = {
            "domains": domains, "output_dir": str(tmp_path / output), "model": TINY_MODEL, "max_steps": 8,
            "batch_size": 8, "learning_rate": 1e-2, "eval_steps": 3, "save_steps": 2, "logging_steps": 1,
            "weight_decay": 0.01, "sampling_temperature": 2.0,
        }  # fmt: skip
        return recipe | changes

    return make


@pytest.fixture
def make_finetune_recipe(tmp_path: Path, make_domain: Callable[..., dict[str, str]]) -> MakeFinetuneRecipe:
    """A recipe of a fine-tuning to a tiny shop."""
    shop = make_domain("shop", users=20)

    def make(**changes: Any) -> FinetuneRecipe:
        values: dict[str, Any] = {
            "sequences": shop["sequences"], "catalog": shop["catalog"], "output_dir": str(tmp_path / "out"),
            "model": SIZES,
            "training": {"num_train_epochs": 2, "per_device_train_batch_size": 16, "learning_rate": 1e-2, "seed": 3},
        }  # fmt: skip
        return build(FinetuneRecipe, values | changes, "test")

    return make


@pytest.fixture(scope="session")
def shop() -> SimpleNamespace:
    """`make_sequences`, `make_model` and `make_arguments`."""
    return SimpleNamespace(**runpy.run_path(str(RUN_TRAINER)))


@pytest.fixture(scope="session")
def run_trainer() -> Iterator[subprocess.Popen]:
    """A process that runs run_trainer.py; it is too slow to start for each test."""
    environment = {"TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true"}
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, RUN_TRAINER], env=os.environ | environment, **pipes) as process:
        yield process


@pytest.fixture
def run_all(tmp_path: Path, run_trainer: subprocess.Popen) -> Runs:
    """Runs specifications one after the other; their exit codes, and what those that ended well left behind. What each
    process wrote stands in `log-<number>-<rank>.txt`, and is shown with a test that fails."""

    def start(specs: list[dict[str, Any]]) -> tuple[list[list[int]], list[dict[str, Any]]]:
        for number, spec in enumerate(specs):
            spec.setdefault("output_dir", str(tmp_path / f"run-{number}"))
            spec |= {"result": str(tmp_path / f"result-{number}.pt"), "log": str(tmp_path / f"log-{number}")}
        print(json.dumps(specs), file=run_trainer.stdin, flush=True)
        codes = json.loads(run_trainer.stdout.readline())
        for log in sorted(tmp_path.glob("log-*.txt")):
            print(log.name, log.read_text()[-5000:], sep="\n")
        results = [
            torch.load(spec["result"], weights_only=False) if Path(spec["result"]).exists() else {} for spec in specs
        ]
        return codes, results

    return start


@pytest.fixture(scope="module")
def sequences(shop: SimpleNamespace) -> Any:
    """The splits of the shop's log."""
    return shop.make_sequences()
