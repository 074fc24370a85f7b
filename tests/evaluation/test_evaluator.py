"""A model on a split against one row at a time, and what is saved and compared."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from mmm4rec_hf import MMM4RecForSequentialRecommendation
from mmm4rec_hf.data import SequenceDatasets, load_interactions, prepare_sequences
from mmm4rec_hf.evaluation import ranking
from mmm4rec_hf.evaluation.evaluator import Evaluation, compare, evaluate_model
from mmm4rec_hf.evaluation.protocol import describe
from mmm4rec_hf.items import ItemCatalog
from mmm4rec_hf.modeling import modeling_mmm4rec

Model = MMM4RecForSequentialRecommendation


@pytest.mark.parametrize("exclude_history", [False, True])
def test_ranks_and_losses_are_those_of_one_row_at_a_time(
    model: Model, sequences: SequenceDatasets, exclude_history: bool
) -> None:
    evaluation = evaluate_model(model, sequences, "test", batch_size=4, exclude_history=exclude_history)
    ids = sequences.item_ids
    assert model.item_ids is not None
    for row, found in zip(sequences["test"], evaluation.targets.to_dicts(), strict=True):
        history = [model.item_ids.index(ids[n - 1]) + 1 for n in row["input_ids"]]
        target = model.item_ids.index(ids[row["labels"] - 1]) + 1
        with torch.no_grad():
            scores = model(
                input_ids=torch.tensor([history]), timestamps=torch.tensor([row["timestamps"].tolist()])
            ).logits[0, 1:].double()  # fmt: skip
        own = scores[target - 1]
        assert found["loss"] == pytest.approx(float(scores.logsumexp(0) - own), abs=1e-4)
        left = [n for n in range(1, 17) if n == target or not exclude_history or n not in history]
        assert found["above"] == sum(float(scores[n - 1] - own) > 1e-5 for n in left)
        assert found["level"] == sum(abs(float(scores[n - 1] - own)) <= 1e-5 for n in left)
        assert found["item_id"] == ids[row["labels"] - 1]


def test_the_numbers_do_not_change_with_the_batch_and_the_model_keeps_its_mode(
    model: Model, sequences: SequenceDatasets
) -> None:
    model.train()
    one, many = (evaluate_model(model, sequences, batch_size=size) for size in (1, 256))
    assert model.training
    assert one.targets.drop("loss").equals(many.targets.drop("loss"))
    assert one.metrics == pytest.approx(many.metrics, abs=1e-5)
    assert one.targets["user_id"].to_list() == sequences.user_ids_of("test")
    assert one.metrics["users"] == 25 and 0 < one.metrics["coverage@10"] <= 1
    assert one.protocol["num_items"] == 16 and one.protocol["split"] == "test"
    assert one.protocol["users_without_target"] == 0


def test_a_catalogue_whose_tables_are_not_kept_is_ranked_alike(
    model: Model, sequences: SequenceDatasets, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = evaluate_model(model, sequences)
    monkeypatch.setattr(ranking, "LARGEST_TABLE", 0)
    monkeypatch.setattr(modeling_mmm4rec, "_LARGEST_TABLE", 0)
    embedded: list[torch.Tensor | None] = []
    original = model.item_embeds
    monkeypatch.setattr(model, "item_embeds", lambda rows=None: embedded.append(rows) or original(rows))
    anew = evaluate_model(model, sequences, batch_size=1)
    assert anew.targets.drop("loss").equals(kept.targets.drop("loss"))
    # Once what is ranked, two items being alike, then the items of each history.
    sizes = [None if rows is None else len(rows) for rows in embedded]
    assert sizes[0] == 16 and len(sizes) == 26 and max(sizes[1:]) <= 6
    assert anew.targets["loss"].to_list() == pytest.approx(kept.targets["loss"].to_list(), rel=1e-5)


def test_users_without_a_history_before_their_target_are_counted_and_skipped(model: Model) -> None:
    events = {"none yet": 1, "two": 2, "three": 3}
    rows = [(user, f"i{n}", 1_400_000_000 + n) for user, count in events.items() for n in range(count)]
    log = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    data = prepare_sequences(load_interactions(log), k_core=1)
    evaluation = evaluate_model(model, data)
    assert evaluation.targets["user_id"].to_list() == ["three", "two"]
    assert (evaluation.metrics["users"], evaluation.protocol["users_without_target"]) == (2, 1)
    assert evaluate_model(model, data, "validation").protocol["users_without_target"] == 2


def test_subgroups_part_the_targets_and_their_means_add_up(
    model: Model, sequences: SequenceDatasets, catalog: ItemCatalog
) -> None:
    evaluation = evaluate_model(model, sequences, catalog=catalog, ks=(3,))
    groups = evaluation.subgroups()
    assert set(groups) == {"history_length", "target_popularity", "target_modalities"}
    for parts in groups.values():
        assert sum(part["targets"] for part in parts.values()) == 25
        for name in ("hr@3", "ndcg@3", "loss"):
            mean = sum(part["targets"] * part[name] for part in parts.values()) / 25
            assert mean == pytest.approx(evaluation.metrics[name])


def test_what_is_saved_is_read_back_and_stands_for_itself(
    model: Model, sequences: SequenceDatasets, tmp_path: Path
) -> None:
    evaluation = evaluate_model(model, sequences, "validation", prepared={"k_core": 1, "split": "leave_one_out"})
    evaluation.save(tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["metrics.json", "targets.parquet"]
    again = Evaluation.load(tmp_path / "run")
    assert again.targets.equals(evaluation.targets)
    assert again.protocol == evaluation.protocol and again.metrics == evaluation.metrics
    numbers = json.loads((tmp_path / "run" / "metrics.json").read_text())
    low, high = numbers["intervals"]["ndcg@10"]
    assert low <= numbers["metrics"]["ndcg@10"] <= high
    assert numbers["protocol"]["prepared"] == {"k_core": 1, "split": "leave_one_out"}
    with pytest.raises(ValueError, match="targets.parquet is missing"):
        (tmp_path / "run" / "targets.parquet").unlink()
        Evaluation.load(tmp_path / "run")


@pytest.mark.parametrize(
    ("prepared", "told"),
    [
        ({"split": "temporal, by\nour own tool"}, "test split, k-core not noted, temporal, by our own tool, target "),
        ({"k_core": 3}, "test split, 3-core, split not noted, target "),
        ({"made": ("by", "hand"), "split": None, "k_core": "three"}, "test split, k-core not noted, split not "),
        (None, "test split, target "),
    ],
)  # fmt: skip
def test_how_sequences_were_made_is_free_to_tell(
    model: Model, sequences: SequenceDatasets, tmp_path: Path, prepared: dict[str, Any] | None, told: str
) -> None:
    evaluation = evaluate_model(model, sequences, prepared=prepared)
    evaluation.save(tmp_path / "own")
    again = Evaluation.load(tmp_path / "own")
    assert describe(again.protocol).startswith(told) and describe(evaluation.protocol) == describe(again.protocol)
    # Lists stand for tuples in both.
    assert compare(evaluation, again)["hr@10"]["difference"] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prepared": {"when": {1, 2}}}, "prepared holds what JSON does not: .*set.*; give texts"),
        ({"prepared": {"share": float("nan")}}, "prepared holds what JSON does not"),
        ({"prepared": "by hand"}, "prepared must be a dictionary, got 'by hand'"),
        ({"ks": ()}, "at least one, got"),
        ({"ks": (10, 0)}, "ks must be whole numbers from 1 to 1,000,000, at least one, got .10, 0"),
        ({"ks": (1_000_001,)}, "ks must be whole numbers from 1"),
        ({"ks": (2.0,)}, "ks must be whole numbers from 1"),
    ],
)  # fmt: skip
def test_what_could_not_be_kept_is_refused_before_the_ranking(
    model: Model, sequences: SequenceDatasets, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(ranking, "alike_items", lambda model: pytest.fail("ranked"))
    with pytest.raises((TypeError, ValueError), match=message):
        evaluate_model(model, sequences, **options)


def test_cut_offs_of_an_array_are_kept(model: Model, sequences: SequenceDatasets, tmp_path: Path) -> None:
    evaluate_model(model, sequences, ks=np.array([3, 1_000_000])).save(tmp_path)  # type: ignore[arg-type]
    assert Evaluation.load(tmp_path).protocol["ks"] == [3, 1_000_000]


def evaluation_of(above: list[int], **protocol: object) -> Evaluation:
    """Of as many users, whose targets have so many items above them."""
    columns = {
        "user_id": [f"u{n}" for n in range(len(above))],
        "item_id": ["i"] * len(above),
        "above": above,
        "level": [1] * len(above),
        "loss": np.asarray(above, dtype=float),
    }
    known = {"split": "test", "num_items": 100, "exclude_history": False, "score_padding_item": False,
             "prepared": {}, "ks": [10], "users_without_target": 0}  # fmt: skip
    return Evaluation(pl.DataFrame(columns), known | protocol, {})


def test_two_runs_are_compared_user_by_user() -> None:
    # Every user's target one place higher, however different the users: not by chance.
    places = [int(n) for n in np.random.default_rng(0).integers(1, 60, 40)]
    better, worse = evaluation_of([n - 1 for n in places]), evaluation_of(places)
    row = compare(better, worse)["loss"]
    assert row["difference"] == pytest.approx(-1) and row["low"] == pytest.approx(-1)
    assert row["p_value"] < 0.001
    assert compare(worse, worse)["hr@10"] == {"difference": 0, "low": 0, "high": 0, "p_value": 1}
    back = compare(worse, better)["ndcg@10"]
    assert back["difference"] == pytest.approx(-compare(better, worse)["ndcg@10"]["difference"])


def test_runs_of_another_protocol_or_other_targets_are_not_compared() -> None:
    one = evaluation_of([1, 2, 3])
    with pytest.raises(ValueError, match="num_items is 100 in one and 7 in the other"):
        compare(one, evaluation_of([1, 2, 3], num_items=7))
    with pytest.raises(ValueError, match="users or targets differ"):
        compare(one, evaluation_of([1, 2]))


def test_what_cannot_be_evaluated_is_refused(model: Model, sequences: SequenceDatasets, catalog: ItemCatalog) -> None:
    with pytest.raises(ValueError, match="no split 'tset', only train, validation, test"):
        evaluate_model(model, sequences, "tset")
    log = pl.DataFrame({"user_id": ["u"] * 3, "item_id": ["i0"] * 3, "timestamp": [1, 2, 3]})
    short = prepare_sequences(load_interactions(log, time_unit="s"), k_core=1)
    with pytest.raises(ValueError, match="'train' is empty"):
        evaluate_model(model, short, "train")
    model.set_items(catalog.select(catalog.item_ids[:5]))
    with pytest.raises(ValueError, match="items with events are not among the 5"):
        evaluate_model(model, sequences)
    with pytest.raises(ValueError, match="does not know its items by id"):
        evaluate_model(Model(model.config), sequences)
