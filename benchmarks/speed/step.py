"""One training step and one evaluation step, against the published formulation written down plainly.

    python benchmarks/speed/step.py                         # beauty and movies_b, batches of 256 and 1024: 10 minutes
    python benchmarks/speed/step.py --data movies_b --batch-size 256 --repeats 3

Both forms run on the same weights and the same batches, whose lengths are those of real training rows; features are
random, as their values do not change the cost. Random batches, and batches sorted by length. A training step: forward,
backward and an AdamW update, dropout on; an evaluation step ends with the ranks of the targets. The forms take turns,
so that what else the machine does falls on both; the median counts. First both are compared: scores, loss and
gradients without dropout. What a training step adds to the memory is measured in a process of each form's own: the
peak over what was held before (Linux).
"""

import argparse
import json
import os
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

sys.path.append(str(Path(__file__).parents[1]))
from machine import command_line, machine_class  # noqa: E402

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
        hidden_size=hidden_size,
        num_items=num_items,
        text_feature_size=FEATURES,
        image_feature_size=FEATURES,
        score_padding_item=True,  # as published
    )
    model = MMM4RecForSequentialRecommendation(config)
    for features in (model.items.text_features, model.items.image_features):
        features[1:].normal_()
    # The padding item's vector is the bias alone: at zero, where it starts, its direction has no gradient.
    for projection in (model.model.text_projection, model.model.image_projection):
        torch.nn.init.normal_(projection.bias, std=config.initializer_range)
    return model


