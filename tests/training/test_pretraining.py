"""Pretraining runs: what they write, what they learn, and what they refuse."""

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch._dynamo.utils import counters
from torch.utils.data import DataLoader
from transformers import AutoModel

from mmm4rec_hf import ItemCatalog, MMM4RecConfig, MMM4RecForSequentialRecommendation
from mmm4rec_hf.data import SequenceDatasets
from mmm4rec_hf.training.objective import InBatchObjective
from mmm4rec_hf.training.pretraining import Pretraining, PretrainRecipe, pretrain
from mmm4rec_hf.training.recipes import build

MakeRecipe = Callable[..., dict[str, Any]]


def run(recipe: dict[str, Any]) -> dict[str, float]:
    return pretrain(build(PretrainRecipe, recipe, "test"))


def lines(recipe: dict[str, Any]) -> list[dict[str, float]]:
    return [json.loads(line) for line in (Path(recipe["output_dir"]) / "log.jsonl").read_text().splitlines()]


def test_a_pretraining_writes_a_base_model_that_any_catalogue_can_be_put_into(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe()
    metrics = run(recipe)
    folder = Path(recipe["output_dir"]) / "model"
    base = AutoModel.from_pretrained(folder)
    assert base.config.num_items is None and base.config.hidden_size == 16
    features = torch.randn(2, 4, 5), torch.randn(2, 4, 3)
    stamps = torch.arange(8).view(2, 4) * 1000
    assert base(text_features=features[0], image_features=features[1], timestamps=stamps).user_embeds.shape == (2, 16)
    catalog = ItemCatalog.from_pretrained(recipe["domains"][1]["catalog"])
    tuned = MMM4RecForSequentialRecommendation.from_pretrained(folder, catalog=catalog)
    assert tuned.item_ids == catalog.item_ids
    for name, weight in base.named_parameters():
        assert torch.equal(weight, tuned.get_parameter(f"model.{name}")), name
    assert {f"{domain}/{name}" for domain in ("a", "bb") for name in ("loss", "hr@10", "ndcg@50")} <= metrics.keys()
    assert not list(Path(recipe["output_dir"]).rglob("*.partial"))
    assert sorted(path.name for path in (folder.parent / "checkpoints").iterdir()) == [
        "checkpoint-000000006", "checkpoint-000000008",
    ]  # fmt: skip


def saved_recommender(recipe: dict[str, Any], folder: Path, **options: Any) -> MMM4RecForSequentialRecommendation:
    """A recommender of the first domain's items, whose weights are all drawn."""
    torch.manual_seed(1)
    sizes = {"text_feature_size": 5, "image_feature_size": 3}
    model = MMM4RecForSequentialRecommendation(MMM4RecConfig(**recipe["model"], **sizes, **options))
    model.set_items(ItemCatalog.from_pretrained(recipe["domains"][0]["catalog"]))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if not name.endswith(("A_log", "dt_bias")):
                weight += 0.1 * torch.randn_like(weight)
    model.save_pretrained(folder)
    return model


def test_a_pretraining_goes_on_from_a_recommender_without_its_items(
    make_recipe: MakeRecipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = saved_recommender(
        make_recipe(), tmp_path / "tuned", fusion="dynamic_shared", use_item_bias=True, use_cooccurrence=True,
        learned_missing=True,
    ).state_dict()  # fmt: skip
    # What all items share is kept as well.
    kept = {name for name in source if name.startswith("model.")}
    kept |= {"items.fusion_factor", "items.missing_text", "items.missing_image"}
    assert {"items.text_features", "items.text_bias", "cooccurrence.weight"} <= source.keys() - kept
    # Nothing is learned, so that the steps change no weight.
    recipe = make_recipe(start_from=str(tmp_path / "tuned"), model={}, learning_rate=0.0, max_steps=1)
    begun = Pretraining(build(PretrainRecipe, recipe, "test")).recommender
    assert begun.item_ids is None and begun.config.num_items is None
    assert any("dropped the 12 items" in record.getMessage() for record in caplog.records)
    metrics = run(recipe)
    assert {"a/ndcg@10", "bb/ndcg@10"} <= metrics.keys()
    folder = Path(recipe["output_dir"]) / "model"
    base = MMM4RecForSequentialRecommendation.from_pretrained(folder)
    assert base.config.num_items is None and not (folder / "item_ids.json").exists()
    for model in (begun, base):
        state = model.state_dict()
        assert state.keys() == kept
        for name in kept:
            assert torch.equal(state[name].cpu(), source[name]), name


def test_weights_of_each_item_are_no_start_and_the_remedy_is_one(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    source = saved_recommender(make_recipe(), tmp_path / "tuned", fusion="dynamic_instance").state_dict()
    recipe = make_recipe(start_from=str(tmp_path / "tuned"), model={}, max_steps=1)
    with pytest.raises(ValueError, match=r"give model\.fusion=static$"):
        run(recipe)
    model = Pretraining(build(PretrainRecipe, recipe | {"model": {"fusion": "static"}}, "test")).recommender
    for name, weight in model.state_dict().items():
        assert torch.equal(weight.cpu(), source[name]), name
    assert model.config.fusion == "static"


def test_a_largest_norm_of_zero_leaves_gradients_as_they_are(make_recipe: MakeRecipe) -> None:
    options: dict[str, Any] = {"max_steps": 2, "eval_steps": None, "save_steps": None}
    logs = []
    for name, norm in (("none", None), ("zero", 0.0), ("small", 1e-6)):
        recipe = make_recipe(name, max_grad_norm=norm, optimizer="nadam", weight_decay=0.0, **options)
        metrics = run(recipe)
        logs.append((lines(recipe), metrics))
    assert logs[0] == logs[1] != logs[2]


def test_what_comes_next_is_learned_in_every_domain(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(max_steps=150, eval_steps=None, save_steps=None)
    recipe["model"] = recipe["model"] | dict.fromkeys(("hidden_dropout", "embedding_dropout", "time_dropout"), 0.0)
    metrics = run(recipe)
    losses = [line["loss"] for line in lines(recipe) if "loss" in line]
    # Where all eight targets of a batch are as likely it is log 8, 2.08.
    assert np.mean(losses[-10:]) < 0.5 * math.log(8)
    # By chance NDCG@10 over 12 items is 0.38.
    assert metrics["a/ndcg@10"] > 0.7 and metrics["bb/ndcg@10"] > 0.7


def test_the_best_model_by_the_mean_ndcg_over_domains_is_kept_and_patience_ends_the_run(
    make_recipe: MakeRecipe,
) -> None:
    recipe = make_recipe(max_steps=60, eval_steps=2, early_stopping_patience=3, save_steps=1)
    run(recipe)
    validations = [line for line in lines(recipe) if "ndcg@10" in line]
    scores = [line["ndcg@10"] for line in validations]
    for line in validations:
        assert line["ndcg@10"] == pytest.approx((line["a/ndcg@10"] + line["bb/ndcg@10"]) / 2)
    best = int(np.argmax(scores))
    stopped_early = len(scores) - 1 - best == 3
    assert stopped_early or validations[-1]["step"] == 60
    last = sorted((Path(recipe["output_dir"]) / "checkpoints").iterdir())[-1]
    progress = json.loads((last / "progress.json").read_text())
    assert progress["best_metric"] == scores[best] and progress["best_step"] == validations[best]["step"]


def test_the_best_model_may_be_told_by_the_mean_loss_over_domains(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(max_steps=24, eval_steps=2, metric_for_best_model="loss", learning_rate=0.02)
    metrics = run(recipe)
    validations = [line for line in lines(recipe) if "ndcg@10" in line]
    losses = [(line["a/loss"] + line["bb/loss"]) / 2 for line in validations]
    best = validations[int(np.argmin(losses))]
    # Neither the first nor the one of the best ranks is meant.
    assert int(np.argmin(losses)) > 0 and best["step"] != max(validations, key=lambda line: line["ndcg@10"])["step"]
    assert {name: best[name] for name in metrics} == metrics
    record = json.loads((Path(recipe["output_dir"]) / "training.json").read_text())
    assert record["kept"] == best["step"]


def test_an_epoch_has_as_many_rows_as_the_domains_and_ends_with_a_validation(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(
        max_steps=None, num_train_epochs=1.5, eval_steps=None, save_steps=None, gradient_accumulation_steps=3
    )
    folders = [Path(domain["sequences"]) for domain in recipe["domains"]]
    rows = sum(len(SequenceDatasets.load_from_disk(folder)["train"]) for folder in folders)
    run(recipe)
    epoch = math.ceil(rows / (3 * 8))
    assert epoch > 2
    validations = [line["step"] for line in lines(recipe) if "ndcg@10" in line]
    assert validations == [epoch, math.ceil(1.5 * epoch)] and lines(recipe)[-1]["step"] == validations[-1]


def test_the_paths_of_domains_start_from_the_data_folder(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(max_steps=1)
    below = [{"name": "a", "catalog": "a/catalog", "sequences": "a/sequences"}, recipe["domains"][1]]
    expected = run(recipe)
    assert (
        run(recipe | {"domains": below, "data_dir": str(tmp_path), "output_dir": str(tmp_path / "other")}) == expected
    )


def test_a_data_loader_that_another_run_left_at_its_end_changes_no_step(make_recipe: MakeRecipe) -> None:
    alone, after = (make_recipe(name, gradient_accumulation_steps=2) for name in ("alone", "after"))
    expected = run(alone)
    loader = Accelerator().prepare(DataLoader(torch.arange(2)))
    loader.begin()
    loader.end_of_dataloader = True
    try:
        assert run(after) == expected
    finally:
        loader.end()
    assert lines(after) == lines(alone)


def test_features_of_different_encoders_are_refused(
    make_recipe: MakeRecipe, make_domain: Callable[..., dict[str, str]]
) -> None:
    recipe = make_recipe()
    wide = make_domain("ccc", text_size=7)
    with pytest.raises(ValueError, match=r"text features of 'a' are 5 wide, those of 'ccc' 7"):
        run(recipe | {"domains": [recipe["domains"][0], wide]})
    infos = [{"text": {"encoder": name, "revision": None, "pooling": "mean"}} for name in ("one", "two")]
    others = [make_domain("d" * n, feature_info=info) for n, info in enumerate(infos, start=4)]
    with pytest.raises(ValueError, match=r"'one'.*'two'"):
        run(recipe | {"domains": others})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 1}, "batch_size must be at least 2"),
        ({"max_steps": 0}, "max_steps must be positive, got 0"),
        ({"max_steps": None}, "give either max_steps or num_train_epochs, got None and None"),
        ({"num_train_epochs": 2}, "give either max_steps or num_train_epochs, got 8 and 2.0"),
        ({"sampling_temperature": -1}, "sampling_temperature must be positive"),
        ({"sampling_temperature": math.nan}, "sampling_temperature must be positive, got nan"),
        ({"max_grad_norm": -1}, "max_grad_norm must not be negative, got -1"),
        ({"warmup_steps": -5}, "warmup_steps must not be negative, got -5"),
        ({"learning_rate": math.nan}, "learning_rate must not be negative, got nan"),
        ({"domains": []}, "domains must be one or more"),
        ({"negatives": "none"}, "negatives must be one of 'domain', 'all'"),
        ({"model": {"use_item_bias": True}}, "use_item_bias cannot be given"),
        ({"model": {"hidden_sizes": 3}}, "did you mean 'hidden_size'"),
        ({"learning_rat": 0.1}, "did you mean 'learning_rate'"),
    ],
)
def test_a_recipe_that_cannot_be_meant_is_refused(
    make_recipe: MakeRecipe, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build(PretrainRecipe, make_recipe(**changes), "test")


def test_a_domain_needs_a_name_of_its_own_and_something_to_train_on(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe()
    with pytest.raises(ValueError, match=r"name of its own, got \['a', 'a'\]"):
        build(PretrainRecipe, recipe | {"domains": [recipe["domains"][0]] * 2}, "test")
    with pytest.raises(ValueError, match="'a' has nothing to train on"):
        build(PretrainRecipe, recipe | {"domains": [{"name": "a", "catalog": "x"}]}, "test")


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(make_recipe: MakeRecipe) -> None:
    with pytest.raises(RuntimeError, match=r"the loss is (nan|inf) at step \d+; lower learning_rate"):
        run(make_recipe(learning_rate=1e30, eval_steps=None, optimizer="nadam", max_steps=40))


def test_lines_without_a_terminal_tell_the_time_that_is_left(
    make_recipe: MakeRecipe, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mmm4rec_hf")
    run(make_recipe())
    lines = {line.split(":")[0]: line for line in caplog.messages if line.startswith("step ") and "loss" in line}
    told = {line for line in lines if lines[line].endswith(", less than a minute left")}
    # From the fifth step on; with the validation of step 6, and not at the end.
    assert told == {f"step {step} of 8" for step in (5, 6, 7)} | {"step 6 of 8, validation"}
    assert {"step 4 of 8", "step 8 of 8"} <= lines.keys()


def test_a_learning_rate_of_ten_is_not_passed_over_in_silence(
    make_recipe: MakeRecipe, make_domain: Callable[..., dict[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    large = make_domain("large", users=150, items=120)
    stopped = ""
    try:
        run(make_recipe(domains=[large], learning_rate=10.0, max_steps=30, eval_steps=10, optimizer="nadam"))
    except (RuntimeError, ValueError) as error:
        stopped = str(error)
    assert "the loss is" in stopped or "cannot be ranked" in stopped or "no better than chance" in caplog.text


def test_bfloat16_computes_nearly_the_losses_of_float32(make_recipe: MakeRecipe) -> None:
    options: dict[str, Any] = {"max_steps": 4, "eval_steps": None, "save_steps": None, "learning_rate": 1e-3}
    losses = []
    # In one process, in which each run has the precision of its own recipe.
    for number, precision in enumerate(("no", "bf16", "no")):
        recipe = make_recipe(f"run-{number}", mixed_precision=precision, **options)
        recipe["model"] = recipe["model"] | dict.fromkeys(("hidden_dropout", "embedding_dropout", "time_dropout"), 0.0)
        run(recipe)
        losses.append([line["loss"] for line in lines(recipe) if "loss" in line])
    assert losses[1] == pytest.approx(losses[0], rel=0.02) and losses[1] != losses[0] == losses[2]


@pytest.mark.slow
def test_a_compiled_pretraining_is_the_one_that_is_not(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Traced and differentiated ahead as always, without the minutes of generating code.
    monkeypatch.setattr(InBatchObjective, "compile", lambda self: nn.Module.compile(self, backend="aot_eager"))
    losses = []
    for compiled in (False, True):
        recipe = make_recipe(f"compiled-{compiled}", compile=compiled, max_steps=3, eval_steps=None, save_steps=None)
        recipe["model"] = recipe["model"] | dict.fromkeys(("hidden_dropout", "embedding_dropout", "time_dropout"), 0.0)
        counters.clear()
        run(recipe)
        assert (counters["stats"]["unique_graphs"] > 0) == compiled
        losses.append([line["loss"] for line in lines(recipe) if "loss" in line])
        AutoModel.from_pretrained(Path(recipe["output_dir"]) / "model")
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr_scheduler_type": "cosin"}, r"lr_scheduler_type 'cosin' cannot be used \(.*'cosine'"),
        ({"lr_scheduler_type": "cosine_with_min_lr"}, "lr_scheduler_type 'cosine_with_min_lr' cannot be used"),
        ({"lr_scheduler_type": "reduce_lr_on_plateau"}, "'reduce_lr_on_plateau' follows a metric"),
        ({"lr_scheduler_type": "greedy"}, "'greedy' follows a metric"),
    ],
)
def test_a_recipe_that_nothing_can_be_made_of_does_not_keep_its_corrected_form_out(
    make_recipe: MakeRecipe, changes: dict[str, Any], message: str
) -> None:
    recipe = make_recipe(max_steps=1, save_steps=None)
    with pytest.raises(ValueError, match=message):
        run(recipe | changes)
    assert not Path(recipe["output_dir"]).exists()
    Pretraining(build(PretrainRecipe, recipe | {"lr_scheduler_type": "cosine"}, "test"))


def test_a_tracker_that_does_not_begin_does_not_keep_the_corrected_recipe_out(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(self: Accelerator, *args: Any) -> None:
        raise ConnectionError("no login")

    recipe = make_recipe(max_steps=1, save_steps=None)
    with monkeypatch.context() as patched, pytest.raises(ConnectionError):
        patched.setattr(Accelerator, "init_trackers", offline)
        run(recipe | {"report_to": ["tensorboard"]})
    assert not (Path(recipe["output_dir"]) / "recipe.json").exists()
    run(recipe)


def test_an_output_folder_takes_no_second_recipe(make_recipe: MakeRecipe) -> None:
    run(make_recipe(max_steps=2))
    with pytest.raises(ValueError, match=r"another recipe \(learning_rate 0.01 before, 0.5 now\)"):
        run(make_recipe(max_steps=2, learning_rate=0.5))


def test_a_run_begun_before_an_option_came_goes_on(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(max_steps=2)
    metrics = run(recipe)
    path = Path(recipe["output_dir"]) / "recipe.json"
    saved = json.loads(path.read_text())
    assert saved.pop("metric_for_best_model") == "ndcg@10"
    path.write_text(json.dumps(saved))
    assert run(recipe) == metrics
    with pytest.raises(ValueError, match=r"metric_for_best_model 'ndcg@10' before, 'loss' now"):
        run(recipe | {"metric_for_best_model": "loss"})


def test_an_output_folder_takes_no_other_data(
    make_recipe: MakeRecipe, make_domain: Callable[..., dict[str, str]]
) -> None:
    run(make_recipe(max_steps=2))
    make_domain("a", users=31)
    with pytest.raises(
        ValueError,
        match=r"holds a run on other data \(training_rows.a \d+ before, \d+ now; .*users 30 before, 31 now.*\); give",
    ):
        run(make_recipe(max_steps=2))


def test_an_output_folder_takes_no_other_features_of_the_same_items(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(max_steps=2)
    run(recipe)
    folder = recipe["domains"][1]["catalog"]
    catalog = ItemCatalog.from_pretrained(folder)
    catalog.image_features = catalog.image_features + 1
    catalog.save_pretrained(folder)
    with pytest.raises(ValueError, match=r"other data \(domains.bb.features.image \w{16} before, \w{16} now\); give"):
        run(recipe)


def test_an_output_folder_takes_no_other_weights_of_the_same_base(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    base = saved_recommender(make_recipe(), tmp_path / "base")
    recipe = make_recipe(start_from=str(tmp_path / "base"), model={}, max_steps=1, save_steps=None)
    metrics = run(recipe)
    (tmp_path / "base" / "README.md").write_text("another card")
    assert run(recipe) == metrics
    # As a version left it that did not note the base.
    path = Path(recipe["output_dir"]) / "training.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({name: value for name, value in record.items() if name != "start_from"}))
    assert run(recipe) == metrics
    path.write_text(json.dumps(record))
    with torch.no_grad():
        next(base.model.encoder.parameters()).add_(1e-3)
    base.save_pretrained(tmp_path / "base")
    with pytest.raises(ValueError, match=r"other data \(start_from.weights \w{16} before, \w{16} now\); give another"):
        run(recipe)
