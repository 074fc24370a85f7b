"""Counts of a coverage report, by folder, against sums by hand."""

import json
from pathlib import Path

from .conftest import Run


def of_file(lines: int, lines_run: int, branches: int, branches_run: int) -> dict[str, dict[str, int]]:
    return {
        "summary": {
            "num_statements": lines,
            "covered_lines": lines_run,
            "num_branches": branches,
            "covered_branches": branches_run,
        }
    }


FILES = {
    "modeling/loss.py": of_file(100, 100, 10, 10),
    "mmm4rec_hf/outputs.py": of_file(50, 46, 0, 0),
    "mmm4rec_hf/data/events.py": of_file(30, 30, 20, 19),
    "mmm4rec_hf/data/readers/files.py": of_file(20, 17, 20, 19),
}


def test_folders_are_summed_and_files_that_are_not_above_the_least_are_named(benchmark: Run, tmp_path: Path) -> None:
    report, counts = tmp_path / "report.json", tmp_path / "counts.json"
    report.write_text(json.dumps({"files": FILES}))
    run = benchmark("coverage_counts.py", report, "--json", counts)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == [
        "mmm4rec_hf/data/readers/files.py: 85.0% of lines, 95.0% of branches",
        "| mmm4rec_hf | 50 | 92.0 | 0 | 100.0 |",
        "| mmm4rec_hf/data | 50 | 94.0 | 40 | 95.0 |",
        "| modeling | 100 | 100.0 | 10 | 100.0 |",
        "| all | 200 | 96.5 | 50 | 96.0 |",
    ]
    written = json.loads(counts.read_text())["folders"]
    assert written["mmm4rec_hf/data"] == {"lines": 50, "lines_run": 47, "branches": 40, "branches_run": 38}


def test_a_folder_below_the_least_is_status_1(benchmark: Run, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    report.write_text(json.dumps({"files": FILES}))
    assert benchmark("coverage_counts.py", report, "--least", "92").returncode == 1
    assert benchmark("coverage_counts.py", report, "--least", "91.9").returncode == 0
