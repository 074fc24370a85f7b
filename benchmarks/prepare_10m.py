"""Prepare 10 million interactions: k-core, leave-one-out split and the datasets on disk, in time and memory.

    python benchmarks/prepare_10m.py                            # 10 million events, about a minute on 2 cores
    python benchmarks/prepare_10m.py --events 1000000 --json benchmarks/prepare_1m.json

The log is generated: users and items drawn from Zipf-like distributions, times uniform over three years, ids strings.
Memory is the process's peak, the generated log included.
"""

import argparse
import json
import os
import platform
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from mmm4rec_hf.data import MMM4RecDataCollator, load_interactions, prepare_sequences


def generate(events: int, seed: int) -> pl.DataFrame:
    """A log of `events` rows in which few users and items have most of the events."""
    random = np.random.default_rng(seed)

    def zipf(count: int, exponent: float) -> np.ndarray:
        weights = np.arange(1, count + 1, dtype=np.float64) ** -exponent
        return np.searchsorted(np.cumsum(weights) / weights.sum(), random.random(events))

    users = zipf(max(events // 12, 1), 0.6)
    items = zipf(max(events // 50, 1), 1.0)
    times = random.integers(1_500_000_000, 1_594_608_000, events)
    log = pl.DataFrame({"user_id": users, "item_id": items, "timestamp": times})
    # Ids of the length that shops have.
    return log.with_columns(
        pl.format("A{}", pl.col("user_id").cast(pl.String).str.zfill(12)).alias("user_id"),
        pl.format("B{}", pl.col("item_id").cast(pl.String).str.zfill(9)).alias("item_id"),
    )


def peak_gigabytes() -> float:
    """The most memory this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=10_000_000, help="rows of the generated log")
    parser.add_argument("--k-core", type=int, default=5, help="the least number of events of users and items")
    parser.add_argument("--seed", type=int, default=0, help="seed of the generated log")
    parser.add_argument("--json", type=Path, help="where to write the result")
    arguments = parser.parse_args()

    log = generate(arguments.events, arguments.seed)
    generated = peak_gigabytes()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        interactions = load_interactions(log)
        loaded = time.perf_counter()
        prepared = prepare_sequences(interactions, k_core=arguments.k_core, output_dir=Path(folder) / "prepared")
        done = time.perf_counter()
        peak = peak_gigabytes()
        stored = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
        batches = prepared["train"].shuffle(seed=0).select(range(min(102_400, len(prepared["train"]))))
        collate = MMM4RecDataCollator(50)
        for first in range(0, len(batches), 1024):
            collate(batches.__getitems__(list(range(first, min(first + 1024, len(batches))))))
        read = time.perf_counter()

    result = {
        "events": arguments.events,
        "k_core": arguments.k_core,
        "load_seconds": round(loaded - start, 1),
        "prepare_seconds": round(done - loaded, 1),
        "peak_gigabytes": round(peak, 2),
        "peak_gigabytes_of_generating": round(generated, 2),
        "stored_megabytes": round(stored / 2**20),
        "rows_a_second_shuffled": round(len(batches) / (read - done)),
        "statistics": prepared.statistics,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "polars": pl.__version__,
    }
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
