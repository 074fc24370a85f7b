"""Amazon product metadata, 2018 and 2023, in the fields of this package."""

from collections.abc import Mapping
from typing import Any

FORMATS = ("amazon-2018", "amazon-2023")


def amazon_record(raw: Mapping[str, Any], format: str) -> dict[str, Any]:
    """Renames a product's metadata: `item_id`, `title`, `brand`, `description`, `category`, `price`, `image`.

    Args:
        raw (`Mapping[str, Any]`): A line of a metadata file.
        format (`str`): `"amazon-2018"` or `"amazon-2023"`.

    Returns:
        `dict[str, Any]`: Without the fields that the product lacks.
    """
    record = _from_2018(raw) if format == "amazon-2018" else _from_2023(raw)
    return {field: value for field, value in record.items() if value not in (None, "", [], {})}


def _from_2018(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "item_id": raw.get("asin"),
        "title": raw.get("title"),
        "brand": raw.get("brand"),
        "description": _joined(raw.get("description")),
        "category": raw.get("category") or raw.get("categories"),
        "price": raw.get("price"),
        # The high resolution list may begin with an empty string: then the next address counts.
        "image": _first(raw.get("imageURLHighRes"), raw.get("imageURL"), raw.get("imUrl")),
    }


def _from_2023(raw: Mapping[str, Any]) -> dict[str, Any]:
    images = raw.get("images") or []
    if isinstance(images, Mapping):
        # The Hub's data set holds a dictionary of lists where the files hold a list of dictionaries.
        images = [dict(zip(images, values, strict=False)) for values in zip(*images.values(), strict=False)]
    main = [image for image in images if image.get("variant") == "MAIN"]
    return {
        "item_id": raw.get("parent_asin"),
        "title": raw.get("title"),
        "brand": raw.get("store"),
        "description": _joined(raw.get("description")),
        "features": raw.get("features"),
        "category": raw.get("categories") or raw.get("main_category"),
        "price": raw.get("price"),
        "image": _first(*(image.get(size) for image in [*main, *images] for size in ("hi_res", "large", "thumb"))),
    }


def _joined(value: Any) -> Any:
    return " ".join(str(part) for part in value if part) if isinstance(value, list | tuple) else value


def _first(*candidates: Any) -> str | None:
    """The first address that is not empty, among strings and lists of strings."""
    for candidate in candidates:
        for value in [candidate] if isinstance(candidate, str) else candidate or []:
            if value:
                return str(value)
    return None
