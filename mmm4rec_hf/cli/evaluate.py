"""`mmm4rec evaluate`: a saved model on a split, with intervals, subgroups and paired tests."""

import argparse
import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..plain_json import read_object
from ..saved_models import find_model
from .output import add_json_option, hide_bars_without_terminal, print_json, print_table
from .running import UsageError

if TYPE_CHECKING:
    from ..evaluation.evaluator import Evaluation
    from ..items import ItemCatalog
    from ..modeling import MMM4RecConfig

# A share of targets; with more that tie there is something to be done.
_FEW_TIES = 0.05
_NO_INTERVAL = "-"
GROUP_TITLES = {
    "history_length": "events in the history",
    "target_popularity": "target (head: the items that make half of the training events)",
    "target_modalities": "what is known of the target",
}


def add_parser(subparsers: Any) -> None:
    """Adds `evaluate` to the command's parser."""
    parser = subparsers.add_parser(
        "evaluate",
        help="measure a saved model on a split",
        description=(
            "Reads a model's folder (or its Hub name) and the sequences that `prepare` wrote, ranks each target among "
            "all items, and prints HR, NDCG and MRR with 95% intervals over users, and the protocol. Ties count by "
            "their expectation over a random order."
        ),
        epilog=(
            "examples:\n"
            "  mmm4rec evaluate run/model sequences --subgroups --baselines --output evaluation\n"
            "  mmm4rec evaluate other/model sequences --compare evaluation"
        ),
    )
    parser.add_argument("model", help="what `finetune` wrote (its folder, or model/ in it), or a Hub name")
    parser.add_argument("data", type=Path, help="the folder that `prepare` wrote")
    parser.add_argument("--split", default="test", help="train, validation or test (default: %(default)s)")
    parser.add_argument("--ks", default="10,20,50", help="the cut-offs (default: %(default)s)")
    parser.add_argument("--exclude-history", action="store_true", help="leave the history's items out of the ranking")
    parser.add_argument("--subgroups", action="store_true", help="also by history, popularity and missing modality")
    parser.add_argument(
        "--baselines", action="store_true", help="also popularity, co-occurrence and similar text, paired by user"
    )
    parser.add_argument(
        "--catalog", type=Path, help="says which items lack a text or picture (default: the model's own)"
    )
    parser.add_argument(
        "--output", "-o", type=Path, help="a folder for metrics.json and each target's ranks; `report` reads it"
    )
    parser.add_argument("--compare", type=Path, metavar="FOLDER", help="the --output of another run: a paired test")
    parser.add_argument("--batch-size", type=int, default=256, help="users scored at once (default: %(default)s)")
    parser.add_argument("--device", help="cpu, cuda, ... (default: an accelerator where there is one)")
    add_json_option(parser)


