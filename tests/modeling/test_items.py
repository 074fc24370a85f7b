"""Catalogues in a model: new items are recommendable, what was learned stays with its id, bad ones are refused."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mmm4rec_hf import MMM4RecConfig, MMM4RecForSequentialRecommendation
from mmm4rec_hf.modeling import items_mmm4rec

Model = Callable[..., MMM4RecForSequentialRecommendation]
Catalog = Callable[..., SimpleNamespace]


@pytest.mark.parametrize(("fusion", "shape"), [("static", None), ("dynamic_shared", (2,)), ("dynamic_instance", None)])
def test_without_a_catalogue_only_a_shared_pair_of_weights_is_there(
    tiny_config: Callable[..., MMM4RecConfig], fusion: str, shape: tuple[int] | None
) -> None:
    items = MMM4RecForSequentialRecommendation(tiny_config(num_items=None, fusion=fusion)).items
    factor = items.fusion_factor
    assert (factor if factor is None else factor.shape) == shape and items.num_rows == 0


def test_a_shared_pair_of_weights_is_no_items_own(lively_model: Model, tiny_catalog: Catalog) -> None:
    model = lively_model(fusion="dynamic_shared")
    assert model.items.learned_by_row == {"text_bias", "image_bias"}
    factor = model.items.fusion_factor.tolist()
    for ids in (["a", "b", "c"], ["b", "d"]):
        model.set_items(tiny_catalog(ids))
    assert model.items.fusion_factor.tolist() == factor


def test_how_often_items_are_targets_leaves_the_padding_item_out(lively_model: Model, tiny_catalog: Catalog) -> None:
    model = lively_model()
    model.set_items(tiny_catalog(["a", "b", "c"]))
    # One that was never a target counts once, and what stands for padding not at all: 1, 3 and 4 of 8.
    model.items.set_frequencies(torch.tensor([9.0, 0.0, 3.0, 4.0]))
    assert model.items.log_q.exp().tolist() == pytest.approx([0, 0.125, 0.375, 0.5])


def test_what_was_learned_stays_with_the_id_when_the_catalogue_changes(
    lively_model: Model, tiny_catalog: Catalog
) -> None:
    model = lively_model(use_item_bias=True, fusion="dynamic_instance")
    model.set_items(tiny_catalog(["a", "b", "c"]))
    with torch.no_grad():
        model.items.text_bias.copy_(torch.arange(4.0).unsqueeze(1).expand(4, 16))
        model.items.fusion_factor.copy_(torch.arange(8.0).reshape(4, 2))
    model.set_items(tiny_catalog(["new", "c", "a"]))
    assert model.item_ids == ["new", "c", "a"] and model.config.num_items == 3
    assert model.items.text_bias[:, 0].tolist() == [0.0, 0.0, 3.0, 1.0]
    assert model.items.fusion_factor.tolist() == [[0.0, 1.0], [0.0, 0.0], [6.0, 7.0], [2.0, 3.0]]
    assert torch.equal(model.items.text_features[1:], tiny_catalog(["new", "c", "a"]).text_features)
    assert model.items.text_features[0].abs().max() == 0


def test_an_added_item_leaves_the_scores_of_the_others_alone_and_is_scored(
    lively_model: Model, tiny_catalog: Catalog
) -> None:
    model = lively_model()
    history = {"input_ids": torch.tensor([[1, 2]]), "timestamps": torch.tensor([[1_300_000_000, 1_300_000_060]])}
    with torch.no_grad():
        model.set_items(tiny_catalog(["a", "b", "c"]))
        before = model(**history).logits
        model.set_items(tiny_catalog(["a", "b", "c", "new"]))
        after = model(**history).logits
    assert after.shape == (1, 5)
    torch.testing.assert_close(after[:, :4], before)
    assert torch.isfinite(after[0, 4])


def test_scores_do_not_depend_on_the_order_of_the_catalogue(lively_model: Model, tiny_catalog: Catalog) -> None:
    model = lively_model()
    times = torch.tensor([[1_300_000_000, 1_300_000_060]])
    with torch.no_grad():
        model.set_items(tiny_catalog(["a", "b", "c"]))
        first = model(input_ids=torch.tensor([[1, 3]]), timestamps=times).logits
        model.set_items(tiny_catalog(["c", "b", "a"]))
        second = model(input_ids=torch.tensor([[3, 1]]), timestamps=times).logits
    torch.testing.assert_close(first[:, [1, 2, 3]], second[:, [3, 2, 1]])


@pytest.mark.parametrize("fusion", ["static", "dynamic_shared", "dynamic_instance"])
def test_the_two_modality_scores_add_up_to_the_score(lively_model: Model, tiny_catalog: Catalog, fusion: str) -> None:
    model = lively_model(fusion=fusion, use_item_bias=True)
    model.set_items(tiny_catalog(["a", "b", "c"]))
    history = {"input_ids": torch.tensor([[1, 2]]), "timestamps": torch.tensor([[1_300_000_000, 1_300_000_060]])}
    with torch.no_grad():
        output = model(**history)
    text, image = model.modality_scores(output.user_embeds, torch.tensor([[3, 1]]))
    assert not any(values.requires_grad for values in (text, image, model.item_vectors()))
    torch.testing.assert_close(text + image, output.logits[:, [3, 1]])
    q, weight = output.user_embeds[0], model.model.text_projection
    e = weight(model.items.text_features[3]) + model.items.text_bias[3]
    share = {"static": 1.0}.get(fusion)
    if share is None:
        factor = model.items.fusion_factor if fusion == "dynamic_shared" else model.items.fusion_factor[3]
        share = (factor[0].exp() / factor.exp().sum()).item()
    expected = share * (q @ e / e.norm()) / 0.8
    torch.testing.assert_close(text[0, 0], expected.detach())
    again = model.modality_scores(output.user_embeds, torch.tensor([[3, 1]]), model.item_embeds())
    torch.testing.assert_close(torch.stack(again), torch.stack([text, image]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"item_ids": []}, "empty"),
        ({"item_ids": ["a", "a", "c"]}, "'a' stands more than once"),
        ({"item_ids": [1, "1", "c"]}, "'1' stands more than once"),
        ({"text_features": None}, r"no text features.*encode"),
        ({"text_features": torch.zeros(2, 6)}, r"\(2, 6\).*\(3, 6\)"),
        ({"image_features": torch.zeros(3, 6)}, r"image features.*\(3, 6\).*\(3, 5\)"),
        ({"image_features": torch.tensor([[0.0] * 5, [float("nan")] * 5, [0.0] * 5])}, "'b'.*NaN"),
        ({"text_features": torch.tensor([[0.0] * 6, [0.0] * 6, [float("inf")] * 6])}, "'c'.*NaN or infinity"),
    ],
    ids=str,
)
def test_a_broken_catalogue_is_refused_and_the_old_one_stays(
    lively_model: Model, tiny_catalog: Catalog, change: dict[str, Any], message: str
) -> None:
    model = lively_model()
    model.set_items(tiny_catalog(["x", "y"]))
    before = model.items.text_features.clone()
    catalog = tiny_catalog(["a", "b", "c"])
    for name, value in change.items():
        setattr(catalog, name, value)
    with pytest.raises(ValueError, match=message):
        model.set_items(catalog)
    assert model.item_ids == ["x", "y"] and torch.equal(model.items.text_features, before)


def test_the_first_item_whose_features_are_not_finite_is_named(lively_model: Model, tiny_catalog: Catalog) -> None:
    catalog = tiny_catalog(["a", "b", "c"])
    catalog.image_features[1:, 2] = torch.nan
    with pytest.raises(ValueError, match="image features of item 'b' hold NaN"):
        lively_model().set_items(catalog)


@pytest.mark.parametrize(("modality", "first"), [("text", 3), ("image", 4)])
def test_the_first_item_that_half_precision_cannot_hold_is_named(
    lively_model: Model, tiny_catalog: Catalog, monkeypatch: pytest.MonkeyPatch, modality: str, first: int
) -> None:
    monkeypatch.setattr(items_mmm4rec, "_CHECKED", 3)
    catalog = tiny_catalog(["a", "b", "c", "d", "e", "f"])
    getattr(catalog, f"{modality}_features")[first:, 0] = 1e5
    with pytest.raises(
        ValueError, match=rf"{modality} features of item number {first + 1} of .* beyond 65504, .* float16;"
    ):
        lively_model().half().set_items(catalog)
    lively_model().bfloat16().set_items(catalog)
