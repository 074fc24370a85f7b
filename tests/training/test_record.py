"""What a fine-tuning and a pretraining leave on disk for a report."""

import json
import math
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from mmm4rec_hf.evaluation.evaluator import Evaluation
from mmm4rec_hf.evaluation.yardsticks import load_baselines
from mmm4rec_hf.training.finetuning import FinetuneRecipe, finetune
from mmm4rec_hf.training.pretraining import PretrainRecipe, pretrain
from mmm4rec_hf.training.recipes import build
from mmm4rec_hf.training.record import RunRecord, describe_base, digest_of_files
from mmm4rec_hf.training.trainer import MMM4RecTrainer

from .conftest import SIZES, Killed


def recipe(shop: dict[str, str], output: Path) -> FinetuneRecipe:
    training = {"num_train_epochs": 3, "per_device_train_batch_size": 24, "logging_steps": 2, "save_steps": 3,
                "save_strategy": "steps", "eval_strategy": "steps", "eval_steps": 3}  # fmt: skip
    values = {"sequences": shop["sequences"], "catalog": shop["catalog"], "output_dir": str(output), "model": SIZES}
    return build(FinetuneRecipe, values | {"training": training}, "test")


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "training.json").read_text(encoding="utf-8"))


def test_a_fine_tuning_leaves_its_log_its_cost_its_data_and_baselines(
    tmp_path: Path, make_domain: Callable[..., dict[str, str]]
) -> None:
    shop = make_domain("shop", users=20)
    finetune(recipe(shop, tmp_path / "run"))
    record = read(tmp_path / "run")
    (session,) = record["sessions"]
    assert session["first_step"] == 0 and session["last_step"] == max(entry["step"] for entry in record["log"])
    lasted = datetime.fromisoformat(session["ended"]) - datetime.fromisoformat(session["started"])
    assert abs(lasted.total_seconds() - session["seconds"]) < 2
    assert session["peak_memory"]["process"] > 50_000_000 and "cores" in session["machine"]
    assert record["kept"] in {entry["step"] for entry in record["log"] if "eval_ndcg@10" in entry}
    assert record["data"]["statistics"]["users"] == 20
    assert record["data"]["first_event"] <= record["data"]["last_event"]
    # An item bias or a projection more would show here: 16-wide projections of 5 and 3 features among them.
    assert record["parameters"]["total"] == record["parameters"]["learned"] > 16 * (5 + 3)
    evaluation = Evaluation.load(tmp_path / "run" / "evaluation")
    baselines = load_baselines(tmp_path / "run" / "evaluation", evaluation)
    assert list(baselines) == ["popularity", "co-occurrence", "similar text"]
    # Users of this shop take the items one after the other.
    assert baselines["co-occurrence"].metrics["hr@10"] > baselines["popularity"].metrics["hr@10"] - 0.2


def test_a_run_that_was_stopped_has_two_sessions(
    tmp_path: Path, make_domain: Callable[..., dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = make_domain("shop", users=20)
    original = MMM4RecTrainer.training_step

    def stopping(self: MMM4RecTrainer, *args: Any) -> Any:
        if self.state.global_step == 4:
            raise Killed
        return original(self, *args)

    monkeypatch.setattr(MMM4RecTrainer, "training_step", stopping)
    with pytest.raises(Killed):
        finetune(recipe(shop, tmp_path / "run"))
    assert "seconds" not in read(tmp_path / "run")["sessions"][0]
    monkeypatch.setattr(MMM4RecTrainer, "training_step", original)
    finetune(recipe(shop, tmp_path / "run"))
    record = read(tmp_path / "run")
    first, second = record["sessions"]
    steps_an_epoch = math.ceil(record["data"]["statistics"]["train_rows"] / 24)
    assert "ended" not in first and (second["first_step"], second["last_step"]) == (3, 3 * steps_an_epoch)


def test_a_pretraining_leaves_its_cost_and_which_step_was_kept(
    tmp_path: Path, make_recipe: Callable[..., dict[str, Any]]
) -> None:
    pretrain(build(PretrainRecipe, make_recipe(max_steps=4, eval_steps=2), "test"))
    record = read(tmp_path / "out")
    (session,) = record["sessions"]
    assert (session["first_step"], session["last_step"]) == (0, 4) and session["seconds"] > 0
    assert record["kind"] == "pretraining" and record["kept"] in (2, 4)
    assert set(record["training_rows"]) == {"a", "bb"} and min(record["training_rows"].values()) > 0


def test_of_several_processes_one_writes(tmp_path: Path) -> None:
    record = RunRecord(tmp_path, is_writing=False)
    record.begin(0, 2)
    record.end(5)
    assert not list(tmp_path.iterdir())


def test_the_digest_of_a_base_is_of_all_its_weights_and_of_nothing_else(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    contents = {"config.json": b"{}", "model-00001-of-00002.safetensors": b"ab"}
    contents |= {"model-00002-of-00002.safetensors": b"c", "README.md": b"x"}
    for folder in (one, other):
        folder.mkdir()
        for name, content in contents.items():
            (folder / name).write_bytes(content)
    (other / "README.md").write_bytes(b"y")
    (other / "model.fp16.safetensors").write_bytes(b"d")
    assert describe_base(str(one)) == describe_base(str(other))
    # The same bytes, otherwise cut.
    (other / "model-00001-of-00002.safetensors").write_bytes(b"a")
    (other / "model-00002-of-00002.safetensors").write_bytes(b"bc")
    assert describe_base(str(one)) != describe_base(str(other))
    for name in list(contents)[1:3]:
        (other / name).unlink()
    assert describe_base(str(other)) == {}


def test_of_large_files_parts_are_looked_at_the_first_and_the_last_among_them(tmp_path: Path) -> None:
    file, mega = tmp_path / "shard", 1 << 20
    content = bytearray(5 * mega + 7)
    file.write_bytes(content)
    whole, parts = digest_of_files([file]), digest_of_files([file], 3)
    # The blocks begin at 0, 2 MB + 3 and 4 MB + 7.
    for place, is_seen in ((0, True), (mega, False), (2 * mega + 3, True), (4 * mega, False), (5 * mega + 6, True)):
        content[place] ^= 1
        file.write_bytes(content)
        assert (digest_of_files([file], 3) != parts) == is_seen and digest_of_files([file]) != whole
        assert digest_of_files([file], 6) == digest_of_files([file])
        content[place] ^= 1