def run(args: argparse.Namespace) -> None:
    """Runs `mmm4rec evaluate`."""
    ks = _cut_offs(args.ks)
    args.model = find_model(args.model)
    hide_bars_without_terminal()

    from ..data import SequenceDatasets
    from ..evaluation.evaluator import Evaluation, compare, evaluate_model
    from ..evaluation.protocol import describe, read_preparation
    from ..evaluation.significance import COMPARISON_WORDS
    from ..evaluation.verdicts import deciding_metric, sentence
    from ..evaluation.yardsticks import evaluate_baselines
    from ..modeling import MMM4RecForSequentialRecommendation
    from ..processes import local_device

    other = None if args.compare is None else Evaluation.load(args.compare)
    if other is not None:
        _check_cut_offs(ks, other, args)
    model = MMM4RecForSequentialRecommendation.from_pretrained(args.model)
    model.to(args.device or local_device())
    sequences, catalog = SequenceDatasets.load_from_disk(args.data), _catalog(args)
    if model.item_ids is not None and (missing := sequences.unknown_items(model.item_ids)):
        raise ValueError(_why_unknown(args, missing))
    evaluation = evaluate_model(
        model,
        sequences,
        args.split,
        catalog=catalog,
        ks=ks,
        batch_size=args.batch_size,
        exclude_history=args.exclude_history,
        prepared=read_preparation(args.data),
    )
    comparison = None if other is None else compare(evaluation, other)
    baselines: dict[str, Evaluation] = {}
    if args.baselines:
        assert model.item_ids is not None  # else evaluate_model had refused
        text = None if catalog is None else catalog.select(model.item_ids).text_features
        baselines = evaluate_baselines(evaluation, sequences, model.item_ids, text)
    if args.output is not None:
        evaluation.save(args.output, baselines)
    against = {name: compare(evaluation, baseline) for name, baseline in baselines.items()}
    if args.json:
        parts = {} if comparison is None else {"comparison": comparison}
        found = {
            name: {"metrics": baseline.metrics, "comparison": against[name]} for name, baseline in baselines.items()
        }
        print_json(evaluation.to_dict() | parts | ({"baselines": found} if found else {}))
        return
    print(f"{args.model}: {describe(evaluation.protocol)}.\n")
    print_metrics(evaluation, model.config.use_item_bias)
    if args.subgroups:
        _print_subgroups(evaluation)
    for name, rows in against.items():
        _print_comparison(rows, baselines[name], f"ranking by {name}")
    if comparison is not None and other is not None:
        _print_comparison(comparison, other, str(args.compare))
    if against or comparison is not None:
        print(f"\n{COMPARISON_WORDS[:1].upper()}{COMPARISON_WORDS[1:]}.")
    # Last, where it is read: how the model did.
    print_against_best(evaluation, baselines, model.config, against)
    if comparison is not None and other is not None:
        metric = deciding_metric(evaluation, other)
        values = (evaluation.metrics[metric], str(args.compare), other.metrics[metric])
        print(f"\n{sentence(metric, *values, comparison[metric])}")


def _why_unknown(args: argparse.Namespace, missing: list[str]) -> str:
    """What to say of sequences with items that the model lacks, by what is known of those that it was trained on."""
    from ..data.sequence_datasets import shown_ids
    from ..evaluation.protocol import k_core_of, read_preparation
    from ..training.folders import EVALUATION_NAME
    from ..training.record import RECORD_NAME
    from ..training.saving import CATALOG_NAME

    run, trained = Path(args.model).parent, {"folder": "", "k_core": ""}
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        trained["folder"] = read_object(run / RECORD_NAME)["data"]["folder"]
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        metrics = read_object(run / EVALUATION_NAME / "metrics.json")
        trained["k_core"] = metrics["protocol"]["prepared"]["k_core"]
    other = f" ({trained['folder']} as it was" if trained["folder"] else ""
    as_then = ""
    if trained["k_core"] not in ("", read_preparation(args.data).get("k_core")):
        other += f"{', ' if other else ' ('}prepared with k_core={trained['k_core']}"
        as_then = f"with --k-core {trained['k_core']} as then, or "
    other += ")" if other else ""
    items = Path(args.model) / CATALOG_NAME
    alone = f"--items {items if items.is_dir() else 'CATALOG'}"
    return (
        f"{args.data}{k_core_of(args.data)} holds {len(missing)} items with events that the model {args.model} does "
        f"not know: {shown_ids(missing)}; it was trained on other sequences{other}: evaluate it on those, or prepare "
        f"them again, {as_then}with the model's items alone, {alone}"
    )


def _cut_offs(text: str) -> list[int]:
    try:
        return [int(k) for k in text.split(",")]
    except ValueError as error:
        raise UsageError(f"--ks must be whole numbers such as 10,20,50, got {text!r}") from error


def _check_cut_offs(ks: list[int], other: "Evaluation", args: argparse.Namespace) -> None:
    """Refuses two evaluations that no metric can compare."""
    others = other.protocol["ks"]
    if not set(ks) & set(others):
        known = ",".join(map(str, others))
        raise UsageError(
            f"--compare {args.compare} was measured at the cut-offs {known}, none of which is in --ks {args.ks}: "
            f"give --ks {known} as well"
        )


def _catalog(args: argparse.Namespace) -> "ItemCatalog | None":
    from ..items import ItemCatalog
    from ..training.saving import CATALOG_NAME

    own = Path(args.model) / CATALOG_NAME
    folder = args.catalog or (own if own.is_dir() else None)
    return None if folder is None else ItemCatalog.from_pretrained(folder)


