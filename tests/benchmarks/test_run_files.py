"""The common form of results: what is written is read again, and metrics of groups follow from the ranks."""

import json
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / "quality"))
import run_files  # noqa: E402

from mmm4rec_hf.data import load_interactions, prepare_sequences  # noqa: E402

COUNTS = np.array([[0, 1], [1, 1], [0, 2], [40, 3]])


def run(**changes):
    made = run_files.make_run(
        "shop",
        "popularity",
        {"window": 5},
        {"validation": run_files.make_split(COUNTS[:2], loss=2.5), "test": run_files.make_split(COUNTS)},
        curve=[{"step": 1, "epoch": 0.5, "seconds": 0.1, "validation": {"loss": 3.0}}],
        parameters=7,
    )
    return made | changes


def test_a_run_is_read_as_it_was_written(tmp_path):
    run_files.write_run(tmp_path / "new" / "run.json", run())
    again = run_files.read_run(tmp_path / "new" / "run.json")
    assert again == run() and again["split"]["test"]["larger"] == [0, 1, 0, 40]
    assert run_files.read_runs(tmp_path / "new") == [again]
    np.testing.assert_array_equal(run_files.counts_of(again), COUNTS)


def test_metrics_follow_from_ranks_for_any_users():
    assert run_files.metrics_of(run())["ndcg@10"] == pytest.approx((1.5 + 1.5 / np.log2(3)) / 4)
    assert run_files.metrics_of(run(), users=np.array([True, False, False, True]))["hr@10"] == 0.5
    assert run_files.values_of(run(), "hr@1").tolist() == [1, 0, 0.5, 0]
    assert run()["split"]["validation"]["metrics"]["loss"] == 2.5


def test_other_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="seed missing"):
        run_files.write_run(tmp_path / "run.json", {key: value for key, value in run().items() if key != "seed"})
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "half.json").write_text('{"data": ')
    with pytest.raises(ValueError, match="no result of a run"):
        run_files.read_run(tmp_path / "list.json")
    with pytest.raises(ValueError, match="no JSON"):
        run_files.read_run(tmp_path / "half.json")
    odd = run()
    odd["split"]["test"]["equal"] = [1]
    with pytest.raises(ValueError, match="test has 4 users in larger and 1 in equal"):
        run_files.write_run(tmp_path / "run.json", odd)
    assert json.loads((tmp_path / "list.json").read_text()) == [1] and not (tmp_path / "run.json").exists()


def sequences(histories):
    rows = [(f"u{user:02d}", item, time) for user, items in enumerate(histories) for time, item in enumerate(items)]
    log = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    return prepare_sequences(load_interactions(log), k_core=1)


def test_users_of_a_bundle_are_found():
    histories = [*[["a", "b", "c", "d"]] * 3, ["x", "a", "b", "c"], ["x", "a", "y", "b"], ["x", "y", "z"]]
    assert run_files.bundle_users(sequences(histories)).tolist() == [True] * 3 + [False] * 3
    assert run_files.bundle_users(sequences(histories), near=True).tolist() == [True] * 4 + [False] * 2
    others = [[f"i{user + step}" for step in range(4)] for user in range(9)]
    assert not run_files.bundle_users(sequences(others)).any()


def test_beauty_has_378_users_of_the_bundle(real_data):
    log = load_interactions(real_data / "beauty" / "interactions.csv")
    sequences = prepare_sequences(log, k_core=5)
    found = run_files.bundle_users(sequences)
    assert (found.sum(), len(found)) == (378, 1404)
    histories = {tuple(row["input_ids"]) for row, is_one in zip(sequences["test"], found, strict=True) if is_one}
    assert len(histories) == 1 and len(*histories) == 6
    assert run_files.bundle_users(sequences, near=True).sum() == 438
