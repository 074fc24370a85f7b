"""The time path against numbers computed by hand and by torch's own FFT."""

from collections.abc import Callable

import pytest
import torch

from mmm4rec_hf import MMM4RecConfig
from mmm4rec_hf.modeling.time_mmm4rec import (
    MMM4RecFourierFilter,
    MMM4RecTimeNorm,
    event_intervals,
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
