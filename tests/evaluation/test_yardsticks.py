"""Baselines on the targets of an evaluation, against rankings made one by one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmm4rec_hf import MMM4RecForSequentialRecommendation
from mmm4rec_hf.data import SequenceDatasets
from mmm4rec_hf.evaluation.evaluator import compare, evaluate_model
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
        # Of items that followed the last one equally often the popular come first.
        after = {item: (round(weight, 5), popularity[item]) for item, weight in followed[history[-1]].items()}
        known: dict[str, dict[str, Any]] = {"popularity": popularity, "co-occurrence": after, "similar text": similar}
        for name, scores in known.items():
            rivals = [item for item in scores if not exclude_history or item not in history or item == target]
            above = sum(scores[item] > scores[target] for item in rivals)
            level = sum(scores[item] == scores[target] for item in rivals)
            assert found[name].targets.select("above", "level").row(place) == (above, level), (name, place)


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
