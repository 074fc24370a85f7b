"""Two processes with half the batch each against one process; of those of a launcher see `tests/launched.py`."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

Runs = Callable[[list[dict[str, Any]]], tuple[list[list[int]], list[dict[str, Any]]]]

NO_DROPOUT = {"hidden_dropout": 0.0, "embedding_dropout": 0.0, "time_dropout": 0.0}
# 88 rows: batches of 8 leave no rest, which two processes would fill up with rows of the beginning.
TRAINING = {"max_steps": 7, "lr_scheduler_type": "constant", "max_grad_norm": 0.5, "logging_steps": 1}
LOSSES = {
    "full": {},
    "in_batch": {"item_loss": "in_batch", "gather_negatives": True, "use_item_bias": True},
    "in_batch_log_q": {
        "item_loss": "in_batch",
        "gather_negatives": True,
        "use_log_q": True,
        "fusion": "dynamic_instance",
    },
}


@pytest.mark.slow
def test_two_processes_with_half_the_batch_each_equal_one(run_all: Runs) -> None:
    specs = []
    for model in LOSSES.values():
        for processes in (1, 2):
            batch = {"per_device_train_batch_size": 8 // processes, "gradient_accumulation_steps": 2}
            specs.append(
                {
                    "model": model | NO_DROPOUT,
                    "training": TRAINING | batch,
                    "train_rows": 88,
                    "processes": processes,
                }
            )
    codes, results = run_all(specs)
    assert codes == [[0], [0, 0]] * len(LOSSES)
    for one, two in zip(results[::2], results[1::2], strict=True):
        assert one["weights"].keys() == two["weights"].keys()
        for name, weight in one["weights"].items():
            torch.testing.assert_close(two["weights"][name], weight, atol=1e-5, rtol=1e-5, msg=name)
        losses = [[entry["loss"] for entry in run["state"]["log_history"] if "loss" in entry] for run in (one, two)]
        assert len(losses[0]) == 7 and losses[1] == pytest.approx(losses[0], abs=1e-5)


@pytest.mark.slow
def test_the_catalogue_is_sent_to_other_processes_once_unless_each_step_is_told_to(run_all: Runs) -> None:
    ways: list[dict[str, Any]] = [
        {},
        {"torch_compile": True, "torch_compile_backend": "eager"},
        {"ddp_broadcast_buffers": True},
    ]
    spec = {"model": {"use_cooccurrence": True} | NO_DROPOUT, "train_rows": 88, "count_sent": True}
    batch = {"per_device_train_batch_size": 4}
    alone = {"training": TRAINING | {"per_device_train_batch_size": 8}, "processes": 1}
    codes, (one, *pairs) = run_all(
        [spec | alone, *(spec | {"training": TRAINING | batch | way, "processes": 2} for way in ways)]
    )
    assert codes == [[0], *[[0, 0]] * len(ways)] and one["sent"] == []
    # Of 26 items with the padding: 6 and 5 features, and 25 neighbours with their counts.
    buffers = 26 * (6 + 5 + 25 + 25)
    for two, steps in zip(pairs, (0, 0, 7), strict=True):
        # When the model is wrapped, with its weights; and where it was asked for at each step.
        assert two["sent"][0] > buffers and two["sent"][1:] == [buffers] * steps
        for name, weight in one["weights"].items():
            torch.testing.assert_close(two["weights"][name], weight, atol=1e-5, rtol=1e-5, msg=name)


@pytest.mark.slow
def test_metrics_do_not_change_with_processes_and_batches(run_all: Runs) -> None:
    spec = {"train": False, "evaluate": 9, "users": 12}
    shapes = [(1, 9), (1, 2), (2, 5), (2, 1), (2, 16)]
    codes, results = run_all(
        [spec | {"processes": n, "training": {"per_device_eval_batch_size": size}} for n, size in shapes]
    )
    assert codes == [[0] * processes for processes, _ in shapes]
    timings = ("runtime", "per_second", "preparation_time")
    found = [
        {name: value for name, value in result["metrics"].items() if not name.endswith(timings)} for result in results
    ]
    assert found[0]["eval_users"] == 9 and "eval_coverage@10" in found[0] and "eval_loss" in found[0]
    # User vectors round by the shape of the batch, which moves the loss in its last digits and here no rank.
    losses = [metrics.pop("eval_loss") for metrics in found]
    assert losses == pytest.approx([losses[0]] * len(losses), rel=1e-6)
    for metrics in found[1:]:
        assert metrics == pytest.approx(found[0], rel=1e-12)


@pytest.mark.slow
def test_targets_are_gathered_from_batches_of_different_sizes_with_their_gradients(run_all: Runs) -> None:
    codes, (result,) = run_all([{"processes": 2, "gather": [3, 1]}])
    assert codes == [[0, 0]]
    # Rows of process 0, then of process 1; the gradient of each is the sum of both processes' factors.
    assert result["labels"].tolist() == [10, 11, 12, 20, -100, -100] and result["offset"] == 0
    assert result["embeds"].tolist() == [[0.0], [1.0], [2.0], [100.0], [0.0], [0.0]]
    assert result["grad"].tolist() == [[1.0 + 10.0], [2.0 + 20.0], [3.0 + 30.0]]
