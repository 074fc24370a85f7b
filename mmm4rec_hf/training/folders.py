"""Output folders that are whole or not there, and that belong to one recipe."""

import contextlib
import dataclasses
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

RECIPE_NAME = "recipe.json"


@contextlib.contextmanager
def replace_folder(target: Path) -> Iterator[Path]:
    """Gives a folder of another name to fill, which takes the place of `target` once everything went well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    replaced = target.with_name(f".{target.name}.{os.getpid()}.replaced")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        if target.exists():
            # Renamed first: a folder that is half removed must not have the name of a whole one.
            target.rename(replaced)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file that is whole or not there."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)


def claim_output(folder: Path, recipe: Any) -> None:
    """
    Marks an output folder as one recipe's, so that a run goes on where the same recipe stopped and never elsewhere.

    Args:
        folder (`Path`): The folder, made where it is missing.
        recipe (a dataclass): What the run does.

    Raises:
        ValueError: If the folder is another recipe's, naming what differs.
    """
    now = json.loads(json.dumps(dataclasses.asdict(recipe)))
    path = folder / RECIPE_NAME
    if path.is_file():
        differences = list(_differences(json.loads(path.read_text(encoding="utf-8")), now))
        if differences:
            raise ValueError(
                f"{folder} holds a run of another recipe ({'; '.join(differences)}); give another output_dir, or "
                "remove the folder to start over"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, now)


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, f"{prefix}{name}.")
        elif old != new:
            yield f"{prefix}{name} {old!r} before, {new!r} now"
