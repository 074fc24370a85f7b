"""One training step and one evaluation step, against the published formulation written down plainly.

    python benchmarks/speed/step.py                         # beauty and movies_b, batches of 256 and 1024: 10 minutes
    python benchmarks/speed/step.py --data movies_b --batch-size 256 --repeats 3

Both forms run on the same weights and the same batches, whose lengths are those of real training rows; features are
random, as their values do not change the cost. Random batches, and batches sorted by length. A training step: forward,
backward and an AdamW update, dropout on; an evaluation step ends with the ranks of the targets. Each form runs in a
process of its own, so that its memory can be told: the peak over what was held before the first step.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch
from plain_mmm4rec import PlainMMM4Rec

from mmm4rec_hf import MMM4RecConfig, MMM4RecDataCollator, MMM4RecForSequentialRecommendation
from mmm4rec_hf.data import load_interactions, prepare_sequences
from mmm4rec_hf.evaluation import ranking_counts

DATA = Path(os.environ.get("MMM4REC_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
LENGTH, FEATURES = 20, 768


def batches(name: str, batch_size: int, by_length: bool, count: int) -> tuple[list[dict[str, torch.Tensor]], int]:
    """Batches of real training rows, and the number of items."""
    sequences = prepare_sequences(load_interactions(DATA / name / "interactions.csv"), k_core=5)
    rows = sequences["train"]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    if by_length:
        lengths = torch.tensor([min(len(rows[int(row)]["input_ids"]), LENGTH) for row in order])
        order = order[lengths.argsort(stable=True)]
    starts = range(0, max(len(rows) - batch_size, 1), batch_size)
    # Spread over the order, so that sorted batches are of short and of long histories alike.
    chosen = [starts[i * len(starts) // count] for i in range(count)]
    collate = MMM4RecDataCollator(LENGTH)
    made = [collate([rows[int(row)] for row in order[start : start + batch_size]]) for start in chosen]
    return [pad_to(batch, LENGTH) for batch in made], len(sequences.item_ids)


def pad_to(batch: dict[str, torch.Tensor], length: int) -> dict[str, torch.Tensor]:
    """Every history in `length` positions, as the published loader gives them."""
    return {
        name: torch.nn.functional.pad(value, (0, length - value.shape[1])) if value.ndim == 2 else value
        for name, value in batch.items()
    }


def make_model(num_items: int, hidden_size: int) -> MMM4RecForSequentialRecommendation:
    torch.manual_seed(0)
    config = MMM4RecConfig(
        hidden_size=hidden_size, num_items=num_items, text_feature_size=FEATURES, image_feature_size=FEATURES
    )
    model = MMM4RecForSequentialRecommendation(config)
    for features in (model.items.text_features, model.items.image_features):
        features[1:].normal_()
    return model


def steps(form: str, model: MMM4RecForSequentialRecommendation) -> tuple[Callable[..., None], Callable[..., Any]]:
    """The training step and the evaluation step of one form."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    plain = PlainMMM4Rec(model)

    def train(batch: dict[str, torch.Tensor]) -> None:
        if form == "plain":
            loss, _ = plain(batch["input_ids"], batch["timestamps"], batch["labels"])
        else:
            loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    @torch.no_grad()
    def evaluate(batch: dict[str, torch.Tensor]) -> Any:
        if form == "plain":
            scores = plain.scores(plain.user_embeds(batch["input_ids"], batch["timestamps"]))
            return plain.ranks(scores, batch["labels"])
        logits = model(input_ids=batch["input_ids"], timestamps=batch["timestamps"]).logits
        return ranking_counts(logits, batch["labels"])

    return train, evaluate


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """Median seconds of both steps of one form, and the megabytes that a training step adds."""
    made, num_items = batches(arguments.data, arguments.batch_size, arguments.by_length, arguments.batches)
    model = make_model(num_items, arguments.hidden_size)
    train, evaluate = steps(arguments.form, model)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    train(made[0])
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = {}
    for name, step in (("train", train), ("evaluate", evaluate)):
        model.train(name == "train")
        step(made[0])
        total = []
        for _ in range(arguments.repeats):
            begin = time.perf_counter()
            for batch in made:
                step(batch)
            total.append((time.perf_counter() - begin) / len(made))
        seconds[name] = statistics.median(total)
    events = sum(int(batch["attention_mask"].sum()) for batch in made) / sum(len(batch["labels"]) for batch in made)
    return {**seconds, "added_mb": (after - before) / 1024, "mean_history": events, "items": num_items}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["beauty", "movies_b"], help="folders of real data")
    parser.add_argument("--batch-size", nargs="+", type=int, default=[256, 1024])
    parser.add_argument("--hidden-size", type=int, default=256)
    parser.add_argument("--batches", type=int, default=4, help="different batches in a round")
    parser.add_argument("--repeats", type=int, default=5, help="rounds, of which the median counts")
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--form", choices=["plain", "ours"], help=argparse.SUPPRESS)
    parser.add_argument("--by-length", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.form:
        arguments.data, arguments.batch_size = arguments.data[0], arguments.batch_size[0]
        print(json.dumps(measure(arguments)))
        return

    rows = []
    for name in arguments.data:
        for batch_size in arguments.batch_size:
            for by_length in (False, True):
                rows.append(compare(arguments, name, batch_size, by_length))
                print(describe(rows[-1]), flush=True)
    result = {
        "command": " ".join(["python", "benchmarks/speed/step.py", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}, no GPU",
        "torch": torch.__version__,
        "hidden_size": arguments.hidden_size,
        "rows": rows,
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


def compare(arguments: argparse.Namespace, name: str, batch_size: int, by_length: bool) -> dict[str, Any]:
    found = {}
    for form in ("plain", "ours"):
        command = [sys.executable, __file__, "--form", form, "--data", name, "--batch-size", str(batch_size)]
        command += ["--hidden-size", str(arguments.hidden_size), "--batches", str(arguments.batches)]
        command += ["--repeats", str(arguments.repeats), *(["--by-length"] if by_length else [])]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found[form] = json.loads(done.stdout.splitlines()[-1])
    return {"data": name, "batch_size": batch_size, "batches": "sorted" if by_length else "random", **found}


def describe(row: dict[str, Any]) -> str:
    plain, ours = row["plain"], row["ours"]
    parts = [f"{row['data']} B {row['batch_size']} {row['batches']} (mean history {ours['mean_history']:.1f}):"]
    for key, unit in (("train", "s"), ("evaluate", "s"), ("added_mb", "MB")):
        parts.append(f"{key} {plain[key]:.3g} -> {ours[key]:.3g} {unit} ({plain[key] / max(ours[key], 1e-9):.1f}x)")
    return " ".join(parts[:1]) + " " + ", ".join(parts[1:])


if __name__ == "__main__":
    main()
