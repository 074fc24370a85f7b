"""Dropout from a quarter of the random numbers has the law of torch's."""

import math

import pytest
import torch

from mmm4rec_hf.modeling.dropout_mmm4rec import MMM4RecDropout


@pytest.mark.parametrize("p", [0.1, 0.4, 0.5, 0.9])
def test_each_value_stays_as_often_as_it_should_and_the_mean_is_kept(p: float) -> None:
    torch.manual_seed(0)
    n = 1_000_000
    y = MMM4RecDropout(p)(torch.ones(n))
    kept = y[y != 0]
    # Five standard errors, of the share of each of the four values that one number decides on.
    for lane in range(4):
        share = (y[lane::4] != 0).double().mean().item()
        assert abs(share - (1 - p)) < 5 * math.sqrt(p * (1 - p) / (n / 4))
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - p)), rtol=1e-4, atol=0)
    probability = 1 - round(p * 65536) / 65536
    assert kept[0].item() * probability == pytest.approx(1, rel=1e-6)


def test_neighbours_are_dropped_independently() -> None:
    torch.manual_seed(0)
    n = 400_000
    dropped = (MMM4RecDropout(0.4)(torch.ones(n)) == 0).double()
    for distance in (1, 2, 3, 4, 5, 8):
        both = (dropped[distance:] * dropped[:-distance]).mean().item()
        assert abs(both - 0.16) < 5 * math.sqrt(0.16 * 0.84 / n)


@pytest.mark.parametrize("shape", [(), (1,), (3, 5, 7), (0, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_values_and_gradients_are_scaled_or_zero_in_any_shape(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=dtype).requires_grad_()
    y = MMM4RecDropout(0.5)(x)
    assert y.shape == x.shape and y.dtype == dtype
    y.sum().backward()
    assert ((x.grad == 0) | (x.grad == 2)).all()
    assert torch.equal(y, x * x.grad)


def test_a_view_that_is_not_contiguous_is_dropped_value_by_value() -> None:
    torch.manual_seed(0)
    x = torch.arange(1.0, 13).view(3, 4).T
    y = MMM4RecDropout(0.5)(x)
    assert ((y == 0) | (y == 2 * x)).all() and (y == 0).any() and (y != 0).any()


def test_the_seed_decides_and_another_call_draws_anew() -> None:
    x, dropout = torch.ones(1000), MMM4RecDropout(0.4)
    torch.manual_seed(3)
    first, second = dropout(x), dropout(x)
    torch.manual_seed(3)
    assert torch.equal(dropout(x), first)
    assert not torch.equal(first, second)


def test_a_value_in_65536_stays_where_that_is_the_probability() -> None:
    torch.manual_seed(0)
    y = MMM4RecDropout(1 - 2**-16)(torch.ones(1_000_000))
    # Fifteen are expected, and none has a probability of 2e-7.
    assert (y != 0).any() and set(y.tolist()) == {0.0, 65536.0}


def test_elsewhere_it_is_that_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MMM4RecDropout(0.4)(torch.ones(5, device="meta")).device.type == "meta"
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    found = []
    for dropout in (MMM4RecDropout(0.4), torch.nn.Dropout(0.4)):
        torch.manual_seed(0)
        found.append(dropout(torch.ones(100)))
    assert torch.equal(*found)


@pytest.mark.parametrize(("values", "numbers"), [(1, 1), (4, 1), (5, 2), (1000, 250)])
def test_one_random_number_is_drawn_for_four_values(values: int, numbers: int) -> None:
    torch.manual_seed(0)
    MMM4RecDropout(0.4)(torch.ones(values))
    after = torch.rand(3)
    torch.manual_seed(0)
    torch.empty(numbers, dtype=torch.int64).random_(-(2**63), None)
    assert torch.equal(torch.rand(3), after)


def test_nothing_is_dropped_in_evaluation_or_with_probability_zero_and_everything_with_one() -> None:
    x = torch.randn(100)
    assert torch.equal(MMM4RecDropout(0.4).eval()(x), x)
    assert torch.equal(MMM4RecDropout(0.0)(x), x)
    assert torch.equal(MMM4RecDropout(1.0)(x), torch.zeros(100))
