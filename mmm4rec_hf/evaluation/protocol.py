"""What a metric means: the split, the ranking, and how ties and seen items count."""

import os
from pathlib import Path
from typing import Any

from mmm4rec_hf.plain_json import read_object

PREPARE_NAME = "prepare.json"

_SPLITS = {"leave_one_out": "leave-one-out in time order", "temporal": "temporal split"}
_KINDS = {
    "split": str,
    "num_items": int,
    "exclude_history": bool,
    "score_padding_item": bool,
    "ks": list,
    "prepared": dict,
}


def read_preparation(sequences_folder: str | os.PathLike[str]) -> dict[str, Any]:
    """
    How `mmm4rec prepare` made the sequences of a folder; empty where it does not say.

    Raises:
        ValueError: If the file says it in another way than `mmm4rec prepare`.
    """
    # The same log at another place, or with other names for its columns, is the same data.
    found = {name: value for name, value in _read(sequences_folder).items() if name not in ("source", "layout")}
    try:
        _check_preparation(found)
    except ValueError as error:
        raise ValueError(f"{Path(sequences_folder) / PREPARE_NAME} is damaged: {error}; prepare again") from error
    return found


def _check_preparation(prepared: dict[str, Any]) -> None:
    """Empty, or with what is read of it."""
    k_core, split = prepared.get("k_core"), prepared.get("split")
    if prepared and not (type(k_core) is int and isinstance(split, str)):
        raise ValueError(f"k_core is {k_core!r} and split {split!r}")


def check_protocol(protocol: dict[str, Any]) -> None:
    """
    Makes sure that a protocol from a file says what is read of it.

    Raises:
        ValueError: If a value is missing, or of another kind than the protocol of an [`Evaluation`] has.
    """
    for name, kind in _KINDS.items():
        if type(protocol.get(name)) is not kind:
            raise ValueError(f"{name} is {protocol.get(name)!r}")
    if not all(type(number) is int and number > 0 for number in (*protocol["ks"], protocol["num_items"])):
        raise ValueError(f"ks is {protocol['ks']!r} and num_items {protocol['num_items']!r}")
    _check_preparation(protocol["prepared"])


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
    prepared = protocol["prepared"]
    parts = [f"{protocol['split']} split"]
    if prepared:
        parts.append(f"{prepared['k_core']}-core, {_SPLITS.get(prepared['split'], prepared['split'])}")
    if protocol.get("sampled") is None:
        parts.append(f"target ranked among all {protocol['num_items']:,} items")
    else:
        parts.append(f"target ranked among {protocol['sampled']:,} drawn of {protocol['num_items']:,} items")
    parts.append("history left out" if protocol["exclude_history"] else "history not masked")
    if protocol["score_padding_item"]:
        parts.append("the padding item competes")
    parts.append("ties by expectation")
    return ", ".join(parts)
