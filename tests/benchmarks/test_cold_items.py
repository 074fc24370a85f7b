"""Held-out items: what is told of their ranks, and that the study's README tells what the results hold."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / "quality"))
import cold_items  # noqa: E402

METHODS = {
    "all items as negatives, the default": ("mmm4rec", ""),
    "in-batch, without logQ": ("mmm4rec", "-in_batch"),
    "likeness of text": ("text_knn", ""),
}


def draw(mmm4rec: list[int], text_knn: list[int]) -> dict[str, Any]:
    """A result of four targets, the first two of one user and all of one item; a method's hits are 1."""
    ranks = {
        name: {"larger": [0 if hit else 50 for hit in hits], "equal": [1] * 4}
        for name, hits in (("mmm4rec", mmm4rec), ("text_knn", text_knn))
    }
    return {"chance": {"hr@10": 0.125}, "user": [0, 0, 1, 2], "item": [7] * 4, "ranks": ranks}


def test_differences_are_told_over_users_and_over_items() -> None:
    one, other = draw([1, 1, 1, 0], [0, 0, 0, 0]), draw([1, 0, 0, 0], [0, 0, 0, 0])
    lines = cold_items.summary([one], [other])
    told = {line.split(":")[0].strip(): line for line in lines}
    # Three of four hits, where a random order has one of eight.
    assert told["mmm4rec, times chance"].split(": ")[1].startswith("6.0000 ")
    assert told["text_knn, times chance"].split(": ")[1].startswith("0.0000 ")
    assert told["mmm4rec less text_knn"].split(": ")[1].startswith("0.7500 ")
    assert told["mmm4rec less --loss full"].split(": ")[1].startswith("0.5000 ")
    # The sums of users 0 and 1, 2 and 1: of the four draws of their signs two lie as far from 0. One item has two
    # draws, both as far.
    p_values = [float(part.split("p = ")[1].strip(")")) for part in told["mmm4rec less text_knn"].split("; ")]
    assert p_values == pytest.approx([0.5, 1.0], abs=0.02)
    assert not any("full" in line for line in cold_items.summary([one], []))


@pytest.mark.parametrize("title", METHODS)
def test_the_table_of_the_readme_is_that_of_the_results(repository: Path, title: str) -> None:
    folder = repository / "benchmarks" / "quality"
    section = (folder / "README.md").read_text("utf-8").split("## Items that training never saw")[1].split("\n## ")[0]
    row = next(line for line in section.splitlines() if line.startswith(f"| {title} |"))
    method, loss = METHODS[title]
    expected = []
    for data in ("movies_b", "beauty"):
        results = [json.loads((folder / f"results/cold/{data}{loss}-{seed}.json").read_text()) for seed in range(3)]
        for found in results:
            larger, equal = (np.array(found["ranks"][method][key]) for key in ("larger", "equal"))
            # Of the places of equal items those among the first ten.
            hits = np.clip(10 - larger, 0, equal) / equal
            assert found[method]["hr@10"] == pytest.approx(hits.mean())
            assert len(hits) == len(found["user"]) == len(found["item"]) == found["targets"]
        times = [found[method]["hr@10"] * found["items"] / 10 for found in results]
        expected.append(f"{np.mean(times):.1f} ({', '.join(f'{value:.1f}' for value in times)})")
    assert [cell.strip() for cell in row.split("|")[2:-1]] == expected


def number(value: str) -> str:
    """As tables of the README have it: three digits, a sign, no zero before the point."""
    return f"{float(value):+.3f}".replace("0.", ".", 1)


def test_the_differences_of_the_readme_are_those_that_the_command_prints(repository: Path) -> None:
    folder = repository / "benchmarks" / "quality"
    section = (folder / "README.md").read_text("utf-8").split("## Items that training never saw")[1].split("\n## ")[0]
    rows: dict[str, list[str]] = {}
    for data in ("movies_b", "beauty"):
        default, in_batch = (
            [json.loads((folder / f"results/cold/{data}{loss}-{seed}.json").read_text()) for seed in range(3)]
            for loss in ("", "-in_batch")
        )
        lines = [*cold_items.summary(default, [])[2:], *cold_items.summary(in_batch, default)[2:]]
        titles = ("default less likeness of text", "in-batch less likeness of text", "in-batch less default")
        for title, line in zip(titles, lines, strict=True):
            mean, users, items = re.fullmatch(r".*: (\S+) \(over users (.*); over items (.*)\)", line).groups()  # type: ignore[union-attr]
            told = []
            for part in (items, users):
                low, high, p_value = re.fullmatch(r"(\S+) to (\S+), p = (\S+)", part).groups()  # type: ignore[union-attr]
                p_words = "p < .001" if float(p_value) < 0.001 else f"p = {float(p_value):.2f}".replace("0.", ".")
                told.append(f"{number(low)} to {number(high)}, {p_words}")
            rows.setdefault(title, []).extend([number(mean), *told])
    for title, cells in rows.items():
        assert f"| {title} | {' | '.join(cells)} |" in section
