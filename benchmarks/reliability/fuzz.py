"""Gives damaged and hostile files to every reader, and counts what comes of them.

    OMP_NUM_THREADS=1 python benchmarks/reliability/fuzz.py --minutes 10 --json benchmarks/reliability/fuzz.json
    python benchmarks/reliability/fuzz.py --reader pictures --minutes 1

Each input begins as a good file; bytes are flipped, cut, repeated and put in, some of them things that parsers trip
over. It must be read, or refused with an error of a documented kind (`documented` of `readers.py`). Anything else is a
fault: another error, an input that takes longer than `--seconds`, and a reader that dies, of memory (`MEMORY`) or
otherwise. Readers run in a process of their own, so that the count goes on. Inputs that made a fault are kept in
`--keep`. A seed gives the same inputs again.
"""

import argparse
import contextlib
import json
import logging
import multiprocessing
import os
import random
import resource
import shutil
import sys
import tempfile
import time
import warnings
from dataclasses import asdict, dataclass, field
from datetime import date
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from readers import READERS, Reader, documented
from tqdm.auto import tqdm

MEMORY = 4 << 30
TOKENS = (
    b"\x00", b"\xff", b"\xff\xfe", b"\xef\xbb\xbf", b"\n", b"\r\n", b'"', b"'", b",", b"\t", b"{", b"}", b"[", b"]",
    b":", b"null", b"NaN", b"1e999", b"-1", b"9" * 400, b"0", b"\\ud800", b"\\u0000", b"[" * 2000, b"{" * 2000,
    b"true", b'{"a":' * 500, b"__import__('os')", b"!!python/name:os.system", b"&a [*a]", b"../../etc/passwd",
    b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\x80\x00\x00\x00", b"\xff" * 8, b"PAR1", b"PK\x03\x04", b"\x1f\x8b",
    b"\xed\xa0\x80", b"\xe2\x80\xae", b"<script>", b"item_id", b"user_id", b"timestamp",
)  # fmt: skip


@dataclass
class Counts:
    """Of one reader."""

    inputs: int = 0
    read: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def damaged(content: bytes, draw: random.Random) -> bytes:
    """A file after one to eight changes, most of them small."""
    changed = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 3, 8))):
        # Formats keep what matters at their beginning or end.
        at = int(len(changed) * draw.choice((draw.random(), draw.random() ** 4, 1 - draw.random() ** 4)))
        length = draw.choice((1, 2, 4, 8, 16, 256))
        match draw.randrange(7):
            case 0 if changed:
                changed[min(at, len(changed) - 1)] ^= 1 << draw.randrange(8)
            case 1:
                changed[at : at + length] = draw.randbytes(length)
            case 2:
                del changed[at : at + length]
            case 3:
                token = draw.choice(TOKENS)
                changed[at : at + draw.choice((0, len(token)))] = token
            case 4:
                changed[at:at] = changed[at : at + length] * draw.choice((1, 2, 50))
            case 5:
                other = draw.randrange(len(changed) + 1)
                changed[at : at + length] = changed[other : other + length]
            case 6 if draw.random() < 0.3:
                del changed[at:]
    return bytes(changed)


def work(name: str, seed: int, first: int, folder: Path, kept: Path | None, answers: Connection) -> None:
    """Reads inputs from a number on, telling each before and after, until it is killed."""
    # A reader's own words, and those of libraries in C, are many.
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    logging.disable()
    warnings.simplefilter("ignore")
    reader = READERS[name](folder / "good")
    reader.read(folder / "good")  # what it imports counts for no input
    resource.setrlimit(resource.RLIMIT_AS, (used_memory() + MEMORY,) * 2)
    number = first
    while True:
        answers.send((number, None, ""))
        result = outcome(reader, make_input(reader, seed, number, folder))
        if kept is not None and result[0] == "fault":
            shutil.copytree(folder / "input", kept / f"{name}-{number}", dirs_exist_ok=True)
        answers.send((number, *result))
        number += 1


