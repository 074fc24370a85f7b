"""JSON of others: what is no JSON is one kind of error, too many levels among it."""

import json
from pathlib import Path
from typing import Any


def read_object(path: Path) -> dict[str, Any]:
    """
    The JSON object that a file holds.

    Raises:
        ValueError: Naming the file, if it holds none.
    """
    try:
        content = read_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged: it must hold a JSON object")
    return content


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
