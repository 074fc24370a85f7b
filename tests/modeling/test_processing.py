"""The processor: histories of external ids to tensors, item texts and pictures to the encoder's inputs."""

import json
import logging
import re
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
import transformers
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RemoteEntryNotFoundError
from packaging import version
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import AutoProcessor, CLIPImageProcessor, PreTrainedTokenizerFast, ProcessorMixin
from transformers.utils import is_torchvision_available

from mmm4rec_hf import MMM4RecProcessor
from mmm4rec_hf.modeling import fetching_mmm4rec, processing_mmm4rec

# transformers 5.12 to 5.14 do; with 5.20 they do without.
AUTO_NEEDS_TORCHVISION = not is_torchvision_available() and version.parse(transformers.__version__).release < (5, 20)

Catalog = Callable[..., SimpleNamespace]
T = 1_300_000_000


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(WordLevel({"[PAD]": 0, "[UNK]": 1, "toy": 2, "story": 3, "heat": 4}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", model_max_length=6)


@pytest.fixture
def image_processor() -> CLIPImageProcessor:
    return CLIPImageProcessor(size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8})


@pytest.fixture
def processor(tiny_catalog: Catalog) -> MMM4RecProcessor:
    processor = MMM4RecProcessor(max_sequence_length=4)
    processor.set_items(tiny_catalog(["007", "50", "172", "0"]))
    return processor


def test_histories_become_padded_tensors(processor: MMM4RecProcessor) -> None:
    batch = processor(
        histories=[{"items": ["50", 172], "timestamps": [T, T + 30]}, {"items": ["007"], "timestamps": [T]}],
        return_tensors="pt",
    )
    assert batch["input_ids"].tolist() == [[2, 3], [1, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1], [1, 0]]
    assert batch["timestamps"].tolist() == [[T, T + 30], [T, 0]]


def test_left_padding_and_a_fixed_width(tiny_catalog: Catalog) -> None:
    processor = MMM4RecProcessor(max_sequence_length=5, history_padding_side="left")
    processor.set_items(tiny_catalog(["a", "b"]))
    batch = processor(histories={"items": ["b", "a"], "timestamps": [T, T + 1]}, padding="max_length")
    assert batch["input_ids"].tolist() == [[0, 0, 0, 2, 1]]
    assert batch["attention_mask"].tolist() == [[0, 0, 0, 1, 1]]
    assert batch["timestamps"].tolist() == [[0, 0, 0, T, T + 1]]


def in_json(word: str) -> str:
    """As a file or a command's line tells it: equal to the one in the code, and another object."""
    return str(json.loads(json.dumps(word)))


@pytest.mark.parametrize(("side", "rows"), [("left", [0, 0, 2]), ("right", [2, 0, 0])])
def test_a_loaded_processor_pads_on_its_side(
    tiny_catalog: Catalog, tmp_path: Path, side: str, rows: list[int]
) -> None:
    processor = MMM4RecProcessor(max_sequence_length=3, history_padding_side=side)
    processor.set_items(tiny_catalog(["a", "b"]))
    processor.save_pretrained(tmp_path)
    loaded = MMM4RecProcessor.from_pretrained(tmp_path)
    assert loaded(histories={"items": ["b"]}, padding=in_json("max_length"))["input_ids"].tolist() == [rows]


@pytest.mark.parametrize("length", ["20", None, 2.5, True])
def test_a_length_that_is_no_integer_is_refused(length: Any) -> None:
    with pytest.raises(TypeError, match=f"max_sequence_length must be an integer, got {length!r}"):
        MMM4RecProcessor(max_sequence_length=length)
    assert type(MMM4RecProcessor(max_sequence_length=np.int64(3)).max_sequence_length) is int  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"max_sequence_length": "20"}, "max_sequence_length must be an integer of at least 1, got '20'"),
        ({"max_sequence_length": None}, "max_sequence_length must be an integer of at least 1, got None"),
        ({"max_sequence_length": 2.5}, r"max_sequence_length must be an integer of at least 1, got 2\.5"),
        ({"max_sequence_length": True}, "max_sequence_length must be an integer of at least 1, got True"),
        ({"max_sequence_length": 0}, "max_sequence_length must be an integer of at least 1, got 0"),
        ({"absent_parts": 5}, "absent_parts must be a list of image_processor and tokenizer, got 5"),
        (
            {"absent_parts": "tokenizer"},
            "absent_parts must be a list of image_processor and tokenizer, got 'tokenizer'",
        ),
        ({"absent_parts": ["x"]}, r"absent_parts must be a list of image_processor and tokenizer, got \['x'\]"),
        ([], "it holds no object"),
    ],
    ids=str,
)
def test_settings_of_another_kind_are_refused_with_their_file(tmp_path: Path, settings: Any, told: str) -> None:
    MMM4RecProcessor(max_sequence_length=1).save_pretrained(tmp_path)
    assert MMM4RecProcessor.from_pretrained(tmp_path).max_sequence_length == 1
    path = tmp_path / "processor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings if settings else settings))
    message = rf"processor_config\.json of {re.escape(str(tmp_path))} is damaged: {told}; save the processor again"
    with pytest.raises(ValueError, match=message):
        MMM4RecProcessor.from_pretrained(tmp_path)


