"""Feature matrices: their checks, and files that are whole or not there."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .batch_encoder import NO_ENCODER

MODALITIES = ("text", "image")


def what_counts(info: Mapping[str, Any]) -> dict[str, Any]:
    """What features depend on, of all that is recorded of their encoder: a digest of its weights tells more than the
    name of the folder that they lay in."""
    by_digest = str(info.get("revision") or "").startswith("sha256:")
    return {key: value for key, value in info.items() if not (by_digest and key == "encoder")}


def is_known_by_name(info: Mapping[str, Any]) -> bool:
    """Whether nothing but a name is recorded of an encoder, as of a function, whose code may change under it."""
    return info.get("revision") is None and info.get("encoder") != NO_ENCODER


def check_features(features: Any, item_ids: Sequence[str], modality: str) -> np.ndarray:
    """A catalogue's features as float32, one finite row an item.

    Raises:
        ValueError: For another number of rows, or a value that is not finite, naming the item.
    """
    try:
        matrix = np.asarray(features, dtype=np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{modality}_features must be numbers in rows of one length: {error}") from error
    if matrix.ndim != 2 or len(matrix) != len(item_ids) or matrix.shape[1] == 0:
        raise ValueError(
            f"{modality}_features must be [{len(item_ids)}, size], one row an item id, got {list(matrix.shape)}"
        )
    check_finite(matrix, item_ids, modality)
    return matrix


def check_finite(features: np.ndarray, item_ids: Sequence[str], modality: str) -> None:
    """Refuses NaN and infinities, naming the first item that has one."""
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if bad.size:
        raise ValueError(
            f"{modality} features of {bad.size} items hold NaN or infinity, first of item {item_ids[bad[0]]!r}; "
            "encode them again or leave the items out"
        )


def check_mask(mask: Any, features: np.ndarray | None, modality: str) -> np.ndarray | None:
    """The mask of a modality, by default of True only; there is none without features."""
    if features is None:
        if mask is not None:
            raise ValueError(f"{modality}_mask was given without {modality}_features")
        return None
    if mask is None:
        return np.ones(len(features), dtype=bool)
    mask = np.asarray(mask)
    if mask.shape != (len(features),) or mask.dtype != bool:
        raise ValueError(
            f"{modality}_mask must be bool of shape [{len(features)}], got {mask.dtype} {list(mask.shape)}"
        )
    return mask
