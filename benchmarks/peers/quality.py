"""SASRec and GRU4Rec of RecBole on real data, tuned on validation: what item ids alone reach with attention and a GRU.

    python benchmarks/peers/quality.py                                # movies_b, beauty and movies_a
    python benchmarks/peers/quality.py --data beauty --models gru4rec --trials 4 --seeds 1

README.md beside says how to make the environment. The split and the ranking are those of every method of
benchmarks/quality: 5-core, leave-one-out in time order, the last 20 events, full ranking, nothing masked, ties by
expectation. Full cross entropy, Adam, hidden size 64. `--targets all` (the default) has a target at every position of
windows of 20 events, as both models were published; `--targets last` has a history and one target a row, as RecBole
trains, at nine times the cost of an epoch. Learning rate, dropout, layers and weight decay are chosen among the
defaults and random draws, `--trials` in all, with seed 0; then seeds 0 to `--seeds` - 1 run with the best. Options and
epoch are those with the least cross entropy on validation: by NDCG@10 a few hundred users choose noise, often one of
the first epochs, that does worse on test. What the epoch with the largest NDCG@10 has is `validation_by_ndcg` and
`test_by_ndcg` in a result.

A result a seed goes to benchmarks/quality/results, a trial to `--work`, in the form of run_files.py. What is there is
kept, so that a stopped run goes on.
"""

import argparse
import random
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from peer_models import Rows, rows_of, windows_of
from peer_training import Options, Point, Trained, evaluate, train

sys.path.append(str(Path(__file__).parents[1] / "quality"))
from run_files import RESULTS, bundle_users, make_run, make_split, metrics_of, prepare, read_run, write_run  # noqa: E402

from mmm4rec_hf.data import SequenceDatasets  # noqa: E402

WORK = Path(__file__).resolve().parents[2] / ".cache" / "peers"
TRIALS, SEEDS = 8, 5
SPACE: dict[str, list[Any]] = {
    "learning_rate": [3e-4, 1e-3, 3e-3],
    "dropout": [0.1, 0.2, 0.3, 0.5],
    "layers": [1, 2],
    "weight_decay": [0.0, 1e-6, 1e-5, 1e-4],
}
# The trial that is always made: RecBole's numbers of layers, and a dropout that small data needs.
DEFAULTS = {"sasrec": Options(layers=2, dropout=0.5), "gru4rec": Options(layers=1, dropout=0.3)}


class Task:
    """
    One peer on one data set.

    Args:
        data (`str`): The folder of data.
        model (`str`): `"sasrec"` or `"gru4rec"`.
        sequences (`SequenceDatasets`): Of the data.
        arguments (`argparse.Namespace`): Of the command.
    """

    def __init__(self, data: str, model: str, sequences: SequenceDatasets, arguments: argparse.Namespace) -> None:
        self.data, self.model, self.arguments = data, model, arguments
        self.num_items = len(sequences.item_ids)
        self.rows: Rows = windows_of(sequences) if arguments.targets == "all" else rows_of(sequences, "train")
        self.splits = {split: rows_of(sequences, split) for split in ("validation", "test")}

    def options(self) -> list[Options]:
        """The defaults, then different random draws, the same for both models."""
        limits = {"epochs": self.arguments.epochs, "patience": self.arguments.patience}
        limits |= {"hidden_size": self.arguments.hidden_size, "batch_size": self.arguments.batch_size}
        drawn = [replace(DEFAULTS[self.model], **limits)]
        generator = random.Random(0)
        while len(drawn) < self.arguments.trials:
            options = Options(**limits, **{name: generator.choice(values) for name, values in SPACE.items()})
            if options not in drawn:
                drawn.append(options)
        return drawn

    def run(self, options: Options, seed: int) -> dict[str, Any]:
        """Trains with a seed and ranks both splits."""
        trained = train(self.model, self.num_items, self.rows, self.splits["validation"], options, seed)
        splits = {}
        for suffix, point in (("", trained.least_loss), ("_by_ndcg", trained.largest_ndcg)):
            splits |= {f"{split}{suffix}": self._split(trained, point, split) for split in self.splits}
        return make_run(
            self.data, f"recbole_{self.model}", options.to_dict() | {"targets": self.arguments.targets}, splits,
            seed=seed, curve=trained.curve, command=self.command(), parameters=trained.peer.num_parameters(),
            epochs={"least_loss": trained.least_loss.epoch, "largest_ndcg": trained.largest_ndcg.epoch},
        )  # fmt: skip

    def _split(self, trained: Trained, point: Point, split: str) -> dict[str, Any]:
        trained.peer.load_state_dict(point.weights)
        return make_split(*evaluate(trained.peer, self.splits[split]))

    def command(self) -> str:
        """What repeats the runs of this peer on this data."""
        names = ("trials", "seeds", "targets", "hidden_size", "batch_size", "epochs", "patience")
        chosen = [f"--{name.replace('_', '-')} {getattr(self.arguments, name)}" for name in names]
        script = f"python benchmarks/peers/quality.py --data {self.data} --models {self.model}"
        return " ".join([script, *chosen])

    def trials(self) -> list[dict[str, Any]]:
        """A run for each of the options, those made before read from their files."""
        runs = []
        for number, options in enumerate(self.options()):
            path = self.arguments.work / f"{self.data}-{self.model}-trial{number}.json"
            if not path.exists():
                write_run(path, self.run(options, seed=0))
            runs.append(read_run(path))
            if runs[-1]["options"] != options.to_dict() | {"targets": self.arguments.targets}:
                raise ValueError(f"{path} was made with other options; remove it or name another --work")
            print("trial", number, describe(runs[-1], "validation"), flush=True)
        return runs


