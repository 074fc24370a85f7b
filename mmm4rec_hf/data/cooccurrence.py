"""Which items stand near each other in the histories of a log."""

from collections.abc import Iterator, Sequence

import datasets
import numpy as np


def read_histories(dataset: datasets.Dataset, num_items: int) -> Iterator[np.ndarray]:
    """
    The histories of a split.

    Args:
        dataset (`datasets.Dataset`): With a column `input_ids`.
        num_items (`int`): Items are 1..num_items.

    Raises:
        ValueError: If a history holds another item.
    """
    for batch in dataset.select_columns("input_ids").iter(batch_size=1000):
        for history in batch["input_ids"]:
            items = np.asarray(history, dtype=np.int64)
            if items.size and not 1 <= items.min() <= items.max() <= num_items:
                raise ValueError(f"a history holds items {items.min()}..{items.max()}, outside 1..{num_items}")
            yield items


def near_pairs(
    histories: Sequence[np.ndarray], window: int = 5, decay: float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    Every pair of events of a history that are at most `window` steps apart.

    Args:
        histories (`Sequence[np.ndarray]`): Items of each history, oldest first.
        window (`int`, *optional*, defaults to 5): Steps between the two, at most.
        decay (`float`, *optional*, defaults to 1.0): A pair k steps apart counts `k ** -decay`.

    Returns:
        `tuple(np.ndarray)`: The earlier items, the later ones and the weights of the pairs; equal pairs are repeated.
    """
    items = np.concatenate([*histories, np.zeros(0, dtype=np.int64)])
    owners = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
    before, after, weights = [], [], []
    for steps in range(1, window + 1):
        same = owners[steps:] == owners[:-steps]
        before.append(items[:-steps][same])
        after.append(items[steps:][same])
        weights.append(np.full(int(same.sum()), float(steps) ** -decay))
    return np.concatenate(before), np.concatenate(after), np.concatenate(weights)


__all__ = ["near_pairs", "read_histories"]
