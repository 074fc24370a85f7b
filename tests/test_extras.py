"""Where the packages of an extra are missing, the error says how to install it, from a clone too."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mmm4rec_hf.cli import main
from mmm4rec_hf.export import OnnxUserEncoder
from mmm4rec_hf.extras import how_to_install
from mmm4rec_hf.index import FaissIndex
from mmm4rec_hf.reporting.figures import require_matplotlib

PACKAGE = Path(__file__).parents[1] / "mmm4rec_hf"


def test_the_line_is_right_for_a_release_and_for_a_clone() -> None:
    line = "pip install 'mmm4rec-hf[serve]', from a clone pip install -c constraints.txt '.[serve]'"
    assert how_to_install("serve") == line


def test_each_extra_that_is_told_is_one_of_the_package_and_none_is_told_otherwise() -> None:
    sources = {path: path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
    named = {name for source in sources.values() for name in re.findall(r"how_to_install\([\"'](\w+)", source)}
    project = (PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8")
    extras = re.findall(r"^(\w+) = \[", project.partition("[project.optional-dependencies]")[2], re.MULTILINE)
    assert named == {"serve", "report", "onnx", "faiss"} <= set(extras)
    assert [path.name for path, source in sources.items() if "mmm4rec-hf[" in source] == ["extras.py"]


@pytest.mark.parametrize(
    ("module", "use", "extra"),
    [
        ("faiss", lambda: FaissIndex.load("index"), "faiss"),
        ("onnxruntime", lambda: OnnxUserEncoder("encoder.onnx"), "onnx"),
        ("matplotlib.figure", require_matplotlib, "report"),
    ],
)
def test_a_missing_package_is_told_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, module: str, use: Callable[[], object], extra: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        (ImportError, RuntimeError), match=rf"'mmm4rec-hf\[{extra}\]', from a clone .*'\.\[{extra}\]'$"
    ):
        use()


def test_serve_without_its_packages_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "mmm4rec_hf.serving.page", None)
    assert main(["serve", "run"]) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and told.endswith(how_to_install("serve") + "\n")
