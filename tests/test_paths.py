"""Folders whose names mean something to shells, globs, URLs and file systems of others."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from transformers import TrainingArguments, pipeline

import mmm4rec_hf
from mmm4rec_hf.data import SequenceDatasets
from mmm4rec_hf.items import ItemCatalog

NAMES = [
    "with space",
    "[brackets]",
    "star* and question?",
    "hash#1",
    "100%41",
    "two::colons",
    "ключ é 映画",
    "a.b-1.4",
]
TINY = {
    "hidden_size": 16, "intermediate_size": 16, "head_dim": 4, "state_size": 4, "max_sequence_length": 6,
    "text_feature_size": 6, "image_feature_size": 5,
}  # fmt: skip


def make_log() -> pl.DataFrame:
    rows = [
        (f"u{user}", f"i{(user * 3 + step * step) % 9}", 1_387_670_400 + 60 * step)
        for user in range(12)
        for step in range(6)
    ]
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")


@pytest.mark.parametrize("name", NAMES)
def test_everything_is_written_to_and_read_from_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    make_log().write_csv(folder / f"{name}.csv")
    log = mmm4rec_hf.load_interactions(folder / f"{name}.csv")
    sequences = mmm4rec_hf.prepare_sequences(log, k_core=1, output_dir=folder / "sequences")
    assert [row["labels"] for row in SequenceDatasets.load_from_disk(folder / "sequences")["test"]] == [
        row["labels"] for row in sequences["test"]
    ]

    rng = np.random.default_rng(0)
    text, image = (rng.normal(size=(len(sequences.item_ids), size)).astype(np.float32) for size in (6, 5))
    made = ItemCatalog(sequences.item_ids, text_features=text, image_features=image)
    made.save_pretrained(folder / "catalog")
    catalog = ItemCatalog.from_pretrained(folder / "catalog")
    assert catalog.item_ids == sequences.item_ids

    def trainer(steps: int) -> Any:
        model = mmm4rec_hf.MMM4RecForSequentialRecommendation(mmm4rec_hf.MMM4RecConfig(**TINY))
        model.set_items(catalog)
        arguments = TrainingArguments(
            str(folder / "run"), max_steps=steps, save_steps=1, save_total_limit=1, use_cpu=True, report_to=[],
            disable_tqdm=True,
        )  # fmt: skip
        return mmm4rec_hf.MMM4RecTrainer(model, arguments, train_dataset=sequences["train"])

    trainer(2).train()
    going_on = trainer(3)
    going_on.train(resume_from_checkpoint=True)
    # The older ones are gone: what stays is told by a pattern over the folder's name.
    assert [path.name for path in (folder / "run").glob("checkpoint-*")] == ["checkpoint-3"]
    assert going_on.state.global_step == 3

    recommend = pipeline("sequential-recommendation", model=str(folder / "run" / "checkpoint-3"), device="cpu")
    found = recommend({"items": ["i1"], "timestamps": [5]}, top_k=3)
    assert len(found) == 3 and {entry["item_id"] for entry in found} < set(catalog.item_ids)


def test_sequences_are_saved_over_the_folder_that_they_are_read_from(tmp_path: Path) -> None:
    log = mmm4rec_hf.load_interactions(make_log())
    mmm4rec_hf.prepare_sequences(log, k_core=1, output_dir=tmp_path / "sequences")
    loaded = SequenceDatasets.load_from_disk(tmp_path / "sequences")
    rows = [(row["input_ids"].tolist(), row["labels"]) for row in loaded["train"]]
    loaded.align(loaded.item_ids[::-1]).save_to_disk(tmp_path / "sequences")
    # What was read before is not torn away, and what lies there now is the other order.
    assert [(row["input_ids"].tolist(), row["labels"]) for row in loaded["train"]] == rows
    again = SequenceDatasets.load_from_disk(tmp_path / "sequences")
    count = len(loaded.item_ids)
    assert [row["labels"] for row in again["train"]] == [count + 1 - label for _, label in rows]
