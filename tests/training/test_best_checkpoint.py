"""Which checkpoint a training keeps as its best: one that was moved, is gone, or was never saved."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback, TrainingArguments

from mmm4rec_hf.training.cards import kept_checkpoint, kept_step
from mmm4rec_hf.training.resuming import last_whole_checkpoint
from mmm4rec_hf.training.trainer import MMM4RecTrainer

MakeTrainer = Callable[..., MMM4RecTrainer]


@pytest.fixture
def make(shop: SimpleNamespace, sequences: Any, monkeypatch: pytest.MonkeyPatch) -> MakeTrainer:
    """A trainer by steps that keeps its best, whose validations have the NDCG@10 that a function of the step gives."""
    evaluate = MMM4RecTrainer.evaluate

    def trainer(folder: Path, ndcg: Callable[[int], float], callbacks: Any = None, **options: Any) -> MMM4RecTrainer:
        def told(self: MMM4RecTrainer, *args: Any, **kwargs: Any) -> dict[str, float]:
            return evaluate(self, *args, **kwargs) | {"eval_ndcg@10": ndcg(self.state.global_step)}

        monkeypatch.setattr(MMM4RecTrainer, "evaluate", told)
        by_steps = {
            "eval_strategy": "steps", "eval_steps": 3, "save_strategy": "steps", "save_steps": 3, "max_steps": 12,
            "load_best_model_at_end": True, "metric_for_best_model": "ndcg@10", "learning_rate": 0.1,
        }  # fmt: skip
        return MMM4RecTrainer(
            shop.make_model(sequences.item_ids),
            shop.make_arguments(folder, **by_steps | options),
            train_dataset=sequences["train"],
            eval_dataset=sequences["validation"],
            callbacks=callbacks,
        )

    return trainer


@pytest.mark.parametrize("stopped_at", [9, 12])
def test_a_run_whose_folder_was_moved_ends_with_its_best_weights(
    make: MakeTrainer, tmp_path: Path, caplog: pytest.LogCaptureFixture, stopped_at: int
) -> None:
    def trainer(folder: str) -> MMM4RecTrainer:
        return make(tmp_path / folder, lambda step: -abs(step - 6.0))

    whole = trainer("old")
    whole.train()
    best = whole.model.state_dict()
    (tmp_path / "old").rename(tmp_path / "new")
    if stopped_at == 9:
        shutil.rmtree(tmp_path / "new" / "checkpoint-12")
    moved = trainer("new")
    moved.train(resume_from_checkpoint=True)
    for name, value in moved.model.state_dict().items():
        assert torch.equal(value, best[name]), name
    assert moved.state.best_model_checkpoint == str(tmp_path / "new" / "checkpoint-6")
    shutil.rmtree(tmp_path / "new" / "checkpoint-6")
    (tmp_path / "new").rename(tmp_path / "newer")
    caplog.clear()
    again = trainer("newer")
    again.train(resume_from_checkpoint=True)
    assert sum("is gone: kept is the best of what follows" in message for message in caplog.messages) == 1
    # Nothing follows, and it is told as what it is.
    assert kept_step(again) == 12 and kept_checkpoint(again) == "step 12, the last"


def test_where_the_best_checkpoint_is_gone_the_best_of_what_follows_is_kept(make: MakeTrainer, tmp_path: Path) -> None:
    values = {3: 0.9, 6: 0.1, 9: 0.5, 12: 0.4}
    whole = make(tmp_path, values.__getitem__)
    whole.train()
    assert kept_step(whole) == 3
    weights = load_file(tmp_path / "checkpoint-9" / "model.safetensors")
    for step in (3, 9, 12):
        shutil.rmtree(tmp_path / f"checkpoint-{step}")
    again = make(tmp_path, values.__getitem__)
    again.train(resume_from_checkpoint=True)
    assert kept_step(again) == 9 and again.state.best_metric == 0.5
    for name, value in again.model.model.state_dict().items():
        assert torch.equal(value, weights[f"model.{name}"]), name


def test_a_best_evaluation_at_a_step_that_was_not_saved_is_no_checkpoint_that_is_gone(
    make: MakeTrainer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = {2: 0.5, 4: 0.3, 6: 0.4, 8: 0.45}
    whole, stopped = (
        make(tmp_path / folder, values.__getitem__, eval_steps=2, save_steps=4, max_steps=8) for folder in "ab"
    )
    whole.train()
    shutil.copytree(tmp_path / "a" / "checkpoint-4", tmp_path / "b" / "checkpoint-4")
    stopped.train(resume_from_checkpoint=True)
    assert "is gone" not in caplog.text
    for trainer in (whole, stopped):
        assert (trainer.state.best_global_step, trainer.state.best_metric) == (2, 0.5)
        assert kept_checkpoint(trainer) == "step 8, the last"


def test_a_card_that_goes_along_with_a_checkpoint_is_of_its_weights(make: MakeTrainer, tmp_path: Path) -> None:
    told: list[tuple[int, str]] = []

    class Card(TrainerCallback):
        def on_save(self, args: TrainingArguments, state: Any, control: Any, **_: Any) -> None:
            trainer.create_model_card()
            told.append((state.global_step, (tmp_path / "README.md").read_text()))

    trainer = make(tmp_path, lambda step: -float(step), callbacks=[Card()], max_steps=6)
    trainer.train()
    assert [step for step, _ in told] == [3, 6]
    for step, card in told:
        assert f"step {step}, the last" in " ".join(card.split())
    trainer.create_model_card()
    assert "step 3, the best of 6" in " ".join((tmp_path / "README.md").read_text().split())


def test_a_training_begins_again_where_its_checkpoints_hold_weights_alone(
    shop: SimpleNamespace, sequences: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"save_strategy": "steps", "save_steps": 3, "max_steps": 6, "save_only_model": True}

    def trained() -> dict[str, Any]:
        model = shop.make_model(sequences.item_ids)
        trainer = MMM4RecTrainer(model, shop.make_arguments(tmp_path, **options), train_dataset=sequences["train"])
        trainer.train(last_whole_checkpoint(trainer.args))
        return {name: value.clone() for name, value in trainer.model.state_dict().items()}

    whole = trained()
    # What has ended is read.
    assert all(torch.equal(value, whole[name]) for name, value in trained().items()) and "alone" not in caplog.text
    shutil.rmtree(tmp_path / "checkpoint-6")
    assert all(torch.equal(value, whole[name]) for name, value in trained().items())
    assert "checkpoint-3 is left out: it holds weights alone" in caplog.text
