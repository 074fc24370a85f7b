"""The table of cases names tests that exist."""

import re
from pathlib import Path


def test_every_row_of_the_table_names_tests_that_are_there(repository: Path) -> None:
    rows = re.findall(
        r"^\| (\d+) \|(.*)$", (repository / "docs" / "cases.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert [int(number) for number, _ in rows] == list(range(1, 32))
    for number, row in rows:
        names = re.findall(r"`([\w/]+\.py)::(test_\w+)`", row)
        assert names, number
        for file, name in names:
            assert f"def {name}(" in (repository / "tests" / file).read_text(encoding="utf-8"), (number, file, name)
