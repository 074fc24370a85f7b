"""The layers: which branch's numbers go where."""

from collections.abc import Callable

import pytest
import torch

from mmm4rec_hf import MMM4RecForSequentialRecommendation
from mmm4rec_hf.modeling.packing_mmm4rec import one_history_a_row

Model = Callable[..., MMM4RecForSequentialRecommendation]


def test_times_of_the_branches_are_told_apart(lively_model: Model) -> None:
    # Without dropout both branches have the same; in a training they don't.
    layer = lively_model().model.encoder.layers[0]
    layout = one_history_a_row(torch.ones(3, 8, dtype=torch.bool))
    text, image = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))  # heads, positions
    with torch.no_grad():
        slots, both, cross_slots = layer.read_time(torch.stack([text, image]), None, layout)
        text_tau, image_tau = layer.ssd.time_modulation(text), layer.ssd.time_modulation(image)
        text, image = layer.ssd.time_gate(text, text_tau, None), layer.ssd.time_gate(image, image_tau, None)
        cross_tau = layer.cross_ssd.time_modulation(layer.fourier_filter(image_time=image, text_time=text, mask=None))
    torch.testing.assert_close(both, torch.stack([text, image]))
    torch.testing.assert_close(slots, torch.cat([text_tau, image_tau]).transpose(1, 2).flatten(0, 1))
    torch.testing.assert_close(cross_slots, cross_tau.transpose(1, 2).flatten(0, 1))


def test_states_of_the_layers_are_given_where_they_are_asked_for(lively_model: Model) -> None:
    encoder = lively_model(num_hidden_layers=2).model.encoder
    text, image = torch.randn(2, 1, 8, 16, generator=torch.Generator().manual_seed(0))
    times, mask = torch.arange(8).unsqueeze(0) * 1000, torch.ones(1, 8, dtype=torch.bool)
    with torch.no_grad():
        plain = encoder(text, image, times, mask)
        told = encoder(text, image, times, mask, output_hidden_states=True)
    assert plain.hidden_states is None and plain.text_hidden_states is None
    assert len(told.hidden_states) == len(told.text_hidden_states) == 3
    torch.testing.assert_close(told.hidden_states[-1], plain.last_hidden_state)


@pytest.mark.parametrize(("dropout", "training", "once"), [(0.4, True, False), (0.0, True, True), (0.4, False, True)])
def test_an_item_enters_once_where_dropout_does_not_tell_its_events_apart(
    lively_model: Model, batch: dict[str, torch.Tensor], dropout: float, training: bool, once: bool
) -> None:
    model, seen = lively_model(embedding_dropout=dropout).train(training), []
    model.model.encoder.layers[0].register_forward_pre_hook(lambda _, arguments: seen.append(arguments[-1]))
    model(**batch)
    assert (seen[0] is not None) == once


def test_each_event_of_an_item_draws_a_dropout_of_its_own(lively_model: Model) -> None:
    model = lively_model(embedding_dropout=0.5, hidden_dropout=0.0, time_dropout=0.0).train()
    ids, times = torch.tensor([[1, 2], [1, 2]]), torch.tensor([[1000, 2000], [1000, 2000]])
    one, other = model.user_embeds(ids, times)
    assert not torch.allclose(one, other)


def test_times_are_not_read_by_a_model_without_time(lively_model: Model) -> None:
    encoder = lively_model(use_time=False).model.encoder
    text, image = torch.randn(2, 1, 8, 16, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(1, 8, dtype=torch.bool)
    with torch.no_grad():
        without, given = (encoder(text, image, times, mask).user_embeds for times in (None, torch.ones(1, 8).long()))
    torch.testing.assert_close(without, given)
