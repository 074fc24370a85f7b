"""Data frames in and out: the pipeline's own lists, user by user, in the kind of frame that was given."""

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from transformers import pipeline

from mmm4rec_hf import MMM4RecConfig, MMM4RecForSequentialRecommendation, MMM4RecProcessor, recommend_frame
from mmm4rec_hf.cli import main
from mmm4rec_hf.data.cooccurrence import near_items

IDS = [f"i{n}" for n in range(12)]
# Out of order: u2's history is i3, i1, i2.
ROWS = [("u2", "i1", 1_600_000_100), ("u1", "i5", 1_600_000_000), ("u2", "i3", 1_600_000_000),
        ("u2", "i2", 1_600_000_200)]  # fmt: skip
COLUMNS = ["user_id", "item_id", "timestamp"]


@pytest.fixture(scope="module")
def recommend() -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "head_dim": 4, "n_groups": 4, "state_size": 4}
    config = MMM4RecConfig(**sizes, text_feature_size=6, image_feature_size=5, max_sequence_length=8)
    recommender: Any = pipeline(
        "sequential-recommendation",
        model=MMM4RecForSequentialRecommendation(config),
        processor=MMM4RecProcessor(max_sequence_length=8),
        device="cpu",
    )
    # A base model, given items that it never saw.
    text, image = torch.randn(12, 6), torch.randn(12, 5)
    recommender.set_items(SimpleNamespace(item_ids=IDS, titles=IDS, text_features=text, image_features=image))
    return recommender


