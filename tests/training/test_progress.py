"""What a terminal shows of a training."""

import io
import logging
import sys
from pathlib import Path

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from mmm4rec_hf.training import progress
from mmm4rec_hf.training.progress import ProgressLines, progress_line, time_left


def test_a_line_has_what_a_person_looks_at_and_names_the_split() -> None:
    trained = {"loss": 5.123456, "grad_norm": 1.25, "learning_rate": 1e-3, "epoch": 0.73529}
    assert progress_line(trained, 50, 1340) == "step 50 of 1,340, epoch 0.735: loss 5.123"
    measured = {"eval_loss": 4.9, "eval_hr@10": 0.1, "eval_hr@20": 0.2, "eval_ndcg@10": 0.05, "eval_mrr@10": 0.04,
                "eval_users": 943, "eval_protocol": "...", "eval_runtime": 2.5, "epoch": 1.0}  # fmt: skip
    assert progress_line(measured, 68, 68) == "step 68 of 68, epoch 1, validation: loss 4.9, hr@10 0.1, ndcg@10 0.05"


def test_a_line_of_several_domains_names_each() -> None:
    measured = {"films/loss": 3.25, "films/ndcg@5": 0.5, "films/ndcg@10": 0.75, "toys/ndcg@5": 0.25, "ndcg@5": 0.375}
    assert progress_line(measured, 2, 9) == (
        "step 2 of 9, validation: films/loss 3.25, films/ndcg@5 0.5, toys/ndcg@5 0.25, ndcg@5 0.375"
    )
    ended = {"train_runtime": 31.5, "train_loss": 2.125, "epoch": 5.0}
    assert progress_line(ended, 9, 9) == "step 9 of 9, epoch 5: mean training loss 2.125"
    assert progress_line({"learning_rate": 0.1}, 2, 9) == "step 2 of 9"


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0, "less than a minute left"),
        (44, "less than a minute left"),
        (46, "about a minute left"),
        (89, "about a minute left"),
        (100, "about 2 minutes left"),
        (180, "about 3 minutes left"),
        (5300, "about 88 minutes left"),
        (7200, "about 2 hours left"),
        (86_400, "about 24 hours left"),
        (259_200, "about 3 days left"),
    ],
)
def test_time_left_is_rounded_to_what_one_would_say(seconds: float, told: str) -> None:
    assert time_left(seconds) == told
    assert progress_line({"loss": 2.5}, 5, 9, seconds) == f"step 5 of 9: loss 2.5, {told}"
    assert progress_line({}, 5, 9, seconds) == f"step 5 of 9: {told}"


def test_the_time_left_is_that_of_the_steps_of_this_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    caplog.set_level(logging.INFO, "mmm4rec_hf")
    args = TrainingArguments(str(tmp_path), disable_tqdm=True, report_to="none", use_cpu=True)
    # Goes on at step 100 of 130, 6 seconds a step.
    state, control, shown = TrainerState(max_steps=130, global_step=100), TrainerControl(), ProgressLines()
    shown.on_train_begin(args, state, control)
    for step in range(101, 131):
        now[0] += 6
        state.global_step = step
        shown.on_step_end(args, state, control)
        if step in (103, 110, 130):
            shown.on_log(args, state, control, logs={"loss": 1.5})
    assert caplog.messages == [
        "step 103 of 130: loss 1.5",
        "step 110 of 130: loss 1.5, about 2 minutes left",
        "step 130 of 130: loss 1.5",
    ]
    # Nothing logged for 20 seconds and 5 steps: a line of the time alone, once.
    caplog.clear()
    state.global_step = 0
    shown.on_train_begin(args, state, control)
    for step in range(1, 9):
        now[0] += 6
        state.global_step = step
        shown.on_step_end(args, state, control)
    assert caplog.messages == ["step 5 of 130: about 12 minutes left"]


def _train(folder: Path, disable_tqdm: bool) -> None:
    args = TrainingArguments(str(folder), disable_tqdm=disable_tqdm, report_to="none", use_cpu=True)
    state, control, shown = TrainerState(max_steps=2), TrainerControl(), ProgressLines()
    shown.on_train_begin(args, state, control)
    for step in (1, 2):
        state.global_step = step
        shown.on_step_end(args, state, control)
        shown.on_log(args, state, control, logs={"loss": 4.0 / step, "grad_norm": 1.0, "epoch": step / 2})
    shown.on_prediction_step(args, state, control, eval_dataloader=[0])
    shown.on_log(args, state, control, logs={"eval_loss": 1.5, "epoch": 1.0})
    shown.on_evaluate(args, state, control)
    shown.on_train_end(args, state, control)


def test_without_a_terminal_each_log_is_a_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO, "mmm4rec_hf")
    _train(tmp_path, disable_tqdm=True)
    assert caplog.messages == [
        "step 1 of 2, epoch 0.5: loss 4",
        "step 2 of 2, epoch 1: loss 2",
        "step 2 of 2, epoch 1, validation: loss 1.5",
    ]
    printed = capsys.readouterr()
    assert printed.out == "" and "{" not in printed.err


def test_a_bar_has_the_last_loss_and_stdout_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    errors = io.StringIO()
    monkeypatch.setattr(sys, "stderr", errors)
    _train(tmp_path, disable_tqdm=False)
    assert "loss 2" in errors.getvalue() and "step 2 of 2, epoch 1, validation: loss 1.5" in errors.getvalue()
    assert "{" not in errors.getvalue() and "grad_norm" not in errors.getvalue()
    assert capsys.readouterr().out == ""
