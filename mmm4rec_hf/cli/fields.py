"""Which fields of a shop's items are the title and the picture, and whether anything is left to encode."""

from collections.abc import Collection, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from .running import UsageError

if TYPE_CHECKING:
    from ..items import ItemCatalog

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")


def name_fields(
    catalog: "ItemCatalog", title: str | None, image: str | None, text_fields: Collection[str] = ()
) -> list[str]:
    """
    Gives the fields of a catalogue's items the names `title` and `image`, in place; the catalogue remembers the ones
    they had, since new items may have them too.

    Args:
        catalog (`ItemCatalog`): As it was read.
        title (`str`, *optional*): The field of the title; by default found by its usual names.
        image (`str`, *optional*): The field of the picture, likewise.
        text_fields (`Collection[str]`, *optional*): Fields that texts are made of, which keep their names as well.

    Returns:
        `list[str]`: What was taken for what without being told, and what was left out for it, one sentence each.

    Raises:
        UsageError: If no item has the field, or several fields may be meant.
    """
    from ..items.fields import rename_field

    notes = []
    for name, told in (("title", title), ("image", image)):
        names = _names(catalog)
        found = told if told is not None else _found(name, names)
        if found is None or found == name:
            continue
        if found not in names:
            is_id = " beside its id" if found == catalog.source_fields.get("item_id") else ""
            raise UsageError(f"no item has a field {found!r}{is_id}; there are {', '.join(names)}")
        lost = sum(rename_field(record, found, name, text_fields) for record in catalog.records)
        catalog.source_fields[name] = found
        if told is not None and not lost:
            continue  # whoever names a field knows
        instead = f", instead of what {lost:,} items have as {name}" if lost else ""
        notes.append(f"{found} is read as the {'title' if name == 'title' else 'picture'}{instead}")
    return notes


def select_items(catalog: "ItemCatalog", item_ids: Sequence[str], where: str) -> "ItemCatalog":
    """
    The items of a log, in its order.

    Raises:
        ValueError: If the catalogue lacks some, with the ids of both, since it is often their spelling that differs.
    """
    missing = [item_id for item_id in item_ids if item_id not in catalog]
    if missing:
        shown, known = (", ".join(map(repr, ids[:3])) for ids in (missing, catalog.item_ids))
        raise ValueError(
            f"{len(missing):,} of the {len(item_ids):,} items of the log are not in {where}, such as {shown}; it has "
            f"{known}, ... Ids are compared to the letter: add the items, spell both alike, or prepare the log with "
            "--items CATALOG to leave those out"
        )
    return catalog.select(item_ids)


def check_texts(catalog: "ItemCatalog", fields: Sequence[str], told: bool) -> None:
    """
    Args:
        catalog (`ItemCatalog`): With its fields named.
        fields (`Sequence[str]`): The fields that texts are made of.
        told (`bool`): Whether these were given. Of the default ones any may be absent.

    Raises:
        UsageError: If no item has a text in these fields, but some have others: a model would learn from nothing. And
            if none has one of those that were given.
    """
    # Imported here: with the package `items`, torch and transformers, comes what `--help` should not wait for.
    from ..items.fields import check_text_fields
    from ..items.text import item_text

    others = [name for name in _names(catalog) if name != "image"]
    if others and not any(item_text(record, fields) for record in catalog.records):
        raise UsageError(
            f"no item has a text: none has {', '.join(fields)}, they have {', '.join(others)}; name the "
            "title with --title-column, or the fields to read, such as "
            f"--text-fields {','.join(repr(name) if ' ' in name else name for name in others[:2])}"
        )
    if told:
        try:
            check_text_fields(catalog.records, fields)
        except ValueError as error:
            raise UsageError(f"--text-fields: {error}") from error


def check_pictures(catalog: "ItemCatalog") -> None:
    """
    Raises:
        UsageError: If no item has a picture, and a field looks like one of their paths.
        ValueError: If not one of the paths leads to a file: a model would learn from white pictures.
    """
    references = [record["image"] for record in catalog.records if record.get("image") is not None]
    if references:
        _check_files(references, catalog.root)
        return
    for record in catalog.records:
        for name, value in record.items():
            if isinstance(value, str) and PurePath(value.split("?")[0]).suffix.lower() in PICTURE_SUFFIXES:
                raise UsageError(
                    f"no item has a field `image`; {name!r} holds {value!r}: give --image-column {name!r}"
                )


def _check_files(references: Sequence[Any], root: Path | None) -> None:
    """Looks for the files of pictures until one is there."""
    from ..items.images import PictureError, is_url, load_picture, picture_file

    for reference in references:
        if not isinstance(reference, str) or is_url(reference) or picture_file(reference, root) is not None:
            return
    reason = "no such file"
    try:
        load_picture(references[0], root=root)
    except PictureError as error:
        reason = str(error)
    raise ValueError(
        f"none of the {len(references):,} pictures can be used; the first is {references[0]!r}: {reason}. Paths start "
        f"from {root or Path.cwd()}; name another folder by --image-root, or leave --image-encoder out"
    )


def _names(catalog: "ItemCatalog") -> list[str]:
    return list(dict.fromkeys(name for record in catalog.records for name in record))


def _found(name: str, names: Sequence[str]) -> str | None:
    from ..items.fields import usual_fields

    found = usual_fields(name, names)
    if len(found) > 1:
        raise UsageError(f"the {name} may be any of {', '.join(map(repr, found))}; give --{name}-column")
    return found[0] if found else None
