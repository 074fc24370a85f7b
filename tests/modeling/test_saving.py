"""Saved folders: equal bits in every form of loading, with and without this package."""

import json
import logging
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForPreTraining, AutoProcessor, pipeline

from mmm4rec_hf import MMM4RecConfig, MMM4RecForSequentialRecommendation, MMM4RecModel, MMM4RecProcessor

Model = Callable[..., MMM4RecForSequentialRecommendation]
Catalog = Callable[..., SimpleNamespace]
Batch = dict[str, torch.Tensor]
IDS = [str(n) for n in range(100, 112)]

VARIANTS: list[dict[str, Any]] = [
    {},
    {"use_item_bias": True, "fusion": "dynamic_instance", "num_hidden_layers": 2},
    {"fusion": "dynamic_shared", "point_to_point_gate": True, "use_ffn": False},
    {"use_time": False},
    {"time_mode": "published", "score_padding_item": True, "cross_ssd_activation": "hardswish"},
]


def features(model: Any, batch: Batch) -> Batch:
    ids = batch["input_ids"]
    inputs = {
        "text_features": torch.nn.functional.embedding(ids, model.items.text_features),
        "image_features": torch.nn.functional.embedding(ids, model.items.image_features),
    }
    return inputs | {name: batch[name] for name in ("timestamps", "attention_mask")}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_a_saved_model_loads_with_equal_bits(
    lively_model: Model, tiny_catalog: Catalog, batch: Batch, tmp_path: Path, variant: dict, dtype: torch.dtype
) -> None:
    model = lively_model(**variant)
    model.set_items(tiny_catalog(IDS))
    model = model.to(dtype)
    model.save_pretrained(tmp_path)
    loaded = MMM4RecForSequentialRecommendation.from_pretrained(tmp_path)
    assert loaded.dtype == dtype and loaded.item_ids == IDS and not loaded.training
    with torch.no_grad():
        assert torch.equal(model(**batch).logits, loaded(**batch).logits)
        assert torch.equal(model(**batch).loss, loaded(**batch).loss)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_base_from_head_and_head_from_base(
    lively_model: Model, batch: Batch, tmp_path: Path, dtype: torch.dtype
) -> None:
    head = lively_model().to(dtype)
    head.save_pretrained(tmp_path / "head")
    base = AutoModel.from_pretrained(tmp_path / "head")
    assert type(base) is MMM4RecModel and base.dtype == dtype
    with torch.no_grad():
        expected = head(**batch, output_hidden_states=True).user_embeds
        # The head projects every item once and gathers; in half precision both round alike.
        assert torch.equal(base(**features(head, batch)).user_embeds, expected)
    base.save_pretrained(tmp_path / "base")
    again = MMM4RecForSequentialRecommendation.from_pretrained(tmp_path / "base")
    for name, value in head.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value), name
    with pytest.raises(ValueError, match="set_items"):
        again(**batch)


def test_weights_are_written_once_and_rows_of_items_travel_with_them(lively_model: Model, tmp_path: Path) -> None:
    lively_model(use_item_bias=True).save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        names = set(file.keys())
    assert {"items.text_features", "items.image_features", "items.text_bias", "items.image_bias"} <= names
    assert sum(name.endswith("ssd.in_proj.weight") for name in names) == 1


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_what_is_saved_last_loads_be_it_in_one_file_or_in_shards(
    lively_model: Model, tmp_path: Path, variant: str | None
) -> None:
    named = "" if variant is None else f".{variant}"
    one_file, index = f"model{named}.safetensors", f"model.safetensors.index{named}.json"
    other = tmp_path / ("model.fp16.safetensors" if variant is None else "model.safetensors")
    other.write_bytes(b"of another variant")
    model = lively_model()
    for size, there, gone in (("50GB", one_file, index), ("4KB", index, one_file), ("50GB", one_file, index)):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 1
        model.save_pretrained(tmp_path, max_shard_size=size, variant=variant)
        assert (tmp_path / there).is_file() and not (tmp_path / gone).exists()
        loaded = MMM4RecForSequentialRecommendation.from_pretrained(tmp_path, variant=variant)
        expected = model.state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())
    assert other.read_bytes() == b"of another variant"


def test_a_two_layer_checkpoint_gives_its_first_layer_to_a_one_layer_model(
    lively_model: Model, tmp_path: Path
) -> None:
    two = lively_model(num_hidden_layers=2)
    two.save_pretrained(tmp_path)
    one = MMM4RecForSequentialRecommendation.from_pretrained(tmp_path, num_hidden_layers=1)
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name]), name
    assert len(one.model.encoder.layers) == 1


