"""A learned vector in place of the texts and pictures that a catalogue lacks."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from huggingface_hub.errors import StrictDataclassError

from mmm4rec_hf import MMM4RecForSequentialRecommendation

Model = Callable[..., MMM4RecForSequentialRecommendation]
Catalog = Callable[..., SimpleNamespace]
HISTORY = {"input_ids": torch.tensor([[1, 2]]), "timestamps": torch.tensor([[1_300_000_000, 1_300_000_060]])}


def with_masks(catalog: SimpleNamespace, text: list[bool], image: list[bool]) -> SimpleNamespace:
    catalog.text_mask, catalog.image_mask = torch.tensor(text), torch.tensor(image)
    return catalog


@pytest.fixture
def gaps(tiny_catalog: Catalog) -> SimpleNamespace:
    """Item b has no text, c no picture."""
    return with_masks(tiny_catalog(["a", "b", "c"]), [True, False, True], [True, True, False])


def test_a_missing_text_or_picture_is_the_learned_vector_whatever_its_features_are(
    lively_model: Model, gaps: SimpleNamespace
) -> None:
    model = lively_model(learned_missing=True, use_item_bias=True)
    model.set_items(gaps)
    with torch.no_grad():
        model.items.text_bias[2] = 3.0
        text, image = model.item_embeds()
    torch.testing.assert_close(text[2], model.items.missing_text.detach() + 3)
    torch.testing.assert_close(image[3], model.items.missing_image.detach())
    torch.testing.assert_close(text[3], model.model.text_projection(gaps.text_features[2]).detach())
    torch.testing.assert_close(image[2], model.model.image_projection(gaps.image_features[1]).detach())
    for row, embeds in ((torch.tensor([2]), text), (torch.tensor([3, 0, 2]), text)):
        torch.testing.assert_close(model.item_embeds(row)[0].detach(), embeds[row])


def test_without_the_option_masks_change_nothing(lively_model: Model, gaps: SimpleNamespace) -> None:
    model = lively_model()
    assert model.items.missing_text is None and not any("missing" in name for name in model.state_dict())
    with torch.no_grad():
        model.set_items(gaps)
        masked = model(**HISTORY).logits
        model.set_items(SimpleNamespace(**{k: v for k, v in vars(gaps).items() if not k.endswith("_mask")}))
        assert torch.equal(model(**HISTORY).logits, masked)


@pytest.mark.parametrize("item_loss", ["full", "in_batch", "sampled"])
def test_the_vectors_learn_from_every_loss(lively_model: Model, gaps: SimpleNamespace, item_loss: str) -> None:
    model = lively_model(learned_missing=True, item_loss=item_loss, num_sampled_negatives=2).train()
    model.set_items(gaps)
    inputs = {"input_ids": torch.tensor([[1, 2], [3, 1]]), "timestamps": HISTORY["timestamps"].expand(2, 2)}
    model(**inputs, labels=torch.tensor([2, 3])).loss.backward()
    assert model.items.missing_text.grad.abs().max() > 0 and model.items.missing_image.grad.abs().max() > 0


def test_in_training_a_share_of_items_loses_one_of_the_two(lively_model: Model, tiny_catalog: Catalog) -> None:
    torch.manual_seed(0)
    model = lively_model(learned_missing=True, modality_dropout=0.4)
    masks = [True] * 400 + [False] * 100
    model.set_items(with_masks(tiny_catalog([str(n) for n in range(500)]), masks, [True] * 500))
    plain = [embeds.detach() for embeds in model.eval().item_embeds()]
    embeds = model.train().item_embeds()
    vectors = model.items.missing_text, model.items.missing_image
    lost = [(part == vector).all(1)[1:] for part, vector in zip(embeds, vectors, strict=True)]
    assert not (lost[0] & lost[1]).any()
    # Of items that have both a fifth loses either; those without a text keep their picture.
    for part in lost:
        assert 0.14 < part[:400].float().mean() < 0.26
    assert lost[0][400:].all() and not lost[1][400:].any()
    for part, before, gone in zip(embeds, plain, lost, strict=True):
        torch.testing.assert_close(part[1:][~gone], before[1:][~gone])
    with torch.no_grad():
        assert torch.equal(model.item_embeds()[1], plain[1])  # what is ranked with is whole
    embeds[1].sum().backward()
    assert model.items.missing_image.grad.abs().max() > 0


def test_a_share_of_draws_at_either_end_leaves_one_out(lively_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    items = lively_model(learned_missing=True, modality_dropout=0.75).train().items
    drawn = torch.tensor([0.0, 0.37, 0.375, 0.62, 0.625, 0.9, 0.0, 0.9, 0.0, 0.9])
    monkeypatch.setattr(torch, "rand", lambda *shape, **options: drawn)
    no_text, no_image = torch.zeros(10, dtype=torch.bool), torch.zeros(10, dtype=torch.bool)
    no_text[6:8], no_image[8:] = True, True
    text, image = items.fill(torch.zeros(10, 16), torch.zeros(10, 16), no_text, no_image)
    # Three eighths of the draws leave out either; what lacks one keeps the other.
    assert (text == items.missing_text).all(1).nonzero().flatten().tolist() == [0, 1, 6, 7]
    assert (image == items.missing_image).all(1).nonzero().flatten().tolist() == [4, 5, 8, 9]


def test_modality_dropout_needs_the_vectors(tiny_config: Callable) -> None:
    with pytest.raises(StrictDataclassError, match="needs learned_missing=True"):
        tiny_config(modality_dropout=0.1)


def test_a_new_models_vectors_are_not_zero_and_can_be_normalised(tiny_config: Callable, gaps: SimpleNamespace) -> None:
    model = MMM4RecForSequentialRecommendation(tiny_config(learned_missing=True))
    model.set_items(gaps)
    length = F.normalize(model.items.missing_text, dim=0).norm()
    torch.testing.assert_close(length.detach(), torch.tensor(1.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_vectors_and_masks_survive_saving_and_another_catalogue(
    lively_model: Model, tiny_catalog: Catalog, gaps: SimpleNamespace, tmp_path: Path, dtype: torch.dtype
) -> None:
    model = lively_model(learned_missing=True)
    model.set_items(gaps)
    model = model.to(dtype)
    model.save_pretrained(tmp_path)
    loaded = MMM4RecForSequentialRecommendation.from_pretrained(tmp_path)
    assert loaded.items.text_is_missing.tolist() == [False, False, True, False]
    with torch.no_grad():
        assert torch.equal(loaded(**HISTORY).logits, model(**HISTORY).logits)
    other = with_masks(tiny_catalog(["x", "y"]), [False, True], [True, True])
    moved = MMM4RecForSequentialRecommendation.from_pretrained(tmp_path, catalog=other)
    assert torch.equal(moved.items.missing_text, model.items.missing_text)
    assert moved.items.text_is_missing.tolist() == [False, True, False]
    assert not moved.items.image_is_missing.any()


def test_the_option_can_be_switched_on_when_another_catalogue_comes(
    lively_model: Model, gaps: SimpleNamespace, tmp_path: Path
) -> None:
    lively_model().save_pretrained(tmp_path)
    model = MMM4RecForSequentialRecommendation.from_pretrained(tmp_path, catalog=gaps, learned_missing=True)
    assert model.items.missing_text.abs().max() > 0
    assert torch.equal(model.item_embeds()[0][2], model.items.missing_text)


def test_a_catalogue_that_leaves_missing_ones_to_the_model_needs_one_that_learns_them(
    lively_model: Model, gaps: SimpleNamespace
) -> None:
    gaps.feature_info = json.loads('{"text": {"missing": "learned"}, "image": {"missing": "white"}}')
    with pytest.raises(ValueError, match="1 items of the catalogue have no text.*learned_missing=True"):
        lively_model().set_items(gaps)
    lively_model(learned_missing=True).set_items(gaps)
    gaps.text_mask = torch.ones(3, dtype=torch.bool)
    lively_model().set_items(gaps)


def test_new_vectors_are_drawn_about_zero_by_the_initializer_range(tiny_config: Callable) -> None:
    drawn = []
    for seed in range(60):
        torch.manual_seed(seed)
        items = MMM4RecForSequentialRecommendation(tiny_config(learned_missing=True, initializer_range=0.05)).items
        drawn += [items.missing_text.detach(), items.missing_image.detach()]
    values = torch.cat(drawn)
    # Five standard errors of each.
    assert abs(values.mean()) < 5 * 0.05 / len(values) ** 0.5
    assert abs(values.std() - 0.05) < 5 * 0.05 / (2 * len(values)) ** 0.5
