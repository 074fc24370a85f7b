"""The promises of SECURITY.md: each names tests that exist, and those that no other file holds stand here."""

import ast
import json
import os
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoProcessor

from mmm4rec_hf import ItemCatalog, MMM4RecConfig, MMM4RecForSequentialRecommendation, MMM4RecProcessor
from mmm4rec_hf.cli import main
from mmm4rec_hf.items import ItemEncoder
from mmm4rec_hf.items.recorded import recorded_encoder
from mmm4rec_hf.serving.loading import load_recommender
from mmm4rec_hf.training.saving import save_recommender

from .tiny_encoders import save_tiny_encoders

SIZES = {"hidden_size": 16, "intermediate_size": 16, "head_dim": 4, "state_size": 4, "max_sequence_length": 6}


def test_every_promise_names_tests_that_are_there(repository: Path) -> None:
    rows = re.findall(r"^\| (\d+) \|(.*)$", (repository / "SECURITY.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 14))
    for number, row in rows:
        names = re.findall(r"`([\w/]+\.py)::(test_\w+)`", row)
        assert names, number
        for file, name in names:
            assert f"def {name}(" in (repository / "tests" / file).read_text(encoding="utf-8"), (number, file, name)


def calls(repository: Path) -> list[tuple[str, ast.Call]]:
    """Every call in the package, with its name as it is written."""
    found = []
    for folder in ("mmm4rec_hf", "modeling", "conversion"):
        for path in (repository / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call):
                    found.append((ast.unparse(node.func), node))
    assert len(found) > 1000
    return found


def test_the_package_calls_nothing_that_runs_what_a_file_says(repository: Path) -> None:
    forbidden = {"eval", "exec", "compile", "__import__", "pickle.load", "pickle.loads", "yaml.unsafe_load"}
    forbidden |= {"yaml.full_load", "os.system", "os.popen", "marshal.loads", "joblib.load"}
    loaders = []
    for name, call in calls(repository):
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert name not in forbidden, (name, ast.unparse(call))
        assert options.get("shell") != "True" and options.get("allow_pickle") != "True", ast.unparse(call)
        if name == "torch.load":
            loaders.append(options.get("weights_only"))
        if name == "yaml.load":
            assert options == {"Loader": "_PlainLoader"}
    assert loaders and set(loaders) == {"True"}


def test_no_code_asks_for_remote_code(repository: Path) -> None:
    for name, call in calls(repository):
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert given.get("trust_remote_code", "False") == "False", ast.unparse(call)
        # Where nothing is said, the classes that look for others ask on the terminal.
        if re.fullmatch(r"(auto_class|Auto\w+)\.from_pretrained", name):
            assert "trust_remote_code" in given or given.get(None) == "kwargs", ast.unparse(call)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A recommender's folder."""
    catalog = ItemCatalog(["a", "b"], text_features=np.eye(2), image_features=np.eye(2))
    model = MMM4RecForSequentialRecommendation(MMM4RecConfig(**SIZES, text_feature_size=2, image_feature_size=2))
    model.set_items(catalog)
    save_recommender(model, MMM4RecProcessor(), catalog, tmp_path / "model")
    (tmp_path / "users.jsonl").write_text('{"items": ["a"]}\n')
    return tmp_path / "model"


def refused(model: Path, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    users, output = model.parent / "users.jsonl", model.parent / "out.jsonl"
    assert main(["recommend", str(model), "--input", str(users), "--output", str(output)]) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mmm4rec: error: ")]
    assert len(errors) == 1 and "Traceback" not in errors[0] and not output.exists()
    return errors[0]


def needing_code(folder: Path, part: str) -> Path:
    """Makes one part of a saved processor a class of the folder's own file; where it is run there is a file `ran`."""
    ran = folder / "ran"
    base = "PreTrainedTokenizerFast" if part == "tokenizer" else "CLIPImageProcessor"
    code = f"from transformers import {base}\nopen({str(ran)!r}, 'w').close()\nclass Part({base}): pass\n"
    (folder / "stranger.py").write_text(code)
    settings = json.loads((folder / "processor_config.json").read_text())
    if part == "processor":
        settings |= {"processor_class": "Part", "auto_map": {"AutoProcessor": "stranger.Part"}}
    else:
        settings["absent_parts"].remove(part)
    (folder / "processor_config.json").write_text(json.dumps(settings))
    if part == "tokenizer":
        Tokenizer(WordLevel({"a": 0}, unk_token="a")).save(str(folder / "tokenizer.json"))
        told = {"tokenizer_class": "Part", "auto_map": {"AutoTokenizer": ["stranger.Part", "stranger.Part"]}}
        (folder / "tokenizer_config.json").write_text(json.dumps(told))
    elif part == "image_processor":
        told = {"image_processor_type": "Part", "auto_map": {"AutoImageProcessor": "stranger.Part"}}
        (folder / "preprocessor_config.json").write_text(json.dumps(told))
    return ran


@pytest.fixture
def yes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever is asked on the terminal says yes; code that is run is copied into a folder of the test's own."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))


@pytest.mark.parametrize("part", ["tokenizer", "image_processor", "processor"])
def test_a_yes_on_stdin_is_not_asked_for_and_runs_no_code(
    saved: Path, capsys: pytest.CaptureFixture[str], yes: None, part: str
) -> None:
    ran = needing_code(saved, part)
    told = f"{saved} needs code of its own, which no command runs; if you trust it, load it in Python with "
    assert refused(saved, capsys) == f"mmm4rec: error: {told}trust_remote_code=True"
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        load_recommender(saved)
    assert not ran.exists()


@pytest.mark.parametrize("part", ["tokenizer", "image_processor"])
def test_a_processor_runs_code_of_its_parts_where_the_caller_says_so_alone(saved: Path, yes: None, part: str) -> None:
    ran = needing_code(saved, part)
    for options in ({}, {"trust_remote_code": None}, {"trust_remote_code": False}):
        for load in (MMM4RecProcessor, AutoProcessor):
            with pytest.raises(ValueError, match="trust_remote_code=True"):
                load.from_pretrained(saved, **options)
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        load_recommender(saved)
    assert not ran.exists()
    loaded = MMM4RecProcessor.from_pretrained(saved, trust_remote_code=True)
    assert type(getattr(loaded, part)).__name__ == "Part" and ran.exists()


@pytest.mark.parametrize("part", ["configuration", "image_processor"])
def test_an_encoder_runs_no_code_of_its_folder(
    tmp_path: Path, yes: None, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    folder = tmp_path / ("vit" if part == "image_processor" else "bert")
    save_tiny_encoders(tmp_path / "bert", tmp_path / "vit", ["red"])
    (folder / "stranger.py").write_text(f"open({str(folder / 'ran')!r}, 'w').close()\nclass Part: pass\n")
    file, auto, code = {
        "configuration": ("config.json", "AutoConfig", "stranger.Part"),
        "image_processor": ("preprocessor_config.json", "AutoImageProcessor", "stranger.Part"),
    }[part]
    own = {"model_type": "part", "image_processor_type": "Part"}
    told = json.loads((folder / file).read_text()) | own | {"auto_map": {auto: code}}
    (folder / file).write_text(json.dumps(told))
    kind = "image_encoder" if part == "image_processor" else "text_encoder"
    with pytest.raises(ValueError, match=f"{folder.name}' needs code of its own repository, which is not run; "):
        ItemEncoder(**{kind: folder})
    made = {kind.split("_")[0]: {"encoder": str(folder.name), "revision": None, "pooling": "mean"}}
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="cannot be loaded: .* code of its own"):
        recorded_encoder(made, modalities=[kind.split("_")[0]])
    assert not (folder / "ran").exists()


Header = dict[str, dict[str, Any]]
LIES: dict[str, Callable[[Header, list[str]], tuple[Any, int | None]]] = {
    "huge header": lambda header, names: (header, 2**63),
    "header beyond the file": lambda header, names: (header, 10**7),
    "overlap": lambda header, names: (header | {names[0]: header[names[1]]}, None),
    "before the file": lambda header, names: (header | {names[0]: header[names[0]] | {"data_offsets": [-4, 4]}}, None),
    "huge shape": lambda header, names: (header | {names[0]: header[names[0]] | {"shape": [2**62, 2]}}, None),
    "unknown type": lambda header, names: (header | {names[0]: header[names[0]] | {"dtype": "F3"}}, None),
    "nested": lambda header, names: ("[" * 100_000, None),
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("file", ["model.safetensors", "catalog/features.safetensors"])
def test_weights_whose_header_lies_are_refused_in_one_line(
    saved: Path, capsys: pytest.CaptureFixture[str], lie: str, file: str
) -> None:
    path = saved / file
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    changed, told = LIES[lie](header, sorted(name for name in header if name != "__metadata__"))
    text = changed.encode() if isinstance(changed, str) else json.dumps(changed).encode()
    path.write_bytes(struct.pack("<Q", len(text) if told is None else told) + text + content[8 + length :])
    if file == "model.safetensors":
        assert "header" in refused(saved, capsys)
    else:
        with pytest.raises(ValueError, match=r"catalog is damaged \(SafetensorError: "):
            ItemCatalog.from_pretrained(saved / "catalog")


class Malicious:
    """Makes a folder when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


def test_a_pickled_model_that_would_run_code_is_refused(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (saved / "model.safetensors").unlink()
    torch.save({"model.text_projection.bias": Malicious(saved / "pwned")}, saved / "pytorch_model.bin")
    assert "Weights only load failed" in refused(saved, capsys)
    assert not (saved / "pwned").exists()
