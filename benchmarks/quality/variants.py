"""The variants of a study in a table, each beside one that it changes.

    python benchmarks/quality/variants.py choices --against main/mmm4rec
    python benchmarks/quality/variants.py time --against published
    python benchmarks/quality/variants.py why --against transfer/scratch --also transfer/from-films --steps 10 50

Means over seeds: how far times move user vectors (`probes.time_effect`), cross entropy and NDCG@10 on the validation
split, NDCG@10 on the test split and its difference to `--against`, paired by user. With `--steps` the mean validation
cross entropy on the way: at these steps, at its best, and the step where it is as good as the best of `--against`.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from convergence import mean_curve, runs_of_variant
from run_files import RESULTS, parts_of_users, user_means
from study import load_study

from mmm4rec_hf.evaluation.significance import paired_p_values

Runs = Sequence[Mapping[str, Any]]


def columns_of(runs: Runs, against: Runs, users: np.ndarray) -> dict[str, str]:
    """What a row says of a variant's metrics, for the users that count."""
    values, other = (user_means(some, "ndcg@10")[users] for some in (runs, against))
    difference = (values - other)[:, None]
    p_value = paired_p_values(difference, np.arange(len(difference)))[0]
    held_out = [run["split"]["validation"]["metrics"] for run in runs]
    of_all = {
        "effect of times": f"{np.mean([run['time_effect'] for run in runs]):.2g}",
        "cross entropy, validation": f"{np.mean([metrics['loss'] for metrics in held_out]):.3f}",
        "NDCG@10, validation": f"{np.mean([metrics['ndcg@10'] for metrics in held_out]):.4f}",
    }
    return {
        "seeds": str(len(runs)),
        **(of_all if users.all() else {}),
        "NDCG@10, test": f"{values.mean():.4f}",
        "difference": "" if runs is against else f"{difference.mean():+.4f}",
        "p": "" if runs is against else f"{p_value:.3f}",
    }


def way_of(runs: Runs, against: Runs, steps: Sequence[int]) -> dict[str, str]:
    """What a row says of the way there."""
    at, losses = mean_curve(runs, "loss")
    found = {f"step {step}": f"{losses[at == step][0]:.3f}" for step in steps}
    good = losses <= mean_curve(against, "loss")[1].min()
    return found | {
        "best, at step": f"{losses.min():.3f} at {at[losses.argmin()]}",
        "there at step": str(at[good][0]) if good.any() else "never",
    }


def table(rows: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Lines of a Markdown table."""
    names = list(next(iter(rows.values())))
    lines = [f"| variant | {' | '.join(names)} |", "| --- " * (len(names) + 1) + "|"]
    return lines + [f"| {variant} | {' | '.join(row.values())} |" for variant, row in rows.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", help="the name of a study")
    parser.add_argument("--against", required=True, help="a variant of it, or STUDY/VARIANT of another")
    parser.add_argument("--also", nargs="+", default=[], help="more of other studies, STUDY/VARIANT")
    parser.add_argument("--data", nargs="+", help="by default all of the study")
    parser.add_argument("--steps", nargs="+", type=int, help="of the curves")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    study = load_study(arguments.study)
    wanted = (arguments.against, *arguments.also, *study["variants"])
    names = dict.fromkeys(name if "/" in name else f"{study['name']}/{name}" for name in wanted)
    for data in arguments.data or study["data"]:
        found = {name: runs_of_variant(arguments.results, data, name) for name in names}
        found = {name: runs for name, runs in found.items() if runs}
        against = found.get(next(iter(names)))
        if against is None:
            print(f"no results of {arguments.against} on {data}", file=sys.stderr)
            continue
        for title, users in parts_of_users(data).items():
            rows = {}
            for name, runs in found.items():
                variant = name.removeprefix(f"{study['name']}/")
                rows[variant] = columns_of(runs, against, users)
                if arguments.steps:
                    rows[variant] |= way_of(runs, against, arguments.steps)
            print(f"#### {title}: {int(users.sum())} users\n")
            print("\n".join(table(rows)) + "\n")


if __name__ == "__main__":
    main()
