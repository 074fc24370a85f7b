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
import hashlib
import importlib.util
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "benchmarks"), str(Path(__file__).parent)]
TOKEN = "hf_of_the_author"
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
OPERATIONS = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate")
Read = dict[str, tuple[str, str]]  # of each part: ("is", a digest) or ("error", its line)


@dataclass
class Undisturbed:
    """What a run that nothing stops takes and leaves, from one start."""

    seconds: float
    operations: int
    size: int  # bytes
    files: dict[str, Any]
    after: dict[str, set[str]]  # of each part: the digests that are whole


@dataclass
class Counts:
    """Of one job."""

    kills: int = 0
    by: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    restarts: int = 0
    faults: list[str] = field(default_factory=list)


def fork(task: Callable[[], Any], folder: Path, log: Path) -> tuple[int, Connection]:
    """Runs a task in a child whose output goes to a file; the child's id, and where its answer comes."""
    from multiprocessing import Pipe

    ours, theirs = Pipe(duplex=False)
    child = os.fork()
    if child:
        theirs.close()
        return child, ours
    status = 1
    try:
        ours.close()
        with log.open("ab") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        os.chdir(folder)
        theirs.send(task())
        status = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    raise AssertionError("unreachable")


def result(child: int, answer: Connection, log: Path) -> Any:
    """What a child's task returned."""
    try:
        value = answer.recv()
    except EOFError:
        value = None
    _, status = os.waitpid(child, 0)
    if status != 0:
        raise RuntimeError(f"a run ended with status {status}: {log.read_text(errors='replace')[-1500:]}")
    return value


def on_operations(folder: Path, act: Callable[[int], None], making: bool = False) -> None:
    """
    Calls `act` with the number of each operation on a file of a folder, from 1, before it happens.

    Args:
        folder (`Path`): Where.
        act (`Callable[[int], None]`): What to do.
        making (`bool`, *optional*, defaults to `False`): Whether only those count that make a file or a folder.
    """
    count, prefix = 0, str(folder) + os.sep
    operations = ("os.mkdir",) if making else OPERATIONS

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event == "open":
            path, _, flags = arguments
            if not isinstance(flags, int) or not flags & WRITES:
                return
        elif event in operations:
            path = arguments[0]
        else:
            return
        if isinstance(path, str | bytes | os.PathLike) and os.path.abspath(os.fsdecode(path)).startswith(prefix):
            count += 1
            act(count)

    sys.addaudithook(hook)


def files_of(folder: Path, not_bytes: tuple[str, ...]) -> dict[str, Any]:
    """Digests of files by path; of those with times what they hold beside them."""
    from jobs import same_but_for_times

    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir():
            found[name] = "folder"
        elif path.name.endswith(not_bytes or ("/",)):
            found[name] = same_but_for_times(path)
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def read_parts(parts: dict[str, Callable[[], str]]) -> Read:
    """What a user gets who loads each part."""
    found: Read = {}
    for name, read in parts.items():
        try:
            found[name] = ("is", read())
        except (ValueError, OSError) as error:
            found[name] = ("error", str(error))
        except Exception as error:
            found[name] = ("wrong error", f"{type(error).__name__}: {error}")
    return found


class Killer:
    """
    Kills one job again and again.

    Args:
        name (`str`): The job's.
        inputs (`Path`): What jobs read.
        work (`Path`): A folder for its runs.
        draw (`random.Random`): Decides when.
        log (`Path`, *optional*): Where the output of runs goes, by default a file of `work`.
    """

    def __init__(self, name: str, inputs: Path, work: Path, draw: random.Random, log: Path | None = None) -> None:
        from jobs import JOBS

        self.name, self.job, self.inputs, self.work, self.draw = name, JOBS[name], inputs, work, draw
        self.log = log or work / "log.txt"
        self.counts, self._runs = Counts(), 0
        work.mkdir()
        starts = [False] if self.job.before is None else [False, True]
        self.expected = {start: self._undisturbed(start) for start in starts}

    def _call(self, task: Callable[[], Any], folder: Path) -> Any:
        return result(*fork(task, folder, self.log), self.log)

    def _folder(self, with_old: bool) -> Path:
        self._runs += 1
        folder = self.work / f"{self.name}-{self._runs}"
        folder.mkdir()
        before = self.job.before
        if with_old and before is not None:
            assert self._call(lambda: before(self.inputs), folder) == 0, self.log.read_text()
        return folder

    def _read(self, folder: Path) -> Read:
        return self._call(lambda: read_parts(self.job.parts()), folder)

    def _undisturbed(self, with_old: bool) -> Undisturbed:
        folder = self._folder(with_old)
        whole: dict[str, set[str]] = {}
        if with_old:
            whole = {part: {value} for part, (_, value) in self._read(folder).items()}

        def task() -> tuple[int, int, float]:
            counted = [0]
            on_operations(folder, lambda number: counted.__setitem__(0, number))
            began = time.monotonic()
            with self.job.watch():
                status = self.job.run(self.inputs)
            return status, counted[0], time.monotonic() - began

        status, operations, seconds = self._call(task, folder)
        assert status == 0, self.log.read_text()[-2000:]
        for kept in sorted(folder.glob("kept-*")):
            for part, (kind, value) in self._read(kept).items():
                if kind == "is":
                    whole.setdefault(part, set()).add(value)
            shutil.rmtree(kept)
        for part, (kind, value) in self._read(folder).items():
            assert kind == "is", f"{self.name}: an undisturbed run's {part} cannot be read: {value}"
            assert not with_old or value not in whole[part], f"{self.name}: the earlier {part} must be another one"
            whole.setdefault(part, set()).add(value)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        return Undisturbed(seconds, operations, size, files_of(folder, self.job.not_bytes), whole)

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
            self._restart(folder, expected, when)
        if os.environ.get("KEEP") and self.counts.faults:
            raise SystemExit(f"{folder} {self.counts.faults}")
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

    def _restart(self, folder: Path, expected: Undisturbed, when: str) -> None:
        try:
            status = self._call(lambda: self.job.run(self.inputs), folder)
        except RuntimeError as error:
            status = str(error)
        self.counts.restarts += 1
        found = files_of(folder, self.job.not_bytes)
        if status == 1 and self.job.refuses_existing and found == expected.files:
            return
        if status != 0:
            self.counts.faults.append(f"killed {when}: the command given again ended with {status}")
            return
        names = found.keys() | expected.files.keys()
        differ = sorted(name for name in names if found.get(name) != expected.files.get(name))
        if differ:
            kinds = [f"{name} ({'new' if name not in expected.files else 'missing or other'})" for name in differ]
            self.counts.faults.append(f"killed {when}: the command given again left {', '.join(kinds[:5])}")
        read = self._read(folder)
        if any(kind != "is" or value not in expected.after[part] for part, (kind, value) in read.items()):
            self.counts.faults.append(f"killed {when}: the command given again left {read}")


