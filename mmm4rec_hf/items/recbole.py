"""Items of RecBole's atomic files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmm4rec_hf.data.readers.files import text_lines

# A column's name in the data sets that RecBole's makers publish, and the field that it is here.
_FIELDS = {"movie_title": "title", "class": "genres", "genre": "genres", "categories": "category"}


def read_recbole_items(path: Path) -> Iterator[dict[str, Any]]:
    """
    Reads an `.item` file.

    Args:
        path (`Path`): Tab-separated, with a header of `name:type`; a `token_seq` column holds words. Quotes are part
            of the values.

    Yields:
        `dict`: A record an item, its fields named as in other catalogues: `item_id`, `title`, `genres`, ... A title
        gets its release year behind it, as films are named elsewhere.

    Raises:
        ValueError: If the header is not that of an atomic file, or a line has another number of columns.
    """
    lines = text_lines(path)
    header = [column.partition(":") for column in next(lines, (1, ""))[1].split("\t")]
    if not any(name == "item_id" for name, _, _ in header) or not all(kind for _, _, kind in header):
        raise ValueError(f"{path} is no atomic item file: its first line must name columns such as item_id:token")
    for number, line in lines:
        values = line.split("\t")
        if len(values) != len(header):
            raise ValueError(f"{path}, line {number}: {len(values)} columns, the header has {len(header)}")
        record: dict[str, Any] = {}
        for (name, _, kind), value in zip(header, values, strict=True):
            # A title is a sequence of words to RecBole, and a text to everyone else.
            as_list = kind == "token_seq" and not name.endswith("title")
            record[_FIELDS.get(name, name)] = value.split() if as_list else value
        if record.get("title") and record.get("release_year"):
            record["title"] = f"{record['title']} ({record.pop('release_year')})"
        yield record
