"""Saved folders in the many ways that transformers saves and loads them."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForPreTraining, AutoProcessor, PreTrainedModel

from mmm4rec_hf import MMM4RecForSequentialRecommendation, MMM4RecModel, MMM4RecProcessor

Model = Callable[..., MMM4RecForSequentialRecommendation]
Catalog = Callable[..., SimpleNamespace]
Batch = dict[str, torch.Tensor]
IDS = [str(n) for n in range(100, 112)]


@pytest.fixture
def model(lively_model: Model, tiny_catalog: Catalog) -> MMM4RecForSequentialRecommendation:
    model = lively_model(use_item_bias=True)
    model.set_items(tiny_catalog(IDS))
    with torch.no_grad():
        model.items.text_bias.normal_()
    return model


def logits(model: Any, batch: Batch) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(**batch).logits


def test_weights_in_many_files_are_those_of_one(model: Any, lively_model: Model, batch: Batch, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path, max_shard_size="4KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 3
    loaded = MMM4RecForSequentialRecommendation.from_pretrained(tmp_path)
    assert torch.equal(logits(loaded, batch), logits(model, batch)) and loaded.item_ids == IDS
    base = AutoModel.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(base[name], value) for name, value in model.model.state_dict().items())
    # Saved again in one file, the earlier files are not read.
    with torch.no_grad():
        model.items.text_bias.add_(1)
        model.model.text_projection.weight.neg_()
    model.save_pretrained(tmp_path)
    again = MMM4RecForSequentialRecommendation.from_pretrained(tmp_path)
    assert torch.equal(logits(again, batch), logits(model, batch))


def test_a_model_in_a_folder_of_a_repository_loads_with_its_items(
    model: Any, tiny_catalog: Catalog, batch: Batch, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path / "models" / "films")
    processor = MMM4RecProcessor(max_sequence_length=8)
    processor.set_items(tiny_catalog(IDS))
    processor.save_pretrained(tmp_path / "models" / "films")
    where = {"pretrained_model_name_or_path": tmp_path, "subfolder": "models/films"}
    for kind in (MMM4RecForSequentialRecommendation, AutoModelForPreTraining):
        loaded = kind.from_pretrained(**where)
        assert torch.equal(logits(loaded, batch), logits(model, batch)) and loaded.item_ids == IDS
    assert type(AutoModel.from_pretrained(**where)) is MMM4RecModel
    for kind in (MMM4RecProcessor, AutoProcessor):
        loaded = kind.from_pretrained(**where)
        assert loaded.item_ids == IDS and loaded.max_sequence_length == 8
    new = MMM4RecForSequentialRecommendation.from_pretrained(**where, catalog=tiny_catalog(["a", "b"]))
    assert new.item_ids == ["a", "b"]
    assert torch.equal(new.model.text_projection.weight, model.model.text_projection.weight)


@pytest.mark.parametrize(
    "options", [{"device_map": "cpu"}, {"device_map": "auto"}, {"device_map": {"": "cpu"}}], ids=str
)
def test_a_model_that_is_placed_while_it_is_loaded_holds_every_tensor(
    model: Any, batch: Batch, tmp_path: Path, options: dict[str, Any]
) -> None:
    model.save_pretrained(tmp_path)
    loaded = MMM4RecForSequentialRecommendation.from_pretrained(tmp_path, **options)
    assert not [name for name, tensor in (*loaded.named_parameters(), *loaded.named_buffers()) if tensor.is_meta]
    assert torch.equal(logits(loaded, batch), logits(model, batch))


def test_what_a_checkpoint_lacks_is_no_memory_of_others(
    model: Any, tiny_catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.save_pretrained(tmp_path)
    # What is on no file is first reserved and then to be filled: with NaN here, so that what is forgotten shows.
    empty_like = torch.empty_like

    def nan_like(tensor: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        made = empty_like(tensor, *arguments, **options)
        return made.fill_(torch.nan) if made.is_floating_point() and not made.is_meta else made

    monkeypatch.setattr(torch, "empty_like", nan_like)
    load = MMM4RecForSequentialRecommendation.from_pretrained
    loaded = load(tmp_path, fusion="dynamic_instance", use_cooccurrence=True)
    other = load(tmp_path, catalog=tiny_catalog(["a", "b"]), fusion="dynamic_instance", learned_missing=True)
    monkeypatch.undo()
    for one, fresh in ((loaded, {"items.fusion_factor", "cooccurrence.weight"}), (other, {"items.missing_text"})):
        assert fresh <= one.state_dict().keys() - model.state_dict().keys()
        for name, tensor in (*one.named_parameters(), *one.named_buffers()):
            assert not tensor.is_floating_point() or tensor.isfinite().all(), name
    assert loaded.items.fusion_factor.abs().max() == 0 and other.items.missing_text.std() > 0
    # Frequencies of a training belong to no checkpoint: none is better than any number.
    assert loaded.items.log_q is None


def test_layers_alone_are_kept_where_projections_start_fresh(
    model: Any, tiny_catalog: Catalog, batch: Batch, tmp_path: Path
) -> None:
    model.config.feature_encoder = {"text": {"encoder": "one", "revision": "1", "pooling": "mean"}}
    model.save_pretrained(tmp_path / "base")
    shop = tiny_catalog(IDS)
    shop.text_features = shop.text_features.repeat(1, 2)
    shop.feature_info = {"text": {"encoder": "another", "revision": "2", "pooling": "mean"}}
    load = MMM4RecForSequentialRecommendation.from_pretrained
    with pytest.raises(ValueError, match="catalog="):
        load(tmp_path / "base", fresh_projections=True)
    with pytest.raises(ValueError):
        load(tmp_path / "base", catalog=shop)
    bare = SimpleNamespace(item_ids=IDS, text_features=shop.text_features, image_features=None)
    with pytest.raises(ValueError, match="the catalogue has no image features; encode it first"):
        load(tmp_path / "base", catalog=bare, fresh_projections=True)
    loaded = load(tmp_path / "base", catalog=shop, fresh_projections=True)
    kept, had = loaded.model.encoder.state_dict(), model.model.encoder.state_dict()
    assert kept.keys() == had.keys() and all(torch.equal(kept[name], had[name]) for name in had)
    assert loaded.config.feature_encoder["text"]["encoder"] == "another"
    scores = logits(loaded, batch)
    assert scores.shape == (3, 13) and scores[:, 1:].isfinite().all()
    loaded.save_pretrained(tmp_path / "shop")
    assert torch.equal(logits(load(tmp_path / "shop"), batch), scores)


def test_layers_of_another_width_are_not_made_up(model: Any, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    for kind in (MMM4RecForSequentialRecommendation, MMM4RecModel):
        with pytest.raises(ValueError, match="other shapes than its configuration says"):
            kind.from_pretrained(tmp_path, max_sequence_length=10)
    # Who asks for it gets the rest of the weights, and those that do not fit as a new model has them.
    kept = MMM4RecModel.from_pretrained(tmp_path, max_sequence_length=10, ignore_mismatched_sizes=True)
    assert torch.equal(kept.text_projection.weight, model.model.text_projection.weight)
    assert all(value.isfinite().all() and value.abs().max() < 20 for value in kept.state_dict().values())


def test_features_and_weights_that_do_not_lie_in_rows_are_saved(
    model: Any, lively_model: Model, batch: Batch, tmp_path: Path
) -> None:
    text, image = np.asfortranarray(np.random.default_rng(0).normal(size=(12, 6))), torch.randn(5, 12).T
    assert not text.flags.c_contiguous and not image.is_contiguous()
    model.set_items(SimpleNamespace(item_ids=IDS, text_features=text, image_features=image))
    weight = model.model.text_projection.weight
    weight.data = weight.data.T.contiguous().T
    assert not weight.is_contiguous()
    model.save_pretrained(tmp_path)
    loaded = MMM4RecForSequentialRecommendation.from_pretrained(tmp_path)
    assert torch.equal(loaded.items.text_features[1:].double(), torch.from_numpy(text).float().double())
    assert torch.equal(loaded.items.image_features[1:], image)
    assert torch.equal(loaded.model.text_projection.weight, weight)


@pytest.mark.parametrize("item_loss", ["full", "in_batch", "sampled"])
def test_a_loaded_model_trains_by_the_loss_it_was_saved_with(
    lively_model: Callable[..., MMM4RecForSequentialRecommendation],
    batch: dict[str, torch.Tensor],
    tmp_path: Path,
    item_loss: str,
) -> None:
    """Options come out of a file as other strings than the code's own, though equal ones."""
    dropouts = dict.fromkeys(("hidden_dropout", "embedding_dropout", "time_dropout"), 0.0)
    model = lively_model(item_loss=item_loss, num_sampled_negatives=6, time_mode="log", **dropouts)
    model.save_pretrained(tmp_path)
    loaded = MMM4RecForSequentialRecommendation.from_pretrained(tmp_path)
    losses = []
    for each in (model, loaded):
        torch.manual_seed(0)
        losses.append(each.train()(**batch).loss)
    assert torch.equal(*losses)