def test_rates_stay_float32_when_a_model_is_loaded_in_half_precision(lively_model: Model, tmp_path: Path) -> None:
    model = lively_model()
    model.save_pretrained(tmp_path)
    loaded = MMM4RecForSequentialRecommendation.from_pretrained(tmp_path, dtype=torch.bfloat16)
    kept = {name for name, p in loaded.named_parameters() if p.dtype == torch.float32}
    assert loaded.dtype == torch.bfloat16
    for name, parameter in loaded.named_parameters():
        if name.rsplit(".", 1)[-1] in ("A_log", "dt_bias", "D") or "time_" in name:
            assert name in kept
            assert torch.equal(parameter, model.get_parameter(name))
    assert "model.text_projection.weight" not in kept


class TestAnotherCatalogue:
    def test_the_backbone_is_kept_and_what_was_the_old_catalogues_is_dropped(
        self, lively_model: Model, tiny_catalog: Catalog, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        old = lively_model(use_item_bias=True, fusion="dynamic_instance")
        old.set_items(tiny_catalog(IDS[:4]))
        old.save_pretrained(tmp_path)
        new_ids = ["100", "a", "b", "c", "d", "e"]
        with caplog.at_level("WARNING"):
            transformers.logging.enable_propagation()
            model = MMM4RecForSequentialRecommendation.from_pretrained(tmp_path, catalog=tiny_catalog(new_ids))
            transformers.logging.disable_propagation()
        assert model.item_ids == new_ids and model.config.num_items == 6
        for name, value in model.model.state_dict().items():
            assert torch.equal(value, old.model.state_dict()[name]), name
        assert torch.equal(model.items.text_features[1:], tiny_catalog(new_ids).text_features)
        assert model.items.text_bias.abs().max() == 0 and model.items.fusion_factor.shape == (7, 2)
        message = next(r.getMessage() for r in caplog.records if "kept the backbone" in r.getMessage())
        assert "items.text_bias" in message and "items.fusion_factor" in message
        assert not any("LOAD REPORT" in record.getMessage() for record in caplog.records), "told twice"

    def test_weights_that_no_catalogue_explains_are_still_reported(
        self, lively_model: Model, tiny_catalog: Catalog, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        lively_model().save_pretrained(tmp_path)
        path = tmp_path / "model.safetensors"
        save_file(load_file(path) | {"model.stranger": torch.ones(2)}, path, metadata={"format": "pt"})
        transformers.logging.enable_propagation()
        try:
            with caplog.at_level("WARNING"):
                MMM4RecForSequentialRecommendation.from_pretrained(tmp_path, catalog=tiny_catalog(["x", "y"]))
                told = {r.getMessage() for r in caplog.records if "LOAD REPORT" in r.getMessage()}
                assert len(told) == 1 and "model.stranger" in told.pop()
                caplog.clear()
                MMM4RecForSequentialRecommendation.from_pretrained(
                    tmp_path, catalog=tiny_catalog(["x", "y"]), ignore_mismatched_sizes=True, hidden_size=32
                )
                assert any("MISMATCH" in r.getMessage() for r in caplog.records)
                told = {r.getMessage() for r in caplog.records if "started fresh" in r.getMessage()}
                assert "model.text_projection.weight" in told.pop()
                caplog.clear()
                with pytest.raises(ValueError, match="other shapes"):
                    MMM4RecForSequentialRecommendation.from_pretrained(
                        tmp_path, catalog=tiny_catalog(["x", "y"]), max_sequence_length=10
                    )
        finally:
            transformers.logging.disable_propagation()
        assert any("LOAD REPORT" in r.getMessage() for r in caplog.records), "an error says that the log names them"
        assert not logging.getLogger("transformers.modeling_utils").filters

    def test_options_are_taken_with_a_catalogue_as_without(
        self, lively_model: Model, tiny_catalog: Catalog, tmp_path: Path
    ) -> None:
        old = lively_model()
        old.set_items(tiny_catalog(IDS))
        old.save_pretrained(tmp_path / "model")
        old.config.save_pretrained(tmp_path / "config")
        load, catalog = MMM4RecForSequentialRecommendation.from_pretrained, tiny_catalog(["x", "y"])
        # Of this package, of every configuration, and of loading.
        options = {
            "score_temperature": 0.5, "output_hidden_states": True, "return_dict": False, "id2label": {0: "next"},
            "dtype": "bfloat16", "local_files_only": True, "low_cpu_mem_usage": True,
        }  # fmt: skip
        for model in (load(tmp_path / "model", **options), load(tmp_path / "model", catalog=catalog, **options)):
            assert (model.config.score_temperature, model.config.output_hidden_states) == (0.5, True)
            assert model.config.return_dict is False and model.config.id2label == {0: "next"}
            assert model.dtype == model.config.dtype == torch.bfloat16
        configs: list[Any] = [tmp_path / "config", str(tmp_path / "config"), old.config]
        for config in configs:
            model = load(tmp_path / "model", catalog=catalog, config=config)
            assert model.item_ids == ["x", "y"] and model.config.num_items == 2
            assert torch.equal(model.model.text_projection.weight, old.model.text_projection.weight)
        assert old.config.num_items == 12, "a configuration that is given stays as it was"
        with pytest.raises(TypeError, match="no_such_option"):
            load(tmp_path / "model", catalog=catalog, no_such_option=1)

    def test_a_fusion_shared_by_all_items_is_kept(
        self, lively_model: Model, tiny_catalog: Catalog, tmp_path: Path
    ) -> None:
        old = lively_model(fusion="dynamic_shared")
        old.save_pretrained(tmp_path)
        model = MMM4RecForSequentialRecommendation.from_pretrained(tmp_path, catalog=tiny_catalog(["x", "y"]))
        assert torch.equal(model.items.fusion_factor, old.items.fusion_factor)

    def test_a_model_that_is_asked_to_hold_no_items_has_none(
        self, lively_model: Model, tiny_catalog: Catalog, tmp_path: Path
    ) -> None:
        old = lively_model(use_item_bias=True)
        old.set_items(tiny_catalog(IDS))
        old.save_pretrained(tmp_path)
        (tmp_path / "item_ids.json").write_text("damaged")  # names no item of this model
        load, bare = MMM4RecForSequentialRecommendation.from_pretrained, MMM4RecConfig.from_pretrained(tmp_path)
        bare.num_items = None
        for model in (load(tmp_path, num_items=None), load(tmp_path, config=bare)):
            assert model.item_ids is None and model.config.num_items is None and model.items.num_rows == 0
            kept = {name for name in old.state_dict() if name.startswith("model.")}
            assert model.state_dict().keys() == kept
            assert all(torch.equal(model.state_dict()[name], old.state_dict()[name]) for name in kept)
            model.set_items(tiny_catalog(["x", "y"]))
            assert model.item_ids == ["x", "y"] and model.items.text_bias.shape == (3, 16)

    def test_another_length_is_a_clear_error(self, lively_model: Model, tmp_path: Path) -> None:
        lively_model().save_pretrained(tmp_path)
        with pytest.raises(ValueError, match="other shapes than its configuration says"):
            MMM4RecForSequentialRecommendation.from_pretrained(tmp_path, max_sequence_length=10)

    def test_features_of_another_width_are_a_clear_error(
        self, lively_model: Model, tiny_catalog: Catalog, tmp_path: Path
    ) -> None:
        lively_model().save_pretrained(tmp_path)
        catalog = tiny_catalog(["x", "y"])
        catalog.text_features = torch.zeros(2, 9)
        with pytest.raises(ValueError, match=r"\(2, 9\).*\(2, 6\)"):
            MMM4RecForSequentialRecommendation.from_pretrained(tmp_path, catalog=catalog)

    def test_a_checkpoint_that_lacks_weights_is_an_error(self, lively_model: Model, tmp_path: Path) -> None:
        model = lively_model()
        state = {name: value for name, value in model.state_dict().items() if "out_proj" not in name}
        model.save_pretrained(tmp_path, state_dict=state)
        with pytest.raises(ValueError, match="out_proj"):
            MMM4RecForSequentialRecommendation.from_pretrained(tmp_path)
        # Who asks what is missing is told.
        _, info = MMM4RecForSequentialRecommendation.from_pretrained(tmp_path, output_loading_info=True)
        assert sorted(info["missing_keys"]) == sorted(name for name in model.state_dict() if "out_proj" in name)

    def test_ids_and_weights_of_different_counts_are_an_error(
        self, lively_model: Model, tiny_catalog: Catalog, tmp_path: Path
    ) -> None:
        model = lively_model()
        model.set_items(tiny_catalog(IDS))
        model.save_pretrained(tmp_path)
        (tmp_path / "item_ids.json").write_text(json.dumps(IDS[:-1]))
        with pytest.raises(ValueError, match="11 items, the weights hold 12"):
            MMM4RecForSequentialRecommendation.from_pretrained(tmp_path)


class TestRemoteCode:
    """A process in which mmm4rec_hf cannot be imported."""

    @pytest.fixture
    def folder(self, lively_model: Model, tiny_catalog: Catalog, batch: Batch, tmp_path: Path) -> Path:
        model = lively_model(num_hidden_layers=2)
        catalog = tiny_catalog(IDS)
        model.set_items(catalog)
        processor = MMM4RecProcessor(max_sequence_length=8)
        processor.set_items(catalog)
        folder = tmp_path / "my.model-1.4"
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        with torch.no_grad():
            output = model(**batch)
            user_embeds = model(**batch, output_hidden_states=True).user_embeds
        recommend = pipeline("sequential-recommendation", model=model, processor=processor, device="cpu")
        history = {"items": ["104", "102"], "timestamps": [1_300_000_000, 1_300_000_060]}
        torch.save(
            {
                "batch": batch,
                "features": features(model, batch),
                "user_embeds": user_embeds,
                "logits": output.logits,
                "history": history,
                "recommended": recommend(history, top_k=3),
            },
            tmp_path / "expected.pt",
        )
        return folder

    def run(self, tmp_path: Path, code: str) -> str:
        prelude = """
            import importlib.abc, sys
            class Absent(importlib.abc.MetaPathFinder):
                def find_spec(self, name, path, target=None):
                    if name.split(".")[0] in ("mmm4rec_hf", "modeling", "conversion"):
                        raise ModuleNotFoundError(name)
            sys.meta_path.insert(0, Absent())
            import torch, transformers
            expected = torch.load("expected.pt", weights_only=True)
        """
        environment = os.environ | {"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(prelude) + textwrap.dedent(code)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    def test_auto_model_gives_the_backbone_and_equal_bits(self, folder: Path, tmp_path: Path) -> None:
        out = self.run(
            tmp_path,
            """
            model = transformers.AutoModel.from_pretrained("my.model-1.4", trust_remote_code=True)
            with torch.no_grad():
                assert torch.equal(model(**expected["features"]).user_embeds, expected["user_embeds"])
            print(type(model).__name__, type(model).__module__.split(".")[0])
            model.save_pretrained("again")
            again = transformers.AutoModel.from_pretrained("again", trust_remote_code=True)
            with torch.no_grad():
                assert torch.equal(again(**expected["features"]).user_embeds, expected["user_embeds"])
            """,
        )
        assert out.split() == ["MMM4RecModel", "transformers_modules"]

    def test_the_head_and_the_processor_load_too(self, folder: Path, tmp_path: Path) -> None:
        self.run(
            tmp_path,
            """
            load = transformers.AutoModelForPreTraining.from_pretrained
            model = load("my.model-1.4", trust_remote_code=True)
            with torch.no_grad():
                assert torch.equal(model(**expected["batch"]).logits, expected["logits"])
            half = load("my.model-1.4", trust_remote_code=True, dtype=torch.bfloat16)
            assert half.dtype == torch.bfloat16
            processor = transformers.AutoProcessor.from_pretrained("my.model-1.4", trust_remote_code=True)
            rows = processor(histories=[expected["history"]])["input_ids"].tolist()
            assert rows == [[5, 3]], rows
            """,
        )

    def test_the_pipeline_recommends_the_same(self, folder: Path, tmp_path: Path) -> None:
        self.run(
            tmp_path,
            """
            recommend = transformers.pipeline(
                "sequential-recommendation", model="my.model-1.4", trust_remote_code=True, device="cpu"
            )
            # To rounding: the order of sums follows the process's threads.
            for entry, other in zip(recommend(expected["history"], top_k=3), expected["recommended"], strict=True):
                scores = [name for name in entry if name.endswith("score")]
                assert {**entry, **dict.fromkeys(scores)} == {**other, **dict.fromkeys(scores)}
                assert all(abs(entry[name] - other[name]) < 1e-5 for name in scores)
            """,
        )

    def test_without_consent_no_code_runs(self, folder: Path, tmp_path: Path) -> None:
        self.run(
            tmp_path,
            """
            try:
                transformers.AutoModel.from_pretrained("my.model-1.4", trust_remote_code=False)
            except ValueError as error:
                assert "trust_remote_code" in str(error)
            else:
                raise SystemExit("loaded")
            """,
        )

    def test_with_this_package_the_local_classes_win_and_nothing_asks_for_consent(self, folder: Path) -> None:
        assert type(AutoConfig.from_pretrained(folder)) is MMM4RecConfig
        assert type(AutoModel.from_pretrained(folder)) is MMM4RecModel
        assert type(AutoModel.from_pretrained(folder, trust_remote_code=True)) is MMM4RecModel
        assert type(AutoModelForPreTraining.from_pretrained(folder)) is MMM4RecForSequentialRecommendation
        assert type(AutoProcessor.from_pretrained(folder)) is MMM4RecProcessor
        expected = torch.load(folder.parent / "expected.pt", weights_only=True)
        recommend = pipeline("sequential-recommendation", model=str(folder), device="cpu")
        assert recommend(expected["history"], top_k=3) == expected["recommended"]
