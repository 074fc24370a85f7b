"""SASRec and GRU4Rec as RecBole has them, over the sequences that our models are measured on.

RecBole's classes are used as they are; its own data preparation, trainer and evaluation are not, so that split, rows
and ranking are the same for every method. A model of RecBole asks a configuration for names and sizes, and a data set
for the number of items; that is all it gets here. Imported this way it runs with current versions of torch and numpy.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmm4rec_hf.data import SequenceDatasets

LENGTH = 20
# RecBole's own defaults, but for sizes, which are set alike for all, and the loss, a full cross entropy.
DEFAULTS: dict[str, dict[str, Any]] = {
    "sasrec": {
        "n_layers": 2,
        "n_heads": 2,
        "hidden_dropout_prob": 0.5,
        "attn_dropout_prob": 0.5,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "initializer_range": 0.02,
    },
    "gru4rec": {"num_layers": 1, "dropout_prob": 0.3},
}


@dataclass(frozen=True)
class Rows:
    """
    Rows of a split as tensors.

    Args:
        items (`torch.LongTensor` of shape `(n, LENGTH)`): The last items of each history, oldest first, 0 after them.
        lengths (`torch.LongTensor` of shape `(n,)`): How many there are.
        labels (`torch.LongTensor` of shape `(n,)`): The targets.
    """

    items: Tensor
    lengths: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, places: Tensor | slice) -> "Rows":
        """Some of the rows."""
        return Rows(self.items[places], self.lengths[places], self.labels[places])


def rows_of(sequences: SequenceDatasets, split: str) -> Rows:
    """The rows of a split, in their order."""
    starts, ends = sequences.pointers_of(split)
    lengths = np.minimum(ends - starts, LENGTH)
    steps = np.arange(LENGTH)
    places = np.minimum((ends - lengths)[:, None] + steps, len(sequences.events) - 1)
    events = sequences.events.data.column("item").to_numpy().astype(np.int64)
    items = np.where(steps < lengths[:, None], events[places], 0)
    labels = sequences[split].with_format("arrow")[:]["labels"].to_numpy()
    return Rows(*(torch.from_numpy(np.array(x, dtype=np.int64)) for x in (items, lengths, labels)))


def windows_of(sequences: SequenceDatasets, stride: int = LENGTH // 2) -> Rows:
    """
    The training targets gathered into windows of a user's events, with a target at every position of a window: each
    row of the training split is one of these targets, once. A history is looked at by its last `LENGTH - stride + 1`
    events or more, where a training row has all its last `LENGTH`.

    Returns:
        `Rows`: With `labels` of shape `(n, LENGTH)`, 0 where a position has no target, or had it in another window.
    """
    items, labels, lengths = [], [], []
    for row in sequences["validation"]:  # a user's history there is all that user's training events
        events = np.asarray(row["input_ids"], dtype=np.int64)
        counted = 0  # of the targets events[1:]
        while counted < len(events) - 1:
            end = min(LENGTH if counted == 0 else counted + stride, len(events) - 1)
            start = max(end - LENGTH, 0)
            targets = events[start + 1 : end + 1].copy()
            targets[: counted - start] = 0
            items.append(np.pad(events[start:end], (0, LENGTH - (end - start))))
            labels.append(np.pad(targets, (0, LENGTH - (end - start))))
            lengths.append(end - start)
            counted = end
    return Rows(*(torch.from_numpy(np.array(x, dtype=np.int64)) for x in (items, lengths, labels)))


class Peer(nn.Module):
    """
    A model of RecBole.

    Args:
        name (`str`): `"sasrec"` or `"gru4rec"`.
        num_items (`int`): The size of the catalogue.
        hidden_size (`int`): Of item embeddings and layers; a feed-forward layer has four times as much, as in RecBole.
        options: Others than those of [`DEFAULTS`], by RecBole's names.

    Raises:
        ImportError: If RecBole is not installed.
    """

    def __init__(self, name: str, num_items: int, hidden_size: int, **options: Any) -> None:
        super().__init__()
        was_on = torch.is_anomaly_enabled()
        from recbole.model.sequential_recommender import GRU4Rec, SASRec

        # One of the modules imported beside them (sine.py) makes torch look for NaN in every gradient of the process,
        # a third of SASRec's time; what is timed should not pay for that.
        torch.autograd.set_detect_anomaly(was_on)
        names = {
            "USER_ID_FIELD": "user",
            "ITEM_ID_FIELD": "item",
            "LIST_SUFFIX": "_list",
            "ITEM_LIST_LENGTH_FIELD": "length",
            "NEG_PREFIX": "negative_",
            "MAX_ITEM_LIST_LENGTH": LENGTH,
            "device": "cpu",
            "loss_type": "CE",
        }
        sizes = {"hidden_size": hidden_size, "embedding_size": hidden_size, "inner_size": 4 * hidden_size}
        config = names | sizes | DEFAULTS[name] | options
        self.model = {"sasrec": SASRec, "gru4rec": GRU4Rec}[name](config, _Items(num_items))

    def loss(self, rows: Rows) -> Tensor:
        """
        The mean cross entropy of the targets, over all items and, as RecBole has it, the padding item.

        Args:
            rows ([`Rows`]): Of [`rows_of`], a target a row, which is how RecBole trains; or of [`windows_of`], a
                target at every position, which is how the models were published.
        """
        if rows.labels.ndim == 1:
            return self.model.calculate_loss({"item_list": rows.items, "length": rows.lengths, "item": rows.labels})
        positions = self._all_positions(rows)
        has_target = rows.labels > 0
        logits = positions[has_target] @ self.model.item_embedding.weight.T
        return nn.functional.cross_entropy(logits, rows.labels[has_target])

    def _all_positions(self, rows: Rows) -> Tensor:
        """What RecBole's forward pass has before it takes the last position, `(n, LENGTH, hidden_size)`."""
        self.model.gather_indexes = lambda output, index: output
        try:
            return self.model(rows.items, rows.lengths)
        finally:
            del self.model.gather_indexes

    @torch.no_grad()
    def scores(self, rows: Rows) -> Tensor:
        """Scores of all items, `(n, num_items + 1)`; column 0 is the padding item."""
        return self.model.full_sort_predict({"item_list": rows.items, "length": rows.lengths})

    def num_parameters(self) -> int:
        """The number of weights."""
        return sum(weight.numel() for weight in self.parameters())


class _Items:
    """All that a model of RecBole asks its data set for."""

    def __init__(self, num_items: int) -> None:
        self.num_items = num_items

    def num(self, field: str) -> int:
        return self.num_items + 1
