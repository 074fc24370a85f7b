"""The command of the counting baselines on a small shop."""

import json

import numpy as np
import pytest

from mmm4rec_hf.items import ItemCatalog


@pytest.fixture(scope="module")
def output(run_benchmark, tmp_path_factory):
    """Results of all models; features lie where they would have been encoded."""
    folder = tmp_path_factory.mktemp("baselines")
    rng = np.random.default_rng(1)
    text, image = (rng.normal(size=(9, 4)).astype(np.float32) for _ in range(2))
    catalog = ItemCatalog([f"i{n}" for n in range(1, 10)], text_features=text, image_features=image)
    catalog.save_pretrained(folder / "features" / "shop" / "catalog")
    options = ["--data", "shop", "--trials", "3", "--features", folder / "features", "--output", folder / "results"]
    run_benchmark("quality/baselines.py", *options)
    times = {path: path.stat().st_mtime_ns for path in (folder / "results").iterdir()}
    assert "item_knn: HR@10" in run_benchmark("quality/baselines.py", *options)
    assert times == {path: path.stat().st_mtime_ns for path in (folder / "results").iterdir()}
    return folder / "results"


def read(output, model):
    return json.loads((output / f"baselines-shop-{model}.json").read_text())


def expected_counts(scores, log):
    """Items above and level with each user's last item."""
    larger = [int((row[1:] > row[items[-1]]).sum()) for row, items in zip(scores, log, strict=True)]
    equal = [int((row[1:] == row[items[-1]]).sum()) for row, items in zip(scores, log, strict=True)]
    return larger, equal


def test_popularity_counts_training_events_alone(output, shop_log):
    counts = np.bincount(np.concatenate([items[:-2] for items in shop_log]), minlength=10)
    test = read(output, "popularity")["split"]["test"]
    assert (test["larger"], test["equal"]) == expected_counts([counts] * 30, shop_log)


def test_transitions_start_from_the_last_item_of_the_history(output, shop_log):
    counts = np.zeros((10, 10))
    for items in shop_log:
        np.add.at(counts, (items[:-3], items[1:-2]), 1)
    popularity = np.bincount(np.concatenate([items[:-2] for items in shop_log]), minlength=10)
    counts += 1e-3 * popularity  # decides between items that followed equally often
    result = read(output, "transitions")
    scores = [counts[items[-2]] for items in shop_log]
    assert (result["split"]["test"]["larger"], result["split"]["test"]["equal"]) == expected_counts(scores, shop_log)
    earlier = [items[:-1] for items in shop_log]
    scores = [counts[items[-2]] for items in earlier]
    assert result["split"]["validation"]["larger"] == expected_counts(scores, earlier)[0]


def test_the_last_item_takes_no_place_among_those_like_it(output, shop_log):
    text = np.random.default_rng(1).normal(size=(9, 4)).astype(np.float32).astype(np.float64)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    scores = np.zeros((30, 10))
    for row, items in zip(scores, shop_log, strict=True):
        row[1:] = text @ text[items[-2] - 1]
        row[items[-2]] = -np.inf
    test = read(output, "text_knn")["split"]["test"]
    assert (test["larger"], test["equal"]) == expected_counts(scores, shop_log)


@pytest.mark.parametrize("model", ["item_knn", "cooccurrence_tuned"])
def test_options_are_the_best_of_those_tried_on_validation(output, model):
    result = read(output, model)
    tried = [trial["metrics"]["ndcg@10"] for trial in result["tuning"]]
    assert len(tried) == 3 and result["tuning"][0]["options"] == {}
    assert result["options"] == result["tuning"][int(np.argmax(tried))]["options"]
    assert result["split"]["validation"]["metrics"]["ndcg@10"] == max(tried)


def test_every_model_has_a_result(output):
    models = ["popularity", "text_knn", "image_knn", "transitions", "cooccurrence", "cooccurrence_tuned", "item_knn"]
    assert sorted(path.name for path in output.iterdir()) == sorted(f"baselines-shop-{name}.json" for name in models)
    for model in models:
        result = read(output, model)
        assert len(result["split"]["test"]["larger"]) == len(result["split"]["validation"]["larger"]) == 30
        assert result["command"].startswith("python benchmarks/quality/baselines.py --data shop --models " + model)
