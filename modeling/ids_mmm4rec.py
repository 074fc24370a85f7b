"""External ids: the strings that name users and items outside the model."""

from numbers import Integral
from typing import Any


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
        ValueError: For the empty string.
    """
    if isinstance(value, str):
        if not value:
            raise ValueError("an id is the empty string; give every user and item a name")
        return str(value)
    if isinstance(value, Integral) and not isinstance(value, bool):
        return str(int(value))
    raise TypeError(
        f"an id must be a string or an integer, got {value!r} ({type(value).__name__}); convert the column before, "
        "so that no digit is lost"
    )
