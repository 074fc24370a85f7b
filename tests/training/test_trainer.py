"""The trainer on a tiny shop: what it needs no word for, what it refuses, and what its numbers mean."""

import copy
import json
import logging
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import polars as pl
import pytest
import torch
from huggingface_hub import ModelCard
from transformers import Trainer, TrainerCallback, TrainingArguments

import mmm4rec_hf
from mmm4rec_hf import MMM4RecConfig, MMM4RecDataCollator, MMM4RecForSequentialRecommendation
from mmm4rec_hf.data.cooccurrence import count_near_items, near_items
from mmm4rec_hf.evaluation import ItemRanker, compute_metrics, metrics_from_counts, ranking_counts
from mmm4rec_hf.evaluation.evaluator import evaluate_model
from mmm4rec_hf.training.resuming import last_whole_checkpoint
from mmm4rec_hf.training.trainer import MMM4RecTrainer

NO_DROPOUT = {"hidden_dropout": 0.0, "embedding_dropout": 0.0, "time_dropout": 0.0}
KINDS = ("hr", "recall", "ndcg", "mrr", "coverage")


def plain_counts(model: Any, rows: Any, exclude_history: bool = False) -> torch.Tensor:
    """Ranks of targets by the scores of each row alone."""
    counts = []
    collate = MMM4RecDataCollator(model.config.max_sequence_length)
    with torch.no_grad():
        for row in rows:
            batch = collate([row])
            labels = batch.pop("labels")
            history = torch.tensor(np.array(row["input_ids"]))[None].long() if exclude_history else None
            counts.append(ranking_counts(model.eval()(**batch).logits, labels, history=history))
    return torch.cat(counts)


def test_default_arguments_train_evaluate_and_save_what_loads_again(
    shop: SimpleNamespace, sequences: Any, tmp_path: Path
) -> None:
    model = shop.make_model(sequences.item_ids, use_item_bias=True)
    arguments = TrainingArguments(output_dir=str(tmp_path), save_steps=1, max_steps=2, use_cpu=True, report_to=[])
    trainer = mmm4rec_hf.MMM4RecTrainer(
        model=model, args=arguments, train_dataset=sequences["train"], eval_dataset=sequences["validation"]
    )
    trainer.train()
    assert isinstance(trainer.data_collator, MMM4RecDataCollator)
    metrics = trainer.evaluate(sequences["test"])
    expected = metrics_from_counts(plain_counts(model, sequences["test"]))
    for name, value in expected.items():
        assert metrics[f"eval_{name}"] == pytest.approx(value), name
    assert {f"eval_{kind}@{k}" for kind in KINDS for k in (10, 20, 50)} <= metrics.keys()

    checkpoint = tmp_path / "checkpoint-2"
    loaded = MMM4RecForSequentialRecommendation.from_pretrained(checkpoint)
    assert loaded.item_ids == sequences.item_ids
    weights = loaded.state_dict()
    assert weights.keys() == model.state_dict().keys()
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    size = sum(value.numel() * value.element_size() for value in weights.values())
    assert size <= (checkpoint / "model.safetensors").stat().st_size < size + 50_000


def test_it_counts_which_items_are_near_and_evaluates_with_them(
    shop: SimpleNamespace, sequences: Any, tmp_path: Path
) -> None:
    model = shop.make_model(sequences.item_ids, use_cooccurrence=True)
    trainer = MMM4RecTrainer(
        model,
        shop.make_arguments(tmp_path, max_steps=2, save_steps=1),
        train_dataset=sequences["train"],
        eval_dataset=sequences["validation"],
    )
    trainer.train()
    counts = {}
    for row in sequences["train"]:
        for steps, item in enumerate(reversed(list(row["input_ids"])[-5:]), start=1):
            for pair in {(int(item), int(row["labels"])), (int(row["labels"]), int(item))}:
                counts[pair] = counts.get(pair, 0) + 1 / steps
    found = model.cooccurrence
    held = {
        (item, int(other)): float(count)
        for item in range(len(found.counts))
        for other, count in zip(found.neighbours[item], found.counts[item], strict=True)
        if count
    }
    assert held == pytest.approx(counts)
    assert found.weight.item() != 1 and found.log_scale.item() != 0
    expected = metrics_from_counts(plain_counts(model, sequences["test"]))
    metrics = trainer.evaluate(sequences["test"])
    assert all(metrics[f"eval_{name}"] == pytest.approx(value) for name, value in expected.items())
    items = len(sequences.item_ids)  # a list of rows is counted like a dataset
    assert all(
        torch.equal(*pair)
        for pair in zip(
            near_items(list(sequences["train"]), items), near_items(sequences["train"], items), strict=True
        )
    )


