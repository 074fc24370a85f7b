"""CSV, TSV and their kind: every field is read as the string it is, so that no id loses a digit or a leading zero."""

import logging
from pathlib import Path

import narwhals as nw
import polars as pl

from ..columns import LogColumns
from .files import DECOMPRESSION_ERRORS, RawLog, describe, open_bytes, windows_text

logger = logging.getLogger(__name__)

SEPARATORS = {",": "comma", "\t": "tab", ";": "semicolon", "|": "bar"}


def read_delimited(
    paths: list[Path],
    columns: LogColumns,
    separator: str | None = None,
    header: list[str] | None = None,
    quote_char: str | None = '"',
) -> RawLog:
    """A log from one or many delimited text files with the same columns, one after the other.

    Args:
        paths (`list[Path]`): The files, in the log's order; compressed ones end in `.gz`, `.bz2` or `.xz`.
        columns (`LogColumns`): What is known of the columns.
        separator (`str`, *optional*): What stands between two fields; by default told by each file's first line.
        header (`list[str]`, *optional*): The columns' names, for files whose first line is data already.
        quote_char (`str`, *optional*, defaults to `'"'`): Encloses fields that hold the separator; None: nothing does.

    Raises:
        ValueError: For empty or ragged files, unknown or ambiguous columns; the message names the file.
    """
    parts = []
    for path in paths:
        content = _content(path)
        part = _parse(content, path, separator or _separator(content, path), header, quote_char)
        found = columns.resolve(part.columns, str(path))
        twice = next((name for name in found.values() if f"{name}_duplicated_0" in part.columns), None)
        if twice is not None:
            raise ValueError(f"{path} has two columns {twice!r}; give each a name of its own")
        parts.append(part.select(pl.col(theirs).alias(ours) for ours, theirs in found.items()))
        if parts[-1].columns != parts[0].columns:
            raise ValueError(f"{path} has other columns than {paths[0]}: {parts[-1].columns} and {parts[0].columns}")
    frame = nw.from_native(pl.concat(parts).lazy())
    return RawLog(frame, LogColumns.ours(parts[0].columns), describe(paths))


def read_table(path: Path, separator: str | None = None) -> pl.DataFrame:
    """One delimited file with all its columns, every field the string it is; see [`read_delimited`]."""
    content = _content(path)
    return _parse(content, path, separator or _separator(content, path), header=None, quote_char='"')


def _content(path: Path) -> bytes:
    try:
        with open_bytes(path) as file:
            return file.read()
    except DECOMPRESSION_ERRORS as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def _separator(content: bytes, path: Path) -> str:
    first_line = content.lstrip(b"\xef\xbb\xbf\r\n").split(b"\n", 1)[0].decode("utf-8", errors="replace")
    candidates = [separator for separator in SEPARATORS if separator in first_line]
    if not candidates:
        raise ValueError(
            f"the first line of {path} has neither comma, tab, semicolon nor bar, so its columns cannot be told "
            f"apart: {first_line[:80]!r}"
        )
    if len(candidates) > 1:
        names = [SEPARATORS[separator] for separator in candidates]
        raise ValueError(
            f"the first line of {path} holds {' and '.join(names)}; save it with one separator, or read it with a "
            "data frame library and give the frame"
        )
    return candidates[0]


def _parse(
    content: bytes,
    path: Path,
    separator: str,
    header: list[str] | None,
    quote_char: str | None,
    is_utf8: bool = False,
) -> pl.DataFrame:
    try:
        return pl.read_csv(
            content,
            separator=separator,
            has_header=header is None,
            new_columns=header,
            quote_char=quote_char,
            infer_schema=False,
        )
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        if "utf-8" in str(error) and not is_utf8:
            logger.warning("%s is no UTF-8; it is read as Windows-1252, which holds latin-1", path)
            return _parse(windows_text(content).encode(), path, separator, header, quote_char, is_utf8=True)
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path} cannot be read as text of columns: {reason}") from error
