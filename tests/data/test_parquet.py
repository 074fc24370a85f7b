"""Every reader of a whole Parquet file refuses one that is cut off, no Parquet, or holds far more than its size."""

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from mmm4rec_hf import ItemCatalog
from mmm4rec_hf.cli.histories import open_histories
from mmm4rec_hf.data import load_interactions
from mmm4rec_hf.data.readers import files
from mmm4rec_hf.evaluation.evaluator import Evaluation
from mmm4rec_hf.evaluation.yardsticks import load_baselines

USERS = pl.DataFrame({"user_id": ["a", "b"], "items": [["1"], ["1", "2"]]})
TARGETS = pl.DataFrame({"user_id": ["a", "b"], "item_id": ["1", "2"], "above": [0, 1], "level": [1, 1]})


def read_evaluation(path: Path) -> pl.DataFrame:
    (path.parent / "metrics.json").write_text(json.dumps({"metrics": {}, "protocol": {"num_items": 2}}))
    return Evaluation.load(path.parent).targets


READERS: dict[str, tuple[str, Callable[[Path], object], pl.DataFrame]] = {
    "log": (
        "log.parquet",
        load_interactions,
        pl.DataFrame({"user_id": ["a"], "item_id": ["1"], "timestamp": [1_700_000_000]}),
    ),
    "items": ("items.parquet", ItemCatalog.from_items, pl.DataFrame({"item_id": ["1"], "title": ["One"]})),
    "users": ("users.parquet", lambda path: list(open_histories(path).histories), USERS),
    "evaluation": ("targets.parquet", read_evaluation, TARGETS),
    "baselines": (
        "baselines.parquet",
        lambda path: load_baselines(path.parent, Evaluation(TARGETS, {"num_items": 2}, {})),
        pl.DataFrame({"popularity above": [0, 1], "popularity level": [1, 1]}),
    ),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_file_that_is_cut_off_or_none_is_refused_by_name(tmp_path: Path, reader: str) -> None:
    name, read, table = READERS[reader]
    path = tmp_path / name
    table.write_parquet(path)
    read(path)
    whole = path.read_bytes()
    # The size of the end stands in its last eight bytes: the pages, or the end too, are gone or no Parquet.
    for damaged in (whole[:-9], whole[4:], b"no table" * 9, b"", b"PAR1" + b"\xff" * 60 + whole[-60:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"{name} cannot be read as Parquet: ."):
            read(path)


@pytest.mark.parametrize("reader", READERS)
def test_a_file_that_holds_far_more_than_its_size_is_refused(
    tmp_path: Path, reader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, read, table = READERS[reader]
    path = tmp_path / name
    monkeypatch.setattr(files, "UNPACKED_BYTES", 1 << 20)
    pl.concat([table.head(1)] * 300_000, rechunk=True).write_parquet(path, compression="zstd")
    with pytest.raises(ValueError, match=rf"{name} unpacks to [\d,]+ bytes, more than 200 times its size"):
        read(path)
