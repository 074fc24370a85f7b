"""Histories in Parquet shards: what is written, and that processes together read each row once an epoch."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets.distributed import split_dataset_by_node

from mmm4rec_hf.cli import main
from mmm4rec_hf.data import SequenceDatasets
from mmm4rec_hf.items import ItemCatalog
from mmm4rec_hf.training import rows as row_sources
from mmm4rec_hf.training.domains import Domain, DomainRecipe
from mmm4rec_hf.training.pretraining import Pretraining, PretrainRecipe, pretrain
from mmm4rec_hf.training.recipes import build
from mmm4rec_hf.training.rows import Row, StreamedRows
from mmm4rec_hf.training.shards import read_about, write_shards

from .conftest import Killed

MakeDomain = Callable[..., dict[str, str]]
MakeRecipe = Callable[..., dict[str, Any]]


@pytest.fixture
def sequences(make_domain: MakeDomain) -> SequenceDatasets:
    return SequenceDatasets.load_from_disk(make_domain("shop", users=31)["sequences"])


def as_row(items: Any, timestamps: Any, target: int) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    return tuple(map(int, items)), tuple(map(int, timestamps)), int(target)


def training_rows(sequences: SequenceDatasets) -> Counter:
    return Counter(as_row(row["input_ids"], row["timestamps"], row["labels"]) for row in sequences["train"])


def streamed(folder: Path, sequences: SequenceDatasets, process: int, processes: int, seed: int = 0) -> StreamedRows:
    return StreamedRows(folder, np.arange(len(sequences.item_ids) + 1), seed, process, processes)


def one_epoch(rows: StreamedRows, at_once: int = 7) -> list[Row]:
    """What a process reads before its next epoch begins."""
    found: list[Row] = []
    while True:
        before = rows.state()
        taken = rows.take(0, 0, at_once)
        if rows.state()["epoch"] == 0:
            found += taken
            continue
        # The batch that goes over the end, row by row.
        rows.restore(before)
        while True:
            row = rows.take(0, 0, 1)
            if rows.state()["epoch"] > 0:
                return found
            found += row


def test_a_shard_has_a_row_a_user_with_the_events_to_train_on(sequences: SequenceDatasets, tmp_path: Path) -> None:
    write_shards(sequences, tmp_path / "shards", 3)
    files = sorted((tmp_path / "shards").glob("*.parquet"))
    users = [user for file in files for user in pq.read_table(file).to_pylist()]
    assert [len(pq.read_table(file)) for file in files] in ([11, 10, 10], [10, 10, 10])
    assert len({user["user_id"] for user in users}) == len(users)
    rows: Counter = Counter()
    for user in users:
        items, times = user["input_ids"], user["timestamps"]
        rows.update(as_row(items[:end], times[:end], items[end]) for end in range(1, len(items)))
    assert rows == training_rows(sequences)
    about, item_ids = read_about(tmp_path / "shards")
    assert about == {"shards": 3, "users": len(users), "targets": len(sequences["train"])}
    assert item_ids == sequences.item_ids


@pytest.mark.parametrize(("processes", "shards"), [(1, 1), (1, 3), (2, 1), (2, 2), (2, 3), (2, 4), (3, 4)])
def test_processes_together_read_each_row_once_an_epoch(
    sequences: SequenceDatasets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int, shards: int
) -> None:
    monkeypatch.setattr(row_sources, "USERS_PER_BLOCK", 4)
    write_shards(sequences, tmp_path / "shards", shards)
    parts = [one_epoch(streamed(tmp_path / "shards", sequences, process, processes)) for process in range(processes)]
    assert sum((Counter(as_row(*row) for row in part) for part in parts), Counter()) == training_rows(sequences)
    assert all(len(part) > 0 for part in parts)


def test_each_epoch_and_each_seed_has_an_order_of_its_own(
    sequences: SequenceDatasets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_sources, "USERS_PER_BLOCK", 4)
    write_shards(sequences, tmp_path / "shards", 2)
    count = len(sequences["train"])
    orders = []
    for seed in (0, 1):
        rows = streamed(tmp_path / "shards", sequences, 0, 1, seed)
        orders += [[as_row(*row) for row in rows.take(0, 0, count)] for _ in range(2)]
    for number, order in enumerate(orders):
        assert Counter(order) == Counter(orders[0])
        assert all(order != other for other in orders[:number])


def test_a_stream_goes_on_where_its_state_was_taken(
    sequences: SequenceDatasets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_sources, "USERS_PER_BLOCK", 4)
    write_shards(sequences, tmp_path / "shards", 3)
    # Over the end of blocks, of shards and of the epoch.
    whole = streamed(tmp_path / "shards", sequences, 1, 2)
    states, read = [], []
    for _ in range(2 * len(sequences["train"]) // 5):
        states.append(json.loads(json.dumps(whole.state())))
        read.append([as_row(*row) for row in whole.take(0, 0, 5)])
    assert states[-1]["epoch"] > 0
    for place in range(0, len(states) - 1, 3):
        other = streamed(tmp_path / "shards", sequences, 1, 2)
        other.restore(states[place])
        assert [[as_row(*row) for row in other.take(0, 0, 5)] for _ in range(2)] == read[place : place + 2]


@pytest.mark.parametrize("name", ["s[1]", "[!a]*?", "two::colons", "hash#1 100%41"])
def test_shards_are_streamed_from_a_folder_of_any_name(sequences: SequenceDatasets, tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    write_shards(sequences, folder / "shards", 2)
    # What the name as a pattern would find.
    write_shards(sequences, tmp_path / "s1" / "shards", 3)
    rows = one_epoch(streamed(folder / "shards", sequences, 0, 1))
    assert Counter(as_row(*row) for row in rows) == training_rows(sequences)


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_a_stream_goes_on_from_the_state_of_a_version_that_read_by_load_dataset(
    sequences: SequenceDatasets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    monkeypatch.setattr(row_sources, "USERS_PER_BLOCK", 4)
    write_shards(sequences, tmp_path / "shards", 2)
    rows = streamed(tmp_path / "shards", sequences, 0, processes)
    while rows.state()["block"] < 2:
        rows.take(0, 0, 5)
    # As that version opened them: the order of the files is drawn from the seed and the epoch.
    files = sorted(str(path) for path in (tmp_path / "shards").glob("*.parquet"))
    files = [files[place] for place in np.random.default_rng([0, 0]).permutation(2)]
    loaded = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)
    loaded = split_dataset_by_node(loaded, 0, processes)
    users = iter(loaded)
    for _ in range(2 * 4):
        next(users)
    state = json.loads(json.dumps(rows.state() | {"begin": loaded.state_dict()}))
    other = streamed(tmp_path / "shards", sequences, 0, processes)
    other.restore(state)
    expected = [as_row(*row) for row in rows.take(0, 0, 40)]
    assert [as_row(*row) for row in other.take(0, 0, 40)] == expected


def test_a_domain_reads_shards_in_its_catalogues_order(make_domain: MakeDomain, tmp_path: Path) -> None:
    domain = make_domain("shop")
    sequences = SequenceDatasets.load_from_disk(domain["sequences"])
    write_shards(sequences, tmp_path / "shards", 2)
    loaded = Domain(DomainRecipe(**domain, shards=str(tmp_path / "shards")), seed=0)
    catalog = ItemCatalog.from_pretrained(domain["catalog"])
    assert catalog.item_ids != sequences.item_ids
    assert isinstance(loaded.rows, StreamedRows)
    rows = loaded.rows.take(0, 0, loaded.rows.num_targets)
    assert Counter(as_row(*row) for row in rows) == training_rows(sequences.align(catalog.item_ids))


def test_a_pretraining_streams_shards_and_goes_on_with_the_same_bits(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_sources, "USERS_PER_BLOCK", 4)
    recipe = make_recipe("whole", max_steps=9)
    streaming = []
    for number, domain in enumerate(recipe["domains"]):
        folder = tmp_path / f"shards-{number}"
        write_shards(SequenceDatasets.load_from_disk(domain["sequences"]), folder, 2)
        streaming.append(domain | {"shards": str(folder)})
    # Validated by sequences; the second domain has shards alone.
    del streaming[1]["sequences"]
    recipe |= {"domains": streaming}
    expected = pretrain(build(PretrainRecipe, recipe, "test"))
    assert expected["a/loss"] > 0 and not any(name.startswith("bb/") for name in expected)

    stopped = recipe | {"output_dir": str(tmp_path / "stopped")}
    original = Pretraining._step

    def stopping(self: Pretraining, batches: Any) -> float:
        if self.progress.step == 5:
            raise Killed
        return original(self, batches)

    with monkeypatch.context() as patched:
        patched.setattr(Pretraining, "_step", stopping)
        with pytest.raises(Killed):
            pretrain(build(PretrainRecipe, stopped, "test"))
    assert pretrain(build(PretrainRecipe, stopped, "test")) == expected
    logs, weights = (
        [(tmp_path / run / name).read_bytes() for run in ("whole", "stopped")]
        for name in ("log.jsonl", "model/model.safetensors")
    )
    assert logs[0] == logs[1] and weights[0] == weights[1]


def test_a_run_takes_no_other_shards(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(max_steps=1, save_steps=None)
    domain = recipe["domains"][0]
    folder = tmp_path / "shards"
    sequences = SequenceDatasets.load_from_disk(domain["sequences"])
    write_shards(sequences, folder, 2)
    recipe["domains"] = [{"name": "a", "catalog": domain["catalog"], "shards": str(folder)}]

    def run() -> None:
        pretrain(build(PretrainRecipe, recipe, "test"))

    run()
    # The same shards, written once more.
    write_shards(sequences, folder, 2)
    run()
    path = tmp_path / "out" / "training.json"
    record = json.loads(path.read_text())
    # As many users and events, of other items.
    file = folder / "shard-00000.parquet"
    table = pq.read_table(file)
    items = [[item % len(sequences.item_ids) + 1 for item in user] for user in table["input_ids"].to_pylist()]
    column = pa.array(items, table.schema.field("input_ids").type)
    pq.write_table(table.set_column(table.schema.get_field_index("input_ids"), "input_ids", column), file)
    with pytest.raises(ValueError, match=r"other data \(domains.a.shards \w{16} before, \w{16} now\); give another"):
        run()
    write_shards(sequences, folder, 3)
    with pytest.raises(ValueError, match="domains.a.shards"):
        run()
    # As a version left it that did not note the shards.
    del record["domains"]["a"]["shards"]
    path.write_text(json.dumps(record))
    run()


def test_a_stream_does_not_go_on_in_another_number_of_shards(sequences: SequenceDatasets, tmp_path: Path) -> None:
    write_shards(sequences, tmp_path / "shards", 3)
    state = streamed(tmp_path / "shards", sequences, 0, 1).state()
    write_shards(sequences, tmp_path / "shards", 4)
    with pytest.raises(ValueError, match="was stopped in 3 shards, there are 4 now"):
        streamed(tmp_path / "shards", sequences, 0, 1).restore(state)
    del state["files"]
    streamed(tmp_path / "shards", sequences, 0, 1).restore(state)


def test_prepare_writes_shards_beside_the_sequences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [f"u{user},i{(user + n) % 5},{1_400_000_000 + 100 * n}" for user in range(6) for n in range(5)]
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\n" + "\n".join(lines) + "\n")
    assert main(["prepare", str(tmp_path / "log.csv"), "--output", str(tmp_path / "out"), "--shards", "2"]) == 0
    about, item_ids = read_about(tmp_path / "out" / "shards")
    # Of five events a user the last two are held out; of the other three the first has no history.
    assert about == {"shards": 2, "users": 6, "targets": 12} and sorted(item_ids) == [f"i{n}" for n in range(5)]


def test_what_cannot_be_streamed_is_refused(
    sequences: SequenceDatasets, make_domain: MakeDomain, tmp_path: Path
) -> None:
    for number in (0, 32):
        with pytest.raises(ValueError, match=r"the number of shards must be from 1 to 3\d, the users to train on"):
            write_shards(sequences, tmp_path / "shards", number)
    with pytest.raises(ValueError, match="holds no shards of histories: shards.json is missing"):
        read_about(tmp_path)
    write_shards(sequences, tmp_path / "shards", 2)
    other = make_domain("other")
    with pytest.raises(ValueError, match="12 items of .* are not in the catalogue .* such as 'shop"):
        Domain(DomainRecipe("other", other["catalog"], shards=str(tmp_path / "shards")), seed=0)
    (tmp_path / "shards" / "shard-00001.parquet").unlink()
    with pytest.raises(ValueError, match="has 1 of its 2 shards; write them again"):
        read_about(tmp_path / "shards")


def test_shards_replace_shards_and_nothing_else(sequences: SequenceDatasets, tmp_path: Path) -> None:
    for number in (3, 2):
        write_shards(sequences, tmp_path / "shards", number)
    assert read_about(tmp_path / "shards")[0]["shards"] == 2
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    sequences.save_to_disk(tmp_path / "sequences")
    for folder, named in (("mine", "thesis.txt"), ("sequences", "events.arrow, items.arrow, sequences.json, ")):
        with pytest.raises(ValueError, match=f"{folder} holds something else .* would be lost: {named}"):
            write_shards(sequences, tmp_path / folder, 2)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "x"
    assert len(SequenceDatasets.load_from_disk(tmp_path / "sequences")) == 3


def test_a_process_without_users_is_refused(sequences: SequenceDatasets, tmp_path: Path) -> None:
    write_shards(sequences, tmp_path / "shards", 1)
    rows = streamed(tmp_path / "shards", sequences, 39, 40)
    with pytest.raises(ValueError, match="process 39 of 40 finds no users in the shards; write more shards, or start"):
        rows.take(0, 0, 1)
