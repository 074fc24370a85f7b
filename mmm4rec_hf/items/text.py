"""The text of an item, made of its fields."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

PUBLISHED_TEXT_FIELDS: tuple[str, ...] = ("title", "brand", "description")


def item_text(record: Mapping[str, Any], fields: Sequence[str] = PUBLISHED_TEXT_FIELDS) -> str | None:
    """Writes an item as `Title: ... ; Brand: ... ; Description: ... ;`, the form of the published features.

    Args:
        record (`Mapping[str, Any]`): The item's fields. Lists are joined by commas.
        fields (`Sequence[str]`, *optional*, defaults to `("title", "brand", "description")`):
            The fields to write, in order. Those that an item lacks are left out.

    Returns:
        `str` or `None`: The text, `None` where the item has none of the fields.
    """
    parts = [(field, _plain(record.get(field))) for field in fields]
    return " ".join(f"{_label(field)}: {text} ;" for field, text in parts if text) or None


def _label(field: str) -> str:
    return field[:1].upper() + field[1:].replace("_", " ")


def _plain(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, list | tuple):
        return ", ".join(filter(None, map(_plain, value)))
    return " ".join(str(value).split())
