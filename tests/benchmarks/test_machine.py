"""What benchmarks record of themselves."""

import sys
from pathlib import Path

import pytest


def test_the_command_names_no_folder_of_the_machine(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    monkeypatch.delitem(sys.modules, "machine", raising=False)
    from machine import command_line

    words = [
        str(repository / "benchmarks" / "speed" / "step.py"),
        "--repeats",
        "3",
        "--json",
        str(tmp_path / "a.json"),
    ]
    monkeypatch.setattr(sys, "argv", [*words, f"--plot={tmp_path}/a.png", "--data", "beauty"])
    assert command_line() == "python benchmarks/speed/step.py --repeats 3 --data beauty"