def serve_hub() -> tuple[int, str]:
    """A Hub on the loopback in a child of its own; the child and its address."""
    from multiprocessing import Pipe

    ours, theirs = Pipe(duplex=False)
    child = os.fork()
    if child == 0:
        spec = importlib.util.spec_from_file_location("loopback", ROOT / "tests" / "hub" / "loopback.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["loopback"] = module
        spec.loader.exec_module(module)
        theirs.send(module.LoopbackHub({TOKEN: "author"}).url)
        while True:
            signal.pause()
    theirs.close()
    return child, ours.recv()


def main() -> int:
    """Runs the command; status 1 where something was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=12, help="kills of each job (default: %(default)s)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these jobs alone")
    parser.add_argument("--seed", type=int, default=0, help="decides what is drawn (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the counts")
    return with_inputs(parser.parse_args(), run)


def with_inputs(args: argparse.Namespace, run: Callable[[argparse.Namespace, Path], int]) -> int:
    """Calls a function with arguments and a folder, beside a Hub; `inputs/` of the folder holds what jobs read."""
    hub, url = serve_hub()
    os.environ |= {"HF_ENDPOINT": url, "HF_TOKEN": TOKEN, "TOKENIZERS_PARALLELISM": "false"}
    os.environ |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "OMP_NUM_THREADS": "1"}
    try:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["HF_HOME"] = f"{folder}/cache"
            make_inputs(args, Path(folder).resolve())
            return run(args, Path(folder).resolve())
    finally:
        os.kill(hub, signal.SIGKILL)
        os.waitpid(hub, 0)


def make_inputs(args: argparse.Namespace, folder: Path) -> None:
    """Imports all that jobs need, and writes what they read, in a child."""
    import torch
    from jobs import JOBS, write_inputs

    # All that the jobs import, so that a child begins at once; nothing that starts threads is called here.
    import mmm4rec_hf.conversion
    import mmm4rec_hf.data.published
    import mmm4rec_hf.evaluation.yardsticks
    import mmm4rec_hf.training.finetuning
    import mmm4rec_hf.training.pretraining  # noqa: F401

    torch.set_num_threads(1)
    unknown = sorted(set(args.only or []) - JOBS.keys())
    if unknown:
        raise SystemExit(f"--only: {', '.join(unknown)} is none of {', '.join(JOBS)}")
    inputs, log = folder / "inputs", folder / "inputs.log"
    inputs.mkdir()
    result(*fork(lambda: write_inputs(inputs, args.seed), inputs, log), log)


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
            shutil.rmtree(folder / name)
    faults = sum(len(count.faults) for count in counts.values())
    kills = sum(count.kills for count in counts.values())
    print(f"{kills} kills, {faults} faults, {time.monotonic() - began:.0f} s")
    if args.json is not None:
        write_counts(args.json, args.seed, counts, time.monotonic() - began)
    return 1 if faults else 0


def print_counts(name: str, killer: Killer) -> None:
    """A line of a job, and one of each fault."""
    counts, seconds = killer.counts, max(each.seconds for each in killer.expected.values())
    left = ", ".join(f"{number} x {what}" for what, number in sorted(counts.left.items()))
    print(f"{name}: {counts.kills} kills of runs of {seconds:.1f} s; left {left}; {counts.restarts} restarts")
    for fault in counts.faults:
        print(f"  FAULT {fault}")
    sys.stdout.flush()


def write_counts(path: Path, seed: int, counts: dict[str, Counts], seconds: float) -> None:
    """Writes the result's file."""
    from machine import command_line, machine_class

    from mmm4rec_hf.outputs import write_json

    jobs = {
        name: {
            "kills": count.kills,
            "after_a_time": count.by["time"],
            "before_an_operation": count.by["operation"],
            "parts_left_whole": count.left["whole"],
            "parts_left_with_one_clear_error": count.left["one clear error"],
            "restarts": count.restarts,
            "faults": count.faults,
        }
        for name, count in counts.items()
    }
    total = {key: sum(job[key] for job in jobs.values()) for key in ("kills", "restarts")}
    content = {
        "command": command_line(),
        "date": date.today().isoformat(),
        "machine": machine_class(),
        "seed": seed,
        "seconds": round(seconds),
        **total,
        "faults": sum(len(job["faults"]) for job in jobs.values()),
        "jobs": jobs,
    }
    write_json(path, content)


if __name__ == "__main__":
    sys.exit(main())
