"""Options are checked, typos refused, and everything survives a round trip."""

import ast
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError, StrictDataclassError
from transformers import AutoConfig

from mmm4rec_hf import MMM4RecConfig

FLOATS = [
    "score_temperature", "norm_eps", "initializer_range", "time_initializer_range", "time_step_min", "time_step_max",
    "time_step_floor", "hidden_dropout", "embedding_dropout", "time_dropout", "modality_dropout",
]  # fmt: skip


def test_the_floats_are_these() -> None:
    kinds = MMM4RecConfig.__annotations__
    assert set(FLOATS) == {name for name, kind in kinds.items() if "float" in str(kind)}


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0, 1e-320, 1e30])
def test_a_float_of_no_sane_size_is_refused(name: str, value: float) -> None:
    # A standard deviation, a floor or a share of nearly nothing is one.
    if value == 1e-320 and name.endswith(("initializer_range", "dropout", "floor")):
        value = -value
    with pytest.raises(StrictDataclassClassValidationError, match=rf"{name}\b.* .*{re.escape(str(value))}"):
        MMM4RecConfig(learned_missing=True, **{name: value})


def test_the_edges_of_the_ranges_are_taken() -> None:
    edges = [
        {"score_temperature": 1e-6}, {"score_temperature": 1e6}, {"norm_eps": 1e-30}, {"norm_eps": 1.0},
        {"initializer_range": 0.0}, {"initializer_range": 1e3}, {"time_initializer_range": 0.0},
        {"time_initializer_range": 1e3}, {"time_step_min": 1e-30, "time_step_max": 1e-30}, {"time_step_max": 1e3},
        {"time_step_min": 1e3, "time_step_max": 1e3}, {"time_step_floor": 0.0}, {"time_step_floor": 1e3},
    ]  # fmt: skip
    for options in edges:
        config = MMM4RecConfig(**options)
        assert {name: getattr(config, name) for name in options} == options


def test_the_defaults_are_the_published_recipe() -> None:
    config = MMM4RecConfig()
    published = {
        "hidden_size": 256, "intermediate_size": 256, "state_size": 64, "n_groups": 8, "head_dim": 64, "expand": 2,
        "inner_size": 512, "num_heads": 8, "conv_kernel": 4, "max_sequence_length": 20, "text_feature_size": 768,
        "image_feature_size": 768, "hidden_dropout": 0.4, "embedding_dropout": 0.4, "time_dropout": 0.4,
        "score_temperature": 0.8, "num_hidden_layers": 1, "norm_eps": 1e-12,
    }  # fmt: skip
    assert {name: getattr(config, name) for name in published} == published


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head_dim": 60}, r"head_dim \(60\).*512\); give head_dim=32$"),
        ({"n_groups": 3}, r"n_groups \(3\).*= 8\); give n_groups=2$"),
        ({"hidden_size": 64}, r"\(128 / 64 = 2\); give n_groups=2 or head_dim=16$"),
        ({"hidden_size": 5, "head_dim": 3}, r"\(2 \* 5 = 10\); give n_groups=5 and head_dim=2$"),
        ({"hidden_size": 7, "expand": 1, "head_dim": 3, "n_groups": 7}, r"= 7\); give head_dim=1$"),
        ({"hidden_size": 7, "expand": 1, "head_dim": 3, "n_groups": 3}, r"= 7\); give n_groups=1 and head_dim=1$"),
        ({"hidden_size": 512, "head_dim": 3, "n_groups": 512}, r"= 1024\); give head_dim=2$"),
        ({"hidden_size": 512, "head_dim": 512}, r"\(1024 / 512 = 2\); give n_groups=2 or head_dim=128$"),
        ({"hidden_dropout": 1.5}, "hidden_dropout.*1.5"),
        ({"time_dropout": 1.0}, r"time_dropout must be in \[0, 1\), got 1.0"),
        ({"score_temperature": 0.0}, "score_temperature.*0.0"),
        ({"max_sequence_length": 0}, "max_sequence_length.*0"),
        ({"num_items": 0}, "num_items.*0"),
        ({"time_step_min": 0.5}, r"time_step_min \(0.5\).*0.1"),
        ({"time_step_min": 0.0}, r"time_step_min \(0.0\)"),
        ({"time_step_min": -0.01}, r"time_step_min \(-0.01\)"),
        ({"hidden_dropout_prob": 0.1}, "did you mean `hidden_dropout`"),
        ({"max_seq_length": 50}, "did you mean `max_sequence_length`"),
        ({"temprature": 1.0, "score_temprature": 1.0}, "did you mean `score_temperature`"),
        ({"time_mode": "masqued"}, "masqued"),
        ({"fusion": "sum"}, "sum"),
        ({"hidden_size": "256"}, "hidden_size"),
    ],
    ids=str,
)
def test_what_cannot_work_is_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=message) as caught:
        MMM4RecConfig(**options)
    assert isinstance(caught.value, ValueError | TypeError) or "Validation" in type(caught.value).__name__


