"""What a person at a terminal reads while a model is trained; logs and files keep all numbers."""

import logging
import re
import sys
from collections.abc import Mapping
from typing import Any

from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerControl, TrainerState, TrainingArguments

logger = logging.getLogger(__name__)


def progress_line(values: Mapping[str, Any], step: int, num_steps: int) -> str:
    """
    A short line of what was logged: losses, and of HR and NDCG those at the smallest cut-off.

    Args:
        values (`Mapping[str, Any]`): By name, such as `loss`, `eval_ndcg@10`, or of a domain `films/ndcg@10`.
        step (`int`): At which they were logged.
        num_steps (`int`): Of the whole training.

    Returns:
        `str`: Such as `"step 50 of 340, epoch 0.74: loss 5.123"`.
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
    numbers = ", ".join(f"{words[name]} {value:.4g}" for name, value in shown.items())
    return f"{place}: {numbers}" if numbers else place


class ProgressLines(ProgressCallback):
    """
    In place of transformers' dictionaries: a bar with the last loss and a line a validation where there is a terminal,
    else a line for each log, by `logging`.
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Starts the bar."""
        if not args.disable_tqdm:
            super().on_train_begin(args, state, control, **kwargs)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Moves the bar on."""
        if self.training_bar is not None:
            super().on_step_end(args, state, control, **kwargs)

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
        line = progress_line(logs, state.global_step, state.max_steps)
        if self.training_bar is None:
            logger.info(line)
        elif "loss" in logs:
            self.training_bar.set_postfix_str(f"loss {logs['loss']:.4g}")
        else:
            self.training_bar.write(line, file=sys.stderr)

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
