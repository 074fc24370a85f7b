"""How the cost of a step grows with the length of histories, the items, the batch and the layers.

    python benchmarks/speed/growth.py --json benchmarks/speed/growth.json --plot benchmarks/speed/growth.png
    python benchmarks/speed/growth.py --axes batch --batch 64 256 --repeats 1    # a part; all of it takes 8 minutes

Each axis alone, around one point: hidden size 256, histories of 20 events, 4,385 items, batches of 256, one layer.
Histories are full, so packing saves nothing; features are random, 768 numbers for each modality of an item, but 64
where there are more than 200,000 items: they would take gigabytes. A training step is forward, backward and a fused
AdamW update, dropout on; an evaluation step ends with the ranks of the targets, item vectors at hand. Either is
measured in a process of its own, forked from one that has imported everything: the memory that its first step adds is
the peak over what was held before (Linux). Seconds are the median of the steps after that one.

FLOPs are torch's count (`FlopCounterMode`) of matrix products and convolutions, without the update. What it does not
see is told beside it in the JSON as elementwise operations: one for each number that a pointwise operation makes and
for each that a sum reads, which is a lower bound. The achieved rate is the count over the seconds, set against the
product of two large float32 matrices in the same run, on as many threads.
"""

import argparse
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry
from tqdm.auto import tqdm

sys.path.append(str(Path(__file__).resolve().parents[1]))
from machine import command_line, machine_class  # noqa: E402  # beside the folders of benchmarks

from mmm4rec_hf import MMM4RecConfig, MMM4RecForSequentialRecommendation  # noqa: E402
from mmm4rec_hf.evaluation import ranking_counts  # noqa: E402
from mmm4rec_hf.outputs import replace_file, write_json  # noqa: E402

AXES: dict[str, tuple[int, ...]] = {
    "length": (10, 20, 50, 100, 200),
    "items": (1_000, 10_000, 100_000, 1_000_000),
    "batch": (1, 16, 64, 256, 1024, 4096),
    "layers": (1, 2, 3, 4),
}
MANY_ITEMS, FEATURES, FEW_FEATURES = 200_000, 768, 64
MEASURED_S = 8.0  # of the steps of one kind: no further step begins after it
REDUCTIONS = ("sum", "mean", "amax", "logsumexp", "cumsum", "native_layer_norm", "_log_softmax")
KINDS = {"train": "training step", "evaluate": "evaluation step"}


@dataclass(frozen=True)
class Point:
    """Sizes of what is measured."""

    length: int = 20
    items: int = 4_385
    batch: int = 256
    layers: int = 1
    hidden: int = 256

    @property
    def features(self) -> int:
        return FEATURES if self.items <= MANY_ITEMS else FEW_FEATURES


