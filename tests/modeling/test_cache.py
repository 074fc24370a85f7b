"""Item vectors are kept between calls, and never stale."""

import copy
import pickle
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmm4rec_hf import MMM4RecForSequentialRecommendation
from mmm4rec_hf.modeling import modeling_mmm4rec
from mmm4rec_hf.modeling.cache_mmm4rec import WeightCache

Model = Callable[..., MMM4RecForSequentialRecommendation]
Catalog = Callable[..., SimpleNamespace]

HISTORY = {
    "input_ids": torch.tensor([[3, 1, 0], [2, 2, 4]]),
    "timestamps": torch.tensor([[10, 500, 0], [7, 30, 90_000]]) + 1_300_000_000,
}


def scores(model: MMM4RecForSequentialRecommendation) -> Tensor:
    with torch.no_grad():
        return model(**HISTORY).logits


def scores_without_memory(model: MMM4RecForSequentialRecommendation) -> Tensor:
    """With gradients nothing is kept."""
    with torch.enable_grad():
        return model(**HISTORY).logits.detach()


def by_optimizer(model: MMM4RecForSequentialRecommendation, catalog: Catalog) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    with torch.enable_grad():
        model(**HISTORY, labels=torch.tensor([1, 5])).loss.backward()
    optimizer.step()


def by_fused_optimizer(model: MMM4RecForSequentialRecommendation, catalog: Catalog) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    with torch.enable_grad():
        model(**HISTORY, labels=torch.tensor([1, 5])).loss.backward()
    optimizer.step()


def by_data(model: MMM4RecForSequentialRecommendation, catalog: Catalog) -> None:
    model.model.text_projection.weight.data.mul_(1.5)


def by_data_of_one_bias(model: MMM4RecForSequentialRecommendation, catalog: Catalog) -> None:
    model.items.text_bias.data[4, 2] = 3.0


def by_another_tensor(model: MMM4RecForSequentialRecommendation, catalog: Catalog) -> None:
    weight = model.model.image_projection.weight
    weight.data = weight.data.flip(0)


def by_feature(model: MMM4RecForSequentialRecommendation, catalog: Catalog) -> None:
    model.items.text_features[5] += 1


def by_state_dict(model: MMM4RecForSequentialRecommendation, catalog: Catalog) -> None:
    model.load_state_dict({name: tensor.flip(0) for name, tensor in model.state_dict().items()})


def by_catalogue(model: MMM4RecForSequentialRecommendation, catalog: Catalog) -> None:
    model.set_items(catalog([f"new{n}" for n in range(12)]))


def by_dtype(model: MMM4RecForSequentialRecommendation, catalog: Catalog) -> None:
    model.bfloat16()


def by_fusion(model: MMM4RecForSequentialRecommendation, catalog: Catalog) -> None:
    with torch.no_grad():
        model.items.fusion_factor[3, 0] = 2.0


CHANGES = [
    by_optimizer, by_fused_optimizer, by_data, by_data_of_one_bias, by_another_tensor, by_feature, by_state_dict,
    by_catalogue, by_dtype, by_fusion,
]  # fmt: skip


