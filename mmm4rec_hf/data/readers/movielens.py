"""MovieLens in all its layouts: `u.data` (100K), `ratings.dat` (1M, 10M), `ratings.csv` (latest, 20M, 25M, 32M)."""

from pathlib import Path

import narwhals as nw
import polars as pl

from ..columns import LogColumns
from .delimited import read_delimited
from .files import DECOMPRESSION_ERRORS, RawLog, open_bytes

HEADER = ["user_id", "item_id", "rating", "timestamp"]
FILES = ("u.data", "ratings.dat", "ratings.csv")


def ratings_file(path: Path) -> Path | None:
    """The file of ratings that a path names or that lies in the folder it names, if there is one."""
    if path.is_file():
        return path if path.name in FILES else None
    return next((path / name for name in FILES if (path / name).is_file()), None)


def read_movielens(path: Path, columns: LogColumns) -> RawLog:
    """The ratings of a MovieLens data set: a folder or its file of ratings.

    Raises:
        ValueError: If there is no such file, or it is none.
    """
    file = ratings_file(path)
    if file is None:
        raise ValueError(f"{path} is no MovieLens data set: none of {', '.join(FILES)} is there")
    if file.suffix == ".csv":
        return read_delimited([file], columns, separator=",")
    if file.suffix == ".data":
        return read_delimited([file], columns, separator="\t", header=HEADER, quote_char=None)
    return _read_double_colons(file)


def _read_double_colons(file: Path) -> RawLog:
    try:
        with open_bytes(file) as stream:
            content = stream.read()
    except DECOMPRESSION_ERRORS as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
    lines = pl.Series("line", content.decode("latin-1").splitlines(), dtype=pl.String)
    fields = lines.str.split_exact("::", len(HEADER) - 1).struct.rename_fields(HEADER).struct.unnest()
    return RawLog(nw.from_native(fields.lazy()), LogColumns.ours(HEADER), str(file))
