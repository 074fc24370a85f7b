"""What the fields of items are called: ours, those of a shop's own files, and usual ones."""

import logging
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from mmm4rec_hf.suggestions import did_you_mean, nearest, remedy

from .images import is_picture
from .text import item_text, plain_text

logger = logging.getLogger(__name__)

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


def rename_field(record: dict[str, Any], theirs: str, ours: str, text_fields: Collection[str] = ()) -> bool:
    """
    Gives a field our name, in place; one that texts are made of by its own name keeps that, too.

    Args:
        record (`dict`): An item's fields.
        theirs (`str`): The name it has.
        ours (`str`): The name it gets.
        text_fields (`Collection[str]`, *optional*): The fields that make an item's text.

    Returns:
        `bool`: Whether another value, which had our name before, was lost.
    """
    if theirs not in record or theirs == ours:
        return False
    before = record.get(ours)
    record[ours] = record[theirs] if theirs in text_fields else record.pop(theirs)
    return before is not None and repr(before) != repr(record[ours])


def with_title(
    source_fields: Mapping[str, str], records: Sequence[Mapping[str, Any]], text_fields: Collection[str]
) -> dict[str, str]:
    """
    What a shop's file calls the fields, that of the title also where nobody told, but it has a usual name.

    Args:
        source_fields (`Mapping[str, str]`): By our names, what was told.
        records (`Sequence[Mapping[str, Any]]`): The fields of a whole catalogue's items.
        text_fields (`Collection[str]`): The fields that texts are made of.
    """
    theirs = source_fields.get("title") or _usual_title(records, text_fields)
    return dict(source_fields) if theirs is None else {**source_fields, "title": theirs}


def _usual_title(records: Sequence[Mapping[str, Any]], text_fields: Collection[str]) -> str | None:
    """The field that is called as a title usually is, where there is no `title`, or one that holds the same."""
    names = dict.fromkeys(name for record in records for name in record)
    if "title" not in names:
        found = usual_fields("title", names)
        read = [name for name in found if name in text_fields]
        return (read or found)[0] if 1 in (len(read), len(found)) else None
    read = [] if "title" in text_fields else [name for name in usual_fields("title", text_fields) if name in names]
    # Two columns of a file are one field where they hold one thing.
    if len(read) == 1 and all(
        plain_text(record.get("title")) in ("", plain_text(record.get(read[0]))) for record in records
    ):
        return read[0]
    return None


