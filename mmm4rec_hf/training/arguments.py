"""What transformers' arguments for a training may not do to an evaluation or a model, and what is refused."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from transformers import TrainingArguments

# Rows that these leave out would be users that no metric counts, rows in another order ranks of other users.
_OF_TRAINING: dict[str, Any] = {
    "dataloader_drop_last": False,
    "train_sampling_strategy": "random",
    "group_by_length": False,
}
_FULL_EVAL = {"fp16_full_eval": torch.float16, "bf16_full_eval": torch.bfloat16}


@contextlib.contextmanager
def reading_every_row(arguments: TrainingArguments) -> Iterator[None]:
    """
    Without what is said of training batches, which transformers applies to those of an evaluation as well.

    Args:
        arguments (`TrainingArguments`): Of a trainer; as they were afterwards.
    """
    with _with_other(arguments, _OF_TRAINING):
        yield


@contextlib.contextmanager
def _with_other(arguments: TrainingArguments, values: dict[str, Any]) -> Iterator[None]:
    kept = {name: getattr(arguments, name) for name in values if hasattr(arguments, name)}
    try:
        for name in kept:
            setattr(arguments, name, values[name])
        yield
    finally:
        for name, value in kept.items():
            setattr(arguments, name, value)
