"""Rankings without training on real data: what popularity, likeness and counting reach.

    python benchmarks/quality/baselines.py                       # all three data sets: a few minutes
    python benchmarks/quality/baselines.py --data beauty --models cooccurrence item_knn

5-core, leave-one-out in time order; a history is its last 20 events; each target is ranked among all items, nothing is
masked, and ties count by expectation. Counts are those of the training events alone. One file a run in `results/`, in
the form of run_files.py; a run whose file is there is not repeated.

| model | ranks by | options |
| --- | --- | --- |
| popularity | training events | none |
| text_knn | cosine of all-MiniLM-L6-v2 features with the last item, which itself comes last | none |
| image_knn | the same with EfficientNet-Lite0 features of pictures | none |
| transitions | how often an item came right after the last one | none |
| cooccurrence | how often it came within 5 steps after it, weighted 1 / steps | none |
| cooccurrence_tuned | the same from several items of the history | window, decay, direction, context |
| item_knn | cosine of the items' sets of users, summed over the history | neighbours, shrinkage, context |

Options are chosen by NDCG@10 on validation, among the defaults and random draws, `--trials` in all: as many as the
trained models get. Features are encoded once and kept in `--features`; data without pictures has no image_knn.
"""

import argparse
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from run_files import (
    DATA,
    LENGTH,
    RESULTS,
    bundle_users,
    make_run,
    make_split,
    metrics_of,
    prepare,
    read_run,
    write_run,
)

from mmm4rec_hf.cli.demo import load_encoder, text_fields_of
from mmm4rec_hf.data import SequenceDatasets
from mmm4rec_hf.evaluation import metrics_from_counts, ranking_counts
from mmm4rec_hf.evaluation.baselines import (
    Baseline,
    CooccurrenceBaseline,
    FeatureSimilarityBaseline,
    ItemKNNBaseline,
    PopularityBaseline,
)
from mmm4rec_hf.items import ItemCatalog

FEATURES = Path(__file__).resolve().parents[2] / ".cache" / "features"
TRIALS = 8
FIXED: dict[str, dict[str, Any]] = {
    "popularity": {},
    "text_knn": {},
    "image_knn": {},
    "transitions": {"window": 1},
    "cooccurrence": {"window": 5, "decay": 1.0},
}
TUNED: dict[str, dict[str, list[Any]]] = {
    "cooccurrence_tuned": {
        "window": [1, 2, 3, 5, 10, 20],
        "decay": [0.0, 0.5, 1.0, 2.0],
        "symmetric": [False, True],
        "context": [1, 2, 3, 5, 10, 20],
        "context_decay": [0.0, 0.5, 1.0, 2.0],
    },
    "item_knn": {
        "neighbours": [None, 20, 50, 100, 200],
        "shrinkage": [0.0, 5.0, 10.0, 20.0, 50.0],
        "context": [1, 3, 5, 10, 20],
        "context_decay": [0.0, 0.5, 1.0, 2.0],
    },
}
MODELS = [*FIXED, *TUNED]


def fit(model: str, options: Mapping[str, Any], sequences: SequenceDatasets, catalog: ItemCatalog | None) -> Baseline:
    """
    A baseline that knows the training events.

    Raises:
        ValueError: If it goes by features that are not there.
    """
    # A user's history in the validation split is all that user's training events.
    events, num_items = sequences["validation"], len(sequences.item_ids)
    if model == "popularity":
        return PopularityBaseline().fit(events, num_items)
    if model in ("text_knn", "image_knn"):
        features = None if catalog is None else getattr(catalog, f"{model.removesuffix('_knn')}_features")
        if features is None:
            raise ValueError(f"{model} needs a catalogue with those features")
        return FeatureSimilarityBaseline(exclude_last=True).fit(features)
    if model == "item_knn":
        return ItemKNNBaseline(**options).fit(events, num_items)
    return CooccurrenceBaseline(**options).fit(events, num_items)


def ranks(baseline: Baseline, sequences: SequenceDatasets, split: str) -> np.ndarray:
    """The counts of `ranking_counts` for each row of a split, int64 of shape `(num_users, 2)`."""
    counts = []
    for batch in sequences[split].iter(batch_size=256):
        histories = [np.asarray(history, dtype=np.int64)[-LENGTH:] for history in batch["input_ids"]]
        counts.append(ranking_counts(baseline.score(histories), torch.tensor([int(x) for x in batch["labels"]])))
    return torch.cat(counts).numpy()


