"""The benchmark that damages files counts what readers read and refuse, and finds those that fail in another way."""

import json
from pathlib import Path

import pytest

from .conftest import Run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the memory of readers is read from /proc"),
]

# Each reads one file, and ends in one way whatever it holds, but for the first.
READERS = """
import os, time, readers

def reader(read):
    class Reader:
        files = ["a"]

        def __init__(self, folder):
            (folder / "a").write_bytes(b"a" * 100)

        def read(self, folder):
            # A good file is read.
            return read(folder) if folder.name == "input" else None

    return Reader

def refuses_some(folder):
    if len((folder / "a").read_bytes()) != 100:
        raise ValueError("of another length")

def raises(error):
    def read(folder):
        raise error
    return read

readers.READERS = {name: reader(read) for name, read in {
    "well": refuses_some, "wrong": raises(KeyError("a")), "silent": raises(ValueError("")),
    "greedy": lambda folder: bytearray(1 << 40), "dies": lambda folder: os._exit(3),
    "hangs": lambda folder: time.sleep(60),
}.items()}
"""


BROKEN = ("wrong", "silent", "greedy", "dies", "hangs")

Readers = dict[str, dict[str, object]]


def counts_of(benchmark: Run, folder: Path, status: int, *arguments: str) -> Readers:
    options = ["--json", folder / "fuzz.json", "--keep", folder / "kept", "--minutes", "0.05"]
    done = benchmark("fuzz.py", *arguments, *options, before=READERS)
    assert done.returncode == status, done.stdout + done.stderr[-3000:]
    readers: Readers = json.loads((folder / "fuzz.json").read_text())["readers"]
    return readers


@pytest.fixture(scope="module")
def broken(benchmark: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Readers, Path]:
    """The counts of every reader that fails, and where the inputs are kept: one run, which imports everything once."""
    folder = tmp_path_factory.mktemp("broken")
    # As long as `hangs` is let to read; the others take next to no time.
    return counts_of(benchmark, folder, 1, "--reader", *BROKEN, "--seconds", "1"), folder / "kept"


def test_inputs_are_read_or_refused(benchmark: Run, tmp_path: Path) -> None:
    (counts,) = counts_of(benchmark, tmp_path, 0, "--reader", "well").values()
    read, refused = counts["read"], counts["refused"]
    assert isinstance(read, int) and isinstance(refused, dict) and list(refused) == ["ValueError"]
    assert counts["inputs"] == read + refused["ValueError"] and read > 0 and refused["ValueError"] > 0
    assert counts["faults"] == [] and not (tmp_path / "kept").exists()


@pytest.mark.parametrize(
    ("reader", "fault"),
    [
        ("wrong", "KeyError: 'a'"),
        ("silent", "ValueError: "),
        ("greedy", "MemoryError: "),
        ("dies", "died with status 3"),
        ("hangs", "took more than 1.0 s"),
    ],
)
def test_a_reader_that_fails_is_found_and_its_input_kept(
    broken: tuple[Readers, Path], reader: str, fault: str
) -> None:
    readers, kept = broken
    counts = readers[reader]
    faults = counts["faults"]
    assert isinstance(faults, list) and set(faults) == {fault} and counts["inputs"] == len(faults)
    assert counts["read"] == 0 and counts["refused"] == {}
    # The first is a good file after changes.
    assert (kept / f"{reader}-0" / "a").read_bytes() != b"a" * 100
