"""Both models as functions: what they ask of their inputs, what they return, and what they say."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mmm4rec_hf import MMM4RecForSequentialRecommendation, MMM4RecModel

Model = Callable[..., MMM4RecForSequentialRecommendation]
Catalog = Callable[..., SimpleNamespace]
TIMES = torch.tensor([[1_300_000_000, 1_300_000_060, 1_300_090_000]] * 2)


def features(length: int = 3) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return {
        "text_features": torch.randn(2, length, 6, generator=draw),
        "image_features": torch.randn(2, length, 5, generator=draw),
    }


@pytest.fixture
def backbone(lively_model: Model) -> MMM4RecModel:
    return lively_model(num_hidden_layers=2).model


def test_without_a_mask_every_position_is_an_event(backbone: MMM4RecModel) -> None:
    mask = torch.ones(2, 3, dtype=torch.long)
    with torch.no_grad():
        plain, masked = (
            backbone(**features(), timestamps=TIMES),
            backbone(**features(), timestamps=TIMES, attention_mask=mask),
        )
    torch.testing.assert_close(plain.user_embeds, masked.user_embeds)


@pytest.mark.parametrize("left_out", ["text_features", "image_features"])
def test_a_text_or_a_picture_alone_is_refused(backbone: MMM4RecModel, left_out: str) -> None:
    given = {name: value for name, value in features().items() if name != left_out}
    with pytest.raises(ValueError, match="needs both text_features and image_features"):
        backbone(**given, timestamps=TIMES)


@pytest.mark.parametrize("length", [2, 4])
def test_shapes_that_do_not_fit_the_mask_are_refused(backbone: MMM4RecModel, length: int) -> None:
    mask = torch.ones(2, 3, dtype=torch.long)
    with pytest.raises(ValueError, match=rf"features of shape \(2, {length}, 6\) do not fit an attention_mask"):
        backbone(**features(length), timestamps=TIMES, attention_mask=mask)
    times = torch.ones(2, length, dtype=torch.long)
    with pytest.raises(
        ValueError, match=rf"timestamps of shape \(2, {length}\) do not fit histories of shape \(2, 3\)"
    ):
        backbone(**features(), timestamps=times, attention_mask=mask)


@pytest.mark.parametrize("asked", [None, True, False])
@pytest.mark.parametrize("configured", [True, False])
def test_states_are_returned_as_the_call_says_or_else_the_configuration(
    lively_model: Model, configured: bool, asked: bool | None
) -> None:
    model = lively_model(num_hidden_layers=2, output_hidden_states=configured)
    options: dict[str, Any] = {"timestamps": TIMES} | ({} if asked is None else {"output_hidden_states": asked})
    with torch.no_grad():
        outputs = model.model(**features(), **options), model(torch.tensor([[1, 2, 3]] * 2), **options)
    for output in outputs:
        assert (output.hidden_states is not None) == (configured if asked is None else asked)
        assert (output.text_hidden_states is not None) == (output.hidden_states is not None)


def test_what_was_learned_is_dropped_with_a_warning_where_ids_are_not_known(
    lively_model: Model, tiny_catalog: Catalog, caplog: pytest.LogCaptureFixture
) -> None:
    model = lively_model(use_item_bias=True)
    model.set_items(tiny_catalog(["a", "b"]))
    assert [record.getMessage() for record in caplog.records] == [
        "dropped image_bias, text_bias: this model does not know its items by id"
    ]
    model.set_items(tiny_catalog(["b", "c"]))
    assert len(caplog.records) == 1


@pytest.mark.parametrize("item", [-100, -1, 13, 99])
def test_ids_that_are_no_item_are_refused_by_name(lively_model: Model, item: int) -> None:
    history, times = torch.tensor([[1, 2, 3], [1, 2, item]]), torch.tensor([[1, 2, 3]] * 2)
    told = f"input_ids hold {item}, which is none of the model's items 1..12"
    for item_loss in ("full", "in_batch", "sampled"):
        model = lively_model(item_loss=item_loss)
        for training in (True, False):
            with pytest.raises(ValueError, match=told):
                model.train(training)(history, times, labels=torch.tensor([4, 5]))
    with pytest.raises(ValueError, match=told):
        model.user_embeds(history, times)
    with pytest.raises(ValueError, match=told):
        lively_model(use_cooccurrence=True).cooccurrence_terms(history)
    with pytest.raises(ValueError, match=f"item_rows hold {item}, which is none of the model's items 1..12"):
        model.modality_scores(torch.zeros(2, 16), history)
    # What is no event is not looked at.
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    with torch.no_grad():
        padded = model(torch.tensor([[1, 2, 3], [1, 2, 0]]), times, mask).logits
        assert torch.equal(model(history, times, mask).logits, padded)


def test_the_last_item_may_be_in_a_history_and_a_batch_has_one(lively_model: Model) -> None:
    model = lively_model().eval()
    with torch.no_grad():
        assert model.modality_scores(torch.zeros(1, 16), torch.tensor([[0, 12]]))[0].shape == (1, 2)
        assert model(torch.tensor([[12]]), torch.tensor([[1]])).logits.shape == (1, 13)
    empty = torch.zeros(0, 3, dtype=torch.long)
    with pytest.raises(ValueError, match=r"input_ids of shape \(0, 3\) hold no history; a batch has at least one"):
        model(empty, empty)


@pytest.mark.parametrize("training", [True, False])
def test_a_padding_item_that_competes_may_be_a_target_in_the_batch(lively_model: Model, training: bool) -> None:
    model = lively_model(
        item_loss="in_batch", score_padding_item=True, use_item_bias=True, hidden_dropout=0.0, embedding_dropout=0.0,
        time_dropout=0.0,
    ).train(training)  # fmt: skip
    labels = torch.tensor([0, 3])
    output = model(torch.tensor([[1, 2], [4, 5]]), torch.tensor([[1, 2], [3, 4]]) * 1000, labels=labels)
    with torch.no_grad():
        scores = output.user_embeds @ model.item_vectors()[labels].T / model.config.score_temperature
        expected = torch.nn.functional.cross_entropy(scores, torch.arange(2))
    torch.testing.assert_close(output.loss.detach(), expected)
