"""The trainer under arguments that others met faults with: what they may not change, and what is refused."""

import logging
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import BertTokenizer, EarlyStoppingCallback, Trainer

from mmm4rec_hf import MMM4RecDataCollator, MMM4RecForSequentialRecommendation
from mmm4rec_hf.evaluation import compute_metrics, ranking_counts
from mmm4rec_hf.modeling import MMM4RecProcessor
from mmm4rec_hf.training.resuming import last_whole_checkpoint
from mmm4rec_hf.training.trainer import MMM4RecTrainer

NO_DROPOUT = {"hidden_dropout": 0.0, "embedding_dropout": 0.0, "time_dropout": 0.0}


@pytest.fixture
def make(shop: SimpleNamespace, sequences: Any, tmp_path: Path) -> Any:
    """A trainer of a new model with some arguments."""

    def make(model: Any = None, kind: type[Trainer] = MMM4RecTrainer, more: Any = None, **arguments: Any) -> Any:
        return kind(
            shop.make_model(sequences.item_ids) if model is None else model,
            shop.make_arguments(tmp_path / "run", **arguments),
            train_dataset=sequences["train"],
            eval_dataset=sequences["validation"],
            **(more or {}),
        )

    return make


def numbers(metrics: dict[str, float]) -> dict[str, float]:
    """Without how long it took."""
    return {name: value for name, value in metrics.items() if "@" in name or name in ("eval_users", "eval_loss")}


@pytest.mark.parametrize("kind", [MMM4RecTrainer, Trainer])
# 20 users: batches of three sizes, two equal ones, and one alone.
@pytest.mark.parametrize("batch_size", [8, 10, 20])
def test_metrics_are_the_same_where_the_trainer_keeps_each_batch_apart(
    make: Any, sequences: Any, batch_size: int, kind: type[Trainer]
) -> None:
    more = {
        "data_collator": MMM4RecDataCollator(6),
        "compute_metrics": compute_metrics,
        "preprocess_logits_for_metrics": ranking_counts,
    }
    options = {
        "kind": kind,
        "more": None if kind is MMM4RecTrainer else more,
        "per_device_eval_batch_size": batch_size,
    }
    expected = numbers(make(**options).evaluate(sequences["test"]))
    found = numbers(make(**options, eval_do_concat_batches=False).evaluate(sequences["test"]))
    assert found == pytest.approx(expected) and found["eval_users"] == 20
    # Moved off the device batch by batch.
    assert numbers(make(**options, eval_accumulation_steps=1).evaluate(sequences["test"])) == pytest.approx(expected)


@pytest.mark.parametrize("batch_size", [8, 32])
def test_an_evaluation_drops_no_user_where_the_training_drops_its_last_batch(
    make: Any, sequences: Any, batch_size: int
) -> None:
    expected = numbers(make().evaluate(sequences["test"]))
    trainer = make(dataloader_drop_last=True, per_device_eval_batch_size=batch_size)
    assert numbers(trainer.evaluate(sequences["test"])) == pytest.approx(expected)
    assert trainer.predict(sequences["test"]).label_ids.tolist() == [row["labels"] for row in sequences["test"]]
    # The training still does.
    rows = sum(len(batch["labels"]) for batch in trainer.get_train_dataloader())
    assert rows == len(sequences["train"]) // 8 * 8 < len(sequences["train"])


def test_a_training_whose_batches_were_all_dropped_is_an_error(make: Any, sequences: Any) -> None:
    trainer = make(dataloader_drop_last=True, per_device_train_batch_size=len(sequences["train"]) + 1)
    with pytest.raises(ValueError, match="no batch is left.*per_device_train_batch_size"):
        trainer.train()


def test_rows_are_grouped_by_length_in_training_and_stay_in_order_in_evaluation(make: Any, sequences: Any) -> None:
    spreads = []
    for strategy in ("random", "group_by_length"):
        trainer = make(train_sampling_strategy=strategy, per_device_eval_batch_size=4, max_steps=1)
        trainer.train()
        lengths = [batch["attention_mask"].sum(1).tolist() for batch in trainer.get_train_dataloader()]
        assert sum(map(len, lengths)) == len(sequences["train"])
        spreads.append(np.mean([max(batch) - min(batch) for batch in lengths]))
    assert spreads[1] < 0.75 * spreads[0]
    predicted = trainer.predict(sequences["test"])
    assert predicted.label_ids.tolist() == [row["labels"] for row in sequences["test"]]
    assert trainer.args.train_sampling_strategy == "group_by_length"


