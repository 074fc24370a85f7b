"""The scripts of examples/: in this process, and with the same result as `torchrun` starts them."""

import json
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from accelerate import PartialState
from huggingface_hub import constants

from mmm4rec_hf import ItemCatalog
from mmm4rec_hf.cli import main
from mmm4rec_hf.modeling import MMM4RecForSequentialRecommendation

from ..launched import together

pytestmark = pytest.mark.slow
Start = Callable[..., subprocess.CompletedProcess]


@pytest.fixture
def start(repository: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Start:
    """Runs a script of examples/ in the working directory: in this process, or as `torchrun` starts it."""

    def run(script: str, *arguments: str, processes: int = 1) -> subprocess.CompletedProcess:
        command = [str(repository / "examples" / script), *arguments]
        if processes == 1:
            monkeypatch.setattr(sys, "argv", command)
            # As the launcher's processes: on the CPU, and without the Hub.
            monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
            monkeypatch.setattr(PartialState, "_shared_state", {})
            monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
            with pytest.raises(SystemExit) as ended:
                runpy.run_path(command[0], run_name="__main__")
            return subprocess.CompletedProcess(command, ended.value.code, *capfd.readouterr())
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        with together(processes) as environment:
            done = subprocess.run(
                [*launch, *command], env=os.environ | environment, capture_output=True, text=True, check=False,
                timeout=600,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr[-2000:]
        return done

    return run


def test_every_script_begins_with_its_commands(repository: Path) -> None:
    scripts = sorted((repository / "examples").glob("*.py"))
    assert {script.name for script in scripts} == {
        "batch_recommend.py", "custom_encoder.py", "finetune.py", "new_items.py", "pretrain.py", "quickstart.py",
    }  # fmt: skip
    for script in scripts:
        head = script.read_text(encoding="utf-8").split('"""')[1]
        assert f"    python examples/{script.name} " in head, script.name
        for launcher in ("torchrun --standalone --nproc_per_node 2", "accelerate launch --multi_gpu"):
            # Adding items to a model is no work for several devices.
            assert (f"    {launcher} examples/{script.name} " in head) == (script.name != "new_items.py")


def test_two_processes_recommend_what_one_does(films_with_run: Path, start: Start) -> None:
    for processes in (1, 2):
        done = start(
            "batch_recommend.py", ("run", "run/model")[processes - 1], "interactions.csv", "--output",
            f"{processes}.parquet", "--batch-size", "3", processes=processes,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.count("Recommendations for") == 1
    # Seven films, of which each user has had six.
    one, two = (pl.read_parquet(f"{n}.parquet").sort("user_id", "rank") for n in (1, 2))
    assert one["user_id"].to_list() == [str(n) for n in range(8)]
    assert one.drop(pl.selectors.float()).equals(two.drop(pl.selectors.float()))
    assert one["score"].to_list() == pytest.approx(two["score"].to_list(), abs=1e-5)
    assert not [path for path in films_with_run.iterdir() if ".part-" in path.name]
    # Columns of other names are told, as to `recommend`.
    names = {"user_id": "kunde", "item_id": "film", "timestamp": "wann"}
    pl.read_csv("interactions.csv", infer_schema=False).rename(names).write_csv("other.csv")
    told = ["--user-column", "kunde", "--item-column", "film", "--timestamp-column", "wann"]
    done = start("batch_recommend.py", "run", "other.csv", "--output", "other.parquet", "--batch-size", "3", *told)
    assert done.returncode == 0, done.stderr[-2000:]
    assert pl.read_parquet("other.parquet").sort("user_id", "rank").equals(one)


def test_features_of_one_s_own_are_those_of_the_functions(films: Path, start: Start) -> None:
    for processes in (1, 2):
        done = start("custom_encoder.py", "items.jsonl", "--output", f"catalog-{processes}", processes=processes)
        assert done.returncode == 0, done.stderr[-2000:]
    one, two = (ItemCatalog.from_pretrained(f"catalog-{n}") for n in (1, 2))
    assert one.image_features is not None and two.image_features is not None and one.text_features is not None
    # Posters of one grey each: 30 x number of 255 in all 8 x 8 parts.
    grey = np.arange(7)[:, None] * 30 / 255 * np.ones((1, 192))
    assert np.allclose(one.image_features, grey, atol=3 / 255) and np.array_equal(
        one.image_features, two.image_features
    )
    assert np.allclose(np.linalg.norm(one.text_features, axis=1), 1)


def test_a_new_item_is_recommended_without_training(films_with_run: Path, start: Start) -> None:
    options = ["--output", "with-new", "--history", "50", "172"]
    done = start("new_items.py", "run", "new_items.jsonl", *options)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "new stands at place" in done.stdout and "of 6 for this history" in done.stdout
    before = MMM4RecForSequentialRecommendation.from_pretrained("run/model")
    after = MMM4RecForSequentialRecommendation.from_pretrained("with-new")
    assert after.item_ids == [*before.item_ids, "new"]
    # A log of another form is read as by the run that was told of it, whatever is said of it.
    record = json.loads(Path("run/training.json").read_text())
    record["data"]["layout"] = {"user_column": "who", "item_column": "disc", "timestamp_column": "day"} | {
        "time_format": "%d.%m.%Y"
    }
    Path("run/training.json").write_text(json.dumps(record))
    Path("rentals.csv").write_text("who,disc,day\nu,50,21.12.2013\nu,172,22.12.2013\n")
    for number, model in enumerate(("run", "first/with-new", "second/with-new")):
        if number:
            new = Path(f"new-{number}.jsonl")
            new.write_text(json.dumps({"item_id": f"new-{number}", "title": "Film"}) + "\n")
            # From the second on the model itself lies in no run.
            given = "run" if number == 1 else "first/with-new"
            assert start("new_items.py", given, str(new), "--output", model).returncode == 0
        target = Path(f"{number}.jsonl")
        assert main(["recommend", model, "--input", "rentals.csv", "--output", str(target), "--device", "cpu"]) == 0
        (line,) = map(json.loads, target.read_text().splitlines())
        assert line["user_id"] == "u" and len(line["recommendations"]) == 5 + number
    # A picture that is named and cannot be read, in the words of the command line.
    Path("poor.jsonl").write_text('{"item_id": "poor", "title": "Film", "image": "50.jpg"}\n')
    poor = start("new_items.py", "run", "poor.jsonl", "--output", "x")
    assert poor.returncode == 1 and not Path("x").exists()
    assert poor.stderr.splitlines()[-1] == (
        "new_items.py: error: the picture '50.jpg' of item 'poor' cannot be used: no such file (paths start from .; "
        "--image-root names another place); correct it, leave the item's image out, or give --unreadable-pictures "
        "missing to go on without"
    )
    for number, more in enumerate((["--image-root", "posters"], ["--unreadable-pictures", "missing"])):
        assert start("new_items.py", "run", "poor.jsonl", "--output", f"poor-{number}", *more).returncode == 0
        assert ItemCatalog.from_pretrained(f"poor-{number}/catalog").image_mask[-1] == (number == 0)
    lost = start("new_items.py", "run", "poor.jsonl", "--output", "x", "--image-root", "psoters")
    assert lost.stderr.splitlines()[-1].endswith(
        "error: no such folder: psoters (given as --image-root, where paths of pictures start)"
    )
    none = start("new_items.py", "run/nowhere", "new_items.jsonl", "--output", "x")
    assert none.returncode == 1 and none.stderr.splitlines()[-1].endswith("error: no such folder: run/nowhere")
    again = start("new_items.py", "with-new", "new_items.jsonl", "--output", "x")
    assert again.returncode == 1 and "in the catalogue already" in again.stderr.splitlines()[-1]
    other = start("new_items.py", "run/model", "new_items.jsonl", "--output", "x", "--image-encoder", "run/model")
    assert other.returncode == 1 and not Path("x").exists()
    shutil.rmtree("run/model/catalog")
    bare = start("new_items.py", "run", "new_items.jsonl", "--output", "x")
    assert "run/model holds no catalogue, which new items need" in bare.stderr.splitlines()[-1]


def test_the_quick_start_learns_over_two_processes(films: Path, start: Start) -> None:
    options = ["interactions.csv", "items.jsonl", "--output", "run", "--epochs", "2"]
    done = start("quickstart.py", *options, processes=2)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("Test split: HR@10 1.0000") == 1  # ten places for seven films
    assert MMM4RecForSequentialRecommendation.from_pretrained("run/model").config.num_items == 7