def forms(
    model: MMM4RecForSequentialRecommendation,
) -> dict[str, tuple[Callable[..., torch.Tensor], Callable[..., torch.Tensor], Callable[..., Any]]]:
    """Of each form: the loss, the scores, and the ranks of an evaluation."""
    plain = PlainMMM4Rec(model)

    def plain_loss(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return plain(batch["input_ids"], batch["timestamps"], batch["labels"])[0]

    def plain_scores(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return plain.scores(plain.user_embeds(batch["input_ids"], batch["timestamps"]))

    def plain_ranks(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return plain.ranks(plain_scores(batch), batch["labels"])

    def our_scores(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return model(input_ids=batch["input_ids"], timestamps=batch["timestamps"]).logits

    return {
        "plain": (plain_loss, plain_scores, plain_ranks),
        "ours": (
            lambda batch: model(**batch).loss,
            our_scores,
            lambda batch: ranking_counts(our_scores(batch), batch["labels"]),
        ),
    }


def differences(model: MMM4RecForSequentialRecommendation, batch: dict[str, torch.Tensor]) -> dict[str, float]:
    """The largest difference between the forms, without dropout: of scores, the loss, and gradients, each in units of
    the largest."""
    model.eval()
    found = []
    for loss_of, scores_of, _ in forms(model).values():
        model.zero_grad()
        with torch.no_grad():
            scores = scores_of(batch)[:, 1:]
        loss = loss_of(batch)
        loss.backward()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        found.append((scores, loss.detach(), gradients))
    (scores, loss, gradients), (other_scores, other_loss, others) = found
    model.zero_grad()
    return {
        "scores": float((scores - other_scores).abs().max() / scores.abs().max()),
        "loss": float((loss - other_loss).abs() / loss),
        "gradients": largest({name: gradients[name] - others[name] for name in gradients}) / largest(gradients),
    }


def largest(gradients: dict[str, torch.Tensor]) -> float:
    return max(float(gradient.abs().max()) for gradient in gradients.values())


def training_step(
    loss_of: Callable[..., torch.Tensor], optimizer: torch.optim.Optimizer
) -> Callable[[dict[str, torch.Tensor]], None]:
    def step(batch: dict[str, torch.Tensor]) -> None:
        loss_of(batch).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def measure_memory(arguments: argparse.Namespace) -> float:
    """Megabytes that the first training step of a form adds."""
    made, num_items = batches(arguments.data, arguments.batch_size, arguments.by_length, 1)
    model = make_model(num_items, arguments.hidden_size)
    step = training_step(forms(model)[arguments.form][0], torch.optim.AdamW(model.parameters(), lr=1e-4))
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from what is held now
    before = held_kilobytes("VmRSS")
    step(made[0])
    return (held_kilobytes("VmHWM") - before) / 1024


def held_kilobytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def compare(arguments: argparse.Namespace, name: str, batch_size: int, by_length: bool) -> dict[str, Any]:
    made, num_items = batches(name, batch_size, by_length, arguments.batches)
    model = make_model(num_items, arguments.hidden_size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    row: dict[str, Any] = {
        "data": name, "batch_size": batch_size, "batches": "sorted" if by_length else "random", "items": num_items,
        "mean_history": mean_length(made), "differences": differences(model, made[0]),
    }  # fmt: skip
    seconds: dict[tuple[str, str], list[float]] = {}
    for kind in ("train", "evaluate"):
        model.train(kind == "train")
        steps = {
            form: training_step(loss_of, optimizer) if kind == "train" else no_grad(ranks_of)
            for form, (loss_of, _, ranks_of) in forms(model).items()
        }
        for turn in range(arguments.repeats + 1):
            for batch in made:
                for form, step in steps.items():
                    begin = time.perf_counter()
                    step(batch)
                    if turn > 0:  # the first warms up
                        seconds.setdefault((form, kind), []).append(time.perf_counter() - begin)
    for form in ("plain", "ours"):
        row[form] = {kind: statistics.median(seconds[form, kind]) for kind in ("train", "evaluate")}
        command = [sys.executable, __file__, "--form", form, "--data", name, "--batch-size", str(batch_size)]
        command += ["--hidden-size", str(arguments.hidden_size), *(["--by-length"] if by_length else [])]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        row[form]["added_mb"] = float(done.stdout.splitlines()[-1])
    return row


def mean_length(made: list[dict[str, torch.Tensor]]) -> float:
    return sum(int(batch["attention_mask"].sum()) for batch in made) / sum(len(batch["labels"]) for batch in made)


def no_grad(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.no_grad()(function)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["beauty", "movies_b"], help="folders of real data")
    parser.add_argument("--batch-size", nargs="+", type=int, default=[256, 1024])
    parser.add_argument("--hidden-size", type=int, default=256)
    parser.add_argument("--batches", type=int, default=2, help="different batches in a round")
    parser.add_argument("--repeats", type=int, default=4, help="rounds, after one to warm up")
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--form", choices=["plain", "ours"], help=argparse.SUPPRESS)
    parser.add_argument("--by-length", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.form:
        arguments.data, arguments.batch_size = arguments.data[0], arguments.batch_size[0]
        print(measure_memory(arguments))
        return

    rows = []
    for name in arguments.data:
        for batch_size in arguments.batch_size:
            for by_length in (False, True):
                rows.append(compare(arguments, name, batch_size, by_length))
                print(describe(rows[-1]), flush=True)
    result = {
        "command": command_line(),
        "date": date.today().isoformat(),
        "machine": machine_class(),
        "torch": torch.__version__,
        "hidden_size": arguments.hidden_size,
        "rows": rows,
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


def describe(row: dict[str, Any]) -> str:
    plain, ours = row["plain"], row["ours"]
    parts = [
        f"{key} {plain[key]:.3g} -> {ours[key]:.3g} {unit} ({plain[key] / max(ours[key], 1e-9):.1f}x)"
        for key, unit in (("train", "s"), ("evaluate", "s"), ("added_mb", "MB"))
    ]
    equal = ", ".join(f"{key} {value:.0e}" for key, value in row["differences"].items())
    where = f"{row['data']} B {row['batch_size']} {row['batches']} (mean history {row['mean_history']:.1f})"
    return f"{where}: {', '.join(parts)}; differences: {equal}"


if __name__ == "__main__":
    main()
