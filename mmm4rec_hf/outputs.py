"""Files and folders that are whole or not there: written under another name, and renamed once everything went well."""

import ctypes
import errno
import fnmatch
import functools
import hashlib
import json
import os
import platform
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

# A dot, the name, and who writes: the machine, the process and a number of its own.
_TEMPORARY = re.compile(
    r"\.(?P<name>.+)\.(?P<host>[0-9a-f]{6})-(?P<process>\d+)-[0-9a-f]{8}\.(?P<kind>partial|replaced)"
)
# Also where a quota is used up.
_FULL = (errno.ENOSPC, errno.EDQUOT)
# What file managers and network disks leave in any folder.
_OF_THE_SYSTEM = (".DS_Store", "._*", "Thumbs.db", "desktop.ini", ".nfs*")
_in_use: set[Path] = set()
_cleaned: set[Path] = set()


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """
    Gives a temporary path of the same name to write to, which becomes `path` once everything went well.

    Some writers put the name into the file, `torch.save` for one: in a folder of its own the name is the right one.
    """
    with _temporary(path, "partial") as folder, naming_full_disk(path):
        folder.mkdir()
        yield folder / path.name
        (folder / path.name).replace(path)


@contextmanager
def replace_folder(target: Path, own: Sequence[str] | None = None, keep_others: bool = False) -> Iterator[Path]:
    """
    Gives a folder of another name to fill, which takes the place of `target` once everything went well.

    Args:
        target (`Path`): The folder, which need not be there.
        own (`Sequence[str]`, *optional*):
            What may lie in `target`, as [`refuse_other_files`] takes it. Without it nothing is looked at: for callers
            that have looked.
        keep_others (`bool`, *optional*, defaults to `False`):
            Whether what else lies in `target` when the work is done goes along into the new folder, in place of being
            refused: for folders that are known to be the caller's, whose work must not end for a file beside it.

    Raises:
        ValueError: If `target` is where a disk is mounted, which nothing can take the place of, or with `own` a file;
            and as [`refuse_other_files`], before anything is written, or of what came there in the meantime.
    """
    # What a link names is replaced, and the link stays.
    target = target.resolve() if target.is_symlink() else target
    if target.is_dir() and os.path.ismount(target):
        raise ValueError(f"{target} is the mount point of a disk and cannot be replaced; name a folder inside it")
    _refuse_to_replace(target, own, keep_others)
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        _temporary(target, "partial") as partial,
        _temporary(target, "replaced") as replaced,
        naming_full_disk(target),
    ):
        partial.mkdir()
        yield partial
        _refuse_to_replace(target, own, keep_others)
        if keep_others:
            _copy_others(target, own or (), partial)
        if not target.exists():
            partial.rename(target)
        elif not _exchange(partial, target):
            # Renamed first: a folder that is half removed must not have the name of a whole one.
            target.rename(replaced)
            try:
                partial.rename(target)
            except OSError:
                replaced.rename(target)
                raise


def _refuse_to_replace(target: Path, own: Sequence[str] | None, keep_others: bool) -> None:
    if own is not None and not keep_others:
        refuse_other_files(target, own)
    elif own is not None:
        _refuse_file(target)


def _refuse_file(target: Path) -> None:
    if target.exists() and not target.is_dir():
        raise ValueError(f"{target} is a file and would be replaced by a folder; name another folder")


def _copy_others(target: Path, own: Sequence[str], partial: Path) -> None:
    """Takes what is not ours of a folder along into the one that takes its place; what was written anew stays."""
    for name in other_files(target, own):
        copy = partial / name
        if os.path.lexists(copy):
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            shutil.copytree(target / name, copy, symlinks=True)
        else:
            shutil.copy2(target / name, copy, follow_symlinks=False)


def refuse_other_files(target: Path, own: Sequence[str], keep_others: bool = False) -> None:
    """
    Makes sure that a folder which is to be replaced holds nothing else than what is written there: whatever a user
    put beside it would be gone.

    Args:
        target (`Path`): The folder, which need not be there.
        own (`Sequence[str]`):
            What is written there, as paths below `target`: `"shards/shard-*.parquet"`, or `"images/"` for a folder
            with all that it holds. The first is of a file that is always written; a folder without it is another's.
            Where others write a file of this name too, what it holds is for the caller to look at, as
            [`~mmm4rec_hf.training.saving.refuse_other_model`] does. With none, `target` must be empty.
        keep_others (`bool`, *optional*, defaults to `False`):
            Whether what has other names goes along, as [`replace_folder`] does it: then only what has one of these
            names in a folder of another's is refused.

    Raises:
        ValueError: Naming what else lies there, or if `target` is a file.
    """
    _refuse_file(target)
    is_own = bool(own) and (target / own[0]).is_file()
    others = other_files(target, own if is_own else ())
    if keep_others:
        kept = set(other_files(target, own))
        others = [name for name in others if name not in kept]
    if others:
        shown = ", ".join([*others[:5], *(["..."] if len(others) > 5 else [])])
        raise ValueError(
            f"{target} holds something else than what is written there, which would be lost: {shown}; name another "
            "folder, or move this away"
        )


