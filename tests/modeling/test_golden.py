"""The published model's numbers, to the last rank."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mmm4rec_hf import MMM4RecForSequentialRecommendation
from mmm4rec_hf.conversion import config_from_published, from_published

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())


@cache
def load(case: str) -> tuple[MMM4RecForSequentialRecommendation, dict[str, torch.Tensor]]:
    io = load_file(GOLDEN / case / "io.safetensors")
    weights = from_published(torch.load(GOLDEN / case / "checkpoint.ckpt", weights_only=True)["model"])
    for modality in ("text", "image"):
        features = io[f"{modality}_features"]
        weights[f"items.{modality}_features"] = torch.cat([torch.zeros_like(features[:1]), features])
    config = config_from_published(
        json.loads((GOLDEN / case / "config.json").read_text()),
        text_feature_size=io["text_features"].shape[1],
        image_feature_size=io["image_features"].shape[1],
    )
    model, info = MMM4RecForSequentialRecommendation.from_pretrained(
        None, config=config, state_dict=weights, output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    return model.eval(), io


def run(case: str, **changes: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    """The model's output and the golden values."""
    model, io = load(case)
    for name, value in changes.items():
        setattr(model.config, name, value)
    try:
        output = model(input_ids=io["items"], timestamps=io["timestamps"], labels=io["labels"])
    finally:
        model.config.item_loss = "full"
        model.config.ssd_implementation = "auto"
    return output, io


def layer_outputs(case: str) -> tuple[Any, dict[str, torch.Tensor]]:
    """The output of a run that keeps every position, and what its layers returned there."""
    model, io = load(case)
    b, length = io["items"].shape
    caught: dict[str, torch.Tensor] = {}

    def catch_layer(j: int) -> Any:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            text, image, both_time = output
            caught[f"layer{j}.text.hidden"] = text.view(b, length, -1)
            caught[f"layer{j}.image.hidden"] = image.view(b, length, -1)
            if both_time is not None:
                caught[f"layer{j}.text.time"], caught[f"layer{j}.image.time"] = both_time

        return hook

    def catch_cross(j: int) -> Any:
        return lambda module, inputs, output: caught.__setitem__(f"layer{j}.cross_ssd", output.view(b, length, -1))

    hooks = []
    for j, layer in enumerate(model.model.encoder.layers):
        hooks += [layer.register_forward_hook(catch_layer(j)), layer.cross_ssd.register_forward_hook(catch_cross(j))]
    output = model(input_ids=io["items"], timestamps=io["timestamps"], output_hidden_states=True)
    for hook in hooks:
        hook.remove()
    return output, caught


@pytest.mark.parametrize("case", CASES)
def test_user_vectors_scores_and_loss_are_the_published_ones(case: str) -> None:
    output, io = run(case)
    torch.testing.assert_close(output.user_embeds, io["user_vectors"], atol=1e-5, rtol=0)
    torch.testing.assert_close(output.logits, io["scores"], atol=1e-5, rtol=0)
    torch.testing.assert_close(output.loss, io["loss"].reshape(()), atol=1e-5, rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_every_layer_gives_the_published_outputs(case: str) -> None:
    _, io = load(case)
    output, caught = layer_outputs(case)
    torch.testing.assert_close(output.user_embeds, io["user_vectors"], atol=1e-5, rtol=0)
    torch.testing.assert_close(output.logits, io["scores"], atol=1e-5, rtol=0)
    layers = [name for name in io if name.startswith("layer")]
    assert layers
    for name in layers:
        torch.testing.assert_close(
            caught[name], io[name], atol=1e-5, rtol=0, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("case", CASES)
def test_ranks_are_the_published_ones_exactly(case: str) -> None:
    output, io = run(case)
    larger = output.logits > output.logits.gather(1, io["labels"].unsqueeze(1))
    assert larger.sum(1).tolist() == io["rank"].tolist()


@pytest.mark.parametrize("case", CASES)
def test_the_in_batch_loss_is_the_published_one(case: str) -> None:
    output, io = run(case, item_loss="in_batch")
    torch.testing.assert_close(output.loss, io["in_batch_loss"].reshape(()), atol=1e-5, rtol=0)


@pytest.mark.parametrize("implementation", ["quadratic", "chunked", "recurrent"])
def test_every_ssd_form_gives_the_published_scores(implementation: str) -> None:
    output, io = run("two_layers", ssd_implementation=implementation)
    torch.testing.assert_close(output.logits, io["scores"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("case", ["base_1layer", "two_layers", "full_histories"])
def test_gradients_are_the_published_ones(case: str) -> None:
    model, _ = load(case)
    model.zero_grad()
    output, io = run(case)
    output.loss.backward()
    published = {name.removeprefix("grad."): value for name, value in io.items() if name.startswith("grad.")}
    assert published
    ours = dict(model.named_parameters())
    renamed = from_published(published)
    assert set(renamed) == set(ours)
    for name, gradient in renamed.items():
        scale = gradient.abs().max().clamp_min(1e-6).item()
        torch.testing.assert_close(
            ours[name].grad, gradient, atol=1e-4 * scale, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )
    model.zero_grad()


def test_every_published_option_has_a_case() -> None:
    configs = [json.loads((GOLDEN / case / "config.json").read_text()) for case in CASES]
    for option, values in {
        "item_mm_fusion": {"static", "dynamic_shared", "dynamic_instance"},
        "is_time": {True, False},
        "is_ffn": {True, False},
        "p2p_residual": {True, False},
        "is_modality_bias": {True, False},
    }.items():
        assert {config[option] for config in configs} == values
    assert {config["max_len"] % 2 for config in configs} == {0, 1}
