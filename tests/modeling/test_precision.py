"""Half precision, autocast, compilation, checkpointing and the two kinds of return value."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from mmm4rec_hf import MMM4RecForSequentialRecommendation

Model = Callable[..., MMM4RecForSequentialRecommendation]
Batch = dict[str, torch.Tensor]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_computes_within_its_own_error(lively_model: Model, dtype: torch.dtype) -> None:
    half = lively_model(num_hidden_layers=2).to(dtype)
    same_weights = copy.deepcopy(half).float()
    generator = torch.Generator().manual_seed(0)
    histories = {
        "input_ids": torch.randint(1, 13, (16, 8), generator=generator),
        "timestamps": torch.randint(1, 10**6, (16, 8), generator=generator).cumsum(1) + 1_300_000_000,
        "labels": torch.arange(16) % 12 + 1,
    }
    with torch.no_grad():
        expected, got = same_weights(**histories), half(**histories)
    assert got.user_embeds.dtype == dtype and torch.isfinite(got.loss)
    # Rounding the weights alone moves the scores of this model by 7 eps of their spread, computing with them by 8.
    error = (got.logits - expected.logits)[:, 1:].square().mean().sqrt() / expected.logits[:, 1:].std()
    assert error < 12 * torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("times", [[0, 0, 0], [-5, 10, 2**40], [0, 32_503_680_000, 32_503_680_001]], ids=str)
def test_extreme_times_stay_finite(lively_model: Model, dtype: torch.dtype, times: list[int]) -> None:
    for time_mode in ("masked", "published"):
        model = lively_model(time_mode=time_mode).to(dtype).train()
        output = model(input_ids=torch.tensor([[1, 2, 3]]), timestamps=torch.tensor([times]), labels=torch.tensor([4]))
        output.loss.backward()
        assert torch.isfinite(output.loss) and torch.isfinite(output.user_embeds).all()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_autocast_keeps_the_time_path_and_the_scores_in_float32(lively_model: Model, batch: Batch) -> None:
    model = lively_model()
    seen: dict[str, torch.dtype] = {}
    layer = model.model.encoder.layers[0]
    layer.ssd.time_modulation.register_forward_hook(lambda m, i, o: seen.__setitem__("tau", o.dtype))
    layer.ssd.time_gate.register_forward_hook(lambda m, i, o: seen.__setitem__("gate", o.dtype))
    layer.fourier_filter.register_forward_hook(lambda m, i, o: seen.__setitem__("filter", o.dtype))
    layer.ssd.out_proj.register_forward_hook(lambda m, i, o: seen.__setitem__("out_proj", o.dtype))
    with torch.no_grad():
        expected = model(**batch).logits
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = model(**batch).logits
    assert seen == {"tau": torch.float32, "gate": torch.float32, "filter": torch.float32, "out_proj": torch.bfloat16}
    assert got.dtype == torch.float32
    assert (got - expected)[:, 1:].abs().max() / expected[:, 1:].abs().max() < 16 * torch.finfo(torch.bfloat16).eps


def test_gradient_checkpointing_changes_no_gradient(lively_model: Model, batch: Batch) -> None:
    gradients = []
    for checkpointing in (False, True):
        changes = {"num_hidden_layers": 2, "hidden_dropout": 0.0, "embedding_dropout": 0.0, "time_dropout": 0.0}
        model = lively_model(**changes).train()
        if checkpointing:
            # The other is its name in releases for Python 3.10, and warns in later ones.
            names = ("activation_checkpointing_enable", "gradient_checkpointing_enable")
            getattr(model, next(name for name in names if hasattr(model, name)))()
            assert all(layer.gradient_checkpointing for layer in model.model.encoder.layers)
        model(**batch).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.slow
@pytest.mark.parametrize("time_mode", ["masked", "published"])
def test_the_backbone_compiles_without_a_graph_break(lively_model: Model, time_mode: str) -> None:
    backbone = lively_model(num_hidden_layers=2, time_mode=time_mode).model
    inputs = {
        "text_features": torch.randn(2, 5, 6),
        "image_features": torch.randn(2, 5, 5),
        "timestamps": torch.tensor([[1, 5, 9, 20, 30], [0, 0, 4, 5, 6]]) + 1_300_000_000,
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]]),
    }
    with torch.no_grad():
        expected = backbone(**inputs).user_embeds
        compiled = torch.compile(backbone, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(**inputs).user_embeds, expected, atol=1e-5, rtol=1e-5)


def test_return_dict_and_hidden_states(lively_model: Model, batch: Batch) -> None:
    model = lively_model(num_hidden_layers=2)
    with torch.no_grad():
        output = model(**batch, output_hidden_states=True)
        as_tuple = model(**batch, return_dict=False)
        plain = model(**batch)
    assert len(output.hidden_states) == len(output.text_hidden_states) == 3
    assert {tuple(state.shape) for state in output.hidden_states} == {(3, 8, 16)}
    last = output.hidden_states[-1][torch.arange(3), batch["attention_mask"].sum(1) - 1]
    assert torch.equal(last, output.user_embeds)
    assert plain.hidden_states is None
    for value, expected in zip(as_tuple, (plain.loss, plain.logits, plain.user_embeds), strict=True):
        assert torch.equal(value, expected)
    histories = {name: batch[name] for name in ("timestamps", "attention_mask")}
    for modality in ("text", "image"):
        histories[f"{modality}_features"] = model.items.get_buffer(f"{modality}_features")[batch["input_ids"]]
    with torch.no_grad():
        states, users = model.model(**histories, return_dict=False)
    torch.testing.assert_close(states, output.hidden_states[-1])
    torch.testing.assert_close(users, plain.user_embeds)


def test_dropout_is_off_in_evaluation_and_on_in_training(lively_model: Model, batch: Batch) -> None:
    model = lively_model()
    with torch.no_grad():
        assert torch.equal(model(**batch).logits, model(**batch).logits)
        model.train()
        assert not torch.equal(model(**batch).user_embeds, model(**batch).user_embeds)


def test_initial_values_follow_the_paper(tiny_config: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    model = MMM4RecForSequentialRecommendation(
        tiny_config(hidden_size=64, head_dim=1, n_groups=1, num_items=5, use_item_bias=True, fusion="dynamic_shared")
    )
    ssd = model.model.encoder.layers[0].ssd
    rates = ssd.A_log.exp()
    assert rates.min() >= 1 and rates.max() <= 16 and rates.std() > 2
    steps = torch.nn.functional.softplus(ssd.dt_bias)
    assert steps.min() >= 1e-3 * 0.999 and steps.max() <= 1e-1 * 1.001
    assert ssd.D.tolist() == [1.0] * 128
    assert abs(ssd.in_proj.weight.std().item() - 0.02) < 0.002 and ssd.in_proj.bias.abs().max() == 0
    assert ssd.conv.weight.abs().max() <= 0.5 and ssd.conv.weight.std() > 0.2
    assert model.items.text_bias.abs().max() == 0 and model.items.fusion_factor.tolist() == [0.0, 0.0]


def test_initial_steps_and_convolutions_follow_their_ranges(tiny_config: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    config = tiny_config(hidden_size=64, head_dim=1, n_groups=1, conv_kernel=2, time_step_min=3.0, time_step_max=4.0)
    ssd = MMM4RecForSequentialRecommendation(config).model.encoder.layers[0].ssd
    steps = torch.nn.functional.softplus(ssd.dt_bias)
    assert 2.999 < steps.min() < 3.2 and 3.8 < steps.max() < 4.001
    # Of two taps a channel: uniform up to 1 / sqrt(2).
    for values in (ssd.conv.weight, ssd.conv.bias):
        assert 0.68 < values.abs().max() <= 0.7072


def test_an_empty_history_gives_a_finite_default_ranking(lively_model: Model) -> None:
    model = lively_model()
    empty = {"input_ids": torch.tensor([[0, 0], [3, 0]]), "timestamps": torch.tensor([[0, 0], [1_300_000_000, 0]])}
    with torch.no_grad():
        logits = model(**empty).logits
    assert torch.isfinite(logits).all() and not torch.equal(logits[0], logits[1])