def title_by_both_names(record: Mapping[str, Any], theirs: str, text_fields: Collection[str]) -> dict[str, Any]:
    """
    An item with its title under each name that is read: `title`, and the shop's own where texts are made of that.

    Args:
        record (`Mapping[str, Any]`): Its fields.
        theirs (`str`): What the shop's file calls the title.
        text_fields (`Collection[str]`): The fields that texts are made of.
    """
    named = dict(record)
    if theirs in named:
        named.setdefault("title", named[theirs])
    elif "title" in named and theirs in text_fields:
        named[theirs] = named["title"]
    return named


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
        ValueError: If several fields may be one that is read, or the title is given twice and differs.
    """
    named = dict(record)
    theirs = source_fields.get("title", "title")
    if theirs != "title" and {"title", theirs} <= named.keys():
        _check_one_title(named, theirs)
    for ours in ALIASES:
        if ours in named:
            continue
        # What a text is made of is no path of a picture.
        names = [name for name in named if ours != "image" or name not in text_fields]
        told = source_fields.get(ours)
        found = [told] if told in names else usual_fields(ours, names)
        if len(found) > 1:
            if with_pictures if ours == "image" else {ours, told} & set(text_fields):
                raise ValueError(
                    f"{', '.join(map(repr, found))} of a new item may each be the {ours}; call one {ours!r}"
                )
            continue
        for name in found:
            rename_field(named, str(name), ours, text_fields)
    return title_by_both_names(named, theirs, text_fields)


def _check_one_title(record: dict[str, Any], theirs: str) -> None:
    """Leaves a title that is given by both of its names under `title` alone."""
    title, other = record["title"], record.pop(theirs)
    if not plain_text(title):
        record["title"] = other
    elif plain_text(other) not in ("", plain_text(title)):
        raise ValueError(
            f"'title' and {theirs!r} are one field of this catalogue, and a new item has {title!r} and {other!r}; "
            "give one of them"
        )


def check_new_texts(
    item_ids: Sequence[str],
    records: Sequence[Mapping[str, Any]],
    text_fields: Sequence[str],
    source_fields: Mapping[str, str],
) -> None:
    """
    Refuses new items of which nothing is read.

    Args:
        item_ids (`Sequence[str]`): Their ids.
        records (`Sequence[Mapping[str, Any]]`): Their fields, by a catalogue's names.
        text_fields (`Sequence[str]`): The fields that its texts are made of.
        source_fields (`Mapping[str, str]`): By our names, what the shop's file called the fields.

    Raises:
        ValueError: If none has a text, and one of them no picture, either.
    """
    if any(item_text(record, text_fields) for record in records):
        return
    for item_id, record in zip(item_ids, records, strict=True):
        if not is_picture(record.get("image")):
            has = ", ".join(repr(name) for name in record if name != "image") or "nothing but its id"
            raise ValueError(
                f"item {item_id!r} has no text: it has {has}, and texts of this catalogue are made of "
                f"{expected_fields(text_fields, source_fields)}; give it one of these"
            )


def check_text_fields(records: Sequence[Mapping[str, Any]], text_fields: Sequence[str]) -> None:
    """
    Refuses a field to make texts of that a whole catalogue lacks; it was misspelt.

    Args:
        records (`Sequence[Mapping[str, Any]]`): The fields of its items.
        text_fields (`Sequence[str]`): The fields that texts are to be made of.

    Raises:
        ValueError: If no item has one of them, with the nearest name that there is.
    """
    there = dict.fromkeys(name for record in records for name in record if name != "image")
    # Items of pictures alone, or of nothing yet, are counted as without text.
    for field in text_fields if there else ():
        if field not in there:
            told = f"no item has {field!r}, of which texts are to be made; {remedy(field, there)}"
            raise ValueError(
                told + ("; if the title has another name, give title_column=" if field == "title" else "")
            )


def check_new_fields(
    item_ids: Sequence[str],
    records: Sequence[Mapping[str, Any]],
    text_fields: Sequence[str],
    known_fields: Collection[str],
) -> None:
    """
    Says which fields of new items are not read, unless the catalogue's own items have them, too.

    Args:
        item_ids (`Sequence[str]`): Their ids.
        records (`Sequence[Mapping[str, Any]]`): Their fields, by a catalogue's names.
        text_fields (`Sequence[str]`): The fields that its texts are made of.
        known_fields (`Collection[str]`): The fields of its items.

    Raises:
        ValueError: If the name of a field is nearly that of one that texts are made of, and which the item lacks.
    """
    unread: dict[str, None] = {}
    for item_id, record in zip(item_ids, records, strict=True):
        for name in unread_fields(record, text_fields):
            if name in known_fields:
                continue
            lacking = [field for field in text_fields if field in known_fields and field not in record]
            near = nearest(name, lacking)
            if near:
                raise ValueError(
                    f"item {item_id!r} has a field {name!r}, of which no text is made; {did_you_mean(near)} "
                    "Rename it, or leave it out"
                )
            unread[name] = None
    if unread:
        logger.warning(
            "new items have fields that are not read: %s; texts are made of %s",
            *(", ".join(unread), ", ".join(text_fields)),
        )


def unread_fields(record: Mapping[str, Any], text_fields: Collection[str]) -> list[str]:
    """The fields of an item that are neither read nor shown; they are kept."""
    return [name for name in record if name not in text_fields and name not in ("item_id", *ALIASES)]


def expected_fields(text_fields: Iterable[str], source_fields: Mapping[str, str]) -> str:
    """The fields that texts are made of, with the other name that one has."""
    others = {theirs: ours for ours, theirs in source_fields.items()} | dict(source_fields)
    return ", ".join(repr(name) + (f" (or {others[name]!r})" if name in others else "") for name in text_fields)
