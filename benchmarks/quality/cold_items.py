"""Items held out of training, ranked by their features alone: against chance and against likeness of text.

    python benchmarks/quality/cold_items.py movies_b beauty --seeds 3
    python benchmarks/quality/cold_items.py movies_b beauty --seeds 3 --loss in_batch

A tenth of the items is drawn; their events leave the training log, a model is trained on the others, and the whole
catalogue is set (`model.set_items`). Then every event of a held-out item that has a history is a target, ranked among
all items. Chance is a random order: HR@10 = 10 / items. With `--loss in_batch`, without logQ, a model learns how well
an item fits and not how often it is chosen; as its cross entropy then says little, NDCG@10 chooses its validation.

What is trained is not trained again, what has its result not run again. A result holds the rank of every target and
its user and item, numbered as in the prepared sequences. At the end HR@10 of all draws together is told as times
chance, and less that of likeness of text and of `--loss full`, if its results are there, with 95% intervals and
p-values over users and over held-out items: all targets of one user, or of one item, are drawn together.
"""

import argparse
import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import polars as pl
import torch
from baselines import fit
from catalogs import WORK, folder_of
from run_files import DATA, RESULTS
from study import load_study, merged

from machine import machine_class  # isort: skip  # run_files.py has made its folder known

from mmm4rec_hf import ItemCatalog, MMM4RecDataCollator, MMM4RecForSequentialRecommendation
from mmm4rec_hf.data import SequenceDatasets, load_interactions, prepare_sequences
from mmm4rec_hf.evaluation import metrics_from_counts, ranking_counts
from mmm4rec_hf.evaluation.baselines import baseline_counts
from mmm4rec_hf.evaluation.metrics import metric_values
from mmm4rec_hf.evaluation.significance import bootstrap_intervals, paired_p_values
from mmm4rec_hf.outputs import replace_file
from mmm4rec_hf.training.finetuning import FinetuneRecipe, finetune
from mmm4rec_hf.training.recipes import build

SHARE = 0.1


def hold_out(name: str, seed: int) -> tuple[Path, set[str]]:
    """
    The folder of a data set without some of its items, and their ids.

    Args:
        name (`str`): The data set.
        seed (`int`): Of the draw.
    """
    folder, target = folder_of(name), WORK / "data" / f"{name}-cold-{seed}"
    sequences = SequenceDatasets.load_from_disk(folder / "sequences")
    item_ids = np.array(sequences.item_ids)
    cold = set(np.random.default_rng(seed).choice(item_ids, size=int(SHARE * len(item_ids)), replace=False).tolist())
    if not (target / "catalog" / "catalog.json").is_file():
        log = pl.read_csv(
            DATA / name / "interactions.csv", schema_overrides={"user_id": pl.String, "item_id": pl.String}
        )
        warm = [item for item in sequences.item_ids if item not in cold]
        kept = log.filter(pl.col("item_id").is_in(warm), pl.col("user_id").is_in(sequences.user_ids))
        # The core is that of the whole log; histories that have become too short to split are left out.
        prepare_sequences(load_interactions(kept), k_core=3, output_dir=target / "sequences")
        left = SequenceDatasets.load_from_disk(target / "sequences").item_ids
        ItemCatalog.from_pretrained(folder / "catalog").select(left).save_pretrained(target / "catalog")
    return target, cold


def cold_targets(sequences: SequenceDatasets, cold: set[str]) -> tuple[datasets.Dataset, list[int]]:
    """Every event of a held-out item that has a history, of all splits, and the number of each one's user."""
    rows = {place + 1 for place, item in enumerate(sequences.item_ids) if item in cold}
    splits = [sequences[split] for split in ("train", "validation", "test")]
    kept = [split.select(np.flatnonzero(np.isin(np.array(split["labels"]), list(rows)))) for split in splits]
    numbers = {user: number for number, user in enumerate(sequences.user_ids)}
    users = [numbers[user] for split in kept for user in sequences.user_ids_of(split)]
    return datasets.Dataset.from_list([row for split in kept for row in split]), users


@torch.no_grad()
def ranks_of(model: MMM4RecForSequentialRecommendation, rows: datasets.Dataset) -> np.ndarray:
    """`(num_rows, 2)`: items above and level with each target."""
    model.eval()
    collate, counts = MMM4RecDataCollator(model.config.max_sequence_length), []
    for start in range(0, len(rows), 256):
        batch = collate([rows[place] for place in range(start, min(start + 256, len(rows)))])
        labels = batch.pop("labels")
        counts.append(ranking_counts(model(**batch).logits, labels))
    return torch.cat(counts).numpy()


def run_name(data: str, seed: int, loss: str) -> str:
    """Of a run's folder and result."""
    return f"{data}-{seed}" if loss == "full" else f"{data}-{loss}-{seed}"