def test_long_histories_of_a_large_catalogue() -> None:
    ids = [str(n) for n in range(300)]
    processor = MMM4RecProcessor(max_sequence_length=300)
    processor.set_items(SimpleNamespace(item_ids=ids, titles=[None] * 300))
    batch = processor(histories={"items": ids, "timestamps": list(range(T, T + 300))})
    assert batch["input_ids"].tolist() == [list(range(1, 301))]
    with pytest.raises(ValueError, match="item id '299' stands more than once"):
        processor.set_items(SimpleNamespace(item_ids=[*ids, 299], titles=[None] * 301))


def test_events_are_put_in_time_order_and_the_last_ones_count(processor: MMM4RecProcessor) -> None:
    unsorted = {"items": ["50", "172", "0", "007", "50"], "timestamps": [T + 30, T + 10, T + 10, T + 40, T]}
    batch = processor(histories=[unsorted])
    # In time order 50, 172, 0 (of one time: as given), 50, 007; the last four remain.
    assert batch["input_ids"].tolist() == [[3, 4, 2, 1]]
    assert batch["timestamps"].tolist() == [[T + 10, T + 10, T + 30, T + 40]]


def test_what_whole_histories_hold_stands_beside_what_the_model_reads(processor: MMM4RecProcessor) -> None:
    long = {"items": ["50", "172", "99", "0", "007", "50"], "timestamps": [T + 5, T + 4, T + 3, T + 2, T + 1, T]}
    arrays, held = processor.read_histories([long, {"items": ["0"], "timestamps": [T]}])
    assert held == [[2, 3, 4, 1, 2], [4]]
    assert {name: values.tolist() for name, values in arrays.items()} == {
        "input_ids": [[1, 4, 3, 2], [4, 0, 0, 0]],
        "attention_mask": [[1, 1, 1, 1], [1, 0, 0, 0]],
        "timestamps": [[T + 1, T + 2, T + 4, T + 5], [T, 0, 0, 0]],
    }


def test_every_form_of_time_gives_the_same_batch(processor: MMM4RecProcessor) -> None:
    moment = datetime(2013, 12, 22, tzinfo=timezone.utc)
    for value in (1387670400, "2013-12-22T00:00:00Z", moment, np.int64(1387670400)):
        assert processor(histories=[{"items": ["50"], "timestamps": [value]}])["timestamps"].tolist() == [[1387670400]]
    with pytest.warns(UserWarning, match="ms"):
        batch = processor(histories=[{"items": ["50"], "timestamps": [1387670400000]}])
    assert batch["timestamps"].tolist() == [[1387670400]]
    batch = processor(histories=[{"items": ["50"], "timestamps": [1387670400000]}], time_unit="ms")
    assert batch["timestamps"].tolist() == [[1387670400]]


def test_ids_are_kept_to_the_letter(tiny_catalog: Catalog) -> None:
    processor = MMM4RecProcessor()
    ids = ["9007199254740993", "9007199254740992", "0001388703", "1388703", "1.0", "0"]
    processor.set_items(tiny_catalog(ids))
    assert processor.rows([9007199254740993, 9007199254740992, "0001388703", 1388703, "1.0", 0])[0] == [
        1,
        2,
        3,
        4,
        5,
        6,
    ]
    with pytest.raises(TypeError, match="1.0"):
        processor.rows([1.0])
    with pytest.raises(TypeError, match="a single one goes into a list"):
        processor.rows("0")


def test_unknown_items_are_skipped_or_an_error(processor: MMM4RecProcessor) -> None:
    history = {"items": ["50", "99", "172"], "timestamps": [T, T + 1, T + 2]}
    batch = processor(histories=[history])
    assert batch["input_ids"].tolist() == [[2, 3]] and batch["timestamps"].tolist() == [[T, T + 2]]
    with pytest.raises(ValueError, match="'99' is not in the catalogue of 4 items"):
        processor(histories=[history], unknown_items=in_json("error"))