@pytest.mark.parametrize("tokenizer", [False, True])
def test_a_processor_of_the_items_encoder_changes_no_configuration(
    make: Any, sequences: Any, tmp_path: Path, tokenizer: bool
) -> None:
    parts = {"tokenizer": BertTokenizer({"[PAD]": 3, "[UNK]": 1, "[CLS]": 2, "[SEP]": 0})} if tokenizer else {}
    processor = MMM4RecProcessor(max_sequence_length=6, **parts)
    processor.set_items(SimpleNamespace(item_ids=sequences.item_ids, titles=["Title"] * 25))
    more = {"processing_class": processor}
    trainer = make(more=more, max_steps=2, save_steps=1, train_sampling_strategy="group_by_length")
    ids = ("pad_token_id", "bos_token_id", "eos_token_id")
    before = {name: getattr(trainer.model.config, name, None) for name in ids}
    trainer.train()
    assert {name: getattr(trainer.model.config, name, None) for name in ids} == before
    assert trainer.processing_class is processor
    for checkpoint in ("checkpoint-1", "checkpoint-2"):
        saved = MMM4RecProcessor.from_pretrained(tmp_path / "run" / checkpoint)
        assert saved.item_ids == sequences.item_ids and saved.title(1) == "Title"
        assert (saved.tokenizer is not None) == tokenizer


@pytest.mark.parametrize("length", [4, 20])
def test_a_processor_is_saved_with_the_sequence_length_and_the_items_of_its_model(
    make: Any, sequences: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, length: int
) -> None:
    # As a catalogue's folder holds it: of the encoder, of no model.
    processor = MMM4RecProcessor(max_sequence_length=length)
    trainer = make(more={"processing_class": processor}, max_steps=1, save_steps=1)
    with caplog.at_level(logging.INFO, logger="mmm4rec_hf.training.publishing"):
        trainer.train()
        trainer.save_model(str(tmp_path / "model"))
    ids = sequences.item_ids
    history = [{"items": [ids[n] for n in (0, 1, 2, 3, 4, 5, 6, 7)], "timestamps": [1_000_000 + n for n in range(8)]}]
    for folder in (tmp_path / "run" / "checkpoint-1", tmp_path / "model"):
        saved = MMM4RecProcessor.from_pretrained(folder)
        assert saved.max_sequence_length == 6 and saved.item_ids == ids
        items = saved(histories=history)["input_ids"]
        assert items.tolist() == [[3, 4, 5, 6, 7, 8]]
    said = [message for message in caplog.messages if "max_sequence_length" in message]
    assert len(said) == 1 and f"max_sequence_length is {length}; it is set to the model's 6" in said[0]


def test_smoothed_labels_are_refused(make: Any) -> None:
    # The trainer's own smoothing sums over the padding item, whose score is the lowest float.
    with pytest.raises(ValueError, match=r"label_smoothing_factor is 0\.1"):
        make(label_smoothing_factor=0.1)


