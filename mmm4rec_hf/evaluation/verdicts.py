"""What a paired test says in words: of a run against the best of its baselines, or against another run."""

from collections.abc import Mapping

from .evaluator import Evaluation, compare
from .significance import has_width
from .yardsticks import COOCCURRENCE, POPULARITY

_VERDICTS = {
    "may be chance": "may be chance",
    "better, by more than chance": "is more than chance",
    "worse, by more than chance": "is more than chance, to the worse",
}


def metric_title(metric: str) -> str:
    """`ndcg@10` as it is written: `NDCG@10`."""
    return metric.upper() if "@" in metric else metric


def p_value(p: float) -> str:
    """A p value, as far as 10,000 draws tell it."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def verdict(difference: float, p: float) -> str:
    """What a paired test says, in words."""
    if p >= 0.05:
        return "may be chance"
    return f"{'better' if difference > 0 else 'worse'}, by more than chance"


def sentence(metric: str, value: float, other: str, other_value: float, test: Mapping[str, float]) -> str:
    """
    A comparison as one sentence.

    Args:
        metric (`str`): Such as `ndcg@10`.
        value (`float`): Of the run that is judged.
        other (`str`): What it is judged by: `"the best baseline, popularity,"`.
        other_value (`float`): Of that.
        test (`Mapping[str, float]`): `difference`, `low`, `high` and `p_value`, as [`compare`] gives them.
    """
    difference, p = test["difference"], test["p_value"]
    equals = p_value(p) if p < 0.001 else f"= {p_value(p)}"
    ends = f" ({test['low']:+.4f} to {test['high']:+.4f})" if has_width(test["low"], test["high"]) else ""
    return (
        f"{metric_title(metric)} is {value:.4f}, that of {other} {other_value:.4f}: the difference of "
        f"{difference:+.4f}{ends} {_VERDICTS[verdict(difference, p)]}, "
        f"p {equals}."
    )


def best_name(values: Mapping[str, float]) -> str | None:
    """The name with the largest value, `None` of none."""
    return max(values, key=lambda name: values[name], default=None)


def deciding_metric(evaluation: Evaluation, other: Evaluation | None = None) -> str:
    """NDCG@10, or where that was not asked for, of both, NDCG at the first cut-off that was."""
    ks = [k for k in evaluation.protocol["ks"] if other is None or k in other.protocol["ks"]]
    return f"ndcg@{10 if 10 in ks else ks[0]}"


def what_to_try(
    evaluation: Evaluation, baselines: Mapping[str, Evaluation], options: Mapping[str, bool]
) -> str | None:
    """
    What to train next where the best baseline, one that counts, is not beaten.

    Args:
        evaluation (`Evaluation`): The run's.
        baselines (`Mapping[str, Evaluation]`): Of the same targets, by name.
        options (`Mapping[str, bool]`): `use_cooccurrence` and `use_item_bias` of the model.

    Returns:
        `str`, *optional*: A sentence.
    """
    metric, best = _best_baseline(evaluation, baselines)
    # Without a baseline there is none that counts.
    if best not in (POPULARITY, COOCCURRENCE) or evaluation.metrics[metric] > baselines[best].metrics[metric]:
        return None
    off = [f"model.{name}=true" for name, is_on in options.items() if not is_on]
    if not off:
        return None
    return f"What the log counts says more here than texts and pictures: train with {' '.join(off)}, too."


def against_best(
    evaluation: Evaluation,
    baselines: Mapping[str, Evaluation],
    tests: Mapping[str, Mapping[str, Mapping[str, float]]] | None = None,
) -> str | None:
    """
    A run against the best of its baselines, as one sentence.

    Args:
        evaluation (`Evaluation`): The run's.
        baselines (`Mapping[str, Evaluation]`): Of the same targets, by name.
        tests (`Mapping[str, dict]`, *optional*): What [`compare`] gave for each, where it was asked before.

    Returns:
        `str`, *optional*: By the [`deciding_metric`]; `None` without a baseline.
    """
    metric, best = _best_baseline(evaluation, baselines)
    if best is None:
        return None
    test = compare(evaluation, baselines[best]) if tests is None else tests[best]
    other = baselines[best].metrics[metric]
    return sentence(metric, evaluation.metrics[metric], f"the best baseline, {best},", other, test[metric])


def _best_baseline(evaluation: Evaluation, baselines: Mapping[str, Evaluation]) -> tuple[str, str | None]:
    """The deciding metric, and the name of the baseline that is best by it, `None` of none."""
    metric = deciding_metric(evaluation)
    return metric, best_name({name: baseline.metrics[metric] for name, baseline in baselines.items()})
