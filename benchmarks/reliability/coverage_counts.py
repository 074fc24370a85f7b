"""Which share of lines and branches the tests run, by folder, and whether it is enough.

    make coverage
    python benchmarks/reliability/coverage_counts.py .cache/coverage.json --json benchmarks/reliability/coverage.json

Reads coverage.py's report as JSON. Status 1 where a folder is not above `--least` percent of lines or of branches.
"""

import argparse
import json
import sys
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
NUMBERS = {"lines": "num_statements", "lines_run": "covered_lines", "branches": "num_branches",
           "branches_run": "covered_branches"}  # fmt: skip


def by_folder(report: dict[str, Any]) -> dict[str, dict[str, int]]:
    """
    Counts of each folder and of all.

    Args:
        report (`dict[str, Any]`): What `coverage json` writes, with branches.

    Returns:
        `dict[str, dict[str, int]]`: `lines`, `lines_run`, `branches` and `branches_run`, of `modeling`, `conversion`,
        each folder of `mmm4rec_hf` with the files that it holds itself, and `all`.
    """
    folders: dict[str, dict[str, int]] = {}
    for file, found in report["files"].items():
        # mmm4rec_hf/data/readers counts as mmm4rec_hf/data.
        folder = "/".join(Path(file).parts[:-1][:2])
        counts = folders.setdefault(folder, dict.fromkeys(NUMBERS, 0))
        for name, theirs in NUMBERS.items():
            counts[name] += found["summary"][theirs]
    total = {name: sum(counts[name] for counts in folders.values()) for name in NUMBERS}
    return dict(sorted(folders.items())) | {"all": total}


def percent(run: int, of: int) -> float:
    """A share in percent, 100 of nothing."""
    return 100.0 * run / of if of else 100.0


def below(report: dict[str, Any], least: float) -> list[str]:
    """Files whose lines or branches are not above a percentage, the least covered first."""
    found = []
    for file, content in report["files"].items():
        n = content["summary"]
        lines = percent(n["covered_lines"], n["num_statements"])
        branches = percent(n["covered_branches"], n["num_branches"])
        if min(lines, branches) <= least:
            found.append((min(lines, branches), f"{file}: {lines:.1f}% of lines, {branches:.1f}% of branches"))
    return [words for _, words in sorted(found)]


def main() -> int:
    """Status 1 where a folder is not above `--least`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path, help="of coverage.py, as JSON")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the counts")
    parser.add_argument("--least", type=float, default=90, help="percent that each folder is above (default: 90)")
    args = parser.parse_args()
    report = json.loads(args.report.read_text(encoding="utf-8"))
    folders, too_low = by_folder(report), False
    for words in below(report, args.least):
        print(words)
    for folder, n in folders.items():
        shares = percent(n["lines_run"], n["lines"]), percent(n["branches_run"], n["branches"])
        too_low |= min(shares) <= args.least
        print(f"| {folder} | {n['lines']:,} | {shares[0]:.1f} | {n['branches']:,} | {shares[1]:.1f} |")
    if args.json is not None:
        sys.path += [str(ROOT), str(ROOT / "benchmarks")]
        from machine import machine_class

        from mmm4rec_hf.outputs import write_json

        content = {"date": date.today().isoformat(), "machine": machine_class(), "folders": folders}
        write_json(args.json, content)
    return int(too_low)


if __name__ == "__main__":
    raise SystemExit(main())
