"""Fine-tuning by recipe: what it starts from, what it writes, and how it goes on."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from transformers import pipeline

from mmm4rec_hf import ItemCatalog, MMM4RecConfig, MMM4RecForSequentialRecommendation
from mmm4rec_hf.data import load_interactions, prepare_sequences
from mmm4rec_hf.evaluation.evaluator import Evaluation
from mmm4rec_hf.training.finetuning import build_model, finetune
from mmm4rec_hf.training.trainer import MMM4RecTrainer

from .conftest import SIZES, Killed, MakeFinetuneRecipe

# The splits that have rows where no user has more events.
SPLITS = {4: ["train", "validation", "test"], 3: ["validation", "test"], 2: ["test"]}


@pytest.mark.parametrize("longest", [4, 3, 2])
def test_a_split_that_a_run_needs_and_that_is_empty_is_refused_before_the_first_step(
    make_finetune_recipe: MakeFinetuneRecipe, tmp_path: Path, longest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    item_ids = ItemCatalog.from_pretrained(make_finetune_recipe().catalog).item_ids
    rows = [(f"u{u}", item_ids[u + n], 1_400_000_000 + 86_400 * n) for u in range(6) for n in range(longest)]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    folder = tmp_path / "few"
    made = prepare_sequences(load_interactions(frame), k_core=1, output_dir=folder)
    assert [name for name in ("train", "validation", "test") if len(made[name])] == SPLITS[longest]

    def train(self: MMM4RecTrainer, *args: Any) -> None:
        raise Killed

    monkeypatch.setattr(MMM4RecTrainer, "train", train)
    if longest == 4:
        with pytest.raises(Killed):
            finetune(make_finetune_recipe(sequences=str(folder)))
        return
    (folder / "prepare.json").write_text(json.dumps({"k_core": 1, "split": "leave_one_out"}))
    with pytest.raises(
        ValueError, match="'train' of .*few is empty, as no user has four events, and there is nothing"
    ):
        finetune(make_finetune_recipe(sequences=str(folder)))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("times", "message"),
    [
        # All events are of days 0 to 9.
        (
            (5, 20),
            "'test' of .*cut is empty, as no user has an event from test_from on and one before it, and the mod",
        ),
        ((20, 30), "'validation' of .*cut is empty, as no user has an event from valid_from to before test_from and"),
    ],
)
def test_cuts_that_leave_a_split_empty_cost_no_training(
    make_finetune_recipe: MakeFinetuneRecipe, tmp_path: Path, times: tuple[int, int], message: str
) -> None:
    item_ids = ItemCatalog.from_pretrained(make_finetune_recipe().catalog).item_ids
    rows = [(f"u{u}", item_ids[(u + n) % 12], 1_400_000_000 + 86_400 * n) for u in range(6) for n in range(10)]
    log = load_interactions(pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row"))
    cuts = dict(zip(("valid_from", "test_from"), (1_400_000_000 + 86_400 * day for day in times), strict=True))
    folder = tmp_path / "cut"
    prepare_sequences(log, k_core=1, split="temporal", output_dir=folder, **cuts)
    (folder / "prepare.json").write_text(json.dumps({"k_core": 1, "split": "temporal"}))
    with pytest.raises(ValueError, match=f"{message}.*; prepare other times of valid_from and test_from"):
        finetune(make_finetune_recipe(sequences=str(folder)))
    assert not (tmp_path / "out").exists()


def test_a_run_that_validates_nothing_needs_no_validation_split(
    make_finetune_recipe: MakeFinetuneRecipe, tmp_path: Path
) -> None:
    item_ids = ItemCatalog.from_pretrained(make_finetune_recipe().catalog).item_ids
    rows = [(f"u{u}", item_ids[(u + n) % 12], 1_400_000_000 + 86_400 * n) for u in range(6) for n in range(10)]
    log = load_interactions(pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row"))
    # Between the cuts there is no event, from the second on one of each user.
    cuts = {"valid_from": 1_400_000_000 + 8 * 86_400 + 1, "test_from": 1_400_000_000 + 9 * 86_400}
    prepare_sequences(log, k_core=1, split="temporal", output_dir=tmp_path / "cut", **cuts)
    with pytest.raises(
        ValueError, match=r"or validate nothing: training.eval_strategy=no training.load_best_model_at"
    ):
        finetune(make_finetune_recipe(sequences=str(tmp_path / "cut")))
    with pytest.raises(ValueError, match=r"training.load_best_model_at_end=false early_stopping_patience=null$"):
        finetune(make_finetune_recipe(sequences=str(tmp_path / "cut"), early_stopping_patience=2))
    training = make_finetune_recipe().training | {"eval_strategy": "no", "load_best_model_at_end": False}
    with pytest.raises(
        ValueError, match=r"patience is 2, but with training.eval_strategy=no nothing .*early_stopping_patience=null"
    ):
        finetune(make_finetune_recipe(sequences=str(tmp_path / "cut"), training=training, early_stopping_patience=2))
    assert not (tmp_path / "out").exists()
    assert finetune(make_finetune_recipe(sequences=str(tmp_path / "cut"), training=training)).targets.height == 6
    assert (tmp_path / "out" / "model").is_dir()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A pretrained model of two layers without items."""
    torch.manual_seed(1)
    config = MMM4RecConfig(**SIZES, num_hidden_layers=2, text_feature_size=5, image_feature_size=3)
    MMM4RecForSequentialRecommendation(config).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def test_a_fine_tuned_folder_recommends_at_once(make_finetune_recipe: MakeFinetuneRecipe, tmp_path: Path) -> None:
    evaluation = finetune(
        make_finetune_recipe(
            training={"num_train_epochs": 12, "per_device_train_batch_size": 8, "learning_rate": 2e-2, "seed": 0}
        )
    )
    recommend = pipeline("sequential-recommendation", model=str(tmp_path / "out" / "model"), device="cpu")
    found = recommend({"items": ["shop3", "shop4"], "timestamps": [1_400_000_000, 1_400_090_000]}, top_k=3)
    assert len(found) == 3 and not {"shop3", "shop4"} & {item["item_id"] for item in found}
    catalog = ItemCatalog.from_pretrained(tmp_path / "out" / "model" / "catalog")
    model = MMM4RecForSequentialRecommendation.from_pretrained(tmp_path / "out" / "model")
    assert model.item_ids == catalog.item_ids
    # By chance NDCG@10 over 12 items is 0.38.
    assert evaluation.metrics["ndcg@10"] > 0.6
    saved = Evaluation.load(tmp_path / "out" / "evaluation")
    assert saved.metrics == evaluation.metrics and saved.protocol["split"] == "test"


