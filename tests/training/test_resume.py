"""A run that is killed and goes on ends with the bits of one that was never stopped."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

Runs = Callable[[list[dict[str, Any]]], tuple[list[list[int]], list[dict[str, Any]]]]

KILLED = -9
COMPARED = ("best_metric", "best_global_step", "global_step", "epoch", "max_steps")


def assert_same(one: Any, other: Any, name: str = "") -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys(), name
        for key in one:
            assert_same(one[key], other[key], f"{name}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), name
        for number, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{name}.{number}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), name
    elif isinstance(one, np.ndarray):
        assert np.array_equal(one, other), name
    else:
        assert one == other, name


def assert_ended_alike(one: dict[str, Any], other: dict[str, Any]) -> None:
    for part in ("weights", "optimizer", "torch", "numpy"):
        assert_same(one[part], other[part], part)
    for name in COMPARED:
        assert one["state"][name] == other["state"][name], name
    for result in (one, other):
        result["evaluations"] = [
            {name: value for name, value in entry.items() if "@" in name or name in ("eval_loss", "step")}
            for entry in result["state"]["log_history"]
            if "eval_loss" in entry
        ]
    assert one["evaluations"] and one["evaluations"] == other["evaluations"]
    assert one["state"]["stateful_callbacks"] == other["state"]["stateful_callbacks"]


STEPS = {"eval_strategy": "steps", "eval_steps": 2, "save_steps": 2}
EPOCHS = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}
MIXED = {"eval_strategy": "epoch", "save_steps": 1}
COMMON = {"per_device_train_batch_size": 8, "metric_for_best_model": "ndcg@10", "save_total_limit": 2}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("training", "model", "kills"),
    [
        # Before the first checkpoint of a run that goes on, between two, and while one is written.
        (STEPS | {"gradient_accumulation_steps": 2, "max_steps": 11}, {}, [(3, "begin"), (6, "saving"), (9, "begin")]),
        # With random numbers in the loss as well; in the middle of an epoch.
        (EPOCHS | {"num_train_epochs": 3}, {"item_loss": "sampled", "num_sampled_negatives": 9}, [(15, "begin")]),
        # Right after the checkpoint of an epoch's last step, before the evaluation at its end.
        (MIXED | {"num_train_epochs": 2}, {"item_loss": "in_batch", "use_log_q": True}, [(12, "saved")]),
    ],
    ids=["steps", "epochs", "checkpoint-before-evaluation"],
)
def test_a_killed_run_ends_as_if_it_had_not_been(
    run_all: Runs, tmp_path: Path, training: dict[str, Any], model: dict[str, Any], kills: list[tuple[int, str]]
) -> None:
    spec = {"training": COMMON | training, "model": model, "patience": 100}
    stopped = {**spec, "output_dir": str(tmp_path / "stopped")}
    starts = [
        {**stopped, "resume": number > 0, "kill_at": step, "when": when} for number, (step, when) in enumerate(kills)
    ]
    codes, results = run_all([spec, *starts, {**stopped, "resume": True}])
    assert codes == [[0], *[[KILLED] for _ in starts], [0]]
    assert_ended_alike(results[0], results[-1])


@pytest.mark.slow
def test_six_steps_are_three_and_three_more(run_all: Runs, tmp_path: Path) -> None:
    spec = {"training": COMMON | STEPS | {"max_steps": 6, "eval_steps": 1, "save_steps": 1}, "patience": 100}
    specs = [spec]
    for step in (1, 3, 5):
        stopped = {**spec, "output_dir": str(tmp_path / f"stopped-{step}")}
        specs += [{**stopped, "kill_at": step, "when": "begin"}, {**stopped, "resume": True}]
    codes, (whole, *results) = run_all(specs)
    assert codes == [[0], *[[KILLED], [0]] * 3]
    for ended in results[1::2]:
        assert_ended_alike(whole, ended)


@pytest.mark.slow
def test_patience_is_not_lost_and_a_run_that_had_ended_takes_no_step_more(run_all: Runs, tmp_path: Path) -> None:
    # With a learning rate of 0 no evaluation is better than the first.
    training = COMMON | STEPS | {"learning_rate": 0.0, "max_steps": 30, "load_best_model_at_end": True}
    spec = {"training": training, "patience": 3}
    stopped = {**spec, "output_dir": str(tmp_path / "stopped")}
    by_count = {"training": COMMON | STEPS | {"max_steps": 5, "save_steps": 1}, "patience": 100}
    ended = {**by_count, "output_dir": str(tmp_path / "ended")}
    codes, results = run_all(
        [
            spec,
            {**stopped, "kill_at": 5, "when": "begin"},
            {**stopped, "resume": True},
            {**stopped, "resume": True},
            ended,
            {**ended, "resume": True},
        ]
    )
    assert codes == [[0], [KILLED], [0], [0], [0], [0]]
    assert results[0]["state"]["global_step"] == 8  # evaluated after 2, 4, 6 and 8 steps
    assert_ended_alike(results[0], results[2])
    for one, other in ((2, 3), (4, 5)):
        assert_same(results[one]["weights"], results[other]["weights"])
        assert results[one]["state"]["global_step"] == results[other]["state"]["global_step"]
