"""What a model is held against: baselines ranked on the very targets of an evaluation, and kept beside it."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import datasets
import numpy as np
import polars as pl

from mmm4rec_hf.data.readers.parquet import read_parquet_table

from .baselines import (
    Baseline,
    CooccurrenceBaseline,
    FeatureSimilarityBaseline,
    PopularityBaseline,
    baseline_counts,
    evaluate_baseline,
)
from .evaluator import BASELINES_NAME, Evaluation, check_ranks

if TYPE_CHECKING:
    from mmm4rec_hf.data import SequenceDatasets

POPULARITY, COOCCURRENCE, SIMILAR_TEXT = "popularity", "co-occurrence", "similar text"
# Scores held at once: float64 ones take 256 MB.
_BLOCK_CELLS = 2**25
# Users whose last training event tells whether an item is taken again at once.
_ASKED = 2000


def evaluate_baselines(
    evaluation: Evaluation,
    sequences: "SequenceDatasets",
    item_ids: Sequence[str],
    text_features: np.ndarray | None = None,
) -> dict[str, Evaluation]:
    """
    Ranks the targets of an evaluation by popularity, by co-occurrence with the last item and, where there are text
    features, by similar text.

    The last item is the most similar to itself. It stands last, unless the users' last training events rank better by
    NDCG@10 where it stands first: so they do in a log in which users often take the same item again at once. Where the
    history leaves the ranking, so does the last item.

    Args:
        evaluation (`Evaluation`): Of a model, by [`evaluate_model`].
        sequences (`SequenceDatasets`): What it was evaluated on.
        item_ids (`Sequence[str]`): The items that were ranked: those of the model.
        text_features (`np.ndarray` of shape `(num_items, size)`, *optional*): In the order of `item_ids`.

    Returns:
        `dict[str, Evaluation]`: By the baseline's name, on the same targets by the same protocol, without losses and
        coverage: made for [`compare`].
    """
    sequences = sequences.align(item_ids)
    seen = training_histories(sequences)
    batch_size = max(1, min(256, _BLOCK_CELLS // len(item_ids)))
    exclude_history = evaluation.protocol["exclude_history"]
    baselines: dict[str, Baseline] = {
        POPULARITY: PopularityBaseline().fit(seen, len(item_ids)),
        COOCCURRENCE: CooccurrenceBaseline().fit(seen, len(item_ids)),
    }
    if text_features is not None:
        exclude_last = not exclude_history and not _last_item_helps(text_features, seen, batch_size)
        baselines[SIMILAR_TEXT] = FeatureSimilarityBaseline(exclude_last).fit(text_features)
    rows = sequences[evaluation.protocol["split"]]
    counts = {
        name: baseline_counts(baseline, rows, batch_size, exclude_history).numpy()
        for name, baseline in baselines.items()
    }
    return {name: _on_targets_of(evaluation, above_and_level) for name, above_and_level in counts.items()}


def training_histories(sequences: "SequenceDatasets") -> datasets.Dataset:
    """
    What the training rows show, each event once.

    Args:
        sequences (`SequenceDatasets`): With a split `train`.

    Returns:
        `datasets.Dataset`: A column `input_ids`, a row a user: the events up to the last training target.
    """
    starts, ends = sequences.pointers_of("train")
    users, places = np.unique(starts, return_inverse=True)
    stops = np.zeros(len(users), dtype=np.int64)
    np.maximum.at(stops, places, ends + 1)  # a target stands at the end and is seen as well
    items = sequences.events.data.column("item").to_numpy()
    return datasets.Dataset.from_dict(
        {"input_ids": [items[start:stop] for start, stop in zip(users, stops, strict=True)]}
    )


def _last_item_helps(text_features: np.ndarray, seen: datasets.Dataset, batch_size: int) -> bool:
    """Whether similar text ranks each user's last training event better where the item before it stays in."""
    if len(seen) == 0:
        return False
    asked = seen[np.unique(np.linspace(0, len(seen) - 1, min(len(seen), _ASKED)).astype(int))]["input_ids"]
    rows = datasets.Dataset.from_dict(
        {"input_ids": [items[:-1] for items in asked], "labels": [items[-1] for items in asked]}
    )
    left_out, kept = (
        evaluate_baseline(FeatureSimilarityBaseline(exclude).fit(text_features), rows, ks=[10], batch_size=batch_size)
        for exclude in (True, False)
    )
    return kept["ndcg@10"] > left_out["ndcg@10"]


def load_baselines(folder: str | os.PathLike[str], evaluation: Evaluation) -> dict[str, Evaluation]:
    """
    Reads the baselines that [`Evaluation.save`] wrote; empty where there are none.

    Args:
        folder (`str` or `os.PathLike`): Of the saved evaluation.
        evaluation (`Evaluation`): What lies there.

    Raises:
        ValueError: If the baselines are those of other targets, or the file is damaged.
    """
    path = Path(folder) / BASELINES_NAME
    if not path.is_file():
        return {}
    table = read_parquet_table(path)
    if len(table) != len(evaluation.targets):
        raise ValueError(
            f"{path} has {len(table)} rows, the evaluation beside it {len(evaluation.targets)} targets; evaluate again"
        )
    names = list(dict.fromkeys(column.rpartition(" ")[0] for column in table.columns))
    columns = {name: (f"{name} above", f"{name} level") for name in names}
    if sorted(table.columns) != sorted(column for pair in columns.values() for column in pair):
        raise ValueError(
            f"{path} is damaged: it must hold 'NAME above' and 'NAME level' of each baseline, got "
            f"{', '.join(map(repr, table.columns))}; evaluate again"
        )
    for pair in columns.values():
        check_ranks(path, table, pair, evaluation.protocol)
    return {name: _on_targets_of(evaluation, table.select(*pair).to_numpy()) for name, pair in columns.items()}


def _on_targets_of(evaluation: Evaluation, counts: np.ndarray) -> Evaluation:
    """[n, 2] -> an evaluation of the same targets."""
    targets = evaluation.targets.drop("loss", strict=False).with_columns(
        above=pl.Series(counts[:, 0]), level=pl.Series(counts[:, 1])
    )
    return replace(evaluation, targets=targets, coverage={})
