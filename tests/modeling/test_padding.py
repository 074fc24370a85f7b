"""In the masked time mode padding is invisible; in the published mode it is what the published code made of it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmm4rec_hf import MMM4RecForSequentialRecommendation
from mmm4rec_hf.modeling.packing_mmm4rec import events_first

Model = Callable[..., MMM4RecForSequentialRecommendation]


def row(items: list[int], times: list[int], left: int, right: int) -> tuple[torch.Tensor, ...]:
    def pad(values: list[int]) -> torch.Tensor:
        return torch.tensor([0] * left + values + [0] * right)

    return pad(items), pad(times), pad([1] * len(items))


def score(model: Any, *rows: tuple[torch.Tensor, ...]) -> torch.Tensor:
    items, times, mask = (torch.stack(column) for column in zip(*rows, strict=True))
    with torch.no_grad():
        return model(input_ids=items, timestamps=times, attention_mask=mask).logits[:, 1:]


@pytest.mark.parametrize(
    "changes", [{}, {"point_to_point_gate": True}, {"max_sequence_length": 7}, {"num_hidden_layers": 2}]
)
def test_scores_do_not_change_with_padding_or_batch_mates(lively_model: Model, changes: dict[str, Any]) -> None:
    model = lively_model(**changes)

    @settings(max_examples=15, deadline=None)
    @given(
        lengths=st.lists(st.integers(1, 11), min_size=2, max_size=4),
        lefts=st.lists(st.integers(0, 6), min_size=4, max_size=4),
        seed=st.integers(0, 10**6),
    )
    def check(lengths: list[int], lefts: list[int], seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        histories = []
        for n in lengths:
            items = torch.randint(1, 13, (n,), generator=generator).tolist()
            times = torch.randint(1, 10**7, (n,), generator=generator).cumsum(0) + 1_300_000_000
            histories.append((items, times.tolist()))
        alone = torch.cat([score(model, row(*history, 0, 0)) for history in histories])
        width = max(lengths) + 6
        padded = [
            row(*history, left, width - left - len(history[0]))
            for history, left in zip(histories, lefts, strict=False)
        ]
        torch.testing.assert_close(score(model, *padded), alone, atol=1e-5, rtol=1e-5)

    check()


def test_gaps_do_change_scores(lively_model: Model) -> None:
    model = lively_model()
    near = score(model, row([3, 4, 5], [1_300_000_000, 1_300_000_060, 1_300_900_000], 0, 0))
    far = score(model, row([3, 4, 5], [1_300_000_000, 1_300_800_000, 1_300_900_000], 0, 0))
    assert (near - far).abs().max() > 1e-3


@pytest.mark.parametrize("layers", [1, 2])
def test_a_history_that_fills_all_positions_has_the_published_scores(lively_model: Model, layers: int) -> None:
    """Nothing is padded, so that there is nothing to mask."""
    history = row([1, 2, 3, 4, 5, 6, 7, 8], [0, 60, 9_000, 9_001, 70_000, 70_020, 900_000, 2_000_000], 0, 0)
    masked, published = (
        score(lively_model(time_mode=mode, num_hidden_layers=layers), history) for mode in ("masked", "published")
    )
    torch.testing.assert_close(masked, published, atol=1e-5, rtol=1e-5)


def test_only_the_last_events_of_a_long_history_count(lively_model: Model) -> None:
    model = lively_model()
    times = list(range(1_300_000_000, 1_300_000_000 + 12 * 1000, 1000))
    long = score(model, row([9, 10, 11, 12, 1, 2, 3, 4, 5, 6, 7, 8], times, 0, 0))
    last = score(model, row([1, 2, 3, 4, 5, 6, 7, 8], times[4:], 0, 0))
    torch.testing.assert_close(long, last, atol=1e-6, rtol=0)


def test_what_padding_holds_is_not_read(lively_model: Model) -> None:
    model = lively_model()
    items, times, mask = row([3, 4, 5], [1_300_000_000, 1_300_000_060, 1_300_900_000], 2, 2)
    clean = score(model, (items, times, mask))
    dirty = score(model, (torch.where(mask == 0, 7, items), torch.where(mask == 0, 2**40, times), mask))
    assert torch.equal(clean, dirty)


def test_the_backbone_gives_the_same_user_vector_for_either_padding(lively_model: Model) -> None:
    backbone = lively_model().model
    features = torch.randn(1, 3, 6), torch.randn(1, 3, 5)
    times = torch.tensor([[1_300_000_000, 1_300_000_060, 1_300_900_000]])

    def pad(tensor: torch.Tensor, left: int, right: int) -> torch.Tensor:
        return torch.nn.functional.pad(tensor, ((0, 0) if tensor.dim() == 3 else ()) + (left, right))

    def embed(left: int, right: int) -> torch.Tensor:
        mask = pad(torch.ones(1, 3, dtype=torch.long), left, right)
        text, image = (pad(feature, left, right) for feature in features)
        with torch.no_grad():
            return backbone(text, image, pad(times, left, right), mask).user_embeds

    torch.testing.assert_close(embed(0, 0), embed(4, 0), atol=1e-6, rtol=0)
    torch.testing.assert_close(embed(0, 0), embed(1, 5), atol=1e-6, rtol=0)


def test_the_backbone_reads_events_and_times_as_the_recommender_does(lively_model: Model) -> None:
    model = lively_model()
    items, times, mask = (part[None] for part in row([3, 4, 5], [1_300_000_000, 1_300_000_060, 1_300_900_000], 2, 1))
    text, image = model.items.text_features[items], model.items.image_features[items]
    with torch.no_grad():
        ours = model(input_ids=items, timestamps=times, attention_mask=mask).user_embeds
        for dtype in (torch.long, torch.bool, torch.float32):
            found = model.model(text, image, times, mask.to(dtype)).user_embeds
            torch.testing.assert_close(found, ours, atol=1e-6, rtol=0)
        # The times are heard at all.
        assert (model.model(text, image, times * 0, mask).user_embeds - ours).abs().max() > 1e-4


@pytest.mark.parametrize("junk", [7.0, float("nan"), float("inf")])
def test_what_padding_holds_is_not_read_by_the_backbone(lively_model: Model, junk: float) -> None:
    backbone = lively_model(time_mode="published").model
    _, times, mask = (part[None] for part in row([3, 4, 5], [1_300_000_000, 1_300_000_060, 1_300_900_000], 2, 2))
    text, image = torch.randn(1, 7, 6), torch.randn(1, 7, 5)
    padding = mask == 0
    with torch.no_grad():
        clean = backbone(text, image, times, mask).user_embeds
        dirty = [features.masked_fill(padding.unsqueeze(-1), junk) for features in (text, image)]
        assert torch.equal(backbone(*dirty, times.masked_fill(padding, 2**40), mask).user_embeds, clean)


def test_published_mode_reads_zeros_as_the_times_of_padding(lively_model: Model) -> None:
    """Times near 0 tell the zeros of the published code from other numbers."""
    model = lively_model(time_mode="published")
    items, times, mask = (part[None] for part in row([3, 4, 5], [5, 9, 20], 0, 5))
    with torch.no_grad():
        text, image = (table[items] for table in model.item_embeds())
        expected = model.model.encoder(text, image, times, mask.bool()).user_embeds
        other = model.model.encoder(text, image, times + (1 - mask), mask.bool()).user_embeds
        found = model(input_ids=items, timestamps=times, attention_mask=mask).user_embeds
        by_backbone = model.model(
            model.items.text_features[items], model.items.image_features[items], times, mask
        ).user_embeds
    for vectors in (found, by_backbone):
        torch.testing.assert_close(vectors, expected, atol=1e-6, rtol=0)
    assert (other - expected).abs().max() > 1e-4


def test_published_mode_sees_the_spike_at_the_first_padded_position(lively_model: Model) -> None:
    """Right-padded timestamps of 0 drown the gaps of every padded row; a full row shows them."""
    model = lively_model(time_mode="published")
    padded = [
        score(model, row([3, 4, 5], [1_300_000_000, 1_300_000_000 + gap, 1_300_009_000], 0, 5)) for gap in (60, 8_000)
    ]
    assert (padded[0] - padded[1]).abs().max() < 1e-4
    full = [score(model, row([1, 2, 3, 4, 5, 6, 7, 8], [0, gap, *range(9_000, 9_006)], 0, 0)) for gap in (60, 8_000)]
    assert (full[0] - full[1]).abs().max() > 1e-2


def test_a_history_of_one_event_has_finite_gradients(lively_model: Model) -> None:
    model = lively_model().train()
    output = model(input_ids=torch.tensor([[3]]), timestamps=torch.tensor([[1_300_000_000]]), labels=torch.tensor([4]))
    output.loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_events_first_of_hand_made_masks() -> None:
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 0], [1, 0, 1, 0], [0, 0, 0, 0]])
    index, events = events_first(mask, 2)
    assert events.tolist() == [[True, True], [True, True], [True, True], [False, False]]
    assert index[:3].tolist() == [[2, 3], [1, 2], [0, 2]]
    index, events = events_first(mask, 6)
    assert events.sum(1).tolist() == [2, 3, 2, 0]
    assert index[1, :3].tolist() == [0, 1, 2]


def test_float_timestamps_and_missing_ones_are_refused(lively_model: Model) -> None:
    model = lively_model()
    with pytest.raises(TypeError, match="float32"):
        model(input_ids=torch.tensor([[1, 2]]), timestamps=torch.tensor([[1.0, 2.0]]))
    with pytest.raises(ValueError, match="timestamps"):
        model(input_ids=torch.tensor([[1, 2]]))
    with pytest.raises(ValueError, match=r"\(1, 3\)"):
        model(input_ids=torch.tensor([[1, 2]]), timestamps=torch.tensor([[1, 2, 3]]))
