"""The tiny shop of the command's tests, what the commands make of it, and the benchmarks as commands."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ..cli.conftest import model, shop  # noqa: F401

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def benchmark(repository: Path) -> Run:
    """Runs a script of `benchmarks/reliability/` with arguments, after a piece of code that breaks something."""

    def run(script: str, *arguments: str | Path, before: str = "") -> "subprocess.CompletedProcess[str]":
        path = repository / "benchmarks" / "reliability" / script
        code = f"import runpy, sys; sys.argv[0] = {str(path)!r}; sys.path.insert(0, {str(path.parent)!r})\n{before}\n"
        code += f"runpy.run_path({str(path)!r}, run_name='__main__')"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        command = [sys.executable, "-c", code, *map(str, arguments)]
        return subprocess.run(
            command,
            env=environment,
            cwd=repository,
            capture_output=True,
            text=True,
            timeout=600,
        )

    return run
