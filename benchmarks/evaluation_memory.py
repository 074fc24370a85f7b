"""Evaluate a saved model of 200,000 items on 10,000 users: the process's peak memory, and time.

    python benchmarks/evaluation_memory.py --json benchmarks/evaluation_memory.json    # some minutes on 2 cores

The model has the published sizes and features of 768 and 768 numbers an item, random: their values do not change the
cost. One process makes and saves model and sequences; another loads and evaluates them, as `mmm4rec evaluate` does,
and its peak is what counts, all that it imported and loaded included. Every score at once would take 8 GB. Seconds are
those of the clock, whatever else the machine did.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import torch
from machine import command_line, machine_class

from mmm4rec_hf import ItemCatalog, MMM4RecConfig, MMM4RecForSequentialRecommendation
from mmm4rec_hf.data import SequenceDatasets, load_interactions, prepare_sequences
from mmm4rec_hf.evaluation.evaluator import evaluate_model

FEATURES = 768


def make(folder: Path, num_items: int, num_users: int) -> None:
    """Saves a model and sequences; each user has 10 to 50 events of any items."""
    rng = np.random.default_rng(0)
    ids = [f"B{item:09d}" for item in range(num_items)]
    counts = rng.integers(10, 51, num_users)
    users = np.repeat(np.arange(num_users), counts)
    log = pl.DataFrame(
        {
            "user_id": users,
            "item_id": [ids[item] for item in rng.integers(0, num_items, len(users))],
            "timestamp": 1_500_000_000 + rng.integers(0, 10**8, len(users)),
        }
    )
    features = [rng.standard_normal((num_items, FEATURES), dtype=np.float32) for _ in range(2)]
    catalog = ItemCatalog(ids, text_features=features[0], image_features=features[1])
    prepare_sequences(load_interactions(log), k_core=1, catalog=catalog, output_dir=folder / "sequences")
    torch.manual_seed(0)
    model = MMM4RecForSequentialRecommendation(MMM4RecConfig())
    model.set_items(catalog)
    model.save_pretrained(folder / "model")


def measure(folder: Path) -> dict[str, float]:
    """Loads and evaluates."""
    model = MMM4RecForSequentialRecommendation.from_pretrained(folder / "model")
    sequences = SequenceDatasets.load_from_disk(folder / "sequences")
    begin = time.perf_counter()
    evaluation = evaluate_model(model, sequences, "test")
    seconds = time.perf_counter() - begin
    return {
        "users": evaluation.metrics["users"],
        "items": evaluation.protocol["num_items"],
        # Scores of untrained weights on random targets: 50 in 200,000 by chance.
        "hr@50": evaluation.metrics["hr@50"],
        "peak_gigabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2),
        "seconds": round(seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.folder:
        print(json.dumps(measure(arguments.folder)))
        return

    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), arguments.items, arguments.users)
        command = [sys.executable, __file__, "--folder", folder]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    result = {
        "command": command_line(),
        "date": date.today().isoformat(),
        "machine": machine_class(),
        "torch": torch.__version__,
        **found,
    }
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
