"""Encoders by name: what was meant by one that is nearly a package's, and what the Hub is asked for."""

import logging
import time
from pathlib import Path

import huggingface_hub
import pytest

from mmm4rec_hf import ItemEncoder, packaged_encoders
from mmm4rec_hf.cli import main
from mmm4rec_hf.items.recorded import recorded_encoder
from mmm4rec_hf.packaged_encoders import load_item_encoder


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((None, "minlm", None), "no encoder 'minlm'; did you mean 'minilm'?"),
        ((None, "MiniLM", None), "no encoder 'MiniLM'; did you mean 'minilm'?"),
        ((None, None, "efficientnet_lite0"), "no encoder 'efficientnet_lite0'; did you mean 'efficientnet-lite0'?"),
        ((None, None, "efficientnet"), "no encoder 'efficientnet'; did you mean 'efficientnet-lite0'?"),
        ((None, "efficientnet-lite0", None), "'efficientnet-lite0' reads pictures alone; give it as image_encoder="),
        ((None, None, "minilm"), "'minilm' reads texts alone; give it as text_encoder="),
        (("minilm", None, None), "'minilm' reads texts alone; give it as text_encoder="),
        (
            ("minlm", None, None),
            "no encoder 'minlm'; did you mean 'minilm'? It reads texts alone; give it as text_encoder=",
        ),
    ],
)
def test_a_name_that_is_nearly_a_package_s_is_told_before_anybody_is_asked(
    names: tuple[str | None, str | None, str | None],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def fail(*_: str, **__: str) -> Path:
        raise AssertionError("nothing is to be fetched")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(packaged_encoders, "fetch_package", fail)
    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", fail)
    with pytest.raises(ValueError) as told:
        load_item_encoder(*names)
    assert str(told.value) == message
    if names[0] is not None:
        with pytest.raises(ValueError) as told:
            recorded_encoder({}, model=names[0])
        assert str(told.value) == message


def test_a_folder_of_such_a_name_is_a_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "minlm").mkdir()
    (tmp_path / "items.csv").write_text("item_id,title\n1,saw\n")
    monkeypatch.chdir(tmp_path)
    assert main(["encode", "items.csv", "--output", "catalog", "--text-encoder", "minlm"]) == 1
    assert "did you mean" not in capsys.readouterr().err


@pytest.mark.parametrize("option", ["text_encoder", "image_encoder", "model_name"])
def test_an_encoder_that_is_nowhere_is_told_in_one_line(
    option: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(
        huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/resolve/x/{filename}"
    )
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the client waits longer and longer
    log = logging.getLogger("huggingface_hub.utils._http")
    monkeypatch.setattr(log, "level", log.level)
    monkeypatch.setattr(logging.getLogger("huggingface_hub"), "propagate", True)
    with pytest.raises(ValueError) as told:
        ItemEncoder(**{option: "absent-author/bert"})
    message = "'absent-author/bert' is no folder here, and no model to be had from the Hub: "
    assert str(told.value) == message + "the Hub cannot be reached, and it was not loaded before"
    assert not caplog.records


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/bert", "a/b/c"])
def test_what_can_only_be_a_folder_is_not_looked_for_on_the_hub(name: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"^no such folder: {name}$"):
        ItemEncoder(text_encoder=name)
