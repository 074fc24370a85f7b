"""Kills every writing command at drawn moments, looks at what is left, and gives the command again.

    OMP_NUM_THREADS=1 python benchmarks/reliability/kill.py --times 12 --json benchmarks/reliability/kill.json

After a kill each part of the output must be what was there before, the whole new one, or one error of one line; and
never a part of the one run beside a part of the other. The same command, given again, must end with the bytes of a run
that was not disturbed, and leave no temporary file. Files that hold times (`training.json`, `trainer_state.json`) are
compared without them, without the list of sessions, and without the trainer's last line, the mean loss of a session;
the trainer's `training_args.bin`, which holds the time in a folder's name, is not compared.

Half of the kills come after a drawn time; the other half before a drawn operation on a file of the output (a file
opened to be written, renamed or removed, a folder made or removed), as between two renames there is too little time to
be hit by chance. A third of the restarted commands are killed once more. Each run is a forked child of this process,
which has imported everything.
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runs import JobRuns, Undisturbed, arguments, fork, on_operations, with_inputs, write_counts


@dataclass
class Counts:
    """Of one job."""

    kills: int = 0
    by: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    restarts: int = 0
    faults: list[str] = field(default_factory=list)


class Killer(JobRuns):
    """Kills one job again and again."""

    def __init__(self, name: str, inputs: Path, work: Path, draw: random.Random) -> None:
        super().__init__(name, inputs, work, draw)
        self.counts = Counts()

    def trial(self) -> None:
        """One fresh folder: a kill, a look, perhaps another kill, and the command to its end."""
        with_old = self.draw.choice(list(self.expected))
        expected, folder = self.expected[with_old], self._folder(with_old)
        kills = 0
        for _ in range(1 + (self.draw.random() < 1 / 3)):
            by = self.draw.choice(["time", "operation"]) if expected.operations else "time"
            killed, when = self._kill(folder, expected, by)
            if not killed:
                continue
            kills += 1
            self.counts.kills += 1
            self.counts.by[by] += 1
            self._look(folder, expected, f"{'over an earlier output' if with_old else 'fresh'}, killed {when}")
        if kills:
            self.counts.restarts += 1
            self.counts.faults += [f"killed {when}: {fault}" for fault in self._again(folder, expected)]
        shutil.rmtree(folder)

    def _kill(self, folder: Path, expected: Undisturbed, by: str) -> tuple[bool, str]:
        at = self.draw.uniform(0, expected.seconds)
        number = self.draw.randint(1, max(1, expected.operations))

        def task() -> int:
            if by == "operation":
                on_operations(folder, lambda n: os.kill(os.getpid(), signal.SIGKILL) if n == number else None)
            return self.job.run(self.inputs)

        child, answer = fork(task, folder, self.log)
        if by == "time":
            answer.poll(at)
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        when = f"after {at:.2f} s" if by == "time" else f"before operation {number} of {expected.operations}"
        return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, when

    def _look(self, folder: Path, expected: Undisturbed, when: str) -> None:
        for part, (kind, value) in self._read(folder).items():
            if kind == "is" and value in expected.after[part]:
                self.counts.left["whole"] += 1
            elif kind == "error" and value and "\n" not in value.strip():
                self.counts.left["one clear error"] += 1
            else:
                reason = "half of it was taken for whole" if kind == "is" else f"{kind} {value!r}"
                self.counts.faults.append(f"{when}: {part}: {reason}")


def main() -> int:
    """Runs the command; status 1 where something was found."""
    return with_inputs(arguments(__doc__, "kills", times=12), run)


def run(args: argparse.Namespace, folder: Path) -> int:
    """Kills the jobs, and tells what came of it."""
    from jobs import JOBS
    from tqdm.auto import tqdm

    inputs = folder / "inputs"
    began, counts = time.monotonic(), {}
    names = [name for name in JOBS if args.only is None or name in args.only]
    with tqdm(total=args.times * len(names), disable=None if sys.stderr.isatty() else True) as bar:
        for name in names:
            # Of its own: the draws of a job do not depend on which others run.
            killer = Killer(name, inputs, folder / name, random.Random(f"{args.seed} {name}"))
            while killer.counts.kills < args.times:
                killer.trial()
                bar.update(killer.counts.kills - (bar.n - args.times * names.index(name)))
            counts[name] = killer.counts
            print_counts(name, killer)
            # After each, so that a run that is stopped leaves what it has counted.
            total, jobs = totals(counts), {name: of_job(each) for name, each in counts.items()}
            write_counts(args, time.monotonic() - began, total, jobs)
            shutil.rmtree(folder / name)
    print(f"{total['kills']} kills, {total['faults']} faults, {time.monotonic() - began:.0f} s")
    return 1 if total["faults"] else 0


def print_counts(name: str, killer: Killer) -> None:
    """A line of a job, and one of each fault."""
    counts, seconds = killer.counts, max(each.seconds for each in killer.expected.values())
    left = ", ".join(f"{number} x {what}" for what, number in sorted(counts.left.items()))
    print(f"{name}: {counts.kills} kills of runs of {seconds:.1f} s; left {left}; {counts.restarts} restarts")
    for fault in counts.faults:
        print(f"  FAULT {fault}")
    sys.stdout.flush()


def of_job(counts: Counts) -> dict[str, Any]:
    """What the result's file tells of one job."""
    return {
        "kills": counts.kills,
        "after_a_time": counts.by["time"],
        "before_an_operation": counts.by["operation"],
        "parts_left_whole": counts.left["whole"],
        "parts_left_with_one_clear_error": counts.left["one clear error"],
        "restarts": counts.restarts,
        "faults": counts.faults,
    }


def totals(counts: dict[str, Counts]) -> dict[str, int]:
    """Of all jobs."""
    return {
        "kills": sum(each.kills for each in counts.values()),
        "restarts": sum(each.restarts for each in counts.values()),
        "faults": sum(len(each.faults) for each in counts.values()),
    }


if __name__ == "__main__":
    sys.exit(main())
