"""JSON of others: what is no JSON is one kind of error, too many levels among it."""

import json
from typing import Any


def read_json(text: str | bytes) -> Any:
    """
    What a JSON text holds.

    Raises:
        ValueError: If it is none, or lists and objects stand in each other deeper than Python reads them.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("lists or objects stand in each other too deeply") from error
