"""What runs tell TensorBoard, through `report_to`."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import EarlyStoppingCallback

from mmm4rec_hf.training.pretraining import PretrainRecipe, pretrain
from mmm4rec_hf.training.recipes import build
from mmm4rec_hf.training.trainer import MMM4RecTrainer

accumulator = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator", reason="TensorBoard is not installed"
)


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """What was written below a folder: by name, by step."""
    found: dict[str, dict[int, float]] = {}
    for path in folder.rglob("events.out.tfevents.*"):
        events = accumulator.EventAccumulator(str(path))
        events.Reload()
        for name in events.Tags()["scalars"]:
            found.setdefault(name, {}).update((event.step, event.value) for event in events.Scalars(name))
    return found


def test_a_trainer_writes_its_losses_and_metrics_until_it_stops_early(shop: SimpleNamespace, tmp_path: Path) -> None:
    sequences = shop.make_sequences()
    options = {"eval_strategy": "steps", "eval_steps": 2, "save_steps": 2, "metric_for_best_model": "ndcg@10"}
    # At a learning rate of 0 no evaluation is better than the first.
    arguments = shop.make_arguments(
        tmp_path, **options, logging_steps=1, max_steps=30, learning_rate=0.0, load_best_model_at_end=True,
        report_to=["tensorboard"],
    )  # fmt: skip
    trainer = MMM4RecTrainer(
        shop.make_model(sequences.item_ids),
        arguments,
        train_dataset=sequences["train"],
        eval_dataset=sequences["validation"],
        callbacks=[EarlyStoppingCallback(2)],
    )
    trainer.train()
    found = scalars(tmp_path)
    assert list(found["train/loss"]) == [1, 2, 3, 4, 5, 6]
    best = trainer.state.best_metric
    assert found["eval/ndcg@10"] == pytest.approx({2: best, 4: best, 6: best}, rel=1e-6)
    assert {"eval/hr@50", "eval/coverage@10", "eval/loss", "eval/tied_targets"} <= found.keys()


def test_a_pretraining_writes_its_losses_and_the_metrics_of_each_domain(
    make_recipe: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    recipe = make_recipe(max_steps=4, eval_steps=2, report_to=["tensorboard"])
    metrics = pretrain(build(PretrainRecipe, recipe, "test"))
    found = scalars(tmp_path / "out")
    assert list(found["loss"]) == [1, 2, 3, 4] and list(found["learning_rate"]) == [1, 2, 3, 4]
    mean = {step: (found["a/ndcg@10"][step] + found["bb/ndcg@10"][step]) / 2 for step in (2, 4)}
    assert found["ndcg@10"] == pytest.approx(mean, rel=1e-6)
    assert any(value == pytest.approx(metrics["a/ndcg@10"], rel=1e-6) for value in found["a/ndcg@10"].values())
