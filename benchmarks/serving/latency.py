"""One recommendation of 20 items out of 10,000, from external ids to items with scores, and how many users a second.

    python benchmarks/serving/latency.py --json benchmarks/serving/latency.json      # two minutes on 2 cores

`pipeline("sequential-recommendation")` answers one history a call, each another one, with item vectors at hand; the
target is 5 ms. Histories hold 3 to 40 events, of which the model reads the last 20. Weights and features are random,
as their values do not change the cost. Beside it two baselines of the same inputs, which begin at the tensors: the
published formulation written down plainly, which embeds the items in every call, and the same with item vectors that
are kept. `pipeline_onnx` is the pipeline with user vectors by onnxruntime, where that is installed. The forms take
turns, so that what else the machine does falls on all of them. Percentiles are of wall times; where the time goes is
told by the median of each stage, and users a second by the fastest of some passes.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch
from topk import make_recommender
from tqdm.auto import tqdm
from transformers import pipeline

sys.path += [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[1] / "speed")]
from machine import command_line, machine_class  # noqa: E402  # beside the folders of benchmarks
from plain_mmm4rec import PlainMMM4Rec  # noqa: E402  # in another folder of benchmarks

from mmm4rec_hf.export import OnnxUserEncoder, export_onnx  # noqa: E402
from mmm4rec_hf.outputs import write_json  # noqa: E402

TARGET_MS = 5.0
LEAST, MOST = 3, 40  # events of a history
History = dict[str, list[Any]]
Form = Callable[[list[History]], Any]


def make_histories(count: int, num_items: int) -> list[History]:
    draw = torch.Generator().manual_seed(1)
    histories = []
    for length in torch.randint(LEAST, MOST + 1, (count,), generator=draw).tolist():
        items = torch.randint(num_items, (length,), generator=draw)
        times = 1_600_000_000 + torch.randint(1, 10**6, (length,), generator=draw).cumsum(0)
        histories.append({"items": list(map(str, items.tolist())), "timestamps": times.tolist()})
    return histories


def baselines(recommend: Any, top_k: int) -> dict[str, Form]:
    """The best items by all scores, as published, and with item vectors that are kept; no ids, no parts of scores."""
    model, plain = recommend.model, PlainMMM4Rec(recommend.model)
    vectors = model.item_vectors() / model.config.score_temperature

    @torch.no_grad()
    def best(histories: list[History], scores_of: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        inputs = recommend.processor(histories=histories, return_tensors="pt", padding="max_length")
        scores = scores_of(plain.user_embeds(inputs["input_ids"], inputs["timestamps"]))
        scores[:, 0] = -torch.inf
        for number, history in enumerate(histories):
            scores[number, recommend.processor.rows(history["items"])[0]] = -torch.inf
        return scores.topk(top_k, dim=1).indices

    return {
        "plain": lambda histories: best(histories, plain.scores),
        "plain_items_kept": lambda histories: best(histories, lambda user: user @ vectors.T),
    }


def with_onnx(recommend: Any) -> dict[str, Any]:
    """Another pipeline over the same model, with user vectors by onnxruntime; none where that is not installed."""
    other = pipeline("sequential-recommendation", model=recommend.model, processor=recommend.processor, device="cpu")
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "encoder.onnx")
            export_onnx(recommend.model, path, inputs="embeds")
            other.use_encoder(OnnxUserEncoder(path))
    except ImportError as error:
        print(f"pipeline_onnx is left out: {error}", file=sys.stderr)
        return {}
    return {"pipeline_onnx": other}


def check_alike(recommend: Any, forms: dict[str, Form], histories: list[History]) -> float:
    """The share of items in which the other forms and the pipeline agree: all, but where scores are level."""
    ids = recommend.processor.item_ids
    found = {
        name: [[item["item_id"] for item in items] for items in form(histories)]
        if name.startswith("pipeline")
        else [[ids[row - 1] for row in line] for line in form(histories).tolist()]
        for name, form in forms.items()
    }
    return statistics.mean(
        len(set(one) & set(other)) / len(one)
        for name in found.keys() - {"pipeline"}
        for one, other in zip(found["pipeline"], found[name], strict=True)
    )


def one_at_a_time(
    forms: dict[str, Form], histories: list[History], rounds: int, plain_every: int
) -> dict[str, list[float]]:
    """Milliseconds of each call; the baselines, which take far longer, answer every so many histories only."""
    taken: dict[str, list[float]] = {name: [] for name in forms}
    shares = [histories[number::rounds] for number in range(rounds)]
    for share in tqdm(shares, desc="one history a call", disable=not sys.stderr.isatty()):
        for name, form in forms.items():
            asked = share if name.startswith("pipeline") else share[::plain_every]
            form([asked[-1]])  # after another form's turn nothing of this one is in the caches
            for history in asked:
                begin = time.perf_counter()
                form([history])
                taken[name].append(1e3 * (time.perf_counter() - begin))
    return taken


def stages(recommend: Any, histories: list[History], top_k: int) -> dict[str, float]:
    """Median milliseconds of what a call consists of."""
    taken: dict[str, list[float]] = {"history_to_tensors": [], "user_vector": [], "best_items": []}
    for history in histories:
        times = [time.perf_counter()]
        inputs = recommend.preprocess([history])
        times.append(time.perf_counter())
        outputs = recommend.forward(inputs)
        times.append(time.perf_counter())
        recommend.postprocess(outputs, top_k=top_k)
        times.append(time.perf_counter())
        for name, begin, end in zip(taken, times, times[1:], strict=False):
            taken[name].append(1e3 * (end - begin))
    return {name: round(statistics.median(values), 3) for name, values in taken.items()}


def summary(milliseconds: Sequence[float]) -> dict[str, float]:
    ordered = sorted(milliseconds)
    named = {"median_ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99}
    values = {name: ordered[min(int(share * len(ordered)), len(ordered) - 1)] for name, share in named.items()}
    values = {"least_ms": ordered[0]} | values | {"most_ms": ordered[-1]}
    return {"calls": len(ordered)} | {name: round(value, 3) for name, value in values.items()}


def users_a_second(forms: dict[str, Form], histories: list[History], batch_size: int, passes: int) -> dict[str, float]:
    """Of the fastest pass over whole batches; the baselines get one batch a pass."""
    best = dict.fromkeys(forms, 0.0)
    whole = histories[: len(histories) // batch_size * batch_size]
    for turn in tqdm(range(passes + 1), desc=f"{batch_size} a call", disable=not sys.stderr.isatty()):
        for name, form in forms.items():
            asked = whole if name.startswith("pipeline") else whole[:batch_size]
            begin = time.perf_counter()
            for start in range(0, len(asked), batch_size):
                form(asked[start : start + batch_size])
            if turn > 0:  # the first warms up
                best[name] = max(best[name], len(asked) / (time.perf_counter() - begin))
    return {name: round(value, 1) for name, value in best.items()}


def measure(args: argparse.Namespace) -> dict[str, Any]:
    recommend = make_recommender(args.items)
    histories = make_histories(max(args.calls, args.batch_size), args.items)
    begin = time.perf_counter()
    recommend(histories[0], top_k=args.top_k)
    first = time.perf_counter() - begin

    def answers_of(one: Any) -> Form:
        # One history as users give it: not in a list.
        return lambda asked: [one(asked[0], top_k=args.top_k)] if len(asked) == 1 else one(asked, top_k=args.top_k)

    ours = {"pipeline": recommend} | with_onnx(recommend)
    forms: dict[str, Form] = {name: answers_of(one) for name, one in ours.items()} | baselines(recommend, args.top_k)
    alike = check_alike(recommend, forms, histories[:64])
    for history in histories[: args.warm_up]:
        for name in ours:
            forms[name]([history])
    taken = one_at_a_time(forms, histories[: args.calls], args.rounds, args.plain_every)
    return {
        "first_call_s": round(first, 3),
        "same_items_as_the_baselines": alike,
        "one_history": {name: summary(values) for name, values in taken.items()},
        "stages_ms": {name: stages(one, histories[: min(200, args.calls)], args.top_k) for name, one in ours.items()},
        f"users_a_second_at_{args.batch_size}": users_a_second(forms, histories, args.batch_size, args.passes),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--top-k", type=int, default=20)
    parser.add_argument("--calls", type=int, default=1000, help="calls of the pipeline, each of another history")
    parser.add_argument("--plain-every", type=int, default=10, help="one call of a baseline for so many")
    parser.add_argument("--rounds", type=int, default=10, help="turns that the forms take")
    parser.add_argument("--warm-up", type=int, default=50, help="calls before those that count")
    parser.add_argument("--batch-size", type=int, default=256, help="histories of a call, for users a second")
    parser.add_argument("--passes", type=int, default=5, help="of which the fastest counts, after one to warm up")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="where to write the result")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    result = {
        "command": command_line(),
        "date": date.today().isoformat(),
        "machine": machine_class(),
        "load_average_1min": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
        "threads": args.threads,
        "items": args.items,
        "top_k": args.top_k,
    } | measure(args)
    for name, values in result["one_history"].items():
        print(f"{name}: median {values['median_ms']:.2f} ms, p99 {values['p99_ms']:.2f} ms of {values['calls']} calls")
    for name, values in result["stages_ms"].items():
        one = result["one_history"][name]
        reached = [part for part in ("median", "p99") if one[f"{part}_ms"] < TARGET_MS]
        print(f"{name}: below {TARGET_MS:g} ms: {', '.join(reached) or 'neither'}; stages {values} ms")
    per_second = result[f"users_a_second_at_{args.batch_size}"]
    print(f"users a second, {args.batch_size} a call: {', '.join(f'{k} {v:.0f}' for k, v in per_second.items())}")
    if args.json is not None:
        write_json(args.json, result)


if __name__ == "__main__":
    main()
