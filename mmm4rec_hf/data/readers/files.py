"""Finding and opening the files of a log."""

import bz2
import codecs
import gzip
import io
import lzma
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import narwhals as nw

from ..columns import LogColumns

KINDS = {
    ".csv": "csv",
    ".txt": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
# Text shrinks to a tenth, very regular one to a fiftieth; a bomb to a thousandth and less.
MOST_TIMES = 200
UNPACKED_BYTES = 256 << 20
BUFFER_BYTES = 1 << 18
# What a file that was cut short, or is not what its name says, raises while it is read.
DECOMPRESSION_ERRORS = (EOFError, OSError, lzma.LZMAError, zlib.error)


@dataclass(frozen=True)
class RawLog:
    """A log as its reader found it, in the log's own columns.

    Args:
        frame (`nw.LazyFrame`): The rows, in the log's order.
        columns (`LogColumns`): Which of its columns are meant, as far as the caller or the format tells.
        where (`str`): What to call the log in messages.
        statistics (`dict[str, int]`): What the reader dropped, by reason.
        deduplicated (`bool`): Whether rows that agree in all they hold are events of their own.
        item_ids (`list[str]`, *optional*): The items in an order of the log's own.
    """

    frame: nw.LazyFrame
    columns: LogColumns
    where: str
    statistics: dict[str, int] = field(default_factory=dict)
    deduplicated: bool = False
    item_ids: list[str] | None = None


class _Bounded(io.RawIOBase):
    """What a compressed file holds, as long as it is data and no bomb."""

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self._stream, self._path, self._read = stream, path, 0
        self._most = most_unpacked([path])

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._stream.read(len(buffer))
        self._read += len(content)
        if self._read > self._most:
            raise ValueError(
                f"{self._path} unpacks to more than {MOST_TIMES} times its size, which no log or list of items does; "
                "unpack it yourself if it is meant"
            )
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        self._stream.close()
        super().close()


def most_unpacked(paths: Iterable[Path]) -> int:
    """The bytes that compressed files may hold."""
    return max(UNPACKED_BYTES, MOST_TIMES * sum(path.stat().st_size for path in paths))


def kind_of(path: Path) -> str:
    """The suffix that tells a file's format, without that of a compression: `.csv` for `log.csv.gz`."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in OPENERS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def open_bytes(path: Path) -> IO[bytes]:
    """The file's bytes, decompressed where its name says that it is compressed; UTF-16, as spreadsheets write it, as
    UTF-8.

    Raises:
        ValueError: For a file that begins like UTF-16 and is none, and, while it is read, one that unpacks to far more
            than its size.
    """
    opener: Callable[..., Any] | None = OPENERS.get(path.suffix.lower())
    stream = path.open("rb") if opener is None else io.BufferedReader(_Bounded(opener(path, "rb"), path), BUFFER_BYTES)
    if stream.peek(2)[:2] not in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return stream
    with stream:
        try:
            text = stream.read().decode("utf-16")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} begins like UTF-16, but is none: {error}") from error
    return io.BufferedReader(io.BytesIO(text.encode()))


def decoded(content: bytes) -> str:
    """Text in UTF-8, or else as [`windows_text`]."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return windows_text(content)


def windows_text(content: bytes) -> str:
    """Text in Windows-1252: latin-1, and quotes, dashes and the euro sign where that has no letters."""
    return content.decode("cp1252", errors=_UNUSED_BYTES)


def _as_latin_1(error: UnicodeError) -> tuple[str, int]:
    """Five bytes mean nothing in Windows-1252; they stay what they are in latin-1, control characters."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return error.object[error.start : error.end].decode("latin-1"), error.end


_UNUSED_BYTES = "mmm4rec_latin_1"
codecs.register_error(_UNUSED_BYTES, _as_latin_1)


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file that are not empty, with their numbers, from 1 on.

    Raises:
        ValueError: For a file that cannot be decompressed.
    """
    try:
        with open_bytes(path) as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, decoded(line).rstrip("\r\n")
    except DECOMPRESSION_ERRORS as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


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


def log_files(paths: list[Path], any_kind: bool) -> list[Path]:
    """The files of a log, in order: those named, and of a folder its `interactions` file or else all that it holds.

    Args:
        paths (`list[Path]`): Files and folders.
        any_kind (`bool`): Whether files may have other suffixes than the known ones, their format being told.

    Raises:
        ValueError: If there is none, or they are of no known kind, or of several.
    """
    files = [file for path in paths for file in (_files_in(path) if path.is_dir() else [path])]
    if not files:
        raise ValueError(f"{describe(paths)} holds no file of a known kind ({', '.join(KINDS)})")
    if any_kind:
        return files
    unknown = [file for file in files if kind_of(file) not in KINDS]
    if unknown:
        raise ValueError(f"{unknown[0]} is of no known kind ({', '.join(KINDS)}); name its format=")
    kinds = sorted({KINDS[kind_of(file)] for file in files})
    if len(kinds) > 1:
        raise ValueError(f"{describe(paths)} holds files of {' and '.join(kinds)}; name the files of the log")
    return files


def _files_in(folder: Path) -> list[Path]:
    known = [file for file in sorted(folder.rglob("*")) if file.is_file() and kind_of(file) in KINDS]
    # Hidden files and those with a leading underscore are other programs' notes, such as Spark's.
    known = [file for file in known if not file.name.startswith((".", "_"))]
    return [file for file in known if file.name.split(".")[0] == "interactions"] or known


def describe(paths: list[Path]) -> str:
    """The files' name in messages."""
    return str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more files"