def placed(values: torch.Tensor, fits: Callable[[int], bool]) -> torch.Tensor:
    """A copy in the first memory whose address fits."""
    memory = torch.empty(values.nbytes + 2**15, dtype=torch.uint8)
    start = next(start for start in range(0, 2**15, 4) if fits(memory.data_ptr() + start))
    return memory[start : start + values.nbytes].view(values.dtype).view(values.shape).copy_(values)


def test_weights_are_copied_to_multiples_of_64_bytes_where_they_do_not_lie_there(
    lively_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = lively_model().model
    stays, *moved = list(model.parameters())[:3]
    stays.data = placed(stays.data, lambda address: address % 64 == 0 and address % 63 > 0 and address % 65 > 0)
    for weight, divisor in zip(moved, (63, 65), strict=True):
        weight.data = placed(weight.data, lambda address, by=divisor: address % 64 > 0 and address % by == 0)
    address, values = stays.data_ptr(), [weight.detach().clone() for weight in moved]
    monkeypatch.setattr(PreTrainedModel, "from_pretrained", classmethod(lambda cls, *args, **kwargs: model))
    assert MMM4RecModel.from_pretrained("a folder") is model
    assert stays.data_ptr() == address
    for weight, expected in zip(moved, values, strict=True):
        assert weight.data_ptr() % 64 == 0 and torch.equal(weight, expected)
