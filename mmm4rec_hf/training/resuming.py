"""Where a stopped run of the trainer goes on, so that it ends as if it had not been stopped."""

import json
import logging
import zipfile
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerState, TrainingArguments
from transformers.trainer_utils import IntervalStrategy

logger = logging.getLogger(__name__)

STATE_NAME = "trainer_state.json"


def last_whole_checkpoint(arguments: TrainingArguments) -> str | None:
    """
    The newest of the trainer's checkpoints from which a run goes on as if it had not been stopped.

    A checkpoint that was not written to its end, or without the optimizer's state, is left out, with a warning. So is
    one that was written after the last step of an epoch and before the evaluation there: the trainer would go on with
    the next epoch, and early stopping and the best checkpoint would never hear of that evaluation.

    Args:
        arguments (`TrainingArguments`): Of the run; checkpoints lie in `output_dir`.

    Returns:
        `str`, *optional*: Its folder; `None` where there is none.
    """
    folder = Path(str(arguments.output_dir))
    found = [path for path in folder.glob("checkpoint-*") if path.name.rpartition("-")[2].isdigit()]
    for checkpoint in sorted(found, key=lambda path: int(path.name.rpartition("-")[2]), reverse=True):
        problem = _problem(checkpoint, arguments)
        if problem is None:
            return str(checkpoint)
        logger.warning("%s is left out: %s", checkpoint, problem)
    return None


def step_of(checkpoint: str) -> int:
    """Steps of the optimizer that are done in a checkpoint of the trainer."""
    return int(_read_state(Path(checkpoint))["global_step"])


class BestCheckpointInPlace(TrainerCallback):
    """
    Looks for a run's best checkpoint beside the others, as the run's folder may have been moved or renamed.

    Attributes:
        checkpoint (`str`, *optional*): That the run goes on from, if it does.
    """

    def __init__(self) -> None:
        self.checkpoint: str | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        if self.checkpoint is not None:
            # transformers forgets one that is not where it was, but neither its step nor its metric.
            state.best_model_checkpoint = _read_state(Path(self.checkpoint)).get("best_model_checkpoint")
        find_best(state, args)


def find_best(state: TrainerState, arguments: TrainingArguments) -> bool:
    """
    Corrects where the best checkpoint lies.

    Args:
        state (`TrainerState`): As it was written; a best checkpoint that lies in `output_dir` now is named there, and
            one that is gone is forgotten, with its metric, which no weights have any more.
        arguments (`TrainingArguments`): Of the run.

    Returns:
        `bool`: Whether there is a best checkpoint to load at the end.
    """
    # The best evaluation may be of a step at which nothing was saved.
    if state.best_model_checkpoint is None or not arguments.load_best_model_at_end:
        return False
    known = Path(state.best_model_checkpoint)
    for place in (known, Path(str(arguments.output_dir), known.name)):
        if place.is_dir():
            state.best_model_checkpoint = str(place)
            return True
    logger.warning("%s is gone: kept is the best of what follows, and where nothing does, the last weights", known)
    state.best_model_checkpoint = state.best_global_step = state.best_metric = None
    return False


def is_finished(checkpoint: str, arguments: TrainingArguments) -> bool:
    """
    Whether a checkpoint is a run's last one, by its number of steps or because it was stopped early. The trainer would
    take one more step.

    Args:
        checkpoint (`str`): Its folder.
        arguments (`TrainingArguments`): Of the run.
    """
    state = _read_state(Path(checkpoint))
    if arguments.max_steps > 0 and state["global_step"] >= arguments.max_steps:
        return True
    control = state["stateful_callbacks"].get("TrainerControl", {}).get("args", {})
    return bool(control.get("should_training_stop")) and state["global_step"] < state["max_steps"]


def _read_state(checkpoint: Path) -> dict[str, Any]:
    return json.loads((checkpoint / STATE_NAME).read_text(encoding="utf-8"))


def _problem(checkpoint: Path, arguments: TrainingArguments) -> str | None:
    """What speaks against a checkpoint."""
    try:
        # The first process writes this file last.
        state = _read_state(checkpoint)
    except (OSError, ValueError):
        return "it was not written to its end"
    if arguments.save_only_model:
        if state["global_step"] < state["max_steps"] and not is_finished(str(checkpoint), arguments):
            return (
                "it holds weights alone, as save_only_model says: a training that goes on needs the optimizer's state"
            )
    else:
        ranks = [""] if arguments.world_size <= 1 else [f"_{rank}" for rank in range(arguments.world_size)]
        for name in (f"rng_state{rank}.pth" for rank in ranks):
            if not zipfile.is_zipfile(checkpoint / name):
                return f"{name} is missing or cut off; it needs as many processes as before"
        if len(ranks) > 1 and (checkpoint / f"rng_state_{len(ranks)}.pth").exists():
            return f"more than {len(ranks)} processes wrote it; it needs as many as before"
    evaluated = any(
        entry["step"] == state["global_step"] and "eval_runtime" in entry for entry in state["log_history"]
    )
    if arguments.eval_strategy == IntervalStrategy.EPOCH and float(state["epoch"]).is_integer() and not evaluated:
        return "it lacks the evaluation at the end of its epoch"
    return None
