"""The command that changes the code finds the function that no test holds."""

import json
from pathlib import Path

import pytest

from .conftest import Run

pytest.importorskip("cosmic_ray", reason="pip install cosmic-ray")

MODULE = '''
"""Two functions."""

__all__ = ["half", "next_one"]
_HALVES = 2
_READ_BY_NOBODY = 7


def half(x: int | float) -> float:
    """Half of a number, 1 / 2 of it."""
    return x / _HALVES


def next_one(x: int) -> int:
    if x < 0:
        raise ValueError(f"{x * 1} is below 0")
    return x + 1
'''
TESTS = """
from two_functions import half, next_one


def test_half():
    assert half(5) == 2.5


def test_next_one():
    assert {check}
"""


@pytest.fixture
def module(tmp_path: Path) -> Path:
    (tmp_path / "two_functions.py").write_text(MODULE)
    (tmp_path / "test_two_functions.py").write_text(TESTS.replace("{check}", "next_one(0) > 0"))
    return tmp_path / "two_functions.py"


@pytest.mark.slow
def test_a_missing_test_leaves_survivors_which_a_later_test_kills(
    benchmark: Run, module: Path, tmp_path: Path
) -> None:
    tests, results = module.parent / "test_two_functions.py", tmp_path / "results.json"
    arguments = ("mutation.py", module, "--tests", tests, "--json", results)
    first = benchmark(*arguments)
    record = json.loads(results.read_text())[str(module)]
    changes = {mutant["change"] for mutant in record["survived"]}
    assert first.returncode == 1, first.stderr
    # 0 + 1 and 0 + 2 are above 0, as is 1 of 0 | 1; nothing holds that negative numbers are refused.
    assert {"return x + 1 -> return x + 2", "return x + 1 -> return x | 1", "if x < 0: -> if x < -1:"} <= changes
    # Two halves are held by a test of what reads them, and no test can tell what nobody reads.
    assert {mutant["line"] for mutant in record["survived"]} <= {6, 15, 17}
    assert {"_READ_BY_NOBODY = 7 -> _READ_BY_NOBODY = 8", "_READ_BY_NOBODY = 7 -> _READ_BY_NOBODY = 6"} <= changes
    assert "return x + 1 -> return x - 1" not in changes and "17: return x + 1 -> return x + 2" in first.stdout
    assert module.read_text() == MODULE
    # The eleven other operators and two other numbers for x / _HALVES are killed by the test of half.
    assert len(record["killed"].split()) >= 13

    more = "import pytest\n" + TESTS.replace("{check}", "next_one(0) == 1 and next_one(3) == 4")
    more += "    with pytest.raises(ValueError):\n        next_one(-1)\n"
    tests.write_text(more)
    again = benchmark(*arguments, "--again")
    record = json.loads(results.read_text())[str(module)]
    assert {mutant["change"] for mutant in record["killed_later"]} >= {"return x + 1 -> return x + 2"}
    assert not [mutant for mutant in record["survived"] if mutant["line"] == 17], again.stdout
    # What is finished is not run again: without tests to run there would be an error.
    tests.write_text("")
    assert benchmark(*arguments).stdout == again.stdout.splitlines()[-1] + "\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tests", "reason"),
    [
        ("def test_nothing():\n    pass\n", "don't import it"),
        ("import two_functions\n\ndef test_it():\n    assert False\n", "they fail"),
        ("import two_functions\n", "there are none"),
    ],
)
def test_tests_that_cannot_judge_are_refused(benchmark: Run, module: Path, tests: str, reason: str) -> None:
    path = module.parent / "test_other.py"
    path.write_text(tests)
    run = benchmark("mutation.py", module, "--tests", path)
    assert run.returncode == 2 and reason in run.stderr and "Traceback" not in run.stderr