KINDS: dict[str, tuple[type, Callable[[pl.DataFrame], Any], Callable[[Any], list[dict[str, Any]]]]] = {
    "polars": (pl.DataFrame, lambda log: log, pl.DataFrame.to_dicts),
    "lazy": (pl.LazyFrame, pl.DataFrame.lazy, lambda found: found.collect().to_dicts()),
    "pandas": (pd.DataFrame, pl.DataFrame.to_pandas, lambda found: found.to_dict("records")),
    "pyarrow": (pa.Table, pl.DataFrame.to_arrow, pa.Table.to_pylist),
    "datasets": (datasets.Dataset, lambda log: datasets.Dataset.from_list(log.to_dicts()), list),
    "dictionaries": (list, pl.DataFrame.to_dicts, list),
    "generator": (list, lambda log: iter(log.to_dicts()), list),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_user_gets_the_list_of_the_pipeline_in_the_frame_that_was_given(recommend: Any, kind: str) -> None:
    log = pl.DataFrame(ROWS, schema=COLUMNS, orient="row")
    expected_type, give, read = KINDS[kind]
    result = recommend_frame(recommend, give(log), top_k=3, batch_size=1)
    assert isinstance(result, expected_type)
    check_lists(recommend, read(result))


def test_a_relation_of_duckdb_is_answered_by_one_of_its_connection(recommend: Any) -> None:
    duckdb = pytest.importorskip("duckdb")
    connection = duckdb.connect()
    log = pl.DataFrame(ROWS, schema=COLUMNS, orient="row").to_arrow()
    result = recommend_frame(recommend, connection.from_arrow(log), top_k=3)
    assert isinstance(result, duckdb.DuckDBPyRelation)
    rows = [dict(zip(result.columns, row, strict=True)) for row in result.fetchall()]
    check_lists(recommend, rows)
    # It joins with what its connection holds.
    connection.execute("CREATE TABLE users AS SELECT 'u1' AS user_id")
    assert result.query("found", "SELECT count(*) FROM found JOIN users USING (user_id)").fetchall() == [(3,)]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ("log.csv", "got 'log.csv'; read the file first"),
        ([Path("a.csv"), Path("b.csv")], "read the file first"),
        (datasets.DatasetDict(), "a log is one dataset"),
        (7, "a log must be"),
    ],
    ids=str,
)
def test_what_cannot_be_answered_is_refused_before_anyone_is_scored(frame: Any, message: str) -> None:
    def never(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("scored")

    with pytest.raises(TypeError, match=message):
        recommend_frame(never, frame)


def test_lazy_frames_of_other_engines_are_refused_before_anyone_is_scored() -> None:
    ibis = pytest.importorskip("ibis", reason="ibis is not installed")
    with pytest.raises(TypeError, match="polars, DuckDB or PySpark"):
        recommend_frame(None, ibis.memtable(pl.DataFrame(ROWS, schema=COLUMNS, orient="row").to_arrow()))


def check_lists(recommend: Any, rows: list[dict[str, Any]]) -> None:
    """The lists of both users, three items each, row for row."""
    expected = [
        recommend({"items": ["i5"], "timestamps": [1_600_000_000]}, top_k=3),
        recommend({"items": ["i3", "i1", "i2"], "timestamps": [1_600_000_000 + 100 * n for n in range(3)]}, top_k=3),
    ]
    assert [(row["user_id"], row["rank"]) for row in rows] == [(u, n) for u in ("u1", "u2") for n in (1, 2, 3)]
    for row, item in zip(rows, [item for items in expected for item in items], strict=True):
        assert row["item_id"] == item["item_id"] and row["title"] == item["title"]
        assert row["score"] == pytest.approx(item["score"], abs=1e-5)


def test_what_near_items_add_has_a_column_of_its_own(recommend: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = {**recommend.model.config.to_dict(), "num_items": None, "use_cooccurrence": True}
    counting = pipeline(
        "sequential-recommendation",
        model=MMM4RecForSequentialRecommendation(MMM4RecConfig(**config)),
        processor=MMM4RecProcessor(max_sequence_length=8),
        device="cpu",
    )
    text, image = torch.randn(12, 6), torch.randn(12, 5)
    counting.set_items(SimpleNamespace(item_ids=IDS, titles=IDS, text_features=text, image_features=image))
    counting.model.set_cooccurrence(*near_items([{"input_ids": [6], "labels": 3}] * 4, 12))
    result = recommend_frame(counting, pl.DataFrame(ROWS, schema=COLUMNS, orient="row"), top_k=11)
    assert result.columns[4:] == ["text_score", "image_score", "cooccurrence_score", "title"]
    # u1 had i5, row 6, alone; i2 is row 3. Both weights start at 1.
    added = {row["item_id"]: row["cooccurrence_score"] for row in result.filter(pl.col("user_id") == "u1").to_dicts()}
    assert added.pop("i2") == pytest.approx(math.log(5)) and set(added.values()) == {0.0}

    counting.save_pretrained(tmp_path / "model")
    history = ["recommend", str(tmp_path / "model"), "--device", "cpu"]
    log = tmp_path / "log.csv"
    pl.DataFrame(ROWS, schema=COLUMNS, orient="row").write_csv(log)
    for name in ("found.csv", "found.parquet"):
        assert main([*history, "--input", str(log), "--top-k", "11", "--output", str(tmp_path / name)]) == 0
        read = pl.read_csv if name.endswith("csv") else pl.read_parquet
        table = read(tmp_path / name)
        assert table["cooccurrence_score"].to_list() == pytest.approx(result["cooccurrence_score"].to_list(), abs=1e-5)


def test_users_without_a_recommendation_have_no_rows(recommend: Any) -> None:
    log = pl.DataFrame(ROWS, schema=COLUMNS, orient="row")
    result = recommend_frame(recommend, log, candidates=["i5", "i7"])
    assert result.select("user_id", "item_id").sort("user_id", "item_id").rows() == [
        ("u1", "i7"), ("u2", "i5"), ("u2", "i7"),
    ]  # fmt: skip
    assert recommend_frame(recommend, log, candidates=["i5"]).filter(user_id="u1").is_empty()
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        recommend_frame(recommend, log, batch_size=0)


def test_events_of_one_time_are_ordered_by_the_column_that_is_told(recommend: Any) -> None:
    log = pl.DataFrame(
        {
            "user_id": ["u"] * 4,
            "item_id": ["i3", "i2", "i1", "i4"],
            "timestamp": [0, 0, 0, 86_400],
            "line": [3, 2, 1, 1],
        }
    )
    histories = [{"items": items, "timestamps": [0, 0, 0, 86_400]} for items in
                 (["i1", "i2", "i3", "i4"], ["i3", "i2", "i1", "i4"])]  # fmt: skip
    told, by_rows = (recommend(history, top_k=3, time_unit="s") for history in histories)
    assert [item["score"] for item in told] != pytest.approx([item["score"] for item in by_rows], abs=1e-5)
    for expected, options in ((told, {"order_column": "line"}), (by_rows, {})):
        found = recommend_frame(recommend, log, top_k=3, **options)
        assert found["score"].to_list() == pytest.approx([item["score"] for item in expected], abs=1e-5)


def test_duplicated_rows_count_once(recommend: Any, caplog: pytest.LogCaptureFixture) -> None:
    rows = [(*row, 4.0) for row in ROWS]
    names = [*COLUMNS, "score"]
    log = pl.DataFrame(rows, schema=names, orient="row")
    twice = pl.DataFrame([*rows, rows[2], rows[0], rows[2]], schema=names, orient="row")
    expected = recommend_frame(recommend, log, top_k=3)
    assert "duplicated" not in caplog.text
    assert recommend_frame(recommend, twice, top_k=3).equals(expected)
    assert [line for line in caplog.messages if line.startswith("dropped 3 duplicated rows")]
    # Another rating is another event, as in training, if it is told to be the rating.
    rated = pl.concat([log, log[2:3].with_columns(score=pl.lit(1.0))]).rename({"score": "likes"})
    assert recommend_frame(recommend, rated, top_k=3).equals(expected)
    found = recommend_frame(recommend, rated, rating_column="likes", top_k=3).filter(user_id="u2")
    history = {
        "items": ["i3", "i3", "i1", "i2"],
        "timestamps": [1_600_000_000, *(1_600_000_000 + 100 * n for n in range(3))],
    }
    scores = [item["score"] for item in recommend(history, top_k=3)]
    assert found["score"].to_list() == pytest.approx(scores, abs=1e-5)
    assert scores != pytest.approx(expected.filter(user_id="u2")["score"].to_list(), abs=1e-5)


@pytest.mark.parametrize("by", ["text", "image", "both"])
def test_similar_items_are_those_of_the_largest_cosine(recommend: Any, by: str) -> None:
    model = recommend.model
    with torch.no_grad():
        cosines = []
        for embeds in model.item_embeds():
            units = embeds[1:] / embeds[1:].norm(dim=1, keepdim=True)
            cosines.append(units @ units.T)
    score = {"text": cosines[0], "image": cosines[1], "both": (cosines[0] + cosines[1]) / 2}[by][4].clone()
    score[4] = -torch.inf  # an item is not similar to itself
    found = recommend.similar_items("i4", top_k=5, by=by)
    assert [item["item_id"] for item in found] == [IDS[row] for row in score.topk(5).indices]
    assert [item["score"] for item in found] == pytest.approx(score.topk(5).values.tolist(), abs=1e-5)
    assert found[0]["text_score"] == pytest.approx(float(cosines[0][4, IDS.index(found[0]["item_id"])]), abs=1e-5)
    several = recommend.similar_items(["i4", "i7"], top_k=50, by=by, candidates=["i4", "i1", "i7"])
    assert [{item["item_id"] for item in items} for items in several] == [{"i1", "i7"}, {"i4", "i1"}]


def test_similar_items_of_what_is_not_there_are_refused(recommend: Any) -> None:
    with pytest.raises(ValueError, match="item 'i99' is not in the catalogue of 12 items"):
        recommend.similar_items("i99")
    with pytest.raises(ValueError, match="by must be one of 'text', 'image', 'both', got 'picture'"):
        recommend.similar_items("i4", by="picture")