def test_skipped_items_are_warned_of_once(processor: MMM4RecProcessor, caplog: pytest.LogCaptureFixture) -> None:
    logging.Logger.warning_once.cache_clear()  # type: ignore[attr-defined]
    for unknown in ("97", "98", "99"):
        processor.rows(["50", unknown])
    assert sum("does not hold are skipped" in record.getMessage() for record in caplog.records) == 1


def test_an_empty_history_is_an_error_or_the_default_ranking(processor: MMM4RecProcessor) -> None:
    histories = [{"items": ["50"], "timestamps": [T]}, {"items": ["99"], "timestamps": [T]}]
    message = r"history 1 holds no known item \(none of its 1 ids is in the catalogue, the first is '99'\)"
    with pytest.raises(ValueError, match=message):
        processor(histories=histories)
    with pytest.raises(ValueError, match=message):
        processor(histories=histories, empty_histories=in_json("error"))
    with pytest.raises(ValueError, match="none of its 2 ids is in the catalogue, the first is '98'"):
        processor(histories={"items": ["98", "99"]})
    batch = processor(histories=histories, empty_histories="default")
    assert batch["attention_mask"].tolist() == [[1], [0]] and batch["input_ids"].tolist() == [[2], [0]]
    assert processor(histories={"items": [], "timestamps": []}, empty_histories="default")["input_ids"].shape == (1, 1)
    batch = processor(histories=[{"items": []}, {"items": ["50"]}], empty_histories="default")
    assert batch["attention_mask"].tolist() == [[0], [1]] and batch["input_ids"].tolist() == [[0], [2]]


@pytest.mark.parametrize(
    ("histories", "options", "message"),
    [
        ([], {}, "histories is empty"),
        ([{"timestamps": [T]}], {}, 'no "items"'),
        ([{"items": ["50"], "timestamps": [T, T]}], {}, "1 items and 2 timestamps"),
        ([{"items": ["50"], "timestamps": [T]}, {"items": ["50"]}], {}, "history 1 and history 0"),
        ([{"items": ["50"]}, {"items": ["50"], "timestamps": [T]}], {}, "history 1 and history 0"),
        ([{"items": ["50"], "timestamps": ["soon"]}], {}, "soon"),
        # Letters of a string and half-read iterators would pass for items.
        ([{"items": "50", "timestamps": [T, T]}], {}, "items of history 0 must be a list, got '50'"),
        ([{"items": iter(["50"])}], {}, "items of history 0 must be a list"),
        ([{"items": {"50"}}], {}, "items of history 0 must be a list"),
        ([{"items": None}], {}, "items of history 0 must be a list, got None"),
        ([{"items": ["50"], "timestamps": "5"}], {}, "timestamps of history 0 must be a list, got '5'"),
        (
            [{"user_id": 7, "items": [], "timestamps": []}],
            {},
            r"history 0 \(user 7\) holds no known item \(no events\)",
        ),
        ([{"items": [""]}], {}, "an id is the empty string"),
        ([{"items": [None]}], {}, "an id must be a string or an integer, got None"),
        ([[], [1]], {}, r"history 0 is \[\]; expected a dictionary"),
        ("50", {}, "histories must be a list of dictionaries, got '50'"),
        (50, {}, "histories must be a list of dictionaries, got 50"),
        ([{"items": ["50"], "timestamps": [T]}], {"unknown_items": "drop"}, "'drop'"),
        ([{"items": ["50"], "timestamps": [T]}], {"empty_histories": "skip"}, "'skip'"),
    ],
    ids=lambda value: re.sub(" at 0x[0-9a-f]*", "", str(value)),  # addresses differ from process to process
)
def test_broken_histories_are_refused_by_name(
    processor: MMM4RecProcessor, histories: Any, options: dict[str, str], message: str
) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        processor(histories=histories, **options)


def test_texts_are_cut_to_what_the_encoder_reads_and_padded_alike(tokenizer: Any) -> None:
    batch = MMM4RecProcessor(tokenizer=tokenizer)(text=["toy story " * 10, "heat"])
    assert batch["input_ids"] == [[2, 3, 2, 3, 2, 3], [4, 0, 0, 0, 0, 0]]