def test_what_a_recipe_leaves_open_suits_the_model_and_what_it_says_counts(
    make_finetune_recipe: MakeFinetuneRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def stop(self: MMM4RecTrainer, *args: Any) -> None:
        seen.append(self.args)
        raise Killed

    monkeypatch.setattr(MMM4RecTrainer, "train", stop)
    for training in ({}, {"per_device_train_batch_size": 7, "learning_rate": 0.5}):
        with pytest.raises(Killed):
            finetune(
                make_finetune_recipe(output_dir=f"{make_finetune_recipe().output_dir}{len(seen)}", training=training)
            )
    defaults, told = seen
    assert (defaults.per_device_train_batch_size, defaults.learning_rate, defaults.num_train_epochs) == (256, 1e-3, 5)
    assert (told.per_device_train_batch_size, told.learning_rate, told.num_train_epochs) == (7, 0.5, 5)


def test_a_run_is_not_taken_for_one_on_the_data_of_now(make_finetune_recipe: MakeFinetuneRecipe) -> None:
    recipe = make_finetune_recipe()
    item_ids = ItemCatalog.from_pretrained(recipe.catalog).item_ids
    names = ["user_id", "item_id", "timestamp"]
    rows = [(f"u{n // 6}", item_ids[(n + n // 6) % 12], 1_400_000_000 + 86_400 * n) for n in range(120)]

    def prepare(rows: list[tuple[str, str, int]]) -> None:
        log = load_interactions(pl.DataFrame(rows, schema=names, orient="row"))
        shutil.rmtree(recipe.sequences)
        prepare_sequences(log, k_core=1, output_dir=recipe.sequences)

    prepare(rows)
    finetune(recipe)
    model = Path(recipe.output_dir) / "model" / "model.safetensors"
    weights = model.read_bytes()
    # One more event, of a user and an item that were there.
    prepare([*rows, ("u19", rows[0][1], 1_500_000_000)])
    with pytest.raises(ValueError, match="holds a run on other data .*statistics.events 120 before, 121 now.*; give"):
        finetune(recipe)
    # As many, of another day.
    prepare([*rows[:-1], (*rows[-1][:2], 1_500_000_000)])
    with pytest.raises(ValueError, match="other data .data.last_event 20.* before, 2017-07-14 now.; give another"):
        finetune(recipe)
    # The same events, two of which change places.
    other = [(*row[:2], rows[[1, 0][n] if n < 2 else n][2]) for n, row in enumerate(rows)]
    prepare(other)
    with pytest.raises(ValueError, match=r"other data .data.events \w{16} before, \w{16} now.; give another"):
        finetune(recipe)
    # The same items, one of them with another text, and one without a picture.
    prepare(rows)
    for name, part in (("text", "features"), ("image", "mask")):
        catalog = ItemCatalog.from_pretrained(recipe.catalog)
        catalog.save_pretrained(f"{recipe.catalog}-kept")
        if part == "features":
            catalog.text_features[3] += 1
        else:
            catalog.image_mask = np.arange(len(catalog)) != 3
        catalog.save_pretrained(recipe.catalog)
        with pytest.raises(
            ValueError, match=rf"other data .data.features.{name} \w{{16}} before, \w{{16}} now.; give"
        ):
            finetune(recipe)
        ItemCatalog.from_pretrained(f"{recipe.catalog}-kept").save_pretrained(recipe.catalog)
    assert model.read_bytes() == weights
    finetune(recipe)


def test_a_run_that_has_ended_is_read_and_not_trained_again(
    make_finetune_recipe: MakeFinetuneRecipe, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mmm4rec_hf")
    # The best of three epochs is not the last, whose checkpoint is gone.
    monkeypatch.setattr(MMM4RecTrainer, "evaluate", worse_and_worse(MMM4RecTrainer.evaluate))
    recipe = make_finetune_recipe(
        training={"num_train_epochs": 3, "per_device_train_batch_size": 16, "save_total_limit": 1}
    )
    evaluation = finetune(recipe)
    output = Path(recipe.output_dir)
    assert [path.name for path in (output / "checkpoints").glob("checkpoint-*")] == ["checkpoint-5"]
    weights, record = (output / "model" / "model.safetensors").read_bytes(), (output / "training.json").read_bytes()

    def stop(*args: Any) -> None:
        raise Killed

    monkeypatch.setattr(MMM4RecTrainer, "train", stop)
    again = finetune(recipe)
    assert again.metrics == evaluation.metrics and again.targets.equals(evaluation.targets)
    assert any(
        message.endswith("which has ended: nothing is trained; remove the folder to start over")
        for message in caplog.messages
    )
    assert (output / "model" / "model.safetensors").read_bytes() == weights
    assert (output / "training.json").read_bytes() == record
    # Killed while its numbers took their places, the last of which is metrics.json, or before, it goes on.
    (output / "evaluation" / "metrics.json").unlink()
    with pytest.raises(Killed):
        finetune(recipe)
    shutil.rmtree(output / "evaluation")
    with pytest.raises(Killed):
        finetune(recipe)


def test_what_a_user_puts_beside_the_model_stays_and_keeps_no_run_from_its_end(
    make_finetune_recipe: MakeFinetuneRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_finetune_recipe()
    model = Path(recipe.output_dir) / "model"
    # Put there before the model is.
    monkeypatch.setattr(MMM4RecTrainer, "train", putting(MMM4RecTrainer.train, model / "NOTICE"))
    evaluation = finetune(recipe)
    weights = (model / "model.safetensors").read_bytes()
    (model / "LICENSE").write_text("mine")
    (model / "notes").mkdir()
    (model / "notes" / "paper.txt").write_text("mine")
    assert finetune(recipe).metrics == evaluation.metrics
    # Stopped before its numbers were written, it saves its model once more.
    shutil.rmtree(model.parent / "evaluation")
    (model / "model.safetensors").write_bytes(b"")
    assert finetune(recipe).metrics == evaluation.metrics
    assert (model / "model.safetensors").read_bytes() == weights
    assert [(model / name).read_text() for name in ("NOTICE", "LICENSE", "notes/paper.txt")] == ["mine"] * 3
    # What has the names of a model's files, and is none of this run, is refused before the first step.
    shutil.rmtree(model.parent / "evaluation")
    monkeypatch.setattr(MMM4RecTrainer, "train", lambda *args: pytest.fail("it was trained"))
    (model / "config.json").write_text('{"model_type": "siglip"}')
    with pytest.raises(ValueError, match="model holds a model of type 'siglip', .*, or move this away"):
        finetune(recipe)
    (model / "config.json").unlink()
    with pytest.raises(ValueError, match=r"model holds something else .*lost: README.md, .*, or move this away"):
        finetune(recipe)


def putting(train: Callable[..., Any], path: Path) -> Callable[..., Any]:
    """A training in the course of which a user writes a file."""

    def call(*args: Any) -> Any:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
        return train(*args)

    return call


def worse_and_worse(evaluate: Callable[..., dict[str, float]]) -> Callable[..., dict[str, float]]:
    """An evaluation by which each validation is worse than the one before."""

    def call(self: MMM4RecTrainer, *args: Any, **kwargs: Any) -> dict[str, float]:
        metrics = evaluate(self, *args, **kwargs)
        metrics["eval_ndcg@10"] = 1 - self.state.global_step / 1000
        return metrics

    return call


def test_items_beyond_the_sequences_are_counted_and_can_be_recommended(
    make_finetune_recipe: MakeFinetuneRecipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mmm4rec_hf")
    told = "{} items of the catalogue are in no sequence: they are ranked by their texts and pictures alone"
    recipe = make_finetune_recipe()
    finetune(recipe)
    assert not any("in no sequence" in message for message in caplog.messages)
    # The same twelve items, and three that nobody has seen.
    known = ItemCatalog.from_pretrained(recipe.catalog)
    features = {
        name: np.concatenate([getattr(known, name), getattr(known, name)[:3] + 1])
        for name in ("text_features", "image_features")
    }
    ItemCatalog([*known.item_ids, "new0", "new1", "new2"], **features).save_pretrained(tmp_path / "larger")
    finetune(make_finetune_recipe(catalog=str(tmp_path / "larger"), output_dir=f"{recipe.output_dir}-larger"))
    assert caplog.messages.count(told.format("3 of 15")) == 1
    # Sequences that were prepared with the catalogue know all of its items.
    log = load_interactions(pl.DataFrame({"user_id": ["u"] * 5, "item_id": known.item_ids[:5], "timestamp": range(5)}))
    ids = [*known.item_ids, "new0", "new1", "new2"]
    prepare_sequences(log, k_core=1, item_ids=ids, output_dir=tmp_path / "of-all")
    caplog.clear()
    finetune(
        make_finetune_recipe(
            catalog=str(tmp_path / "larger"),
            sequences=str(tmp_path / "of-all"),
            output_dir=f"{recipe.output_dir}-of-all",
        )
    )
    assert caplog.messages.count(told.format("10 of 15")) == 1
    recommend = pipeline("sequential-recommendation", model=f"{recipe.output_dir}-larger/model", device="cpu")
    assert {"new0", "new1", "new2"} <= {item["item_id"] for item in recommend({"items": ["shop3"]}, top_k=14)}


def test_the_log_says_which_validation_was_kept(
    make_finetune_recipe: MakeFinetuneRecipe, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mmm4rec_hf")
    recipe = make_finetune_recipe(
        training={"num_train_epochs": 3, "per_device_train_batch_size": 16, "learning_rate": 1e-2}
    )
    finetune(recipe)
    record = json.loads((Path(recipe.output_dir) / "training.json").read_text())
    scores = {entry["step"]: entry["eval_ndcg@10"] for entry in record["log"] if "eval_ndcg@10" in entry}
    steps = sorted(scores)
    best = max(steps, key=lambda step: (scores[step], -step))
    expected = f"kept: step {best}, epoch {steps.index(best) + 1}, the best of 3 validations by ndcg@10"
    assert caplog.messages.count(expected) == 1, caplog.messages
    caplog.clear()
    without = {"num_train_epochs": 2, "load_best_model_at_end": False, "save_strategy": "no", "eval_strategy": "no"}
    finetune(make_finetune_recipe(output_dir=f"{recipe.output_dir}-last", training=without))
    last = json.loads((Path(f"{recipe.output_dir}-last") / "training.json").read_text())["sessions"][0]["last_step"]
    assert f"kept: step {last}, epoch 2, the last" in caplog.messages


def test_a_long_training_at_the_default_width_on_a_cpu_is_told_of_a_smaller_model(
    make_finetune_recipe: MakeFinetuneRecipe, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mmm4rec_hf")

    def stop(*args: Any) -> None:
        raise Killed

    monkeypatch.setattr(MMM4RecTrainer, "train", stop)
    smaller = "model.hidden_size=64 model.intermediate_size=64 model.head_dim=16 model.state_size=16"
    sizes = dict(change.removeprefix("model.").split("=") for change in smaller.split())
    assert MMM4RecConfig(**{name: int(value) for name, value in sizes.items()}).num_heads == 8
    long = {"max_steps": 1000, "per_device_train_batch_size": 20, "use_cpu": True}
    cases = (({}, long, 1), ({}, long | {"max_steps": 999}, 0), (SIZES, long, 0), ({}, {"use_cpu": True}, 0))
    for number, (model, training, told) in enumerate(cases):
        with pytest.raises(Killed):
            finetune(
                make_finetune_recipe(
                    output_dir=f"{make_finetune_recipe().output_dir}{number}", model=model, training=training
                )
            )
        said = "width 256 on a CPU: a smaller model takes a quarter to a third of the time; "
        said += f"for one, stop this, and begin in another output_dir with {smaller}"
        assert caplog.messages.count(said) == told
        caplog.clear()


def test_a_base_of_two_layers_gives_its_first(make_finetune_recipe: MakeFinetuneRecipe, base: Path) -> None:
    recipe = make_finetune_recipe(
        start_from=str(base), model={"num_hidden_layers": 1, "use_item_bias": True}, freeze_encoder=True
    )
    model = build_model(recipe, ItemCatalog.from_pretrained(recipe.catalog))
    pretrained = MMM4RecForSequentialRecommendation.from_pretrained(base)
    layers = [name for name, _ in pretrained.named_parameters() if ".layers.0." in name]
    assert len(layers) > 10 and model.config.num_hidden_layers == 1
    for name in [*layers, "model.text_projection.weight"]:
        assert torch.equal(model.get_parameter(name), pretrained.get_parameter(name)), name
    learning = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert learning == {
        f"model.{modality}_projection.{part}" for modality in ("text", "image") for part in ("weight", "bias")
    } | {"items.text_bias", "items.image_bias"}  # fmt: skip


def test_layers_of_a_base_serve_features_of_another_encoder(
    make_finetune_recipe: MakeFinetuneRecipe, base: Path
) -> None:
    with pytest.raises(ValueError, match="fresh_projections.*name it by start_from"):
        make_finetune_recipe(fresh_projections=True)
    recipe = make_finetune_recipe(start_from=str(base), fresh_projections=True)
    catalog = ItemCatalog.from_pretrained(recipe.catalog)
    text = np.hstack([catalog.text_features, catalog.text_features[:, :3]])
    other = ItemCatalog(catalog.item_ids, text_features=text, image_features=catalog.image_features)
    model, again = build_model(recipe, other), build_model(recipe, other)
    pretrained = MMM4RecForSequentialRecommendation.from_pretrained(base)
    for name, weight in pretrained.model.encoder.named_parameters():
        assert torch.equal(model.model.encoder.get_parameter(name), weight), name
    assert model.config.text_feature_size == text.shape[1] == pretrained.config.text_feature_size + 3
    for modality in ("text", "image"):
        projection = getattr(model.model, f"{modality}_projection")
        assert projection.weight.shape == (model.config.hidden_size, getattr(other, f"{modality}_features").shape[1])
        assert 0.5 < projection.weight.std() / model.config.initializer_range < 1.5 and not projection.bias.any()
        # Each start draws its own.
        assert not torch.equal(projection.weight, getattr(again.model, f"{modality}_projection").weight)


def test_a_frozen_encoder_stays_bit_for_bit_while_the_rest_learns(
    make_finetune_recipe: MakeFinetuneRecipe, base: Path, tmp_path: Path
) -> None:
    recipe = make_finetune_recipe(
        start_from=str(base), model={"num_hidden_layers": 1, "use_item_bias": True}, freeze_encoder=True,
        optimizer="nadam",
    )  # fmt: skip
    before = dict(build_model(recipe, ItemCatalog.from_pretrained(recipe.catalog)).named_parameters())
    finetune(recipe)
    after = MMM4RecForSequentialRecommendation.from_pretrained(tmp_path / "out" / "model")
    for name, weight in after.named_parameters():
        assert torch.equal(weight, before[name]) == name.startswith("model.encoder."), name


@pytest.mark.slow
@pytest.mark.parametrize("step", [4, 9])
def test_a_stopped_run_ends_with_the_bits_of_one_that_was_not(
    make_finetune_recipe: MakeFinetuneRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    options = {
        "num_train_epochs": 3, "per_device_train_batch_size": 24, "learning_rate": 1e-2, "seed": 3,
        "save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps", "eval_steps": 2,
    }  # fmt: skip
    whole = finetune(
        make_finetune_recipe(output_dir=str(tmp_path / "whole"), training=options, early_stopping_patience=3)
    )
    recipe = make_finetune_recipe(output_dir=str(tmp_path / "stopped"), training=options, early_stopping_patience=3)
    original = MMM4RecTrainer.training_step
    steps: list[int] = []

    def stopping(self: MMM4RecTrainer, *args: Any) -> torch.Tensor:
        steps.append(self.state.global_step)
        if len(steps) == step:
            raise Killed
        return original(self, *args)

    monkeypatch.setattr(MMM4RecTrainer, "training_step", stopping)
    with pytest.raises(Killed):
        finetune(recipe)
    assert not (tmp_path / "stopped" / "model").exists()
    monkeypatch.setattr(MMM4RecTrainer, "training_step", original)
    again = finetune(recipe)
    assert again.targets.equals(whole.targets)
    models = [
        MMM4RecForSequentialRecommendation.from_pretrained(tmp_path / name / "model") for name in ("whole", "stopped")
    ]
    for (name, weight), other in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        assert torch.equal(weight, other), name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training": {"learning_rates": 1}}, "did you mean 'learning_rate'"),
        ({"training": {"epochs": 2}}, r"no option is named 'epochs'; did you mean 'num_train_epochs'\?$"),
        (
            {"training": {"zzz": 2}},
            r"the documentation of transformers' TrainingArguments lists all \d+$",
        ),
        ({"model": {"zzz": 2}}, r"named 'zzz'; the documentation of MMM4RecConfig lists all \d+$"),
        ({"learning_rate": 1}, r"named 'learning_rate'; did you mean 'training\.learning_rate'\?$"),
        ({"epochs": 1}, r"named 'epochs'; did you mean 'training\.num_train_epochs'\?$"),
        ({"outptu_dir": 1}, r"named 'outptu_dir'; did you mean 'output_dir'\?$"),
        ({"use_item_bias": True}, r"did you mean 'model\.use_item_bias'\?$"),
        ({"zzz": 2}, "named 'zzz'; there are card, catalog, early_stopping_patience"),
        ({"training": {"output_dir": "x"}}, "output_dir stands at the recipe's top"),
        ({"training": {"resume_from_checkpoint": "x"}}, "a run goes on from its own last checkpoint; .* start_from"),
        ({"training": {"push_to_hub": True}}, "not the model that is kept; .* use mmm4rec push .*out NAME"),
        ({"model": {"use_item_bais": True}}, "did you mean 'use_item_bias'"),
        ({"early_stopping_patience": 0}, "early_stopping_patience must be at least 1, got 0"),
        ({"optimizer": "sgd"}, "must be one of 'adamw', 'nadam', got 'sgd'"),
        ({"training": {"learning_rate": "fast"}}, "learning_rate must be a number, got 'fast'"),
    ],
)
def test_a_recipe_that_cannot_be_meant_is_refused(
    make_finetune_recipe: MakeFinetuneRecipe, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_finetune_recipe(**changes)


def test_a_catalogue_without_features_is_refused(make_finetune_recipe: MakeFinetuneRecipe, tmp_path: Path) -> None:
    recipe = make_finetune_recipe()
    ItemCatalog(ItemCatalog.from_pretrained(recipe.catalog).item_ids).save_pretrained(tmp_path / "bare")
    with pytest.raises(ValueError, match="has no text features; name a model to mmm4rec encode"):
        finetune(make_finetune_recipe(catalog=str(tmp_path / "bare")))
    assert not (tmp_path / "out").exists()


def test_the_best_by_loss_is_that_of_the_least(make_finetune_recipe: MakeFinetuneRecipe, tmp_path: Path) -> None:
    # Left to learn for long, the model is worst by its loss before and after some epoch.
    training = make_finetune_recipe().training | {"metric_for_best_model": "loss", "num_train_epochs": 6}
    finetune(make_finetune_recipe(training=training))
    state = max((tmp_path / "out" / "checkpoints").glob("checkpoint-*/trainer_state.json"))
    found = json.loads(state.read_text())
    losses = {entry["step"]: entry["eval_loss"] for entry in found["log_history"] if "eval_loss" in entry}
    assert len(losses) == 6 and found["best_global_step"] == min(losses, key=losses.__getitem__)


def test_a_run_from_a_base_of_other_weights_is_another(
    make_finetune_recipe: MakeFinetuneRecipe, base: Path, tmp_path: Path
) -> None:
    recipe = make_finetune_recipe(start_from=str(base), model={})
    finetune(recipe)
    model = MMM4RecForSequentialRecommendation.from_pretrained(base)
    model.save_pretrained(base)
    finetune(recipe)  # the same weights, written again
    with torch.no_grad():
        model.get_parameter("model.text_projection.weight")[0, 0] += 1
    model.save_pretrained(base)
    with pytest.raises(
        ValueError, match="run on other data .*weights.*; give another output_dir, or remove the folder"
    ):
        finetune(recipe)
