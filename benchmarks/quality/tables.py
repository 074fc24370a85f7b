"""The results of the quality study as tables.

    python benchmarks/quality/tables.py                  # all data sets, as Markdown
    python benchmarks/quality/tables.py --data movies_b --plot benchmarks/quality/results.png
    python benchmarks/quality/tables.py --against recbole_gru4rec     # or "scratch (transfer)", any row's name

A row a method: the mean over its seeds, the 95% interval of that mean over users (users are drawn, each with the mean
of its seeds), and the paired difference to the best method that only counts, with its p-value, or to `--against`, with
the interval of the difference as well. `beauty` is also told without the users of its bundle (see
`run_files.parts_of_users`).
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from run_files import RESULTS, parts_of_users, read_runs, user_means

from mmm4rec_hf.evaluation.significance import bootstrap_intervals, paired_p_values
from mmm4rec_hf.outputs import replace_file

METRIC = "ndcg@10"
COUNTING = ("popularity", "transitions", "cooccurrence", "cooccurrence_tuned", "item_knn", "text_knn", "image_knn")


def methods_of(runs: Sequence[dict[str, Any]], data: str) -> dict[str, list[dict[str, Any]]]:
    """The runs of each method on a data set."""
    methods: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for run in runs:
        if run["data"] == data and "test" in run["split"]:
            study = "" if run.get("study") in (None, "main") else f" ({run['study']})"
            methods[run["model"] + study].append(run)
    return methods


def table(methods: dict[str, list[dict[str, Any]]], users: np.ndarray, against: str | None = None) -> list[str]:
    """
    Lines of a Markdown table.

    Args:
        methods (`dict`): Runs of each method.
        users (`np.ndarray` of shape `(num_users,)`): Whether each user counts.
        against (`str`, *optional*): The method that others are compared with; by default the best that counts.
    """
    values = {name: user_means(runs, METRIC)[users] for name, runs in methods.items()}
    hits = {name: user_means(runs, "hr@10")[users] for name, runs in methods.items()}
    yardstick = against or max((name for name in values if name in COUNTING), key=lambda name: values[name].mean())
    lines = [
        f"| method | seeds | HR@10 | NDCG@10 | 95% | against {yardstick} | p |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    numbers = np.arange(int(users.sum()))
    for name in sorted(values, key=lambda name: values[name].mean()):
        own = values[name]
        low, high = bootstrap_intervals(own[:, None], numbers)
        difference = (own - values[yardstick])[:, None]
        p_value = paired_p_values(difference, numbers)[0]
        apart = "" if name == yardstick else f"{difference.mean():+.4f}"
        if against and apart:
            ends = bootstrap_intervals(difference, numbers)
            apart += f" ({ends[0][0]:+.4f} to {ends[1][0]:+.4f})"
        lines.append(
            f"| {name} | {len(methods[name])} | {hits[name].mean():.4f} | {own.mean():.4f} | "
            f"{low[0]:.4f} to {high[0]:.4f} | {apart} | {'' if name == yardstick else f'{p_value:.3f}'} |"
        )
    return lines


def plot(parts: Sequence[tuple[str, dict[str, list[dict[str, Any]]], np.ndarray]], path: Path) -> None:
    """A panel a data set: NDCG@10 with intervals, ours in colour. Other studies stand in the tables alone."""
    figure, axes = plt.subplots(1, len(parts), figsize=(4.2 * len(parts), 5), layout="constrained", squeeze=False)
    for axis, (title, methods, users) in zip(axes[0], parts, strict=True):
        values = {name: user_means(runs, METRIC)[users] for name, runs in methods.items() if name[-1] != ")"}
        order = sorted(values, key=lambda name: values[name].mean())
        for place, name in enumerate(order):
            low, high = bootstrap_intervals(values[name][:, None], np.arange(int(users.sum())))
            is_counting, is_peer = name in COUNTING, name.startswith("recbole")
            color = "0.55" if is_counting else "tab:orange" if is_peer else "tab:blue"
            axis.plot([low[0], high[0]], [place, place], color=color)
            axis.plot(values[name].mean(), place, "o", color=color)
        axis.set_yticks(range(len(order)), order, fontsize=8)
        axis.set(title=f"{title}, {int(users.sum())} users", xlabel="test NDCG@10, 95% over users")
        axis.grid(axis="x", color="0.9")
    with replace_file(path) as partial:
        figure.savefig(partial, dpi=100, format="png")
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["movies_b", "beauty", "movies_a"])
    parser.add_argument("--against", metavar="METHOD", help="by default the best method that only counts")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where results stand")
    parser.add_argument("--plot", type=Path, help="where the picture goes")
    arguments = parser.parse_args()
    runs, drawn = read_runs(arguments.results), []
    for data in arguments.data:
        methods = methods_of(runs, data)
        if not methods:
            continue
        if arguments.against and arguments.against not in methods:
            print(f"{data} has no {arguments.against}, only {', '.join(sorted(methods))}", file=sys.stderr)
            continue
        for title, users in parts_of_users(data).items():
            print(f"### {title}: {int(users.sum())} users\n")
            print("\n".join(table(methods, users, arguments.against)) + "\n")
            drawn.append((title, methods, users))
    if arguments.plot:
        plot(drawn, arguments.plot)


if __name__ == "__main__":
    main()
