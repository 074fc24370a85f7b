"""The time path against numbers computed by hand and by torch's own FFT."""

import math
from collections.abc import Callable

import pytest
import torch

from mmm4rec_hf import MMM4RecConfig, MMM4RecForSequentialRecommendation
from mmm4rec_hf.modeling.time_mmm4rec import (
    MMM4RecFourierFilter,
    MMM4RecTimeNorm,
    event_intervals,
    log_intervals,
)


def test_intervals_are_exact_where_float32_timestamps_would_merge_events() -> None:
    timestamps = torch.tensor([[1_387_670_400, 1_387_670_430, 1_387_670_431]])
    assert event_intervals(timestamps).tolist() == [[0.0, 30.0, 1.0]]
    assert float(torch.tensor(1_387_670_430.0)) == float(torch.tensor(1_387_670_431.0))


def test_masked_norm_by_hand(tiny_config: Callable[..., MMM4RecConfig]) -> None:
    norm = MMM4RecTimeNorm(tiny_config(max_sequence_length=4))
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
        norm.bias.copy_(torch.tensor([0.5, 0.0, -0.5, 9.0]))
    signal = torch.tensor([[[0.0, 2.0, 4.0, 77.0]]])
    mask = torch.tensor([[[1.0, 1.0, 1.0, 0.0]]])
    # Mean 2, variance 8/3 over the three events: (0 - 2) / 1.63299 = -1.22474.
    expected = torch.tensor([[[-1.2247449 + 0.5, 0.0, 3 * 1.2247449 - 0.5, 0.0]]])
    torch.testing.assert_close(norm(signal, mask), expected)


def test_the_norm_of_the_log_mode_is_weights_and_biases(tiny_config: Callable[..., MMM4RecConfig]) -> None:
    norm = MMM4RecTimeNorm(tiny_config(max_sequence_length=3, time_mode="log"))
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2.0, 3.0]))
        norm.bias.copy_(torch.tensor([0.5, 0.0, 9.0]))
    signal, mask = torch.tensor([[[2.0, 4.0, 77.0]]]), torch.tensor([[[1.0, 1.0, 0.0]]])
    assert norm(signal, mask).tolist() == [[[2.5, 8.0, 0.0]]]


@pytest.mark.parametrize(
    ("mode", "given"),
    [
        ("masked", [0.0, 86_400.0, 0.0, 0.0]),
        ("log", [0.0, 0.84168875, -2.0, 0.0]),
        ("published", [0.0, 86_400.0, 0.0, -86_500.0]),
    ],
)
def test_a_norm_is_given_the_gaps_of_its_mode(lively_model: Callable, mode: str, given: list[float]) -> None:
    model, seen = lively_model(time_mode=mode, max_sequence_length=4), []
    model.model.encoder.time_norm.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    model(input_ids=torch.tensor([[3, 1, 2, 0]]), timestamps=torch.tensor([[100, 86_500, 86_500, 0]]))
    torch.testing.assert_close(seen[0], torch.tensor(given).expand(2, 1, 1, 4))  # both branches'


def test_masked_norm_of_one_event_is_the_bias(tiny_config: Callable[..., MMM4RecConfig]) -> None:
    norm = MMM4RecTimeNorm(tiny_config(max_sequence_length=3))
    torch.nn.init.constant_(norm.bias, 0.25)
    signal = torch.tensor([[[123456.0, 7.0, 7.0]]], requires_grad=True)
    output = norm(signal, torch.tensor([[[1.0, 0.0, 0.0]]]))
    assert output.tolist() == [[[0.25, 0.0, 0.0]]]
    output.sum().backward()
    assert torch.isfinite(signal.grad).all()


def test_two_events_always_give_plus_and_minus_one(tiny_config: Callable[..., MMM4RecConfig]) -> None:
    norm = MMM4RecTimeNorm(tiny_config(max_sequence_length=2))
    for gap in (1.0, 1e9):
        output = norm(torch.tensor([[[0.0, gap]]]), torch.ones(1, 1, 2))
        torch.testing.assert_close(output, torch.tensor([[[-1.0, 1.0]]]))


@pytest.mark.parametrize("length", [1, 2, 7, 8, 20])
def test_the_fourier_filter_is_the_one_of_complex_numbers(
    tiny_config: Callable[..., MMM4RecConfig], length: int
) -> None:
    torch.manual_seed(0)
    module = MMM4RecFourierFilter(tiny_config(max_sequence_length=length))
    image_time, text_time = torch.randn(2, 3, length), torch.randn(2, 3, length)

    def complex_linear(layer, signal: torch.Tensor) -> torch.Tensor:
        re, im = signal.real, signal.imag
        return torch.complex(layer.real(re) - layer.imag(im), layer.imag(re) + layer.real(im))

    image, text = torch.fft.rfft(image_time, norm="ortho"), torch.fft.rfft(text_time, norm="ortho")
    mixed = complex_linear(module.image_filter, image) * image + complex_linear(module.text_filter, text) * text
    expected = torch.fft.irfft(complex_linear(module.output_filter, mixed), n=length, norm="ortho")
    torch.testing.assert_close(module(image_time, text_time, None), expected, atol=1e-5, rtol=1e-5)


