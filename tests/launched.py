"""Processes that a launcher starts together, and the proof that they worked together."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Read by every interpreter as it starts. A launcher starts a process that knows of no other just as well, and several
# of them then do all of the work each.
_RECORDER = """
import atexit, os, pathlib, sys

def record():
    state = sys.modules.get("accelerate.state")
    # What another process of a rank knows of, such as one that tracks resources, is not asked.
    if state is not None and state.PartialState._shared_state:
        seen = state.PartialState._shared_state["num_processes"]
        pathlib.Path(os.environ["LAUNCHED"], os.environ["RANK"]).write_text(f"{seen}")

if "RANK" in os.environ:
    atexit.register(record)
"""


@contextmanager
def together(processes: int) -> Iterator[dict[str, str]]:
    """
    The environment of a launcher that starts so many processes; afterwards each must have known of all. Whether they
    have failed is to be asked inside, where it is seen first.
    """
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "sitecustomize.py").write_text(_RECORDER)
        told = Path(folder) / "told"
        told.mkdir()
        path = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")]))
        yield {"PYTHONPATH": path, "LAUNCHED": str(told), "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
        seen = {file.name: file.read_text() for file in told.iterdir()}
        assert seen == {str(rank): str(processes) for rank in range(processes)}
