"""A model on a split: every target's rank, and the metrics, intervals and subgroups that follow from it."""

import contextlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import torch
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from mmm4rec_hf.data.collator import MMM4RecDataCollator
from mmm4rec_hf.data.readers.parquet import read_parquet_table
from mmm4rec_hf.outputs import replace_file
from mmm4rec_hf.plain_json import read_json

from . import subgroups
from .chance import warn_at_chance
from .metrics import DEFAULT_KS, metric_values, metrics_from_counts
from .protocol import check_cut_offs, check_prepared, check_protocol
from .ranking import HistoryCollator, ItemRanker
from .significance import bootstrap_intervals, paired_p_values

if TYPE_CHECKING:
    import datasets

    from mmm4rec_hf.data import SequenceDatasets
    from mmm4rec_hf.items import ItemCatalog
    from mmm4rec_hf.modeling import MMM4RecForSequentialRecommendation

logger = logging.getLogger(__name__)

METRICS_NAME, TARGETS_NAME, BASELINES_NAME = "metrics.json", "targets.parquet", "baselines.parquet"
_LEADING = ("user_id", "item_id", "above", "level", "loss")
# Two runs are comparable if these agree.
_PAIRED_PROTOCOL = ("split", "num_items", "exclude_history", "score_padding_item", "prepared")


