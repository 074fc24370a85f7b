"""Every writing command says in one line that it cannot write, with status 1, and changes nothing."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from mmm4rec_hf.cli import main

from ..cli.conftest import MODEL

pytestmark = pytest.mark.slow

COMMANDS: dict[str, Callable[[Path, Path], list[str]]] = {
    "prepare": lambda shop, to: ["prepare", f"{shop}/log.csv", "-o", f"{to}/new", "--k-core", "1", "--time-unit=ms"],
    "encode": lambda shop, to: [
        "encode", f"{shop}/items.jsonl", "-o", f"{to}/new",
        "--text-encoder", f"{shop}/bert", "--image-encoder", f"{shop}/vit",
    ],
    "pretrain": lambda shop, to: [
        "pretrain", f"domains=[{{name: a, sequences: {shop}/sequences, catalog: {shop}/catalog}}]", "max_steps=1",
        "batch_size=4", f"output_dir={to}/new", *(f"model.{name}={value}" for name, value in MODEL.items()),
    ],
    "finetune": lambda shop, to: [
        "finetune", f"sequences={shop}/sequences", f"catalog={shop}/catalog", f"output_dir={to}/new",
        "training.num_train_epochs=1", *(f"model.{name}={value}" for name, value in MODEL.items()),
    ],
    "evaluate": lambda shop, to: ["evaluate", f"{shop}/run", f"{shop}/sequences", "-o", f"{to}/new"],
    "recommend": lambda shop, to: [
        "recommend", f"{shop}/run", "--history", "0", "7", "-o", f"{to}/new.csv",
    ],
    "convert to-published": lambda shop, to: [
        "convert", "to-published", f"{shop}/run/model", f"{to}/new.ckpt", "--data", f"{to}/new",
    ],
    "report": lambda shop, to: ["report", f"{shop}/run", "-o", f"{to}/new.html"],
}  # fmt: skip


def refused(capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str) -> None:
    capsys.readouterr()
    assert main(arguments) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mmm4rec: error: ")]
    assert len(errors) == 1 and reason in errors[0], errors


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A disk that nobody may write to, root neither."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("a disk cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("name", list(COMMANDS))
def test_a_read_only_disk(
    name: str,
    shop: Path,
    model: Path,
    read_only: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    refused(capsys, COMMANDS[name](shop, read_only), os.strerror(30))
    assert list(read_only.iterdir()) == []


@pytest.mark.parametrize("name", list(COMMANDS))
def test_a_file_where_a_folder_should_be(
    name: str,
    shop: Path,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_text("of the user")
    refused(capsys, COMMANDS[name](shop, tmp_path / "file"), f"{tmp_path / 'file'}")
    assert (tmp_path / "file").read_text() == "of the user" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("name", list(COMMANDS))
def test_a_folder_that_may_not_be_written_to(
    name: str,
    shop: Path,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "folder").mkdir(mode=0o500)
    refused(capsys, COMMANDS[name](shop, tmp_path / "folder"), "Permission denied")
    assert list((tmp_path / "folder").iterdir()) == []


def test_a_converted_folder_that_cannot_be_written(
    shop: Path,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["convert", "to-published", str(model), str(tmp_path / "model.ckpt"), "--data", str(tmp_path)]) == 0
    assert torch.load(tmp_path / "model.ckpt", weights_only=True)["model"]
    (tmp_path / "file").write_text("of the user")
    command = ["convert", "published", f"{tmp_path}/model.ckpt", "--config", f"{tmp_path}/model.yaml"]
    refused(capsys, [*command, "-o", f"{tmp_path}/file/new"], f"{tmp_path / 'file'}")
    refused(capsys, [*command, "-o", f"{tmp_path}/file"], "is there already and not empty")
    assert (tmp_path / "file").read_text() == "of the user"
    assert json.loads((model / "config.json").read_text())["model_type"] == "mmm4rec"
