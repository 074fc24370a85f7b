"""Model cards: valid for the Hub, with the facts that were given and none that were not."""

import importlib.metadata
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard, metadata_load
from hypothesis import example, given
from hypothesis import strategies as st

from mmm4rec_hf import MMM4RecConfig, MMM4RecForSequentialRecommendation
from mmm4rec_hf.modeling.card_mmm4rec import (
    CardFacts,
    CardResult,
    card_of_repository,
    model_card,
    write_card,
)

FACTS = CardFacts(
    license="cc-by-4.0",
    language="en",
    datasets=["org/films", "MovieLens 100K"],
    training_data="Ratings of films, 1997 and 1998.",
    base_model="org/base",
    results=[
        CardResult(
            "test", {"ndcg@10": np.float32(0.25), "hr@10": np.float64(0.5), "users": 943}, "test split, 5-core"
        ),
        CardResult("validation", {"ndcg@10": 0.125}, "validation split"),
    ],
    checkpoint="step 30, the best of 50 by ndcg@10",
    notes=["It was converted."],
    tags=["films"],
)
CONFIG: dict[str, Any] = {
    "num_items": 1349,
    "feature_encoder": {"text": {"encoder": "org/encoder", "revision": "abc", "pooling": "mean"}},
}


def test_what_is_known_stands_in_the_front_matter_as_the_hub_reads_it(tmp_path: Path) -> None:
    write_card(tmp_path, model_card(MMM4RecConfig(**CONFIG), ["50", "172"], FACTS))
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    metadata: dict[str, Any] = metadata_load(tmp_path / "README.md")  # type: ignore[assignment]
    assert metadata["license"] == "cc-by-4.0" and metadata["language"] == "en"
    # A name that is none of the Hub's may not stand where the Hub looks for its own.
    assert metadata["datasets"] == ["org/films"] and metadata["base_model"] == "org/base"
    assert metadata["library_name"] == "transformers" and {"mmm4rec", "films"} <= set(metadata["tags"])
    (index,) = metadata["model-index"]
    values = {
        (result["dataset"]["split"], metric["type"]): metric["value"]
        for result in index["results"]
        for metric in result["metrics"]
    }
    assert values == {("test", "ndcg@10"): 0.25, ("test", "hr@10"): 0.5, ("validation", "ndcg@10"): 0.125}
    loaded = ModelCard.load(tmp_path / "README.md")
    assert {(r.dataset_split, r.metric_type, r.metric_value) for r in loaded.data.eval_results or []} == {
        (split, name, value) for (split, name), value in values.items()
    }


def test_the_text_says_what_it_is_and_shows_each_number_beside_its_protocol() -> None:
    text = model_card(MMM4RecConfig(**CONFIG), ["50", "172"], FACTS).text
    assert "1,349 items" in text and "Ratings of films, 1997 and 1998." in text and "It was converted." in text
    assert "by `org/encoder` (revision abc, pooling mean)" in text and "what made them is not recorded" in text
    tested = text[text.index("Test split, 5-core") : text.index("Validation split")]
    assert "| ndcg@10 | 0.2500 |" in tested and "| hr@10 | 0.5000 |" in tested and "users" not in tested
    assert "step 30, the best of 50" in text and "Training started from org/base." in text
    assert re.search(r"\| transformers \| \d+\.\d+", text) and re.search(r"\| mmm4rec-hf \| \d", text)
    assert not re.search("\n{3}|{{|{%|None", text)


def test_what_is_not_known_is_said_to_be_so() -> None:
    card = model_card(MMM4RecConfig())
    assert card.data.license is None and card.data.eval_results is None
    assert "Licence: not stated" in card.text and "Nothing was measured" in card.text
    assert "Not stated by the author" in card.text and "a base model" in card.text