def measure(name: str, seed: int, loss: str) -> dict[str, Any]:
    """Metrics of the held-out items of a data set."""
    folder, cold = hold_out(name, seed)
    study = load_study("main")
    changes = {key: value for key, value in study["data"][name].items() if key != "seeds"}
    recipe = merged(study["base"], changes)
    recipe["training"]["seed"] = seed
    if loss != "full":
        by_rank = {"metric_for_best_model": "ndcg@10", "greater_is_better": True}
        recipe = merged(recipe, {"model": {"item_loss": loss}, "training": by_rank})
    output = WORK / "runs" / f"cold-{run_name(name, seed, loss)}"
    paths = {"sequences": folder / "sequences", "catalog": folder / "catalog", "output_dir": output}
    recipe |= {key: str(path) for key, path in paths.items()}
    if not (output / "model" / "model.safetensors").is_file():
        finetune(build(FinetuneRecipe, copy.deepcopy(recipe), f"cold-{name}"))
    model = MMM4RecForSequentialRecommendation.from_pretrained(output / "model")
    catalog = ItemCatalog.from_pretrained(folder_of(name) / "catalog")
    sequences = SequenceDatasets.load_from_disk(folder_of(name) / "sequences")
    catalog = catalog.select(sequences.item_ids)
    model.set_items(catalog)
    rows, users = cold_targets(sequences, cold)
    # As everywhere in the study: without the last item itself, which would always stand first.
    likeness = fit("text_knn", {}, sequences, catalog)
    counts = {"mmm4rec": ranks_of(model, rows), "text_knn": baseline_counts(likeness, rows).numpy()}
    return {
        "data": name, "seed": seed, "loss": loss, "items": len(catalog), "cold_items": len(cold), "targets": len(rows),
        "chance": {"hr@10": 10 / len(catalog)},
        **{method: metrics_from_counts(found) for method, found in counts.items()},
        "machine": machine_class(),
        "user": users,
        "item": [int(label) for label in rows["labels"]],
        "ranks": {
            method: {"larger": found[:, 0].tolist(), "equal": found[:, 1].tolist()} for method, found in counts.items()
        },
    }  # fmt: skip


def hits_of(results: Sequence[Mapping[str, Any]], method: str) -> np.ndarray:
    """HR@10 of every target of some draws, `(num_targets,)`."""
    ranks = [np.stack([found["ranks"][method][key] for key in ("larger", "equal")], axis=1) for found in results]
    return metric_values(np.concatenate(ranks), [10])["hr@10"]


def summary(results: Sequence[Mapping[str, Any]], full: Sequence[Mapping[str, Any]]) -> list[str]:
    """
    Lines on HR@10 over all targets of some draws.

    Args:
        results (`Sequence[Mapping]`): Of one data set and loss, a draw each.
        full (`Sequence[Mapping]`): Those of the same draws with `--loss full`; none, if they are not to be compared.
    """
    hits, chance = {method: hits_of(results, method) for method in ("mmm4rec", "text_knn")}, results[0]["chance"]
    values = {f"{method}, times chance": own / chance["hr@10"] for method, own in hits.items()}
    values["mmm4rec less text_knn"] = hits["mmm4rec"] - hits["text_knn"]
    if full:
        values["mmm4rec less --loss full"] = hits["mmm4rec"] - hits_of(full, "mmm4rec")
    lines = []
    for title, own in values.items():
        told = []
        for key in ("user", "item"):
            names = [name for found in results for name in found[key]]
            low, high = bootstrap_intervals(own[:, None], names)
            p_value = f", p = {paired_p_values(own[:, None], names)[0]:.4f}" if "less" in title else ""
            told.append(f"over {key}s {low[0]:.4f} to {high[0]:.4f}{p_value}")
        lines.append(f"  {title}: {own.mean():.4f} ({'; '.join(told)})")
    return lines


def write(path: Path, result: Mapping[str, Any]) -> None:
    """JSON with an entry a line."""
    lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in result.items()]
    with replace_file(path) as partial:
        partial.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", help="data sets")
    parser.add_argument("--seeds", type=int, default=1, help="of the draw and of the training")
    parser.add_argument("--loss", choices=("full", "in_batch"), default="full")
    parser.add_argument("--results", type=Path, default=RESULTS / "cold", help="where results stand")
    arguments = parser.parse_args()
    arguments.results.mkdir(parents=True, exist_ok=True)
    for name in arguments.data:
        files = [arguments.results / f"{run_name(name, seed, arguments.loss)}.json" for seed in range(arguments.seeds)]
        for seed, target in enumerate(files):
            if not target.is_file():
                write(target, measure(name, seed, arguments.loss))
            found = json.loads(target.read_text())
            times = {model: found[model]["hr@10"] / found["chance"]["hr@10"] for model in ("mmm4rec", "text_knn")}
            print(
                f"{name}, seed {seed}: HR@10 of {found['cold_items']} held-out items ({found['targets']} targets) "
                f"{found['mmm4rec']['hr@10']:.3f}, {times['mmm4rec']:.1f} times chance; text kNN "
                f"{found['text_knn']['hr@10']:.3f}, {times['text_knn']:.1f} times",
                flush=True,
            )
        full = [arguments.results / f"{run_name(name, seed, 'full')}.json" for seed in range(arguments.seeds)]
        is_compared = arguments.loss != "full" and all(path.is_file() for path in full)
        results, others = ([json.loads(path.read_text()) for path in paths] for paths in (files, full * is_compared))
        print(f"{name}, HR@10 over {len(results)} draws:", *summary(results, others), sep="\n", flush=True)


if __name__ == "__main__":
    main()
