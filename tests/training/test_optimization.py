"""Which weights decay, and one step of the published optimizer from a published checkpoint."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mmm4rec_hf import MMM4RecForSequentialRecommendation
from mmm4rec_hf.conversion import config_from_published, from_published
from mmm4rec_hf.training.optimization import parameter_groups, published_optimizer
from mmm4rec_hf.training.trainer import MMM4RecTrainer

GOLDEN = Path(__file__).parents[1] / "golden" / "base_1layer"


def test_biases_norms_and_state_space_rates_do_not_decay(shop: SimpleNamespace) -> None:
    model = shop.make_model(["a", "b"], use_item_bias=True, fusion="dynamic_instance")
    decayed, kept = parameter_groups(model, 0.1)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.1, 0.0)
    assert len(decayed["params"]) + len(kept["params"]) == len(names)
    found = {names[id(parameter)] for parameter in kept["params"]}
    layer = "model.encoder.layers.0"
    assert {
        f"{layer}.ssd.A_log", f"{layer}.ssd.D", f"{layer}.cross_ssd.dt_bias", f"{layer}.ssd.norm.weight",
        f"{layer}.text_norm.weight", f"{layer}.ssd.time_gate.norm.weight", "model.encoder.time_norm.bias",
        f"{layer}.ssd.conv.bias", "model.text_projection.bias", "items.text_bias", "items.image_bias",
    } <= found  # fmt: skip
    matrices = {name for name, parameter in model.named_parameters() if name.endswith("weight") and parameter.ndim > 1}
    assert {names[id(parameter)] for parameter in decayed["params"]} == matrices | {"items.fusion_factor"}


def test_frozen_weights_are_in_no_group(shop: SimpleNamespace) -> None:
    model = shop.make_model(["a", "b"])
    model.model.encoder.requires_grad_(False)
    groups = parameter_groups(model, 0.1)
    assert sum(len(group["params"]) for group in groups) == 4  # two projections
    assert len(published_optimizer(model).param_groups[0]["params"]) == 4


def published_model() -> tuple[MMM4RecForSequentialRecommendation, dict[str, torch.Tensor]]:
    io = load_file(GOLDEN / "io.safetensors")
    weights = from_published(torch.load(GOLDEN / "checkpoint.ckpt", weights_only=True)["model"])
    for modality in ("text", "image"):
        features = io[f"{modality}_features"]
        weights[f"items.{modality}_features"] = torch.cat([torch.zeros_like(features[:1]), features])
    config = config_from_published(
        json.loads((GOLDEN / "config.json").read_text()),
        text_feature_size=io["text_features"].shape[1],
        image_feature_size=io["image_features"].shape[1],
        hidden_dropout=0.0,
        embedding_dropout=0.0,
        time_dropout=0.0,
    )
    return MMM4RecForSequentialRecommendation.from_pretrained(None, config=config, state_dict=weights), io


def test_a_step_of_the_published_recipe_from_a_published_checkpoint_is_that_of_the_published_gradients(
    shop: SimpleNamespace, tmp_path: Path
) -> None:
    model, io = published_model()
    published = {name.removeprefix("grad."): value for name, value in io.items() if name.startswith("grad.")}
    gradients = from_published(published)
    expected = {name: weight.detach().clone().requires_grad_() for name, weight in model.named_parameters()}
    for name, weight in expected.items():
        weight.grad = gradients[name].clone()
    torch.optim.NAdam(expected.values(), lr=1e-4, weight_decay=0.005, momentum_decay=0.004).step()

    rows: list[dict[str, Any]] = [
        {"input_ids": items[:length], "timestamps": times[:length], "labels": label}
        for items, times, length, label in zip(
            io["items"].tolist(), io["timestamps"].tolist(), io["lengths"].tolist(), io["labels"].tolist(), strict=True
        )
    ]
    arguments = shop.make_arguments(
        tmp_path,
        per_device_train_batch_size=len(rows),
        max_steps=1,
        learning_rate=1e-4,
        weight_decay=0.005,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        save_strategy="no",
    )
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    MMM4RecTrainer(model, arguments, train_dataset=rows, use_published_optimizer=True).train()
    for name, weight in model.named_parameters():
        # A step of NAdam is as long for a gradient of rounding noise as for any other.
        steady = gradients[name].abs() > 1e-6
        assert steady.any() or not gradients[name].abs().max() > 1e-6, name
        torch.testing.assert_close(
            weight.detach()[steady],
            expected[name].detach()[steady],
            atol=2e-6,
            rtol=1e-5,
            msg=lambda text, name=name: f"{name}: {text}",
        )
        assert not torch.equal(weight, before[name])


@pytest.mark.parametrize("use_published_optimizer", [False, True])
def test_the_trainer_builds_the_optimizer_that_was_asked_for(
    shop: SimpleNamespace, tmp_path: Path, use_published_optimizer: bool
) -> None:
    trainer = MMM4RecTrainer(
        shop.make_model(["a", "b"]),
        shop.make_arguments(tmp_path, weight_decay=0.3, learning_rate=0.01),
        use_published_optimizer=use_published_optimizer,
    )
    optimizer = trainer.create_optimizer()
    decays = [(group["weight_decay"], group["lr"]) for group in optimizer.param_groups]
    if use_published_optimizer:
        assert type(optimizer) is torch.optim.NAdam and decays == [(0.3, 0.01)]
        assert optimizer.param_groups[0]["momentum_decay"] == 0.004
    else:
        assert type(optimizer) is torch.optim.AdamW and decays == [(0.3, 0.01), (0.0, 0.01)]