def test_near_items_are_counted_before_the_first_evaluation(
    shop: SimpleNamespace, sequences: Any, tmp_path: Path
) -> None:
    model = shop.make_model(sequences.item_ids, use_cooccurrence=True)
    before, told = plain_counts(model, sequences["test"]), copy.deepcopy(model)
    count_near_items(told, sequences["train"])
    expected = plain_counts(told, sequences["test"])
    assert not torch.equal(before, expected)
    for way in ("evaluate", "predict"):
        untold = copy.deepcopy(model)
        trainer = MMM4RecTrainer(untold, shop.make_arguments(tmp_path), train_dataset=sequences["train"])
        found = getattr(trainer, way)(sequences["test"])
        metrics, prefix = (found, "eval") if way == "evaluate" else (found.metrics, "test")
        for name, value in metrics_from_counts(expected).items():
            assert metrics[f"{prefix}_{name}"] == pytest.approx(value)
    # A training counts anew what it is given.
    model = told
    fewer = sequences["train"].select(range(3))
    again = MMM4RecTrainer(model, shop.make_arguments(tmp_path, max_steps=1, save_strategy="no"), train_dataset=fewer)
    again.train()
    counted = shop.make_model(sequences.item_ids, use_cooccurrence=True)
    count_near_items(counted, fewer)
    assert torch.equal(model.cooccurrence.counts, counted.cooccurrence.counts)
    with pytest.raises(ValueError, match="use_cooccurrence=True"):
        count_near_items(shop.make_model(sequences.item_ids), sequences["train"])
    with pytest.raises(ValueError, match="call set_items"):
        count_near_items(MMM4RecForSequentialRecommendation(MMM4RecConfig(use_cooccurrence=True)), [])


@pytest.mark.parametrize(
    "options", [{"use_cooccurrence": True}, {"item_loss": "in_batch", "use_log_q": True}], ids=str
)
def test_each_model_that_the_trainer_makes_is_told_of_the_rows_it_is_trained_on(
    shop: SimpleNamespace, sequences: Any, tmp_path: Path, options: dict[str, Any]
) -> None:
    def told(model: Any) -> torch.Tensor:
        return model.cooccurrence.counts if "use_cooccurrence" in options else model.items.log_q[1:].exp()

    class Look(TrainerCallback):
        def __init__(self) -> None:
            self.seen: list[torch.Tensor] = []

        def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            self.seen.append(told(model).clone())

    def make_trainer(rows: Any, **more: Any) -> MMM4RecTrainer:
        return MMM4RecTrainer(
            args=shop.make_arguments(tmp_path, max_steps=1, save_strategy="no"), train_dataset=rows, **more
        )

    # What an earlier training left: counts of another log.
    old = shop.make_model(sequences.item_ids, **options)
    make_trainer(sequences["train"].select(range(40, 95)), model=old).train()
    old.save_pretrained(tmp_path / "old")
    rows = sequences["train"].select(range(40))
    if "use_cooccurrence" in options:
        counted = shop.make_model(sequences.item_ids, **options)
        count_near_items(counted, rows)
        expected = told(counted)
    else:
        labels = [row["labels"] for row in rows]
        counts = torch.tensor([max(1, labels.count(item)) for item in range(1, 26)])
        expected = counts / counts.sum()
    assert not torch.allclose(told(old), expected)
    for make in (lambda: MMM4RecForSequentialRecommendation.from_pretrained(tmp_path / "old"),
                 lambda trial: copy.deepcopy(old)):  # fmt: skip
        look = Look()
        trainer = make_trainer(rows, model_init=make, callbacks=[look])
        for _ in range(2):  # such as the trials of a search
            made = trainer.model
            trainer.train()
            assert trainer.model is not made
            torch.testing.assert_close(told(trainer.model), expected)
        # Before an evaluation that comes first, too.
        assert len(look.seen) == 2
        for seen in look.seen:
            torch.testing.assert_close(seen, expected)


