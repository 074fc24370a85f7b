"""The optional kernels: what they are given and what is made of their results, on stand-ins that follow their
documentation; and that nothing breaks where they are absent or broken. The kernels themselves need a GPU."""

import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.utils import logging

from mmm4rec_hf import MMM4RecForSequentialRecommendation
from mmm4rec_hf.modeling import kernels_mmm4rec as kernels
from mmm4rec_hf.modeling import ssd_mmm4rec
from mmm4rec_hf.modeling.ssd_mmm4rec import ssd, ssd_form

Model = Callable[..., MMM4RecForSequentialRecommendation]
HISTORIES = {
    "input_ids": torch.tensor([[3, 1, 0, 0, 0], [2, 2, 4, 7, 9], [5, 0, 0, 0, 0], [1, 6, 8, 0, 0]]),
    "timestamps": torch.tensor(
        [[10, 500, 0, 0, 0], [7, 30, 90_000, 90_001, 200_000], [5, 0, 0, 0, 0], [1, 2, 3, 0, 0]]
    ),
    "labels": torch.tensor([1, 5, 2, 12]),
}


def scan(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, chunk_size: int, D: Any, seq_idx: Any) -> Tensor:
    """`mamba_chunk_scan_combined` by the recurrence: a state is emptied where a new sequence begins."""
    assert D is None and chunk_size >= 16 and chunk_size & (chunk_size - 1) == 0
    assert seq_idx is None or (seq_idx.dtype == torch.int32 and seq_idx.shape == x.shape[:2] and seq_idx.min() >= 0)
    b, length, h, p = x.shape
    B, C = (t.repeat_interleave(h // t.shape[2], dim=2) for t in (B, C))
    state = torch.zeros(b, h, p, B.shape[3], dtype=x.dtype)
    outputs = []
    for t in range(length):
        if seq_idx is not None and t > 0:
            state = state * (seq_idx[:, t] == seq_idx[:, t - 1])[:, None, None, None]
        decay = torch.exp(dt[:, t] * A)[..., None, None]
        state = decay * state + (dt[:, t, :, None] * x[:, t])[..., None] * B[:, t, :, None]
        outputs.append((state * C[:, t, :, None]).sum(-1))
    return torch.stack(outputs, 1)


def convolve(x: Tensor, weight: Tensor, bias: Any, seq_idx: Any, activation: Any) -> Tensor:
    """`causal_conv1d_fn`, a tap at a time."""
    assert x.stride(1) == 1 and activation in (None, "silu")
    length, width = x.shape[2], weight.shape[1]
    y = torch.zeros_like(x) + bias[:, None]
    for back in range(width):
        shifted = F.pad(x, (back, 0))[..., :length]
        if seq_idx is not None:
            same = F.pad(seq_idx, (back, 0), value=-1)[:, :length] == seq_idx
            shifted = shifted * same.unsqueeze(1)
        y = y + shifted * weight[:, width - 1 - back, None]
    return F.silu(y) if activation == "silu" else y


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Puts stand-ins in the kernels' places, as if this were a GPU; notes each call."""
    calls: list[str] = []

    def noting(name: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(*args: Any, **kwargs: Any) -> Tensor:
            calls.append(name)
            return function(*args, **kwargs)

        return call

    for name, attribute, function in (
        ("mamba_ssm.ops.triton.ssd_combined", "mamba_chunk_scan_combined", scan),
        ("causal_conv1d", "causal_conv1d_fn", convolve),
    ):
        module = types.ModuleType(name)
        setattr(module, attribute, noting(attribute, function))
        monkeypatch.setitem(sys.modules, name, module)
    for parent in ("mamba_ssm", "mamba_ssm.ops", "mamba_ssm.ops.triton"):
        monkeypatch.setitem(sys.modules, parent, types.ModuleType(parent))
    monkeypatch.setattr(kernels, "_can_run_on", lambda device: not torch.compiler.is_compiling())
    kernels._imported.cache_clear()
    yield calls
    kernels._imported.cache_clear()


def loss_and_gradients(model: MMM4RecForSequentialRecommendation) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    loss = model(**HISTORIES).loss
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("activation", ["silu", "hardswish"])
@pytest.mark.parametrize("conv_kernel", [4, 5])
def test_the_model_gives_the_same_numbers_and_gradients_by_the_kernels(
    lively_model: Model, request: pytest.FixtureRequest, activation: str, conv_kernel: int
) -> None:
    options = {"cross_ssd_activation": activation, "num_hidden_layers": 2, "conv_kernel": conv_kernel}
    model = lively_model(**options).eval()
    expected, gradients = loss_and_gradients(model)
    calls = request.getfixturevalue("stand_ins")
    found, others = loss_and_gradients(model)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(others[name], gradient, atol=1e-5, rtol=1e-4, msg=name)
    # Two layers: the shared TiSSD once for both branches, and the Cross-SSD; five taps are more than the kernel has.
    assert calls.count("mamba_chunk_scan_combined") == 4
    # The query of the last layer is convolved at the last event alone.
    assert calls.count("causal_conv1d_fn") == (5 if conv_kernel == 4 else 0)


def test_every_position_is_the_same_by_the_kernels(lively_model: Model, stand_ins: list[str]) -> None:
    model = lively_model().eval()
    inputs = {name: HISTORIES[name] for name in ("input_ids", "timestamps")}
    with torch.no_grad():
        found = model(**inputs, output_hidden_states=True)
        assert "mamba_chunk_scan_combined" in stand_ins
        model.config.ssd_implementation = "recurrent"
        expected = model(**inputs, output_hidden_states=True)
    for one, other in zip(found.hidden_states, expected.hidden_states, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("asked", "given"), [(5, 16), (16, 16), (17, 32), (64, 64), (65, 128)])
def test_the_kernel_has_chunks_of_a_power_of_two(
    monkeypatch: pytest.MonkeyPatch, stand_ins: list[str], asked: int, given: int
) -> None:
    sizes: list[int] = []

    def noting(*arguments: Any, **options: Any) -> Tensor:
        sizes.append(arguments[5])
        return scan(*arguments, **options)

    monkeypatch.setattr(ssd_mmm4rec, "chunk_scan", lambda device: noting)
    x, dt, maps = torch.ones(1, 3, 1, 2), torch.ones(1, 3, 1), torch.ones(1, 3, 1, 4)
    ssd(x, dt, torch.tensor([-1.0]), maps, maps, torch.tensor([1.0]), "mamba_ssm", chunk_size=asked)
    assert sizes == [given]


@pytest.mark.parametrize(
    ("width", "channels", "has_one"),
    [(1, 16, False), (2, 16, True), (3, 16, True), (4, 16, True), (5, 16, False), (4, 8, True), (4, 12, False),
     (4, 9, False)],
)  # fmt: skip
def test_convolutions_of_two_to_four_taps_and_whole_eights_of_channels_have_a_kernel(
    stand_ins: list[str], width: int, channels: int, has_one: bool
) -> None:
    conv = torch.nn.Conv1d(channels, channels, width, groups=channels)
    assert (kernels.causal_conv_kernel(conv, torch.device("cpu")) is not None) == has_one


def test_kernels_are_for_cuda_and_not_for_what_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = ("cpu", "cuda", "meta", "mps", "xpu")
    assert [kind for kind in kinds if kernels._can_run_on(torch.device(kind))] == ["cuda"]
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not any(kernels._can_run_on(torch.device(kind)) for kind in kinds)


def test_the_skip_connection_takes_the_scaled_input(stand_ins: list[str]) -> None:
    x, dt = torch.full((1, 1, 1, 2), 3.0), torch.full((1, 1, 1), 0.5)
    B, C = torch.zeros(1, 1, 1, 4), torch.ones(1, 1, 1, 4)
    y = ssd(x, dt, torch.tensor([-1.0]), B, C, torch.tensor([10.0]), "mamba_ssm")
    assert y.flatten().tolist() == [15.0, 15.0]  # 10 x 0.5 x 3
    assert stand_ins == ["mamba_chunk_scan_combined"]


ERRORS = [
    OSError("libcudart.so.11.0: cannot open shared object file"),
    ImportError("selective_scan_cuda.so: undefined symbol: _ZN3c104cuda9SetDevice"),
    ModuleNotFoundError("No module named 'mamba_ssm'"),
    RuntimeError("no kernel image is available"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_broken_kernel_gives_one_warning_and_the_same_numbers(
    lively_model: Model, monkeypatch: pytest.MonkeyPatch, stand_ins: list[str], error: Exception
) -> None:
    def fail(name: str) -> None:
        raise error

    warnings: list[str] = []
    monkeypatch.setattr(kernels.importlib, "import_module", fail)
    monkeypatch.setattr(kernels.logger, "warning", warnings.append)
    model = lively_model().eval()
    found, _ = loss_and_gradients(model)
    loss_and_gradients(model)
    assert len(warnings) == 2 and all(str(error) in warning for warning in warnings)
    assert {warning.split()[0] for warning in warnings} == {"mamba-ssm", "causal-conv1d"}
    assert not stand_ins
    monkeypatch.setattr(kernels, "_can_run_on", lambda device: False)
    assert torch.equal(loss_and_gradients(model)[0], found)


def test_a_kernel_that_is_asked_for_on_a_cpu_gives_one_warning_and_the_same_numbers(
    lively_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(ssd_mmm4rec.logger, "warning", warnings.append)
    logging.warning_once.cache_clear()
    expected = loss_and_gradients(lively_model().eval())[0]
    assert not warnings  # nobody asked for it
    model = lively_model(ssd_implementation="mamba_ssm").eval()
    assert torch.equal(loss_and_gradients(model)[0], expected)
    assert len(warnings) == 1 and "needs CUDA, not cpu" in warnings[0]
    assert ssd_form("mamba_ssm", 20, torch.device("cpu")) == "quadratic"
    assert len(warnings) == 1 and "needs CUDA, not cpu" in warnings[0]
    assert ssd_form("mamba_ssm", 2000, torch.device("cpu")) == "chunked"


@pytest.mark.parametrize("raised", ["OSError('libcudart.so.11.0')", "ImportError('undefined symbol: _ZN3c10')"])
def test_the_package_imports_and_scores_beside_kernels_that_raise(tmp_path: Path, raised: str) -> None:
    for name in ("mamba_ssm", "causal_conv1d"):
        (tmp_path / f"{name}.py").write_text(f"raise {raised}\n")
    script = """
import sys, warnings
sys.path.insert(0, sys.argv[1])
warnings.simplefilter("error")
import torch, mmm4rec_hf
config = mmm4rec_hf.MMM4RecConfig(hidden_size=16, head_dim=4, num_items=3, text_feature_size=2, image_feature_size=2)
model = mmm4rec_hf.MMM4RecForSequentialRecommendation(config).eval()
ids = torch.tensor([[1, 2]])
print(tuple(model(input_ids=ids, timestamps=ids).logits.shape))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[0] == "(1, 4)"
    assert "mamba" not in done.stderr and "libcudart" not in done.stderr
