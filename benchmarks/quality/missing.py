"""What is left of a model when texts or pictures are missing at test time: a curve.

    python benchmarks/quality/missing.py main --data movies_b --variant mmm4rec modality-dropout --plot missing.png

Of the items a share, drawn three times, loses its picture (or its text), and the trained model is evaluated on the
test split with what stands for it: `white`, the features of a white picture or of an empty text, as `mmm4rec encode`
does by default; `zeros`; or `mean`, the mean features of all items. A model with `learned_missing` puts its own vector
there in every case. Runs of the study that are not there yet are trained first.
"""

import argparse
import copy
import json
from collections import defaultdict
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from catalogs import folder_of, without
from run_files import RESULTS
from study import Run, load_study, runs_of, trained_model

from machine import command_line, machine_class  # isort: skip  # run_files.py has made its folder known

from mmm4rec_hf import ItemCatalog, MMM4RecForSequentialRecommendation
from mmm4rec_hf.cli.demo import load_encoder
from mmm4rec_hf.data import SequenceDatasets
from mmm4rec_hf.evaluation.evaluator import evaluate_model
from mmm4rec_hf.outputs import replace_file, write_json

SHARES, DRAWS = (0.25, 0.5, 0.75, 1.0), 3
POLICIES = ("white", "zeros", "mean")


def blank_features() -> dict[str, np.ndarray]:
    """The features of an item without text and picture, as the encoders of the study give them."""
    blank = ItemCatalog.from_items([{"item_id": "blank"}]).encode(load_encoder())
    return {"text": np.asarray(blank.text_features)[0], "image": np.asarray(blank.image_features)[0]}


def with_policy(
    catalog: ItemCatalog, modality: str, chosen: np.ndarray, policy: str, blank: dict[str, np.ndarray]
) -> ItemCatalog:
    """
    The catalogue without the text or picture of the chosen items.

    Args:
        catalog (`ItemCatalog`): With features.
        modality (`"text"` or `"image"`): What is taken away.
        chosen (`np.ndarray` of shape `(num_items,)`): Whether each item loses it.
        policy (`str`): What stands there.
        blank (`dict`): As [`blank_features`] gives it.
    """
    reduced = without(catalog, modality, chosen)
    features = getattr(reduced, f"{modality}_features")
    if policy == "white":
        features[chosen] = blank[modality]
    elif policy == "mean":
        features[chosen] = np.asarray(getattr(catalog, f"{modality}_features")).mean(axis=0)
    return reduced


def curve_of(
    model: MMM4RecForSequentialRecommendation,
    sequences: SequenceDatasets,
    catalog: ItemCatalog,
    blank: dict[str, np.ndarray],
) -> list[dict[str, Any]]:
    """Mean test metrics for each modality, policy and share."""

    def measured(items: ItemCatalog) -> dict[str, float]:
        model.set_items(items)
        return evaluate_model(model, sequences, "test").metrics

    whole = measured(catalog)
    points = []
    policies = ("learned",) if model.config.learned_missing else POLICIES
    for modality in ("image", "text"):
        for policy in policies:
            points.append({"modality": modality, "policy": policy, "share": 0.0, "ndcg@10": whole["ndcg@10"]})
            for share in SHARES:
                values = []
                for draw in range(DRAWS if share < 1 else 1):
                    order = np.random.default_rng(draw).permutation(len(catalog))
                    chosen = np.zeros(len(catalog), dtype=bool)
                    chosen[order[: round(share * len(catalog))]] = True
                    values.append(measured(with_policy(catalog, modality, chosen, policy, blank))["ndcg@10"])
                mean = float(np.mean(values))
                points.append({"modality": modality, "policy": policy, "share": share, "ndcg@10": mean})
    return points


def measure(run: Run, study: dict[str, Any], blank: dict[str, np.ndarray]) -> dict[str, Any]:
    """The curve of a run's model."""
    folder = folder_of(run.data)
    model = MMM4RecForSequentialRecommendation.from_pretrained(trained_model(run, study))
    catalog = ItemCatalog.from_pretrained(folder / "catalog").select(model.item_ids)
    sequences = SequenceDatasets.load_from_disk(folder / "sequences").align(catalog.item_ids)
    return {
        "data": run.data,
        "model": run.variant,
        "seed": run.seed,
        "command": command_line(),
        "date": date.today().isoformat(),
        "machine": machine_class(),
        "points": curve_of(copy.deepcopy(model), sequences, catalog, blank),
    }


def lines_of(found: dict[str, Any]) -> list[str]:
    """A line a curve: NDCG@10 at each share, and what is lost at half."""
    lines = []
    for modality, policy in dict.fromkeys((point["modality"], point["policy"]) for point in found["points"]):
        own = [p["ndcg@10"] for p in found["points"] if (p["modality"], p["policy"]) == (modality, policy)]
        half = own[(0.0, *SHARES).index(0.5)]
        lines.append(
            f"{found['data']} {found['model']} {found['seed']}, {modality} missing ({policy}): "
            + " ".join(f"{value:.4f}" for value in own)
            + f"; at half {half / own[0] - 1:+.1%}"
        )
    return lines


def plot(curves: Sequence[dict[str, Any]], path: Path) -> None:
    """NDCG@10 by the share that is missing, a panel a modality; the mean over the seeds of a model."""
    lines: dict[tuple[str, str, str], list[list[float]]] = defaultdict(list)
    for found in curves:
        for modality, policy in dict.fromkeys((point["modality"], point["policy"]) for point in found["points"]):
            own = [p["ndcg@10"] for p in found["points"] if (p["modality"], p["policy"]) == (modality, policy)]
            lines[modality, found["model"], policy].append(own)
    figure, axes = plt.subplots(1, 2, figsize=(12, 4), sharey=True, layout="constrained")
    for axis, modality, words in zip(axes, ("image", "text"), ("pictures", "texts"), strict=True):
        models = list(dict.fromkeys(model for _, model, _ in lines))
        for (one, model, policy), values in lines.items():
            if one == modality:
                style = {"white": "-", "zeros": ":", "mean": "--", "learned": "-"}[policy]
                color = f"C{models.index(model)}"
                axis.plot((0.0, *SHARES), np.mean(values, axis=0), style, color=color, label=f"{model}, {policy}")
        axis.set(xlabel=f"share of items without {words}", ylim=(0, None))
    axes[0].set_ylabel("NDCG@10")
    figure.legend(*axes[1].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    with replace_file(path) as partial:
        figure.savefig(partial, dpi=110, format="png")
    plt.close(figure)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", help="the name of a study, or a path")
    parser.add_argument("--data", nargs="+", default=["movies_b", "movies_a"], help="data sets with pictures")
    parser.add_argument("--variant", nargs="+", default=["mmm4rec"], help="variants of the study")
    parser.add_argument("--seeds", type=int, default=2, help="at most so many")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where results stand")
    parser.add_argument("--plot", type=Path, help="where the picture goes")
    arguments = parser.parse_args(argv)
    study, blank = load_study(arguments.study), None
    (arguments.results / "missing").mkdir(parents=True, exist_ok=True)
    curves = []
    for run in runs_of(study):
        if run.data in arguments.data and run.variant in arguments.variant and run.seed < arguments.seeds:
            target = arguments.results / "missing" / f"{run.name}.json"
            if not target.is_file():
                blank = blank or blank_features()
                write_json(target, measure(run, study, blank))
            curves.append(json.loads(target.read_text()))
            print("\n".join(lines_of(curves[-1])), flush=True)
    if arguments.plot:
        plot(curves, arguments.plot)


if __name__ == "__main__":
    main()
