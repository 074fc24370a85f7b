"""A new item's form: what its fields say, by our names for them or by those of the catalogue's own file."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import FormData, UploadFile

from mmm4rec_hf.items.fields import usual_fields
from mmm4rec_hf.plain_json import read_json
from mmm4rec_hf.suggestions import remedy

from . import schemas

# Those that every catalogue has, whatever its texts are.
FORM_FIELDS = ("item_id", "title", "fields", "image")


@dataclass
class NamedFields:
    """
    What stands in a form beside the fields that every catalogue has.

    Args:
        item_id (`str`, *optional*): The id, under the name that the catalogue's file has for it.
        image (`UploadFile`, *optional*): The picture, under that file's name or a usual one.
        texts (`dict[str, str]`): Texts by their own names.
    """

    item_id: str | None = None
    image: UploadFile | None = None
    texts: dict[str, str] = field(default_factory=dict)


def named_fields(form: FormData, text_fields: Collection[str], source_fields: Mapping[str, str]) -> NamedFields:
    """
    Reads the fields of a form that have names of the catalogue's own.

    Args:
        form (`FormData`): What was sent.
        text_fields (`Collection[str]`): The fields that texts of this catalogue are made of.
        source_fields (`Mapping[str, str]`): By our names, what the catalogue's file called the fields.

    Raises:
        ValueError: For a name that would say nothing, a text in place of a picture or the other way round, an id or a
            picture that is given twice, and a text that is too long.
    """
    found = NamedFields()
    for name, value in form.items():
        if name in FORM_FIELDS:
            continue
        if not isinstance(value, str):
            _check_picture(name, form, found, text_fields, source_fields)
            found.image = value
            continue
        is_id = name == source_fields.get("item_id")
        if is_id:
            found.item_id = _checked_id(name, value, form)
        if name in text_fields or name == source_fields.get("title") or usual_fields("title", [name]):
            found.texts[name] = checked_text(name, value)
        elif _is_picture(name, source_fields):
            raise ValueError(
                f"form field {name!r} is the picture, and a text was sent; upload its file: {name}=@mug.jpg"
            )
        elif not is_id:
            told = remedy(name, {*FORM_FIELDS, *text_fields, *source_fields.values()})
            raise ValueError(f"unknown form field {name!r} (other texts go into fields={{...}}); {told}")
    return found


def checked_text(name: str, text: str, limit: int = schemas.MAX_TEXT) -> str:
    """
    A field of a new item, as it is.

    Args:
        name (`str`): Of the field.
        text (`str`): What it says.
        limit (`int`, *optional*, defaults to 10,000): Characters that it may have.

    Raises:
        ValueError: If it has more.
    """
    if len(text) > limit:
        raise ValueError(f"{name} has {len(text):,} characters; at most {limit:,} are taken")
    return text


def _is_picture(name: str, source_fields: Mapping[str, str]) -> bool:
    return name == source_fields.get("image") or bool(usual_fields("image", [name]))


def _check_picture(
    name: str, form: FormData, found: NamedFields, text_fields: Collection[str], source_fields: Mapping[str, str]
) -> None:
    """Refuses a file that is no picture of the item, or one more."""
    if not _is_picture(name, source_fields):
        if name in text_fields or name in source_fields.values():
            raise ValueError(f"form field {name!r} is a text, and a file was sent")
        raise ValueError(f"unknown form field {name!r}; a picture goes by {source_fields.get('image', 'image')!r}")
    if "image" in form or found.image is not None:
        raise ValueError(f"form field {name!r} is a second picture of this item; give one")


def _checked_id(name: str, value: str, form: FormData) -> str:
    if not 1 <= len(value) <= schemas.MAX_ID:
        raise ValueError(f"{name} is the id, of 1 to {schemas.MAX_ID} characters, and has {len(value):,}")
    if form.get("item_id", value) != value:
        raise ValueError(f"item_id and {name!r} are one field of this catalogue, and differ here; give one of them")
    return value


def texts_of(fields: str) -> dict[str, str]:
    """
    The texts of a new item that stand together in one field of the form.

    Args:
        fields (`str`): A JSON object of strings.

    Raises:
        ValueError: If it is none, holds too many, or something that is no text: `image` would be a path or an address
            on this machine, which nobody may name.
    """
    try:
        texts: Any = read_json(fields)
    except ValueError as error:
        raise ValueError(f"fields must be a JSON object of strings: {error}") from error
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise ValueError('fields must be a JSON object of strings, such as {"brand": "Acme"}')
    reserved = {"item_id", "image", "text_features", "image_features"} & set(texts)
    if reserved:
        raise ValueError(f"fields must not hold {sorted(reserved)[0]!r}; a picture is uploaded as the form's image")
    if len(texts) > schemas.MAX_FIELDS:
        raise ValueError(f"fields holds {len(texts)} texts; at most {schemas.MAX_FIELDS} are taken")
    return texts
