"""Published checkpoints by the command line: the published numbers come out, and the same tensors go back."""

import copy
import json
import os
import re
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import pipeline

from mmm4rec_hf import ItemCatalog, MMM4RecForSequentialRecommendation, MMM4RecModel, MMM4RecProcessor
from mmm4rec_hf.cli import main
from mmm4rec_hf.conversion import config_from_published, config_to_published, convert_published, load_published
from mmm4rec_hf.conversion.checkpoint import read_checkpoint
from mmm4rec_hf.data import load_interactions, prepare_sequences
from mmm4rec_hf.data.published import write_published
from mmm4rec_hf.items import ItemEncoder

from .conftest import CASES, GOLDEN, PublishedFiles

Make = Callable[[str], PublishedFiles]


def convert(files: PublishedFiles, output: Path, *options: str, data: bool = True) -> int:
    given = ["--data", str(files.data)] if data else []
    arguments = [str(files.checkpoint), "--config", str(files.config), "--output", str(output), *given, *options]
    return main(["convert", "published", *arguments])


@pytest.mark.parametrize("case", CASES)
def test_every_golden_checkpoint_gives_the_published_outputs_and_ranks(
    published_files: Make, tmp_path: Path, case: str
) -> None:
    files = published_files(case)
    assert convert(files, tmp_path / "out") == 0
    model = MMM4RecForSequentialRecommendation.from_pretrained(tmp_path / "out")
    io = files.io
    with torch.no_grad():
        output = model(input_ids=io["items"], timestamps=io["timestamps"], labels=io["labels"])
    torch.testing.assert_close(output.user_embeds, io["user_vectors"], atol=1e-5, rtol=0)
    torch.testing.assert_close(output.logits, io["scores"], atol=1e-5, rtol=0)
    torch.testing.assert_close(output.loss, io["loss"].reshape(()), atol=1e-5, rtol=0)
    larger = output.logits > output.logits.gather(1, io["labels"].unsqueeze(1))
    assert larger.sum(1).tolist() == io["rank"].tolist()


@pytest.mark.parametrize("case", CASES)
def test_back_converted_every_tensor_is_the_published_one(published_files: Make, tmp_path: Path, case: str) -> None:
    files = published_files(case)
    assert convert(files, tmp_path / "out") == 0
    back = tmp_path / "back" / "model.ckpt"
    assert main(["convert", "to-published", str(tmp_path / "out"), str(back), "--data", str(tmp_path / "data")]) == 0
    before, after = files.weights(), torch.load(back, weights_only=True)["model"]
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert value.dtype == after[name].dtype and torch.equal(value, after[name]), name
    values = yaml.safe_load(files.config.read_text())
    for name, value in yaml.safe_load(back.with_suffix(".yaml").read_text()).items():
        assert value == values[name], name
    for name in ("text_feat.pth", "image_feat.pth"):
        features = [torch.load(folder / name, weights_only=True) for folder in (files.data, tmp_path / "data")]
        assert torch.equal(*features)
    ids = [(folder / "item2id.jsonl").read_text().splitlines() for folder in (files.data, tmp_path / "data")]
    assert sorted(ids[0]) == ids[1]


def test_a_converted_folder_recommends_by_external_ids_and_never_the_padding_item(
    published_files: Make, tmp_path: Path
) -> None:
    files = published_files("base_1layer")
    assert convert(files, tmp_path / "out") == 0
    ids = [f"B{index:09d}" for index in range(1, 21)]
    catalog = ItemCatalog.from_pretrained(tmp_path / "out" / "catalog")
    assert catalog.item_ids == MMM4RecProcessor.from_pretrained(tmp_path / "out").item_ids == ids
    row = int(files.io["lengths"].argmin())
    length = int(files.io["lengths"][row])
    history = {
        "items": [ids[item - 1] for item in files.io["items"][row, :length]],
        "timestamps": files.io["timestamps"][row, :length].tolist(),
    }
    recommend = pipeline("sequential-recommendation", model=str(tmp_path / "out"))
    found = recommend(history, top_k=20, exclude_history=False)
    scores = dict(zip(ids, files.io["scores"][row, 1:].tolist(), strict=True))
    assert len(found) == 20
    for item in found:
        assert item["score"] == pytest.approx(scores[item["item_id"]], abs=1e-5)


