"""The numbers of a report: means with their intervals, groups of targets, what runs can be compared, and chance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from mmm4rec_hf.evaluation.evaluator import Evaluation, check_comparable, compare
from mmm4rec_hf.evaluation.significance import bootstrap_intervals, has_width
from mmm4rec_hf.evaluation.subgroups import GROUPS

from .runs import RANDOM, Run

DEFAULT_SEED = 42  # of transformers' TrainingArguments
# What a record says of where its data lay.
_PLACES = ("folder", "source", "layout")


class Estimate(NamedTuple):
    """A mean and its 95% interval; `None` where the mean is exact, or users' values do not tell how far it moves."""

    value: float
    low: float | None = None
    high: float | None = None


class Comparison(NamedTuple):
    """A paired test of two systems by one metric."""

    system: str
    other: str
    metric: str
    difference: float
    low: float
    high: float
    p_value: float


@dataclass
class Panel:
    """
    Systems that were measured on the same targets by the same protocol.

    Args:
        runs (`list[Run]`): Those that were.
        baselines (`dict[str, Evaluation]`): Those of its runs, each once. Where runs have a baseline of one name with
            other ranks, as of other features of the items, it is called `NAME of RUN`.
        judges (`dict[str, dict[str, str]]`): By run, by the baseline's name: what its own one is called here.
        estimates (`dict[str, dict[str, Estimate]]`): By system, by metric: runs, baselines, and a random order.
        comparisons (`list[Comparison]`): Paired tests.
    """

    runs: list[Run]
    baselines: dict[str, Evaluation] = field(default_factory=dict)
    judges: dict[str, dict[str, str]] = field(default_factory=dict)
    estimates: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    comparisons: list[Comparison] = field(default_factory=list)

    @property
    def evaluation(self) -> Evaluation:
        """`Evaluation`: Of the first run; the others have its targets and protocol."""
        assert self.runs[0].evaluation is not None  # of panels
        return self.runs[0].evaluation


def make_panels(runs: Sequence[Run]) -> list[Panel]:
    """
    Puts together the runs that can be compared, and measures them.

    Args:
        runs (`Sequence[Run]`): Those without an evaluation are left out.

    Returns:
        `list[Panel]`: In the order of the runs.
    """
    panels: list[Panel] = []
    for run in runs:
        if run.evaluation is None:
            continue
        for panel in panels:
            if _same_targets(panel.evaluation, run.evaluation):
                panel.runs.append(run)
                break
        else:
            panels.append(Panel([run]))
    for panel in panels:
        _measure(panel)
    return panels


def headline_metrics(evaluation: Evaluation, metric: str) -> list[str]:
    """HR, NDCG and MRR at the cut-off of a metric, in this order."""
    cut_off = metric.rpartition("@")[2]
    return [name for name in (f"{kind}@{cut_off}" for kind in ("hr", "ndcg", "mrr")) if name in evaluation.metrics]


def estimates_of(evaluation: Evaluation) -> dict[str, Estimate]:
    """Means of HR, NDCG, MRR and loss with 95% intervals over users."""
    metrics, intervals = evaluation.metrics, evaluation.intervals()
    return {name: _estimate(metrics[name], low, high) for name, (low, high) in intervals.items()}


def _estimate(value: float, low: float, high: float) -> Estimate:
    return Estimate(value, low, high) if has_width(low, high) else Estimate(value)


def subgroup_estimates(evaluation: Evaluation, metric: str) -> dict[str, dict[str, tuple[int, Estimate]]]:
    """
    A metric in each group of targets.

    Args:
        evaluation (`Evaluation`): With columns of groups.
        metric (`str`): Such as `ndcg@10`.

    Returns:
        `dict`: For each column of groups, for each group that has targets: their number, and the mean with its
        interval.
    """
    values = evaluation.values()[metric]
    users = evaluation.targets["user_id"].to_numpy()
    table: dict[str, dict[str, tuple[int, Estimate]]] = {}
    for column, names in GROUPS.items():
        if column not in evaluation.targets.columns:
            continue
        groups = evaluation.targets[column].to_numpy()
        table[column] = {}
        for name in names:
            inside = groups == name
            if inside.any():
                low, high = bootstrap_intervals(values[inside, None], users[inside])
                mean = _estimate(float(values[inside].mean()), float(low[0]), float(high[0]))
                table[column][name] = (int(inside.sum()), mean)
    return table


