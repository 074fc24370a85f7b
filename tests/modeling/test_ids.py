"""External ids: kept to the letter, or refused."""

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from mmm4rec_hf.modeling.ids_mmm4rec import canonical_id, load_item_ids, save_item_ids


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (50, "50"), ("50", "50"), ("007", "007"), (" a ", " a "), (np.int64(-3), "-3"), (0, "0"),
        (2**63 + 1, "9223372036854775809"), ("é", "é"), ("e\u0301", "e\u0301"),
        # Beside the halves of pairs, and a whole pair.
        ("\ud7ff", "\ud7ff"), ("\ue000", "\ue000"), ("\U0001f3ac", "\U0001f3ac"),
    ],
)  # fmt: skip
def test_an_id_is_kept_to_the_letter(value: Any, expected: str) -> None:
    assert canonical_id(value) == expected and type(canonical_id(value)) is str


@pytest.mark.parametrize("half", ["\ud800", "\udbff", "\udc00", "\udfff"])
def test_half_of_a_pair_is_refused(half: str) -> None:
    with pytest.raises(ValueError, match="half of a UTF-16 pair"):
        canonical_id(f"b{half}")


def test_an_integer_is_refused_from_where_python_does_not_write_it() -> None:
    assert len(canonical_id(2**14_000 - 1)) == 4215  # 14,000 x log10(2) = 4214.4
    with pytest.raises(ValueError, match="integer of 14,001 bits"):
        canonical_id(2**14_000)
    with pytest.raises(ValueError, match="integer of 14,001 bits"):
        canonical_id(-(2**14_000))


@pytest.mark.parametrize("value", [True, None, 1.0, b"a"])
def test_what_is_neither_text_nor_an_integer_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="must be a string or an integer"):
        canonical_id(value)


def test_ids_that_a_repository_has_not_or_the_hub_does_not_give_are_missed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("transformers.utils.cached_file", lambda *_, **__: None)
    assert load_item_ids(tmp_path, 6, {}) is None and not caplog.records
    assert load_item_ids("author/films", 6, {}) is None
    told = (
        "author/films has no item_ids.json, or the Hub cannot be reached: the ids of the model's 6 items are not known"
    )
    assert caplog.records[0].getMessage().startswith(told)


@pytest.mark.parametrize(
    "error",
    [
        LocalEntryNotFoundError("an error happened while trying to locate the file"),
        HfHubHTTPError(
            "status 503", response=httpx.Response(503, request=httpx.Request("GET", "https://hub.example"))
        ),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_hub_that_does_not_answer_is_told_of(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def download(*args: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr("transformers.utils.hub.hf_hub_download", download)
    assert load_item_ids("author/films", 6, {"cache_dir": tmp_path}) is None
    assert [record.getMessage()[:60] for record in caplog.records] == [
        "author/films has no item_ids.json, or the Hub cannot be reac"
    ]


def test_the_empty_string_is_refused() -> None:
    with pytest.raises(ValueError, match="empty string"):
        canonical_id("")


def test_ids_are_written_as_they_are_and_read_again(tmp_path: Path) -> None:
    save_item_ids(tmp_path, ("é", "007"))
    assert (tmp_path / "item_ids.json").read_bytes() == '["é", "007"]'.encode()
    assert load_item_ids(tmp_path, 2, {}) == ["é", "007"]
    assert [path.name for path in tmp_path.iterdir()] == ["item_ids.json"]
    save_item_ids(tmp_path, None)
    assert load_item_ids(tmp_path, 2, {}) is None


@pytest.mark.parametrize("written", ['["a"', "[" * 100_000])
def test_a_damaged_file_of_ids_is_refused(tmp_path: Path, written: str) -> None:
    (tmp_path / "item_ids.json").write_text(written)
    with pytest.raises(ValueError, match=r"item_ids\.json of .* is no JSON: .*; save the model again"):
        load_item_ids(tmp_path, 1, {})


@pytest.mark.parametrize("num_items", [1, 3])
def test_more_or_fewer_ids_than_items_are_refused(tmp_path: Path, num_items: int) -> None:
    save_item_ids(tmp_path, ["a", "b"])
    with pytest.raises(ValueError, match=f"names 2 items, the weights hold {num_items}"):
        load_item_ids(tmp_path, num_items, {})
