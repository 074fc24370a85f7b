"""What a metric means: the split, the ranking, and how ties and seen items count."""

import os
from pathlib import Path
from typing import Any

from mmm4rec_hf.plain_json import read_object

PREPARE_NAME = "prepare.json"


def read_preparation(sequences_folder: str | os.PathLike[str]) -> dict[str, Any]:
    """How `mmm4rec prepare` made the sequences of a folder; empty where it does not say."""
    # The same log at another place, or with other names for its columns, is the same data.
    return {name: value for name, value in _read(sequences_folder).items() if name not in ("source", "layout")}


def k_core_of(sequences_folder: str | os.PathLike[str]) -> str:
    """By which k-core the sequences of a folder were prepared, as a message says it; empty where it does not say."""
    k_core = read_preparation(sequences_folder).get("k_core")
    return "" if k_core is None else f" (prepared with k_core={k_core})"


def read_source(sequences_folder: str | os.PathLike[str]) -> list[str]:
    """The files of the log that `mmm4rec prepare` read; empty where it does not say."""
    return list(_read(sequences_folder).get("source", []))


def read_layout(sequences_folder: str | os.PathLike[str]) -> dict[str, str]:
    """What `mmm4rec prepare` was told of the log: `user_column` and its like, and `time_unit`; empty for nothing."""
    return dict(_read(sequences_folder).get("layout", {}))


def _read(sequences_folder: str | os.PathLike[str]) -> dict[str, Any]:
    path = Path(sequences_folder) / PREPARE_NAME
    return read_object(path) if path.is_file() else {}


def describe(protocol: dict[str, Any]) -> str:
    """
    One line that stands beside every table.

    Args:
        protocol (`dict`): Of an [`Evaluation`].
    """
    rules = {"leave_one_out": "leave-one-out in time order", "temporal": "temporal split"}
    prepared = protocol["prepared"]
    parts = [f"{protocol['split']} split"]
    if prepared:
        parts.append(f"{prepared['k_core']}-core, {rules[prepared['split']]}")
    if protocol.get("sampled") is None:
        parts.append(f"target ranked among all {protocol['num_items']:,} items")
    else:
        parts.append(f"target ranked among {protocol['sampled']:,} drawn of {protocol['num_items']:,} items")
    parts.append("history left out" if protocol["exclude_history"] else "history not masked")
    if protocol["score_padding_item"]:
        parts.append("the padding item competes")
    parts.append("ties by expectation")
    return ", ".join(parts)
