"""Which items stand near each other in the histories of a log."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import datasets
import numpy as np
import torch

_ROWS = 4096
# Pairs that are held before they are summed.
_PAIRS = 2**22


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


def near_items(
    rows: datasets.Dataset | Iterable[Mapping[str, Any]], num_items: int, window: int = 5, most: int = 256
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    The items that stood near each item in a training log, and how often: what a model with `use_cooccurrence` reads.

    Args:
        rows (`datasets.Dataset` or `Iterable[Mapping]`):
            Of a training split: histories `input_ids`, oldest first, and `labels`, the item that followed each. Every
            pair of a target and one of the `window` items before it counts, in either order.
        num_items (`int`): Items are 1..num_items.
        window (`int`, *optional*, defaults to 5): Steps between two items, at most; a pair d steps apart counts 1 / d.
        most (`int`, *optional*, defaults to 256): Items that are kept of each, those with the largest counts.

    Returns:
        `tuple(torch.Tensor)`: Rows of items, int64, and counts, float32, each `(num_items + 1, most)` or narrower, the
        largest first; 0 where there are no more.

    Raises:
        ValueError: If a row holds an item outside 1..num_items.
    """
    size = num_items + 1
    parts, waiting = [_sparse(torch.zeros(2, 0, dtype=torch.long), torch.zeros(0), size)], 0
    for histories, labels in _batches(rows):
        before = np.zeros((len(histories), window), dtype=np.int64)  # the newest first, 0 where there is none
        for place, history in enumerate(histories):
            last = np.asarray(history, dtype=np.int64)[: -window - 1 : -1]
            before[place, : len(last)] = last
        targets = np.asarray(labels, dtype=np.int64)
        for items in (before[before != 0], targets):
            if items.size and not 1 <= items.min() <= items.max() <= num_items:
                raise ValueError(f"the rows hold items {items.min()}..{items.max()}, outside 1..{num_items}")
        row, step = before.nonzero()
        one, two = torch.from_numpy(before[row, step]), torch.from_numpy(targets[row])
        counts = 1 / (torch.from_numpy(step) + 1.0)
        # In both orders, but a pair of an item with itself once.
        other = one != two
        pairs = torch.cat([torch.stack([one, two]), torch.stack([two, one])[:, other]], 1)
        parts.append(_sparse(pairs, torch.cat([counts, counts[other]]).float(), size))
        waiting += pairs.shape[1]
        # Each merge sorts all there is, so that it waits for as much again.
        if waiting > max(_PAIRS, parts[0]._nnz()):
            parts, waiting = [_merged(parts)], 0
    return _largest(_merged(parts), size, most)


def count_near_items(model: Any, rows: datasets.Dataset | Iterable[Mapping[str, Any]]) -> None:
    """
    Counts which items stand near each other in a training log, for a model with `use_cooccurrence`. Its scores then
    know the log, be the model trained on it or not; [`MMM4RecTrainer`] counts by itself.

    Args:
        model ([`MMM4RecForSequentialRecommendation`]): With items.
        rows (`datasets.Dataset` or `Iterable[Mapping]`):
            As [`near_items`] reads them, with the model's items in its order (`sequences.align(model.item_ids)`).

    Raises:
        ValueError: As [`near_items`], and for a model without items or without `use_cooccurrence`.
    """
    config = model.config
    if not config.use_cooccurrence:
        raise ValueError("near items are read with use_cooccurrence=True only; load the model with it")
    if config.num_items is None:
        raise ValueError("the model holds no items; call set_items(catalog) before near items are counted")
    counts = near_items(rows, config.num_items, config.cooccurrence_window, config.num_neighbours)
    model.set_cooccurrence(*counts)


def _merged(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """The sum of sparse matrices."""
    places = torch.cat([part._indices() for part in parts], 1)
    values = torch.cat([part._values() for part in parts])
    return _sparse(places, values, len(parts[0])).coalesce()


def _sparse(places: torch.Tensor, values: torch.Tensor, size: int) -> torch.Tensor:
    return torch.sparse_coo_tensor(places, values, (size, size), check_invariants=False)


def _batches(
    rows: datasets.Dataset | Iterable[Mapping[str, Any]],
) -> Iterator[tuple[Sequence[Any], Sequence[Any]]]:
    """Histories and targets of some rows at a time."""
    if isinstance(rows, datasets.Dataset):
        for batch in rows.select_columns(["input_ids", "labels"]).iter(batch_size=_ROWS):
            yield batch["input_ids"], batch["labels"]
    else:
        rows = iter(rows)
        while batch := [(row["input_ids"], row["labels"]) for row in itertools.islice(rows, _ROWS)]:
            yield [history for history, _ in batch], [label for _, label in batch]


def _largest(counts: torch.Tensor, size: int, most: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest of each line of a sparse matrix: columns and values, `(size, k)`."""
    (row, column), values = counts.indices(), counts.values()
    order = values.argsort(descending=True, stable=True)
    order = order[row[order].argsort(stable=True)]
    row, column, values = row[order], column[order], values[order]
    lengths = torch.bincount(row, minlength=size)
    place = torch.arange(len(row)) - (lengths.cumsum(0) - lengths)[row]
    width = min(most, int(lengths.max()))
    kept = place < width
    neighbours, numbers = torch.zeros(size, width, dtype=torch.long), torch.zeros(size, width)
    neighbours[row[kept], place[kept]] = column[kept]
    numbers[row[kept], place[kept]] = values[kept]
    return neighbours, numbers


__all__ = ["count_near_items", "near_items", "near_pairs", "read_histories"]
