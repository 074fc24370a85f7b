"""Top-20 of a catalogue of a million items for batches of 256 users: time, memory, and what a faiss index gives up.

    OMP_WAIT_POLICY=passive python benchmarks/serving/topk.py --json benchmarks/serving/topk.json

The whole pipeline is timed, from external ids to items with scores, and beside it the search alone; the baseline is a
score of every item and `torch.topk`. Items are drawn around centres, as those of a shop are: features of a centre and
noise; weights are random, which is hard for an index. Wall times are the least of some repeats. The seconds of CPU per
core beside them say what load of other processes leaves out; give OMP_WAIT_POLICY=passive, or they count waiting.
"""

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from transformers import pipeline

from mmm4rec_hf import MMM4RecConfig, MMM4RecForSequentialRecommendation, MMM4RecProcessor
from mmm4rec_hf.index import FaissIndex

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from machine import machine_class  # noqa: E402  # beside the folders of benchmarks

EVENTS, CENTRES = 20, 2000


def make_recommender(num_items: int) -> Any:
    """A pipeline over drawn items; the features are written in place, so that they are held once."""
    torch.manual_seed(0)
    config = MMM4RecConfig(num_items=num_items)
    model = MMM4RecForSequentialRecommendation(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter += 0.05 * torch.randn_like(parameter)
        for features in (model.items.text_features, model.items.image_features):
            centres = torch.randn(CENTRES, features.shape[1])
            for start in range(1, num_items + 1, 2**16):
                part = features[start : start + 2**16]
                part.normal_(std=0.7).add_(centres[torch.randint(CENTRES, (len(part),))])
    item_ids = [str(n) for n in range(num_items)]
    processor = MMM4RecProcessor(max_sequence_length=EVENTS)
    processor.set_items(SimpleNamespace(item_ids=item_ids, titles=[None] * num_items))
    return pipeline("sequential-recommendation", model=model, processor=processor, device="cpu")


def make_histories(num_users: int, num_items: int, seed: int) -> list[dict[str, list[Any]]]:
    draw = torch.Generator().manual_seed(seed)
    items = torch.randint(num_items, (num_users, EVENTS), generator=draw)
    gaps = torch.randint(1, 10**6, (num_users, EVENTS), generator=draw)
    times = 1_600_000_000 + gaps.cumsum(1)
    pairs = zip(items.tolist(), times.tolist(), strict=True)
    return [{"items": list(map(str, row)), "timestamps": stamps} for row, stamps in pairs]


def memory(name: str) -> int:
    """Bytes of this process: `VmRSS` now, `VmHWM` at most since [`forget_peak`]."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def timed(call: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Least wall time, and CPU seconds a thread, of one call."""
    walls, cpus = [], []
    for _ in range(repeats):
        used = resource.getrusage(resource.RUSAGE_SELF)
        start = time.perf_counter()
        call()
        walls.append(time.perf_counter() - start)
        now = resource.getrusage(resource.RUSAGE_SELF)
        cpus.append((now.ru_utime - used.ru_utime + now.ru_stime - used.ru_stime) / torch.get_num_threads())
    return {"wall_s": round(min(walls), 3), "cpu_s_per_core": round(min(cpus), 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=256)
    parser.add_argument("--top-k", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    recommend = make_recommender(args.items)
    histories = make_histories(args.users, args.items, seed=1)
    forget_peak()
    before = memory("VmRSS")

    start = time.perf_counter()
    exact = recommend(histories, top_k=args.top_k, batch_size=args.users)
    first = time.perf_counter() - start
    result: dict[str, Any] = {
        "exact": {"first_batch_s": round(first, 2)}
        | timed(lambda: recommend(histories, top_k=args.top_k, batch_size=args.users), args.repeats)
    }
    result["exact"]["memory_beyond_features_gb"] = round((memory("VmHWM") - before) / 1e9, 2)
    search, model = recommend._exact_search(recommend.model.item_vectors()), recommend.model
    inputs = recommend.processor(histories=histories, return_tensors="pt")
    with torch.no_grad():
        users = model.user_embeds(**inputs)
        result["exact"]["search_alone"] = timed(lambda: search.search(users, args.top_k), args.repeats)
        vectors = model.item_vectors()[1:]
        result["all_scores_and_topk"] = timed(lambda: (users @ vectors.T).topk(args.top_k), 2)
        found, _ = search.search(users, args.top_k)
        difference = (found - (users @ vectors.T).topk(args.top_k).values).abs().max()
        result["exact"]["largest_difference_from_all_scores"] = float(difference)

    start = time.perf_counter()
    index = FaissIndex.build(model)
    result["faiss"] = {"build_s": round(time.perf_counter() - start, 1), "cells": index.index.nlist, "searches": []}
    recommend.use_index(index)
    best = [{item["item_id"] for item in items} for items in exact]
    for share in (64, 16, 8, 4, 2):
        index.index.nprobe = max(1, index.index.nlist // share)
        found = recommend(histories, top_k=args.top_k, batch_size=args.users)
        hits = sum(len({item["item_id"] for item in items} & known) for items, known in zip(found, best, strict=True))
        recall = hits / sum(map(len, best))
        speed = timed(lambda: recommend(histories, top_k=args.top_k, batch_size=args.users), args.repeats)
        result["faiss"]["searches"].append(
            {"cells_searched": index.index.nprobe, f"recall@{args.top_k}": round(recall, 4)} | speed
        )
    features = (model.items.text_features, model.items.image_features)
    report = {
        "date": date.today().isoformat(),
        "machine": machine_class(),
        "load_average_1min": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
        "items": args.items,
        "users_a_batch": args.users,
        "top_k": args.top_k,
        "threads": args.threads,
        "features_gb": round(sum(values.numel() * 4 for values in features) / 1e9, 2),
    } | result
    print(json.dumps(report, indent=2))
    if args.json is not None:
        args.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
