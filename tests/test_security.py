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

from mmm4rec_hf import ItemCatalog, MMM4RecConfig, MMM4RecForSequentialRecommendation, MMM4RecProcessor
from mmm4rec_hf.cli import main
from mmm4rec_hf.training.saving import save_recommender

SIZES = {"hidden_size": 16, "intermediate_size": 16, "head_dim": 4, "state_size": 4, "max_sequence_length": 6}


def test_every_promise_names_tests_that_are_there(repository: Path) -> None:
    rows = re.findall(r"^\| (\d+) \|(.*)$", (repository / "SECURITY.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 13))
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
    for _, call in calls(repository):
        assert "trust_remote_code" not in {keyword.arg for keyword in call.keywords}, ast.unparse(call)


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