class Elementwise(TorchDispatchMode):
    """Counts what `FlopCounterMode` does not: numbers that pointwise operations make, and that reductions read."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func._overloadpacket not in flop_registry:
            if torch.Tag.pointwise in func.tags and isinstance(out, torch.Tensor):
                self.total += out.numel()
            elif func._schema.name.split("::")[1] in REDUCTIONS:
                self.total += args[0].numel()
        return out


def make_model(point: Point) -> MMM4RecForSequentialRecommendation:
    torch.manual_seed(0)
    model = MMM4RecForSequentialRecommendation(
        MMM4RecConfig(
            hidden_size=point.hidden,
            intermediate_size=point.hidden,
            num_hidden_layers=point.layers,
            max_sequence_length=point.length,
            num_items=point.items,
            text_feature_size=point.features,
            image_feature_size=point.features,
            time_mode="masked",
        )
    )
    for features in (model.items.text_features, model.items.image_features):
        features[1:].normal_()
    return model


def make_batch(point: Point) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    shape = (point.batch, point.length)
    return {
        "input_ids": torch.randint(1, point.items + 1, shape, generator=draw),
        "attention_mask": torch.ones(shape, dtype=torch.long),
        "timestamps": 1_500_000_000 + torch.randint(1, 10**6, shape, generator=draw).cumsum(1),
        "labels": torch.randint(1, point.items + 1, (point.batch,), generator=draw),
    }


def steps_of(kind: str, point: Point) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """The step, and what of it is counted."""
    model, batch = make_model(point), make_batch(point)
    model.train(kind == "train")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    inputs = {name: value for name, value in batch.items() if name != "labels"}

    def gradients() -> None:
        model(**batch).loss.backward()

    def train() -> None:
        gradients()
        optimizer.step()
        optimizer.zero_grad()

    @torch.no_grad()
    def evaluate() -> None:
        ranking_counts(model(**inputs).logits, batch["labels"])

    return (train, gradients) if kind == "train" else (evaluate, evaluate)


def measure(kind: str, point: Point, repeats: int) -> dict[str, float]:
    """Seconds, memory and operations of a kind of step, in this process."""
    step, counted = steps_of(kind, point)
    forget_peak()
    before = held_megabytes("VmRSS")
    step()
    added = held_megabytes("VmHWM") - before
    seconds: list[float] = []
    while len(seconds) < repeats and sum(seconds) < MEASURED_S:
        begin = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - begin)
    with FlopCounterMode(display=False) as counter, Elementwise() as elementwise:
        counted()
    gflop, median = counter.get_total_flops() / 1e9, statistics.median(seconds)
    return {
        "seconds": median,
        "steps": len(seconds),
        "added_mb": added,
        "gflop": gflop,
        "elementwise_gop": elementwise.total / 1e9,
        "gflop_per_s": gflop / median,
    }


def held_megabytes(name: str) -> float:
    """Memory of this process: `VmRSS` now, `VmHWM` at most since [`forget_peak`]."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def matmul_peak(size: int = 2048, repeats: int = 12) -> float:
    """GFLOP/s of a product of two large float32 matrices, the best of some."""
    one, other, out = torch.randn(size, size), torch.randn(size, size), torch.empty(size, size)
    best = float("inf")
    for _ in range(repeats):
        begin = time.perf_counter()
        torch.mm(one, other, out=out)
        best = min(best, time.perf_counter() - begin)
    return 2 * size**3 / best / 1e9


