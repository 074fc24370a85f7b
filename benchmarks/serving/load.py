"""`mmm4rec serve` under load: 50 clients at once for a minute, on the loopback; errors, times, memory, right answers.

    python benchmarks/serving/load.py --json benchmarks/serving/load.json

The server is a process of its own, started as a user starts it, with a model whose weights are drawn, or with
`--model FOLDER`. Each client sends its next request when it has the answer to the one before. Eight of ten requests
ask for recommendations, and are compared with what the pipeline gives in this process for the history alone (the
server scores together what waits together, which may change the last bits); one searches the catalogue, one asks for a
picture or for similar items. Clients and server share the machine's cores, so that the times say what a machine does
all in all. Memory is the server's resident set, once a second; flat means that its median in the last
quarter of the run is no more than 2% above that in the second.
"""

import argparse
import asyncio
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
from PIL import Image
from transformers import pipeline

from mmm4rec_hf import ItemCatalog, MMM4RecConfig, MMM4RecForSequentialRecommendation, MMM4RecProcessor
from mmm4rec_hf.training.saving import save_recommender

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from machine import machine_class  # noqa: E402  # beside the folders of benchmarks

HISTORIES, TOP_K, PICTURES = 500, 10, 50
# Of a score between two batches of one pipeline: float32 has steps of 2e-6 there.
TOLERANCE = 2e-5
# A load test is for this machine, and ends by itself.
MOST_CLIENTS, MOST_SECONDS = 200, 300


def make_model(folder: Path, num_items: int) -> Path:
    """A model of drawn items: feature sizes of MiniLM and EfficientNet, some pictures shared by all items."""
    draw = np.random.default_rng(0)
    torch.manual_seed(0)
    for number, colour in enumerate(draw.integers(0, 256, (PICTURES, 3), dtype=np.uint8)):
        Image.new("RGB", (200, 300), tuple(map(int, colour))).save(folder / f"{number}.jpg")
    catalog = ItemCatalog(
        [f"item-{n}" for n in range(num_items)],
        [{"title": f"Item number {n}", "image": f"{n % PICTURES}.jpg"} for n in range(num_items)],
        root=folder,
        text_features=draw.standard_normal((num_items, 384), dtype=np.float32),
        image_features=draw.standard_normal((num_items, 1280), dtype=np.float32),
    )
    model = MMM4RecForSequentialRecommendation(MMM4RecConfig(text_feature_size=384, image_feature_size=1280))
    model.set_items(catalog)
    save_recommender(model, MMM4RecProcessor(), catalog, folder / "model")
    return folder / "model"


def make_histories(item_ids: list[str]) -> list[dict[str, Any]]:
    draw = random.Random(0)
    histories = []
    for _ in range(HISTORIES):
        length = draw.randint(1, 20)
        gaps = [draw.randint(60, 10**6) for _ in range(length)]
        stamps = [1_600_000_000 + sum(gaps[: place + 1]) for place in range(length)]
        histories.append({"items": draw.choices(item_ids, k=length), "timestamps": stamps})
    return histories


@contextmanager
def serving(model: Path) -> Iterator[tuple[str, int]]:
    """The server's address and process id; it is ended with the block."""
    command = [sys.executable, "-m", "mmm4rec_hf.cli", "serve", str(model), "--port", "0", "--no-new-items"]
    process: Any = subprocess.Popen([*command, "--device", "cpu"], stderr=subprocess.PIPE, text=True)
    try:
        lines = []
        for line in process.stderr:
            lines.append(line)
            if found := re.search(r"Open (http://127\.0\.0\.1:\d+) ", line):
                break
        else:
            raise RuntimeError(f"the server did not start: {''.join(lines)}")
        yield found[1], process.pid
    finally:
        process.terminate()
        process.wait(30)