def draw(space: Mapping[str, Sequence[Any]], trials: int, seed: int) -> list[dict[str, Any]]:
    """Options to try: the defaults (none given), then different random ones."""
    generator = random.Random(seed)
    drawn: list[dict[str, Any]] = [{}]
    while len(drawn) < trials:
        options = {name: generator.choice(list(values)) for name, values in space.items()}
        if options not in drawn:
            drawn.append(options)
    return drawn


def tune(
    model: str, sequences: SequenceDatasets, trials: int, seed: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The options with the best NDCG@10 on validation, and all that was tried."""
    tried = []
    for options in draw(TUNED[model], trials, seed):
        metrics = metrics_from_counts(ranks(fit(model, options, sequences, None), sequences, "validation"))
        tried.append({"options": options, "metrics": metrics})
    best = max(tried, key=lambda trial: trial["metrics"]["ndcg@10"])
    return best["options"], tried


def run(
    data: str, model: str, sequences: SequenceDatasets, catalog: ItemCatalog | None, trials: int
) -> dict[str, Any]:
    """One baseline on one data set, as run_files.py writes it."""
    more: dict[str, Any] = {}
    if model in TUNED:
        options, more["tuning"] = tune(model, sequences, trials, seed=0)
    else:
        options = FIXED[model]
    baseline = fit(model, options, sequences, catalog)
    splits = {split: make_split(ranks(baseline, sequences, split)) for split in ("validation", "test")}
    command = f"python benchmarks/quality/baselines.py --data {data} --models {model} --trials {trials}"
    return make_run(data, model, options, splits, command=command, **more)


def encoded_catalog(data: str, item_ids: Sequence[str], folder: Path) -> ItemCatalog:
    """The items with features, from the folder where they were encoded before, or encoded now."""
    target = folder / data
    if not (target / "catalog").is_dir():
        items = ItemCatalog.from_items(DATA / data / "items.jsonl").select(item_ids)
        items.encode(load_encoder(text_fields_of(items)), target / "shards").save_pretrained(target / "catalog")
    return ItemCatalog.from_pretrained(target / "catalog").select(item_ids)


def has_pictures(catalog: ItemCatalog | None) -> bool:
    return catalog is not None and catalog.image_mask is not None and bool(catalog.image_mask.any())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["movies_b", "beauty", "movies_a"], help="folders of real data")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS, metavar="NAME", help="which baselines")
    parser.add_argument(
        "--trials", type=int, default=TRIALS, help="options tried on validation (default: %(default)s)"
    )
    parser.add_argument("--features", type=Path, default=FEATURES, help="where encoded features are kept")
    parser.add_argument("--output", type=Path, default=RESULTS, help="where results go")
    arguments = parser.parse_args()
    for data in arguments.data:
        sequences = prepare(data)
        bundle = bundle_users(sequences)
        catalog = None
        if {"text_knn", "image_knn"} & set(arguments.models):
            catalog = encoded_catalog(data, sequences.item_ids, arguments.features)
        for model in arguments.models:
            if model == "image_knn" and not has_pictures(catalog):
                continue
            path = arguments.output / f"baselines-{data}-{model}.json"
            if not path.exists():
                write_run(path, run(data, model, sequences, catalog, arguments.trials))
            print(describe(read_run(path), bundle), flush=True)


def describe(result: Mapping[str, Any], bundle: np.ndarray) -> str:
    """A line of the table: test HR@10 and NDCG@10, and NDCG@10 without the users of the bundle."""
    metrics = result["split"]["test"]["metrics"]
    line = f"{result['data']} {result['model']}: HR@10 {metrics['hr@10']:.4f}, NDCG@10 {metrics['ndcg@10']:.4f}"
    if bundle.any():
        line += f"; without the {bundle.sum()} bundle users {metrics_of(result, users=~bundle)['ndcg@10']:.4f}"
    return f"{line} {result['options'] or ''}"


if __name__ == "__main__":
    main()
