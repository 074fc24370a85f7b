"""One pipeline, processor, catalogue and collator for many threads and processes."""

import copy
import multiprocessing
import pickle
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mmm4rec_hf import (
    ItemCatalog,
    MMM4RecConfig,
    MMM4RecForSequentialRecommendation,
    MMM4RecProcessor,
    SequentialRecommendationPipeline,
)

SIZES = {"hidden_size": 16, "intermediate_size": 24, "head_dim": 4, "n_groups": 4, "state_size": 4,
         "text_feature_size": 6, "image_feature_size": 5, "max_sequence_length": 8}  # fmt: skip
HISTORY = {"items": ["a", "b", "c"], "timestamps": [1_400_000_000, 1_400_000_900, 1_400_090_000]}


def catalog_of(item_ids: list[str], seed: int) -> ItemCatalog:
    draw = np.random.default_rng(seed)
    features = {
        f"{name}_features": draw.normal(size=(len(item_ids), size)) for name, size in (("text", 6), ("image", 5))
    }
    return ItemCatalog(item_ids, [{"title": f"{seed} {name}"} for name in item_ids], **features)


# The items of both histories stand in other rows, among others, with other features and titles.
OLD = catalog_of(["a", "b", "c", *(f"old {n}" for n in range(30))], 1)
NEW = catalog_of([*(f"new {n}" for n in range(9)), "c", "b", "a", *(f"new {n}" for n in range(9, 50))], 2)


def pipeline_of(catalog: ItemCatalog, **changes: Any) -> SequentialRecommendationPipeline:
    torch.manual_seed(0)
    model = MMM4RecForSequentialRecommendation(MMM4RecConfig(**(SIZES | changes)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.endswith(("A_log", "dt_bias")):
                parameter += 0.3 * torch.randn_like(parameter)
    model.set_items(catalog)
    processor = MMM4RecProcessor(max_sequence_length=8)
    processor.set_items(catalog)
    return SequentialRecommendationPipeline(model=model.eval(), processor=processor)


class EveryRow:
    """An index that names rows of its own catalogue, all of them: those of another one would be wrong or missing."""

    def __init__(self, catalog: ItemCatalog) -> None:
        self.rows = torch.arange(1, len(catalog) + 1)

    def search(self, users: torch.Tensor, k: int) -> torch.Tensor:
        return self.rows.expand(len(users), -1)


def in_threads(ask: Callable[[], Any], meanwhile: Callable[[], None], number: int = 4) -> list[Any]:
    """What threads are answered again and again while something else happens."""
    stop, answers, failures = threading.Event(), [], []

    def loop() -> None:
        try:
            while not stop.is_set():
                answers.append(ask())
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=loop) for _ in range(number)]
    for thread in threads:
        thread.start()
    try:
        meanwhile()
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert not failures, failures[0]
    return answers


def until(is_so: Callable[[], bool], seconds: float = 60.0) -> None:
    """Waits, at most so long."""
    end = time.monotonic() + seconds
    while not is_so() and time.monotonic() < end:
        time.sleep(0.002)


def rounded(found: Any) -> tuple[Any, ...]:
    return tuple((item["item_id"], item["title"], round(item["score"], 3)) for item in found)


@pytest.mark.parametrize("by", ["exact search", "index", "similar items"])
def test_each_answer_is_of_the_old_catalogue_or_of_the_new_one(by: str) -> None:
    def ask_of(recommend: SequentialRecommendationPipeline) -> Any:
        if by == "similar items":
            return rounded(recommend.similar_items("b", top_k=8))
        # Of several batches; each has all that is left of the catalogue.
        found = recommend([HISTORY] * 3, top_k=60, batch_size=1)
        return tuple(rounded(items) for items in found)

    expected = [ask_of(pipeline_of(catalog)) for catalog in (OLD, NEW)]
    assert expected[0] != expected[1]
    recommend = pipeline_of(OLD)
    answers: list[Any] = []

    def switch() -> None:
        for number in range(12):
            catalog, asked = OLD if number % 2 else NEW, len(answers)
            recommend.set_items(catalog)
            if by == "index":
                recommend.use_index(EveryRow(catalog))
            # One more than there are threads: one of these was asked after the switch.
            until(lambda asked=asked: len(answers) > asked + 4)

    in_threads(lambda: answers.append(ask_of(recommend)), switch)
    assert {expected.index(answer) for answer in answers} == {0, 1}


def test_threads_that_ask_a_model_in_training_get_no_dropout() -> None:
    recommend = pipeline_of(OLD, hidden_dropout=0.5, embedding_dropout=0.5, time_dropout=0.5)
    expected = rounded(recommend(HISTORY))
    recommend.model.train()
    answers = in_threads(lambda: rounded(recommend(HISTORY)), lambda: threading.Event().wait(1.0))
    assert set(answers) == {expected} and len(answers) > 4
    assert all(module.training for module in recommend.model.modules())


def test_a_catalogue_that_is_refused_leaves_the_pipeline_as_it_was() -> None:
    recommend = pipeline_of(OLD)
    expected = rounded(recommend(HISTORY))
    untitled = SimpleNamespace(
        item_ids=NEW.item_ids, text_features=NEW.text_features, image_features=NEW.image_features
    )
    with pytest.raises(AttributeError, match="titles"):
        recommend.set_items(untitled)
    assert rounded(recommend(HISTORY)) == expected and recommend.model.item_ids == OLD.item_ids


def test_copies_and_pickles_of_a_pipeline_answer_alike() -> None:
    recommend = pipeline_of(OLD)
    expected = rounded(recommend(HISTORY))
    for other in (pickle.loads(pickle.dumps(recommend)), copy.deepcopy(recommend), copy.copy(recommend)):
        assert rounded(other(HISTORY)) == expected


@pytest.mark.slow
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_processors_and_catalogues_work_in_other_processes(start: str) -> None:
    processor = MMM4RecProcessor(max_sequence_length=8)
    processor.set_items(NEW)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(start)) as pool:
        inputs = [pool.submit(processor, histories=[HISTORY], return_tensors="np") for _ in range(3)]
        records = [pool.submit(NEW.__getitem__, name) for name in ("b", "new 3")]
        # "c", "b" and "a" are items 10, 11 and 12.
        assert [list(each.result()["input_ids"][0]) for each in inputs] == [[12, 11, 10]] * 3
        assert [each.result()["title"] for each in records] == ["2 b", "2 new 3"]
