"""The datasets in the hands of those who read them: DataLoader's workers and the stock Trainer."""

from pathlib import Path
from typing import Any

import datasets
import polars as pl
import pytest
import torch
from torch.utils.data import DataLoader
from transformers import PretrainedConfig, PreTrainedModel, Trainer, TrainingArguments

from mmm4rec_hf.data import MMM4RecDataCollator, SequenceDatasets, load_interactions, prepare_sequences
from mmm4rec_hf.evaluation.ranking import HistoryCollator

SCHEMA = ["user_id", "item_id", "timestamp"]
ROWS = [(f"u{user}", f"i{(user + step) % 7}", 1387670400 + 60 * step) for user in range(10) for step in range(6)]


@pytest.fixture(params=["in memory", "on disk"])
def prepared(request: pytest.FixtureRequest, tmp_path: Path) -> SequenceDatasets:
    log = load_interactions(pl.DataFrame(ROWS, schema=SCHEMA, orient="row"))
    return prepare_sequences(log, output_dir=tmp_path / "prepared" if request.param == "on disk" else None)


class CountingModel(PreTrainedModel):
    """Takes the arguments of the recommender and remembers what came."""

    config_class = PretrainedConfig

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__(config)
        self.embedding = torch.nn.Embedding(8, 4)
        self.batches: list[dict[str, torch.Tensor]] = []
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor,
        timestamps: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        assert timestamps is not None and attention_mask is not None and labels is not None
        self.batches.append({"timestamps": timestamps, "attention_mask": attention_mask, "labels": labels})
        logits = self.embedding(input_ids).mean(dim=1) @ self.embedding.weight.T
        return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}


def test_the_stock_trainer_gets_every_column_with_its_default_arguments(
    prepared: SequenceDatasets, tmp_path: Path
) -> None:
    model = CountingModel(PretrainedConfig())
    arguments = TrainingArguments(str(tmp_path / "run"), max_steps=2, use_cpu=True, report_to=[], save_strategy="no")
    assert arguments.remove_unused_columns
    trainer = Trainer(
        model,
        arguments,
        train_dataset=prepared["train"],
        eval_dataset=prepared["validation"],
        data_collator=MMM4RecDataCollator(20),
    )
    trainer.train()
    model.batches.clear()
    predicted = trainer.predict(prepared["test"])
    # Every user's last item, in the order of the rows.
    expected = [prepared.item_ids.index(f"i{(int(user[1:]) + 5) % 7}") + 1 for user in prepared.user_ids_of("test")]
    assert predicted.label_ids.tolist() == expected
    assert {int(batch["attention_mask"].sum(dim=1).min()) for batch in model.batches} == {5}
    assert int(model.batches[0]["timestamps"][0, -1]) == 1387670400 + 60 * 4


@pytest.mark.slow
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_of_a_data_loader_read_the_same_rows(prepared: SequenceDatasets, context: str) -> None:
    def batches(**workers: Any) -> list[list[int]]:
        loader = DataLoader(prepared["train"], batch_size=4, collate_fn=MMM4RecDataCollator(3), **workers)
        return [[*batch["input_ids"].flatten().tolist(), *batch["labels"].tolist()] for batch in loader]

    assert batches(num_workers=2, multiprocessing_context=context) == batches()


def test_rows_that_lost_their_events_to_another_format_are_refused(prepared: SequenceDatasets) -> None:
    other = prepare_sequences(load_interactions(pl.DataFrame(ROWS, schema=SCHEMA, orient="row")), k_core=1)
    train = prepared["train"]
    formatted = train.select(range(3))
    formatted.set_format("numpy")
    for rows in (
        train.with_format("torch"),
        train.with_format(None),
        formatted,
        # The rows of each are places in its own events.
        datasets.concatenate_datasets([train, other["train"]]),
    ):
        for collate in (MMM4RecDataCollator(4), HistoryCollator(MMM4RecDataCollator(4))):
            with pytest.raises(ValueError, match="places of their events.*another format"):
                collate([rows[0], rows[1]])
    # Splits of one log have one format, which all that chooses and orders rows keeps.
    whole = datasets.concatenate_datasets([train, prepared["validation"]])
    assert len(whole[len(train)]["input_ids"]) == 4
    chosen = whole.shuffle(seed=0).select(range(5)).shard(2, 0)
    assert MMM4RecDataCollator(4)([chosen[0], chosen[1]])["input_ids"].shape[0] == 2
