"""Items like an item, against cosines in double precision of one pair after the other."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from mmm4rec_hf.modeling import pipeline_mmm4rec

IDS = [f"i{n}" for n in range(12)]
WEIGHTS = {"text": (1.0, 0.0), "image": (0.0, 1.0), "both": (0.5, 0.5)}


def cosine(one: list[float], other: list[float]) -> float:
    product = sum(a * b for a, b in zip(one, other, strict=True))
    return product / math.sqrt(sum(a * a for a in one) * sum(b * b for b in other))


def expected(recommend: Any, item_id: str, by: str, allowed: list[str]) -> list[tuple[str, float, float, float]]:
    """Ids with score, text and image cosine, best first."""
    with torch.no_grad():
        text, image = (table.double().tolist() for table in recommend.model.item_embeds())
    own = IDS.index(item_id) + 1
    found = []
    for other in allowed:
        row = IDS.index(other) + 1
        parts = cosine(text[own], text[row]), cosine(image[own], image[row])
        score = sum(weight * part for weight, part in zip(WEIGHTS[by], parts, strict=True))
        if other != item_id:
            found.append((other, score, *parts))
    return sorted(found, key=lambda line: -line[1])


def check(entries: list[dict[str, Any]], lines: list[tuple[str, float, float, float]]) -> None:
    assert [entry["item_id"] for entry in entries] == [line[0] for line in lines]
    for entry, (item_id, *scores) in zip(entries, lines, strict=True):
        found = [entry[name] for name in ("score", "text_score", "image_score")]
        assert found == pytest.approx(scores, abs=1e-5)
        assert entry["title"] == f"Title {item_id}"


# With two rows at a time the best of all stand in several parts.
@pytest.mark.parametrize("rows", [2**11, 2])
@pytest.mark.parametrize("by", WEIGHTS)
@pytest.mark.parametrize("changes", [{}, {"use_item_bias": True}], ids=str)
def test_the_nearest_are_those_of_the_cosines(
    make_pipeline: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], by: str, rows: int
) -> None:
    monkeypatch.setattr(pipeline_mmm4rec, "_EMBEDDED", rows)
    recommend = make_pipeline(IDS, **changes)
    check(recommend.similar_items("i3", top_k=4, by=by), expected(recommend, "i3", by, IDS)[:4])
    check(recommend.similar_items("i3", top_k=50, by=by), expected(recommend, "i3", by, IDS))
    several = recommend.similar_items(["i3", "i0", "i11"], top_k=5, by=by, candidates=["i0", "i3", "i7", "none", "i3"])
    assert len(several) == 3
    for item_id, entries in zip(["i3", "i0", "i11"], several, strict=True):
        check(entries, expected(recommend, item_id, by, ["i0", "i3", "i7"]))


def test_by_default_texts_and_pictures_count_alike_and_ten_are_given(make_pipeline: Callable[..., Any]) -> None:
    recommend = make_pipeline(IDS)
    check(recommend.similar_items("i5"), expected(recommend, "i5", "both", IDS)[:10])
    assert recommend.similar_items([]) == []
    assert recommend.similar_items("i5", candidates=[]) == [] and recommend.similar_items(["i5"], candidates=[]) == [
        []
    ]
    assert recommend.similar_items("i5", candidates=["i5"]) == []


def test_what_cannot_be_is_refused(make_pipeline: Callable[..., Any]) -> None:
    recommend = make_pipeline(IDS)
    with pytest.raises(ValueError, match="by must be one of 'text', 'image', 'both', got 'title'"):
        recommend.similar_items("i5", by="title")
    with pytest.raises(ValueError, match="'nobody' is not in the catalogue"):
        recommend.similar_items(["i5", "nobody"])
    with pytest.raises(ValueError, match="top_k must be at least 1, got 0"):
        recommend.similar_items("i5", top_k=0)


def test_rounding_takes_no_cosine_out_of_its_range(
    make_pipeline: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [f"i{n}" for n in range(80)]
    recommend = make_pipeline(ids)
    draw = torch.Generator().manual_seed(0)
    half = torch.randn(20, 16, generator=draw)
    # Each vector stands twice, and its opposite twice.
    table = torch.cat([torch.zeros(1, 16), half, half, -half, -half])
    monkeypatch.setattr(recommend.model, "kept_items", lambda: (None, (table, table)))
    found = [entry for entries in recommend.similar_items(ids, top_k=79) for entry in entries]
    scores = [entry[name] for entry in found for name in ("score", "text_score", "image_score")]
    assert (min(scores), max(scores)) == (-1.0, 1.0)


def test_similar_items_by_a_model_of_nan_are_refused(make_pipeline: Callable[..., Any]) -> None:
    recommend = make_pipeline()
    with torch.no_grad():
        recommend.model.model.text_projection.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="scores hold NaN"):
        recommend.similar_items("1")


def test_a_model_in_training_draws_nothing_for_similar_items(make_pipeline: Callable[..., Any]) -> None:
    recommend = make_pipeline(learned_missing=True, modality_dropout=0.9)
    recommend.model.train()
    assert recommend.similar_items("1") == recommend.similar_items("1") == recommend.similar_items("1")