def print_metrics(evaluation: "Evaluation", use_item_bias: bool) -> None:
    """
    Prints the metrics of all targets with their intervals, and what they mean.

    Args:
        evaluation (`Evaluation`): Of a model.
        use_item_bias (`bool`): Whether that learned a vector an item, which tells items of the same texts apart.
    """
    metrics, intervals = evaluation.metrics, evaluation.intervals()
    rows = [[name, f"{metrics[name]:.4f}", _interval(low, high)] for name, (low, high) in intervals.items()]
    rows += [[name, f"{share:.4f}", ""] for name, share in evaluation.coverage.items()]
    print_table(["", "mean", "95% interval"], rows)
    _print_without_interval(rows)
    if evaluation.coverage:
        print("coverage@K: the share of all items that stand among the first K of someone.")
    targets, tied, users = metrics["targets"], metrics["tied_targets"], metrics["users"]
    of_users = "" if users == targets else f" of {users:,} users"
    level = "have the same score as another item" if tied != 1 else "has the same score as another item"
    told = f"{targets:,} targets{of_users}, {tied:,} of them {level}"
    print(f"\n{told}; such a tie counts by its average over a random order.")
    if tied > _FEW_TIES * targets and not use_item_bias:
        print("Items of the same texts and pictures cannot be told apart: train with model.use_item_bias=true, which")
        print("learns a vector an item, or encode with more fields (mmm4rec encode --text-fields).")
    skipped = evaluation.protocol["users_without_target"]
    if skipped:
        print(f"{skipped:,} users have no target in this split, or nothing before it, and do not count.")


def print_against_best(
    evaluation: "Evaluation",
    baselines: Mapping[str, "Evaluation"],
    config: "MMM4RecConfig",
    tests: Mapping[str, Mapping[str, Mapping[str, float]]] | None = None,
) -> None:
    """
    Prints how a model did against the best of its baselines, if there are any, and what to try where it lost.

    Args:
        evaluation (`Evaluation`): Of a model.
        baselines (`Mapping[str, Evaluation]`): By name.
        config ([`MMM4RecConfig`]): The model's.
        tests (`Mapping[str, dict]`, *optional*): What [`compare`] gave for each, where it was asked before.
    """
    from ..evaluation.verdicts import against_best, what_to_try

    against = against_best(evaluation, baselines, tests)
    if against is None:
        return
    print(f"\n{against}")
    learned = {"use_cooccurrence": config.use_cooccurrence, "use_item_bias": config.use_item_bias}
    hint = what_to_try(evaluation, baselines, learned)
    if hint is not None:
        print(hint)


def _print_subgroups(evaluation: "Evaluation") -> None:
    for column, groups in evaluation.subgroups().items():
        names = [name for name in next(iter(groups.values())) if name != "targets"]
        rows = [
            [group, f"{values['targets']:,}", *(f"{values[name]:.4f}" for name in names)]
            for group, values in groups.items()
        ]
        print(f"\nBy {GROUP_TITLES[column]}:")
        print_table(["", "targets", *names], rows)


def _print_comparison(comparison: dict[str, dict[str, float]], other: "Evaluation", title: str) -> None:
    """What the other one comes to by itself, and how far the model is from it."""
    rows = [
        [
            name,
            f"{other.metrics[name]:.4f}",
            f"{row['difference']:+.4f}",
            _interval(row["low"], row["high"], "+"),
            f"{row['p_value']:.4f}",
        ]
        for name, row in comparison.items()
    ]
    print(f"\nMinus {title}, paired by user:")
    print_table(["", "its mean", "difference", "95% interval", "p"], rows)
    _print_without_interval(rows)


def _interval(low: float, high: float, sign: str = "") -> str:
    from ..evaluation.significance import has_width

    return f"{low:{sign}.4f} - {high:{sign}.4f}" if has_width(low, high) else _NO_INTERVAL


def _print_without_interval(rows: list[list[str]]) -> None:
    """Says why intervals are missing, where any are."""
    from ..evaluation.significance import NO_INTERVAL_WORDS

    if any(_NO_INTERVAL in row for row in rows):
        print(f"{_NO_INTERVAL}: {NO_INTERVAL_WORDS}.")
