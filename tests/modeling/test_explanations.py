"""Why an item is recommended, where no catalogue says which items have no picture."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mmm4rec_hf.explanations import explain

IDS = [f"i{n}" for n in range(6)]


@pytest.mark.parametrize("told", ["zeros", "learned_missing"])
def test_items_without_a_picture_are_near_to_none_by_it(make_pipeline: Callable[..., Any], told: str) -> None:
    recommend = make_pipeline(IDS, learned_missing=told == "learned_missing")
    items = recommend.model.items
    with torch.no_grad():
        if told == "zeros":
            items.image_features[2:4] = 0  # of i1 and i2; the padding item is in row 0
        else:
            items.image_is_missing[2:4] = True
    found: list[dict[str, Any]] = [{"item_id": "i1"}, {"item_id": "i4"}]
    explain(found, {"items": ["i2", "i3", "absent", "i2"]}, recommend)
    assert found[0]["why"]["image"] is None
    assert found[1]["why"]["image"]["item_id"] == "i3" and found[1]["why"]["image"]["title"] == "Title i3"
    assert all(entry["why"]["text"]["item_id"] in ("i2", "i3") for entry in found)


def test_of_a_history_of_unknown_items_nothing_is_near(make_pipeline: Callable[..., Any]) -> None:
    found: list[dict[str, Any]] = [{"item_id": "i1"}]
    explain(found, {"items": ["absent"]}, make_pipeline(IDS))
    assert found[0]["why"] == {"text": None, "image": None}


def test_the_log_names_the_item_that_counts_most_in_the_order_of_time(make_pipeline: Callable[..., Any]) -> None:
    recommend = make_pipeline(IDS, use_cooccurrence=True, cooccurrence_context=3, num_neighbours=2)
    # Near i0 stood i4 (6 times) and i5 (2), near i1 i4 (5), near i2 i4 (9), near i3 nothing.
    neighbours = torch.tensor([[0, 0], [5, 6], [5, 0], [5, 0], [0, 0], [0, 0], [0, 0]])
    counts = torch.tensor([[0.0, 0], [6, 2], [5, 0], [9, 0], [0, 0], [0, 0], [0, 0]])
    recommend.model.cooccurrence.set(neighbours, counts)
    # In time: i2, i1, i0, i1; the model reads three for this, so that i2 does not count.
    history = {"items": ["i1", "i2", "i1", "absent", "i0"], "timestamps": [40, 10, 20, 25, 30]}
    found: list[dict[str, Any]] = [{"item_id": "i4"}, {"item_id": "i5"}, {"item_id": "i3"}]
    explain(found, history, recommend, time_unit="s")
    # Of i4: i1 last and third last, i0 between, the j-th last by j ** -0.5.
    i1, i0 = 5 * (1 + 3**-0.5), 6 * 2**-0.5
    share = pytest.approx(i1 / (i1 + i0))
    assert found[0]["why"]["cooccurrence"] == {"item_id": "i1", "title": "Title i1", "share": share}
    assert found[1]["why"]["cooccurrence"] == {"item_id": "i0", "title": "Title i0", "share": 1.0}
    assert found[2]["why"]["cooccurrence"] is None
    # What it names is what the scores are made of.
    inputs = {name: torch.from_numpy(part) for name, part in recommend.processor.read_histories([history])[0].items()}
    rows, terms = recommend.model.cooccurrence(inputs["input_ids"].long(), inputs["attention_mask"])
    model = recommend.model.cooccurrence
    assert float(terms[rows == 5].detach()) == pytest.approx(
        float(model.weight * (1 + model.log_scale.exp() * (i1 + i0)).log())
    )


def test_without_counts_the_log_says_nothing(make_pipeline: Callable[..., Any]) -> None:
    found: list[dict[str, Any]] = [{"item_id": "i1"}]
    explain(found, {"items": ["i2"]}, make_pipeline(IDS, use_cooccurrence=True))
    assert set(found[0]["why"]) == {"text", "image"}
