"""CSV, TSV and their kind: every field is read as the string it is, so that no id loses a digit or a leading zero."""

import logging
from pathlib import Path

import narwhals as nw
import numpy as np
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
            Between tabs nothing does either where one would otherwise hold lines that are whole rows; this is logged,
            as is the number of lines inside of fields.

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
    return _parse(
        content, path, separator or _separator(content, path), header=None, quote_char='"', level=logging.INFO
    )


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
    level: int = logging.WARNING,
) -> pl.DataFrame:
    """The table of a file's content; the number of lines that lie inside of quoted fields is logged at a level."""
    try:
        table = pl.read_csv(
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
            text = windows_text(content).encode()
            return _parse(text, path, separator, header, quote_char, is_utf8=True, level=level)
        if quote_char and (raw := _with_quotes(content, path, separator, header, quote_char)) is not None:
            return raw
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path} cannot be read as text of columns: {reason}") from error
    if quote_char is None or not (inside := _lines_inside_fields(content, table, header is None, quote_char)):
        return table
    if (raw := _with_quotes(content, path, separator, header, quote_char)) is not None:
        return raw
    logger.log(
        level,
        "%s: %d lines lie inside quoted fields, and are no rows; if rows are missing, a field begins with a quote of "
        "its own: enclose such fields in quotes, and double those inside",
        *(path, inside),
    )
    return table


def _lines_inside_fields(content: bytes, table: pl.DataFrame, has_header: bool, quote_char: str) -> int:
    """How many lines of a file belong to a field that began on a line before."""
    if quote_char.encode() not in content:
        return 0
    # The dear question is asked only of files with empty lines, or such fields.
    lines = _line_breaks(content) + (not content.endswith(b"\n"))
    if lines == len(table) + has_header:
        return 0
    in_fields = table.select(pl.all().str.count_matches("\n", literal=True).sum()).row(0)
    return sum(in_fields) + sum(name.count("\n") for name in table.columns if has_header)


def _line_breaks(content: bytes) -> int:
    # As `content.count`, in a sixth of its time: what fits a processor's cache at once.
    codes = np.frombuffer(content, np.uint8)
    return sum(int(np.count_nonzero(codes[at : at + 65_536] == ord("\n"))) for at in range(0, len(codes), 65_536))


def _with_quotes(
    content: bytes, path: Path, separator: str, header: list[str] | None, quote_char: str
) -> pl.DataFrame | None:
    """
    The table with its quotes as they stand, where they enclose nothing, as in many files of tabs: every line is a
    whole row by itself. `None` where they do enclose.
    """
    quote = quote_char.encode()
    # A program that encloses fields encloses the columns' names too, unless it does so where it must.
    if separator != "\t" or quote in content.split(b"\n", 1)[0]:
        return None
    if len({line.count(b"\t") for line in content.split(b"\n") if line.strip()}) != 1:
        return None
    table = _parse(content, path, separator, header, quote_char=None)
    inside = f"(?:[^{quote_char}]|{quote_char * 2})*"
    doubled = f"^{quote_char}{inside}{quote_char * 2}{inside}{quote_char}\\r?$"
    # A column that is enclosed, and quotes that are doubled as an enclosing program doubles them, say that a quote of
    # another field is missing.
    for column in table.iter_columns():
        values = column.drop_nulls()
        enclosed = values.str.contains(f"(?s)^{quote_char}.*{quote_char}\\r?$")
        if enclosed.sum() * 2 > len(values) or values.str.contains(doubled).any():
            return None
    logger.warning("%s: its quotes do not enclose fields, as each line is a row; they are read as they stand", path)
    return table
