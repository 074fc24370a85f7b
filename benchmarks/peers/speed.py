"""Time of a training epoch: MMM4Rec beside SASRec and GRU4Rec of RecBole, on the same data, sizes and batches.

    python benchmarks/peers/speed.py --json benchmarks/peers/speed.json         # about 10 minutes
    python benchmarks/peers/speed.py --data movies_b --hidden-size 64 --steps 5

README.md beside says how to make the environment. The models take turns, a step each, so that what else the machine
does falls on all of them. A step: the batch made of the data, forward, backward and an Adam update, dropout on; full
cross entropy over the catalogue. Sequences of 20, batches of 256. They do not compute the same thing:

| model | an item is | a row of the batch |
| --- | --- | --- |
| mmm4rec | text (384) and picture (1280) features, projected each step | a history and one target |
| sasrec, gru4rec | a learned vector of its id | a history and one target, as RecBole trains |
| sasrec_all, gru4rec_all | a learned vector of its id | a window of up to 20 events with a target at every position |

An epoch shows every training target once in each form; `_all` does so in far fewer rows. Features are random, as their
values do not change the cost. Two layers of SASRec and one of GRU4Rec, as in RecBole; MMM4Rec's one layer has
heads and states of a quarter of the hidden size.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from peer_models import LENGTH, Rows, rows_of, windows_of
from peer_training import Options, make_peer, train_step
from torch.utils.data import DataLoader

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "quality")]
from machine import command_line, machine_class  # noqa: E402
from run_files import prepare  # noqa: E402

from mmm4rec_hf import MMM4RecConfig, MMM4RecDataCollator, MMM4RecForSequentialRecommendation  # noqa: E402
from mmm4rec_hf.data import SequenceDatasets  # noqa: E402
from mmm4rec_hf.outputs import write_json  # noqa: E402

TEXT_FEATURES, IMAGE_FEATURES = 384, 1280
LAYERS = {"sasrec": 2, "gru4rec": 1}
MODELS = ["mmm4rec", "sasrec", "gru4rec", "sasrec_all", "gru4rec_all"]


@dataclass
class Form:
    """
    A model that trains, and what its steps took.

    Args:
        name (`str`): One of [`MODELS`].
        parameters (`int`): Weights that learn.
        rows (`int`): Rows an epoch.
        steps (`Iterator`): Makes a batch and an update each time it is asked; gives the number of rows.
        seconds (`list[float]`): Of each step that was measured.
        measured (`int`): Rows of these steps.
    """

    name: str
    parameters: int
    rows: int
    steps: Iterator[int]
    seconds: list[float] = field(default_factory=list)
    measured: int = 0

    def step(self, is_measured: bool = True) -> bool:
        """One step; whether there was one left."""
        began = time.perf_counter()
        rows = next(self.steps, 0)
        if rows and is_measured:
            self.seconds.append(time.perf_counter() - began)
            self.measured += rows
        return rows > 0

    def result(self, targets: int) -> dict[str, Any]:
        """`seconds_per_epoch`: of all rows; where not all were measured, in proportion."""
        seconds = sum(self.seconds) * self.rows / self.measured
        return {
            "model": self.name,
            "parameters": self.parameters,
            "rows_per_epoch": self.rows,
            "targets_per_epoch": targets,
            "measured_rows": self.measured,
            "seconds_per_epoch": seconds,
            "targets_per_second": targets / seconds,
            "median_step_seconds": statistics.median(self.seconds),
        }


def make_mmm4rec(sequences: SequenceDatasets, hidden_size: int, batch_size: int) -> Form:
    """MMM4Rec as it comes, at this size; batches through torch's loader and the package's collator."""
    config = MMM4RecConfig(
        hidden_size=hidden_size,
        intermediate_size=hidden_size,
        head_dim=hidden_size // 4,  # 64, the default, at 256; 16 at 64, as in the quality study
        state_size=hidden_size // 4,
        num_items=len(sequences.item_ids),
        text_feature_size=TEXT_FEATURES,
        image_feature_size=IMAGE_FEATURES,
        max_sequence_length=LENGTH,
    )
    model = MMM4RecForSequentialRecommendation(config)
    for features in (model.items.text_features, model.items.image_features):
        features[1:].normal_()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    rows = sequences["train"]
    loader = DataLoader(rows, batch_size, shuffle=True, collate_fn=MMM4RecDataCollator(LENGTH))

    def steps() -> Iterator[int]:
        model.train()
        while True:
            for batch in loader:
                optimizer.zero_grad()
                model(**batch).loss.backward()
                optimizer.step()
                yield len(batch["labels"])

    return Form("mmm4rec", model.num_parameters(only_trainable=True), len(rows), steps())


def make_peer_form(name: str, rows: Rows, num_items: int, hidden_size: int, batch_size: int) -> Form:
    """A peer; `name` ends with `_all` for windows."""
    model = name.removesuffix("_all")
    peer = make_peer(model, num_items, Options(hidden_size=hidden_size, layers=LAYERS[model]))
    optimizer = torch.optim.Adam(peer.parameters(), 1e-3)

    def steps() -> Iterator[int]:
        peer.train()
        while True:
            for places in torch.randperm(len(rows)).split(batch_size):
                train_step(peer, optimizer, rows.select(places))
                yield len(places)

    return Form(name, peer.num_parameters(), len(rows), steps())


def measure(
    sequences: SequenceDatasets, models: list[str], hidden_size: int, batch_size: int, steps: int | None
) -> list[dict[str, Any]]:
    """Results of all models on one data set at one size."""
    torch.manual_seed(0)
    num_items = len(sequences.item_ids)
    rows = {"": rows_of(sequences, "train"), "_all": windows_of(sequences)}
    make: dict[str, Callable[[], Form]] = {"mmm4rec": lambda: make_mmm4rec(sequences, hidden_size, batch_size)}
    for name in MODELS[1:]:
        chosen = rows["_all" if name.endswith("_all") else ""]
        make[name] = lambda name=name, chosen=chosen: make_peer_form(name, chosen, num_items, hidden_size, batch_size)
    forms = [make[name]() for name in models]
    for form in forms:
        form.step(is_measured=False)
    waiting = list(forms)
    while waiting:
        for form in waiting:
            form.step()
        waiting = [form for form in waiting if form.measured < form.rows and len(form.seconds) != steps]
    targets = len(rows[""])
    return [form.result(targets) for form in forms]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["movies_b", "beauty"], help="folders of real data")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS, metavar="NAME")
    parser.add_argument("--hidden-size", nargs="+", type=int, default=[64, 256])
    parser.add_argument("--batch-size", type=int, default=256, help="rows a step (default: %(default)s)")
    parser.add_argument("--steps", type=int, help="how many of an epoch's steps to measure; by default all")
    parser.add_argument("--json", type=Path, help="where to write the result")
    arguments = parser.parse_args()
    found = []
    for data in arguments.data:
        sequences = prepare(data)
        for hidden_size in arguments.hidden_size:
            for row in measure(sequences, arguments.models, hidden_size, arguments.batch_size, arguments.steps):
                found.append({"data": data, "items": len(sequences.item_ids), "hidden_size": hidden_size} | row)
                print(describe(found[-1]), flush=True)
    result = {
        "command": command_line(),
        "date": date.today().isoformat(),
        "machine": machine_class(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "recbole": version("recbole"),
        "length": LENGTH,
        "batch_size": arguments.batch_size,
        "rows": found,
    }
    if arguments.json:
        write_json(arguments.json, result)


def describe(row: dict[str, Any]) -> str:
    return (
        f"{row['data']} H {row['hidden_size']} {row['model']}: {row['seconds_per_epoch']:.2f} s an epoch of "
        f"{row['rows_per_epoch']:,} rows, {row['targets_per_second']:,.0f} targets a second, median step "
        f"{row['median_step_seconds']:.3f} s, {row['parameters']:,} parameters"
    )


if __name__ == "__main__":
    main()