def test_what_an_error_tells_to_give_is_taken() -> None:
    for options in ({"n_groups": 2}, {"head_dim": 16}):
        assert MMM4RecConfig(hidden_size=64, **options).inner_size == 128
    assert MMM4RecConfig(hidden_size=5, n_groups=5, head_dim=2).num_heads == 5


def test_defaults_are_those_that_the_documentation_tells() -> None:
    told = re.findall(r"^ +(\w+) \(.*defaults to `?([^`)]+)`?\):?", str(MMM4RecConfig.__doc__), re.MULTILINE)
    assert len(told) > 30
    config = MMM4RecConfig()
    assert {name: getattr(config, name) for name, _ in told} == {
        name: ast.literal_eval(default) for name, default in told
    }


def test_a_saved_configuration_names_no_pipeline_of_its_own_where_the_package_is(tmp_path: Path) -> None:
    config = MMM4RecConfig()
    config.save_pretrained(tmp_path)
    assert "sequential-recommendation" in json.loads((tmp_path / "config.json").read_text())["custom_pipelines"]
    assert not config.custom_pipelines


def test_every_option_survives_a_round_trip(tmp_path: Path) -> None:
    config = MMM4RecConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=3, max_sequence_length=11, text_feature_size=5,
        image_feature_size=7, expand=4, state_size=8, n_groups=2, head_dim=16, conv_kernel=3,
        cross_ssd_activation="hardswish", use_time=False, time_mode="published", point_to_point_gate=True, use_ffn=False,  # noqa: E501
        fusion="dynamic_instance", use_item_bias=True, score_temperature=0.5, score_padding_item=True,
        num_items=9, hidden_dropout=0.1, embedding_dropout=0.2, time_dropout=0.3,
        ssd_implementation="chunked", chunk_size=16, norm_eps=1e-6, initializer_range=0.1, time_step_min=0.01,
        time_step_max=0.2, time_step_floor=1e-3, mask_same_target=False, use_log_q=True, gather_negatives=True,
        num_sampled_negatives=7, negative_sampling="frequency",
        time_initializer_range=0.4, use_cooccurrence=True, cooccurrence_context=2, cooccurrence_window=7,
        num_neighbours=9,
        learned_missing=True, modality_dropout=0.25,
        feature_encoder={"text": {"encoder": "a", "revision": None, "pooling": "mean"}},
    )  # fmt: skip
    names = list(MMM4RecConfig.__annotations__)
    defaults = MMM4RecConfig()
    # Another loss does not go with use_cooccurrence.
    others = MMM4RecConfig(item_loss="in_batch")
    assert {name for name in names if getattr(config, name) == getattr(defaults, name)} == {"item_loss"}
    for one in (config, others):
        one.save_pretrained(tmp_path)
        loaded = AutoConfig.from_pretrained(tmp_path)
        assert {name: getattr(loaded, name) for name in names} == {name: getattr(one, name) for name in names}


