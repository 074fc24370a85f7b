"""The two benchmarks that kill commands and fill disks, in small; they find nothing, and they find what is broken."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="runs are forked children")]


def run(repository: Path, script: str, *arguments: str | Path, before: str = "") -> "subprocess.CompletedProcess[str]":
    path = repository / "benchmarks" / "reliability" / script
    code = f"import runpy, sys; sys.argv[0] = {str(path)!r}; sys.path.insert(0, {str(path.parent)!r}); {before}\n"
    code += f"runpy.run_path({str(path)!r}, run_name='__main__')"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(
        command,
        env=environment | {"OMP_NUM_THREADS": "1"},
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_killed_commands_leave_nothing_half(repository: Path, tmp_path: Path) -> None:
    names = ["catalogue", "prepare-shards", "evaluate"]
    done = run(repository, "kill.py", "--times", "4", "--only", *names, "--json", tmp_path / "kill.json")
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    counts = json.loads((tmp_path / "kill.json").read_text())
    assert list(counts["jobs"]) == names and counts["kills"] >= 12 and counts["faults"] == 0
    assert all(job["kills"] >= 4 and 0 < job["restarts"] <= job["kills"] for job in counts["jobs"].values())


def test_full_disks_leave_nothing_half(repository: Path, tmp_path: Path) -> None:
    names = ["catalogue", "evaluate"]
    done = run(repository, "disk_full.py", "--times", "3", "--only", *names, "--json", tmp_path / "full.json")
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    counts = json.loads((tmp_path / "full.json").read_text())
    assert counts["full_disks"] + counts["failed_operations"] >= 6 and counts["faults"] == 0


def test_a_writer_that_writes_in_place_is_found(repository: Path) -> None:
    # As if nothing were written under another name first.
    broken = (
        "import contextlib, mmm4rec_hf.data.sequence_datasets as written; written.replace_folder = "
        "contextlib.contextmanager(lambda path: (yield (path.mkdir(parents=True, exist_ok=True), path)[1]))"
    )
    done = run(repository, "kill.py", "--times", "8", "--only", "prepare", before=broken)
    assert done.returncode == 1 and "half of it was taken for whole" in done.stdout, done.stdout + done.stderr[-3000:]
