"""The result of one run, as every command of the quality study writes and reads it: one JSON file a run.

    {
      "data": "movies_b",                   # a folder of ../shared/data
      "model": "sasrec",
      "options": {"hidden_size": 64, ...},  # all that was chosen for the run
      "seed": 0,                            # null where nothing is drawn
      "command": "python benchmarks/...",
      "date": "2026-11-26",
      "machine": "2 cores of an AMD EPYC, no GPU",
      "split": {
        "validation": {
          "metrics": {"hr@10": 0.12, "ndcg@10": 0.06, ..., "loss": 6.1},   # loss: cross entropy in nats, or absent
          "larger": [3, 0, ...],            # items with a larger score than the user's target
          "equal": [1, 1, ...]              # items with an equal score, the target included
        },
        "test": {...}                       # absent in a run that only tunes
      },
      "curve": [{"step": 40, "epoch": 1.0, "seconds": 2.3, "validation": {"ndcg@10": 0.05, "loss": 6.3}}, ...]
    }

`larger` and `equal` are the two columns of `ranking_counts`, a user each, in the order of the prepared sequences' rows
(`sequences["test"]`), so that any metric, of any group of users, and any paired test follow from the file. `seconds`
count training alone, from its start. `curve` is empty where nothing is trained in steps. A run may hold further keys,
such as `parameters` and `tuning` (a list of what was tried on validation: `options` and `metrics` each).
"""

import json
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.append(str(Path(__file__).parents[1]))
from machine import command_line, machine_class  # noqa: E402

from mmm4rec_hf.data import SequenceDatasets, load_interactions, prepare_sequences
from mmm4rec_hf.evaluation import metrics_from_counts
from mmm4rec_hf.evaluation.metrics import metric_values
from mmm4rec_hf.outputs import replace_file