@pytest.mark.parametrize("name", ["dtype", "torch_dtype"])
@pytest.mark.parametrize("value", ["floaT32", "Tensor", ""])
def test_a_dtype_that_torch_has_not_is_refused(name: str, value: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"dtype must be the name of one of torch's, .*'float32'.*, got '{value}'"):
        MMM4RecConfig(**{name: value})
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mmm4rec", name: value}))
    with pytest.raises(ValueError, match="dtype must be the name of one of torch's"):
        AutoConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"dtype": 5}, "dtype must be the name of one of torch's"),
        ({"torch_dtype": 5}, "dtype must be the name of one of torch's"),
        ({"dtype": {"a": 1}}, "dtype must be the name of one of torch's"),
        ({"id2label": 5}, "id2label must name labels by their numbers, got 5"),
        ({"id2label": {"x": "y"}}, r"id2label must name labels by their numbers, got \{'x': 'y'\}"),
        ({"num_labels": 10**9}, "num_labels must be from 0 to 10,000, got 1000000000"),
        ({"num_labels": 10_001}, "num_labels must be from 0 to 10,000, got 10001"),
        ({"num_labels": -1}, "num_labels must be from 0 to 10,000, got -1"),
        ({"num_labels": "2"}, "num_labels must be from 0 to 10,000, got '2'"),
        ({"num_labels": True}, "num_labels must be from 0 to 10,000, got True"),
        ({"architectures": 5}, "architectures must be a list of names, got 5"),
        ({"architectures": [5]}, r"architectures must be a list of names, got \[5\]"),
        *(
            ({name: 5}, f"{name} must be an object, got 5")
            for name in ("auto_map", "per_layer_config", "quantization_config", "rope_scaling")
        ),
        *(
            ({name: 5}, f"{name} is a part of MMM4RecConfig's code and no option; leave it out")
            for name in ("num_heads", "to_dict", "from_dict", "attribute_map", "base_model_tp_plan")
        ),
    ],
    ids=str,
)
def test_what_transformers_takes_unread_is_refused_by_name(options: dict[str, Any], told: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mmm4rec"} | options))
    # Of some options transformers 5.12 declares the types itself.
    (name,) = options
    with pytest.raises((ValueError, StrictDataclassError), match=f"{told}|Field '{name}' with value"):
        MMM4RecConfig.from_pretrained(tmp_path)


def test_labels_are_kept_as_other_models_keep_them(tmp_path: Path) -> None:
    assert len(MMM4RecConfig(num_labels=10_000).id2label) == 10_000 and not MMM4RecConfig(num_labels=0).id2label
    MMM4RecConfig(id2label={-1: "none", 0: "next"}).save_pretrained(tmp_path)
    assert MMM4RecConfig.from_pretrained(tmp_path).id2label == {-1: "none", 0: "next"}


@pytest.mark.parametrize(("text", "message"), [("[]", "it is no object"), ("[" * 100_000, "stand in each other")])
def test_a_file_that_holds_no_object_is_no_configuration(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(json.JSONDecodeError, match=rf"{message}.*: line 1 column 1 \(char 0\)"):
        MMM4RecConfig.from_json_file(path)
    with pytest.raises(OSError, match="not a valid JSON file"):
        MMM4RecConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["dtype", "torch_dtype"])
def test_a_dtype_by_its_name(name: str) -> None:
    assert MMM4RecConfig(**{name: "bfloat16"}).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("item_loss", "use_log_q", "negative_sampling", "needs"),
    [
        ("full", True, "frequency", False),
        ("in_batch", False, "frequency", False),
        ("in_batch", True, "uniform", True),
        ("sampled", True, "uniform", False),
        ("sampled", False, "frequency", True),
    ],
)
def test_frequencies_are_needed_by_the_losses_that_read_them(
    item_loss: str, use_log_q: bool, negative_sampling: str, needs: bool
) -> None:
    options = {"item_loss": item_loss, "use_log_q": use_log_q, "negative_sampling": negative_sampling}
    assert MMM4RecConfig(**options).needs_item_frequencies is needs
    # A word of a file is another object than the same one in the code.
    assert MMM4RecConfig(**json.loads(json.dumps(options))).needs_item_frequencies is needs


def test_a_class_knows_that_it_came_from_a_saved_folder() -> None:
    remote = type(
        "MMM4RecConfig", (MMM4RecConfig,), {"__module__": "transformers_modules.films.configuration_mmm4rec"}
    )
    assert remote.is_loaded_remotely() and not MMM4RecConfig.is_loaded_remotely()


def test_a_saved_configuration_names_the_code_beside_it(tmp_path: Path) -> None:
    MMM4RecConfig().save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["auto_map"] == {
        "AutoConfig": "configuration_mmm4rec.MMM4RecConfig",
        "AutoModel": "modeling_mmm4rec.MMM4RecModel",
        "AutoModelForPreTraining": "modeling_mmm4rec.MMM4RecForSequentialRecommendation",
        "AutoProcessor": "processing_mmm4rec.MMM4RecProcessor",
    }
    assert saved["custom_pipelines"]["sequential-recommendation"]["impl"].startswith("pipeline_mmm4rec.")
    for module in ("configuration", "modeling", "processing", "pipeline"):
        assert (tmp_path / f"{module}_mmm4rec.py").is_file()


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("score_temperature", 1e-6, 1e6), ("norm_eps", 1e-30, 1.0), ("initializer_range", 0.0, 1e3),
        ("time_initializer_range", 0.0, 1e3), ("time_step_floor", 0.0, 1e3),
    ],
)  # fmt: skip
def test_a_number_is_taken_from_the_least_to_the_most(name: str, least: float, most: float) -> None:
    for value in (least, most):
        assert getattr(MMM4RecConfig(**{name: value}), name) == value
    told = re.escape(f"{name} must be from {least:g} to {most:g}, got")
    for value in (math.nextafter(least, -math.inf), math.nextafter(most, math.inf)):
        with pytest.raises(StrictDataclassClassValidationError, match=told):
            MMM4RecConfig(**{name: value})


def test_steps_are_taken_from_the_least_to_the_most() -> None:
    widest = MMM4RecConfig(time_step_min=1e-30, time_step_max=1e3)
    assert (widest.time_step_min, widest.time_step_max) == (1e-30, 1e3)
    for step in (math.nextafter(1e-30, 0), math.nextafter(1e3, math.inf)):
        with pytest.raises(StrictDataclassClassValidationError, match="time_step_min must be from 1e-30 to 1000, got"):
            MMM4RecConfig(time_step_min=step, time_step_max=step)
    for highest in (math.nextafter(1e3, math.inf), 1000.5):
        with pytest.raises(StrictDataclassClassValidationError, match="time_step_max must be from 1e-30 to 1000, got"):
            MMM4RecConfig(time_step_max=highest)
