"""For whom a model works: groups of targets by history, popularity and what is known of the item."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from mmm4rec_hf.data import SequenceDatasets
    from mmm4rec_hf.items import ItemCatalog

# The least number of events of each group; a published model reads the last 20.
HISTORY_BOUNDS = (1, 5, 10, 20, 50)
# "head": the most popular items, as few as make this share of the training events.
HEAD_SHARE = 0.5
# Columns of groups, and their groups in the order in which they are told.
GROUPS = {
    "history_length": [
        *(f"{low}-{high - 1}" for low, high in zip(HISTORY_BOUNDS, HISTORY_BOUNDS[1:], strict=False)),
        f"{HISTORY_BOUNDS[-1]}+",
    ],
    "target_popularity": ["head", "tail", "cold"],
    "target_modalities": ["both", "text only", "picture only", "neither"],
}


def training_events(sequences: "SequenceDatasets") -> np.ndarray:
    """
    How often each item stands in what the training rows show.

    Args:
        sequences (`SequenceDatasets`): With a split `train`.

    Returns:
        `np.ndarray` of shape `(num_items + 1,)`: Counts by 1-based index; 0 at the padding item.
    """
    starts, ends = sequences.pointers_of("train")
    steps = np.zeros(len(sequences.events) + 1, dtype=np.int64)
    np.add.at(steps, starts, 1)
    np.add.at(steps, ends + 1, -1)  # the target stands at the end and is seen as well
    shown = np.cumsum(steps[:-1]) > 0
    items = sequences.events.data.column("item").to_numpy()
    return np.bincount(items[shown], minlength=len(sequences.item_ids) + 1)


def history_groups(lengths: np.ndarray) -> list[str]:
    """The group of each history: `"1-4"`, `"5-9"`, `"10-19"`, `"20-49"` or `"50+"` events."""
    names = GROUPS["history_length"]
    return [names[place] for place in np.searchsorted(HISTORY_BOUNDS, lengths, side="right") - 1]


def popularity_groups(counts: np.ndarray) -> np.ndarray:
    """
    The group of each item.

    Args:
        counts (`np.ndarray` of shape `(num_items + 1,)`): As [`training_events`].

    Returns:
        `np.ndarray` of shape `(num_items + 1,)`: `"head"`, the most popular items that make half of the training
        events, `"tail"`, the others that have any, and `"cold"`, those that training never showed.
    """
    order = np.argsort(-counts, kind="stable")
    before = np.concatenate([[0], np.cumsum(counts[order])[:-1]])
    groups = np.full(len(counts), "tail", dtype=object)
    groups[order[before < HEAD_SHARE * counts.sum()]] = "head"
    groups[counts == 0] = "cold"
    return groups


def modality_groups(catalog: "ItemCatalog") -> np.ndarray:
    """What is known of each item, in the catalogue's order: `"both"`, `"text only"`, `"picture only"`, `"neither"`."""
    text, image = (
        np.zeros(len(catalog), dtype=bool) if mask is None else mask
        for mask in (catalog.text_mask, catalog.image_mask)
    )
    return np.select([text & image, text, image], ["both", "text only", "picture only"], default="neither").astype(
        object
    )


def subgroup_means(targets: pl.DataFrame, metrics: Mapping[str, str]) -> dict[str, dict[str, dict[str, float]]]:
    """
    Means over the targets of each group.

    Args:
        targets (`pl.DataFrame`): Of an [`Evaluation`].
        metrics (`Mapping[str, str]`): Columns to average, and the names that their means get.

    Returns:
        `dict`: For each column of groups that is there, for each group, `targets` (their number) and the means.
    """
    table: dict[str, dict[str, dict[str, float]]] = {}
    means = [pl.col(column).mean().alias(name) for column, name in metrics.items()]
    for column, groups in GROUPS.items():
        if column in targets.columns:
            rows = targets.group_by(column).agg(pl.len().alias("targets"), *means)
            rows = rows.sort(pl.col(column).replace_strict(groups, range(len(groups))))
            table[column] = {row.pop(column): row for row in rows.to_dicts()}
    return table