def test_the_stock_trainer_trains_the_same_model(shop: SimpleNamespace, sequences: Any, tmp_path: Path) -> None:
    results = []
    for kind in (Trainer, MMM4RecTrainer):
        model = shop.make_model(sequences.item_ids)
        options = {
            "data_collator": MMM4RecDataCollator(model.config.max_sequence_length),
            "compute_metrics": compute_metrics,
            "preprocess_logits_for_metrics": ranking_counts,
        }
        trainer = kind(
            model,
            shop.make_arguments(tmp_path, max_steps=3, weight_decay=0.0, save_strategy="no"),
            train_dataset=sequences["train"],
            eval_dataset=sequences["validation"],
            **(options if kind is Trainer else {}),
        )
        trainer.train()
        results.append((model.state_dict(), trainer.evaluate()))
    (stock_weights, stock_metrics), (weights, metrics) = results
    for name, value in stock_weights.items():
        torch.testing.assert_close(weights[name], value, msg=name)
    for name, value in stock_metrics.items():
        if "@" in name or name in ("eval_users", "eval_tied_targets"):
            assert metrics[name] == pytest.approx(value), name
    assert metrics["eval_loss"] == pytest.approx(stock_metrics["eval_loss"], rel=1e-5)


@pytest.mark.parametrize("kind", [Trainer, MMM4RecTrainer])
def test_accumulated_batches_give_the_gradient_of_the_whole_the_short_last_one_included(
    shop: SimpleNamespace, sequences: Any, tmp_path: Path, kind: type[Trainer]
) -> None:
    # 22 rows: 12 and 10 at once, or 4 + 4 + 4 and 4 + 4 + 2.
    rows = sequences["train"].select(range(22))
    weights, losses = [], []
    for batch, accumulated in ((12, 1), (4, 3)):
        model = shop.make_model(sequences.item_ids, **NO_DROPOUT)
        trainer = kind(
            model,
            shop.make_arguments(
                tmp_path,
                per_device_train_batch_size=batch,
                gradient_accumulation_steps=accumulated,
                num_train_epochs=1,
                train_sampling_strategy="sequential",
                max_grad_norm=0.0,
                lr_scheduler_type="constant",
                logging_steps=1,
                save_strategy="no",
            ),
            data_collator=MMM4RecDataCollator(model.config.max_sequence_length),
            train_dataset=rows,
            optimizers=(torch.optim.SGD(model.parameters(), lr=0.1), None),
        )
        trainer.train()
        assert trainer.state.global_step == 2
        weights.append(model.state_dict())
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, atol=1e-5, rtol=1e-4, msg=name)


def test_frequencies_of_targets_are_counted_where_the_loss_asks_for_them(
    shop: SimpleNamespace, sequences: Any, tmp_path: Path
) -> None:
    labels = [row["labels"] for row in sequences["train"]]
    for rows in (sequences["train"], list(sequences["train"])):
        model = shop.make_model(sequences.item_ids, item_loss="in_batch", use_log_q=True)
        MMM4RecTrainer(model, shop.make_arguments(tmp_path, max_steps=1), train_dataset=rows).train()
        counts = [max(1, labels.count(row)) for row in range(1, len(sequences.item_ids) + 1)]
        expected = torch.tensor(counts).double().div(sum(counts)).log().float()
        torch.testing.assert_close(model.items.log_q[1:], expected)


