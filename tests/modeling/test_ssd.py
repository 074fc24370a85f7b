"""The three forms of the state space operation agree; the recurrence is the definition."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmm4rec_hf.modeling.ssd_mmm4rec import ssd

FORMS = ["quadratic", "chunked", "recurrent"]


def draw(b: int, length: int, h: int, p: int, g: int, n: int, seed: int, dtype: torch.dtype = torch.float32) -> list:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    x, B, C = normal(b, length, h, p).to(dtype), normal(b, length, g, n).to(dtype), normal(b, length, g, n).to(dtype)
    dt = torch.nn.functional.softplus(normal(b, length, h))
    A = -torch.rand(h, generator=generator) * 15 - 1
    return [x, dt, A, B, C, normal(h)]


def by_definition(x, dt, A, B, C, D) -> torch.Tensor:
    """y_t as the double sum of the paper, one number at a time."""
    b, length, h, p = x.shape
    y = torch.zeros_like(x)
    for i in range(b):
        for k in range(h):
            group = k // (h // B.shape[2])
            for t in range(length):
                for s in range(t + 1):
                    decay = torch.exp(A[k] * dt[i, s + 1 : t + 1, k].sum())
                    y[i, t, k] += decay * (C[i, t, group] @ B[i, s, group]) * dt[i, s, k] * x[i, s, k]
                y[i, t, k] += D[k] * dt[i, t, k] * x[i, t, k]
    return y


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("h", "g"), [(4, 1), (4, 2), (4, 4)])
def test_each_form_is_the_double_sum(form: str, h: int, g: int) -> None:
    inputs = draw(b=2, length=7, h=h, p=3, g=g, n=5, seed=0)
    torch.testing.assert_close(ssd(*inputs, form, chunk_size=3), by_definition(*inputs), atol=1e-5, rtol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    b=st.integers(1, 3),
    length=st.integers(1, 40),
    heads_per_group=st.integers(1, 3),
    g=st.integers(1, 3),
    p=st.integers(1, 5),
    n=st.integers(1, 5),
    chunk_size=st.integers(1, 45),
    seed=st.integers(0, 10**6),
)
def test_the_forms_agree_in_values_and_gradients(
    b: int, length: int, heads_per_group: int, g: int, p: int, n: int, chunk_size: int, seed: int
) -> None:
    inputs = draw(b, length, heads_per_group * g, p, g, n, seed)
    weights = torch.randn(inputs[0].shape, generator=torch.Generator().manual_seed(seed + 1))
    results = []
    for form in FORMS:
        leaves = [value.clone().requires_grad_() for value in inputs]
        y = ssd(*leaves, form, chunk_size=chunk_size)
        (y * weights).sum().backward()
        results.append([y.detach(), *(leaf.grad for leaf in leaves)])
    for other in results[1:]:
        for value, reference in zip(other, results[0], strict=True):
            scale = reference.abs().max().clamp_min(1).item()
            torch.testing.assert_close(value, reference, atol=1e-5 * scale, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("form", FORMS)
def test_half_precision_stays_within_its_own_error(form: str, dtype: torch.dtype) -> None:
    x, dt, A, B, C, D = draw(b=2, length=50, h=4, p=8, g=2, n=8, seed=3)
    half = ssd(x.to(dtype), dt, A, B.to(dtype), C.to(dtype), D, form, chunk_size=16)
    full = ssd(x.to(dtype).float(), dt, A, B.to(dtype).float(), C.to(dtype).float(), D, "recurrent")
    assert half.dtype == dtype
    error = (half.float() - full).abs().max() / full.abs().max()
    assert error < 4 * torch.finfo(dtype).eps


def test_auto_takes_the_chunked_form_for_long_sequences_and_agrees_with_the_recurrence() -> None:
    inputs = draw(b=1, length=300, h=2, p=2, g=1, n=3, seed=4)
    torch.testing.assert_close(ssd(*inputs), ssd(*inputs, "recurrent"), atol=1e-4, rtol=1e-4)
    assert torch.equal(ssd(*inputs), ssd(*inputs, "chunked"))


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(ValueError, match="'fast'"):
        ssd(*draw(1, 2, 1, 1, 1, 1, 0), implementation="fast")


def test_several_sequences_in_a_row_are_refused_by_the_forms_that_mix_them() -> None:
    inputs = draw(1, 4, 2, 2, 1, 2, 0)
    for form in ("chunked", "recurrent"):
        with pytest.raises(ValueError, match=f"need ssd_implementation='quadratic', got '{form}'"):
            ssd(*inputs, implementation=form, sequence=torch.tensor([[0, 0, 1, 1]]))
