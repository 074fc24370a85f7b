"""JSON of others: none, another kind of it, and one that is nested deeper than Python reads, each told as damage."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from mmm4rec_hf import MMM4RecConfig, MMM4RecForSequentialRecommendation, MMM4RecProcessor
from mmm4rec_hf.cli import main
from mmm4rec_hf.cli.histories import open_histories
from mmm4rec_hf.evaluation.evaluator import Evaluation
from mmm4rec_hf.evaluation.protocol import describe, read_preparation
from mmm4rec_hf.evaluation.yardsticks import load_baselines
from mmm4rec_hf.plain_json import read_json
from mmm4rec_hf.reporting.runs import read_runs
from mmm4rec_hf.saved_models import find_model
from mmm4rec_hf.training.record import RunRecord, layout_of_log

DEEP = ["[" * 100_000, '{"a":' * 100_000]
DAMAGED = [*DEEP, "", "{", "5", '"ab"', "\ud800".encode("utf-8", "surrogatepass")]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A model of two items and its processor."""
    catalog = SimpleNamespace(item_ids=["a", "b"], titles=["A", "B"])
    model = MMM4RecForSequentialRecommendation(
        MMM4RecConfig(
            hidden_size=8, intermediate_size=8, head_dim=2, state_size=2, text_feature_size=2, image_feature_size=2
        )  # fmt: skip
    )
    features: Any = {"text_features": [[0.0, 1], [1, 0]], "image_features": [[0.0, 1], [1, 0]]}
    model.set_items(SimpleNamespace(**vars(catalog), **features, text_mask=None, image_mask=None))
    processor = MMM4RecProcessor()
    processor.set_items(catalog)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert MMM4RecForSequentialRecommendation.from_pretrained(tmp_path).item_ids == ["a", "b"]
    assert MMM4RecProcessor.from_pretrained(tmp_path).item_ids == ["a", "b"]
    return tmp_path


def put(path: Path, content: str | bytes) -> None:
    path.write_bytes(content.encode() if isinstance(content, str) else content)


@pytest.mark.parametrize("content", DAMAGED)
@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("config.json", MMM4RecForSequentialRecommendation.from_pretrained),
        ("config.json", find_model),
        ("item_ids.json", MMM4RecForSequentialRecommendation.from_pretrained),
        ("items.jsonl", MMM4RecProcessor.from_pretrained),
    ],
)
def test_a_models_files(saved: Path, name: str, read: Callable[[Path], object], content: str | bytes) -> None:
    assert (saved / name).is_file()
    if name == "items.jsonl" and not content:
        content = "\n"
    put(saved / name, content)
    with pytest.raises((ValueError, OSError), match=name):
        read(saved)


@pytest.mark.parametrize("content", DAMAGED)
def test_an_evaluations_numbers(tmp_path: Path, content: str | bytes) -> None:
    pl.DataFrame({"above": [0], "level": [1]}).write_parquet(tmp_path / "targets.parquet")
    put(tmp_path / "metrics.json", content)
    with pytest.raises(ValueError, match=r"metrics\.json is damaged"):
        Evaluation.load(tmp_path)
    with pytest.raises(ValueError, match="damaged"):
        read_runs([tmp_path])


def evaluation_of_one(folder: Path, protocol: dict[str, Any], columns: dict[str, list[Any]]) -> Path:
    pl.DataFrame(columns).write_parquet(folder / "targets.parquet")
    (folder / "metrics.json").write_text(json.dumps({"metrics": {}, "protocol": protocol}))
    return folder


PROTOCOL: dict[str, Any] = {
    "split": "test", "num_items": 2, "exclude_history": False, "score_padding_item": False, "ks": [1],
    "prepared": {"k_core": 1, "split": "leave_one_out"},
}  # fmt: skip
COLUMNS = {"user_id": ["u"], "item_id": ["a"], "above": [0], "level": [1]}


@pytest.mark.parametrize(
    "changed",
    [
        {"num_items": "2"}, {"num_items": 0}, {"num_items": True}, {"ks": 1}, {"ks": [0]}, {"ks": ["1"]},
        {"ks": []}, {"ks": [True]}, {"ks": [1, 1_000_001]}, {"ks": [10**13]}, {"ks": [1.0]},
        {"exclude_history": "no"}, {"split": None}, {"prepared": []},
    ],
)  # fmt: skip
def test_an_evaluations_protocol_of_another_kind(tmp_path: Path, changed: dict[str, Any]) -> None:
    assert Evaluation.load(evaluation_of_one(tmp_path, PROTOCOL, COLUMNS)).metrics["hr@1"] == 1.0
    for protocol in (PROTOCOL | changed, {name: PROTOCOL[name] for name in PROTOCOL if name not in changed}):
        evaluation_of_one(tmp_path, protocol, COLUMNS)
        with pytest.raises(ValueError, match=rf"metrics\.json is damaged: {next(iter(changed))} .*; evaluate again"):
            Evaluation.load(tmp_path)


@pytest.mark.parametrize("number", ["many", -1, 1.0, None])
def test_an_evaluations_users_without_a_target(tmp_path: Path, number: Any) -> None:
    evaluation_of_one(tmp_path, PROTOCOL | {"users_without_target": number}, COLUMNS)
    with pytest.raises(ValueError, match=rf"metrics\.json is damaged: users_without_target is {number!r}; evaluate"):
        Evaluation.load(tmp_path)
    evaluation_of_one(tmp_path, PROTOCOL | {"users_without_target": 0, "ks": [1_000_000]}, COLUMNS)
    assert Evaluation.load(tmp_path).metrics["hr@1000000"] == 1.0