@pytest.mark.parametrize("largest_table", [2**25, 0], ids=["tables", "vectors alone"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_scores_follow_every_change(
    lively_model: Model,
    tiny_catalog: Catalog,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[..., None],
    largest_table: int,
) -> None:
    monkeypatch.setattr(modeling_mmm4rec, "_LARGEST_TABLE", largest_table)
    model = lively_model(use_item_bias=True, fusion="dynamic_instance").eval()
    before = scores(model)
    assert torch.equal(scores(model), before)
    change(model, tiny_catalog)
    after = scores(model)
    assert not torch.allclose(after, before)
    torch.testing.assert_close(after, scores_without_memory(model))


def test_other_features_at_the_address_of_the_ones_before_are_others(lively_model: Model) -> None:
    """Memory of features that were replaced is given out again, to the ones after the next."""
    model = lively_model().eval()
    memory = model.items.text_features.numpy().copy()
    model.items.text_features = torch.from_numpy(memory)
    before = scores(model)
    memory += 1
    again = torch.from_numpy(memory)
    assert again.data_ptr() == model.items.text_features.data_ptr()
    model.items.text_features = again
    assert not torch.allclose(scores(model), before)
    torch.testing.assert_close(scores(model), scores_without_memory(model))


def test_nothing_is_computed_twice(lively_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    model = lively_model().eval()
    scores(model)
    monkeypatch.setattr(model, "item_embeds", lambda rows=None: pytest.fail("items were embedded again"))
    scores(model)
    with torch.no_grad():
        model.user_embeds(**HISTORY)


def test_a_large_catalogue_is_embedded_in_parts(lively_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    model = lively_model(fusion="dynamic_instance", use_item_bias=True).eval()
    expected = scores_without_memory(model)
    monkeypatch.setattr(modeling_mmm4rec, "_LARGEST_TABLE", 0)
    monkeypatch.setattr(modeling_mmm4rec, "_EMBEDDED_ROWS", 5)
    torch.testing.assert_close(scores(model), expected)


def test_copies_and_pickles_hold_no_item_vectors_and_score_alike(lively_model: Model) -> None:
    model = lively_model().eval()
    bare = len(pickle.dumps(model))
    expected = scores(model)
    assert len(pickle.dumps(model)) == bare
    copied = copy.deepcopy(model)
    assert torch.equal(scores(copied), expected)
    by_feature(copied, None)
    assert not torch.allclose(scores(copied), expected)
    assert torch.equal(scores(model), expected)


def test_an_adapter_that_is_switched_on_counts(lively_model: Model) -> None:
    class Adapter(torch.nn.Module):
        on = False

        def __init__(self, inner: torch.nn.Linear) -> None:
            super().__init__()
            self.inner, self.weight = inner, inner.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x) + (1 if self.on else 0)

    model = lively_model().eval()
    model.model.text_projection = Adapter(model.model.text_projection)
    before = scores(model)
    model.model.text_projection.on = True
    torch.testing.assert_close(scores(model), scores_without_memory(model))
    assert not torch.allclose(scores(model), before)


def test_a_hook_counts(lively_model: Model) -> None:
    model = lively_model().eval()
    before = scores(model)
    hook = model.model.text_projection.register_forward_hook(lambda module, args, output: output + 1)
    assert not torch.allclose(scores(model), before)
    hook.remove()
    assert torch.equal(scores(model), before)


@pytest.mark.parametrize("precision", [None, torch.float16], ids=["none", "another"])
def test_what_was_computed_under_autocast_is_not_served_without_it(
    lively_model: Model, precision: torch.dtype | None
) -> None:
    later = torch.autocast("cpu", dtype=precision, enabled=precision is not None)
    with later:
        expected = scores(lively_model().eval())
    model = lively_model().eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = scores(model)
    with later:
        assert torch.equal(scores(model), expected)
    assert not torch.equal(rough, expected)


@pytest.mark.parametrize(
    ("module", "told"), [(torch.compiler, "is_compiling"), (torch.jit, "is_tracing")], ids=["compiled", "traced"]
)
def test_what_is_recorded_computes_the_items_itself(
    lively_model: Model, monkeypatch: pytest.MonkeyPatch, module: Any, told: str
) -> None:
    model = lively_model().eval()
    embedded, embed = [], model.item_embeds
    monkeypatch.setattr(model, "item_embeds", lambda rows=None: embedded.append(rows) or embed(rows))
    with torch.no_grad():
        model.kept_items()
        kept = len(embedded)
        monkeypatch.setattr(module, told, lambda: True)
        model.kept_items()
    assert kept == 1 and len(embedded) == 2


def test_a_model_made_in_inference_mode_follows_its_changes(lively_model: Model) -> None:
    other = lively_model().eval()
    by_feature(other, None)
    with torch.inference_mode():
        model = lively_model().eval()
        first = model(**HISTORY).logits
        by_feature(model, None)
        second = model(**HISTORY).logits
    torch.testing.assert_close(first, scores(lively_model().eval()))
    torch.testing.assert_close(second, scores(other))


def test_inference_mode_and_no_grad_score_alike(lively_model: Model) -> None:
    model = lively_model().eval()
    with torch.inference_mode():
        first = model(**HISTORY).logits
        model.items.text_features.add_(1)
        second = model(**HISTORY).logits
    assert not torch.allclose(first, second)
    torch.testing.assert_close(scores(model), second)
    with torch.enable_grad():
        loss = model.train()(**HISTORY, labels=torch.tensor([1, 5])).loss
    loss.backward()
    assert model.model.text_projection.weight.grad.isfinite().all()


def test_fewer_or_more_tensors_make_another_value() -> None:
    cache, both, one = WeightCache((nn.Linear,)), nn.Linear(2, 2), nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        values = [cache.get([module], lambda n=n: n) for n, module in enumerate((both, both, one, one, both, both))]
    assert values == [0, 0, 2, 2, 4, 4]
    both.bias = None
    with torch.no_grad():
        assert cache.get([both], lambda: 6) == 6