def apart(threads: int, call: Callable[..., Any], *args: Any) -> Any:
    """What `call` returns in a process of its own; `None` if it came to an end before, as for want of memory."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "mmm4rec_hf.evaluation", "mmm4rec_hf.modeling.modeling_mmm4rec"])
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(there, threads, call, args))
    process.start()
    there.close()
    try:
        return here.recv()
    except EOFError:
        return None
    finally:
        process.join()


def _answer(there: Any, threads: int, call: Callable[..., Any], args: Any) -> None:
    torch.set_num_threads(threads)
    there.send(call(*args))


def measure_axes(axes: dict[str, tuple[int, ...]], base: Point, repeats: int, threads: int) -> dict[str, Any]:
    """The base point, the points of each axis in order, the base among them, and the matmul peak."""
    points = {name: sorted({*values, getattr(base, name)}) for name, values in axes.items()}
    wanted = dict.fromkeys([base, *(replace(base, **{name: value}) for name in points for value in points[name])])
    peak = apart(threads, matmul_peak)
    found: dict[Point, dict[str, Any]] = {}
    for point in tqdm(wanted, desc="points", disable=not sys.stderr.isatty()):
        kinds = {kind: apart(threads, measure, kind, point, repeats) for kind in KINDS}
        if None in kinds.values():
            print(f"{point} is left out: its process ended before it answered; more memory?", file=sys.stderr)
        else:
            found[point] = asdict(point) | {"features": point.features} | kinds
    if base not in found:
        raise SystemExit("nothing can be compared without the base point")
    # At both ends of the run: whoever else is at work at one of them takes from it.
    peak = max(peak, apart(threads, matmul_peak))
    for row in found.values():
        for kind in KINDS:
            row[kind]["share_of_peak"] = row[kind]["gflop_per_s"] / peak
    along = {name: [replace(base, **{name: value}) for value in values] for name, values in points.items()}
    rows = {name: [found[point] for point in line if point in found] for name, line in along.items()}
    return {"matmul_peak_gflop_per_s": peak, "base": found[base], "axes": rows}


def table(result: dict[str, Any]) -> str:
    """A line a point: of either step seconds, added memory, counted GFLOP, and its rate against the peak."""
    names = f"{'s':>9}{'MB':>8}{'GFLOP':>10}{'GFLOP/s':>9}{'of peak':>9}"
    heads = [f"{title:^45}" for title in KINDS.values()]
    lines = [" " * 17 + "   ".join(heads).rstrip(), f"{'axis':7}{'value':>10}{names}   {names}"]
    for name, rows in result["axes"].items():
        for row in rows:
            parts = [
                f"{x['seconds']:9.4g}{x['added_mb']:8.0f}{x['gflop']:10.4g}{x['gflop_per_s']:9.0f}"
                f"{x['share_of_peak']:9.0%}"
                for x in (row[kind] for kind in KINDS)
            ]
            lines.append(f"{name:7}{row[name]:10,d}{'   '.join(parts)}")
    return "\n".join([*lines, f"matmul peak {result['matmul_peak_gflop_per_s']:.0f} GFLOP/s"])


def short(number: int) -> str:
    """1k for 1,000, 1M for a million, and others that are not round as they are."""
    for size, letter in ((1_000_000, "M"), (1_000, "k")):
        if number % size == 0:
            return f"{number // size}{letter}"
    return str(number)


def draw(result: dict[str, Any], path: Path) -> None:
    """A panel an axis: seconds and memory as multiples of the base point's, and what growth in proportion would be."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    base, axes = result["base"], result["axes"]
    series = {
        "training step, seconds": ("train", "seconds", "o-", "tab:blue"),
        "evaluation step, seconds": ("evaluate", "seconds", "s-", "tab:orange"),
        "training step, memory": ("train", "added_mb", "^:", "tab:green"),
    }
    titles = {"length": "events of a history", "items": "items", "batch": "histories of a batch", "layers": "layers"}
    size = (max(7.0, 3.2 * len(axes)), 4.0)
    figure, panels = plt.subplots(1, len(axes), figsize=size, sharey=True, squeeze=False, layout="constrained")
    for panel, (name, rows) in zip(panels[0], axes.items(), strict=True):
        values = [row[name] for row in rows]
        panel.plot(values, [value / base[name] for value in values], "-", color="0.8", label="in proportion")
        for label, (kind, key, style, color) in series.items():
            # A step so small that it added nothing measurable has no multiple.
            heights = [row[kind][key] / base[kind][key] if base[kind][key] else float("nan") for row in rows]
            panel.plot(values, heights, style, color=color, label=label, markersize=4)
        panel.axhline(1, color="0.9", linewidth=0.8, zorder=0)
        panel.set(xscale="log", yscale="log", xlabel=titles[name])
        panel.set_xticks(values, [short(value) for value in values], fontsize=8)
        panel.minorticks_off()
        panel.yaxis.set_major_formatter("{x:g}")
    panels[0, 0].set_ylabel("times the base point")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    where = f"{base['length']} events, {base['items']:,} items, batch {base['batch']}, {base['layers']} layer"
    train, evaluate = base["train"], base["evaluate"]
    costs = f"training {train['seconds']:.2g} s and {train['added_mb']:.0f} MB, evaluation {evaluate['seconds']:.2g} s"
    figure.suptitle(f"Base point: {where}\n{costs}", fontsize=10)
    with replace_file(path) as partial:
        figure.savefig(partial, dpi=110, format="png")
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--axes", nargs="+", choices=AXES, default=list(AXES), help="what is varied")
    for name, values in AXES.items():
        parser.add_argument(f"--{name}", nargs="+", type=int, default=values, help="values of this axis")
    parser.add_argument("--repeats", type=int, default=5, help="steps of which the median counts, after a first one")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--plot", type=Path, help="where to draw it, as PNG")
    arguments = parser.parse_args()
    axes = {name: tuple(getattr(arguments, name)) for name in arguments.axes}
    begin = time.perf_counter()
    result = {
        "command": command_line(),
        "date": date.today().isoformat(),
        "machine": machine_class(),
        "torch": torch.__version__,
        "threads": arguments.threads,
    } | measure_axes(axes, Point(), arguments.repeats, arguments.threads)
    result["minutes"] = round((time.perf_counter() - begin) / 60, 1)
    print(table(result))
    if arguments.json is not None:
        write_json(arguments.json, result)
    if arguments.plot is not None:
        draw(result, arguments.plot)


if __name__ == "__main__":
    main()
