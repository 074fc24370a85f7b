"""RecBole's atomic files: `name.inter`, tab-separated, whose header tells a type with each name (`user_id:token`)."""

from pathlib import Path

from ..columns import LogColumns
from .delimited import read_delimited
from .files import RawLog


def interaction_file(path: Path) -> Path:
    """The `.inter` file that a path names or that lies in the folder it names.

    Raises:
        ValueError: If there is none, or more than one.
    """
    if path.is_file():
        return path
    found = sorted(path.glob("*.inter"))
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise ValueError(f"{path} should hold one .inter file, found {names}; name the file")
    return found[0]


def read_recbole(path: Path, columns: LogColumns) -> RawLog:
    """The interactions of a RecBole data set: a folder or its `.inter` file. Quotes are part of the values there."""
    return read_delimited([interaction_file(path)], columns, separator="\t", quote_char=None)
