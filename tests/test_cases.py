"""The tables of cases name tests that exist, and the second one where each case comes from."""

import re
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def rows(repository: Path) -> list[tuple[str, str]]:
    """Number and rest of each row of both tables."""
    return re.findall(r"^\| (\d+) \|(.*)$", (repository / "docs" / "cases.md").read_text("utf-8"), re.MULTILINE)


def test_every_row_of_the_tables_names_tests_that_are_there(rows: list[tuple[str, str]], repository: Path) -> None:
    assert len(rows) > 60 and [int(number) for number, _ in rows] == list(range(1, len(rows) + 1))
    for number, row in rows:
        names = re.findall(r"`([\w/]+\.py)::(test_\w+)`", row)
        assert names, number
        for file, name in names:
            assert f"def {name}(" in (repository / "tests" / file).read_text(encoding="utf-8"), (number, file, name)


def test_every_case_of_a_neighbour_names_its_thread_once(rows: list[tuple[str, str]]) -> None:
    # Rows that have one are those of neighbours: what came before went wrong in this very job, what follows here.
    threads = [cells[1].strip() for cells in (row.split("|") for _, row in rows) if len(cells) == 4]
    assert len(threads) >= 30
    assert all(re.fullmatch(r"[\w-]+/[\w-]+#\d+", thread) for thread in threads), threads
    assert len(set(threads)) == len(threads)