def chance(evaluation: Evaluation) -> dict[str, Estimate]:
    """
    What a random order reaches on average, exactly.

    Args:
        evaluation (`Evaluation`): Names the number of items and the cut-offs.

    Returns:
        `dict[str, Estimate]`: Of HR, NDCG and MRR; empty where the history left the ranking, which makes the number of
        candidates another for each user.
    """
    if evaluation.protocol["exclude_history"]:
        return {}
    items = evaluation.protocol["num_items"] + bool(evaluation.protocol["score_padding_item"])
    expected = {}
    for k in evaluation.protocol["ks"]:
        places = np.arange(min(k, items))
        for name, gains in (("hr", 1.0 + 0 * places), ("ndcg", 1 / np.log2(places + 2)), ("mrr", 1 / (places + 1))):
            expected[f"{name}@{k}"] = Estimate(float(gains.sum() / items))
    return expected


def families(runs: Sequence[Run]) -> list[list[Run]]:
    """
    Runs that differ in their seed alone: of one recipe, on the same events and features as far as these were noted.

    Args:
        runs (`Sequence[Run]`): Any.

    Returns:
        `list[list[Run]]`: Two or more each, the first one of each seed.
    """
    found: dict[str, dict[tuple[Any, Any], Run]] = {}
    for run in runs:
        if run.recipe:
            # Where the data lay is no part of what they were.
            data = {name: value for name, value in run.record.get("data", {}).items() if name not in _PLACES}
            alike = repr((_without_seed(run.recipe), sorted(data.items())))
            found.setdefault(alike, {}).setdefault(_seeds(run.recipe), run)
    return [list(members.values()) for members in found.values() if len(members) > 1]


def _seeds(recipe: Mapping[str, Any]) -> tuple[Any, Any]:
    """The seed, and that of the order of the data where it is another."""
    training = recipe.get("training", {})
    return recipe.get("seed", training.get("seed", DEFAULT_SEED)), training.get("data_seed")


def _without_seed(recipe: Mapping[str, Any]) -> dict[str, Any]:
    left = {name: value for name, value in recipe.items() if name not in ("output_dir", "seed")}
    training = {name: value for name, value in left.get("training", {}).items() if name not in ("seed", "data_seed")}
    return left | {"training": training}


def _same_targets(first: Evaluation, second: Evaluation) -> bool:
    try:
        check_comparable(first, second)
    except ValueError:
        return False
    return first.protocol["ks"] == second.protocol["ks"]


def _collect_baselines(panel: Panel) -> None:
    """Fills in `baselines` and `judges`."""
    for name in dict.fromkeys(name for run in panel.runs for name in run.baselines):
        runs = [run for run in panel.runs if name in run.baselines]
        owners = {
            run.name: next(first for first in runs if _same_ranks(first.baselines[name], run.baselines[name]))
            for run in runs
        }
        differ = len({owner.name for owner in owners.values()}) > 1
        for run_name, owner in owners.items():
            label = f"{name} of {owner.name}" if differ else name
            panel.judges.setdefault(run_name, {})[name] = label
            panel.baselines[label] = owner.baselines[name]


def _same_ranks(first: Evaluation, second: Evaluation) -> bool:
    """Of evaluations on the same targets."""
    return first.targets.select("above", "level").equals(second.targets.select("above", "level"))


def _measure(panel: Panel) -> None:
    _collect_baselines(panel)
    baselines = panel.baselines
    evaluations = {run.name: run.evaluation for run in panel.runs if run.evaluation is not None}
    for name, evaluation in (evaluations | baselines).items():
        panel.estimates[name] = estimates_of(evaluation)
    if expected := chance(panel.evaluation):
        panel.estimates[RANDOM] = expected
    first = panel.runs[0].name
    for name, evaluation in evaluations.items():
        own = {label: baselines[label] for label in panel.judges.get(name, {}).values()}
        others = own if name == first else {first: evaluations[first], **own}
        for other, judged_by in others.items():
            for metric, row in compare(evaluation, judged_by).items():
                numbers = (row["difference"], row["low"], row["high"], row["p_value"])
                panel.comparisons.append(Comparison(name, other, metric, *numbers))