@dataclass(frozen=True)
class Evaluation:
    """
    The result of a model on a split.

    Args:
        targets (`pl.DataFrame`, a row a target):
            `user_id`, `item_id`, `above` and `level` (see [`ranking_counts`]), `loss` (cross entropy over all items,
            in nats; a baseline has none), and the groups `history_length`, `target_popularity` and, with a catalogue,
            `target_modalities`.
        protocol (`dict`): How the numbers were got: `split`, `num_items`, `exclude_history`, `score_padding_item`,
            `ks`, `prepared` (how the sequences were made) and `users_without_target`.
        coverage (`dict[str, float]`): `coverage@K`, the share of items that stand in someone's ranking up to K.
    """

    targets: pl.DataFrame
    protocol: dict[str, Any]
    coverage: dict[str, float]

    @property
    def metrics(self) -> dict[str, float]:
        """`dict[str, float]`: As [`metrics_from_counts`], `coverage@K`, `loss` and `targets`, their number: one a user
        in a leave-one-out split, and any number in a temporal one. `users` counts those who have any."""
        counts = self.targets.select("above", "level").to_numpy()
        losses = {name: float(np.mean(column)) for name, column in self._losses().items()}
        sizes = {"users": self.targets["user_id"].n_unique(), "targets": len(counts)}
        return metrics_from_counts(counts, self.protocol["ks"]) | sizes | self.coverage | losses

    def values(self) -> dict[str, np.ndarray]:
        """Metrics and loss of each target."""
        counts = self.targets.select("above", "level").to_numpy()
        return metric_values(counts, self.protocol["ks"]) | self._losses()

    def _losses(self) -> dict[str, np.ndarray]:
        return {"loss": self.targets["loss"].to_numpy()} if "loss" in self.targets.columns else {}

    def intervals(self, num_resamples: int = 1000, seed: int = 0) -> dict[str, tuple[float, float]]:
        """95% intervals of the metrics, see [`bootstrap_intervals`] (and there of ends that are equal)."""
        values = self.values()
        ends = bootstrap_intervals(
            np.stack(list(values.values()), axis=1),
            self.targets["user_id"].to_numpy(),
            num_resamples=num_resamples,
            seed=seed,
        )
        return {name: (float(low), float(high)) for name, low, high in zip(values, *ends, strict=True)}

    def subgroups(self) -> dict[str, dict[str, dict[str, float]]]:
        """Metrics of each group of targets, see [`subgroup_means`]."""
        values = {name: pl.Series(column) for name, column in self.values().items()}
        table = self.targets.with_columns(**values)
        return subgroups.subgroup_means(table, {name: name for name in values})

    def to_dict(self) -> dict[str, Any]:
        """`dict`: Metrics, intervals, subgroups and protocol, as JSON holds them."""
        return {
            "metrics": self.metrics,
            "intervals": {name: list(ends) for name, ends in self.intervals().items()},
            "subgroups": self.subgroups(),
            "protocol": self.protocol,
        }

    def save(self, folder: str | os.PathLike[str], baselines: Mapping[str, "Evaluation"] | None = None) -> None:
        """
        Writes `metrics.json` and, for paired tests, `targets.parquet`; the JSON comes last, as a folder without it
        holds no evaluation. Another evaluation there, and its baselines, are replaced.

        Args:
            folder (`str` or `os.PathLike`): Where to, made where it is missing.
            baselines (`Mapping[str, Evaluation]`, *optional*):
                Of [`evaluate_baselines`]: `baselines.parquet`, two numbers a target and baseline.
        """
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        columns = {
            f"{name} {column}": baseline.targets[column]
            for name, baseline in (baselines or {}).items()
            for column in ("above", "level")
        }
        numbers = json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"
        with contextlib.ExitStack() as stack:
            # What is entered first takes its place last.
            metrics = stack.enter_context(replace_file(target / METRICS_NAME))
            metrics.write_text(numbers, encoding="utf-8")
            self.targets.write_parquet(stack.enter_context(replace_file(target / TARGETS_NAME)))
            if columns:
                pl.DataFrame(columns).write_parquet(stack.enter_context(replace_file(target / BASELINES_NAME)))
            # An earlier evaluation's: from here on the files might be of different ones.
            (target / METRICS_NAME).unlink(missing_ok=True)
            if not columns:
                (target / BASELINES_NAME).unlink(missing_ok=True)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "Evaluation":
        """
        Reads what [`~Evaluation.save`] wrote.

        Raises:
            ValueError: If the folder does not hold it.
        """
        source = Path(folder)
        for name in (METRICS_NAME, TARGETS_NAME):
            if not (source / name).is_file():
                raise ValueError(f"{source} holds no evaluation: {name} is missing; see mmm4rec evaluate --output")
        try:
            numbers = read_json((source / METRICS_NAME).read_text(encoding="utf-8"))
            coverage = {name: share for name, share in numbers["metrics"].items() if name.startswith("coverage@")}
            if not all(type(share) in (int, float) for share in coverage.values()):
                raise ValueError(f"its coverage is {coverage!r}")
            protocol = numbers["protocol"]
            check_protocol(protocol)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{source / METRICS_NAME} is damaged: {error}; evaluate again") from error
        targets = read_parquet_table(source / TARGETS_NAME)
        missing = [name for name in ("user_id", "item_id", "above", "level") if name not in targets.columns]
        if missing:
            raise ValueError(f"{source / TARGETS_NAME} has no column {', '.join(missing)}; evaluate again")
        check_ranks(source / TARGETS_NAME, targets, ("above", "level"), protocol)
        if "loss" in targets.columns and (not targets["loss"].dtype.is_float() or targets["loss"].has_nulls()):
            raise ValueError(f"{source / TARGETS_NAME} is damaged: loss must hold numbers; evaluate again")
        return cls(targets, protocol, coverage)


def check_ranks(path: Path, table: pl.DataFrame, columns: tuple[str, str], protocol: dict[str, Any]) -> None:
    """
    Makes sure that two columns of a file are what [`ranking_counts`] returns.

    Args:
        path (`Path`): Of the file.
        table (`pl.DataFrame`): What it holds.
        columns (`tuple(str, str)`): Names of those with the items above each target and level with it.
        protocol (`dict`): How many items were ranked.

    Raises:
        ValueError: If they are not, or there is no row.
    """
    if len(table) == 0:
        raise ValueError(f"{path} is damaged: it has no rows; evaluate again")
    most = protocol["num_items"] + protocol["score_padding_item"]
    # A target is level with itself.
    for name, least in zip(columns, (0, 1), strict=True):
        column = table[name]
        if not column.dtype.is_integer() or column.has_nulls() or not column.is_between(least, most).all():
            raise ValueError(
                f"{path} is damaged: {name} must hold whole numbers from {least} to {most}; evaluate again"
            )


