"""Where the time of a step goes, in the published formulation written down plainly and in ours.

    python benchmarks/speed/profile_step.py --data beauty --batch-size 256 --json benchmarks/speed/profile_step.json

The batches, weights and steps of step.py. Shares are of the CPU time that torch's profiler saw inside operators,
without those that they call.
"""

import argparse
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch
from step import batches, command_line, forms, machine_class, make_model, no_grad, training_step
from torch.profiler import ProfilerActivity, profile

from mmm4rec_hf.outputs import write_json

# What operators do; the others count as "other".
GROUPS = {
    "matrix products": ("mm", "addmm", "bmm", "baddbmm"),
    "convolutions": ("mkldnn_convolution", "convolution_backward", "_PackedConv", "_PackedConvBackward", "addcmul_",
                     "addcmul", "index_copy_", "thnn_conv2d", "_conv_depthwise2d", "convolution"),
    "random numbers": ("bernoulli_", "random_"),
    "activations": ("silu", "silu_backward", "hardswish", "hardswish_backward", "softplus", "exp", "tanh", "sigmoid"),
    "copies and look-ups": ("copy_", "cat", "index", "index_select", "embedding", "fill_", "clone", "index_add_"),
    "products and sums": ("mul", "add", "add_", "sum", "div", "sub", "pow", "mul_"),
    "norms": ("native_layer_norm", "native_layer_norm_backward", "rsqrt", "mean"),
    "sorting": ("sort", "nonzero"),
}  # fmt: skip


def shares(step: Callable[[dict[str, torch.Tensor]], object], made: list[dict[str, torch.Tensor]]) -> dict[str, float]:
    """Seconds of a step, and the share of each group of operators, the largest first."""
    for batch in made:
        step(batch)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for batch in made:
            step(batch)
    spent = {event.key.removeprefix("aten::"): event.self_cpu_time_total for event in profiler.key_averages()}
    total = sum(spent.values())
    groups = {group: sum(spent.get(name, 0) for name in names) / total for group, names in GROUPS.items()}
    groups["other"] = 1 - sum(groups.values())
    ordered = dict(sorted(groups.items(), key=lambda pair: -pair[1]))
    return {"seconds": total / 1e6 / len(made)} | ordered


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="beauty", help="a folder of real data")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--hidden-size", type=int, default=256)
    parser.add_argument("--json", type=Path, help="where to write the result")
    arguments = parser.parse_args()
    made, num_items = batches(arguments.data, arguments.batch_size, False, 2)
    model = make_model(num_items, arguments.hidden_size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    result: dict[str, object] = {
        "command": command_line(),
        "date": date.today().isoformat(),
        "machine": machine_class(),
        "batch_size": arguments.batch_size,
    }
    for kind in ("train", "evaluate"):
        model.train(kind == "train")
        for form, (loss_of, _, ranks_of) in forms(model).items():
            step = training_step(loss_of, optimizer) if kind == "train" else no_grad(ranks_of)
            found = shares(step, made)
            result[f"{kind} {form}"] = found
            parts = ", ".join(f"{name} {share:.0%}" for name, share in found.items() if name != "seconds")
            print(f"{kind}, {form}: {found['seconds']:.3f} s of CPU; {parts}", flush=True)
    if arguments.json:
        write_json(arguments.json, result)


if __name__ == "__main__":
    main()
