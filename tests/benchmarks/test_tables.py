"""The tables of results: each method beside the best that counts, or beside one that is named."""

import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / "quality"))
import run_files  # noqa: E402
import tables  # noqa: E402


def run(model: str, hits: list[int]) -> dict[str, Any]:
    """A run whose users find their target first (1) or not among the first ten (0)."""
    counts = np.array([[0, 1] if hit else [50, 1] for hit in hits])
    return run_files.make_run("shop", model, {}, {"test": run_files.make_split(counts)}, seed=0)


def cells(lines: list[str], method: str) -> list[str]:
    return next(line.split(" | ") for line in lines if line.startswith(f"| {method} |"))


def test_methods_stand_beside_the_best_that_counts_or_the_one_named() -> None:
    made = [run("popularity", [1, 0, 0, 0]), run("peer", [1, 1, 1, 0]), run("mmm4rec", [1, 1, 1, 1])]
    methods, users = tables.methods_of(made, "shop"), np.ones(4, dtype=bool)
    lines = tables.table(methods, users)
    assert "against popularity" in lines[0] and cells(lines, "mmm4rec")[5] == "+0.7500"
    lines = tables.table(methods, users, "peer")
    # One of four users differs: draws with replacement hold this one at most three times, but for a hundredth of them.
    assert "against peer" in lines[0] and cells(lines, "mmm4rec")[5] == "+0.2500 (+0.0000 to +0.7500)"
    assert cells(lines, "peer")[5].strip() == ""
    # Either sign of the one difference is as far from 0.
    assert cells(lines, "mmm4rec")[6].strip(" |") == "1.000"