def test_the_next_training_counts_its_own_rows_unless_frequencies_were_told(
    shop: SimpleNamespace, sequences: Any, tmp_path: Path
) -> None:
    rows = list(sequences["train"])
    half = [row for row in rows if row["labels"] % 2]
    model = shop.make_model(sequences.item_ids, item_loss="in_batch", use_log_q=True)

    def shares_after(data: list[Any], name: str) -> torch.Tensor:
        MMM4RecTrainer(model, shop.make_arguments(tmp_path / name, max_steps=1), train_dataset=data).train()
        return model.items.log_q[1:].exp()

    for name, data in (("all", rows), ("half", half)):
        counts = torch.tensor(
            [max(1, sum(row["labels"] == item for row in data)) for item in range(1, 1 + len(model.item_ids))]
        )
        torch.testing.assert_close(shares_after(data, name), counts / counts.sum())
    model.set_item_frequencies(torch.ones(1 + len(model.item_ids)))
    told = torch.full((len(model.item_ids),), 1 / len(model.item_ids))
    torch.testing.assert_close(shares_after(rows, "told"), told)


def test_the_protocol_stands_with_every_number(shop: SimpleNamespace, sequences: Any, tmp_path: Path) -> None:
    model = shop.make_model(sequences.item_ids)
    trainer = MMM4RecTrainer(
        model,
        shop.make_arguments(tmp_path, max_steps=2, eval_strategy="steps", eval_steps=2, save_steps=2),
        train_dataset=sequences["train"],
        eval_dataset={"valid": sequences["validation"]},
    )
    trainer.train()
    trainer.evaluate(sequences["test"])
    metrics = trainer.predict(sequences["test"].select(range(3))).metrics
    assert metrics["test_users"] == 3

    logged = [entry for entry in trainer.state.log_history if "eval_protocol" in entry]
    meaning = "split, target ranked among all 25 items, history not masked, ties by expectation"
    assert [entry["eval_protocol"] for entry in logged] == [f"validation {meaning}", f"test {meaning}"]
    assert "eval_valid_ndcg@10" in logged[0] and "eval_ndcg@10" in logged[1]
    saved = json.loads((tmp_path / "checkpoint-2" / "trainer_state.json").read_text())
    assert saved["log_history"][-1]["eval_protocol"] == f"validation {meaning}"

    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written.keys() == {"validation", "test", "test (3 users)"}
    assert written["test (3 users)"]["metrics"]["users"] == 3 and written["test"]["metrics"]["users"] == 20
    assert written["test"]["step"] == 2
    assert written["validation"]["metrics"]["ndcg@10"] == logged[0]["eval_valid_ndcg@10"]
    assert written["test"]["protocol"] == {
        "split": "test", "num_items": 25, "sampled": None, "exclude_history": False, "score_padding_item": False,
        "ks": [10, 20, 50], "ties": "expectation over a random order", "prepared": {},
    }  # fmt: skip


def told_by(trainer: MMM4RecTrainer, k: int = 10) -> dict[str, tuple[float, ...]]:
    """HR@k by split, which the card's text, its metadata and `metrics.json` tell alike; and users of the last."""
    trainer.create_model_card()
    folder = Path(trainer.args.output_dir)
    card, written = ModelCard.load(folder / "README.md"), json.loads((folder / "metrics.json").read_text())
    results = card.data.eval_results or []
    found = {str(r.dataset_split): r.metric_value for r in results if r.metric_type == f"hr@{k}"}
    assert len(found) == sum(r.metric_type == f"hr@{k}" for r in results)
    for split, value in found.items():
        table = card.text[card.text.index(f"{split[0].upper()}{split[1:]} split, target ranked among all 25 items") :]
        assert table[table.index(f"| hr@{k} |") :].startswith(f"| hr@{k} | {value:.4f} |"), split
        assert written[split]["protocol"]["split"] == split
        assert written[split]["metrics"][f"hr@{k}"] == value
    return {split: (value, written[split]["metrics"]["users"]) for split, value in found.items()}