def evaluate_model(
    model: "MMM4RecForSequentialRecommendation",
    sequences: "SequenceDatasets",
    split: str = "test",
    *,
    catalog: "ItemCatalog | None" = None,
    ks: Sequence[int] = DEFAULT_KS,
    batch_size: int = 256,
    exclude_history: bool = False,
    prepared: dict[str, Any] | None = None,
) -> Evaluation:
    """
    Ranks the target of every row of a split among all items.

    Args:
        model ([`MMM4RecForSequentialRecommendation`]): With items that it knows by id; evaluated where it is.
        sequences (`SequenceDatasets`): In any order of items; every item with events must be among the model's.
        split (`str`, *optional*, defaults to `"test"`): Which rows.
        catalog (`ItemCatalog`, *optional*): Says which items lack a text or a picture.
        ks (`Sequence[int]`, *optional*, defaults to `(10, 20, 50)`): The cut-offs.
        batch_size (`int`, *optional*, defaults to 256): Rows scored at once.
        exclude_history (`bool`, *optional*, defaults to `False`):
            Whether the items of the history leave the ranking (never the target). The published protocol keeps them.
        prepared (`dict`, *optional*):
            How the sequences were made, for the record: what [`read_preparation`] gives, or anything that JSON holds.

    Returns:
        `Evaluation`: The same whatever the batch size.

    Raises:
        ValueError: If the split is not there or empty, the model does not know an item, or a cut-off is no whole
            number from 1 to 1,000,000.
        TypeError: If `prepared` holds what JSON does not.
    """
    ks, prepared = check_cut_offs(ks), check_prepared(prepared)
    if model.item_ids is None:
        raise ValueError("the model does not know its items by id; call set_items(catalog) first")
    if split not in sequences:
        raise ValueError(f"there is no split {split!r}, only {', '.join(sequences)}")
    sequences = sequences.align(model.item_ids)
    if len(sequences[split]) == 0:
        raise ValueError(f"the split {split!r} is empty: there is nothing to evaluate")
    counts, losses, coverage = _ranks(model, sequences[split], batch_size, exclude_history, ks)
    user_ids = sequences.user_ids_of(split)
    targets = _targets(model.item_ids, sequences, split, catalog).with_columns(
        user_id=pl.Series(user_ids),
        above=pl.Series(counts[:, 0]),
        level=pl.Series(counts[:, 1]),
        loss=pl.Series(losses),
    )
    protocol = {
        "split": split,
        "num_items": len(model.item_ids),
        "exclude_history": exclude_history,
        "score_padding_item": model.config.score_padding_item,
        "ks": ks,
        "prepared": prepared,
        "users_without_target": len(sequences.user_ids) - len(set(user_ids)),
    }
    evaluation = Evaluation(targets.select(*_LEADING, pl.exclude(_LEADING)), protocol, coverage)
    k = max(ks)
    competing = len(model.item_ids) + bool(model.config.score_padding_item)
    warn_at_chance(
        f"hr@{k} of the {split} split",
        metric_values(counts, [k])[f"hr@{k}"],
        k,
        competing - _left_out(sequences[split]) if exclude_history else competing,
        user_ids,
    )
    return evaluation


def _left_out(rows: "datasets.Dataset") -> np.ndarray:
    """How many items each row's history takes out of its ranking, never the target: `(num_targets,)`."""
    columns = rows.select_columns(["input_ids", "labels"]).iter(batch_size=1000)
    return np.array(
        [
            len(set(history) - {label})
            for batch in columns
            for history, label in zip(
                (np.asarray(items).tolist() for items in batch["input_ids"]), map(int, batch["labels"]), strict=True
            )
        ]
    )


