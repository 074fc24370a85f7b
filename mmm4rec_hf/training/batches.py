"""Batches of a pretraining: which domain gives how many rows, and rows to tensors with the features they need."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
import torch

from .domains import MODALITIES, Domain
from .rows import Row


class Mixture:
    """
    How many rows of each domain stand in a batch: domain d with n_d training rows is drawn with a probability
    proportional to n_d^(1/T).

    Args:
        sizes (`Sequence[int]`): n_d.
        batch_size (`int`): Rows a batch, of all processes together.
        negatives (`"domain"` or `"all"`): Whether a batch, whose rows are each other's negatives, is of one domain.
        temperature (`float`): T; 1 draws every row alike, large values every domain alike.
        seed (`int`): Of the draws.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        batch_size: int,
        negatives: Literal["domain", "all"],
        temperature: float,
        seed: int,
    ) -> None:
        # In logarithms: small temperatures overflow.
        logs = np.log(np.asarray(sizes, dtype=np.float64)) / temperature
        weights = np.exp(logs - logs.max())
        self.probabilities = weights / weights.sum()
        self.batch_size = batch_size
        self.negatives = negatives
        self.seed = seed

    def counts(self, batch: int) -> list[int]:
        """Rows of each domain in a batch, by the batch's number alone."""
        rng = np.random.default_rng([self.seed, batch])
        if self.negatives == "domain":
            return [int(n) * self.batch_size for n in rng.multinomial(1, self.probabilities)]
        return rng.multinomial(self.batch_size, self.probabilities).tolist()


class BatchStream:
    """
    This process's part of one batch after the other.

    Args:
        domains (`Sequence[Domain]`): What rows are taken from.
        mixture (`Mixture`): How many from each.
        max_sequence_length (`int`): Of a longer history the last events count.
        process_index (`int`, *optional*, defaults to 0): Which process this is.
        num_processes (`int`, *optional*, defaults to 1): Of how many; it divides the batch.
    """

    def __init__(
        self,
        domains: Sequence[Domain],
        mixture: Mixture,
        max_sequence_length: int,
        process_index: int = 0,
        num_processes: int = 1,
    ) -> None:
        self.domains = domains
        self.mixture = mixture
        self.collate = PretrainingCollator(domains, max_sequence_length)
        share = mixture.batch_size // num_processes
        self.low, self.high = process_index * share, (process_index + 1) * share
        self.batch = 0
        self.consumed = [0] * len(domains)

    def state(self) -> dict[str, Any]:
        """The number of the next batch, the rows that all processes took of each domain, and each source's own."""
        return {
            "batch": self.batch,
            "consumed": list(self.consumed),
            "sources": [domain.rows.state() for domain in self.domains],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on where [`~BatchStream.state`] was taken."""
        self.batch, self.consumed = state["batch"], list(state["consumed"])
        for domain, source in zip(self.domains, state["sources"], strict=True):
            domain.rows.restore(source)

    def __iter__(self) -> Iterator[tuple[dict[str, torch.Tensor], dict[str, Any]]]:
        """Batches without end, each with the state after it; one is made ahead while another is used."""
        with ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(self._next)
            while True:
                made = ahead.result()
                ahead = pool.submit(self._next)
                yield made

    def _next(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        rows: list[tuple[int, Row]] = []
        before = 0
        for number, count in enumerate(self.mixture.counts(self.batch)):
            low, high = (min(max(end - before, 0), count) for end in (self.low, self.high))
            if high > low:
                taken = self.domains[number].rows.take(self.consumed[number], low, high)
                rows += [(number, row) for row in taken]
            self.consumed[number] += count
            before += count
        self.batch += 1
        return self.collate(rows), self.state()


class PretrainingCollator:
    """
    Rows of any domains to one batch, with the features of the items that stand in it.

    Args:
        domains (`Sequence[Domain]`): Whose items get keys of their own, one domain's after the other's, from 1 on.
        max_sequence_length (`int`): Of a longer history the last events count.
    """

    def __init__(self, domains: Sequence[Domain], max_sequence_length: int) -> None:
        self.domains = domains
        self.max_sequence_length = max_sequence_length
        sizes = [domain.num_items for domain in domains]
        self.offsets = np.concatenate([[0], np.cumsum(sizes)])  # [D + 1]

    def __call__(self, rows: Sequence[tuple[int, Row]]) -> dict[str, torch.Tensor]:
        """
        One batch of `B` rows that shows `U - 1` items.

        Args:
            rows (`Sequence` of `(domain, Row)`): With at least one event each.

        Returns:
            `dict[str, torch.Tensor]`: `input_ids` and `timestamps`, int64 `[B, L]`, events first, the ids as rows of
            the tables of features; `attention_mask`, bool `[B, L]`; `targets`, int64 `[B]`, rows of the tables as
            well; `text_features` and `image_features`, float32 `[U, F]`, row 0 the padding's; `text_is_missing` and
            `image_is_missing`, bool `[U]`; `item_keys`, int64 `[U]`, which tell items of all domains apart.
        """
        length = self.max_sequence_length
        lengths = np.array([min(len(row.items), length) for _, row in rows])
        mask = np.arange(length) < lengths[:, None]  # [B, L]
        keys, timestamps = np.zeros(mask.shape, dtype=np.int64), np.zeros(mask.shape, dtype=np.int64)
        keys[mask] = np.concatenate([row.items[-length:] + self.offsets[domain] for domain, row in rows])
        timestamps[mask] = np.concatenate([row.timestamps[-length:] for _, row in rows])
        targets = np.array([row.target + self.offsets[domain] for domain, row in rows], dtype=np.int64)
        # The padding's key 0 is always there, and first.
        item_keys, places = np.unique(np.concatenate([[0], keys.ravel(), targets]), return_inverse=True)
        arrays = {
            "input_ids": places[1 : 1 + keys.size].reshape(keys.shape),
            "timestamps": timestamps,
            "attention_mask": mask,
            "targets": places[1 + keys.size :],
            "item_keys": item_keys,
        }
        for modality in MODALITIES:
            arrays |= self._features(item_keys, modality)
        return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}

    def _features(self, item_keys: np.ndarray, modality: str) -> dict[str, np.ndarray]:
        """Features `[U, F]` and what is missing `[U]` of sorted keys, the first of which is the padding's."""
        size = self.domains[0].features[modality].shape[1]
        features = np.zeros((len(item_keys), size), dtype=np.float32)
        is_missing = np.zeros(len(item_keys), dtype=bool)
        bounds = np.searchsorted(item_keys, self.offsets, side="right")  # [D + 1]
        for number, domain in enumerate(self.domains):
            part = slice(bounds[number], bounds[number + 1])
            rows = item_keys[part] - self.offsets[number] - 1
            features[part], is_missing[part] = domain.features[modality][rows], domain.is_missing[modality][rows]
        return {f"{modality}_features": features, f"{modality}_is_missing": is_missing}
