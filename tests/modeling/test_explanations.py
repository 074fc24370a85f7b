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
    explain(found, ["i2", "i3", "absent", "i2"], recommend)
    assert found[0]["why"]["image"] is None
    assert found[1]["why"]["image"]["item_id"] == "i3" and found[1]["why"]["image"]["title"] == "Title i3"
    assert all(entry["why"]["text"]["item_id"] in ("i2", "i3") for entry in found)


def test_of_a_history_of_unknown_items_nothing_is_near(make_pipeline: Callable[..., Any]) -> None:
    found: list[dict[str, Any]] = [{"item_id": "i1"}]
    explain(found, ["absent"], make_pipeline(IDS))
    assert found[0]["why"] == {"text": None, "image": None}
