"""The README's commands run as they stand, in their order."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmm4rec_hf import ItemCatalog
from mmm4rec_hf.cli import main

from ..conversion.conftest import published_files  # noqa: F401
from ..docs.films import TINY, make_films
from ..hub.loopback import LoopbackHub

# For a training of the published size.
SHORTER = ["training.num_train_epochs=1", *TINY]
# Files of a shop; the README shows one line of each.
ORDER, PRODUCT = "c{user:04};A-{item};2024-03-{day:02} 13:36:00", "A-{item};large carbon ladder {item};ladder;10.53"


@pytest.fixture
def folder(tmp_path: Path, published_files, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: F811
    """The log, the items, and the published checkpoint that the README speaks of."""
    make_films(tmp_path)
    orders = [
        ORDER.format(user=user, item=100 + (user + day) % 7, day=day)
        for user in range(10, 45)
        for day in range(10, 16)
    ]
    products = [PRODUCT.format(item=item) for item in range(100, 107)]
    (tmp_path / "orders.csv").write_text("\n".join(["customer;sku;bought_at", *orders, ""]))
    (tmp_path / "products.csv").write_text("\n".join(["sku;name;category;price", *products, ""]))
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
    pushes = "from mmm4rec_hf.cli import main\n"
    for command in commands:
        arguments = shlex.split(command)
        if arguments[0] == "finetune":
            arguments += SHORTER
        if arguments[0] == "push":
            pushes += f"assert main({arguments}) == 0\n"
        else:
            assert main(arguments) == 0, capsys.readouterr().err
    # In a process of their own: the address of the Hub is read when its client is imported.
    run = [sys.executable, "-c", pushes]
    done = subprocess.run(run, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert hub.repositories.keys() == {("model", "org/films"), ("dataset", "org/films-catalogue")}
    assert ItemCatalog.from_pretrained("catalog").text_features.shape == (7, 16)
    products = ItemCatalog.from_pretrained("products")
    assert products.titles[:1] == ["large carbon ladder 100"] and products.feature_info["image"]["encoder"] == "none"
    assert (folder / "model.ckpt").is_file() and (folder / "model" / "model.safetensors").is_file()
    out = capsys.readouterr().out
    assert "NDCG@10" in out.upper() and "Film " in out
    assert all(
        re.search(rf"^{user} +6 .*ladder", out, re.M) for user in ("c0017", "c0042")
    )  # with the last ones' titles
    assert "large carbon ladder 10" in out


def test_its_files_are_those_that_the_commands_read(repository: Path, folder: Path) -> None:
    readme = (repository / "README.md").read_text(encoding="utf-8")
    for name in ("orders.csv", "products.csv"):
        header = (folder / name).read_text().splitlines()[0]
        assert re.search(rf"^    .*{re.escape(header)}", readme, re.M), name