def test_texts_and_pictures_go_to_their_own_processors(tokenizer: Any, image_processor: Any) -> None:
    processor = MMM4RecProcessor(image_processor, tokenizer)
    batch = processor(text=["toy story", "heat"], images=[Image.new("RGB", (9, 12), "red")] * 2, return_tensors="pt")
    assert batch["input_ids"].tolist() == [[2, 3], [4, 0]]
    assert batch["pixel_values"].shape == (2, 3, 8, 8)
    assert processor(text=["heat"], padding="max_length")["input_ids"] == [[4, 0, 0, 0, 0, 0]]
    assert {"input_ids", "attention_mask", "pixel_values"} <= set(processor.model_input_names)
    with pytest.raises(ValueError, match="not both"):
        processor(text=["toy"], histories=[{"items": ["a"]}])


def test_a_processor_without_items_leaves_none_of_one_that_had_some(
    tokenizer: Any, tiny_catalog: Catalog, tmp_path: Path
) -> None:
    (tmp_path / "items.jsonl").write_text('{"item_id": "a catalogue\'s"}\n')
    MMM4RecProcessor(tokenizer=tokenizer).save_pretrained(tmp_path)
    assert "a catalogue's" in (tmp_path / "items.jsonl").read_text(), "no processor wrote it"
    processor = MMM4RecProcessor(tokenizer=tokenizer)
    processor.set_items(tiny_catalog(["a", "b"]))
    processor.save_pretrained(tmp_path / "of-items")
    MMM4RecProcessor(tokenizer=tokenizer).save_pretrained(tmp_path / "of-items")
    assert MMM4RecProcessor.from_pretrained(tmp_path / "of-items").item_ids == []


@pytest.mark.parametrize(
    "parts", [(), ("tokenizer",), ("image_processor",), ("tokenizer", "image_processor")], ids=str
)
def test_a_saved_processor_loads_with_its_items_whatever_parts_it_has(
    tokenizer: Any, image_processor: Any, tiny_catalog: Catalog, tmp_path: Path, parts: tuple[str, ...]
) -> None:
    if parts == ("image_processor",) and AUTO_NEEDS_TORCHVISION:
        pytest.skip("this transformers loads an image processor by itself with torchvision only")
    available = {"tokenizer": tokenizer, "image_processor": image_processor}
    processor = MMM4RecProcessor(
        **{name: available[name] for name in parts},
        max_sequence_length=7,
        history_padding_side="left",
    )
    catalog = tiny_catalog(["007", "7", 'é"\n'])
    catalog.titles = ["Heat", None, 'A "quoted" title']
    processor.set_items(catalog)
    processor.save_pretrained(tmp_path)
    for loaded in (MMM4RecProcessor.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)):
        assert type(loaded) is MMM4RecProcessor
        assert loaded.item_ids == ["007", "7", 'é"\n']
        assert [loaded.title(row) for row in (1, 2, 3)] == catalog.titles
        assert (loaded.max_sequence_length, loaded.history_padding_side) == (7, "left")
        assert (loaded.tokenizer is None) == ("tokenizer" not in parts)
        assert (loaded.image_processor is None) == ("image_processor" not in parts)
        if "tokenizer" in parts:
            assert loaded(text=["toy", "toy story"])["input_ids"] == [[2, 0], [2, 3]]
        else:
            with pytest.raises(ValueError, match="no tokenizer"):
                loaded(text=["toy"])
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("offline", [{}, {"local_files_only": True}])
def test_items_are_taken_for_none_only_where_that_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, offline: dict[str, bool]
) -> None:
    def answers(error: OSError, **where: str) -> list[str]:
        def download(*args: Any, **options: Any) -> None:
            raise error

        monkeypatch.setattr(fetching_mmm4rec, "hf_hub_download", download)
        return MMM4RecProcessor.from_pretrained("author/films", cache_dir=tmp_path, **offline, **where).item_ids

    def response(status: int) -> httpx.Response:
        return httpx.Response(status, request=httpx.Request("GET", "https://hub.example/author/films"))

    monkeypatch.setattr(ProcessorMixin, "from_pretrained", classmethod(lambda cls, *args, **options: cls()))
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    fetching_mmm4rec.logger.warning_once.cache_clear()
    assert answers(RemoteEntryNotFoundError("none", response=response(404))) == []
    with pytest.raises(OSError, match="status 503"):
        answers(HfHubHTTPError("status 503", response=response(503)))
    # What huggingface_hub makes of a status 503 of its first question, and of no answer, asked for or not.
    unknown = LocalEntryNotFoundError("an error happened while trying to locate the file")
    if offline:
        assert answers(unknown) == []
        assert "author/films was loaded before without items.jsonl, and the Hub is not asked" in caplog.text
        caplog.clear()
    else:
        with pytest.raises(OSError, match=r"does not say whether author/films has items.jsonl.*HF_HUB_OFFLINE=1"):
            answers(unknown)
    # What an earlier load has left where the Hub knew of none.
    cached = tmp_path / "models--author--films"
    none = ".no_exist/c0ffee"
    for place, content in {"refs/main": "c0ffee", f"{none}/items.jsonl": "", f"{none}/old/items.jsonl": ""}.items():
        (cached / place).parent.mkdir(parents=True, exist_ok=True)
        (cached / place).write_text(content)
    assert answers(unknown) == answers(unknown, subfolder="old") == []
    assert not caplog.text