def holds_files(folder: Path) -> bool:
    """Whether a folder holds anything but empty folders, what a killed command left, and what systems write."""
    return bool(other_files(folder, ()))


def other_files(folder: Path, own: Sequence[str]) -> list[str]:
    """
    What lies in a folder and is not written there.

    Args:
        folder (`Path`): The folder, which need not be there.
        own (`Sequence[str]`): As [`refuse_other_files`] takes it.

    Returns:
        `list[str]`: Paths below `folder`; of a folder of other things its name alone, with a slash at its end.
    """
    return _others(folder, own) if folder.is_dir() else []


def _others(folder: Path, own: Sequence[str], below: str = "") -> list[str]:
    found = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        temporary = _TEMPORARY.fullmatch(entry.name)
        # Left by a command that was killed, or of one that runs; what was renamed out of the way is whole.
        if temporary and temporary["kind"] == "partial":
            continue
        name = below + (temporary["name"] if temporary else entry.name)
        if not entry.is_dir(follow_symlinks=False):
            # In a folder of its own kind alone does a star stand for anything.
            patterns = [pattern for pattern in own if pattern.count("/") == name.count("/")]
            if not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns) and not any(
                fnmatch.fnmatchcase(entry.name, pattern) for pattern in _OF_THE_SYSTEM
            ):
                found.append(below + entry.name)
        elif f"{name}/" in own:
            continue
        elif any(pattern.startswith(f"{name}/") for pattern in own):
            found += _others(Path(entry.path), own, f"{name}/")
        elif any(os.scandir(entry.path)):
            found.append(f"{below}{entry.name}/")
    return found


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file."""
    with replace_file(path) as partial:
        partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def naming_full_disk(path: Path) -> Iterator[None]:
    """
    Says that a disk is full in the same words whatever library found out: some name no reason, or raise errors of
    their own kind.

    Args:
        path (`Path`): What is written.

    Raises:
        OSError: `ENOSPC`, naming the path.
    """
    try:
        yield
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        if number is not None and (error.filename is not None or number not in _FULL):  # type: ignore[attr-defined]
            raise
        if number in _FULL or _is_full(path.parent):
            number = number or errno.ENOSPC
            raise OSError(number, os.strerror(number), str(path)) from error
        raise


def _is_full(folder: Path) -> bool:
    """Whether a small file can be written no more."""
    with _temporary(folder / "probe", "partial") as probe:
        try:
            probe.write_bytes(bytes(2**16))
        except OSError as error:
            return error.errno in _FULL
    return False


@contextmanager
def _temporary(path: Path, kind: str) -> Iterator[Path]:
    """A name beside a path that nobody else uses; what has it in the end is removed."""
    _clean(path.parent)
    # Two threads may write the same output: each has a name of its own, and the last one stays.
    name = path.with_name(f".{path.name}.{_host()}-{os.getpid()}-{secrets.token_hex(4)}.{kind}")
    _in_use.add(name)
    try:
        yield name
    finally:
        _remove(name)
        _in_use.discard(name)


def _clean(folder: Path) -> None:
    """Removes what processes of this machine left in a folder that were killed while they wrote there."""
    if folder in _cleaned or os.name != "posix":
        return
    _cleaned.add(folder)
    with suppress(OSError):
        for path in list(folder.glob(".*")):
            found = _TEMPORARY.fullmatch(path.name)
            # In another container of the same volume the process may run; its machine has another name.
            if not found or found["host"] != _host() or path in _in_use or _is_running(int(found["process"])):
                continue
            if found["kind"] == "replaced" and not path.with_name(found["name"]).exists():
                # Killed between the two renames: the earlier folder is whole.
                path.rename(path.with_name(found["name"]))
            else:
                _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    """Whether another process of this number runs; in a container one after the other may have the number 1."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def _exchange(one: Path, other: Path) -> bool:
    """Swaps two names in one step, so that there is no moment without either; `False` where the system cannot."""
    rename = _renameat2()
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return rename is not None and rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0


@functools.cache
def _renameat2() -> Callable[..., int] | None:
    """Of Linux alone."""
    try:
        return ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):
        return None


@functools.cache
def _host() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:6]
