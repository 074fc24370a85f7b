"""What the fields of items are called: ours, those of a shop's own files, and usual ones."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from .images import is_picture
from .text import item_text

# Compared in lower case, with letters and digits only.
ALIASES = {
    "title": ("title", "name", "productname", "producttitle", "itemname", "itemtitle", "movietitle"),
    "image": ("image", "picture", "photo", "img", "imagepath", "imagefile", "imageurl", "picturepath", "poster"),
}


def usual_fields(name: str, names: Iterable[str]) -> list[str]:
    """
    The fields that are called as a title or a picture usually is.

    Args:
        name (`str`): `"title"` or `"image"`.
        names (`Iterable[str]`): Fields of items.

    Returns:
        `list[str]`: That name alone where it is there itself; else all that it may go by.
    """
    names = list(names)
    if name in names:
        return [name]
    return [each for each in names if re.sub(r"[^a-z0-9]", "", each.lower()) in ALIASES[name]]


def rename_field(record: dict[str, Any], theirs: str, ours: str, text_fields: Collection[str] = ()) -> None:
    """
    Gives a field our name, in place; one that texts are made of by its own name keeps that, too.

    Args:
        record (`dict`): An item's fields.
        theirs (`str`): The name it has.
        ours (`str`): The name it gets.
        text_fields (`Collection[str]`, *optional*): The fields that make an item's text.
    """
    if theirs in record and theirs != ours:
        record[ours] = record[theirs] if theirs in text_fields else record.pop(theirs)


def name_alike(
    record: Mapping[str, Any], source_fields: Mapping[str, str], text_fields: Collection[str], with_pictures: bool
) -> dict[str, Any]:
    """
    A new item with its fields named as those of a catalogue are.

    Args:
        record (`Mapping[str, Any]`): Its fields, by our names, those of the shop's file, or usual ones.
        source_fields (`Mapping[str, str]`): By our names, what the shop's file called the fields.
        text_fields (`Collection[str]`): The fields that texts of this catalogue are made of.
        with_pictures (`bool`): Whether pictures of this catalogue are read.

    Raises:
        ValueError: If several fields may be one that is read.
    """
    named = dict(record)
    for ours in ALIASES:
        if ours in named:
            continue
        # What a text is made of is no path of a picture.
        names = [name for name in named if ours != "image" or name not in text_fields]
        told = source_fields.get(ours)
        found = [told] if told in names else usual_fields(ours, names)
        if len(found) > 1:
            if with_pictures if ours == "image" else ours in text_fields:
                raise ValueError(
                    f"{', '.join(map(repr, found))} of a new item may each be the {ours}; call one {ours!r}"
                )
            continue
        for theirs in found:
            rename_field(named, str(theirs), ours, text_fields)
    return named


def check_new_texts(
    item_ids: Sequence[str],
    records: Sequence[Mapping[str, Any]],
    text_fields: Sequence[str],
    source_fields: Mapping[str, str],
) -> None:
    """
    Refuses new items that say something, but nothing that is read.

    Args:
        item_ids (`Sequence[str]`): Their ids.
        records (`Sequence[Mapping[str, Any]]`): Their fields, by a catalogue's names.
        text_fields (`Sequence[str]`): The fields that its texts are made of.
        source_fields (`Mapping[str, str]`): By our names, what the shop's file called the fields.

    Raises:
        ValueError: If none has a text, and one of them has other fields but no picture, either.
    """
    if any(item_text(record, text_fields) for record in records):
        return
    for item_id, record in zip(item_ids, records, strict=True):
        others = [name for name in record if name != "image"]
        if others and not is_picture(record.get("image")):
            raise ValueError(
                f"item {item_id!r} has no text: it has {', '.join(map(repr, others))}, and texts of this catalogue "
                f"are made of {expected_fields(text_fields, source_fields)}; give it one of these"
            )


def expected_fields(text_fields: Iterable[str], source_fields: Mapping[str, str]) -> str:
    """The fields that texts are made of, with the names that the shop's file had for them."""
    return ", ".join(
        repr(name) + (f" (or {source_fields[name]!r})" if name in source_fields else "") for name in text_fields
    )