def used_memory() -> int:
    """Bytes of addresses that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def make_input(reader: Reader, seed: int, number: int, folder: Path) -> Path:
    """The folder of an input: the good files with one of them damaged."""
    draw, target = random.Random(f"{seed}-{number}"), folder / "input"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder / "good", target)
    path = target / draw.choice(reader.files)
    path.write_bytes(damaged(path.read_bytes(), draw))
    return target


def outcome(reader: Reader, folder: Path) -> tuple[str, str]:
    """`read`, `refused` or `fault`, and of what kind."""
    try:
        reader.read(folder)
    except BaseException as error:
        kind = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
        if documented(error) and str(error).strip():
            return "refused", kind
        return "fault", f"{kind}: {' '.join(str(error).split())[:300]}"
    return "read", ""


def fuzz(name: str, args: argparse.Namespace, folder: Path) -> Counts:
    """One reader, for the time given."""
    counts, ends, number = Counts(), time.monotonic() + 60 * args.minutes, 0
    (folder / "good").mkdir(parents=True)
    # Libraries with threads of their own must not be used before a fork, so the child writes the good files.
    context = multiprocessing.get_context("fork")
    with tqdm(total=int(60 * args.minutes), desc=name, unit="s", disable=None if sys.stderr.isatty() else True) as bar:
        while time.monotonic() < ends:
            answers, theirs = context.Pipe(duplex=False)
            worker = context.Process(target=work, args=(name, args.seed, number, folder, args.keep, theirs))
            worker.start()
            theirs.close()
            number = watch(worker, answers, counts, number, ends, args, name, folder)
            bar.update(int(60 * args.minutes - (ends - time.monotonic())) - bar.n)
    return counts


def watch(
    worker: Any,
    answers: Connection,
    counts: Counts,
    number: int,
    ends: float,
    args: argparse.Namespace,
    name: str,
    folder: Path,
) -> int:
    """Counts what a worker tells until the time is over or it dies; the number of the input to go on with."""
    began, fault = None, None
    try:
        while time.monotonic() < ends:
            # The first answer waits for the imports.
            if not answers.poll(args.seconds if began is not None else 120):
                fault = f"took more than {args.seconds} s"
                break
            number, kind, words = answers.recv()
            began = time.monotonic()
            if kind is None:
                continue
            counts.inputs += 1
            if kind == "read":
                counts.read += 1
            elif kind == "refused":
                counts.refused[words] = counts.refused.get(words, 0) + 1
            else:
                note(counts, name, number, words)
    except EOFError:
        worker.join()
        fault = f"died with status {worker.exitcode}"
    if fault is not None:
        counts.inputs += 1
        note(counts, name, number, fault)
    worker.kill()
    worker.join()
    if fault is not None and args.keep is not None and (folder / "input").is_dir():
        shutil.copytree(folder / "input", args.keep / f"{name}-{number}", dirs_exist_ok=True)
    return number + 1


def note(counts: Counts, name: str, number: int, words: str) -> None:
    """Notes a fault, and tells the first of each kind."""
    if words.partition(":")[0] not in (fault.partition(":")[0] for fault in counts.faults):
        print(f"{name}, input {number}: {words}", flush=True)
    counts.faults.append(words)


def main() -> int:
    """Status 1 where there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=1, help="for each reader (default: %(default)s)")
    parser.add_argument("--reader", nargs="+", choices=READERS, metavar="NAME", help=f"of {', '.join(READERS)}")
    parser.add_argument("--seconds", type=float, default=20, help="the longest that one input may take")
    parser.add_argument("--seed", type=int, default=0, help="decides what is drawn (default: %(default)s)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where to keep inputs that made a fault")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the counts")
    args = parser.parse_args()
    results = {}
    for name in args.reader or READERS:
        with tempfile.TemporaryDirectory() as folder:
            counts = results[name] = fuzz(name, args, Path(folder))
        print(f"{name}: {counts.inputs:,} inputs, {counts.read:,} read, {len(counts.faults)} faults", flush=True)
    if args.json is not None:
        content = {"date": date.today().isoformat(), "seed": args.seed, "minutes": args.minutes, "memory": MEMORY}
        content["readers"] = {name: asdict(counts) for name, counts in results.items()}
        args.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return int(any(counts.faults for counts in results.values()))


if __name__ == "__main__":
    raise SystemExit(main())