def test_an_evaluations_coverage(tmp_path: Path) -> None:
    evaluation_of_one(tmp_path, PROTOCOL, COLUMNS)
    (tmp_path / "metrics.json").write_text(json.dumps({"metrics": {"coverage@1": "all"}, "protocol": PROTOCOL}))
    with pytest.raises(ValueError, match=r"metrics\.json is damaged: its coverage is .*'all'.*; evaluate again"):
        Evaluation.load(tmp_path)


@pytest.mark.parametrize("column", COLUMNS)
def test_an_evaluations_targets_without_a_column(tmp_path: Path, column: str) -> None:
    evaluation_of_one(tmp_path, PROTOCOL, {name: COLUMNS[name] for name in COLUMNS if name != column})
    with pytest.raises(ValueError, match=rf"targets\.parquet has no column {column}; evaluate again"):
        Evaluation.load(tmp_path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        # Of two items the target is one, and the padding item does not compete.
        ({"above": ["x"]}, "above must hold whole numbers from 0 to 2"), ({"above": [0.0]}, "above must"),
        ({"above": [None]}, "above must"), ({"above": [-1]}, "above must"), ({"above": [3]}, "above must"),
        ({"level": ["x"]}, "level must hold whole numbers from 1 to 2"), ({"level": [0]}, "level must"),
        ({"loss": ["x"]}, "loss must hold numbers"), ({"loss": [None]}, "loss must"),
        ({name: [] for name in COLUMNS}, "it has no rows"),
    ],
)  # fmt: skip
def test_an_evaluations_targets_of_another_kind(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    assert len(Evaluation.load(evaluation_of_one(tmp_path, PROTOCOL, COLUMNS | {"loss": [0.5]})).targets) == 1
    evaluation_of_one(tmp_path, PROTOCOL, COLUMNS | changed)
    with pytest.raises(ValueError, match=rf"targets\.parquet is damaged: {message}.*; evaluate again$"):
        Evaluation.load(tmp_path)


def test_the_padding_item_may_stand_above_a_target(tmp_path: Path) -> None:
    evaluation_of_one(tmp_path, PROTOCOL | {"score_padding_item": True}, COLUMNS | {"level": [3]})
    assert Evaluation.load(tmp_path).metrics["hr@1"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"popularity above": [0]}, "it must hold 'NAME above' and 'NAME level' of each baseline, got 'popularity ab"),
        ({"popularity level": [1]}, "it must hold"), ({"popularity": [1]}, "it must hold"),
        ({"popularity above": [0], "popularity level": [1], "co-occurrence above": [0]}, "it must hold"),
        ({"popularity above": ["a"], "popularity level": [1]}, "popularity above must hold whole numbers from 0 to 2"),
        ({"popularity above": [0], "popularity level": [0]}, "popularity level must hold whole numbers from 1 to 2"),
    ],
)  # fmt: skip
def test_an_evaluations_baselines_of_another_kind(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    evaluation = Evaluation.load(evaluation_of_one(tmp_path, PROTOCOL, COLUMNS))
    pl.DataFrame({"most liked above": [1], "most liked level": [1]}).write_parquet(tmp_path / "baselines.parquet")
    assert load_baselines(tmp_path, evaluation)["most liked"].metrics["hr@1"] == 0.0
    pl.DataFrame(columns).write_parquet(tmp_path / "baselines.parquet")
    with pytest.raises(ValueError, match=rf"baselines\.parquet is damaged: {message}.*; evaluate again$"):
        load_baselines(tmp_path, evaluation)


@pytest.mark.parametrize("prepared", [{"split": "temporal"}, {"k_core": "5", "split": "temporal"}, {"k_core": 5}])
def test_a_preparation_of_another_kind(tmp_path: Path, prepared: dict[str, Any]) -> None:
    (tmp_path / "prepare.json").write_text(json.dumps(prepared))
    with pytest.raises(ValueError, match=r"prepare\.json is damaged: .*(k_core|split).*; prepare again"):
        read_preparation(tmp_path)


def test_a_split_of_another_version_is_told_by_its_name() -> None:
    words = describe(PROTOCOL | {"prepared": {"k_core": 5, "split": "ratio"}})
    assert words.startswith("test split, 5-core, ratio, target ranked among all 2 items")


@pytest.mark.parametrize("content", [*DAMAGED, "[1]"])
def test_what_tells_how_a_log_was_prepared_and_a_run_was_made(tmp_path: Path, content: str | bytes) -> None:
    for name, read in (
        ("prepare.json", read_preparation),
        ("log_layout.json", layout_of_log),
        ("training.json", RunRecord),
    ):
        put(tmp_path / name, content)
        with pytest.raises(ValueError, match=rf"{re.escape(name)} is damaged: ."):
            read(tmp_path)


@pytest.mark.parametrize("content", DEEP)
def test_lines_of_users(tmp_path: Path, content: str) -> None:
    first = '{"user_id": "u", "items": ["a"]}\n'
    put(tmp_path / "users.jsonl", first + content)
    with pytest.raises(ValueError, match="line 2 is no JSON"):
        list(open_histories(tmp_path / "users.jsonl").histories)


def test_what_a_command_pushes(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(saved / "config.json", DEEP[0])
    assert main(["push", str(saved), "author/name"]) == 1
    assert "config.json holds no JSON object" in capsys.readouterr().err


def test_levels_that_python_reads_are_read() -> None:
    assert read_json('{"a": [[[1]]]}') == {"a": [[[1]]]}
    with pytest.raises(ValueError, match="too deeply"):
        read_json(DEEP[0])
