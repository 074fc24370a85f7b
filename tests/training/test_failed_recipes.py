"""What a fine-tuning that fails at its beginning leaves in its folder, into which its corrected recipe writes."""

import errno
import json
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from mmm4rec_hf.training.finetuning import FinetuneRecipe, finetune

from .conftest import Killed, MakeFinetuneRecipe


def test_a_recipe_that_fails_later_does_not_keep_its_corrected_form_out(
    make_finetune_recipe: MakeFinetuneRecipe, tmp_path: Path
) -> None:
    training = make_finetune_recipe().training
    for wrong, told in (
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor is 0.1"),
        ({"metric_for_best_model": "ndcg@5"}, "metric_for_best_model is 'ndcg@5'; a validation gives .*ndcg@10"),
        # Each validation looks for it, whether or not it decides what is kept.
        ({"metric_for_best_model": "ndcg@5", "load_best_model_at_end": False}, "is 'ndcg@5'; a validation gives"),
        ({"prediction_loss_only": True}, "metric_for_best_model is 'ndcg@10'; a validation gives loss$"),
        # transformers makes optimizer and schedule in the training.
        (
            {"lr_scheduler_type": "warmup_stable_decay"},
            r"training.lr_scheduler_type 'warmup_stable_decay' cannot .*"
            r"num_decay_steps.*; give what it needs by training.lr_scheduler_kwargs, or another, as cosine or linear",
        ),
        (
            {"lr_scheduler_type": "cosine_with_min_lr"},
            "training.lr_scheduler_type 'cosine_with_min_lr' cannot be used",
        ),
        ({"optim": "adamw_torch_npu_fused"}, r"training.optim 'adamw_torch_npu_fused' cannot be used \(.*torch_npu"),
        ({"optim": "lomo"}, r"training.optim 'lomo' cannot be used \(.*lomo.*; install what it needs, or give anoth"),
    ):
        with pytest.raises(ValueError, match=told):
            finetune(make_finetune_recipe(training=training | wrong))
        assert not (tmp_path / "out" / "recipe.json").exists()
        assert not (tmp_path / "out" / "training.json").exists()
    with pytest.raises(ValueError, match=r"patience is 2, but training.metric_for_best_model is not given; .*ndcg@10"):
        wrong = {"metric_for_best_model": None, "load_best_model_at_end": False}
        finetune(make_finetune_recipe(training=training | wrong, early_stopping_patience=2))
    finetune(make_finetune_recipe(training=training))


# TensorBoard's own place, the checkpoints' own folder (CodeCarbon, or TENSORBOARD_LOGGING_DIR), and another.
EVENTS = ["checkpoints/runs/now/events.out.tfevents.1", "checkpoints/events.out.tfevents.1", "logs/events.1"]


def fail_after_a_tracker(recipe: FinetuneRecipe, error: BaseException, events: str) -> None:
    """Begins a run whose first tracker writes, as TensorBoard does, and whose second one or whose recipe fails."""
    written = Path(recipe.output_dir) / events

    class Writing(TrainerCallback):
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            written.parent.mkdir(parents=True, exist_ok=True)
            written.write_bytes(b"events")

    class Failing(TrainerCallback):
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            raise error

    def fail(*args: Any) -> None:
        raise error

    with pytest.MonkeyPatch.context() as patched, pytest.raises(type(error)):
        patched.setitem(INTEGRATION_TO_CALLBACK, "tensorboard", Writing)
        patched.setitem(INTEGRATION_TO_CALLBACK, "wandb", TrainerCallback if isinstance(error, OSError) else Failing)
        if isinstance(error, OSError):
            patched.setattr("mmm4rec_hf.training.folders.write_json", fail)
        finetune(recipe)
    assert written.is_file() and not Path(recipe.output_dir, "recipe.json").exists()


@pytest.mark.parametrize("report_to", [["tensorboard", "wandb"], ["tensorboard"], "none"])
@pytest.mark.parametrize(
    "error",
    [RuntimeError("no login"), OSError(errno.ENOSPC, "No space left"), Killed()],
    ids=["login", "full", "kill"],
)
def test_a_tracker_that_does_not_begin_does_not_keep_the_corrected_recipe_out(
    make_finetune_recipe: MakeFinetuneRecipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    report_to: list[str] | str,
) -> None:
    training = make_finetune_recipe().training | {"num_train_epochs": 1}
    fail_after_a_tracker(
        make_finetune_recipe(training=training | {"report_to": ["tensorboard", "wandb"]}), error, EVENTS[0]
    )
    for name in ("tensorboard", "wandb"):
        monkeypatch.setitem(INTEGRATION_TO_CALLBACK, name, TrainerCallback)
    finetune(make_finetune_recipe(training=training | {"report_to": report_to}))
    assert (tmp_path / "out" / "model" / "config.json").is_file()
    assert json.loads((tmp_path / "out" / "recipe.json").read_text())["training"]["report_to"] == report_to
    assert (tmp_path / "out" / EVENTS[0]).read_bytes() == b"events"


@pytest.mark.parametrize("events", EVENTS[1:])
def test_a_tracker_that_began_may_have_written_elsewhere(
    make_finetune_recipe: MakeFinetuneRecipe, tmp_path: Path, events: str
) -> None:
    training = make_finetune_recipe().training | {"num_train_epochs": 1}
    error = RuntimeError("no login")
    fail_after_a_tracker(
        make_finetune_recipe(training=training | {"report_to": ["tensorboard", "wandb"]}), error, events
    )
    finetune(make_finetune_recipe(training=training))
    assert (tmp_path / "out" / events).read_bytes() == b"events"


def test_what_a_tracker_writes_at_its_beginning_is_not_taken_for_anothers(
    make_finetune_recipe: MakeFinetuneRecipe, tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    recipe = make_finetune_recipe(training=make_finetune_recipe().training | {"report_to": "tensorboard"})
    evaluation = finetune(recipe)
    assert list((tmp_path / "out" / "checkpoints").rglob("events.out.tfevents*"))
    assert finetune(recipe).metrics == evaluation.metrics
