"""Finding and opening the files of a log."""

import bz2
import gzip
import lzma
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import narwhals as nw

from mmm4rec_hf.data.columns import LogColumns

OPENERS = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
# What a file that was cut short, or is not what its name says, raises while it is read.
DECOMPRESSION_ERRORS = (EOFError, OSError, lzma.LZMAError)


@dataclass(frozen=True)
class RawLog:
    """A log as its reader found it, in the log's own columns.

    Args:
        frame (`nw.LazyFrame`): The rows, in the log's order.
        columns (`LogColumns`): Which of its columns are meant, as far as the caller or the format tells.
        where (`str`): What to call the log in messages.
        statistics (`dict[str, int]`): What the reader dropped, by reason.
    """

    frame: nw.LazyFrame
    columns: LogColumns
    where: str
    statistics: dict[str, int] = field(default_factory=dict)


def kind_of(path: Path) -> str:
    """The suffix that tells a file's format, without that of a compression: `.csv` for `log.csv.gz`."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in OPENERS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def open_bytes(path: Path) -> IO[bytes]:
    """The file's bytes, decompressed where its name says that it is compressed."""
    opener = OPENERS.get(path.suffix.lower(), open)
    return opener(path, "rb")  # type: ignore[operator]


def existing_paths(source: str | os.PathLike | Iterable[str | os.PathLike]) -> list[Path]:
    """The paths a caller named, one or several, each of which must exist.

    Raises:
        FileNotFoundError: Naming the first that does not exist.
        ValueError: If there is none.
    """
    named = [source] if isinstance(source, str | os.PathLike) else list(source)
    paths = [Path(path).expanduser() for path in named]
    if not paths:
        raise ValueError("no file given: the list of files is empty")
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"no such file or folder: {path}")
    return paths


def describe(paths: list[Path]) -> str:
    """The files' name in messages."""
    return str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more files"