def test_a_base_model_and_no_other_says_how_a_fine_tuning_starts() -> None:
    base, films = model_card(MMM4RecConfig()).text, model_card(MMM4RecConfig(**CONFIG), ["50"]).text
    assert "`mmm4rec finetune start_from=path/to/this/folder ...`" in base and "start_from" not in films
    assert "`trust_remote_code=True`" in base and "`trust_remote_code=True`" in films
    assert "It holds no items:" in base and "It holds its items and recommends from them" in films


def test_numbers_are_of_the_first_data_set_that_the_hub_has(tmp_path: Path) -> None:
    result = CardResult("test", {"ndcg@10": 0.5}, "test split")
    facts = CardFacts(datasets=["MovieLens 100K", "org/films", "org/books"], results=[result])
    write_card(tmp_path, model_card(MMM4RecConfig(**CONFIG), ["50"], facts))
    metadata: dict[str, Any] = metadata_load(tmp_path / "README.md")  # type: ignore[assignment]
    (measured,) = metadata["model-index"][0]["results"]
    assert measured["dataset"]["type"] == "org/films"
    assert measured["dataset"]["name"] == "MovieLens 100K, org/films, org/books"


def test_versions_are_of_the_packages_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name in ("mmm4rec-hf", "accelerate"):
            raise importlib.metadata.PackageNotFoundError(name)
        return f"version of {name}"

    monkeypatch.setattr(importlib.metadata, "version", version)
    rows = re.findall(r"\| (\S+) \| version of (\S+) \|", model_card(MMM4RecConfig()).text)
    assert rows == [(name, name) for name in ("torch", "transformers", "huggingface-hub", "datasets")]


def test_a_name_and_a_licence_are_put_into_a_card_that_stands() -> None:
    before = str(model_card(MMM4RecConfig(**CONFIG), ["50"], FACTS)) + "\nThe author's own words.\n"
    after = ModelCard(card_of_repository(before, "org/films.v1-4", "mit"))
    assert after.data.license == "mit" and "Licence: mit" in after.text and "cc-by" not in str(after)
    assert 'model="org/films.v1-4"' in after.text and "The author's own words." in after.text
    assert len(after.data.eval_results or []) == 3
    assert "cc-by-4.0" in card_of_repository(before, "org/films.v1-4")


@given(st.text(min_size=1), st.lists(st.text(min_size=1), min_size=1, max_size=3))
@example("one\x85two\u2028three\n---\nfour", ["\x85"])
@example(" \n", ["'"])
def test_any_words_and_any_ids_make_a_card_that_can_be_read(words: str, item_ids: list[str]) -> None:
    facts = CardFacts(
        license=words, datasets=[words], training_data=words, results=[CardResult(words, {"a@1": 0.5}, words)]
    )
    card = str(model_card(MMM4RecConfig(num_items=len(item_ids)), item_ids, facts))
    front = card.split("\n---", 1)[0].removeprefix("---\n")
    # Every line break that Unicode knows is a space.
    assert yaml.safe_load(front).get("license") == (" ".join(words.split()) or None)
    code = card[card.index("```python\n") + 10 : card.index("\n```\n\nWithout the package")]
    compile(code, "card", "exec")


def test_saving_writes_a_card_and_leaves_one_that_is_there(tmp_path: Path, lively_model: Any) -> None:
    model: MMM4RecForSequentialRecommendation = lively_model()
    model.save_pretrained(tmp_path)
    assert "12 items" in (tmp_path / "README.md").read_text()
    (tmp_path / "README.md").write_text("My own words.")
    model.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "My own words."
    model.model.save_pretrained(tmp_path / "base")
    assert "a base model" in (tmp_path / "base" / "README.md").read_text()


@pytest.mark.parametrize("use_time", [True, False])
def test_the_example_gives_times_where_the_model_reads_them(use_time: bool) -> None:
    text = model_card(MMM4RecConfig(num_items=3, use_time=use_time), ["a", "ä", "c"]).text
    times = ', "timestamps": [1700000000, 1700003600]' if use_time else ""  # an hour apart
    assert '{"items": ["a", "ä"]' + times + "}" in text
