"""What the folder of a run holds: its recipe, its log, its evaluation and its cost."""

import json
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmm4rec_hf.evaluation.evaluator import Evaluation
from mmm4rec_hf.evaluation.yardsticks import load_baselines
from mmm4rec_hf.plain_json import read_object
from mmm4rec_hf.saved_models import CONFIG_NAME, MODEL_NAME
from mmm4rec_hf.training.folders import CHECKPOINTS_NAME, EVALUATION_NAME, LOG_NAME, RECIPE_NAME
from mmm4rec_hf.training.record import RECORD_NAME
from mmm4rec_hf.training.resuming import STATE_NAME

METRICS_NAME, TARGETS_NAME = "metrics.json", "targets.parquet"
RANDOM = "random order"  # what chance is called in a report
# Steps of the optimizer and a value at each.
Points = list[tuple[int, float]]


@dataclass(frozen=True)
class Curves:
    """
    What a run logged.

    Args:
        training_loss (`list`): Pairs of a step and the loss.
        validation (`dict`): By domain (`""` where there is one), by metric: pairs of a step and a value.
    """

    training_loss: Points = field(default_factory=list)
    validation: dict[str, dict[str, Points]] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """
    A run, as far as its folder tells.

    Args:
        name (`str`): Told apart from the other runs of a report.
        folder (`Path`): Where it lies.
        kind (`str`): `"fine-tuning"`, `"pretraining"`, `"training"` (by the trainer in Python) or `"evaluation"`.
        recipe (`dict`): What it did; empty where there is none.
        record (`dict`): Of [`RunRecord`]; empty where there is none.
        curves (`Curves`): What it logged.
        evaluation (`Evaluation`, *optional*): With the rank of every target.
        baselines (`dict[str, Evaluation]`): On the same targets.
        tables (`dict[str, dict[str, float]]`): Metrics of which the mean alone was kept, by what was measured.
        config (`dict`): Of the saved model; empty where there is none.
    """

    name: str
    folder: Path
    kind: str
    recipe: dict[str, Any] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)
    curves: Curves = field(default_factory=Curves)
    evaluation: Evaluation | None = None
    baselines: dict[str, Evaluation] = field(default_factory=dict)
    tables: dict[str, dict[str, float]] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def kept_step(self) -> int | None:
        """`int`, *optional*: The step of the weights that were kept."""
        return self.record.get("kept")


def read_runs(folders: Sequence[str | os.PathLike[str]]) -> list[Run]:
    """
    Reads runs.

    Args:
        folders (`Sequence[str]`): One or more, see [`read_run`].

    Returns:
        `list[Run]`: In the given order, each with a name of its own, which no baseline has: the end of its path.

    Raises:
        FileNotFoundError, ValueError: As [`read_run`], and for a folder given twice.
    """
    paths = [Path(folder).resolve() for folder in folders]
    for place, path in enumerate(paths):
        if path in paths[:place]:
            raise ValueError(f"the run {folders[place]} was given twice; name each run once")
    runs = [read_run(folder) for folder in folders]
    taken = {RANDOM, *(name for run in runs for name in run.baselines)}
    return [replace(run, name=name) for run, name in zip(runs, _names(paths, taken), strict=True)]


def read_run(folder: str | os.PathLike[str], name: str | None = None) -> Run:
    """
    Reads the folder of a fine-tuning, a pretraining, a training with [`MMM4RecTrainer`], or an evaluation.

    Args:
        folder (`str` or `os.PathLike`): The `output_dir` of a run, or the `--output` of `mmm4rec evaluate`.
        name (`str`, *optional*): How the report calls it; by default as the folder.

    Raises:
        FileNotFoundError: If the folder is not there.
        ValueError: If it holds none of these, or a file of it is damaged.
    """
    path = Path(folder)
    if not path.is_dir():
        raise FileNotFoundError(f"no such folder: {path}")
    name = path.resolve().name if name is None else name
    if (path / TARGETS_NAME).is_file():
        evaluation = Evaluation.load(path)
        return Run(name, path, "evaluation", evaluation=evaluation, baselines=load_baselines(path, evaluation))
    recipe, record = _read_json(path / RECIPE_NAME), _read_json(path / RECORD_NAME)
    if (path / LOG_NAME).is_file():
        log = _read_lines(path / LOG_NAME)
        return _run(
            name,
            path,
            "pretraining",
            recipe,
            record,
            _curves_of(log, _named_by_pretraining),
            _kept_metrics(log, record, recipe),
        )
    log = record.get("log") or _log_of_trainer(path)
    tables = _trainer_tables(path)
    if not (record or recipe or log or tables):
        raise ValueError(
            f"{path} holds no run; name the output_dir of finetune, pretrain or MMM4RecTrainer, or the --output of "
            "mmm4rec evaluate"
        )
    kind = record.get("kind") or ("pretraining" if "domains" in recipe else "fine-tuning" if recipe else "training")
    return _run(name, path, kind, recipe, record, _curves_of(log, _named_by_trainer), tables)


