"""Lets the disk be full while every writing command runs, looks at what is left, and gives the command again.

    OMP_NUM_THREADS=1 python benchmarks/reliability/disk_full.py --times 8 --json benchmarks/reliability/disk_full.json

Each command runs over an earlier output, where it replaces one. It must end with status 1 and one line, leave the
earlier output as it was and no temporary file, and, given again with space, end with the bytes of a run that was not
disturbed. What a training had finished before (its checkpoints and its best model so far) stays.

Half of the runs are on a small disk of their own with too little space left, which needs the right to mount a
`tmpfs`, so that every writer meets it, those in C and Rust as well; in the others Python's own writes fail at a drawn
operation. Without that right all are of the second kind. A run that ends with status 0 must have left the bytes of an
undisturbed one, and is not counted then: its output fitted.
"""

import argparse
import contextlib
import errno
import os
import random
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from runs import JobRuns, Read, Undisturbed, arguments, on_operations, with_inputs, write_counts

DISK = 48 * 2**20


@dataclass
class Counts:
    """Of one job."""

    full_disks: int = 0
    failed_operations: int = 0
    messages: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def times(self) -> int:
        return self.full_disks + self.failed_operations


class Filler(JobRuns):
    """
    Runs one job on full disks.

    Args:
        name (`str`): The job's.
        inputs (`Path`): What jobs read.
        work (`Path`): A folder for its runs.
        draw (`random.Random`): Decides how much space is left.
        has_disk (`bool`): Whether `work` lies on a small disk.
    """

    def __init__(self, name: str, inputs: Path, work: Path, draw: random.Random, has_disk: bool) -> None:
        # Not on the disk that will be full.
        super().__init__(name, inputs, work, draw, inputs.with_name(f"{name}.log"))
        self.has_disk = has_disk
        self.counts = Counts()

    def trial(self) -> None:
        """One fresh folder: a full disk, a look, and the command once more."""
        with_old = max(self.expected)
        expected, folder = self.expected[with_old], self._folder(with_old)
        old = self._read(folder)
        is_disk = self.has_disk and self.draw.random() < 0.5
        status, lines = self._run_full(folder, expected, is_disk)
        if status == 0:
            differing = self._differing(folder, expected)
            faults = [f"it ended with 0 and left {', '.join(differing[:5])}"] if differing else []
        else:
            faults = self._wrong_words(status, lines) + self._wrong_files(folder, expected, old)
            faults += self._again(folder, expected)
        if status != 0 or faults:
            self.counts.full_disks += is_disk
            self.counts.failed_operations += not is_disk
        self.counts.faults += [f"{'full disk' if is_disk else 'failed operation'}: {fault}" for fault in faults]
        shutil.rmtree(folder)

    def _wrong_words(self, status: int, lines: list[str]) -> list[str]:
        """What is wrong about a status and what was said with it."""
        errors = [line for line in lines if "error: " in line]
        is_named = len(errors) == 1 and os.strerror(errno.ENOSPC) in errors[0]
        if status != 1 or not is_named or any("Traceback" in line for line in lines):
            return [f"status {status}: {' / '.join(lines[-4:])}"]
        self.counts.messages.append(errors[0])
        return []

    def _wrong_files(self, folder: Path, expected: Undisturbed, old: Read) -> list[str]:
        """What is wrong about a folder after a command that failed."""
        faults = []
        for part, (kind, value) in self._read(folder).items():
            is_kept = (kind, value) == old[part]
            # Of a training: its best model so far.
            if not is_kept and not (old[part][0] == "error" and kind == "is" and value in expected.after[part]):
                faults.append(f"{part} was {old[part]}, and is {kind} {value}")
        left = [path.name for path in folder.rglob(".*") if path.name.endswith((".partial", ".replaced"))]
        # A pretraining removes a checkpoint that was not finished when it saves the next one.
        left = [name for name in left if not name.startswith(".checkpoint-")]
        return [*faults, f"left {left}"] if left else faults

    def _run_full(self, folder: Path, expected: Undisturbed, is_disk: bool) -> tuple[int, list[str]]:
        number = self.draw.randint(1, max(1, expected.operations))
        # Mostly less than is written; small outputs fail at their first file.
        left = int(self.draw.random() * 0.9 * expected.size)
        self.log.write_bytes(b"")
        filler = folder.parent / "filler"

        def fail(at: int) -> None:
            if at == number:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def task() -> int:
            if is_disk:
                fill(filler, left)
            else:
                on_operations(folder, fail, making=True)
            return self.job.run(self.inputs)

        try:
            status = self._call(task, folder)
        except RuntimeError:
            status = -1  # a traceback, which the log holds
        filler.unlink(missing_ok=True)
        return status, self.log.read_text(errors="replace").strip().splitlines()


def fill(path: Path, left: int) -> None:
    """Fills a disk but for some bytes."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(2**16)):
            pass
    status = os.statvfs(path.parent)
    os.truncate(path, max(0, path.stat().st_size - max(0, left - status.f_bavail * status.f_frsize)))


def mounted(folder: Path) -> bool:
    """Makes a folder a small disk, where that is allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
    return shutil.which("mount") is not None and subprocess.run(command, capture_output=True).returncode == 0


def run(args: argparse.Namespace, folder: Path) -> int:
    """Runs the jobs on full disks, and tells what came of it."""
    from jobs import JOBS

    began, counts = time.monotonic(), {}
    disk = folder / "disk"
    has_disk = mounted(disk)
    try:
        for name in [name for name in JOBS if args.only is None or name in args.only]:
            filler = Filler(name, folder / "inputs", disk / name, random.Random(f"{args.seed} {name}"), has_disk)
            tries = 0
            while filler.counts.times < args.times and tries < 3 * args.times:
                filler.trial()
                tries += 1
            each = counts[name] = filler.counts
            print(f"{name}: {each.full_disks} full disks, {each.failed_operations} failed operations")
            print("".join(f"  {message}\n" for message in list(dict.fromkeys(each.messages))[:3]), end="")
            print("".join(f"  FAULT {fault}\n" for fault in each.faults), end="", flush=True)
            # After each, so that a run that is stopped leaves what it has counted.
            jobs = {name: of_job(each) for name, each in counts.items()}
            write_counts(args, time.monotonic() - began, totals(counts), jobs)
            shutil.rmtree(disk / name)
    finally:
        if has_disk:
            subprocess.run(["umount", "-l", str(disk)], check=True)
    total = totals(counts)
    print(f"{total['full_disks'] + total['failed_operations']} faults injected, {total['faults']} faults found")
    return 1 if total["faults"] else 0


def of_job(counts: Counts) -> dict[str, Any]:
    """What the result's file tells of one job."""
    return {key: value for key, value in asdict(counts).items() if key != "messages"}


def totals(counts: dict[str, Counts]) -> dict[str, int]:
    """Of all jobs."""
    return {
        "full_disks": sum(each.full_disks for each in counts.values()),
        "failed_operations": sum(each.failed_operations for each in counts.values()),
        "faults": sum(len(each.faults) for each in counts.values()),
    }


def main() -> int:
    """Runs the command; status 1 where something was found."""
    return with_inputs(arguments(__doc__, "full disks", times=8), run)


if __name__ == "__main__":
    sys.exit(main())