def test_items_lie_beside_a_processor_of_a_subfolder(tmp_path: Path, processor: MMM4RecProcessor) -> None:
    processor.save_pretrained(tmp_path / "new")
    MMM4RecProcessor().save_pretrained(tmp_path / "none")
    assert MMM4RecProcessor.from_pretrained(tmp_path, subfolder="new").item_ids == processor.item_ids
    assert MMM4RecProcessor.from_pretrained(tmp_path, subfolder="none").item_ids == []


@pytest.mark.parametrize("line", ["{", '{"item_id": "a"}', "5", "[" * 100_000])
def test_damaged_items_are_told_by_their_file(processor: MMM4RecProcessor, tmp_path: Path, line: str) -> None:
    processor.save_pretrained(tmp_path)
    (tmp_path / "items.jsonl").write_text(line)
    with pytest.raises(ValueError, match=rf"items.jsonl of {re.escape(str(tmp_path))} is damaged: .*; save the proc"):
        MMM4RecProcessor.from_pretrained(tmp_path)


@pytest.mark.parametrize(("told", "message"), [({}, "Upload processor"), ({"commit_message": "New"}, "New")])
def test_a_processor_is_pushed_with_what_was_told(
    processor: MMM4RecProcessor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: dict[str, str], message: str
) -> None:
    pushed: list[Any] = []
    monkeypatch.setattr(processing_mmm4rec, "push_folder", lambda *place, **upload: pushed.append((place, upload)))
    processor.save_pretrained(tmp_path, push_to_hub=True, repo_id="org/films", **told)
    assert pushed == [((tmp_path, "org/films"), {"commit_message": message})]


@pytest.mark.parametrize("length", [0, -1])
def test_a_processor_keeps_at_least_one_event(length: int) -> None:
    with pytest.raises(ValueError, match=f"max_sequence_length must be at least 1, got {length}"):
        MMM4RecProcessor(max_sequence_length=length)


@pytest.mark.parametrize("times", [[1], [1, 2, 3]])
def test_more_or_fewer_times_than_items_are_refused(
    tiny_catalog: Callable[..., SimpleNamespace], times: list[int]
) -> None:
    processor = MMM4RecProcessor()
    processor.set_items(tiny_catalog(["a", "b"]))
    with pytest.raises(ValueError, match=f"has 2 items and {len(times)} timestamps; give one each"):
        processor(histories=[{"items": ["a", "b"], "timestamps": times}])


def test_all_parts_are_saved_as_transformers_saves_them(tokenizer: Any, image_processor: Any, tmp_path: Path) -> None:
    processor = MMM4RecProcessor(image_processor, tokenizer)
    processor.save_pretrained(tmp_path / "own")
    ProcessorMixin.save_pretrained(processor, tmp_path / "theirs")
    own, theirs = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("own", "theirs")
    )
    assert own == theirs


def test_parts_that_are_absent_are_named_and_no_more() -> None:
    options = MMM4RecProcessor().to_dict()
    assert options["absent_parts"] == ["image_processor", "tokenizer"] and options["max_sequence_length"] == 20
    assert not {"image_processor", "tokenizer"} & options.keys()


def test_items_are_saved_as_they_are_written_or_not_at_all(tmp_path: Path) -> None:
    processor = MMM4RecProcessor()
    for _ in range(2):  # without items there is nothing to take away
        processor.save_pretrained(tmp_path)
    processor.set_items(SimpleNamespace(item_ids=["a", "b"], titles=["Amélie", None]))
    processor.save_pretrained(tmp_path)
    lines = '{"item_id": "a", "title": "Amélie"}\n{"item_id": "b", "title": null}\n'.encode()
    assert (tmp_path / "items.jsonl").read_bytes() == lines
    processor.set_items(SimpleNamespace(item_ids=["a", "b"], titles=["Amélie"]))
    with pytest.raises(ValueError, match="shorter"):
        processor.save_pretrained(tmp_path)
    assert (tmp_path / "items.jsonl").read_bytes() == lines
