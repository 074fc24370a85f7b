"""A smoke form of the quality study: runs of every kind on a small shop, and what their results hold."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from mmm4rec_hf import ItemCatalog, load_interactions, prepare_sequences


@pytest.fixture
def work(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of prepared data, with drawn features in place of the encoders'."""
    folder = tmp_path / "data" / "shop"
    sequences = prepare_sequences(load_interactions(shop / "shop" / "interactions.csv"), k_core=5)
    sequences.save_to_disk(folder / "sequences")
    (folder / "sequences" / "prepare.json").write_text("{}")
    rng, ids = np.random.default_rng(0), list(sequences.item_ids)
    text, image = (rng.normal(size=(len(ids), width)).astype(np.float32) for width in (6, 5))
    ItemCatalog(ids, text_features=text, image_features=image).save_pretrained(folder / "catalog")
    monkeypatch.setenv("MMM4REC_QUALITY_WORK", str(tmp_path))
    return tmp_path


@pytest.mark.slow
def test_a_study_runs_once_and_leaves_ranks_and_curves(run_benchmark: Callable, work: Path) -> None:
    results = work / "results"
    run_benchmark("quality/study.py", "smoke", "--results", results)
    runs = {path.name: json.loads(path.read_text()) for path in results.glob("*.json")}
    variants = ("mmm4rec", "cooccurrence-id", "text-only", "pretrained", "fresh-layers")
    assert sorted(runs) == sorted(f"smoke-shop-{variant}-0.json" for variant in variants)
    for run in runs.values():
        test = run["split"]["test"]
        assert len(test["larger"]) == 30 and 0 < test["metrics"]["loss"] < 20
        # A rank is a place among nine items.
        assert all(0 <= place < 9 for place in test["larger"])
        assert [point["step"] for point in run["curve"]] == [2, 4]
        assert np.isfinite(run["time_effect"])
    assert (work / "pretrainings" / "smoke-base" / "model" / "model.safetensors").is_file()
    learned, fresh = (
        load_file(work / folder / "model" / "model.safetensors")
        for folder in ("runs/smoke-shop-mmm4rec-0", "pretrainings/smoke-fresh_layers")
    )
    changed = {name for name, value in learned.items() if not np.array_equal(value, fresh[name])}
    assert changed and all(name.startswith("model.encoder.") for name in changed)

    told = run_benchmark("quality/variants.py", "smoke", "--against", "mmm4rec", "--steps", "2", "--results", results)
    rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in told.split("\n\n")[1].splitlines()]
    table = {row[0]: dict(zip(rows[0][1:], row[1:], strict=True)) for row in rows[2:]}
    assert set(table) == set(variants) and table["mmm4rec"]["difference"] == ""
    first = runs["smoke-shop-mmm4rec-0.json"]["split"]["test"]["metrics"]["ndcg@10"]
    losses = [point["validation"]["loss"] for point in runs["smoke-shop-mmm4rec-0.json"]["curve"]]
    for variant, row in table.items():
        run = runs[f"smoke-shop-{variant}-0.json"]
        held_out, test = (run["split"][name]["metrics"] for name in ("validation", "test"))
        assert row["NDCG@10, test"] == f"{test['ndcg@10']:.4f}" and row["seeds"] == "1"
        assert row["cross entropy, validation"] == f"{held_out['loss']:.3f}"
        assert row["difference"] in ("", f"{test['ndcg@10'] - first:+.4f}")
        curve = [point["validation"]["loss"] for point in run["curve"]]
        assert row["step 2"] == f"{curve[0]:.3f}"
        there = [str(step) for step, loss in zip((2, 4), curve, strict=True) if loss <= min(losses)]
        assert row["there at step"] == (there or ["never"])[0]

    before = {path: path.stat().st_mtime_ns for path in results.glob("*.json")}
    run_benchmark("quality/study.py", "smoke", "--results", results)
    assert {path: path.stat().st_mtime_ns for path in results.glob("*.json")} == before
