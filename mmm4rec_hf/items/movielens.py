"""The films of MovieLens in all its layouts: `u.item` (100K), `movies.dat` (1M, 10M), `movies.csv` (20M, 25M, ...)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmm4rec_hf.data.readers.delimited import read_table
from mmm4rec_hf.data.readers.files import text_lines

FILES = ("u.item", "movies.dat", "movies.csv")
# The flags that end a line of `u.item`, in the order of `u.genre`.
GENRES_100K = (
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama"),
    *("Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
NO_GENRES = "(no genres listed)"


def read_movielens_items(path: Path) -> Iterator[dict[str, Any]]:
    """
    Reads a MovieLens file of films.

    Args:
        path (`Path`): A file of one of the names above.

    Yields:
        `dict`: `item_id`, `title` and `genres` (a list).

    Raises:
        ValueError: For a line of another form, naming it.
    """
    if path.name == "movies.csv":
        for row in read_table(path, ",").iter_rows(named=True):
            yield _film(row.get("movieId"), row.get("title"), (row.get("genres") or "").split("|"))
        return
    separator, columns = ("|", 5 + len(GENRES_100K)) if path.name == "u.item" else ("::", 3)
    for number, line in text_lines(path):
        fields = line.split(separator)
        if len(fields) != columns:
            raise ValueError(f"{path}, line {number}: {len(fields)} fields, a film has {columns}")
        if path.name == "u.item":
            genres = [name for name, flag in zip(GENRES_100K, fields[5:], strict=True) if flag == "1"]
        else:
            genres = fields[2].split("|")
        yield _film(fields[0], fields[1], genres)


def _film(item_id: str | None, title: str | None, genres: list[str]) -> dict[str, Any]:
    return {"item_id": item_id, "title": title, "genres": [name for name in genres if name not in ("", NO_GENRES)]}
