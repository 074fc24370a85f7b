"""Output folders that belong to one recipe."""

import dataclasses
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmm4rec_hf.outputs import holds_files, write_json
from mmm4rec_hf.plain_json import read_object
from mmm4rec_hf.saved_models import MODEL_NAME

from .record import RECORD_NAME

logger = logging.getLogger(__name__)

RECIPE_NAME = "recipe.json"
CHECKPOINTS_NAME, EVALUATION_NAME, LOG_NAME = "checkpoints", "evaluation", "log.jsonl"
# What a fine-tuning or a pretraining writes beside its recipe, and replaces or takes for its own when it is there.
_OF_A_RUN = (MODEL_NAME, EVALUATION_NAME, CHECKPOINTS_NAME, LOG_NAME, RECORD_NAME)
# Of all that may lie in `checkpoints/`, what a run goes on from, replaces or removes.
_CHECKPOINTS = ("checkpoint-*", ".checkpoint-*.partial")


def claim_output(folder: Path, recipe: Any, is_checked: bool = False) -> None:
    """
    Marks an output folder as one recipe's, so that a run goes on where the same recipe stopped and never elsewhere.

    Args:
        folder (`Path`): The folder, made where it is missing.
        recipe (a dataclass): What the run does.
        is_checked (`bool`, *optional*, defaults to `False`):
            Whether [`check_output`] was called before the run wrote anything: what its trackers have written there
            since is not another's.

    Raises:
        ValueError: As [`check_output`].
    """
    if not is_checked or (folder / RECIPE_NAME).is_file():
        check_output(folder, recipe)
    if not (folder / RECIPE_NAME).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / RECIPE_NAME, _as_json(recipe))


def check_output(folder: Path, recipe: Any) -> None:
    """
    Makes sure that an output folder is free for a recipe, or its own; it may have been moved or renamed since.

    Args:
        folder (`Path`): The folder, which need not exist.
        recipe (a dataclass): What the run does.

    Raises:
        ValueError: If the folder is another recipe's, naming what differs, or has no recipe and holds something of a
            name that a run writes: what was not written by a run is never replaced. In `checkpoints/` only checkpoints
            count: nothing else is touched there, and trackers write there before a fine-tuning has its recipe.
    """
    now = _as_json(recipe)
    # An option that has come since the run began was at its default.
    fields = dataclasses.fields(recipe)
    defaults = {field.name: field.default for field in fields if field.default is not dataclasses.MISSING}
    path = folder / RECIPE_NAME
    if path.is_file():
        before = defaults | read_object(path)
        # Where the folder lies is known, and a run may have been moved.
        differences = list(_differences(before | {"output_dir": None}, now | {"output_dir": None}))
        if differences:
            raise ValueError(
                f"{folder} holds a run of another recipe ({'; '.join(differences)}); give another output_dir, or "
                "remove the folder to start over"
            )
        return
    # The recipe is what a run writes first; of an empty folder nothing can be lost.
    taken = [name for name in _OF_A_RUN if _is_taken(folder / name)]
    if taken:
        raise ValueError(
            f"{folder} holds {', '.join(taken)}, but no {RECIPE_NAME} of a run, and this one would replace it; give "
            "another output_dir"
        )


def _is_taken(path: Path) -> bool:
    if path.name == CHECKPOINTS_NAME and path.is_dir():
        return any(_is_taken(entry) for pattern in _CHECKPOINTS for entry in path.glob(pattern))
    return path.is_file() or holds_files(path)


def _as_json(recipe: Any) -> dict[str, Any]:
    return json.loads(json.dumps(dataclasses.asdict(recipe)))


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, f"{prefix}{name}.")
        elif old != new:
            yield f"{prefix}{name} {_told(old)} before, {_told(new)} now"


def _told(value: Any) -> str:
    """What is absent or `None` was left to its default."""
    return "not given" if value is None else repr(value)
