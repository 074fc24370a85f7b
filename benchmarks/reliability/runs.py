"""What kill.py and disk_full.py share: jobs as forked children, undisturbed and again, their inputs and arguments."""

import argparse
import hashlib
import importlib.util
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from http.server import ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tqdm.std import tqdm

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "benchmarks"))
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
        # Processes share it: one that is killed while it holds it would keep all later ones waiting.
        tqdm.set_lock(threading.RLock())
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
            try:
                found[name] = same_but_for_times(path)
            except ValueError as error:
                found[name] = f"damaged: {error}"
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


class JobRuns:
    """
    Runs one job, each time in a folder of its own.

    Args:
        name (`str`): The job's.
        inputs (`Path`): What jobs read.
        work (`Path`): A folder for its runs.
        draw (`random.Random`): Decides what happens to them.
        log (`Path`, *optional*): Where the output of runs goes, by default a file of `work`.
    """

    def __init__(self, name: str, inputs: Path, work: Path, draw: random.Random, log: Path | None = None) -> None:
        from jobs import JOBS

        self.name, self.job, self.inputs, self.work, self.draw = name, JOBS[name], inputs, work, draw
        self.log = log or work / "log.txt"
        self._runs = 0
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

    def _differing(self, folder: Path, expected: Undisturbed) -> list[str]:
        """Files that are not those of an undisturbed run, each with what is wrong about it."""
        found = files_of(folder, self.job.not_bytes)
        names = sorted(found.keys() | expected.files.keys())
        return [
            f"{name} ({'new' if name not in expected.files else 'other' if name in found else 'missing'})"
            for name in names
            if name not in found or name not in expected.files or found[name] != expected.files[name]
        ]

    def _again(self, folder: Path, expected: Undisturbed) -> list[str]:
        """Gives the command once more, and tells what is wrong about how it ends and what it leaves."""
        status: int | str
        try:
            status = self._call(lambda: self.job.run(self.inputs), folder)
        except RuntimeError as error:
            status = str(error)  # with a traceback
        differing = self._differing(folder, expected)
        if status == 1 and self.job.refuses_existing and not differing:
            return []
        if status != 0:
            last = self.log.read_text(errors="replace").strip().rpartition("\n")[2]
            return [f"the command given again ended with {status}: {last}"]
        faults = [f"the command given again left {', '.join(differing[:5])}"] if differing else []
        read = self._read(folder)
        if any(kind != "is" or value not in expected.after[part] for part, (kind, value) in read.items()):
            faults.append(f"the command given again left {read}")
        return faults


def quiet(server: type[ThreadingHTTPServer]) -> type[ThreadingHTTPServer]:
    """A server that says nothing of connections that break, as those of killed clients do."""

    class Quiet(server):  # type: ignore[valid-type, misc]
        def handle_error(self, request: Any, client_address: Any) -> None:
            if not isinstance(sys.exc_info()[1], ConnectionError):
                super().handle_error(request, client_address)

    return Quiet


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
        module.ThreadingHTTPServer = quiet(module.ThreadingHTTPServer)
        theirs.send(module.LoopbackHub({TOKEN: "author"}).url)
        while True:
            signal.pause()
    theirs.close()
    return child, ours.recv()


def arguments(description: str, what: str, times: int) -> argparse.Namespace:
    """
    The command line.

    Args:
        description (`str`): What the command does.
        what (`str`): Of what `--times` is the number.
        times (`int`): Its default.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=times, help=f"{what} of each job (default: %(default)s)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these jobs alone")
    parser.add_argument("--seed", type=int, default=0, help="decides what is drawn (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the counts")
    return parser.parse_args()


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


def write_counts(args: argparse.Namespace, seconds: float, totals: dict[str, int], jobs: dict[str, Any]) -> None:
    """Writes the file of a result, where one is asked for."""
    from machine import command_line, machine_class

    from mmm4rec_hf.outputs import write_json

    if args.json is None:
        return
    content = {
        "command": command_line(),
        "date": date.today().isoformat(),
        "machine": machine_class(),
        "seed": args.seed,
        "seconds": round(seconds),
        **totals,
        "jobs": jobs,
    }
    write_json(args.json, content)
