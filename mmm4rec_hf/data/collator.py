"""Rows of histories of any length to one padded batch of tensors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass
class MMM4RecDataCollator:
    """Crops each history to its last events and pads the batch to the longest that is left.

    Args:
        max_sequence_length (`int`): The model's `L`; of a longer history the last `L` events count.
        padding_side (`str`, *optional*, defaults to `"right"`): `"right"` or `"left"`.
    """

    max_sequence_length: int
    padding_side: str = "right"

    def __post_init__(self) -> None:
        if self.max_sequence_length < 1:
            raise ValueError(f"max_sequence_length must be at least 1, got {self.max_sequence_length}")
        if self.padding_side not in ("right", "left"):
            raise ValueError(f"padding_side must be 'right' or 'left', got {self.padding_side!r}")

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """One batch.

        Args:
            features (`Sequence[Mapping]`, `B` of them): Each with `input_ids` (1-based item indices in time order),
                `timestamps` (unix seconds) and, if the first has it, `labels` (the index of the item that follows).

        Returns:
            `dict[str, torch.Tensor]`: `input_ids`, `timestamps` and `attention_mask`, int64 of shape `[B, L']` with 0
            at the padding, and `labels`, int64 of shape `[B]`.

        Raises:
            ValueError: For a row without events, with an index of 0 or below, or with fewer times than items; and for
                rows that were given another format, which then hold the places of their events alone.
        """
        if not features:
            raise ValueError("a batch needs at least one row")
        if isinstance(features[0]["input_ids"], Mapping):
            raise ValueError(
                "the rows hold the places of their events and not the events: with_format, set_format, with_transform "
                "or concatenate_datasets has put another format in place of theirs; take the split as it was prepared"
            )
        items = [self._last_events(row["input_ids"]) for row in features]
        times = [self._last_events(row["timestamps"]) for row in features]
        lengths = np.array([len(history) for history in items])
        self._check(features, items, lengths)

        longest = lengths.max()
        places = np.arange(longest)
        first = 0 if self.padding_side == "right" else longest - lengths[:, None]
        mask = (places >= first) & (places < first + lengths[:, None])  # [B, L']
        batch = {
            "input_ids": _fill(mask, items),
            "timestamps": _fill(mask, times),
            "attention_mask": mask.astype(np.int64),
        }
        if (batch["input_ids"][mask] < 1).any():
            raise ValueError("a history holds an item index below 1; 0 is the padding and stands for no item")
        if "labels" in features[0]:
            batch["labels"] = _labels(features)
        return {name: torch.from_numpy(array) for name, array in batch.items()}

    def _last_events(self, values: Any) -> np.ndarray:
        return np.asarray(values, dtype=np.int64)[-self.max_sequence_length :]

    def _check(self, features: Sequence[Mapping[str, Any]], items: list[np.ndarray], lengths: np.ndarray) -> None:
        if not lengths.all():
            raise ValueError(
                f"row {int(np.argmin(lengths))} of the batch has an empty history; give it an event or leave it out"
            )
        for row, feature in enumerate(features):
            if len(feature["input_ids"]) != len(feature["timestamps"]):
                raise ValueError(
                    f"row {row} of the batch has {len(feature['input_ids'])} items and {len(feature['timestamps'])} "
                    "timestamps; each event needs both"
                )


def _fill(mask: np.ndarray, histories: list[np.ndarray]) -> np.ndarray:
    filled = np.zeros(mask.shape, dtype=np.int64)
    filled[mask] = np.concatenate(histories)
    return filled


def _labels(features: Sequence[Mapping[str, Any]]) -> np.ndarray:
    labels = np.array([int(row["labels"]) for row in features], dtype=np.int64)
    if (labels < 1).any():
        row = int(np.argmax(labels < 1))
        raise ValueError(f"row {row} of the batch has the label {labels[row]}; labels are item indices from 1 on")
    return labels