def test_what_transformers_would_fail_with_later_is_refused_at_once(
    make: Any, shop: SimpleNamespace, sequences: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In the first step, by an IndexError of a hook on the layer that reads features.
    with pytest.raises(ValueError, match=r"neftune_noise_alpha is 5; leave it out.*embedding_dropout"):
        make(neftune_noise_alpha=5)
    # With a word about compute_metrics, which nobody gave.
    with pytest.raises(ValueError, match=r"batch_eval_metrics is True; leave it out"):
        make(batch_eval_metrics=True)
    seen = []

    def count(prediction: Any, compute_result: bool) -> dict[str, float]:
        seen.append(len(prediction.label_ids))
        return {"counted": sum(seen)} if compute_result else {}

    own = make(more={"compute_metrics": count}, batch_eval_metrics=True, per_device_eval_batch_size=8)
    assert own.evaluate(sequences["test"])["eval_counted"] == 20 and seen == [8, 8, 4]
    # A trainer without arguments has those of transformers, which are let through.
    monkeypatch.chdir(tmp_path)
    trainer, stock = (kind(shop.make_model(sequences.item_ids)) for kind in (MMM4RecTrainer, Trainer))
    assert trainer.args.output_dir == stock.args.output_dir


@pytest.mark.parametrize("half", ["bf16_full_eval", "fp16_full_eval"])
def test_an_evaluation_in_half_precision_leaves_the_model_as_it_was(
    make: Any, shop: SimpleNamespace, sequences: Any, tmp_path: Path, half: str
) -> None:
    expected = numbers(make().evaluate(sequences["test"]))
    model = shop.make_model(sequences.item_ids)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer = make(model, **{half: True})
    seen = []

    def look(module: Any, inputs: Any) -> None:
        seen.append({name: parameter.dtype for name, parameter in model.named_parameters()})

    hook = model.model.text_projection.register_forward_pre_hook(look)
    found = numbers(trainer.evaluate(sequences["test"]))
    hook.remove()
    # As in a model that is loaded in that precision: rates and times stay float32.
    model.save_pretrained(tmp_path / "model")
    dtype = torch.bfloat16 if half.startswith("bf16") else torch.float16
    loaded = MMM4RecForSequentialRecommendation.from_pretrained(tmp_path / "model", dtype=dtype)
    assert seen[0] == {name: parameter.dtype for name, parameter in loaded.named_parameters()}
    assert set(seen[0].values()) == {dtype, torch.float32}
    assert found["eval_loss"] == pytest.approx(expected["eval_loss"], rel=0.02)
    after = model.state_dict()
    assert all(torch.equal(after[name], value) and after[name].dtype == value.dtype for name, value in before.items())
    # And is evaluated in it again, after a training as well.
    trainer.args.max_steps = 1
    trainer.train()
    assert math.isfinite(trainer.evaluate(sequences["test"])["eval_loss"])
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


@pytest.mark.skipif(
    torch.__version__.startswith("2.6."),
    reason="torch 2.6 does not compile the decorated forward of transformers' models",
)
def test_a_compiled_model_is_evaluated_and_saved_like_any_other(
    make: Any, shop: SimpleNamespace, sequences: Any, tmp_path: Path
) -> None:
    results = []
    for compiled in (False, True):
        model = shop.make_model(sequences.item_ids, **NO_DROPOUT)
        options = {"torch_compile": True, "torch_compile_backend": "eager"} if compiled else {}
        trainer = make(model, max_steps=2, save_steps=2, eval_strategy="steps", eval_steps=1, **options)
        trainer.train()
        log = [numbers(entry) for entry in trainer.state.log_history if "eval_loss" in entry]
        assert len(log) == 2 and all("eval_ndcg@10" in entry for entry in log)
        with safe_open(tmp_path / "run" / "checkpoint-2" / "model.safetensors", "pt") as file:
            assert set(file.keys()) == model.state_dict().keys()
        loaded = MMM4RecForSequentialRecommendation.from_pretrained(tmp_path / "run" / "checkpoint-2")
        assert loaded.item_ids == sequences.item_ids
        results.append((log, loaded.state_dict()))
    (log, weights), (other_log, other_weights) = results
    for entry, other in zip(log, other_log, strict=True):
        assert other == pytest.approx(entry, rel=1e-4)
    for name, value in weights.items():
        torch.testing.assert_close(other_weights[name], value, atol=1e-5, rtol=1e-4, msg=name)


def test_the_best_checkpoint_is_kept_where_one_is_all_that_may_stay(make: Any, tmp_path: Path) -> None:
    trainer = make(
        num_train_epochs=3, eval_strategy="epoch", save_strategy="epoch", load_best_model_at_end=True,
        metric_for_best_model="loss", greater_is_better=False, save_total_limit=1, learning_rate=3e-2,
    )  # fmt: skip
    evaluate, weights = trainer.evaluate, []

    def ever_worse(*args: Any, **kwargs: Any) -> dict[str, float]:
        weights.append({name: value.clone() for name, value in trainer.model.state_dict().items()})
        return evaluate(*args, **kwargs) | {"eval_loss": float(len(weights))}

    trainer.evaluate = ever_worse
    trainer.train()
    steps = [entry["step"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert len(weights) == len(steps) == 3
    kept = {path.name for path in (tmp_path / "run").glob("checkpoint-*")}
    assert f"checkpoint-{steps[0]}" in kept and len(kept) <= 2
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, weights[0][name]), name
    assert not torch.equal(weights[0]["model.text_projection.weight"], weights[2]["model.text_projection.weight"])


def test_the_best_by_one_of_two_evaluation_sets_is_kept(shop: SimpleNamespace, sequences: Any, tmp_path: Path) -> None:
    trainer = MMM4RecTrainer(
        shop.make_model(sequences.item_ids),
        shop.make_arguments(
            tmp_path, num_train_epochs=3, eval_strategy="epoch", save_strategy="epoch", load_best_model_at_end=True,
            metric_for_best_model="first_ndcg@10", learning_rate=3e-2,
        ),
        train_dataset=sequences["train"],
        eval_dataset={"first": sequences["validation"], "second": sequences["test"]},
    )  # fmt: skip
    trainer.train()
    log = trainer.state.log_history
    first, second = (
        [e[f"eval_{name}_ndcg@10"] for e in log if f"eval_{name}_ndcg@10" in e] for name in ("first", "second")
    )
    assert len(first) == len(second) == 3 and trainer.state.best_metric == max(first)
    assert trainer.evaluate(sequences["validation"])["eval_ndcg@10"] == pytest.approx(max(first))


def test_early_stopping_by_a_metric_that_is_not_there_is_an_error(make: Any) -> None:
    trainer = make(
        num_train_epochs=2, eval_strategy="epoch", save_strategy="epoch", metric_for_best_model="ndcg@5",
        more={"callbacks": [EarlyStoppingCallback(1)]},
    )  # fmt: skip
    with pytest.raises((KeyError, ValueError), match="ndcg@5"):
        trainer.train()


def test_a_run_goes_on_with_batches_of_another_shape_and_takes_the_same_steps(
    shop: SimpleNamespace, sequences: Any, tmp_path: Path
) -> None:
    rows = sequences["train"].select(range(48))
    ends = []
    for batch, accumulated in ((2, 4), (8, 1)):
        model = shop.make_model(sequences.item_ids, **NO_DROPOUT)
        arguments = shop.make_arguments(
            tmp_path, per_device_train_batch_size=batch, gradient_accumulation_steps=accumulated, num_train_epochs=2,
            save_steps=3,
        )  # fmt: skip
        trainer = MMM4RecTrainer(model, arguments, train_dataset=rows)
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3") if ends else None)
        assert trainer.state.global_step == trainer.state.max_steps == 12
        ends.append(model.state_dict())
    # The same rows in the same order, eight a step.
    for name, value in ends[0].items():
        torch.testing.assert_close(ends[1][name], value, atol=1e-4, rtol=1e-3, msg=name)


class Tight(MMM4RecTrainer):
    """Has memory for four rows."""

    def training_step(self, model: Any, inputs: dict[str, Any], *arguments: Any) -> torch.Tensor:
        if len(inputs["labels"]) > 4:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super().training_step(model, inputs, *arguments)


def test_a_run_whose_batch_was_found_goes_on_with_it(shop: SimpleNamespace, sequences: Any, tmp_path: Path) -> None:
    # One step an epoch with the batch that is asked for, two with the one that is found.
    rows = sequences["train"].select(range(5))
    for epochs in (1, 2):
        arguments = shop.make_arguments(
            tmp_path, auto_find_batch_size=True, per_device_train_batch_size=5, num_train_epochs=epochs, save_steps=2
        )
        trainer = Tight(shop.make_model(sequences.item_ids), arguments, train_dataset=rows)
        trainer.train(resume_from_checkpoint=epochs > 1)
        assert trainer.state.global_step == 2 * epochs


def test_layers_learn_over_frozen_projections_with_their_activations_computed_again(
    make: Any, shop: SimpleNamespace, sequences: Any
) -> None:
    weights = []
    for again in (False, True):
        model = shop.make_model(sequences.item_ids, **NO_DROPOUT)
        for projection in (model.model.text_projection, model.model.image_projection):
            projection.requires_grad_(False)
        before = model.model.encoder.layers[0].ssd.out_proj.weight.detach().clone()
        make(model, gradient_checkpointing=again, max_steps=2, save_strategy="no").train()
        weights.append(model.state_dict())
        assert not torch.equal(model.model.encoder.layers[0].ssd.out_proj.weight, before)
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, atol=1e-6, rtol=1e-5, msg=name)


def test_a_sampled_evaluation_draws_the_same_items_each_time(make: Any, shop: SimpleNamespace, sequences: Any) -> None:
    model = shop.make_model(sequences.item_ids)
    found = []
    for batch_size in (3, 20, 20):
        trainer = make(model, more={"sampled": 5, "ks": (1, 3)}, per_device_eval_batch_size=batch_size)
        torch.manual_seed(batch_size)
        found += [trainer.evaluate(sequences["test"]) for _ in range(2)]
    names = [name for name in found[0] if "@" in name or name.endswith("loss")]
    assert names and 0 < found[0]["eval_sampled_hr@3"] < 1
    for metrics in found[1:]:
        assert {name: metrics[name] for name in names} == pytest.approx({name: found[0][name] for name in names})


def test_rows_of_items_in_another_order_than_the_models_are_refused(
    make: Any, shop: SimpleNamespace, sequences: Any
) -> None:
    ids = sequences.item_ids
    other = [ids[1], ids[0], *ids[2:]]
    for item_ids in (other, ids[:-1], [*ids[:-1], "another"]):
        trainer = make(shop.make_model(item_ids), max_steps=1)
        for act in (trainer.train, trainer.evaluate, lambda trainer=trainer: trainer.predict(sequences["test"])):
            with pytest.raises(ValueError, match=r"25 items in another order.*sequences\.align\(model\.item_ids\)"):
                act()
    # What the message says helps, and gives the numbers of the same items in the order of the rows.
    aligned = sequences.align(other)
    model = shop.make_model(ids)
    expected = numbers(make(model).evaluate(sequences["test"]))
    items = model.items
    swapped = [1, 0, *range(2, 25)]
    text, image = items.text_features[1:][swapped], items.image_features[1:][swapped]
    model.set_items(SimpleNamespace(item_ids=other, text_features=text, image_features=image))
    assert numbers(make(model).evaluate(aligned["test"])) == pytest.approx(expected, rel=1e-5)
    # Items that came to the catalogue later stand after those of the rows.
    assert make(shop.make_model([*ids, "new"]), max_steps=1).evaluate(sequences["test"])["eval_users"] == 20


@pytest.mark.parametrize(("processes", "found"), [(1, False), (2, False), (4, True), (8, False)])
def test_a_run_goes_on_with_as_many_processes_as_before(
    make: Any, tmp_path: Path, processes: int, found: bool, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = make(max_steps=1, save_steps=1)
    trainer.train()
    checkpoint = tmp_path / "run" / "checkpoint-1"
    # What four processes leave.
    state = (checkpoint / "rng_state.pth").rename(checkpoint / "rng_state_0.pth").read_bytes()
    for rank in range(1, 4):
        (checkpoint / f"rng_state_{rank}.pth").write_bytes(state)
    names = ("output_dir", "save_only_model", "eval_strategy")
    arguments = SimpleNamespace(world_size=processes, **{name: getattr(trainer.args, name) for name in names})
    assert (last_whole_checkpoint(arguments) is not None) == found
    assert found or "needs as many" in caplog.text


def test_someone_who_had_every_item_is_trained_on_with_drawn_negatives(shop: SimpleNamespace, tmp_path: Path) -> None:
    # More are drawn than there are items, and none is left that the user never had: nothing waits for one.
    model = shop.make_model(["a", "b", "c"], item_loss="sampled", num_sampled_negatives=8)
    times = np.array([100, 200, 300, 400])
    rows = [{"input_ids": np.array([1, 2, 3, 2]), "timestamps": times, "labels": label} for label in (1, 2, 3)]
    trainer = MMM4RecTrainer(model, shop.make_arguments(tmp_path, max_steps=4, logging_steps=1), train_dataset=rows)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    # Of three items the two others are all that a target can lose to, each drawn as often as it is expected.
    assert len(losses) == 4 and all(0 < loss < 10 for loss in losses)
