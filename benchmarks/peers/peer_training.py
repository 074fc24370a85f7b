"""Trains a peer and ranks its targets: full cross entropy, Adam, and the best epochs on validation."""

import copy
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from peer_models import Peer, Rows
from tqdm.auto import tqdm

from mmm4rec_hf.evaluation import metrics_from_counts, ranking_counts

EVALUATION_BATCH = 512


@dataclass(frozen=True)
class Options:
    """
    What a training does.

    Args:
        hidden_size (`int`): Of embeddings and layers.
        layers (`int`): Their number.
        dropout (`float`): Everywhere that the model has one.
        learning_rate (`float`): Of Adam, constant.
        weight_decay (`float`): Of Adam, as RecBole has it: added to the gradients.
        batch_size (`int`): Rows a step.
        epochs (`int`): The most.
        patience (`int`): Epochs after which to stop if neither NDCG@10 nor cross entropy on validation got better:
            NDCG@10 alone is noise in the first epochs.
    """

    hidden_size: int = 64
    layers: int = 2
    dropout: float = 0.2
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    batch_size: int = 32
    epochs: int = 60
    patience: int = 8

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Point:
    """An epoch, from 1, and the weights after it."""

    epoch: int
    weights: dict[str, Any]


@dataclass(frozen=True)
class Trained:
    """
    A peer and two of its epochs.

    Args:
        peer ([`Peer`]): With the weights of the last epoch.
        least_loss ([`Point`]): The epoch with the least cross entropy on validation.
        largest_ndcg ([`Point`]): The epoch with the largest NDCG@10 there.
        curve (`list[dict]`): A point an epoch, as run_files.py has it.
    """

    peer: Peer
    least_loss: Point
    largest_ndcg: Point
    curve: list[dict[str, Any]]


def make_peer(name: str, num_items: int, options: Options) -> Peer:
    """A peer with fresh weights and these options under RecBole's names."""
    if name == "sasrec":
        named = {"n_layers": options.layers}
        named |= {"hidden_dropout_prob": options.dropout, "attn_dropout_prob": options.dropout}
    else:
        named = {"num_layers": options.layers, "dropout_prob": options.dropout}
    return Peer(name, num_items, options.hidden_size, **named)


def evaluate(peer: Peer, rows: Rows) -> tuple[np.ndarray, float]:
    """
    Ranks the targets of a split among all items but the padding item.

    Returns:
        `tuple(np.ndarray, float)`: What `ranking_counts` gives, `(n, 2)`, and the mean cross entropy over these items
        in nats.
    """
    peer.eval()
    counts, losses = [], []
    for start in range(0, len(rows), EVALUATION_BATCH):
        block = rows.select(slice(start, start + EVALUATION_BATCH))
        scores = peer.scores(block)
        counts.append(ranking_counts(scores, block.labels))
        losses.append(torch.nn.functional.cross_entropy(scores[:, 1:].double(), block.labels - 1, reduction="none"))
    return torch.cat(counts).numpy(), float(torch.cat(losses).mean())


def train(model: str, num_items: int, rows: Rows, validation: Rows, options: Options, seed: int) -> Trained:
    """
    Trains a peer from fresh weights.

    Args:
        model (`str`): `"sasrec"` or `"gru4rec"`.
        num_items (`int`): The size of the catalogue.
        rows ([`Rows`]): To train on, of either form.
        validation ([`Rows`]): To choose the epoch by, a target a row.
        options ([`Options`]): How.
        seed (`int`): Of weights, order and dropout.
    """
    torch.manual_seed(seed)
    peer = make_peer(model, num_items, options)
    optimizer = torch.optim.Adam(peer.parameters(), options.learning_rate, weight_decay=options.weight_decay)
    curve: list[dict[str, Any]] = []
    kept: dict[str, tuple[float, Point]] = {}
    step, seconds = 0, 0.0
    for epoch in tqdm(range(1, options.epochs + 1), desc=model, disable=None):
        began = time.perf_counter()
        step += train_epoch(peer, optimizer, rows, options.batch_size)
        seconds += time.perf_counter() - began
        counts, loss = evaluate(peer, validation)
        metrics = metrics_from_counts(counts)
        shown = {key: metrics[key] for key in ("hr@10", "ndcg@10", "hr@50")} | {"loss": loss}
        curve.append({"step": step, "epoch": epoch, "seconds": round(seconds, 3), "validation": shown})
        for name, value in (("ndcg@10", metrics["ndcg@10"]), ("loss", -loss)):
            if name not in kept or value > kept[name][0]:
                kept[name] = value, Point(epoch, copy.deepcopy(peer.state_dict()))
        if epoch - max(point.epoch for _, point in kept.values()) >= options.patience:
            break
    return Trained(peer, kept["loss"][1], kept["ndcg@10"][1], curve)


def train_epoch(peer: Peer, optimizer: torch.optim.Optimizer, rows: Rows, batch_size: int) -> int:
    """Goes through all rows once, in an order drawn from torch's generator; the number of steps."""
    peer.train()
    batches = torch.randperm(len(rows)).split(batch_size)
    for places in batches:
        train_step(peer, optimizer, rows.select(places))
    return len(batches)


def train_step(peer: Peer, optimizer: torch.optim.Optimizer, rows: Rows) -> None:
    """One update."""
    optimizer.zero_grad()
    peer.loss(rows).backward()
    optimizer.step()
