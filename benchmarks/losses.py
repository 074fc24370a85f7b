"""Full cross entropy over many items, in chunks against plain: memory and time of a forward and a backward pass.

    python benchmarks/losses.py --json benchmarks/losses.json    # 200,000 items, 1,024 rows: some minutes on 2 cores

`plain` is `torch.nn.functional.cross_entropy` of all scores, `chunked` what the model trains with, `sampled` the
sampled softmax of 4,096 drawn items. Each runs in a process of its own, so that its memory can be told: the peak over
what was held before (vectors of users and items), gradients included. The forms take turns, so that what else the
machine does falls on all of them; the median of rounds counts, in seconds and in seconds of all cores together.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch
import torch.nn.functional as F
from machine import command_line, machine_class

from mmm4rec_hf.modeling.loss_mmm4rec import draw_negatives, full_cross_entropy, sampled_cross_entropy

TEMPERATURE = 0.8
DRAWN = 4096


def plain(users: torch.Tensor, items: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(users / TEMPERATURE @ items[1:].T, labels - 1)


def chunked(users: torch.Tensor, items: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return full_cross_entropy(users, items, labels, TEMPERATURE)


def sampled(users: torch.Tensor, items: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    rows, log_expected = draw_negatives(len(items), DRAWN, None, items.device)
    return sampled_cross_entropy(users, items[labels], items[rows], labels, rows, log_expected, TEMPERATURE)


FORMS: dict[str, Callable[..., torch.Tensor]] = {"plain": plain, "chunked": chunked, "sampled": sampled}


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """Of one form: the loss, the megabytes that a pass adds, and how long it takes."""
    loss_of = FORMS[arguments.form]
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    users = torch.randn(arguments.rows, arguments.width, requires_grad=True)
    # In place: what is held now must be the most that was held so far.
    items = torch.randn(arguments.items + 1, arguments.width)
    items.div_(items.norm(dim=1, keepdim=True)).requires_grad_()
    labels = torch.randint(1, arguments.items + 1, (arguments.rows,))
    # Pages and threads that torch takes once, whatever the size.
    few_users, few_items = torch.randn(2, arguments.width), torch.randn(100, arguments.width)
    loss_of(few_users.requires_grad_(), few_items.requires_grad_(), labels[:2] % 99 + 1).backward()
    before = peak_megabytes()
    begin, cpu = time.perf_counter(), time.process_time()
    loss = loss_of(users, items, labels)
    loss.backward()
    seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - cpu
    added = peak_megabytes() - before
    return {"loss": loss.item(), "added_megabytes": added, "seconds": seconds, "cpu_seconds": cpu_seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--rows", type=int, default=1024, help="rows of a batch")
    parser.add_argument("--width", type=int, default=256, help="width of the vectors")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads to compute with")
    parser.add_argument("--rounds", type=int, default=7, help="passes of each form, of which the median counts")
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--form", choices=FORMS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.form:
        print(json.dumps(measure(arguments)))
        return

    sizes = [f"--{name}={getattr(arguments, name)}" for name in ("items", "rows", "width", "threads")]
    passes: dict[str, list[dict[str, float]]] = {form: [] for form in FORMS}
    for _ in range(arguments.rounds):
        for form in FORMS:
            command = [sys.executable, __file__, "--form", form, *sizes]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            passes[form].append(json.loads(done.stdout))
    found = {
        form: {name: float(f"{statistics.median(one[name] for one in runs):.4g}") for name in runs[0]}
        for form, runs in passes.items()
    }
    for form, numbers in found.items():
        print(form, numbers)
    result = {
        "command": command_line(),
        "date": date.today().isoformat(),
        "machine": machine_class(),
        "torch": torch.__version__,
        "items": arguments.items,
        "rows": arguments.rows,
        "width": arguments.width,
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "forms": found,
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
