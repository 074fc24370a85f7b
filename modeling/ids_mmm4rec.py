"""External ids: the strings that name users and items outside the model, and the file that keeps a model's own."""

import json
import os
from collections.abc import Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

ITEM_IDS_NAME = "item_ids.json"


def canonical_id(value: Any) -> str:
    """The one string that stands for an external id; `50` and `"50"` are the same id, `"007"` and `"7"` are not.

    Args:
        value (`str` or `int`): The id as a log, a catalogue or a request holds it. Integers of any size are kept
            exactly; strings are kept to the letter.

    Returns:
        `str`: The id as this package stores and returns it.

    Raises:
        TypeError: For floats (a column of integers with gaps was read as floats: 9007199254740993.0 has already lost
            its last digit), booleans, None and anything else.
        ValueError: For the empty string, one that is no text (half of a UTF-16 pair, which no file can hold), and
            integers of thousands of digits.
    """
    if isinstance(value, str):
        if not value:
            raise ValueError("an id is the empty string; give every user and item a name")
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            raise ValueError(
                f"the id {value!r} holds half of a UTF-16 pair, which is no text; mend it where it was cut"
            )
        return str(value)
    if isinstance(value, Integral) and not isinstance(value, bool):
        if abs(int(value)).bit_length() > 14_000:  # what Python writes in decimals
            raise ValueError(f"an id is an integer of {int(value).bit_length():,} bits; give a string")
        return str(int(value))
    raise TypeError(
        f"an id must be a string or an integer, got {value!r} ({type(value).__name__}); convert the column before, "
        "so that no digit is lost"
    )


def save_item_ids(folder: str | os.PathLike, item_ids: Sequence[str] | None) -> None:
    """
    Writes the ids of a model's items beside its weights.

    Args:
        folder (`str` or `os.PathLike`): Where the weights are.
        item_ids (`Sequence[str]`, *optional*): Ids of rows 1..num_items; without them an older file is removed.
    """
    path = Path(folder) / ITEM_IDS_NAME
    if item_ids is None:
        path.unlink(missing_ok=True)
        return
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(list(item_ids), ensure_ascii=False), encoding="utf-8")
    partial.replace(path)


def load_item_ids(name: str | os.PathLike, num_items: int, hub_options: dict[str, Any]) -> list[str] | None:
    """
    Reads what [`save_item_ids`] wrote.

    Args:
        name (`str` or `os.PathLike`): A Hub name or a folder.
        num_items (`int`): Items of the weights.
        hub_options (`dict[str, Any]`): `revision`, `token`, `cache_dir` and the like.

    Returns:
        `list[str]`: The ids, or `None` where there are none.

    Raises:
        ValueError: If there are more or fewer ids than items, or the file is damaged.
    """
    # Imported here: who compares ids alone, such as a reader of logs, does without transformers.
    from transformers.utils import cached_file, logging

    path = cached_file(
        name,
        ITEM_IDS_NAME,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        **hub_options,
    )
    if path is None:
        if not Path(name).is_dir():
            logging.get_logger(__name__).warning(
                f"{name} has no {ITEM_IDS_NAME}, or the Hub cannot be reached: the ids of the model's {num_items} "
                "items are not known, and of a processor's only their number is compared"
            )
        return None
    try:
        item_ids = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{ITEM_IDS_NAME} of {name} is no JSON: {error}; save the model again") from error
    if not isinstance(item_ids, list):
        raise ValueError(f"{ITEM_IDS_NAME} of {name} holds no list; save the model again")
    if len(item_ids) != num_items:
        raise ValueError(
            f"{ITEM_IDS_NAME} of {name} names {len(item_ids)} items, the weights hold {num_items}; save it again"
        )
    return [str(item_id) for item_id in item_ids]


__all__ = ["canonical_id", "load_item_ids", "save_item_ids"]