RESULTS = Path(__file__).parent / "results"
DATA = Path(os.environ.get("MMM4REC_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
# Events of a history that every method may look at.
LENGTH = 20
KEYS = ("data", "model", "options", "seed", "command", "date", "machine", "split", "curve")
# A set of items that this share of the users hold, and nothing else, is a bundle.
BUNDLE_SHARE = 0.05


def prepare(name: str) -> SequenceDatasets:
    """
    The sequences of a folder of data as every run takes them: 5-core, leave-one-out in time order.

    Args:
        name (`str`): The folder, below `../shared/data` or what `MMM4REC_TEST_DATA` names.

    Raises:
        FileNotFoundError: If there is no such data.
    """
    log = DATA / name / "interactions.csv"
    if not log.is_file():
        raise FileNotFoundError(f"{log} is not there; set MMM4REC_TEST_DATA to the folder that holds {name}/")
    return prepare_sequences(load_interactions(log), k_core=5)


def make_run(
    data: str,
    model: str,
    options: Mapping[str, Any],
    splits: Mapping[str, Mapping[str, Any]],
    *,
    seed: int | None = None,
    curve: Sequence[Mapping[str, Any]] = (),
    command: str | None = None,
    **more: Any,
) -> dict[str, Any]:
    """
    A run as it is written.

    Args:
        data (`str`): The folder of data.
        model (`str`): What was run.
        options (`Mapping`): All that was chosen for it.
        splits (`Mapping`): `"validation"` and `"test"`, or one of them, as [`make_split`] gives them.
        seed (`int`, *optional*): Of the run.
        curve (`Sequence[Mapping]`, *optional*): A point an evaluation.
        command (`str`, *optional*): What repeats it; by default the command line of this process.
        more: Further keys.
    """
    return {
        "data": data,
        "model": model,
        "options": dict(options),
        "seed": seed,
        "command": command or command_line(),
        "date": date.today().isoformat(),
        "machine": machine_class(),
        **more,
        "split": {name: dict(split) for name, split in splits.items()},
        "curve": [dict(point) for point in curve],
    }


def make_split(counts: np.ndarray | torch.Tensor, loss: float | None = None) -> dict[str, Any]:
    """
    Metrics and ranks of one split.

    Args:
        counts (`np.ndarray` or `torch.Tensor` of shape `(num_users, 2)`): As `ranking_counts` gives them, in the order
            of the split's rows.
        loss (`float`, *optional*): Mean cross entropy of the targets over all items, in nats.
    """
    counts = np.asarray(counts)
    metrics = metrics_from_counts(counts) | ({} if loss is None else {"loss": float(loss)})
    return {"metrics": metrics, "larger": counts[:, 0].tolist(), "equal": counts[:, 1].tolist()}


def write_run(path: str | os.PathLike[str], run: Mapping[str, Any]) -> None:
    """
    Writes a run, whole or not at all; a key a line, and a point of the curve a line, so that changes can be read.

    Raises:
        ValueError: If a key of the layout is missing, or a split's `larger` and `equal` differ in length.
    """
    _check(run, str(path))
    lines = []
    for key, value in run.items():
        if key in ("curve", "split", "tuning") and value:
            lines.append(f" {json.dumps(key)}: {_lines(value)}")
        else:
            lines.append(f" {json.dumps(key)}: {json.dumps(value)}")
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with replace_file(target) as partial:
        partial.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def _lines(value: Any) -> str:
    """JSON with an entry a line."""
    if isinstance(value, Mapping):
        inside = ",\n".join(f"  {json.dumps(key)}: {json.dumps(entry)}" for key, entry in value.items())
        return f"{{\n{inside}\n }}"
    inside = ",\n".join(f"  {json.dumps(entry)}" for entry in value)
    return f"[\n{inside}\n ]"


def read_run(path: str | os.PathLike[str]) -> dict[str, Any]:
    """
    Reads what [`write_run`] wrote.

    Raises:
        ValueError: If the file holds something else.
    """
    try:
        run = json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no JSON ({error}); remove it and run its command again") from error
    _check(run, str(path))
    return run


def read_runs(folder: str | os.PathLike[str] = RESULTS, pattern: str = "*.json") -> list[dict[str, Any]]:
    """The runs of a folder's files, in the order of their names."""
    return [read_run(path) for path in sorted(Path(folder).glob(pattern))]


def _check(run: Any, name: str) -> None:
    missing = [key for key in KEYS if key not in run] if isinstance(run, Mapping) else list(KEYS)
    if missing:
        raise ValueError(
            f"{name} is no result of a run: {', '.join(missing)} missing; see benchmarks/quality/run_files.py"
        )
    for split, numbers in run["split"].items():
        if len(numbers["larger"]) != len(numbers["equal"]):
            raise ValueError(
                f"{name}: {split} has {len(numbers['larger'])} users in larger and {len(numbers['equal'])} in equal"
            )


def counts_of(run: Mapping[str, Any], split: str = "test") -> np.ndarray:
    """The ranks of a split as `ranking_counts` gave them, int64 of shape `(num_users, 2)`."""
    numbers = run["split"][split]
    return np.stack([numbers["larger"], numbers["equal"]], axis=1).astype(np.int64)


def metrics_of(run: Mapping[str, Any], split: str = "test", users: np.ndarray | None = None) -> dict[str, float]:
    """
    Metrics of a split's users, or of some of them.

    Args:
        run (`Mapping`): What [`read_run`] gave.
        split (`str`, *optional*, defaults to `"test"`): Which.
        users (`np.ndarray` of shape `(num_users,)`, *optional*): Whether each user counts.
    """
    counts = counts_of(run, split)
    return metrics_from_counts(counts if users is None else counts[users])


def values_of(run: Mapping[str, Any], metric: str = "ndcg@10", split: str = "test") -> np.ndarray:
    """One metric of each user, float64 of shape `(num_users,)`, for paired tests and intervals."""
    return metric_values(counts_of(run, split), [int(metric.rpartition("@")[2])])[metric]


def bundle_users(sequences: SequenceDatasets, near: bool = False) -> np.ndarray:
    """
    Which users bought a bundle: the seven nail polishes of `beauty`.

    378 of the 1,404 users of its 5-core hold these seven items and nothing else, all in one order, and six of the
    seven have the same text. Whether a model knows this one sequence decides a quarter of the mean, so metrics are
    given without these users too. They are found by what is in the sequences: the set of items that most users hold,
    and nothing else, if at least 5% of the users do. In other data there is none.

    Args:
        sequences (`SequenceDatasets`): Split by leave-one-out: one test row a user.
        near (`bool`, *optional*, defaults to `False`):
            Whether users with more than half of the bundle's items, whatever else they hold, count as well: 438 in
            `beauty`.

    Returns:
        `np.ndarray` of shape `(num_users,)`: Of the test split's rows.
    """
    sets = [frozenset([*map(int, row["input_ids"]), int(row["labels"])]) for row in sequences["test"]]
    bundle, times = Counter(sets).most_common(1)[0]
    if times < BUNDLE_SHARE * len(sets) or times == 1:
        return np.zeros(len(sets), dtype=bool)
    return np.array([2 * len(items & bundle) > len(bundle) if near else items == bundle for items in sets])


def parts_of_users(data: str) -> dict[str, np.ndarray]:
    """Whether each user of a data set counts, for each part that is told: all of them, and those beside a bundle."""
    bundle = bundle_users(prepare(data))
    parts = {data: np.ones(len(bundle), dtype=bool)}
    return parts | ({f"{data} without its bundle": ~bundle} if bundle.any() else {})


def user_means(runs: Sequence[Mapping[str, Any]], metric: str) -> np.ndarray:
    """A metric of each user, the mean over the seeds of a method."""
    return np.mean([values_of(run, metric) for run in runs], axis=0)
