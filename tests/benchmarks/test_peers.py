"""SASRec and GRU4Rec of RecBole on our rows: what they are shown, and their commands on a small shop."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mmm4rec_hf.data import load_interactions, prepare_sequences
from mmm4rec_hf.evaluation import metrics_from_counts

sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / "peers"))
import peer_models  # noqa: E402
import peer_training  # noqa: E402

needs_recbole = pytest.mark.skipif(
    importlib.util.find_spec("recbole") is None, reason="RecBole is not installed; see benchmarks/peers/README.md"
)


@pytest.fixture(scope="module")
def sequences(tmp_path_factory):
    """Six users with 4 to 70 events; item 1000 u + t is the t-th of user u."""
    log = tmp_path_factory.mktemp("log") / "interactions.csv"
    lines = ["user_id,item_id,timestamp"]
    for user, length in enumerate([4, 22, 23, 24, 33, 70]):
        lines += [f"u{user},{1000 * user + time},{time}" for time in range(length)]
    log.write_text("\n".join(lines) + "\n")
    return prepare_sequences(load_interactions(log), k_core=1)


def ids_of(sequences, indices):
    return [int(sequences.item_ids[i - 1]) for i in indices if i > 0]


def test_rows_are_the_last_20_events_and_the_target(sequences):
    for split in ("train", "validation", "test"):
        rows = peer_models.rows_of(sequences, split)
        assert len(rows) == len(sequences[split])
        for items, length, label, row in zip(rows.items, rows.lengths, rows.labels, sequences[split], strict=True):
            history = row["input_ids"][-20:]
            assert items.tolist() == [*history, *[0] * (20 - len(history))]
            assert (int(length), int(label)) == (len(history), row["labels"])


def test_windows_hold_every_training_target_once_with_what_came_before(sequences):
    windows = peer_models.windows_of(sequences)
    seen = []
    for items, length, labels in zip(windows.items, windows.lengths, windows.labels, strict=True):
        history = ids_of(sequences, items)
        assert len(history) == length and (items[length:] == 0).all()
        assert history == list(range(history[0], history[0] + int(length)))
        for place, label in enumerate(labels.tolist()):
            if label:
                assert ids_of(sequences, [label]) == [history[place] + 1]
                # All events that there are, or 11 of them at least.
                assert place >= 10 or history[0] % 1000 == 0
                seen.append(label)
    assert sorted(seen) == sorted(int(row["labels"]) for row in sequences["train"])


@needs_recbole
@pytest.mark.parametrize("name", ["sasrec", "gru4rec"])
def test_both_forms_of_training_give_one_loss_for_the_same_targets(sequences, name):
    torch.manual_seed(0)
    peer = peer_models.Peer(name, len(sequences.item_ids), 8).eval()
    rows = peer_models.rows_of(sequences, "train")
    short = rows.select(rows.lengths < 20)  # these stand at the same places in both forms
    losses = torch.stack([peer.loss(short.select(slice(n, n + 1))) for n in range(len(short))])
    windows = peer_models.windows_of(sequences)
    first = windows.select(torch.tensor([ids_of(sequences, w[:1])[0] % 1000 == 0 for w in windows.items.tolist()]))
    first.labels[:, 19] = 0
    torch.testing.assert_close(peer.loss(first), losses.mean(), rtol=1e-5, atol=1e-6)
    assert not torch.is_anomaly_enabled()


@needs_recbole
@pytest.mark.parametrize("name", ["sasrec", "gru4rec"])
def test_a_peer_learns_a_cycle_and_ranks_it(name):
    """Users walk round 8 items: the next item is certain."""
    steps = torch.arange(8)[:, None] + torch.arange(peer_models.LENGTH)
    rows = peer_models.Rows(steps % 8 + 1, torch.full((8,), peer_models.LENGTH), (steps[:, -1] + 1) % 8 + 1)
    options = peer_training.Options(hidden_size=16, layers=1, dropout=0.0, learning_rate=1e-2, epochs=80, batch_size=8)
    trained = peer_training.train(name, 8, rows, rows, options, seed=0)
    trained.peer.load_state_dict(trained.least_loss.weights)
    counts, loss = peer_training.evaluate(trained.peer, rows)
    assert metrics_from_counts(counts)["hr@10"] == 1 and counts[:, 0].max() == 0 and loss < 0.5
    least = min(trained.curve, key=lambda point: point["validation"]["loss"])
    assert least["epoch"] == trained.least_loss.epoch and loss == pytest.approx(least["validation"]["loss"])
    assert trained.curve[-1]["step"] == len(trained.curve)


@needs_recbole
def test_the_command_tunes_and_keeps_what_is_there(run_benchmark, tmp_path):
    options = ["--data", "shop", "--trials", "2", "--seeds", "2", "--epochs", "2", "--hidden-size", "8"]
    options += ["--work", tmp_path / "work", "--output", tmp_path / "results"]
    run_benchmark("peers/quality.py", *options)
    names = [f"peers-shop-{model}-{seed}.json" for model in ("gru4rec", "sasrec") for seed in (0, 1)]
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == names
    result = json.loads((tmp_path / "results" / "peers-shop-sasrec-1.json").read_text())
    losses = [trial["metrics"]["loss"] for trial in result["tuning"]]
    assert result["options"] == result["tuning"][int(np.argmin(losses))]["options"] and result["seed"] == 1
    assert len(result["split"]["test"]["larger"]) == 30 and len(result["curve"]) == 2
    (tmp_path / "results" / "peers-shop-sasrec-1.json").unlink()
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")}
    run_benchmark("peers/quality.py", *options)
    again = json.loads((tmp_path / "results" / "peers-shop-sasrec-1.json").read_text())
    assert again["split"] == result["split"]
    assert times == {path: path.stat().st_mtime_ns for path in times}


@needs_recbole
def test_the_speed_of_all_models_is_measured_in_one_run(run_benchmark, shop_log, tmp_path):
    options = ["--data", "shop", "--hidden-size", "16", "--batch-size", "16", "--json", tmp_path / "speed.json"]
    run_benchmark("peers/speed.py", *options)
    rows = json.loads((tmp_path / "speed.json").read_text())["rows"]
    assert [row["model"] for row in rows] == ["mmm4rec", "sasrec", "gru4rec", "sasrec_all", "gru4rec_all"]
    targets = sum(len(items) - 3 for items in shop_log)
    for row in rows:
        assert row["targets_per_epoch"] == targets
        assert row["measured_rows"] >= row["rows_per_epoch"] == (30 if row["model"].endswith("_all") else targets)
        assert row["targets_per_second"] == pytest.approx(targets / row["seconds_per_epoch"])
        assert row["parameters"] > 10 * 16
