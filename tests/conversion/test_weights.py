"""Renaming of published weights: a pure function of dictionaries."""

import json
from pathlib import Path

import pytest
import torch

from mmm4rec_hf import MMM4RecForSequentialRecommendation
from mmm4rec_hf.conversion import config_from_published, from_published, to_published

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())


@pytest.mark.parametrize("case", CASES)
def test_every_published_name_becomes_a_weight_of_the_model(case: str) -> None:
    published = torch.load(GOLDEN / case / "checkpoint.ckpt", weights_only=True)["model"]
    config = config_from_published(json.loads((GOLDEN / case / "config.json").read_text()))
    with torch.device("meta"):
        names = set(MMM4RecForSequentialRecommendation(config).state_dict())
    features = {"items.text_features", "items.image_features"}
    assert set(from_published(published)) == names - features


def test_values_are_passed_on_untouched_and_names_by_hand() -> None:
    published = {
        "text_adapter.0.weight": 1,
        "encoder_ssd_layers.0.ssd.in_proj.weight": 2,
        "decoder_ssd_layers.0.ssd.in_proj.weight": 3,
        "encoder_ssd_layers.0.ssd.mlp4time_scale.3.bias": 4,
        "decoder_ssd_layers.1.co_ssd.q_conv1d.weight": 5,
        "decoder_ssd_layers.1.text_complex_weight.0.imag.bias": 6,
        "decoder_ssd_layers.0.co_ssd.A_log": 7,
        "fusion_factor": 8,
    }
    assert from_published(published) == {
        "model.text_projection.weight": 1,
        "model.encoder.layers.0.ssd.in_proj.weight": 2,
        "model.encoder.layers.0.ssd.time_modulation.scale_out.bias": 4,
        "model.encoder.layers.1.cross_ssd.query_conv.weight": 5,
        "model.encoder.layers.1.fourier_filter.image_filter.imag.bias": 6,
        "model.encoder.layers.0.cross_ssd.A_log": 7,
        "items.fusion_factor": 8,
    }


@pytest.mark.parametrize("case", CASES)
def test_there_and_back_is_the_checkpoint_but_for_the_unused_scalar(case: str) -> None:
    published = torch.load(GOLDEN / case / "checkpoint.ckpt", weights_only=True)["model"]
    back = to_published(from_published(published))
    unused = {"fusion_factor"} if published["fusion_factor"].ndim == 0 else set()
    assert back.keys() == published.keys() - unused
    for name, value in back.items():
        assert value is published[name.replace("decoder", "encoder") if ".ssd." in name else name]


def test_back_the_shared_layer_stands_once_a_branch_and_features_are_left_out() -> None:
    ours = {
        "model.encoder.layers.1.ssd.time_gate.norm.bias": 1,
        "model.encoder.layers.1.cross_ssd.query_proj.weight": 2,
        "model.encoder.layers.0.fourier_filter.text_filter.real.weight": 3,
        "items.text_features": 4,
        "items.image_bias": 5,
    }
    assert to_published(ours) == {
        "encoder_ssd_layers.1.ssd.time_layer_norm.bias": 1,
        "decoder_ssd_layers.1.ssd.time_layer_norm.bias": 1,
        "decoder_ssd_layers.1.co_ssd.q_in_proj.weight": 2,
        "decoder_ssd_layers.0.vision_complex_weight.0.real.weight": 3,
        "vision_item_embedding_bias": 5,
    }
    with pytest.raises(ValueError, match="no place for the weights items.missing_text"):
        to_published({"items.missing_text": 1, "items.text_bias": 2})


@pytest.mark.parametrize(
    "name", ["decoder_ssd_layers.0", "encoder_ssd_layers.x.ssd.D", "decoder_ssd_layers", "encoder_ssd_layers.0.", ""]
)
def test_malformed_names_are_unknown_and_no_crash(name: str) -> None:
    with pytest.raises(ValueError, match="no MMM4Rec checkpoint"):
        from_published({name: 1})


def test_the_static_fusions_unused_scalar_is_left_out() -> None:
    assert from_published({"fusion_factor": torch.tensor(1.0)}) == {}


def test_unknown_names_are_all_listed() -> None:
    with pytest.raises(ValueError, match="encoder_ssd_layers.0.ssd.extra, optimizer.weight"):
        from_published({"optimizer.weight": 1, "encoder_ssd_layers.0.ssd.extra": 2, "text_adapter.0.bias": 3})


def test_the_published_faults_are_switched_on() -> None:
    published = json.loads((GOLDEN / "base_1layer" / "config.json").read_text())
    config = config_from_published(published)
    assert (config.time_mode, config.score_padding_item, config.cross_ssd_activation) == ("published", True, "silu")
    assert config_from_published(published, time_mode="masked").time_mode == "masked"
    other = json.loads((GOLDEN / "other_head_count" / "config.json").read_text())
    assert config_from_published(other).cross_ssd_activation == "hardswish"
