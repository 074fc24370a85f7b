"""Titles found by words, and one page of them."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Found:
    """
    One page of a search.

    Args:
        rows (`list[int]`): Places in the catalogue, from 0, of this page's items.
        total (`int`): Items found on all pages.
        page (`int`): Number of this page, from 1; the last one where a later one was asked for.
        pages (`int`): Number of pages, at least 1.
    """

    rows: list[int]
    total: int
    page: int
    pages: int


class TitleSearch:
    """
    Finds items whose title or id holds every word of a query, whatever the case and the accents.

    Args:
        item_ids (`Sequence[str]`): External ids.
        titles (`Sequence[str]`): A title, or `None`, for each.
    """

    def __init__(self, item_ids: Sequence[str], titles: Sequence[str | None]) -> None:
        self._lines = [folded(f"{title or ''}\n{item_id}") for item_id, title in zip(item_ids, titles, strict=True)]

    def find(self, query: str, page: int, page_size: int) -> Found:
        """
        One page of the items found, in the catalogue's order.

        Args:
            query (`str`): Words; the empty string finds everything.
            page (`int`): From 1.
            page_size (`int`): Items a page.
        """
        words = folded(query).split()
        total = len(self._lines)
        rows: Sequence[int] = range(total)
        if words:
            rows = [row for row, line in enumerate(self._lines) if all(word in line for word in words)]
            total = len(rows)
        pages = max(1, -(-total // page_size))
        page = min(max(1, page), pages)
        return Found(list(rows[(page - 1) * page_size : page * page_size]), total, page, pages)


def folded(text: str) -> str:
    """A text without case and accents."""
    parts = unicodedata.normalize("NFKD", text)
    return "".join(part for part in parts if not unicodedata.combining(part)).casefold()