class Load:
    """What the clients ask, and what they have seen."""

    def __init__(self, item_ids: list[str], histories: list[dict[str, Any]], expected: list[Any]) -> None:
        self.item_ids, self.histories, self.expected = item_ids, histories, expected
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.errors: dict[str, int] = defaultdict(int)
        self.equal = self.other = 0
        self.largest_difference = 0.0

    async def ask(self, client: httpx.AsyncClient, draw: random.Random) -> None:
        """One request."""
        kind = draw.choices(("recommend", "search", "picture", "similar"), (16, 2, 1, 1))[0]
        number = draw.randrange(len(self.histories))
        item = draw.choice(self.item_ids)
        start = time.perf_counter()
        try:
            if kind == "recommend":
                body = {"histories": [self.histories[number]], "top_k": TOP_K}
                answer = await client.post("/recommend", json=body)
            elif kind == "search":
                answer = await client.get("/items", params={"query": item[-2:], "page": draw.randint(1, 3)})
            elif kind == "picture":
                answer = await client.get(f"/items/{item}/image", params={"size": 256})
            else:
                answer = await client.get("/similar", params={"item_id": item})
        except httpx.HTTPError as error:
            self.errors[type(error).__name__] += 1
            return
        self.seconds[kind].append(time.perf_counter() - start)
        if answer.status_code != 200:
            self.errors[f"status {answer.status_code}"] += 1
        elif kind == "recommend":
            self._compare(answer.json()["recommendations"][0], self.expected[number])

    def _compare(self, found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
        self.equal += found == expected
        if len(found) != len(expected):
            self.other += 1
            return
        known = {item["item_id"]: item["score"] for item in expected}
        last = expected[-1]["score"]
        # Place by place; and item by item, where one that just missed the list has the score of its end.
        differences = [abs(one["score"] - two["score"]) for one, two in zip(found, expected, strict=True)]
        differences += [abs(item["score"] - known.get(item["item_id"], last)) for item in found]
        self.largest_difference = max(self.largest_difference, *differences)
        self.other += max(differences) > TOLERANCE


async def run(load: Load, address: str, pid: int, clients: int, seconds: float) -> tuple[list[float], float]:
    """Runs the clients; gives the server's memory in MB, once a second, and how long it took."""
    deadline = time.monotonic() + seconds
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)

    async def client(number: int, session: httpx.AsyncClient) -> None:
        draw = random.Random(number)
        while time.monotonic() < deadline:
            await load.ask(session, draw)

    async def watch() -> list[float]:
        memory = []
        while time.monotonic() < deadline:
            memory.append(resident_mb(pid))
            await asyncio.sleep(1)
        return memory

    start = time.perf_counter()
    async with httpx.AsyncClient(base_url=address, limits=limits, timeout=60) as session:
        memory, *_ = await asyncio.gather(watch(), *(client(number, session) for number in range(clients)))
    return memory, time.perf_counter() - start


def resident_mb(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"^VmRSS:\s+(\d+) kB", text, re.MULTILINE)[1]) / 1024  # type: ignore[index]


def times(seconds: list[float]) -> dict[str, float]:
    """Percentiles in milliseconds."""
    p50, p90, p99 = (float(np.percentile(seconds, q)) for q in (50, 90, 99))
    values = {"p50_ms": p50, "p90_ms": p90, "p99_ms": p99, "max_ms": max(seconds)}
    return {"requests": len(seconds)} | {name: round(1000 * value, 1) for name, value in values.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="what finetune wrote; default: one that is drawn")
    parser.add_argument("--items", type=int, default=10_000, help="of a drawn model")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    args = parser.parse_args()
    if not (1 <= args.clients <= MOST_CLIENTS and 1 <= args.seconds <= MOST_SECONDS):
        parser.error(f"at most {MOST_CLIENTS} clients and {MOST_SECONDS} seconds")

    with tempfile.TemporaryDirectory() as folder:
        model = args.model or make_model(Path(folder), args.items)
        recommend: Any = pipeline("sequential-recommendation", model=str(model), device="cpu")
        item_ids = recommend.processor.item_ids
        histories = make_histories(item_ids)
        # One by one, as the clients ask.
        expected = [recommend(history, top_k=TOP_K) for history in histories]
        del recommend
        load = Load(item_ids, histories, expected)
        with serving(model) as (address, pid):
            asyncio.run(run(Load(item_ids, histories, expected), address, pid, args.clients, min(5.0, args.seconds)))
            memory, took = asyncio.run(run(load, address, pid, args.clients, args.seconds))
    everything = [value for values in load.seconds.values() for value in values]
    quarter = max(1, len(memory) // 4)
    before, after = statistics.median(memory[quarter : 2 * quarter] or memory), statistics.median(memory[-quarter:])
    report = {
        "date": date.today().isoformat(),
        "machine": machine_class(),
        "load_average_1min": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
        "items": len(item_ids),
        "clients": args.clients,
        "seconds": round(took, 1),
        "errors": sum(load.errors.values()),
        "errors_by_kind": dict(load.errors),
        "requests_a_second": round(len(everything) / took, 1),
        "all": times(everything),
        "by_kind": {kind: times(values) for kind, values in sorted(load.seconds.items())},
        "answers_compared": len(load.seconds["recommend"]),
        "answers_equal_to_the_last_bit": load.equal,
        "answers_other_than_the_pipelines": load.other,
        "largest_difference_of_a_score": load.largest_difference,
        "server_memory_mb": {
            "first": round(memory[0]),
            "second_quarter": round(before),
            "last_quarter": round(after),
            "most": round(max(memory)),
            "flat": after <= 1.02 * before,
        },
    }
    print(json.dumps(report, indent=2))
    if args.json is not None:
        args.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    sys.exit(0 if not load.errors and not load.other and report["server_memory_mb"]["flat"] else 1)


if __name__ == "__main__":
    main()
