"""The README's commands run as they stand, in their order."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from mmm4rec_hf import ItemCatalog
from mmm4rec_hf.cli import main

from ..conversion.conftest import published_files  # noqa: F401
from ..hub.loopback import LoopbackHub
from .conftest import MODEL

ITEMS = ["50", "172", "181", "4", "5", "6", "7"]
# What stands in for the encoders that come as packages, and for a training of the published size.
TINY = " ".join(f"model.{name}={value}" for name, value in MODEL.items())
SHORTER = {
    "minilm": "bert",
    "efficientnet-lite0": "vit",
    "output_dir=run": f"output_dir=run training.num_train_epochs=1 {TINY}",
}


@pytest.fixture
def folder(tmp_path: Path, shop: Path, published_files, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: F811
    """The log, the items, and the published checkpoint that the README speaks of."""
    rows = [(user, ITEMS[(user + n) % 7], 1_387_670_400 + 60 * n) for user in range(8) for n in range(6)]
    log = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    log.write_csv(tmp_path / "interactions.csv")
    (tmp_path / "posters").mkdir()
    for number, item in enumerate(ITEMS):
        Image.fromarray(np.full((20, 16, 3), 30 * number, np.uint8)).save(tmp_path / "posters" / f"{item}.jpg")
    items = {"item_id": ITEMS, "title": [f"Film {i}" for i in ITEMS], "image": [f"posters/{i}.jpg" for i in ITEMS]}
    pl.DataFrame(items).write_ndjson(tmp_path / "items.jsonl")
    for name in ("bert", "vit"):
        (tmp_path / name).symlink_to(shop / name)
    files = published_files("base_1layer")
    files.checkpoint.rename(tmp_path / "best_epoch_model.ckpt")
    files.config.rename(tmp_path / "config.yaml")
    files.data.rename(tmp_path / "FOLDER")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    hub = LoopbackHub({"hf_of_the_author": "org"})
    yield hub
    hub.close()


def test_each_command_runs(
    repository: Path, folder: Path, hub: LoopbackHub, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = (repository / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^    mmm4rec (.+)$", readme, re.MULTILINE)
    assert {command.split()[0] for command in commands} == {
        "prepare", "encode", "finetune", "evaluate", "report", "recommend", "convert", "push",
    }  # fmt: skip
    environment = os.environ | {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(folder / "home"),
        "HF_TOKEN": "hf_of_the_author",
    }
    for command in commands:
        for published, shorter in SHORTER.items():
            command = command.replace(published, shorter)
        arguments = shlex.split(command)
        if arguments[0] == "push":
            # The address of the Hub is read when its client is imported.
            run = [sys.executable, "-m", "mmm4rec_hf.cli", *arguments]
            done = subprocess.run(run, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr[-2000:]
        else:
            assert main(arguments) == 0, capsys.readouterr().err
    assert ItemCatalog.from_pretrained("catalog").text_features.shape == (7, 16)
    assert (folder / "model.ckpt").is_file() and (folder / "model" / "model.safetensors").is_file()
    out = capsys.readouterr().out
    assert "NDCG@10" in out.upper() and "Film " in out
