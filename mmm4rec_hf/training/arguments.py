"""What transformers' arguments for a training may not do to an evaluation or a model, and what is refused."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments

from mmm4rec_hf.processes import check_processes

# Rows that these leave out would be users that no metric counts, rows in another order ranks of other users.
_OF_TRAINING: dict[str, Any] = {
    "dataloader_drop_last": False,
    "train_sampling_strategy": "random",
    "group_by_length": False,
}
_FULL_EVAL = {"fp16_full_eval": torch.float16, "bf16_full_eval": torch.bfloat16}


def check_arguments(arguments: TrainingArguments, has_own_metrics: bool = False) -> None:
    """
    Refuses arguments by which the model would silently learn something else, and those that transformers fails with
    later, or with a word about something else.

    Args:
        arguments (`TrainingArguments`): Of a trainer.
        has_own_metrics (`bool`, *optional*, defaults to `False`): Whether the trainer is given `compute_metrics`.

    Raises:
        ValueError: For smoothed labels: transformers sums over all scores, that of the padding item among them, which
            is the lowest float, and leaves out the loss that `item_loss` names. For noise on embeddings of tokens,
            which the model has none of. For metrics batch by batch, unless the caller's own are computed so. For one
            of several processes that takes itself for the only one.
    """
    check_processes(arguments.world_size)
    if arguments.label_smoothing_factor:
        raise ValueError(
            f"label_smoothing_factor is {arguments.label_smoothing_factor}; it must be 0: it would spread over the "
            "padding item, and replace the model's own loss"
        )
    if arguments.neftune_noise_alpha is not None:
        raise ValueError(
            f"neftune_noise_alpha is {arguments.neftune_noise_alpha}; leave it out: it is noise on embeddings of "
            "tokens, and the model reads features of items; its own noise is embedding_dropout of its configuration"
        )
    if arguments.batch_eval_metrics and not has_own_metrics:
        raise ValueError(
            f"batch_eval_metrics is {arguments.batch_eval_metrics}; leave it out: an evaluation keeps two numbers a "
            "user, and computes the metrics from them at its end; or give a compute_metrics of your own"
        )


def keep_buffers_apart(model: nn.Module, arguments: TrainingArguments) -> None:
    """
    Lets no step of several processes send all buffers from the first to the others: they are the items' features and
    counts, alike in all processes since these began, and changed by no step.

    Args:
        model (`nn.Module`): As a step calls it; a DistributedDataParallel, compiled or not, is told.
        arguments (`TrainingArguments`): Of a trainer; what `ddp_broadcast_buffers` says, if anything, stands.
    """
    wrapped: Any = getattr(model, "_orig_mod", model)
    if arguments.ddp_broadcast_buffers is None and isinstance(wrapped, nn.parallel.DistributedDataParallel):
        # Here and not by the argument, which keeps them from being sent at the beginning as well.
        wrapped.broadcast_buffers = False


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
def in_full_eval_precision(model: PreTrainedModel, arguments: TrainingArguments) -> Iterator[None]:
    """
    A model in the precision of `fp16_full_eval` or `bf16_full_eval`, for an evaluation outside of a training. As in a
    model that is loaded in half precision, rates and times stay float32. Afterwards it has the very weights that it
    had, where transformers leaves them rounded.

    Args:
        model (`PreTrainedModel`): What is evaluated.
        arguments (`TrainingArguments`): Of a trainer; without one of the two nothing changes.
    """
    dtype = next((dtype for name, dtype in _FULL_EVAL.items() if getattr(arguments, name)), None)
    if dtype is None:
        yield
        return
    model.to(arguments.device)  # type: ignore[arg-type]
    kept_in_float32 = set(model._keep_in_fp32_modules_strict or ())
    held = [
        (tensor, tensor.data)
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
        if tensor.is_floating_point() and not kept_in_float32.intersection(name.split("."))
    ]
    try:
        for tensor, data in held:
            tensor.data = data.to(dtype)
        # transformers would round the others too.
        with _with_other(arguments, dict.fromkeys(_FULL_EVAL, False)):
            yield
    finally:
        for tensor, data in held:
            tensor.data = data


@contextlib.contextmanager
def keeping_token_ids(trainer: Trainer) -> Iterator[None]:
    """
    A training whose processor's tokenizer is that of the items' encoder: transformers would write its special tokens
    into the model's configuration, and fail where there is none.

    Args:
        trainer (`Trainer`): Has its `processing_class` again from the beginning of the training on.
    """
    processor = trainer.processing_class

    class Restore(TrainerCallback):
        def on_train_begin(self, *arguments: Any, **options: Any) -> None:
            trainer.processing_class = processor

    restore = Restore()
    trainer.add_callback(restore)
    trainer.processing_class = None
    try:
        yield
    finally:
        trainer.processing_class = processor
        trainer.remove_callback(restore)


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
