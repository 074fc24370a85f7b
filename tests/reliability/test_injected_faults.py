"""The two benchmarks that kill commands and fill disks, in small; they find nothing, and they find what is broken."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Run

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="runs are forked children")]


def test_killed_commands_leave_nothing_half(benchmark: Run, tmp_path: Path) -> None:
    names = ["catalogue", "prepare-shards", "evaluate"]
    done = benchmark("kill.py", "--times", "4", "--only", *names, "--json", tmp_path / "kill.json")
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    counts = json.loads((tmp_path / "kill.json").read_text())
    assert list(counts["jobs"]) == names and counts["kills"] >= 12 and counts["faults"] == 0
    assert all(job["kills"] >= 4 and 0 < job["restarts"] <= job["kills"] for job in counts["jobs"].values())


def test_full_disks_leave_nothing_half(benchmark: Run, tmp_path: Path) -> None:
    names = ["catalogue", "evaluate"]
    done = benchmark("disk_full.py", "--times", "3", "--only", *names, "--json", tmp_path / "full.json")
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    counts = json.loads((tmp_path / "full.json").read_text())
    assert counts["full_disks"] + counts["failed_operations"] >= 6 and counts["faults"] == 0


def test_a_writer_that_writes_in_place_is_found_by_kills(benchmark: Run) -> None:
    # As if nothing were written under another name first.
    broken = (
        "import contextlib, mmm4rec_hf.data.sequence_datasets as written; written.replace_folder = "
        "contextlib.contextmanager(lambda path, own=None: (yield (path.mkdir(parents=True, exist_ok=True), path)[1]))"
    )
    done = benchmark("kill.py", "--times", "8", "--only", "prepare", before=broken)
    assert done.returncode == 1 and "half of it was taken for whole" in done.stdout, done.stdout + done.stderr[-3000:]


def test_a_writer_that_keeps_silent_about_a_full_disk_is_found(benchmark: Run) -> None:
    # Status 0, and those of its files that fitted in the place of earlier ones.
    broken = """
import contextlib, mmm4rec_hf.items.storage as written

well = written.replace_file

@contextlib.contextmanager
def replace_file(path):
    with contextlib.suppress(OSError), well(path) as partial:
        yield partial

written.replace_file = replace_file
"""
    done = benchmark("disk_full.py", "--times", "3", "--only", "catalogue", before=broken)
    assert done.returncode == 1 and "it ended with 0 and left " in done.stdout, done.stdout + done.stderr[-3000:]
    counted, found = done.stdout.splitlines()[-1].split(" faults injected, ")
    assert int(counted) >= 3 and int(found.removesuffix(" faults found")) >= 3


def test_a_traceback_of_the_command_given_again_is_a_fault_and_no_end(benchmark: Run, tmp_path: Path) -> None:
    broken = f"""
from pathlib import Path
import mmm4rec_hf.cli.running as running

well = running.run_command

def run_command(program, command):
    failed = Path({str(tmp_path)!r}, Path.cwd().name)
    if failed.exists():
        raise KeyError("given again")
    status = well(program, command)
    if status:
        failed.touch()
    return status

running.run_command = run_command
"""
    done = benchmark("disk_full.py", "--times", "2", "--only", "catalogue", before=broken)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stdout + done.stderr[-3000:]
    assert done.stdout.count("the command given again ended with ") == 2 and "KeyError: 'given again'" in done.stdout
    assert "2 faults injected, " in done.stdout.splitlines()[-1]


@pytest.mark.parametrize("told", [False, True])
def test_the_hub_says_nothing_of_clients_that_were_killed(repository: Path, told: bool) -> None:
    code = f"""
import os, signal, socket, struct, sys, time
import runs

if {told}:
    runs.quiet = lambda server: server
child, url = runs.serve_hub()
client = socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])))
client.sendall(b"POST /api/repos/create HTTP/1.1\\r\\nContent-Length: 100\\r\\n\\r\\n{{")
time.sleep(0.5)
# Gone without a farewell, as after a kill.
client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
client.close()
time.sleep(0.5)
os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
"""
    folder = repository / "benchmarks" / "reliability"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and ("ConnectionResetError" in done.stderr) == told, done.stderr
    assert told or done.stderr == ""
