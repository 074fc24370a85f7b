"""The text of an item, made of its fields."""

import sys
from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any

import numpy as np

PUBLISHED_TEXT_FIELDS: tuple[str, ...] = ("title", "brand", "description")


def item_text(record: Mapping[str, Any], fields: Sequence[str] = PUBLISHED_TEXT_FIELDS) -> str | None:
    """Writes an item as `Title: ... ; Brand: ... ; Description: ... ;`, the form of the published features.

    Args:
        record (`Mapping[str, Any]`): The item's fields. Lists and arrays are joined by commas.
        fields (`Sequence[str]`, *optional*, defaults to `("title", "brand", "description")`):
            The fields to write, in order. Those that an item lacks are left out.

    Returns:
        `str` or `None`: The text, `None` where the item has none of the fields.
    """
    parts = [(field, plain_text(record.get(field))) for field in fields]
    return " ".join(f"{_label(field)}: {text} ;" for field, text in parts if text) or None


def title_text(record: Mapping[str, Any]) -> str | None:
    """An item's title: a text to the letter, a number or a list as [`plain_text`] writes it, `None` for none."""
    title = record.get("title")
    return title if isinstance(title, str) else plain_text(title) or None


def _label(field: str) -> str:
    return field[:1].upper() + field[1:].replace("_", " ")


def plain_text(value: Any) -> str:
    """
    A field's value in one line, as it stands in an item's text; empty where there is none.

    Args:
        value (`Any`): A text, a number, a date; of lists, tuples and arrays each value, joined by commas.
    """
    if is_absent(value):
        return ""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        return plain_text(value[()])
    if isinstance(value, list | tuple | np.ndarray):
        return ", ".join(filter(None, map(plain_text, value)))
    return " ".join(str(value).split())


def is_absent(value: Any) -> bool:
    """Whether a value stands for a gap, in whatever way a library marks one: None, NaN, NaT, pandas' NA."""
    if value is None or isinstance(value, str):
        return value is None
    if isinstance(value, Decimal):
        return value.is_nan()
    if isinstance(value, float | date | np.generic):
        return bool(value != value)
    # Who holds one has imported pandas, which is not needed otherwise.
    pandas = sys.modules.get("pandas")
    return pandas is not None and value is getattr(pandas, "NA", None)