def _run(
    name: str,
    path: Path,
    kind: str,
    recipe: dict[str, Any],
    record: dict[str, Any],
    curves: Curves,
    tables: dict[str, dict[str, float]],
) -> Run:
    evaluation, baselines = None, {}
    if (path / EVALUATION_NAME / TARGETS_NAME).is_file():
        evaluation = Evaluation.load(path / EVALUATION_NAME)
        baselines = load_baselines(path / EVALUATION_NAME, evaluation)
    config = _read_json(path / MODEL_NAME / CONFIG_NAME) or _read_json(path / CONFIG_NAME)
    return Run(name, path, kind, recipe, record, curves, evaluation, baselines, tables, config)


def _names(paths: Sequence[Path], taken: Collection[str]) -> list[str]:
    """The last part of each path, with as many parts before it as tell all apart, and from what is `taken`."""
    for parts in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-parts:]) for path in paths]
        if len(set(names)) == len(names) and not set(names) & set(taken):
            break
    return names


def _curves_of(log: Iterable[Mapping[str, Any]], name_of: Callable[[str], tuple[str, str] | None]) -> Curves:
    """The curves of a log; `name_of` tells domain and metric of an entry's key that is a validation's."""
    curves = Curves()
    for entry in log:
        step = int(entry["step"])
        if "loss" in entry:
            curves.training_loss.append((step, float(entry["loss"])))
        for key, value in entry.items():
            if (name := name_of(key)) is not None:
                _add(curves, *name, step, value)
    return curves


def _named_by_trainer(key: str) -> tuple[str, str] | None:
    is_metric = key.startswith("eval_") and ("@" in key or key == "eval_loss")
    return ("", key.removeprefix("eval_")) if is_metric else None


def _named_by_pretraining(key: str) -> tuple[str, str] | None:
    domain, slash, metric = key.rpartition("/")
    return (domain, metric) if slash else None


def _add(curves: Curves, domain: str, metric: str, step: int, value: float) -> None:
    curves.validation.setdefault(domain, {}).setdefault(metric, []).append((step, float(value)))


def _kept_metrics(
    log: Sequence[Mapping[str, Any]], record: Mapping[str, Any], recipe: Mapping[str, Any]
) -> dict[str, dict[str, float]]:
    """The validation metrics of each domain at the step of the weights that were kept, by now or in the end."""
    validations = [entry for entry in log if any("/" in key for key in entry)]
    kept = [entry for entry in validations if entry["step"] == record.get("kept")]
    if not kept:
        if recipe.get("metric_for_best_model") == "loss":
            best = min(validations, key=_sum_of_losses, default=None)
        else:
            best = max(validations, key=lambda entry: entry.get("ndcg@10", 0.0), default=None)
        kept = [] if best is None else [best]
    tables: dict[str, dict[str, float]] = {}
    for key, value in kept[0].items() if kept else ():
        domain, slash, metric = key.rpartition("/")
        if slash:
            tables.setdefault(f"validation of {domain}", {})[metric] = value
    return tables


def _sum_of_losses(validation: Mapping[str, Any]) -> float:
    return sum(value for key, value in validation.items() if key.endswith("/loss"))


def _log_of_trainer(path: Path) -> list[dict[str, Any]]:
    """The log of transformers' trainer, out of the newest checkpoint where it was not saved by itself."""
    folders = [path, *_checkpoints(path), *_checkpoints(path / CHECKPOINTS_NAME)]
    for folder in folders:
        state = _read_json(folder / STATE_NAME)
        if state:
            return state["log_history"]
    return []


def _checkpoints(path: Path) -> list[Path]:
    """The newest first."""
    found = [folder for folder in path.glob("checkpoint-*") if folder.name.rpartition("-")[2].isdecimal()]
    return sorted(found, key=lambda folder: int(folder.name.rpartition("-")[2]), reverse=True)


def _trainer_tables(path: Path) -> dict[str, dict[str, float]]:
    """The last evaluation of each split by the trainer; metrics alone."""
    tables = {}
    for split, entry in _read_json(path / METRICS_NAME).items():
        if not isinstance(entry, dict) or "metrics" not in entry:
            raise ValueError(f"{path / METRICS_NAME} is not as the trainer writes it; evaluate again")
        tables[f"{split} split"] = {name: value for name, value in entry["metrics"].items() if "@" in name}
    return tables


def _read_json(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is no such file."""
    return read_object(path) if path.is_file() else {}


def _read_lines(path: Path) -> list[dict[str, Any]]:
    # The last line of a run that writes at this moment may be cut off.
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
