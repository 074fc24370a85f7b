"""How soon a pretrained model is as good as a fresh one ever gets: a table and a plot from the curves of a study.

    python benchmarks/quality/convergence.py transfer --plot benchmarks/quality/transfer.png

Both are trained by the same schedule and measured on the validation split at the same steps. For each seed: the step
at which the fresh model is best by cross entropy (by NDCG@10), and the first at which the pretrained one is as good.
Both are variants of the study, or STUDY/VARIANT of another that measures at the same steps:

    python benchmarks/quality/convergence.py why --fresh transfer/scratch --other fresh-projections
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from run_files import RESULTS, read_runs, user_means

from mmm4rec_hf.evaluation.significance import bootstrap_intervals, paired_p_values
from mmm4rec_hf.outputs import replace_file

LARGER_IS_BETTER = {"loss": False, "ndcg@10": True}
LABELS = {"loss": "held-out cross entropy, nats", "ndcg@10": "validation NDCG@10"}


def points_of(run: Mapping[str, Any], metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of a run's curve, each step once."""
    values = {point["step"]: point["validation"][metric] for point in run["curve"]}
    return np.array(list(values)), np.array(list(values.values()))


def mean_curve(runs: Sequence[Mapping[str, Any]], metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps that all seeds have measured, and the mean over seeds there."""
    curves = [dict(zip(*points_of(run, metric), strict=True)) for run in runs]
    steps = sorted(set.intersection(*map(set, curves)))
    return np.array(steps), np.array([np.mean([curve[step] for curve in curves]) for step in steps])


def reached(fresh: Mapping[str, Any], other: Mapping[str, Any], metric: str) -> dict[str, Any]:
    """
    When `other` is as good as the best of `fresh`.

    Returns:
        `dict`: `best`, `at` (the step of it) and `reached` (the first step of `other` that is as good, or `None`).
    """
    sign = 1 if LARGER_IS_BETTER[metric] else -1
    steps, values = points_of(fresh, metric)
    place = int((sign * values).argmax())
    other_steps, other_values = points_of(other, metric)
    good = sign * other_values >= sign * values[place]
    return {
        "best": float(values[place]),
        "at": int(steps[place]),
        "reached": int(other_steps[good][0]) if good.any() else None,
    }


def table(fresh: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]], name: str) -> list[str]:
    """Lines of a Markdown table, a line a seed and metric."""
    lines = [f"| metric | seed | best fresh | at step | {name} there at step | share |", "| --- " * 6 + "|"]
    for metric in LARGER_IS_BETTER:
        for one, two in zip(fresh, other, strict=True):
            found = reached(one, two, metric)
            step = found["reached"]
            share = "" if step is None or not found["at"] else f"{step / found['at']:.2f}"
            told = ("never" if step is None else str(step), share)
            lines.append(f"| {metric} | {one['seed']} | {found['best']:.4f} | {found['at']} | {told[0]} | {told[1]} |")
    return lines


def final(fresh: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]], name: str) -> list[str]:
    """The kept models on the test split: means over seeds, and the difference paired by user."""
    lines = ["| metric | fresh | " + name + " | difference, 95% | p |", "| --- " * 5 + "|"]
    for metric in ("ndcg@10", "hr@10", "hr@50"):
        one, two = (user_means(runs, metric) for runs in (fresh, other))
        numbers, difference = np.arange(len(one)), (two - one)[:, None]
        low, high = bootstrap_intervals(difference, numbers)
        lines.append(
            f"| {metric} | {one.mean():.4f} | {two.mean():.4f} | {difference.mean():+.4f} "
            f"({low[0]:+.4f} to {high[0]:+.4f}) | {paired_p_values(difference, numbers)[0]:.3f} |"
        )
    losses = [np.mean([run["split"]["test"]["metrics"]["loss"] for run in runs]) for runs in (fresh, other)]
    return [*lines, f"| cross entropy | {losses[0]:.4f} | {losses[1]:.4f} | {losses[1] - losses[0]:+.4f} | |"]


def plot(groups: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Curves of both metrics: the mean over seeds, and all of them as a band."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for axis, metric in zip(axes, LARGER_IS_BETTER, strict=True):
        tops = []
        for name, runs in groups.items():
            steps = points_of(runs[0], metric)[0]
            values = np.stack([points_of(run, metric)[1] for run in runs])
            axis.plot(steps, values.mean(axis=0), label=f"{name}, {len(runs)} seeds")
            axis.fill_between(steps, values.min(axis=0), values.max(axis=0), alpha=0.15)
            tops.append(values[:, min(2, len(steps) - 1) :].max())
        if not LARGER_IS_BETTER[metric]:
            # The first steps of fresh weights would leave no room for what follows.
            axis.set_ylim(top=max(tops) + 0.02)
        axis.set(xlabel="training step", ylabel=LABELS[metric])
        axis.legend()
    with replace_file(path) as partial:
        figure.savefig(partial, dpi=110, format="png")
    plt.close(figure)


def runs_of_variant(results: Path, data: str, name: str) -> list[dict[str, Any]]:
    """The runs of all seeds of STUDY/VARIANT."""
    study, variant = name.split("/")
    return read_runs(results, f"{study}-{data}-{variant}-[0-9]*.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", help="the name of a study")
    parser.add_argument("--data", default="movies_b")
    parser.add_argument("--fresh", default="scratch", help="the variant that starts from fresh weights")
    parser.add_argument("--other", nargs="+", default=["pretrained"], help="those that are compared to it")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--plot", type=Path, help="where the picture goes")
    arguments = parser.parse_args()
    groups = {
        name: runs_of_variant(arguments.results, arguments.data, name if "/" in name else f"{arguments.study}/{name}")
        for name in (arguments.fresh, *arguments.other)
    }
    lacking = [name for name, runs in groups.items() if not runs]
    if lacking:
        raise SystemExit(
            f"no results of {', '.join(lacking)}; run python benchmarks/quality/study.py {arguments.study}"
        )
    fresh = groups[arguments.fresh]
    for name in arguments.other:
        seeds = {run["seed"] for run in groups[name]} & {run["seed"] for run in fresh}
        one, two = ([run for run in runs if run["seed"] in seeds] for runs in (fresh, groups[name]))
        print("\n".join([*table(one, two, name), "", *final(one, two, name), ""]))
    if arguments.plot:
        plot(groups, arguments.plot)


if __name__ == "__main__":
    main()
