"""The page on reliability tells the counts that the benchmarks wrote."""

import json
from pathlib import Path


def test_the_counts_on_the_page_are_those_of_the_results(repository: Path) -> None:
    page = (repository / "docs" / "reliability.md").read_text(encoding="utf-8")
    folder = repository / "benchmarks" / "reliability"
    kills = json.loads((folder / "kill.json").read_text())
    assert f"{kills['kills']} kills and {kills['restarts']} restarted commands; {kills['faults']} faults" in page
    for name, job in kills["jobs"].items():
        columns = ("kills", "after_a_time", "before_an_operation", "parts_left_whole")
        row = [name, *(job[column] for column in (*columns, "parts_left_with_one_clear_error")), len(job["faults"])]
        assert f"| {' | '.join(map(str, row))} |" in page
    assert kills["kills"] == sum(job["kills"] for job in kills["jobs"].values()) > 100
    full = json.loads((folder / "disk_full.json").read_text())
    told = (
        f"{full['full_disks']} full disks and {full['failed_operations']} failed operations; {full['faults']} faults"
    )
    assert told in page
    for name, job in full["jobs"].items():
        row = f"| {name} | {job['full_disks']} | {job['failed_operations']} | {len(job['faults'])} |"
        assert row in page or job["full_disks"] == job["failed_operations"] == 0
    read = json.loads((folder / "fuzz.json").read_text())
    inputs = sum(reader["inputs"] for reader in read["readers"].values())
    assert f"--minutes {read['minutes']} " in page and f"gave {inputs:,} damaged" in page


def test_the_mutants_on_the_page_are_those_of_the_results(repository: Path) -> None:
    page = (repository / "docs" / "reliability.md").read_text(encoding="utf-8")
    folder = repository / "benchmarks" / "reliability"
    found = json.loads((folder / "mutation.json").read_text())
    told = f"{found['tried']:,} of {found['mutants']:,} mutants tried; {found['killed']} killed, "
    later = found["survived_until_a_test_was_written"]
    told += f"{later} of them only by tests that were written when they had survived; "
    prose = " ".join(page.split())
    assert told + f"{found['explained']} survived for a reason, {found['survived']} without." in prose
    assert found["survived"] == 0 and f"an Intel Xeon, {found['date']}:" in prose
    for name, file in found["files"].items():
        ends = [file[column] for column in ("mutants", "tried", "killed", "timed_out")]
        row = [name, *ends, len(file["explained"]), len(file["survived"])]
        assert f"| {' | '.join(map(str, row))} |" in page
        assert file["tried"] == file["killed"] + file["timed_out"] + len(file["explained"]) + len(file["survived"])
    for column in ("mutants", "tried", "killed"):
        assert found[column] == sum(file[column] for file in found["files"].values()) > 0


def test_the_shares_of_lines_and_branches_on_the_page_are_those_that_were_counted(repository: Path) -> None:
    page = (repository / "docs" / "reliability.md").read_text(encoding="utf-8")
    found = json.loads((repository / "benchmarks" / "reliability" / "coverage.json").read_text())
    for name, folder in found["folders"].items():
        lines, branches = (100 * folder[f"{what}_run"] / folder[what] for what in ("lines", "branches"))
        assert f"| {name} | {folder['lines']:,} | {lines:.1f} | {folder['branches']:,} | {branches:.1f} |" in page
        assert lines > 90 and branches > 90


def test_the_runs_in_a_row_on_the_page_are_those_that_were_made(repository: Path) -> None:
    page = (repository / "docs" / "reliability.md").read_text(encoding="utf-8")
    runs = json.loads((repository / "benchmarks" / "reliability" / "repeat.json").read_text())["runs"]
    assert [run["seed"] for run in runs] == list(range(20))
    # One code, all of whose tests ran each time and passed.
    commit, passed, skipped = (runs[0][name] for name in ("commit", "passed", "skipped"))
    same = {"commit": commit, "status": 0, "passed": passed, "skipped": skipped, "failed": []}
    for run in runs:
        assert run == same | {name: run[name] for name in ("seed", "date", "minutes")}
    minutes = [run["minutes"] for run in runs]
    assert max(minutes) < 20
    told = " ".join(page.split())
    assert f"ran the whole suite 20 times in a row at {commit}, each time" in told
    assert f"each time {passed:,} tests passed, {skipped} were skipped by name and 0 failed, " in told
    assert f"in {min(minutes)} to {max(minutes)} minutes" in told


def test_each_reason_is_of_a_line_that_is_there(repository: Path) -> None:
    for entry in json.loads((repository / "benchmarks" / "reliability" / "explained.json").read_text()):
        lines = (repository / entry["file"]).read_text(encoding="utf-8").splitlines()
        assert entry["line"] in map(str.strip, lines), entry
        assert entry["why"].startswith(("equal: ", "cost: ", "device: ")) and len(entry["why"]) > 10