def tuning_of(trials: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was tried, for the record."""
    kept = ("ndcg@10", "hr@10", "loss")
    return [
        {
            "options": trial["options"],
            "metrics": {key: trial["split"]["validation"]["metrics"][key] for key in kept},
            "epoch": trial["epochs"]["least_loss"],
        }
        for trial in trials
    ]


def describe(run: Mapping[str, Any], split: str, bundle: Any = None) -> str:
    metrics = run["split"][split]["metrics"]
    chosen = {key: run["options"][key] for key in SPACE}
    line = f"{run['data']} {run['model']} seed {run['seed']}: {split} HR@10 {metrics['hr@10']:.4f}, "
    line += f"NDCG@10 {metrics['ndcg@10']:.4f}, cross entropy {metrics['loss']:.3f}"
    if bundle is not None and bundle.any():
        line += f", NDCG@10 without bundle users {metrics_of(run, split, ~bundle)['ndcg@10']:.4f}"
    return f"{line}, epoch {run['epochs']['least_loss']} of {len(run['curve'])} {chosen}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["movies_b", "beauty", "movies_a"], help="folders of real data")
    parser.add_argument("--models", nargs="+", choices=list(DEFAULTS), default=list(DEFAULTS), metavar="NAME")
    parser.add_argument(
        "--trials", type=int, default=TRIALS, help="options tried on validation (default: %(default)s)"
    )
    parser.add_argument("--seeds", type=int, default=SEEDS, help="runs with the best ones (default: %(default)s)")
    parser.add_argument("--targets", choices=["all", "last"], default="all", help="targets a row of training")
    parser.add_argument("--hidden-size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=32, help="rows a step; 256 suit --targets last")
    parser.add_argument("--epochs", type=int, default=60, help="at most")
    parser.add_argument("--patience", type=int, default=8, help="epochs without a better validation before it stops")
    parser.add_argument("--work", type=Path, default=WORK, help="where trials go")
    parser.add_argument("--output", type=Path, default=RESULTS, help="where results go")
    arguments = parser.parse_args()
    for data in arguments.data:
        sequences = prepare(data)
        for model in arguments.models:
            task = Task(data, model, sequences, arguments)
            paths = [arguments.output / f"peers-{data}-{model}-{seed}.json" for seed in range(arguments.seeds)]
            if not all(path.exists() for path in paths):
                tune_and_run(task, paths)
            for path in paths:
                print(describe(read_run(path), "test", bundle_users(sequences)), flush=True)


def tune_and_run(task: Task, paths: list[Path]) -> None:
    """Writes the results that are not there."""
    trials = task.trials()
    best = min(range(len(trials)), key=lambda n: trials[n]["split"]["validation"]["metrics"]["loss"])
    for seed, path in enumerate(paths):
        if not path.exists():
            run = trials[best] if seed == 0 else task.run(task.options()[best], seed)
            write_run(path, run | {"tuning": tuning_of(trials)})


if __name__ == "__main__":
    main()
