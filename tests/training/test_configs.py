"""The recipes of configs/: each loads, and the published ones say what was published."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainingArguments

from mmm4rec_hf import MMM4RecConfig
from mmm4rec_hf.training.finetuning import FinetuneRecipe
from mmm4rec_hf.training.optimization import published_optimizer
from mmm4rec_hf.training.pretraining import PretrainRecipe
from mmm4rec_hf.training.recipes import load_recipe

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*"))
# What a recipe leaves to the person who runs it.
GIVEN = {
    PretrainRecipe: ["output_dir=out", "data_dir=data"],
    FinetuneRecipe: ["output_dir=out", "sequences=sequences", "catalog=catalog"],
}


def load(path: Path) -> Any:
    kind = {"pretrain": PretrainRecipe, "finetune": FinetuneRecipe}[path.name.split("_")[0]]
    return load_recipe(kind, path, GIVEN[kind])


def config(name: str) -> Any:
    return load(next(path for path in CONFIGS if path.name == name))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_recipe_loads_and_its_options_are_taken(path: Path, tmp_path: Path) -> None:
    assert path.suffix == ".yaml"
    recipe = load(path)
    MMM4RecConfig(**recipe.model)
    if isinstance(recipe, FinetuneRecipe):
        TrainingArguments(**(recipe.training | {"output_dir": str(tmp_path), "report_to": "none", "use_cpu": True}))


@pytest.mark.parametrize(
    ("name", "has_biases"), [("finetune_published.yaml", True), ("finetune_published_without_id.yaml", False)]
)
def test_the_published_fine_tuning(name: str, has_biases: bool) -> None:
    recipe = config(name)
    model = MMM4RecConfig(**recipe.model)
    assert (model.num_hidden_layers, model.use_item_bias) == (1, has_biases)
    # As defaults of the published recipe.
    assert (model.hidden_size, model.intermediate_size, model.state_size, model.n_groups) == (256, 256, 64, 8)
    assert (model.head_dim, model.expand, model.conv_kernel, model.max_sequence_length) == (64, 2, 4, 20)
    assert {model.hidden_dropout, model.embedding_dropout, model.time_dropout} == {0.4}
    assert (model.score_temperature, model.time_mode, model.score_padding_item) == (0.8, "published", True)
    assert (recipe.optimizer, recipe.early_stopping_patience, recipe.freeze_encoder) == ("nadam", 10, False)
    training = recipe.training
    assert training["per_device_train_batch_size"] == 1024 and training["gradient_accumulation_steps"] == 8
    assert (training["learning_rate"], training["num_train_epochs"]) == (1e-4, 100)


def test_the_published_pretraining() -> None:
    recipe = config("pretrain_published.yaml")
    assert [domain.name for domain in recipe.domains] == ["food", "home", "cds", "kindle", "movies"]
    model = MMM4RecConfig(**recipe.model)
    assert (model.num_hidden_layers, model.time_mode, model.hidden_size) == (2, "published", 256)
    assert (recipe.negatives, recipe.mask_same_target, recipe.sampling_temperature) == ("all", False, 1.0)
    assert (recipe.batch_size, recipe.gradient_accumulation_steps, recipe.learning_rate) == (1024, 8, 2.5e-4)
    assert (recipe.optimizer, recipe.early_stopping_patience, recipe.max_grad_norm) == ("nadam", 10, None)


def test_the_step_of_averaged_gradients_is_the_published_one_of_their_sum() -> None:
    recipe = config("finetune_published.yaml")
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(50, generator=generator)
    published, ours = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    plain = torch.optim.NAdam([published], lr=1e-4, weight_decay=0.005, momentum_decay=0.004)
    module = torch.nn.Module()
    module.weight = ours
    options = recipe.training
    optimizer = published_optimizer(module, options["learning_rate"], options["weight_decay"])
    for _ in range(5):
        # As small as the decay's own part, so that this part shows.
        gradients = 1e-3 * torch.randn(options["gradient_accumulation_steps"], 50, generator=generator)
        published.grad, ours.grad = gradients.sum(0), gradients.mean(0)
        plain.step()
        optimizer.step()
    moved = (published.detach() - start).abs()
    assert moved.min() > 1e-5
    # What is left is NAdam's epsilon beside gradients that are an eighth as large.
    assert ((ours - published).detach().abs() < 1e-3 * moved).all()