def test_sets_of_one_split_are_kept_side_by_side(shop: SimpleNamespace, sequences: Any, tmp_path: Path) -> None:
    rows = sequences["validation"]
    # Neither half is the whole, and both have as many users.
    sets = {"old": rows.select(range(10)), "new\nusers": rows.select(range(10, 20)), "all": rows}
    trainer = MMM4RecTrainer(
        shop.make_model(sequences.item_ids),
        shop.make_arguments(tmp_path, max_steps=2, eval_strategy="steps", eval_steps=1, save_strategy="no"),
        train_dataset=sequences["train"],
        eval_dataset={**sets, "last": sequences["test"]},
    )
    trainer.train()
    counts = {name: plain_counts(trainer.model, part) for name, part in sets.items()}
    hits = {name: metrics_from_counts(own)["hr@10"] for name, own in counts.items()}
    expected = {
        "validation (old, 10 users)": (pytest.approx(hits["old"]), 10),
        "validation (new users, 10 users)": (pytest.approx(hits["new\nusers"]), 10),
        "validation (all, 20 users)": (pytest.approx(hits["all"]), 20),
        "test": (pytest.approx(metrics_from_counts(plain_counts(trainer.model, sequences["test"]))["hr@10"]), 20),
    }
    assert len(set(hits.values())) == 3
    # At the last step of the training, and after it, in all the ways to name the sets.
    assert told_by(trainer) == expected
    for act in (trainer.evaluate, lambda: trainer.evaluate("old"), lambda: trainer.evaluate(sets)):
        act()
        assert told_by(trainer) == expected
    meaning = "split, target ranked among all 25 items, history not masked, ties by expectation"
    logged = [entry["eval_protocol"] for entry in trainer.state.log_history if "eval_old_users" in entry]
    assert set(logged) == {f"validation (old, 10 users) {meaning}"}


@pytest.mark.parametrize("order", [(20, 3, 1), (3, 20, 1), (1, 3, 20)])
def test_a_part_of_a_split_does_not_stand_for_the_whole(
    shop: SimpleNamespace, sequences: Any, tmp_path: Path, order: tuple[int, ...]
) -> None:
    trainer = MMM4RecTrainer(
        shop.make_model(sequences.item_ids), shop.make_arguments(tmp_path), eval_dataset=sequences["validation"]
    )
    rows = sequences["test"]
    counts = plain_counts(trainer.model, rows)
    for _ in range(2):  # what is measured again takes the place of what was
        for users in order:
            trainer.evaluate(rows.select(range(users)))
    trainer.predict(rows.select(range(2)))
    # Of a set that the trainer was given its size is known before it was evaluated.
    trainer.evaluate(sequences["validation"].select(range(4)), metric_key_prefix="eval_first")
    trainer.evaluate(list(sequences["validation"])[:5], metric_key_prefix="listed")
    shares = {users: pytest.approx(metrics_from_counts(counts[:users])["hr@10"]) for users in order}
    validation = metrics_from_counts(plain_counts(trainer.model, sequences["validation"])[:5])["hr@10"]
    first = metrics_from_counts(plain_counts(trainer.model, sequences["validation"])[:4])["hr@10"]
    assert told_by(trainer) == {
        "test": (shares[20], 20),
        "test (3 users)": (shares[3], 3),
        "test (1 user)": (shares[1], 1),
        "validation (first, 4 users)": (pytest.approx(first), 4),
        "listed": (pytest.approx(validation), 5),
    }
    assert "test (2 users)" in json.loads((tmp_path / "metrics.json").read_text())