def test_log_intervals_by_hand() -> None:
    intervals = torch.tensor([[0.0, math.e**8 - 1, 0.0, 86_400.0, -5.0]])
    # (ln(86401) - 8) / 4 = (11.366755 - 8) / 4
    expected = torch.tensor([[0.0, 0.0, -2.0, 0.84168875, -2.0]])
    torch.testing.assert_close(log_intervals(intervals), expected, atol=1e-6, rtol=0)


def lively_users(config: MMM4RecConfig, timestamps: torch.Tensor, pad: int = 0) -> torch.Tensor:
    torch.manual_seed(0)
    model = MMM4RecForSequentialRecommendation(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.endswith(("A_log", "dt_bias")):
                parameter += 0.3 * torch.randn_like(parameter)
        for features in (model.items.text_features, model.items.image_features):
            features[1:].normal_()
        input_ids = torch.tensor([[3, 1, 2]]).repeat(len(timestamps), 1)
        padding = torch.zeros(len(timestamps), pad, dtype=torch.long)
        return model.user_embeds(torch.cat([padding, input_ids], 1), torch.cat([padding, timestamps], 1))


def test_only_the_log_mode_reads_the_scale_of_the_gaps(tiny_config: Callable[..., MMM4RecConfig]) -> None:
    """A hundred times as slow, and the masked mode, which normalises each history, cannot tell."""
    timestamps = torch.tensor([[0, 600, 4200], [0, 60_000, 420_000]])
    fast, slow = lively_users(tiny_config(num_items=12, time_mode="masked"), timestamps)
    torch.testing.assert_close(fast, slow, atol=1e-5, rtol=1e-5)
    fast, slow = lively_users(tiny_config(num_items=12, time_mode="log", num_hidden_layers=2), timestamps)
    assert float((fast - slow).norm() / fast.norm()) > 1e-3


def test_padding_changes_nothing_in_the_log_mode(tiny_config: Callable[..., MMM4RecConfig]) -> None:
    config = tiny_config(num_items=12, time_mode="log", num_hidden_layers=2)
    timestamps = torch.tensor([[1_387_670_400, 1_387_670_430, 1_387_770_430]])
    torch.testing.assert_close(lively_users(config, timestamps, pad=3), lively_users(config, timestamps))


def test_the_time_path_starts_dead_as_published_and_alive_by_option(tiny_config: Callable[..., MMM4RecConfig]) -> None:
    def effect(**options: float | str) -> float:
        torch.manual_seed(0)
        model = MMM4RecForSequentialRecommendation(tiny_config(num_items=12, **options)).eval()
        with torch.no_grad():
            for features in (model.items.text_features, model.items.image_features):
                features[1:].normal_()
            times = torch.tensor([[0, 60, 100_000], [0, 99_000, 100_000]])
            one, other = model.user_embeds(torch.tensor([[3, 1, 2], [3, 1, 2]]), times)
        return float((one - other).norm() / one.norm())

    dead = max(effect(), 1e-7)
    assert dead < 1e-6
    assert effect(time_initializer_range=1.0) > 100 * dead
    assert effect(time_initializer_range=1.0, time_mode="log") > 100 * dead


def test_the_range_of_the_time_path_is_its_linear_weights_alone(tiny_config: Callable[..., MMM4RecConfig]) -> None:
    torch.manual_seed(0)
    model = MMM4RecForSequentialRecommendation(tiny_config(max_sequence_length=20, time_initializer_range=0.5))
    for name, parameter in model.named_parameters():
        if name.endswith("weight") and parameter.ndim == 2 and parameter.numel() >= 100:
            in_time_path = any(part in name for part in ("time_modulation", "time_gate", "fourier_filter"))
            assert float(parameter.detach().std()) == pytest.approx(0.5 if in_time_path else 0.02, rel=0.25), name


def test_angles_of_long_histories_keep_their_digits() -> None:
    cos, sin = MMM4RecFourierFilter._basis(512, torch.device("cpu"))
    angles = torch.outer(torch.arange(512), torch.arange(257)).double() * (2 * math.pi / 512)
    # Of a float32 near 2 pi the last digit is 5e-7; of one near 256 x 2 pi it is 1e-4.
    torch.testing.assert_close(cos.double() * math.sqrt(512), angles.cos(), atol=2e-6, rtol=0)
    torch.testing.assert_close(sin.double() * math.sqrt(512), angles.sin(), atol=2e-6, rtol=0)
