"""A program in place of the layers: compared with them, given what they are given, and asked where it is faster."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from mmm4rec_hf.export import OnnxUserEncoder, export_onnx

from .conftest import IDS, T, history

Catalog = Callable[..., SimpleNamespace]


def with_a_copy_of_the_layers(make_pipeline: Callable[..., Any]) -> tuple[Any, nn.Module]:
    """A pipeline that has answered with a copy of its layers in their place, and the layers."""
    recommend = make_pipeline()
    layers = recommend.model.model.encoder
    old = copy.deepcopy(layers).eval()
    recommend.use_encoder(lambda text, image, times, mask: old(text, image, times, mask == 1).user_embeds)
    recommend(history("1", "2"))
    return recommend, layers


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"use_item_bias": True}, {"use_time": False}], ids=str)
def test_a_program_in_place_of_the_layers_gives_the_same_answers(
    make_pipeline: Callable[..., Any], tiny_catalog: Catalog, tmp_path: Path, changes: dict[str, Any]
) -> None:
    pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    recommend = make_pipeline(use_ffn=False, **changes)  # which test_export.py has; less to export
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for bias in (recommend.model.items.text_bias, recommend.model.items.image_bias):
            if bias is not None:
                bias.copy_(torch.randn(bias.shape, generator=draw))
    histories = [history("0", "3"), history("5"), history(*"12345012345")]  # the last longer than the model reads
    export_onnx(recommend.model, tmp_path / "encoder.onnx", inputs="embeds")
    encoder, calls = OnnxUserEncoder(tmp_path / "encoder.onnx"), []

    def counted(*inputs: torch.Tensor) -> torch.Tensor:
        calls.append(len(inputs[0]))
        return encoder(*inputs)

    def ask() -> list[Any]:
        options = {"top_k": 6, "exclude_history": False}
        alone = [recommend(one, **options) for one in histories]
        together = recommend(histories, **options)
        nobody = recommend(history(), empty_histories="default", **options)
        return [*alone, *together, nobody, *recommend(histories * 6, **options)]

    def compare() -> None:
        calls.clear()
        found = ask()
        assert calls == [1, 1, 1, 3, 1]  # eighteen at once are left to the layers
        recommend.use_encoder(None)
        expected = ask()
        assert len(calls) == 5
        recommend.use_encoder(counted)
        for one, other in zip(found, expected, strict=True):
            assert [entry["item_id"] for entry in one] == [entry["item_id"] for entry in other]
            for name in ("score", "text_score", "image_score"):
                assert [e[name] for e in one] == pytest.approx([e[name] for e in other], abs=1e-4)

    recommend.use_encoder(counted)
    compare()
    recommend.set_items(tiny_catalog([*IDS, "6", "7"]))
    compare()
    copied = pickle.loads(pickle.dumps(encoder))
    recommend.use_encoder(copied)
    with torch.no_grad():
        recommend.model.model.encoder.layers[0].ssd.out_proj.weight.mul_(1.01)
    with pytest.raises(ValueError, match=r"user vectors are .* off the model's.*export it again"):
        recommend(histories[0])
    assert recommend._encoder is None
    after = recommend(histories[0])
    with pytest.raises(ValueError, match=r"user vectors are .* off the model's.*export it again"):
        recommend.use_encoder(encoder)
    assert recommend(histories[0]) == after


def test_an_encoder_is_compared_without_items_and_leaves_the_mode(make_pipeline: Callable[..., Any]) -> None:
    recommend = make_pipeline()
    layers = recommend.model.model.encoder.train()

    def by_layers(text: Any, image: Any, times: Any, mask: Any) -> Any:
        return layers(text, image, times, mask == 1).user_embeds

    recommend.use_encoder(by_layers)
    assert all(module.training for module in layers.modules())
    expected = recommend(history("1", "2"))
    recommend.use_encoder(None)
    assert [e["item_id"] for e in recommend(history("1", "2"))] == [e["item_id"] for e in expected]

    def failing(text: Any, image: Any, times: Any, mask: Any) -> Any:
        raise ValueError("of another size")

    layers.train()
    with pytest.raises(ValueError, match="of another size"):
        recommend.use_encoder(failing)
    assert all(module.training for module in layers.modules())


@pytest.mark.parametrize("use_time", [True, False])
def test_an_encoder_is_given_the_events_and_their_times(make_pipeline: Callable[..., Any], use_time: bool) -> None:
    recommend = make_pipeline(use_time=use_time)
    layers, given, compared = recommend.model.model.encoder, list[Any](), list[int]()

    def by_layers(text: Any, image: Any, times: Any, mask: Any) -> Any:
        given[:] = [times, mask]
        compared.append(times.diff(dim=1).max().item())
        return layers(text, image, times if use_time else None, mask == 1).user_embeds

    asked = {"items": ["0", "3", "1"], "timestamps": [T, T + 60, T + 900_000]}
    expected = recommend(asked, top_k=6)
    recommend.use_encoder(by_layers)
    found = recommend(asked, top_k=6)
    assert [entry["item_id"] for entry in found] == [entry["item_id"] for entry in expected]
    assert [entry["score"] for entry in found] == pytest.approx([entry["score"] for entry in expected], abs=1e-5)
    times, mask = (tensor[0].tolist() for tensor in given)
    # Compared with the layers over gaps of days.
    assert not use_time or compared[0] > 86_400
    # Events first, then padding; a program without times is given zeros.
    assert (times[:3], mask[:3]) == (asked["timestamps"] if use_time else [0, 0, 0], [1, 1, 1])
    assert not any(times[3:]) and not any(mask[3:])


def test_an_encoder_answers_up_to_sixteen_histories_at_once(make_pipeline: Callable[..., Any]) -> None:
    recommend = make_pipeline()
    layers, calls = recommend.model.model.encoder, list[int]()

    def counted(text: Any, image: Any, times: Any, mask: Any) -> Any:
        calls.append(len(mask))
        return layers(text, image, times, mask == 1).user_embeds

    recommend.use_encoder(counted)
    calls.clear()
    for number in (1, 15, 16, 17, 40):
        assert len(recommend([history("1", "2")] * number)) == number
    assert calls == [1, 15, 16]


@pytest.mark.parametrize(("error", "is_refused"), [(0.5e-3, False), (2e-3, True), (-0.5, True), (float("nan"), True)])
def test_an_encoder_may_be_a_thousandth_off(make_pipeline: Callable[..., Any], error: float, is_refused: bool) -> None:
    recommend = make_pipeline()
    layers = recommend.model.model.encoder

    def nearly(text: Any, image: Any, times: Any, mask: Any) -> Any:
        return layers(text, image, times, mask == 1).user_embeds * (1 + error)

    if is_refused:
        with pytest.raises(ValueError, match="at most is allowed"):
            recommend.use_encoder(nearly)
    else:
        recommend.use_encoder(nearly)


@pytest.mark.parametrize("small_alone", [False, True])
def test_weights_that_are_swapped_in_behind_torch_ask_for_another_encoder(
    make_pipeline: Callable[..., Any], small_alone: bool
) -> None:
    recommend, layers = with_a_copy_of_the_layers(make_pipeline)
    for parameter in layers.parameters():
        if parameter.ndim == 1 or not small_alone:
            parameter.data.copy_(parameter.data * 0.5 + 0.1)
    with pytest.raises(ValueError, match="export it again"):
        recommend(history("1", "2"))


def test_a_weight_of_the_layers_that_changes_in_place_asks_for_another_encoder(
    make_pipeline: Callable[..., Any],
) -> None:
    recommend, layers = with_a_copy_of_the_layers(make_pipeline)
    with torch.no_grad():
        layers.layers[0].cross_ssd.out_proj.weight.mul_(1.5)
    with pytest.raises(ValueError, match="export it again"):
        recommend(history("1", "2"))


def test_an_encoder_is_compared_on_histories_of_one_two_and_all_events(make_pipeline: Callable[..., Any]) -> None:
    recommend, seen = make_pipeline(), []
    layers = recommend.model.model.encoder

    def encoder(text: torch.Tensor, image: torch.Tensor, times: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        seen.append((times, mask))
        return layers(text, image, times, mask == 1).user_embeds

    recommend.use_encoder(encoder)
    ((times, mask),) = seen
    assert mask.tolist() == [[1] + [0] * 7, [1, 1] + [0] * 6, [1] * 8, [1] * 8]
    assert not times[mask == 0].any()
    for line, count in zip(times, (1, 2, 8, 8), strict=True):
        gaps = line[:count].diff(prepend=torch.tensor([1_600_000_000]))
        assert (gaps >= 0).all() and (gaps < 10 * 86_400).all()