def test_targets_of_one_user_are_no_users(
    shop: SimpleNamespace, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # From time 20 on `a` has three targets and `b` one, of 5 items that look the same.
    rows = [("a", n % 3, time) for n, time in enumerate((1, 2, 3, 21, 22, 23))]
    rows += [("b", item, time) for item, time in ((3, 1), (4, 2), (0, 3), (3, 24))]
    log = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    sequences = mmm4rec_hf.prepare_sequences(
        mmm4rec_hf.load_interactions(log), k_core=1, split="temporal", valid_from=10, test_from=20
    )
    ids = sequences.item_ids
    model = shop.make_model(ids)
    model.set_items(
        SimpleNamespace(item_ids=ids, text_features=torch.ones(len(ids), 6), image_features=torch.ones(len(ids), 5))
    )
    # Other rows than those of sequences do not tell whose they are.
    plain = datasets.Dataset.from_list([dict(row) for row in sequences["test"]], split="test")
    for name, test, users, told, part in (
        ("known", sequences["test"], 2, "4 targets of 2 users", "test (2 targets of 1 user)"),
        ("unknown", plain, 4, "4 targets", "test (2 targets)"),
    ):
        # The whole of its split, though there are fewer users than rows.
        trainer = MMM4RecTrainer(model, shop.make_arguments(tmp_path / name), eval_dataset=test, ks=(2,))
        caplog.clear()
        metrics = trainer.evaluate(test)
        assert (metrics["eval_users"], metrics["eval_targets"]) == (users, 4)
        assert f"eval_hr@2 is 0.4000 over {told}; a random order of 5 items" in caplog.text
        trainer.evaluate(test.select(range(2)))
        written = json.loads((tmp_path / name / "metrics.json").read_text())
        assert written.keys() == {"test", part} and written[part]["protocol"]["split"] == part
        assert (written["test"]["metrics"]["users"], written["test"]["metrics"]["targets"]) == (users, 4)
    found = evaluate_model(model, sequences, "test", ks=(2,)).metrics
    assert (found["users"], found["targets"]) == (2, 4)


def test_masking_the_history_takes_the_whole_history_and_never_the_target(
    shop: SimpleNamespace, sequences: Any, tmp_path: Path
) -> None:
    model = shop.make_model(sequences.item_ids)
    rows = sequences["test"]
    longer = [len(row["input_ids"]) > model.config.max_sequence_length for row in rows]
    repeated = [row["labels"] in row["input_ids"] for row in rows]
    assert any(longer) and any(repeated)
    trainer = MMM4RecTrainer(model, shop.make_arguments(tmp_path), exclude_history=True, ks=(3,))
    expected = metrics_from_counts(plain_counts(model, rows, exclude_history=True), ks=(3,))
    for metrics in (trainer.evaluate(rows), trainer.predict(rows, metric_key_prefix="eval").metrics):
        assert {name: metrics[f"eval_{name}"] for name in expected} == pytest.approx(expected)
    assert "history left out" in trainer.state.log_history[0]["eval_protocol"]


def test_sampled_metrics_bear_the_word_in_their_names(shop: SimpleNamespace, sequences: Any, tmp_path: Path) -> None:
    trainer = MMM4RecTrainer(shop.make_model(sequences.item_ids), shop.make_arguments(tmp_path), sampled=5)
    metrics = trainer.evaluate(sequences["test"])
    assert metrics["eval_sampled_hr@10"] == 1.0 and "eval_sampled_coverage@10" in metrics
    assert not [name for name in metrics if "@" in name and "sampled" not in name]
    assert "among 5 drawn of 25 items" in trainer.state.log_history[0]["eval_protocol"]


def test_tied_targets_count_by_expectation(shop: SimpleNamespace, sequences: Any, tmp_path: Path) -> None:
    model = shop.make_model(sequences.item_ids)
    ids = sequences.item_ids
    alike = SimpleNamespace(item_ids=ids, text_features=torch.ones(25, 6), image_features=torch.ones(25, 5))
    model.set_items(alike)
    metrics = MMM4RecTrainer(model, shop.make_arguments(tmp_path), ks=(1, 10)).evaluate(sequences["test"])
    assert metrics["eval_tied_targets"] == 20
    assert metrics["eval_hr@1"] == pytest.approx(1 / 25) and metrics["eval_hr@10"] == pytest.approx(10 / 25)
    assert metrics["eval_ndcg@10"] == pytest.approx(sum(1 / math.log2(place + 2) for place in range(10)) / 25)
    assert metrics["eval_loss"] == pytest.approx(math.log(25))


def test_an_evaluation_keeps_two_numbers_a_user(shop: SimpleNamespace, sequences: Any, tmp_path: Path) -> None:
    trainer = MMM4RecTrainer(shop.make_model(sequences.item_ids), shop.make_arguments(tmp_path))
    predictions = trainer.predict(sequences["test"]).predictions
    assert [values.shape for values in predictions] == [(20, 2), (20,)]


def test_prediction_loss_only_gives_the_loss(shop: SimpleNamespace, sequences: Any, tmp_path: Path) -> None:
    model = shop.make_model(sequences.item_ids)
    metrics = [
        MMM4RecTrainer(
            model,
            shop.make_arguments(tmp_path, prediction_loss_only=only, per_device_eval_batch_size=7),
            eval_dataset=sequences["test"],
        ).evaluate()
        for only in (False, True)
    ]
    assert metrics[1]["eval_loss"] == pytest.approx(metrics[0]["eval_loss"], rel=1e-5)
    assert "eval_hr@10" not in metrics[1]


class Spoil(TrainerCallback):
    """Makes one weight NaN before the third step."""

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if state.global_step == 2:
            with torch.no_grad():
                model.model.text_projection.weight[0, 0] = torch.nan


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(
    shop: SimpleNamespace, sequences: Any, tmp_path: Path
) -> None:
    model = shop.make_model(sequences.item_ids)
    arguments = shop.make_arguments(tmp_path, max_steps=5)
    trainer = MMM4RecTrainer(model, arguments, train_dataset=sequences["train"], callbacks=[Spoil()])
    with pytest.raises(RuntimeError, match="the loss is nan at step 3"):
        trainer.train()


@pytest.mark.parametrize("optimizer", ["adamw", "nadam"])
def test_a_learning_rate_of_ten_is_not_passed_over_in_silence(
    shop: SimpleNamespace, tmp_path: Path, caplog: pytest.LogCaptureFixture, optimizer: str
) -> None:
    sequences = shop.make_sequences(60)
    arguments = shop.make_arguments(
        tmp_path, max_steps=30, learning_rate=10.0, eval_strategy="steps", eval_steps=10, save_strategy="no"
    )
    trainer = MMM4RecTrainer(
        shop.make_model(sequences.item_ids),
        arguments,
        train_dataset=sequences["train"],
        eval_dataset=sequences["validation"],
        ks=(1, 3),
        use_published_optimizer=optimizer == "nadam",
    )
    stopped = ""
    try:
        trainer.train()
    except (RuntimeError, ValueError) as error:
        stopped = str(error)
    # The loss may stay finite: then the metrics tell.
    assert "the loss is" in stopped or "cannot be ranked" in stopped or "no better than chance" in caplog.text


@pytest.mark.parametrize(
    "changes",
    [{}, {"fusion": "dynamic_shared"}, {"fusion": "dynamic_instance", "use_item_bias": True}, {"num_hidden_layers": 2},
     {"use_ffn": False, "point_to_point_gate": True}, {"use_time": False}, {"learned_missing": True}],
    ids=str,
)  # fmt: skip
def test_the_first_checkpoint_of_every_variant_is_written_once_and_loads_with_equal_bits(
    shop: SimpleNamespace, sequences: Any, tmp_path: Path, changes: dict[str, Any]
) -> None:
    model = shop.make_model(sequences.item_ids, **changes)
    arguments = shop.make_arguments(tmp_path, save_steps=1, max_steps=1)
    MMM4RecTrainer(model, arguments, train_dataset=sequences["train"]).train()
    file = tmp_path / "checkpoint-1" / "model.safetensors"
    loaded = MMM4RecForSequentialRecommendation.from_pretrained(file.parent).state_dict()
    assert loaded.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(loaded[name], value), name
    size = sum(value.numel() * value.element_size() for value in loaded.values())
    assert size <= file.stat().st_size < size + 50_000


def test_metrics_at_chance_level_are_said_once(
    shop: SimpleNamespace, sequences: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = shop.make_model(sequences.item_ids)
    alike = SimpleNamespace(
        item_ids=sequences.item_ids, text_features=torch.ones(25, 6), image_features=torch.ones(25, 5)
    )
    model.set_items(alike)
    trainer = MMM4RecTrainer(model, shop.make_arguments(tmp_path), eval_dataset=sequences["test"], ks=(5, 10))
    with caplog.at_level(logging.WARNING, logger="mmm4rec_hf.evaluation.chance"):
        trainer.evaluate()
        trainer.evaluate()
    said = [record.getMessage() for record in caplog.records if "no better than chance" in record.getMessage()]
    assert len(said) == 1 and "eval_hr@10 is 0.4000 over 20 users; a random order of 25 items has 0.4000" in said[0]


def test_there_must_be_a_whole_checkpoint_to_go_on_from(
    shop: SimpleNamespace, sequences: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = shop.make_model(sequences.item_ids)
    arguments = shop.make_arguments(tmp_path, max_steps=3, save_steps=1)
    trainer = MMM4RecTrainer(model, arguments, train_dataset=sequences["train"])
    with pytest.raises(ValueError, match="no whole checkpoint"):
        trainer.train(resume_from_checkpoint=True)
    trainer.train()
    state = tmp_path / "checkpoint-3" / "trainer_state.json"
    state.write_text(state.read_text()[:-40])
    random = tmp_path / "checkpoint-2" / "rng_state.pth"
    random.write_bytes(random.read_bytes()[:-40])
    with caplog.at_level(logging.WARNING, logger="mmm4rec_hf.training.resuming"):
        assert last_whole_checkpoint(arguments) == str(tmp_path / "checkpoint-1")
    assert "checkpoint-3 is left out: it was not written to its end" in caplog.text
    assert "checkpoint-2 is left out: rng_state.pth is missing or cut off" in caplog.text


def test_the_best_checkpoint_is_loaded_and_reported_to_others(
    shop: SimpleNamespace, sequences: Any, tmp_path: Path
) -> None:
    class Reporter(TrainerCallback):
        seen: list[dict[str, Any]] = []

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            self.seen.append(dict(logs))

    model = shop.make_model(sequences.item_ids)
    trainer = MMM4RecTrainer(
        model,
        shop.make_arguments(
            tmp_path, num_train_epochs=3, eval_strategy="epoch", save_strategy="epoch", load_best_model_at_end=True,
            metric_for_best_model="ndcg@10", learning_rate=3e-2,
        ),
        train_dataset=sequences["train"],
        eval_dataset=sequences["validation"],
        callbacks=[Reporter()],
    )  # fmt: skip
    trainer.train()
    reported = [logs["eval_ndcg@10"] for logs in Reporter.seen if "eval_ndcg@10" in logs]
    assert len(reported) == 3 and trainer.state.best_metric == max(reported)
    assert all(isinstance(value, int | float) for logs in Reporter.seen for value in logs.values())
    assert trainer.evaluate()["eval_ndcg@10"] == pytest.approx(max(reported))


def test_a_model_made_by_the_trainer_gets_its_collator(shop: SimpleNamespace, sequences: Any, tmp_path: Path) -> None:
    trainer = MMM4RecTrainer(
        args=shop.make_arguments(tmp_path), model_init=lambda: shop.make_model(sequences.item_ids)
    )
    assert trainer.data_collator.max_sequence_length == 6
    assert trainer.evaluate(sequences["test"])["eval_users"] == 20


def test_users_are_ranked_by_the_weights_of_now(shop: SimpleNamespace, sequences: Any, tmp_path: Path) -> None:
    model = shop.make_model(sequences.item_ids)
    trainer = MMM4RecTrainer(model, shop.make_arguments(tmp_path), eval_dataset=sequences["test"])
    before = trainer.evaluate()
    with torch.no_grad():
        model.model.text_projection.weight.normal_()
    expected = metrics_from_counts(plain_counts(model, sequences["test"]))
    after = trainer.evaluate()
    assert after["eval_mrr@10"] == pytest.approx(expected["mrr@10"]) and after["eval_mrr@10"] != before["eval_mrr@10"]
    assert ItemRanker(model).num_candidates == 25
