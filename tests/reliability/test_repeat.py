"""The benchmark that repeats the suite finds what depends on the order, and goes on where it stopped."""

import json
from pathlib import Path

import pytest

from .conftest import Run

pytestmark = pytest.mark.slow

# The first fails wherever another one ran before it: in two of three orders.
TESTS = """
ran = []

def test_one():
    assert not ran

def test_two():
    ran.append("two")

def test_three():
    ran.append("three")
"""


def test_a_test_that_needs_a_certain_order_is_found_and_runs_go_on(benchmark: Run, tmp_path: Path) -> None:
    (tmp_path / "test_order.py").write_text(TESTS)
    written = tmp_path / "repeat.json"

    def repeat(times: int) -> tuple[int, str]:
        options = ["--", f"--rootdir={tmp_path}", "--override-ini=addopts=", tmp_path / "test_order.py"]
        done = benchmark("repeat.py", "--times", str(times), "--processes", "1", "--json", written, *options)
        return done.returncode, done.stdout + done.stderr[-3000:]

    status, output = repeat(3)
    runs = json.loads(written.read_text())["runs"]
    assert [run["seed"] for run in runs] == [0, 1, 2], output
    assert status == 1 and 0 < sum(run["status"] for run in runs) < 3, output
    for run in runs:
        assert run["failed"] == ["test_order.test_one"] * run["status"]
        assert run["passed"] == 3 - run["status"] and run["skipped"] == 0
    repeat(4)
    longer = json.loads(written.read_text())["runs"]
    assert longer[:3] == runs and [run["seed"] for run in longer] == [0, 1, 2, 3]
