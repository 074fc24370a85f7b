"""Benchmarks of speed and latency at tiny sizes: what they count, and that their forms answer alike."""

import json
import os
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path += [str(BENCHMARKS / "speed"), str(BENCHMARKS / "serving")]
import growth  # noqa: E402
import imports  # noqa: E402
import latency  # noqa: E402

TINY = growth.Point(length=6, items=100, batch=8, layers=1)


def in_this_process(threads: int, call, *args):
    return call(*args)


def test_counted_flops_grow_with_items_by_their_products() -> None:
    more = growth.replace(TINY, items=140)
    grown = {
        kind: 1e9 * (growth.measure(kind, more, 1)["gflop"] - growth.measure(kind, TINY, 1)["gflop"])
        for kind in growth.KINDS
    }
    users, size = TINY.batch, TINY.hidden
    # In evaluation item vectors are at hand: one product with the users. In training that one has two gradients, and
    # both projections of the features one, that of their weights.
    assert grown["evaluate"] == pytest.approx(2 * 40 * size * users)
    assert grown["train"] == pytest.approx(2 * 40 * size * (3 * users + 2 * 2 * TINY.features))


def test_elementwise_operations_are_numbers_made_and_numbers_summed() -> None:
    x, y = torch.randn(5, 7), torch.randn(7)
    with growth.Elementwise() as counted:
        ((x * y).exp() @ torch.randn(7, 3)).sum()
    assert counted.total == 35 + 35 + 15


def test_the_peak_of_memory_is_told_from_what_was_held_before() -> None:
    growth.forget_peak()
    before = growth.held_megabytes("VmRSS")
    torch.ones(2**25)  # 128 MB, freed at once
    assert 120 < growth.held_megabytes("VmHWM") - before < 160
    growth.forget_peak()
    assert growth.held_megabytes("VmHWM") - before < 60


def test_axes_hold_the_base_point_and_become_a_table_and_a_picture(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(growth, "apart", in_this_process)
    monkeypatch.setattr(growth, "matmul_peak", lambda: 50.0)
    result = growth.measure_axes({"layers": (2,), "batch": (16, 2)}, TINY, repeats=1, threads=1)
    assert [row["layers"] for row in result["axes"]["layers"]] == [1, 2]
    assert [row["batch"] for row in result["axes"]["batch"]] == [2, 8, 16]
    assert result["base"] == result["axes"]["layers"][0] == result["axes"]["batch"][1]
    train = result["base"]["train"]
    assert train["share_of_peak"] == pytest.approx(train["gflop"] / train["seconds"] / 50) and train["seconds"] > 0
    assert len(growth.table(result).splitlines()) == 2 + 5 + 1
    growth.draw(result, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")


def test_a_point_that_ends_its_process_is_left_out_and_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(threads: int, call, *args):
        return None if TINY.batch * 2 in [getattr(arg, "batch", None) for arg in args] else call(*args)

    monkeypatch.setattr(growth, "apart", answer)
    monkeypatch.setattr(growth, "matmul_peak", lambda: 50.0)
    result = growth.measure_axes({"batch": (16,)}, TINY, repeats=1, threads=1)
    assert [row["batch"] for row in result["axes"]["batch"]] == [8]
    assert "batch=16" in capsys.readouterr().err


def test_the_matmul_peak_is_of_a_product(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0.0, 0.5, 1.0, 1.25])
    monkeypatch.setattr(growth.time, "perf_counter", lambda: next(ticks))
    assert growth.matmul_peak(size=100, repeats=2) == pytest.approx(2e6 / 0.25 / 1e9)


@pytest.mark.slow
def test_another_process_answers_or_ends() -> None:
    assert growth.apart(1, divmod, 17, 5) == (3, 2)
    assert growth.apart(1, torch.get_num_threads) == 1
    assert growth.apart(1, os._exit, 9) is None


def test_the_pipelines_and_the_plain_formulation_recommend_the_same_items() -> None:
    pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    args = Namespace(
        items=200, top_k=5, calls=12, plain_every=3, rounds=2, warm_up=1, batch_size=6, passes=1, threads=1
    )
    result = latency.measure(args)
    assert result["same_items_as_the_baselines"] == 1
    assert {name: line["calls"] for name, line in result["one_history"].items()} == {
        "pipeline": 12,
        "pipeline_onnx": 12,
        "plain": 4,
        "plain_items_kept": 4,
    }
    assert all(value > 0 for value in result["users_a_second_at_6"].values())
    assert [len(stages) for stages in result["stages_ms"].values()] == [3, 3]


def test_percentiles_are_of_the_sorted_calls() -> None:
    line = latency.summary([float(n) for n in range(200, 0, -1)])
    assert line == {"calls": 200, "least_ms": 1, "median_ms": 101, "p90_ms": 181, "p99_ms": 199, "most_ms": 200}


def test_imports_are_timed_in_fresh_processes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    statements = {
        "transformers": "import time; time.sleep(0.8)",
        "mmm4rec_hf": "import sys; assert 'pytest' not in sys.modules",
        "work": "import time\nwhile time.process_time() < 0.3: pass\nraise SystemExit(0)",
    }
    monkeypatch.setattr(imports, "STATEMENTS", statements)
    monkeypatch.setattr(sys, "argv", ["imports.py", "--rounds", "2", "--json", str(tmp_path / "imports.json")])
    imports.main()
    result = json.loads((tmp_path / "imports.json").read_text())
    assert result["seconds"]["transformers"]["least"] > 0.8 > result["seconds"]["transformers"]["processor"]
    assert result["seconds"]["work"]["processor"] > 0.299  # as the parent counts it, in larger steps
    assert result["mmm4rec_hf_beyond_transformers"] < 0 and "at most 0.3 s more: yes" in capsys.readouterr().out
    with pytest.raises(imports.subprocess.CalledProcessError):
        imports.run("raise SystemExit(3)")
