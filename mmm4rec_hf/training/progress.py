"""What a person at a terminal reads while a model is trained; logs and files keep all numbers."""

import logging
import re
import sys
import time
from collections.abc import Mapping
from typing import Any

from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerControl, TrainerState, TrainingArguments

logger = logging.getLogger(__name__)

# Before these are over, the first steps' own costs would be taken for those of all.
_STEPS_FOR_AN_ESTIMATE, _SECONDS_TO_FIRST_LINE = 5, 20.0


def time_left(seconds: float) -> str:
    """
    How long something takes yet, as one would say it.

    Args:
        seconds (`float`): An estimate.

    Returns:
        `str`: Such as `"about 3 minutes left"`.
    """
    minutes = seconds / 60
    if minutes < 0.75:
        return "less than a minute left"
    if minutes < 1.5:
        return "about a minute left"
    if minutes < 90:
        return f"about {minutes:.0f} minutes left"
    return f"about {minutes / 60:.0f} hours left" if minutes < 48 * 60 else f"about {minutes / 1440:.0f} days left"


def progress_line(values: Mapping[str, Any], step: int, num_steps: int, seconds_left: float | None = None) -> str:
    """
    A short line of what was logged: losses, and of HR and NDCG those at the smallest cut-off.

    Args:
        values (`Mapping[str, Any]`): By name, such as `loss`, `eval_ndcg@10`, or of a domain `films/ndcg@10`.
        step (`int`): At which they were logged.
        num_steps (`int`): Of the whole training.
        seconds_left (`float`, *optional*): What the rest is estimated to take.

    Returns:
        `str`: Such as `"step 50 of 340, epoch 0.74: loss 5.123, about 3 minutes left"`.
    """
    cut_offs = [int(found[1]) for name in values if (found := re.search(r"@(\d+)$", name))]
    wanted = {"loss", *(f"{kind}@{min(cut_offs)}" for kind in ("hr", "ndcg") if cut_offs)}
    shown = {name: value for name, value in values.items() if re.split("[/_]", name)[-1] in wanted}
    place = f"step {step:,} of {num_steps:,}"
    if "epoch" in values:
        place += f", epoch {values['epoch']:.3g}"
    if any(name.startswith("eval_") or "/" in name for name in shown):
        place += ", validation"
    words = {name: name.removeprefix("eval_") for name in shown} | {"train_loss": "mean training loss"}
    parts = [f"{words[name]} {value:.4g}" for name, value in shown.items()]
    if seconds_left is not None:
        parts.append(time_left(seconds_left))
    return f"{place}: {', '.join(parts)}" if parts else place


class Pace:
    """
    What the steps that are left would take at the mean of those of this session, which begins now.

    Args:
        first_step (`int`): Steps that are done already.
        num_steps (`int`): Of the whole training.
    """

    def __init__(self, first_step: int, num_steps: int) -> None:
        self._first_step, self._num_steps = first_step, num_steps
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """`float`: Since this session began."""
        return time.monotonic() - self._began

    def seconds_left(self, step: int) -> float | None:
        """After so many steps; `None` at the session's start, and at the end."""
        done = step - self._first_step
        if done < _STEPS_FOR_AN_ESTIMATE or step >= self._num_steps:
            return None
        return self.seconds / done * (self._num_steps - step)


class ProgressLines(ProgressCallback):
    """
    In place of transformers' dictionaries: a bar with the last loss and a line a validation where there is a terminal,
    else a line for each log, by `logging`, with the time that is left.
    """

    _pace = Pace(0, 0)
    _has_told = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Starts the bar, and the time."""
        self._pace, self._has_told = Pace(state.global_step, state.max_steps), False
        if not args.disable_tqdm:
            super().on_train_begin(args, state, control, **kwargs)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Moves the bar on; without one the first line of a slow training does not wait for the first log."""
        if self.training_bar is not None:
            super().on_step_end(args, state, control, **kwargs)
        elif not self._has_told and state.is_world_process_zero:
            left = self._pace.seconds_left(state.global_step)
            if left is not None and self._pace.seconds >= _SECONDS_TO_FIRST_LINE:
                self._has_told = True
                logger.info(progress_line({}, state.global_step, state.max_steps, left))

    def on_prediction_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        eval_dataloader: Any = None,
        **kwargs: Any,
    ) -> None:
        """Moves the bar of an evaluation on."""
        if not args.disable_tqdm:
            super().on_prediction_step(args, state, control, eval_dataloader, **kwargs)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Says what was logged."""
        if not state.is_world_process_zero or logs is None:
            return
        if self.training_bar is None:
            self._has_told = True
            left = self._pace.seconds_left(state.global_step)
            logger.info(progress_line(logs, state.global_step, state.max_steps, left))
        elif "loss" in logs:
            self.training_bar.set_postfix_str(f"loss {logs['loss']:.4g}")
        else:
            self.training_bar.write(progress_line(logs, state.global_step, state.max_steps), file=sys.stderr)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ends the bar."""
        if self.training_bar is not None:
            super().on_train_end(args, state, control, **kwargs)


def show_progress(trainer: Trainer) -> None:
    """
    Lets a trainer show its progress by [`ProgressLines`].

    Args:
        trainer ([`~transformers.Trainer`]): Before its training.
    """
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(ProgressLines)
