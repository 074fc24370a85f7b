"""Amazon product metadata, 2018 and 2023, in the fields of this package."""

from collections.abc import Iterable, Mapping
from typing import Any

from .text import is_absent

FORMATS = ("amazon-2018", "amazon-2023")
PICTURES_2018 = ("imageURLHighRes", "imageURL", "imUrl")


def amazon_format(names: Iterable[str]) -> str | None:
    """The format of records with these fields, where an id and the addresses of pictures tell it."""
    fields = set(names)
    if "asin" in fields and fields & set(PICTURES_2018):
        return "amazon-2018"
    return "amazon-2023" if {"parent_asin", "images"} <= fields else None


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
        "image": _first(*map(raw.get, PICTURES_2018)),
    }


def _from_2023(raw: Mapping[str, Any]) -> dict[str, Any]:
    images = raw.get("images")
    if isinstance(images, Mapping):
        # The Hub's data set holds a dictionary of lists where the files hold a list of dictionaries.
        columns = {name: values for name, values in images.items() if isinstance(values, list | tuple)}
        images = [dict(zip(columns, values, strict=False)) for values in zip(*columns.values(), strict=False)]
    images = [image for image in images if isinstance(image, Mapping)] if isinstance(images, list | tuple) else []
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
    if not isinstance(value, list | tuple):
        return value
    return " ".join(str(part) for part in value if not is_absent(part) and part)


def _first(*candidates: Any) -> str | None:
    """The first address that is not empty, among strings and lists of strings."""
    for candidate in candidates:
        for value in candidate if isinstance(candidate, list | tuple) else [candidate]:
            if value and isinstance(value, str):
                return value
    return None
