"""Checkpoint folders that are whole or not there, and that are checked before they are taken.

A stopped pretraining goes on from them. Which step's base is kept as the best is decided in `pretraining.py`
(`_validate`).
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from mmm4rec_hf.outputs import naming_full_disk
from mmm4rec_hf.processes import process_state

logger = logging.getLogger(__name__)

MANIFEST_NAME = "manifest.json"
_PREFIX = "checkpoint-"


def save_checkpoint(folder: Path, step: int, write: Callable[[Path], None], keep: int) -> None:
    """
    Writes a checkpoint; every process calls it.

    Args:
        folder (`Path`): Where checkpoints lie.
        step (`int`): Names the checkpoint.
        write (`Callable`): Fills the folder it is given; each process writes its part.
        keep (`int`): How many of the newest checkpoints stay.
    """
    state = process_state()
    target = folder / f"{_PREFIX}{step:09d}"
    partial = folder / f".{target.name}.partial"
    if state.is_main_process:
        _remove_partial(folder)
        partial.mkdir(parents=True)
    state.wait_for_everyone()
    with naming_full_disk(target):
        write(partial)
    state.wait_for_everyone()
    if state.is_main_process:
        (partial / MANIFEST_NAME).write_text(json.dumps(_manifest(partial), indent=1), encoding="utf-8")
        if target.exists():
            shutil.rmtree(target)
        partial.rename(target)
        remove_old_checkpoints(folder, step, keep)
    state.wait_for_everyone()


def last_whole_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint whose files are all there as they were written; damaged ones are named and left out."""
    for checkpoint in _checkpoints(folder):
        problem = _problem(checkpoint)
        if problem is None:
            return checkpoint
        logger.warning("%s is damaged (%s): it is left out", checkpoint, problem)
    return None


def remove_old_checkpoints(folder: Path, step: int, keep: int) -> None:
    """
    Removes checkpoints older than one that is whole, and what is left of runs that were killed while they wrote one.

    Args:
        folder (`Path`): Where checkpoints lie.
        step (`int`): Of the one that is whole.
        keep (`int`): How many stay, that one among them.
    """
    _remove_partial(folder)
    whole = folder / f"{_PREFIX}{step:09d}"
    for old in [path for path in _checkpoints(folder) if path <= whole][keep:]:
        shutil.rmtree(old)


def _remove_partial(folder: Path) -> None:
    for stale in folder.glob(f".{_PREFIX}*.partial"):
        shutil.rmtree(stale)


def _checkpoints(folder: Path) -> list[Path]:
    """The newest first."""
    return sorted(folder.glob(f"{_PREFIX}*"), reverse=True)


def _manifest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST_NAME)
    return {path.relative_to(folder).as_posix(): _digest(path) for path in files}


def _problem(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint."""
    try:
        manifest: dict[str, str] = json.loads((checkpoint / MANIFEST_NAME).read_text(encoding="utf-8"))
        for name, digest in manifest.items():
            if _digest(checkpoint / name) != digest:
                return f"{name} is not as it was written"
    except (OSError, ValueError) as error:
        return " ".join(str(error).split())
    return None


def _digest(path: Path) -> str:
    # hashlib.file_digest needs Python 3.11.
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
