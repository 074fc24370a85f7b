"""A model by its folder, by the folder of its run, or by its name on the Hub."""

import json
import logging
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from mmm4rec_hf.saved_models import find_model


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str | None]]:
    """What a Hub was asked that nobody can reach."""
    questions = list[tuple[str, str, str | None]]()

    def unreachable(name: str, file: str, revision: str | None = None) -> Any:
        questions.append((name, file, revision))
        logging.getLogger("huggingface_hub.utils._http").warning("Retrying in 1s [Retry 1/5].")
        raise LocalEntryNotFoundError("no connection\nand more about it")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    return questions


def test_a_model_is_found_in_its_folder_and_in_that_of_its_run(tmp_path: Path) -> None:
    model = tmp_path / "run" / "model"
    model.mkdir(parents=True)
    (model / "config.json").write_text(json.dumps({"model_type": "mmm4rec"}))
    assert find_model(model) == find_model(str(model)) == find_model(tmp_path / "run") == str(model)


@pytest.mark.parametrize(
    ("file", "changed", "told"),
    [
        ("config.json", {"auto_map": 5}, "auto_map names no class, got 5"),
        ("config.json", {"auto_map": {"AutoConfig": 5}}, "auto_map names no class, got {'AutoConfig': 5}"),
        ("processor_config.json", {"auto_map": None}, "auto_map names no class, got None"),
        ("processor_config.json", {"processor_class": 5}, "processor_class names no class, got 5"),
    ],
)
def test_names_of_classes_of_another_kind_are_refused_with_their_file(
    tmp_path: Path, file: str, changed: dict[str, Any], told: str
) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "mmm4rec", "auto_map": {"AutoConfig": "a.B"}}')
    (tmp_path / "processor_config.json").write_text('{"processor_class": null}')
    assert find_model(tmp_path) == str(tmp_path)
    (tmp_path / file).write_text(json.dumps({"model_type": "mmm4rec"} | changed))
    with pytest.raises(ValueError) as caught:
        find_model(tmp_path)
    assert str(caught.value) == f"{tmp_path / file} is damaged: {told}; save or fetch the model again"
    (tmp_path / "processor_config.json").write_text("[]")
    (tmp_path / "config.json").write_text('{"model_type": "mmm4rec"}')
    with pytest.raises(ValueError, match=r"processor_config\.json is damaged: it must hold a JSON object"):
        find_model(tmp_path)


def test_a_model_of_the_hub_is_looked_at_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config.json"
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: str(config))
    config.write_text('{"model_type": "mmm4rec"}')
    assert find_model("author/films") == "author/films"
    config.write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="author/films holds a model of type 'bert', not 'mmm4rec'"):
        find_model("author/films")
    config.write_text('{"model_type": "mmm4rec", "auto_map": 5}')
    with pytest.raises(ValueError, match=r"config\.json is damaged: auto_map names no class, got 5"):
        find_model("author/films")


@pytest.mark.parametrize("name", ["run/modle", "./nowhere", "../nowhere", "/nowhere", "a/b/c"])
def test_what_can_only_be_a_folder_is_not_looked_for_on_the_hub(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[Any]
) -> None:
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder: "):
        find_model(name)
    assert asked == []


@pytest.mark.parametrize(
    ("offline", "why"), [(True, "is not asked (HF_HUB_OFFLINE is set)"), (False, "cannot be reached")]
)
def test_a_name_that_is_nowhere_is_told_with_both_places_and_once(
    asked: list[Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, offline: bool, why: str
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    log = logging.getLogger("huggingface_hub.utils._http")
    monkeypatch.setattr(log, "level", log.level)
    monkeypatch.setattr(logging.getLogger("huggingface_hub"), "propagate", True)
    with pytest.raises(ValueError) as told:
        find_model("absent/model", revision="branch")
    message = "'absent/model' is no folder here, and no model to be had from the Hub: the Hub "
    assert str(told.value) == f"{message}{why}, and it was not loaded before"
    assert asked == [("absent/model", "config.json", "branch")] and not caplog.records


def test_folders_of_something_else_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no model: there is no config.json, nor model/config.json"):
        find_model(tmp_path)
    (tmp_path / "catalog.json").write_text("{}")
    with pytest.raises(
        ValueError,
        match=r"is a catalogue, not a model; name what finetune wrote \(serve and evaluate take it as --catalog",
    ):
        find_model(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match="holds a model of type 'bert', not 'mmm4rec'"):
        find_model(tmp_path)
