"""Runs the whole test suite again and again, each time in another random order and on several processes.

    python benchmarks/reliability/repeat.py --times 20 --json benchmarks/reliability/repeat.json

A test that needs what another left behind, or that fails one time in ten, is found so. Each run has its number as the
seed of its order and is written down when it ends: its commit, the seed, what passed and what failed, the minutes. A
later call of the same command goes on with the next numbers until there are `--times` runs. Status 1 where one failed.
The order alone: `pytest --random-order --random-order-seed=SEED`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from datetime import date
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from mmm4rec_hf.outputs import write_json
from mmm4rec_hf.training.record import machine_class

ROOT = Path(__file__).resolve().parents[2]


def run_suite(seed: int, processes: int, options: list[str]) -> dict[str, Any]:
    """
    One run of the suite, and what it showed.

    Args:
        seed (`int`): Of the order.
        processes (`int`): That share the tests.
        options (`list[str]`): More of pytest's, such as `-m "not slow"`.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        order = ["--random-order", f"--random-order-seed={seed}"]
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-n",
            str(processes),
            "--dist=worksteal",
            f"--junit-xml={report}",
            *order,
            *options,
        ]
        start = time.perf_counter()
        ended = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        minutes = (time.perf_counter() - start) / 60
        if not report.is_file():
            raise RuntimeError(f"pytest ended with status {ended.returncode} and no report:\n{ended.stdout[-2000:]}")
        suite = ElementTree.parse(report).getroot()[0]
    failed = sorted(
        f"{case.get('classname')}.{case.get('name')}"
        for case in suite.iter("testcase")
        if case.find("failure") is not None or case.find("error") is not None
    )
    if failed or ended.returncode:
        print(ended.stdout[-6000:], file=sys.stderr)
    skipped = int(suite.get("skipped", 0))
    return {
        "seed": seed, "commit": commit(), "date": date.today().isoformat(), "status": ended.returncode,
        "passed": int(suite.get("tests", 0)) - skipped - len(failed), "skipped": skipped, "failed": failed,
        "minutes": round(minutes, 1),
    }  # fmt: skip


def commit() -> str:
    """The short name of the commit, with a + where files that git tracks were changed; `none` outside a checkout."""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip() or "none"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20, help="runs in all")
    parser.add_argument("--processes", type=int, default=2, help="of each run")
    parser.add_argument("--json", type=Path, default=ROOT / ".cache" / "repeat.json", help="where the runs stand")
    parser.add_argument("options", nargs="*", help="more options of pytest, after --")
    arguments = parser.parse_args()
    runs = json.loads(arguments.json.read_text())["runs"] if arguments.json.is_file() else []
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    for seed in tqdm(range(len(runs), arguments.times), desc="Runs of the suite", disable=None):
        runs.append(run_suite(seed, arguments.processes, arguments.options))
        write_json(arguments.json, {"machine": machine_class(), "options": arguments.options, "runs": runs})
        last = runs[-1]
        print(
            f"seed {seed} at {last['commit']}: {last['passed']} passed, {last['skipped']} skipped, "
            f"{len(last['failed'])} failed, {last['minutes']} minutes",
            flush=True,
        )
    return int(any(run["status"] for run in runs))


if __name__ == "__main__":
    sys.exit(main())