def test_without_the_data_folder_the_backbone_alone_is_converted(
    published_files: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = published_files("fusion_instance_odd_length")
    assert convert(files, tmp_path / "out", data=False) == 0
    assert "items.fusion_factor, items.image_bias, items.text_bias" in caplog.text
    io, model = files.io, MMM4RecModel.from_pretrained(tmp_path / "out")
    features = {
        f"{name}_features": torch.nn.functional.embedding(
            io["items"], torch.cat([torch.zeros_like(io[f"{name}_features"][:1]), io[f"{name}_features"]])
        )
        for name in ("text", "image")
    }
    assert model.config.num_items is None
    catalog = ItemCatalog(["x", "y"], text_features=io["text_features"][:2], image_features=io["image_features"][:2])
    loaded = MMM4RecForSequentialRecommendation.from_pretrained(tmp_path / "out", catalog=catalog)
    assert loaded.item_ids == ["x", "y"] and loaded.items.text_bias.shape == (3, 16)
    with torch.no_grad():
        mask = (io["items"] != 0).long()
        assert torch.isfinite(model(**features, timestamps=io["timestamps"], attention_mask=mask).user_embeds).all()


def test_a_checkpoint_without_the_item_biases_of_its_configuration_is_converted_without_and_says_so(
    published_files: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = published_files("without_id")
    files.configure(is_modality_bias=True)
    assert convert(files, tmp_path / "out") == 0
    assert "no item biases" in caplog.text
    model = MMM4RecForSequentialRecommendation.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        scores = model(input_ids=files.io["items"], timestamps=files.io["timestamps"]).logits
    torch.testing.assert_close(scores, files.io["scores"], atol=1e-5, rtol=0)


def test_the_new_mode_says_what_changes_and_keeps_the_weights(
    published_files: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    files = published_files("base_1layer")
    assert convert(files, tmp_path / "out", "--mode", "new", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert "padding takes no part" in summary["notes"][0] and "padding takes no part" in caplog.text
    assert (summary["layers"], summary["items"], summary["epoch"]) == (1, 20, 7)
    assert summary["best_valid_score"] == 0.125
    model = MMM4RecForSequentialRecommendation.from_pretrained(tmp_path / "out")
    assert (model.config.time_mode, model.config.score_padding_item) == ("masked", False)
    # A longer padding is the same history in the new mode, and another one in the published.
    io = files.io
    row = int(io["lengths"].argmin())
    length = int(io["lengths"][row])
    whole = {"input_ids": io["items"][row : row + 1], "timestamps": io["timestamps"][row : row + 1]}
    short = {name: value[:, :length] for name, value in whole.items()}
    with torch.no_grad():
        torch.testing.assert_close(model(**whole).logits, model(**short).logits, atol=1e-5, rtol=0)
    told = "The published code has no {}: its scores of this model will be others."
    path = tmp_path / "out" / "config.json"
    for mode in ("masked", "log"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"time_mode": mode}))
        caplog.clear()
        assert main(["convert", "to-published", str(tmp_path / "out"), str(tmp_path / "back.ckpt")]) == 0
        assert told.format(f"time_mode={mode!r}, score_padding_item=False, mask_same_target=True") in caplog.messages


def test_a_folder_that_is_not_there_is_not_looked_for_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", "to-published", str(tmp_path / "absent"), str(tmp_path / "model.ckpt")]) == 1
    assert f"no such folder: {tmp_path / 'absent'}" in capsys.readouterr().err


def test_the_card_tells_where_the_weights_come_from_and_no_metric_of_ours(
    published_files: Make, tmp_path: Path
) -> None:
    files = published_files("full_ckpt_with_optimizer")
    assert convert(files, tmp_path / "out", "--mode", "new") == 0
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert "published MMM4Rec code" in card.text and "padding takes no part in the time path" in card.text
    held = torch.load(files.checkpoint, weights_only=True)
    assert f"The weights are those of epoch {held['epoch']}." in card.text
    assert f"noted {held['best_val_score']:.4f}" in card.text and card.data.eval_results is None
    assert str(tmp_path) not in str(card)
    assert convert(files, tmp_path / "base", data=False) == 0
    assert "a base model" in (tmp_path / "base" / "README.md").read_text()


def test_the_encoder_of_the_features_is_recorded_and_its_processor_saved(
    published_files: Make, tmp_path: Path
) -> None:
    files = published_files("base_1layer")

    def width_twelve(texts: list[str]) -> Any:
        return torch.zeros(len(texts), 12)

    encoder = ItemEncoder(text_encoder=width_twelve)
    convert_published(files.checkpoint, files.config, tmp_path / "out", files.data, encoder=encoder)
    model = MMM4RecForSequentialRecommendation.from_pretrained(tmp_path / "out")
    assert "width_twelve" in model.config.feature_encoder["text"]["encoder"]
    assert model.items.text_bias.abs().max() > 0
    info = ItemCatalog.from_pretrained(tmp_path / "out" / "catalog").feature_info
    assert "width_twelve" in info["text"]["encoder"]
    convert_published(files.checkpoint, files.config, tmp_path / "base", encoder=encoder)
    base = MMM4RecModel.from_pretrained(tmp_path / "base")
    assert "width_twelve" in base.config.feature_encoder["text"]["encoder"]


def refused(files: PublishedFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str], **options: Any) -> str:
    """The one line with which a conversion ends; nothing may be written."""
    assert convert(files, tmp_path / "out", **options) == 1
    error = capsys.readouterr().err
    line = error.splitlines()[-1]
    assert line.startswith("mmm4rec: error: ") and not (tmp_path / "out").exists()
    assert sum(part.startswith("mmm4rec: error") for part in error.splitlines()) == 1
    return line


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_checkpoint_is_refused(published_files: Make, tmp_path: Path, capsys: Any, share: float) -> None:
    files = published_files("base_1layer")
    content = files.checkpoint.read_bytes()
    files.checkpoint.write_bytes(content[: int(len(content) * share)])
    assert "best_epoch_model.ckpt" in refused(files, tmp_path, capsys)


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("place", ["beside", "inside", "alone", "features"])
@pytest.mark.parametrize("legacy", [False, True])
def test_a_malicious_checkpoint_is_refused_and_runs_nothing(
    published_files: Make, tmp_path: Path, capsys: Any, place: str, legacy: bool
) -> None:
    files = published_files("base_1layer")
    bad, weights = Malicious(tmp_path / "pwned"), files.weights()
    content, path = {
        "beside": ({"model": weights, "optimizer": bad}, files.checkpoint),
        "inside": ({"model": {**weights, "fusion_factor": bad}}, files.checkpoint),
        "alone": (bad, files.checkpoint),
        "features": (bad, files.data / "text_feat.pth"),
    }[place]
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    line = refused(files, tmp_path, capsys)
    assert "could run code" in line and path.name in line
    assert not (tmp_path / "pwned").exists()


TENSORS: dict[str, Callable[[], torch.Tensor]] = {
    "int64": lambda: torch.ones(3, dtype=torch.int64),
    "complex64": lambda: torch.ones(3, dtype=torch.complex64),
    "float8_e4m3fn": lambda: torch.ones(3).to(torch.float8_e4m3fn),
    "sparse_coo": lambda: torch.eye(3).to_sparse(),
    "on meta": lambda: torch.ones(3, device="meta"),
    "claims 100,000,000,000 numbers": lambda: torch.ones(1).expand(10**11),
}


@pytest.mark.filterwarnings("ignore:TypedStorage")
@pytest.mark.parametrize("place", ["weights", "features"])
@pytest.mark.parametrize("kind", TENSORS)
def test_tensors_of_another_kind_are_refused(
    published_files: Make, tmp_path: Path, capsys: Any, kind: str, place: str
) -> None:
    files, tensor = published_files("base_1layer"), TENSORS[kind]()
    if place == "weights":
        files.rewrite(**{"text_adapter.0.bias": tensor})
    else:
        torch.save(tensor.reshape(-1, 1) if tensor.ndim == 1 else tensor, files.data / "image_feat.pth")
    line = refused(files, tmp_path, capsys)
    assert kind in line and ("text_adapter.0.bias" if place == "weights" else "image_feat.pth") in line


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_weights_of_other_precisions_are_read_as_float32(published_files: Make, dtype: torch.dtype) -> None:
    files = published_files("base_1layer")
    files.rewrite(**{name: value.to(dtype) for name, value in files.weights().items()})
    converted = load_published(files.checkpoint, files.config, files.data)
    assert {value.dtype for value in converted.model.parameters()} == {torch.float32}
    expected = files.weights()["text_adapter.0.bias"].float()
    torch.testing.assert_close(converted.model.state_dict()["model.text_projection.bias"], expected)


@pytest.mark.parametrize("trick", ["compressed", "named twice"])
def test_an_archive_that_holds_more_than_it_has_is_refused_unread(
    published_files: Make, tmp_path: Path, capsys: Any, trick: str
) -> None:
    files = published_files("base_1layer")
    torch.save({"model": {"a": torch.zeros(10_000_000)}}, files.checkpoint)
    with zipfile.ZipFile(files.checkpoint) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(files.checkpoint, "w", zipfile.ZIP_DEFLATED if trick == "compressed" else 0) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
        if trick == "named twice":
            # Entries may lie on top of each other: many names, one place.
            largest = max(archive.infolist(), key=lambda entry: entry.file_size)
            archive.filelist += [copy.copy(largest) for _ in range(50)]
    assert re.search("would take [0-9,]+ bytes unpacked", refused(files, tmp_path, capsys))


def test_a_malicious_configuration_is_refused_and_runs_nothing(
    published_files: Make, tmp_path: Path, capsys: Any
) -> None:
    files = published_files("base_1layer")
    files.config.write_text(f"max_len: !!python/object/apply:os.system ['touch {tmp_path / 'pwned'}']\n")
    assert "no YAML of plain values" in refused(files, tmp_path, capsys)
    assert not (tmp_path / "pwned").exists()


SHARED = "decoder_ssd_layers.0.ssd.in_proj.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": {"text_adapter.0.bias": None, SHARED: None}}, f"lacks the weights {SHARED}, text_adapter.0.bias"),
        (
            {"weights": {"text_adaptor.bias": torch.zeros(1)}},
            "no MMM4Rec .* the weights text_adaptor.bias",
        ),
        ({"weights": {"decoder_ssd_layers.0.ssd.x": torch.zeros(1)}}, "no use for the weights decoder_ssd_layers.0"),
        ({"weights": {"vision_adapter.0.weight": None}}, "lacks the weights vision_adapter.0.weight"),
        ({"weights": {SHARED: torch.zeros(49, 16)}}, rf"{SHARED} \(49, 16\) instead of \(\d+, 16\)"),
        ({"weights": {"text_adapter.0.bias": torch.full((16,), torch.nan)}}, "text_adapter.0.bias hold NaN"),
        ({"weights": {"text_adapter.0.bias": 3}}, "text_adapter.0.bias under 'model' are no named tensors"),
        ({"config": {"num_layers": 2}}, "has 1 layers, the configuration says num_layers: 2"),
        ({"config": {"max_len": 20}}, "reads 10 events.*max_len: 20"),
        ({"config": {"item_num": 30}}, "20 by the data folder.*30 by the configuration's item_num"),
        ({"config": {"hidden_size": 32}}, "shapes are not those.* instead of "),
        ({"config": {"d_state": 8}}, "shapes are not those.* instead of "),
        ({"config": {"is_modality_bias": False}}, "no use for the weights text_item_embedding_bias"),
        ({"config": {"is_ffn": False}}, "no use for the weights .*ffn.*is it of another run"),
        ({"config": {"is_time": "yes"}}, "is_time .* must be true or false, got 'yes'"),
        ({"config": {"max_len": "ten"}}, "max_len .* must be a number, got 'ten'"),
        ({"config": {"max_len": 10.5}}, "max_len .* must be an integer, got 10.5"),
        ({"config": {"head_dim": 0}}, "head_dim.* at least 1, got 0"),
        ({"config": {"item_mm_fusion": "mean"}}, "configuration cannot work: .*fusion.*mean"),
        ({"config": {"n_groups": 3}}, r"configuration cannot work: .*n_groups \(3\) must divide"),
        ({"config": {"d_conv": None, "temperature": None}}, "lacks d_conv, temperature"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_in_one_line(
    published_files: Make, tmp_path: Path, capsys: Any, change: dict[str, Any], message: str
) -> None:
    files = published_files("base_1layer")
    files.rewrite(**change.get("weights", {}))
    files.configure(**change.get("config", {}))
    line = refused(files, tmp_path, capsys)
    assert re.search(message, line), line


def test_branches_that_do_not_share_their_layer_are_refused(
    published_files: Make, tmp_path: Path, capsys: Any
) -> None:
    files = published_files("base_1layer")
    changed = files.weights()[SHARED].clone()
    changed[0, 0] += 1e-6
    files.rewrite(**{SHARED: changed})
    line = refused(files, tmp_path, capsys)
    assert "do not share" in line and SHARED in line


def test_a_data_folder_of_other_items_or_another_encoder_is_refused(
    published_files: Make, tmp_path: Path, capsys: Any
) -> None:
    files = published_files("without_id")
    text = files.data / "text_feat.pth"
    torch.save(torch.zeros(19, 12), text)
    assert "features of 19 items" in refused(files, tmp_path, capsys)
    torch.save(torch.zeros(20, 13), text)
    assert "features of size 12" in refused(files, tmp_path, capsys)
    torch.save(torch.full((20, 12), torch.inf), text)
    assert "'B000000001'" in refused(files, tmp_path, capsys)
    torch.save({"features": torch.zeros(20, 12)}, text)
    assert "one tensor, a row an item, got dict" in refused(files, tmp_path, capsys)
    text.unlink()
    assert "does not exist" in refused(files, tmp_path, capsys)


def test_a_file_that_is_something_else_is_refused(published_files: Make, tmp_path: Path, capsys: Any) -> None:
    files = published_files("base_1layer")
    torch.save(files.weights(), files.checkpoint)
    assert "no dictionary of weights under 'model'" in refused(files, tmp_path, capsys)
    torch.save(torch.zeros(3), files.checkpoint)
    assert "no dictionary" in refused(files, tmp_path, capsys)
    files.checkpoint.write_text("weights")
    assert "best_epoch_model.ckpt" in refused(files, tmp_path, capsys)
    files.checkpoint.unlink()
    assert "does not exist" in refused(files, tmp_path, capsys)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_items_in_the_order_of_the_model_do_not_join_sequences_in_another(
    published_files: Make, tmp_path: Path, capsys: Any
) -> None:
    files = published_files("base_1layer")
    assert convert(files, tmp_path / "out") == 0
    item_ids = MMM4RecForSequentialRecommendation.from_pretrained(tmp_path / "out").item_ids
    data = tmp_path / "data"
    data.mkdir()
    (data / "train_seq.jsonl").write_text("[0, [[1, 10], [2, 20], [3, 30]]]\n")
    back = tmp_path / "model.ckpt"
    back.write_bytes(b"an earlier checkpoint")
    for ids in (item_ids[::-1], [*item_ids, "one more"], item_ids[:-1], None):
        if ids is not None:
            lines = [json.dumps([item, index]) + "\n" for index, item in enumerate(ids, start=1)]
            (data / "item2id.jsonl").write_text("".join(lines))
        else:
            (data / "item2id.jsonl").unlink()
        before = contents(data)
        capsys.readouterr()
        assert main(["convert", "to-published", str(tmp_path / "out"), str(back), "--data", str(data)]) == 1
        said = capsys.readouterr().err
        assert (
            "train_seq.jsonl are not those of the model's items" in said and "sequences.align(model.item_ids)" in said
        )
        assert contents(data) == before and back.read_bytes() == b"an earlier checkpoint"
        assert not back.with_suffix(".yaml").exists()


def test_sequences_in_the_order_of_the_model_and_its_items_share_a_folder(
    published_files: Make, tmp_path: Path
) -> None:
    files = published_files("base_1layer")
    assert convert(files, tmp_path / "out") == 0
    item_ids = MMM4RecForSequentialRecommendation.from_pretrained(tmp_path / "out").item_ids
    # Prepared in an order of its own: the last three items of the model come first.
    rows = [("u", item_ids[-1], 10), ("u", item_ids[-2], 20), ("u", item_ids[-3], 30), ("u", item_ids[-1], 40)]
    log = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    sequences = prepare_sequences(load_interactions(log), k_core=1)
    assert sequences.item_ids != item_ids
    write_published(sequences.align(item_ids), tmp_path / "data")
    command = ["convert", "to-published", str(tmp_path / "out"), str(tmp_path / "model.ckpt")]
    assert main([*command, "--data", str(tmp_path / "data")]) == 0
    found = load_interactions(tmp_path / "data").frame.sort("order").select("item_id", "timestamp").collect("polars")
    assert found.rows() == [row[1:] for row in rows]
    for name in ("text_feat.pth", "image_feat.pth"):
        features = [torch.load(folder / name, weights_only=True) for folder in (files.data, tmp_path / "data")]
        assert torch.equal(*features)


def test_an_output_that_holds_something_is_left_alone(published_files: Make, tmp_path: Path, capsys: Any) -> None:
    files = published_files("base_1layer")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    assert convert(files, tmp_path / "out") == 1
    assert "not empty" in capsys.readouterr().err
    assert (tmp_path / "out" / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("option", [{"learned_missing": True}, {"cross_ssd_activation": "hardswish"}], ids=str)
def test_what_the_published_code_cannot_compute_is_not_converted_back(option: dict[str, Any]) -> None:
    from mmm4rec_hf import MMM4RecConfig

    with pytest.raises(ValueError, match="published code"):
        config_to_published(MMM4RecConfig(**option))


def test_the_configuration_goes_both_ways() -> None:
    published = {
        "hidden_size": 32, "inner_size": 48, "num_layers": 3, "max_len": 11, "expand": 4, "d_state": 8, "n_groups": 2,
        "head_dim": 16, "d_conv": 3, "is_time": False, "p2p_residual": True, "is_ffn": False, "norm_eps": 1e-12,
        "item_mm_fusion": "dynamic_shared", "is_modality_bias": True, "temperature": 0.5, "item_num": 9,
        "dropout_prob": 0.1, "embedding_drop_prob": 0.2, "time_dropout_prob": 0.3,
    }  # fmt: skip
    config = config_from_published(published)
    assert config_to_published(config) == published
    # The published files write the epsilon as YAML reads a string.
    assert config_from_published(published | {"norm_eps": "1e-12"}).to_dict() == config.to_dict()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_damage_is_read_or_refused_in_one_line(data: st.DataObject) -> None:
    content = bytearray((GOLDEN / "base_1layer" / "checkpoint.ckpt").read_bytes())
    for _ in range(data.draw(st.integers(1, 20))):
        content[data.draw(st.integers(0, len(content) - 1) | st.integers(0, 3000))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.ckpt"
        path.write_bytes(content[: data.draw(st.none() | st.integers(0, len(content)))])
        try:
            assert read_checkpoint(path).weights
        except ValueError as error:
            assert str(path) in str(error) and "\n" not in str(error)
