"""Baselines on the targets of an evaluation, against rankings made one by one."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from mmm4rec_hf import MMM4RecForSequentialRecommendation
from mmm4rec_hf.data import SequenceDatasets, load_interactions, prepare_sequences
from mmm4rec_hf.evaluation.evaluator import Evaluation, compare, evaluate_model
from mmm4rec_hf.evaluation.yardsticks import evaluate_baselines, load_baselines
from mmm4rec_hf.items import ItemCatalog

Model = MMM4RecForSequentialRecommendation


@pytest.mark.parametrize("exclude_history", [False, True])
def test_every_target_is_ranked_as_by_hand(
    model: Model, sequences: SequenceDatasets, catalog: ItemCatalog, exclude_history: bool
) -> None:
    evaluation = evaluate_model(model, sequences, exclude_history=exclude_history)
    found = evaluate_baselines(evaluation, sequences, catalog.item_ids, catalog.text_features)
    assert list(found) == ["popularity", "co-occurrence", "similar text"]
    names = sequences.item_ids
    # A user's last two events are held out: the history of the validation row is all that training showed.
    popularity = dict.fromkeys(catalog.item_ids, 0)
    followed = {item: dict.fromkeys(catalog.item_ids, 0.0) for item in catalog.item_ids}
    for row in sequences["validation"]:
        seen = [names[index - 1] for index in row["input_ids"]]
        if len(seen) < 2:
            continue  # no row to train on
        for n, item in enumerate(seen):
            popularity[item] += 1
            for steps, later in enumerate(seen[n + 1 : n + 6], start=1):
                followed[item][later] += 1 / steps
    assert catalog.text_features is not None
    unit = catalog.text_features / np.linalg.norm(catalog.text_features, axis=1, keepdims=True)
    vectors = dict(zip(catalog.item_ids, unit, strict=True))
    for place, row in enumerate(sequences["test"]):
        history = [names[index - 1] for index in row["input_ids"]]
        target = names[row["labels"] - 1]
        similar = {item: round(float(vectors[item] @ vectors[history[-1]]), 5) for item in vectors}
        if not exclude_history:
            similar[history[-1]] = -np.inf  # few take an item twice in a row: it stands last
        # Of items that followed the last one equally often the popular come first.
        after = {item: (round(weight, 5), popularity[item]) for item, weight in followed[history[-1]].items()}
        known: dict[str, dict[str, Any]] = {"popularity": popularity, "co-occurrence": after, "similar text": similar}
        for name, scores in known.items():
            rivals = [item for item in scores if not exclude_history or item not in history or item == target]
            above = sum(scores[item] > scores[target] for item in rivals)
            level = sum(scores[item] == scores[target] for item in rivals)
            assert found[name].targets.select("above", "level").row(place) == (above, level), (name, place)


@pytest.mark.parametrize("again", [False, True])
def test_similar_text_gives_no_place_to_the_last_item_unless_it_is_often_taken_again(again: bool) -> None:
    """25 pairs of like texts. Users take an item and then its like, or each item twice in a row."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(60):
        pairs = rng.permutation(25)[:3] * 2
        steps = np.stack([pairs, pairs if again else pairs + 1], axis=1).ravel()
        rows += [(f"u{user}", f"i{item:02}", 1_400_000_000 + n) for n, item in enumerate(steps)]
    everything = [("all", f"i{item:02}", 1_300_000_000 + item) for item in range(50)]
    log = pl.DataFrame(rows + everything, schema=["user_id", "item_id", "timestamp"], orient="row")
    sequences = prepare_sequences(load_interactions(log), k_core=1)
    features = np.eye(25)[[int(name[1:]) // 2 for name in sequences.item_ids]]
    features += np.random.default_rng(1).normal(size=features.shape) * 0.01
    targets = pl.DataFrame(
        {
            "user_id": sequences.user_ids_of("test"),
            "item_id": [sequences.item_ids[row["labels"] - 1] for row in sequences["test"]],
        }
    )
    protocol = {"split": "test", "num_items": 50, "exclude_history": False, "score_padding_item": False, "ks": [1]}
    evaluation = Evaluation(targets.with_columns(above=0, level=1), protocol, {})
    found = evaluate_baselines(evaluation, sequences, sequences.item_ids, features)["similar text"]
    # Beside the one user who takes everything once, the first place is the like, or the item itself: always right.
    assert found.targets.filter(pl.col("user_id") != "all").select("above", "level").unique().rows() == [(0, 1)]


def test_baselines_are_kept_beside_the_evaluation_and_tested_against_it(
    model: Model, sequences: SequenceDatasets, catalog: ItemCatalog, tmp_path: Path
) -> None:
    evaluation = evaluate_model(model, sequences, catalog=catalog)
    evaluation.save(tmp_path)
    assert load_baselines(tmp_path, evaluation) == {}
    made = evaluate_baselines(evaluation, sequences, catalog.item_ids)
    assert list(made) == ["popularity", "co-occurrence"]
    evaluation.save(tmp_path, made)
    popularity = load_baselines(tmp_path, evaluation)["popularity"]
    assert popularity.targets.equals(made["popularity"].targets)
    assert "loss" not in popularity.metrics and "coverage@10" not in popularity.metrics
    row = compare(evaluation, popularity)["ndcg@10"]
    assert row["difference"] == pytest.approx(evaluation.metrics["ndcg@10"] - popularity.metrics["ndcg@10"])
    groups = popularity.subgroups()["target_modalities"]
    assert sum(group["targets"] * group["ndcg@10"] for group in groups.values()) == pytest.approx(
        25 * popularity.metrics["ndcg@10"]
    )


def test_baselines_of_other_targets_are_refused(
    model: Model, sequences: SequenceDatasets, catalog: ItemCatalog, tmp_path: Path
) -> None:
    evaluation = evaluate_model(model, sequences)
    evaluation.save(tmp_path, evaluate_baselines(evaluation, sequences, catalog.item_ids))
    fewer = evaluate_model(model, sequences, "validation")
    fewer.targets.drop_in_place("loss")
    with pytest.raises(ValueError, match="has 25 rows, the evaluation beside it 7 targets; evaluate again"):
        load_baselines(tmp_path, type(fewer)(fewer.targets.head(7), fewer.protocol, {}))