def check_comparable(first: Evaluation, second: Evaluation) -> None:
    """
    Makes sure that two runs rank the same targets by the same protocol.

    Raises:
        ValueError: Naming what differs.
    """
    for name in _PAIRED_PROTOCOL:
        if first.protocol[name] != second.protocol[name]:
            raise ValueError(
                f"the runs cannot be compared: {name} is {first.protocol[name]!r} in one and "
                f"{second.protocol[name]!r} in the other; evaluate both alike"
            )
    if not first.targets.select("user_id", "item_id").equals(second.targets.select("user_id", "item_id")):
        raise ValueError("the runs cannot be compared: their users or targets differ; evaluate both on the same data")


def compare(first: Evaluation, second: Evaluation, seed: int = 0) -> dict[str, dict[str, float]]:
    """
    A paired test between two runs on the same targets.

    Args:
        first (`Evaluation`): The run that is judged.
        second (`Evaluation`): The run it is judged by.
        seed (`int`, *optional*, defaults to 0): Of the resampling.

    Returns:
        `dict`: For each metric `difference` (first less second), the ends `low` and `high` of its 95% interval, and
        `p_value`, two-sided.

    Raises:
        ValueError: If the two have other protocols or targets.
    """
    check_comparable(first, second)
    values, others = first.values(), second.values()
    names = [name for name in values if name in others]
    differences = np.stack([values[name] - others[name] for name in names], axis=1)
    users = first.targets["user_id"].to_numpy()
    low, high = bootstrap_intervals(differences, users, seed=seed)
    p_values = paired_p_values(differences, users, seed=seed)
    columns = {"difference": differences.mean(axis=0), "low": low, "high": high, "p_value": p_values}
    return {
        name: {column: float(numbers[place]) for column, numbers in columns.items()}
        for place, name in enumerate(names)
    }


@torch.no_grad()
def _ranks(
    model: "MMM4RecForSequentialRecommendation",
    rows: "datasets.Dataset",
    batch_size: int,
    exclude_history: bool,
    ks: Sequence[int],
) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    """Items above and level with each target, `(num_targets, 2)`; its loss, `(num_targets,)`; and the coverage."""
    was_training = model.training
    model.eval()
    collate: Any = MMM4RecDataCollator(model.config.max_sequence_length)
    loader = DataLoader(rows, batch_size, collate_fn=HistoryCollator(collate) if exclude_history else collate)
    counts: list[torch.Tensor] = []
    losses: list[torch.Tensor] = []
    try:
        ranker = ItemRanker(model, exclude_history=exclude_history, coverage_at=ks)
        for batch in tqdm(loader, desc="Evaluating", disable=None):
            history, labels = batch.pop("history", None), batch.pop("labels")
            batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
            users = model.user_embeds(**batch, item_embeds=ranker.item_embeds)
            terms = model.cooccurrence_terms(batch["input_ids"], batch["attention_mask"])
            count, loss = ranker.rank(users, labels, history, terms)
            counts.append(count.cpu())
            losses.append(loss.cpu())
    finally:
        model.train(was_training)
    return torch.cat(counts).numpy(), torch.cat(losses).numpy(), ranker.coverage()


def _targets(
    item_ids: Sequence[str], sequences: "SequenceDatasets", split: str, catalog: "ItemCatalog | None"
) -> pl.DataFrame:
    """What is known of each target without a model: the item, and its groups."""
    labels = sequences[split].with_format("arrow")[:]["labels"].to_numpy()
    starts, ends = sequences.pointers_of(split)
    columns = {
        "item_id": [item_ids[label - 1] for label in labels],
        "history_length": subgroups.history_groups(ends - starts),
        "target_popularity": subgroups.popularity_groups(subgroups.training_events(sequences))[labels].tolist(),
    }
    if catalog is not None:
        groups = subgroups.modality_groups(catalog.select(item_ids))
        columns["target_modalities"] = groups[labels - 1].tolist()
    return pl.DataFrame(columns)
