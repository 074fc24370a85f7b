"""What a metric means: the split, the ranking, and how ties and seen items count."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmm4rec_hf.plain_json import read_object

PREPARE_NAME = "prepare.json"
# The report makes as many gains as the largest cut-off; none that means something is near it.
LARGEST_CUT_OFF = 1_000_000

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


def check_cut_offs(ks: Sequence[int]) -> list[int]:
    """
    The K of metrics such as HR@K, as JSON holds them.

    Raises:
        ValueError: If there are none, or one is no whole number from 1 to 1,000,000.
    """
    if not (len(ks) and all(_is_cut_off(k) for k in ks)):
        raise ValueError(f"ks must be whole numbers from 1 to {LARGEST_CUT_OFF:,}, at least one, got {ks!r}")
    return [int(k) for k in ks]


def _is_cut_off(k: Any) -> bool:
    return (type(k) is int or isinstance(k, np.integer)) and 1 <= int(k) <= LARGEST_CUT_OFF


def check_prepared(prepared: dict[str, Any] | None) -> dict[str, Any]:
    """
    How sequences were made, as their maker tells it: anything that JSON holds and gives back.

    Raises:
        TypeError: If it is no dictionary, or holds something else.
    """
    try:
        kept = json.loads(json.dumps(prepared or {}, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"prepared holds what JSON does not: {error}; give texts, numbers, lists and dictionaries"
        ) from error
    if not isinstance(kept, dict):
        raise TypeError(f"prepared must be a dictionary, got {prepared!r}")
    return kept


def preparation(protocol: dict[str, Any]) -> tuple[int | None, str | None]:
    """The k-core and the split by which sequences were made; `None` for what their maker did not tell as we do."""
    k_core, split = (protocol["prepared"].get(name) for name in ("k_core", "split"))
    return k_core if type(k_core) is int else None, split if isinstance(split, str) else None


def check_protocol(protocol: dict[str, Any]) -> None:
    """
    Makes sure that a protocol from a file says what is read of it.

    Raises:
        ValueError: If a value is missing, or of another kind than the protocol of an [`Evaluation`] has.
    """
    for name, kind in _KINDS.items():
        if type(protocol.get(name)) is not kind:
            raise ValueError(f"{name} is {protocol.get(name)!r}")
    check_cut_offs(protocol["ks"])
    for name, least in (("num_items", 1), ("users_without_target", 0)):
        number = protocol.get(name, least)
        if type(number) is not int or number < least:
            raise ValueError(f"{name} is {number!r}")


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
    parts = [f"{protocol['split']} split"]
    if protocol["prepared"]:
        k_core, split = preparation(protocol)
        parts.append("k-core not noted" if k_core is None else f"{k_core}-core")
        parts.append("split not noted" if split is None else " ".join(_SPLITS.get(split, split).split()))
    if protocol.get("sampled") is None:
        parts.append(f"target ranked among all {protocol['num_items']:,} items")
    else:
        parts.append(f"target ranked among {protocol['sampled']:,} drawn of {protocol['num_items']:,} items")
    parts.append("history left out" if protocol["exclude_history"] else "history not masked")
    if protocol["score_padding_item"]:
        parts.append("the padding item competes")
    parts.append("ties by expectation")
    return ", ".join(parts)
