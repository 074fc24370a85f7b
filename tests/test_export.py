"""Exported user encoders give the numbers of the model, for any number and any padding of histories."""

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmm4rec_hf import MMM4RecConfig, MMM4RecForSequentialRecommendation
from mmm4rec_hf.export import INPUT_NAMES, OnnxUserEncoder, export_onnx, export_user_encoder

SIZES: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 24, "head_dim": 4, "n_groups": 4, "state_size": 4,
    "max_sequence_length": 7, "text_feature_size": 6, "image_feature_size": 5, "num_items": 9,
}  # fmt: skip
VARIANTS: list[dict[str, Any]] = [
    {},
    {"num_hidden_layers": 2, "time_mode": "published", "cross_ssd_activation": "hardswish"},
    {"use_time": False, "use_ffn": False},
]


@pytest.fixture(params=VARIANTS, ids=str)
def model(request: pytest.FixtureRequest) -> MMM4RecForSequentialRecommendation:
    """A model whose every path matters."""
    torch.manual_seed(0)
    model = MMM4RecForSequentialRecommendation(MMM4RecConfig(**(SIZES | request.param)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.endswith(("A_log", "dt_bias")):
                parameter += 0.3 * torch.randn_like(parameter)
    return model.train()


def histories(count: int) -> tuple[torch.Tensor, ...]:
    """Histories of 1 to 7 events, padded on either side."""
    draw = torch.Generator().manual_seed(count)
    lengths = torch.randint(1, 8, (count, 1), generator=draw)
    places = torch.arange(7).expand(count, 7)
    left = torch.arange(count).unsqueeze(1) % 2 == 0
    mask = torch.where(left, places >= 7 - lengths, places < lengths).long()
    gaps = torch.randint(1, 10**6, (count, 7), generator=draw)
    return (
        torch.randn(count, 7, 6, generator=draw),
        torch.randn(count, 7, 5, generator=draw),
        (1_600_000_000 + gaps.cumsum(1)) * mask,
        mask,
    )


def expected(model: MMM4RecForSequentialRecommendation, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
    assert model.training  # an export leaves the mode as it was
    backbone = model.model.eval()
    with torch.no_grad():
        embeds = backbone(*inputs).user_embeds
    model.train()
    return embeds


@pytest.mark.slow
def test_a_program_of_torch_export_gives_the_numbers_of_the_model(
    model: MMM4RecForSequentialRecommendation, tmp_path: Path
) -> None:
    torch.export.save(export_user_encoder(model), tmp_path / "encoder.pt2")
    program = torch.export.load(tmp_path / "encoder.pt2").module()
    for count in (1, 2, 13):
        inputs = histories(count)
        torch.testing.assert_close(program(*inputs), expected(model, inputs), atol=1e-4, rtol=0)


@pytest.mark.slow
def test_onnxruntime_gives_the_numbers_of_the_model(model: MMM4RecForSequentialRecommendation, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    export_onnx(model, tmp_path / "encoder.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["encoder.onnx"]
    session = onnxruntime.InferenceSession(str(tmp_path / "encoder.onnx"), providers=["CPUExecutionProvider"])
    assert [entry.name for entry in session.get_inputs()] == list(INPUT_NAMES)
    for count in (1, 2, 13):
        inputs = histories(count)
        feed = {name: x.numpy() for name, x in zip(INPUT_NAMES, inputs, strict=True)}
        (embeds,) = session.run(["user_embeds"], feed)
        np.testing.assert_allclose(embeds, expected(model, inputs).numpy(), atol=1e-4, rtol=0)


@pytest.mark.slow
def test_a_program_of_embeddings_gives_the_numbers_of_a_model_with_item_biases(
    model: MMM4RecForSequentialRecommendation, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    export_onnx(model, tmp_path / "encoder.onnx", inputs="embeds")
    encoder = OnnxUserEncoder(tmp_path / "encoder.onnx")
    backbone, generator = model.model.eval(), torch.Generator().manual_seed(1)
    for count in (1, 2, 13):
        *features, times, mask = histories(count)
        biases = [torch.randn(count, 7, 16, generator=generator) for _ in range(2)]
        projections = (backbone.text_projection, backbone.image_projection)
        with torch.no_grad():
            embeds = [p(x) + bias for p, x, bias in zip(projections, features, biases, strict=True)]
        # Not a number where padding is: it takes no part.
        padded = [torch.where(mask.unsqueeze(-1) == 1, x, torch.nan) for x in embeds]
        found = encoder(*padded, times, mask)
        for user in range(count):
            # Alone and without padding in front, by the form that gives every position's output.
            order = mask[user].argsort(descending=True, stable=True)
            aligned = [x[user, order].unsqueeze(0) for x in (*embeds, times * mask, mask)]
            with torch.no_grad():
                expected_embeds = backbone.encoder(*aligned[:3], aligned[3] == 1).user_embeds
            torch.testing.assert_close(found[user : user + 1], expected_embeds, atol=1e-4, rtol=0)
    copied = pickle.loads(pickle.dumps(encoder))
    torch.testing.assert_close(copied(*padded, times, mask), found, atol=0, rtol=0)
    with pytest.raises(ValueError, match=r"takes 7 events of size 16, got embeddings of shape \(13, 6, 16\)"):
        encoder(*(x[:, :6] for x in (*padded, times, mask)))


def test_other_files_and_forms_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx = pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
    pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    small = MMM4RecForSequentialRecommendation(MMM4RecConfig(**SIZES))
    with pytest.raises(ValueError, match="inputs must be 'features' or 'embeds', got 'ids'"):
        export_onnx(small, tmp_path / "encoder.onnx", inputs="ids")
    with pytest.raises(ValueError, match="nowhere.onnx cannot be read as ONNX"):
        OnnxUserEncoder(tmp_path / "nowhere.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"no program")
    with pytest.raises(ValueError, match="broken.onnx cannot be read as ONNX"):
        OnnxUserEncoder(tmp_path / "broken.onnx")
    float32 = onnx.TensorProto.FLOAT
    other = onnx.helper.make_graph(
        [onnx.helper.make_node("Neg", ["text_features"], ["user_embeds"])],
        "other",
        [onnx.helper.make_tensor_value_info("text_features", float32, [1])],
        [onnx.helper.make_tensor_value_info("user_embeds", float32, [1])],
    )
    opset = [onnx.helper.make_opsetid("", 18)]
    onnx.save(onnx.helper.make_model(other, opset_imports=opset, ir_version=9), tmp_path / "other.onnx")
    with pytest.raises(ValueError, match=r"takes text_features; needed is .*inputs='embeds'"):
        OnnxUserEncoder(tmp_path / "other.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"mmm4rec-hf\[onnx\]"):
        OnnxUserEncoder(tmp_path / "other.onnx")


@pytest.mark.parametrize("option", ["use_item_bias", "learned_missing"])
def test_features_alone_are_refused_where_they_do_not_tell_all_of_an_item(option: str, tmp_path: Path) -> None:
    model = MMM4RecForSequentialRecommendation(MMM4RecConfig(**SIZES, **{option: True}))
    for export in (export_user_encoder, lambda model: export_onnx(model, tmp_path / "a.onnx")):
        with pytest.raises(ValueError, match=f'the model has {option}: .* give inputs="embeds"'):
            export(model)


def test_a_model_in_bfloat16_is_refused_before_a_file_is_written(tmp_path: Path) -> None:
    model = MMM4RecForSequentialRecommendation(MMM4RecConfig(**SIZES)).bfloat16()
    with pytest.raises(ValueError, match=r"bfloat16, .*; export model\.float\(\)"):
        export_onnx(model, tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []
