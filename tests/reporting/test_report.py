"""The page of a report: its numbers, its words, what it is safe from, and what is refused."""

import io
import json
import math
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from mmm4rec_hf.evaluation.evaluator import Evaluation
from mmm4rec_hf.evaluation.yardsticks import load_baselines
from mmm4rec_hf.reporting import write_report

from .conftest import HOSTILE, MakeRun

VOID = {"meta", "img"}


class Page(HTMLParser):
    """A page as a browser takes it: text, tables, addresses, and whether every tag is closed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text, self.open, self.tags, self.addresses = "", [], [], []
        self.tables: list[list[list[str]]] = []
        self.feed(path.read_text(encoding="utf-8"))
        assert self.open == []
        self.words = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            return
        self.text += data + " "
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data

    def row(self, name: str, table: int = 0) -> dict[str, str]:
        """A row of a table by its header."""
        header, *rows = self.tables[table]
        (found,) = [row for row in rows if row[0] == name]
        return dict(zip(header[1:], found[1:], strict=True))


def test_the_numbers_are_those_of_the_ranks(make_run: MakeRun, tmp_path: Path) -> None:
    write_report([make_run("run")], tmp_path / "out" / "report.html")
    page = Page(tmp_path / "out" / "report.html")
    # By hand: places 1, 1, 4 and 100 against place 10 of popularity, of 200 items.
    own, popularity, chance = (page.row(name) for name in ("run", "popularity", "random order"))
    assert own["HR@10"].startswith("0.7500\n") and own["HR@5"].startswith("0.7500\n")
    assert own["NDCG@10"].startswith(f"{(2 + 1 / math.log2(5)) / 4:.4f}\n")
    assert own["MRR@10"].startswith(f"{(2 + 1 / 4) / 4:.4f}\n")
    assert (popularity["HR@10"], popularity["HR@5"]) == ("1.0000", "0.0000")  # of every user: no interval
    assert "Some numbers stand without an interval" in page.words
    assert popularity["MRR@10"].startswith("0.1000")
    assert (chance["HR@10"], chance["HR@5"]) == ("0.0500", "0.0250")
    assert chance["MRR@5"] == f"{(1 + 1 / 2 + 1 / 3 + 1 / 4 + 1 / 5) / 200:.4f}"
    rows = {(row[0], row[1]): row[2:] for row in page.tables[1][1:]}
    difference, p, verdict = rows["run less popularity", "HR@10"]
    assert difference.startswith("-0.2500 (") and float(p.strip("< ")) < 0.05 and verdict.startswith("worse")
    assert rows["run less popularity", "MRR@10"][0].startswith("+0.4625 (")
    # Users by turns: even ones 1 and 4, odd ones 1 and 100.
    assert page.row("1-4", 2)["targets"] == "20"
    assert page.row("50+", 2)["NDCG@10, run"].startswith("0.5000\n")
    assert page.row("1-4", 2)["NDCG@10, run"].startswith(f"{(1 + 1 / math.log2(5)) / 2:.4f}\n")
    assert "For 75.0% of 40 targets of the test split" in page.words


def test_someone_who_was_not_there_learns_how_it_was_made(make_run: MakeRun, tmp_path: Path) -> None:
    write_report([make_run("run", text="Rentals")], tmp_path / "report.html")
    words = Page(tmp_path / "report.html").words
    for said in (
        "Rentals. 900 events of 43 users with 200 items, from 2001-02-03 to 2004-05-06, out of Rentals/log.csv",
        "100 of 1,000 rows of the log were left out",
        "each user's last event is the test target",
        "fewer than 5 events",
        "ranked among all 200 items",
        "3 users have no target",
        "2 layers of width 48",
        "image features by vit (abc)",
        "fresh weights; adamw, learning rate 0.001, batches of 256; at most 2 epochs",
        "the weights kept are those of step 60, the best on the validation split of 120 steps",
        "2026-11-20 10:00 to 2026-11-20 11:05 UTC",
        "8 cores of an Rentals, 2 processes",
        "torch 2.13.0",
        "5.0 min, and 1 session that did not end",
        "2.5 s",
        "1.50 GB",
        "2.25 GB",
        "12,345",
        "2,345",
        "training.num_train_epochs=2",
    ):
        assert said in words, said
    assert "/home/someone" not in words  # a folder of the author's machine


def test_text_of_any_kind_is_text_and_the_page_needs_nothing_else(make_run: MakeRun, tmp_path: Path) -> None:
    prepared = {"split": "temporal", "k_core": 1, "valid_from": HOSTILE, "test_from": "{k_core}"}
    folder = make_run("<b>run & $co$ {0} %s", text=HOSTILE, prepared=prepared)
    written = write_report([folder], tmp_path / "report.html", title=f"{HOSTILE}</title><img src=x>")
    page = Page(tmp_path / "report.html")
    assert "script" not in page.tags and "b" not in page.tags and page.tags.count("img") == 3
    assert HOSTILE in page.words and "<b>run & $co$ {0} %s" in page.words
    assert f"events from {{k_core}} on are test targets, those from {HOSTILE} on validation targets" in page.words
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    source = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|url\(|@import", source)
    assert "default-src 'none'" in source
    assert [path.name for path in written] == [
        "report.html", "report-metrics.png", "report-subgroups.png", "report-learning.png",
    ]  # fmt: skip
    for path in written[1:]:
        assert Image.open(path).size[0] > 500
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    "split", ["{k_core.__class__.__mro__}", "{k_core:>20000000}", "{test_from}", "{", "}", "%d {0}"]
)
def test_the_name_of_a_split_is_no_template(make_run: MakeRun, tmp_path: Path, split: str) -> None:
    write_report([make_run("run", prepared={"split": split, "k_core": 5})], tmp_path / "report.html")
    assert f"Events are in the order of time: {split}. " in Page(tmp_path / "report.html").words


@pytest.mark.parametrize(
    ("prepared", "told"),
    [
        ({}, "Not noted."),
        ({"by": "our own tool"}, "Not noted."),
        ({"split": "weeks"}, "Which users and items of few events are left out was not noted. Events are in the order "
         "of time: weeks."),
        ({"k_core": 3}, "Users and items with fewer than 3 events are left out. How training and test were parted was "
         "not noted."),
    ],
)  # fmt: skip
def test_what_was_not_told_of_the_split_is_not_noted(
    make_run: MakeRun, tmp_path: Path, prepared: dict[str, str], told: str
) -> None:
    write_report([make_run("run", prepared=prepared)], tmp_path / "report.html")
    words = Page(tmp_path / "report.html").words
    assert f"Split {told} Protocol " in words


def test_the_same_runs_give_the_same_pictures_and_they_differ_where_runs_do(make_run: MakeRun, tmp_path: Path) -> None:
    first, other = make_run("one"), make_run("two", above=[0] * 40)
    for name, folder in (("a", first), ("b", first), ("c", other)):
        write_report([folder], tmp_path / name / "report.html", title="Same")
    pictures = {name: sorted((tmp_path / name).glob("*.png")) for name in "abc"}
    assert [p.read_bytes() for p in pictures["a"]] == [p.read_bytes() for p in pictures["b"]]
    drawn = [
        np.asarray(Image.open(io.BytesIO((tmp_path / name / "report-metrics.png").read_bytes()))) for name in "ac"
    ]
    assert drawn[0].shape != drawn[1].shape or (drawn[0] != drawn[1]).any()


def test_runs_on_the_same_targets_are_tested_against_the_first_and_others_stand_apart(
    make_run: MakeRun, tmp_path: Path
) -> None:
    places = [0, 0, 3, 99] * 10
    better = [max(place - 1, 0) for place in places]
    folders = [
        make_run("one", seed=1), make_run("two", above=better, seed=2), make_run("else", above=[5, 6], num_items=77),
    ]  # fmt: skip
    written = write_report(folders, tmp_path / "report.html", metric="ndcg@5")
    page = Page(tmp_path / "report.html")
    assert [path.name for path in written] == [
        "report.html", "report-metrics-1.png", "report-metrics-2.png", "report-subgroups-1.png",
        "report-subgroups-2.png", "report-learning.png",
    ]  # fmt: skip
    rows = {row[0] for row in page.tables[1][1:]}
    assert rows == {"one less popularity", "two less one", "two less popularity"}
    assert not any("else" in row[0] for row in page.tables[0]) and page.row("else", 2)
    # The two differ by their seed alone: places 1, 1, 3, 99 of the second.
    mean = (2 + 1 / math.log2(5)) / 4 / 2 + (2 + 1 / 2) / 4 / 2
    assert page.row("2 seeds as one: mean (least to most)")["NDCG@5"].startswith(f"{mean:.4f}\n")


def test_a_seed_given_twice_and_other_features_are_no_further_seeds(make_run: MakeRun, tmp_path: Path) -> None:
    # Places 1, 2 and 4 of every target: gains 1, 1 / log2(3) and 1 / log2(5).
    first, again, other = make_run("first", [0] * 40), make_run("again", [3] * 40), make_run("other", [1] * 40, seed=1)
    record = json.loads((other / "training.json").read_text())
    for folders in ([first, again], [first, other]):
        (other / "training.json").write_text(
            json.dumps(record | {"data": record["data"] | {"features": {"text": "elsewhere", "image": None}}})
        )
        write_report(folders, tmp_path / "report.html")
        assert "seeds as" not in Page(tmp_path / "report.html").words
    moved = record["data"] | {"folder": "elsewhere", "source": []}
    (other / "training.json").write_text(json.dumps(record | {"data": moved}))
    write_report([first, again, other], tmp_path / "report.html")
    mean = (1 + 1 / math.log2(3)) / 2
    row = Page(tmp_path / "report.html").row("2 seeds as first: mean (least to most)")
    assert row["NDCG@10"] == f"{mean:.4f}\n{1 / math.log2(3):.4f} to 1.0000"


def test_one_user_and_equal_users_have_no_interval(make_run: MakeRun, tmp_path: Path) -> None:
    """Of 11 users ten have place 4, and the last one, alone in its group, place 1; a third run is always 1 better."""
    places = [3] * 10 + [0]
    folder = make_run("run", places, baselines={"near": [place + 1 for place in places], "far": [50] * 11})
    evaluation = Evaluation.load(folder / "evaluation")
    cold = pl.Series(["head"] * 10 + ["cold"])
    replace(evaluation, targets=evaluation.targets.with_columns(target_popularity=cold)).save(
        folder / "evaluation", load_baselines(folder / "evaluation", evaluation)
    )
    write_report([folder], tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    assert page.row("run")["HR@10"] == "1.0000" and page.row("far")["NDCG@10"] == "0.0000"
    assert re.fullmatch(r"0\.\d{4}\n0\.\d{4} to 0\.\d{4}", page.row("run")["MRR@10"])
    popularity = next(table for table in page.tables if table[0][0] == "popularity of the target")
    assert {row[0]: row[1:3] for row in popularity[1:]} == {"head": ["10", "0.4307"], "cold": ["1", "1.0000"]}
    rows = {(row[0], row[1]): row[2] for row in page.tables[1][1:]}
    assert rows["run less far", "HR@10"] == "+1.0000" and rows["run less near", "HR@10"] == "+0.0000"
    assert "+" in rows["run less near", "MRR@10"] and " to " in rows["run less near", "MRR@10"]
    assert page.words.count("Some numbers stand without an interval: one user, or the same value of every user") == 2
    assert "stands among the first 10 of 200 items. NDCG@10" in page.words


def test_each_run_is_judged_by_its_own_baselines(make_run: MakeRun, tmp_path: Path) -> None:
    """Of two catalogues: in that of `a` similar text finds every target, in that of `b` none."""
    a = make_run("a", above=[3] * 40, seed=1, baselines={"popularity": [9] * 40, "similar text": [0] * 40})
    b = make_run("b", above=[4] * 40, seed=2, baselines={"popularity": [9] * 40, "similar text": [99] * 40})
    for folders in ([a, b], [b, a]):
        write_report(folders, tmp_path / "report.html")
        page = Page(tmp_path / "report.html")
        assert page.row("similar text of a")["HR@10"].startswith("1.0000")
        assert page.row("similar text of b")["HR@10"].startswith("0.0000")
        assert "similar text" not in [row[0] for row in page.tables[0]] and "similar text: items whose" in page.words
        first, second = (folder.name for folder in folders)
        assert {row[0] for row in page.tables[1][1:]} == {
            "a less popularity", "a less similar text of a", "b less popularity", "b less similar text of b",
            f"{second} less {first}",
        }  # fmt: skip
        # Place 4 gains 1 / log2(5), place 5 1 / log2(6), place 10 of popularity 1 / log2(11).
        assert "NDCG@10 is 0.4307, that of the best baseline, similar text of a, 1.0000" in page.words
        assert "NDCG@10 is 0.3869, that of the best baseline, popularity, 0.2891" in page.words


@pytest.mark.parametrize("name", ["popularity", "similar text", "random order"])
def test_a_run_that_is_called_like_a_baseline_keeps_its_numbers(make_run: MakeRun, tmp_path: Path, name: str) -> None:
    baselines = {"popularity": [9] * 40, "similar text": [9] * 40}
    write_report([make_run(f"films/{name}", above=[0] * 40, baselines=baselines)], tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    # First places beside tenth ones, and 10 of 200 by chance.
    assert page.row(f"films/{name}")["MRR@10"].startswith("1.0000")
    assert page.row("popularity")["MRR@10"].startswith("0.1000")
    assert page.row("random order")["HR@10"] == "0.0500"
    assert "NDCG@10 is 1.0000, that of the best baseline, popularity, 0.2891" in page.words


def test_a_pretraining_and_a_trainer_s_folder_are_told_without_intervals(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    lines = [
        {"step": 10, "loss": 3.0, "learning_rate": 1e-3},
        {"step": 20, "films/loss": 2.5, "films/ndcg@10": 0.25, "creams/ndcg@10": 0.5, "ndcg@10": 0.375},
        {"step": 40, "films/loss": 2.4, "films/ndcg@10": 0.125, "creams/ndcg@10": 0.25, "ndcg@10": 0.2},
    ]
    (base / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 50, "lo')
    (base / "recipe.json").write_text(json.dumps({"domains": [{"name": "films"}], "max_steps": 40}))
    trained = tmp_path / "trained"
    (trained / "checkpoint-9").mkdir(parents=True)
    (trained / "checkpoint-10").mkdir()
    log = [{"step": 10, "loss": 5.0}, {"step": 10, "eval_ndcg@10": 0.5}]
    (trained / "checkpoint-10" / "trainer_state.json").write_text(json.dumps({"log_history": log}))
    (trained / "checkpoint-9" / "trainer_state.json").write_text(json.dumps({"log_history": []}))
    metrics = {"test": {"step": 10, "metrics": {"ndcg@10": 0.625, "users": 3}, "protocol": {}}}
    (trained / "metrics.json").write_text(json.dumps(metrics))
    write_report([base, trained], tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    assert page.row("validation of films")["NDCG@10"] == "0.2500"
    assert page.row("validation of creams")["NDCG@10"] == "0.5000"
    assert page.row("test split", 1)["NDCG@10"] == "0.6250"
    assert page.words.count("there are no intervals") == 2 and page.tags.count("img") == 2


def test_a_base_that_is_kept_by_loss_is_told_by_its_loss_before_it_has_ended(tmp_path: Path) -> None:
    lines = [
        {"step": 20, "films/loss": 2.5, "creams/loss": 1.0, "films/ndcg@10": 0.25, "ndcg@10": 0.375},
        {"step": 40, "films/loss": 2.4, "creams/loss": 1.0, "films/ndcg@10": 0.125, "ndcg@10": 0.2},
        {"step": 60, "films/loss": 2.3, "creams/loss": 1.3, "films/ndcg@10": 0.5, "ndcg@10": 0.4},
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    recipe = {"domains": [{"name": "films"}], "max_steps": 80, "metric_for_best_model": "loss"}
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    write_report([tmp_path], tmp_path / "report.html")
    assert Page(tmp_path / "report.html").row("validation of films")["NDCG@10"] == "0.1250"


def test_an_evaluation_alone_is_a_report(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run("run") / "evaluation"
    (folder / "baselines.parquet").unlink()
    written = write_report([folder], tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    assert page.row("evaluation")["HR@10"].startswith("0.7500") and "Kind evaluation" in page.words
    assert [path.name for path in written[1:]] == ["report-metrics.png", "report-subgroups.png"]


@pytest.mark.parametrize(
    "missing",
    [
        ["training.json"],
        ["recipe.json"],
        ["model/config.json"],
        ["evaluation/targets.parquet"],
        ["training.json", "model/config.json"],
        ["training.json", "evaluation/targets.parquet"],
    ],
)
def test_what_was_not_copied_of_a_run_is_told_as_not_noted(
    make_run: MakeRun, tmp_path: Path, missing: list[str]
) -> None:
    part, whole = make_run("part", seed=1), make_run("whole")
    (part / "model" / "model.safetensors").write_bytes(bytes(2_500_000))
    for name in missing:
        (part / name).unlink()
    for folders in ([part], [whole, part]):
        write_report(folders, tmp_path / "report.html")
        page = Page(tmp_path / "report.html")
        cost = next(table for table in page.tables if table[0][0] == "" and table[0][-1] == "part")
        rows = {row[0]: row[-1] for row in cost[1:]}
        assert rows["model on disk, features of items among it"] == "2.5 MB"
        recorded = "training.json" not in missing
        assert ("part: 8 cores of an Films, 2 processes." in page.words) == recorded
        assert ("part: the machine was not noted." in page.words) != recorded
        if not recorded:
            assert rows.get("weights", "not noted") == "not noted" and "Data Films. Model" in page.words


def test_a_history_left_out_leaves_no_chance_to_compute(make_run: MakeRun, tmp_path: Path) -> None:
    write_report([make_run("run", exclude_history=True)], tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    assert "random order" not in [row[0] for row in page.tables[0]] and "had before leave the ranking" in page.words


def test_what_is_no_report_is_refused(make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run("run")
    output = tmp_path / "out" / "report.html"
    (tmp_path / "empty").mkdir()
    for folders, message in (
        ([tmp_path / "nowhere"], "no such folder"),
        ([tmp_path / "empty"], "holds no run; name the output_dir"),
        ([run, tmp_path / "." / "run"], "given twice"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            write_report(folders, output)
    with pytest.raises(ValueError, match=r"no metric 'ndcg@7'; there are hr@10, hr@5, mrr@10"):
        write_report([run], output, metric="ndcg@7")
    with pytest.raises(ValueError, match=r"must end in .html, got 'report.pdf'"):
        write_report([run], tmp_path / "report.pdf")
    (run / "training.json").write_text('{"log": [')
    with pytest.raises(ValueError, match=r"training.json is damaged"):
        write_report([run], output)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(
        RuntimeError, match=r"pip install 'mmm4rec-hf\[report\]', from a clone pip install .* '\.\[report\]'$"
    ):
        write_report([run], output)
    assert not output.parent.exists()


def test_runs_of_one_name_are_told_apart_by_their_folders(make_run: MakeRun, tmp_path: Path) -> None:
    write_report([make_run("a/run"), make_run("b/run")], tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    assert page.row("a/run") and page.row("b/run")


def test_intervals_cover_the_truth_as_often_as_they_say(make_run: MakeRun, tmp_path: Path) -> None:
    # 40 users, each a hit with probability 0.5: of 60 samples about 57 intervals hold 0.5.
    held = 0
    for seed in range(60):
        hits = np.random.default_rng(seed).random(40) < 0.5
        above = [0 if hit else 50 for hit in hits]
        low, high = Evaluation.load(make_run(f"run{seed}", above=above) / "evaluation").intervals()["hr@10"]
        held += low <= 0.5 <= high
    assert 52 <= held <= 60


def test_where_files_of_a_recipe_lie_on_the_machine_is_not_told(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("run")
    recipe = json.loads((run / "recipe.json").read_text())
    recipe |= {
        "sequences": "C:\\Users\\alice\\shop\\sequences",
        "catalog": "data/catalog",
        "logs": ["/home/alice/a/b.csv", ["~/alice/x/c.csv"]],
        "more": "file:///home/alice/y/d.csv",
        "other": "../../home/alice/z/e.csv",
    }
    (run / "recipe.json").write_text(json.dumps(recipe))
    write_report([run], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "alice" not in page and str(tmp_path) not in page
    assert ".../shop/sequences" in page and "data/catalog" in page and ".../a/b.csv" in page
    assert all(f".../{name}.csv" in page for name in ("x/c", "y/d", "z/e"))
    assert f".../{tmp_path.name}/run" in page


@pytest.mark.parametrize(
    ("place", "told"),
    [("/home/alice/shop/run/model", ".../run/model"), ("C:\\Users\\alice\\shop\\run\\model", ".../run/model"),
     ("~/alice/shop/run/model", ".../run/model"), ("author/model", "author/model"),
     ("base/run/model", "base/run/model")],
)  # fmt: skip
def test_where_a_base_a_log_and_an_encoder_lie_on_the_machine_is_not_told(
    make_run: MakeRun, tmp_path: Path, place: str, told: str
) -> None:
    run = make_run("run")
    recipe, made, config = (
        json.loads((run / name).read_text()) for name in ("recipe.json", "training.json", "model/config.json")
    )
    (run / "recipe.json").write_text(json.dumps(recipe | {"start_from": place}))
    made["data"]["source"] = [place]
    (run / "training.json").write_text(json.dumps(made))
    config["feature_encoder"]["text"]["encoder"] = place
    (run / "model" / "config.json").write_text(json.dumps(config))
    write_report([run], tmp_path / "report.html")
    page = Page(tmp_path / "report.html").words
    assert "alice" not in page
    assert f"From the pretrained model {told};" in page and f"start_from={told} " in page
    assert f"text features by {told};" in page
    # Of a log the file and its folder say enough.
    assert f"out of {'/'.join(told.split('/')[-2:])}." in page
