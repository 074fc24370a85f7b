"""A shop by commands, from its log and its items to an evaluation and its report: ids and pictures of every kind."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from mmm4rec_hf import ItemCatalog
from mmm4rec_hf.cli import main
from mmm4rec_hf.data import SequenceDatasets

from .conftest import IDS, ITEMS, USERS, history_of, refusal


def test_ids_are_the_same_from_the_log_to_the_model(model: Path, shop: Path) -> None:
    sequences = SequenceDatasets.load_from_disk(shop / "sequences")
    assert sequences.item_ids == sorted(IDS) and sequences.user_ids == sorted(USERS)
    rows = dict(zip(sequences.user_ids_of("test"), sequences["test"], strict=True))
    for number, user in enumerate(USERS):
        items = [sequences.item_ids[index - 1] for index in [*rows[user]["input_ids"], rows[user]["labels"]]]
        assert items == [item for item, _ in history_of(number)]
        assert rows[user]["timestamps"].tolist() == [time for _, time in history_of(number)][:-1]
    assert ItemCatalog.from_pretrained(shop / "catalog").item_ids == ITEMS
    assert ItemCatalog.from_pretrained(model / "catalog").item_ids == ITEMS
    assert json.loads((model / "item_ids.json").read_text()) == ITEMS


def test_pictures_that_cannot_be_used_are_marked_and_the_others_have_features(model: Path, shop: Path) -> None:
    catalog = ItemCatalog.from_pretrained(shop / "catalog")
    assert catalog.image_mask is not None and catalog.image_features is not None
    assert catalog.image_mask.tolist() == [False] * 2 + [True] * 5 + [False] * 5
    assert np.isfinite(catalog.image_features).all()
    white = catalog.image_features[~catalog.image_mask]
    assert (white == white[0]).all()
    assert catalog.text_mask is not None and catalog.text_mask.all()


def test_fields_that_are_left_out_of_the_texts_are_named(
    shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "items.csv").write_text("item_id,title,genres,image\na,Title 1,War,\n")
    command = ["encode", str(tmp_path / "items.csv"), "--text-encoder", str(shop / "bert")]
    assert main([*command, "--output", str(tmp_path / "a")]) == 0
    assert "Texts are made of title; --text-fields also takes genres." in capsys.readouterr().out
    assert main([*command, "--output", str(tmp_path / "b"), "--text-fields", "title,genres"]) == 0
    assert "--text-fields" not in capsys.readouterr().out


def test_encode_never_writes_over_a_shop_s_own_items(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = '{"item_id": "a", "title": "Title 1", "stock": 3}\n'
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "items.jsonl").write_text(own)
    (tmp_path / "feed.csv").write_text("item_id,title\nb,Title 2\n")
    encoder = ["--text-encoder", str(shop / "bert")]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("shop")
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "items.csv").write_text("item_id,title\nb,Title 2\n")
    for source, output, told in (
        ("shop/items.jsonl", "./shop", "would replace shop/items.jsonl, which is to be read"),
        ("shop", "shop", "is the folder that is to be read"),
        ("shop", "link", "is the folder that is to be read"),
        # The next call would find two files of items there.
        ("csv", "./csv", "is the folder that is to be read"),
    ):
        assert main(["encode", source, *encoder, "-o", output]) == 2
        assert f"--output {Path(output)} {told}; give another --output" in capsys.readouterr().err
    assert main(["encode", "feed.csv", *encoder, "-o", "shop"]) == 1
    assert "shop holds items.jsonl, which a catalogue would replace, and no catalogue;" in capsys.readouterr().err
    # Nothing was encoded for it, either.
    assert [path.name for path in (tmp_path / "shop").iterdir()] == ["items.jsonl"]
    assert (tmp_path / "shop" / "items.jsonl").read_text() == own

    # A catalogue's folder may be inside of the shop's, and a run may repeat or go on in it, but not from it.
    for source in ("shop", "feed.csv"):
        assert main(["encode", source, *encoder, "-o", "shop/catalog"]) == 0
    assert main(["encode", "shop/catalog", *encoder, "-o", "shop/catalog"]) == 2
    assert ItemCatalog.from_pretrained("shop/catalog").item_ids == ["b"]
    # A feed of another name, or beside what it is made to.
    assert [main(["encode", "feed.csv", *encoder, "-o", "."]) for _ in range(2)] == [0, 0]
    assert ItemCatalog.from_pretrained(tmp_path).item_ids == ["b"]


def test_an_evaluation_ranks_all_items_with_cut_offs_beyond_them(
    model: Path, shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["evaluate", str(model), str(shop / "sequences"), "--json", "--device", "cpu"]) == 0
    numbers = json.loads(capsys.readouterr().out)
    assert numbers["metrics"]["users"] == len(USERS) and numbers["protocol"]["num_items"] == len(ITEMS)
    assert numbers["metrics"]["hr@20"] == numbers["metrics"]["hr@50"] == 1


def test_an_evaluation_with_baselines_is_tested_against_them_and_reported(
    model: Path, shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", str(model), str(shop / "sequences"), "--device", "cpu", "--output", str(tmp_path / "kept")]
    capsys.readouterr()
    assert main([*command, "--baselines", "--ks", "3", "--json"]) == 0
    numbers = json.loads(capsys.readouterr().out)
    assert list(numbers["baselines"]) == ["popularity", "co-occurrence", "similar text"]
    for found in numbers["baselines"].values():
        difference = numbers["metrics"]["hr@3"] - found["metrics"]["hr@3"]
        assert found["comparison"]["hr@3"]["difference"] == pytest.approx(difference)
    assert main(["report", str(tmp_path / "kept"), "--metric", "ndcg@3", "-o", str(tmp_path / "report.html")]) == 0
    assert "report-metrics.png" in capsys.readouterr().out and (tmp_path / "report-metrics.png").is_file()
    assert main([*command, "--baselines"]) == 0
    printed = capsys.readouterr().out
    table = printed.partition("Minus ranking by co-occurrence, paired by user:\n")[2].splitlines()
    assert table[0].split() == ["its", "mean", "difference", "95%", "interval", "p"]
    own, difference = (float(cell) for cell in table[1].split()[1:3])
    assert main([*command, "--baselines", "--json"]) == 0
    numbers = json.loads(capsys.readouterr().out)
    assert own == pytest.approx(numbers["baselines"]["co-occurrence"]["metrics"]["hr@10"], abs=5e-5)
    assert own + difference == pytest.approx(numbers["metrics"]["hr@10"], abs=1e-4)
    *_, explained, _, last = printed.partition("What the log counts")[0].splitlines()
    assert "randomisation" in explained and "bootstrap" in explained
    means = {name: found["metrics"]["ndcg@10"] for name, found in numbers["baselines"].items()}
    best = max(means, key=lambda name: means[name])
    own_ndcg = numbers["metrics"]["ndcg@10"]
    assert last.startswith(
        f"NDCG@10 is {own_ndcg:.4f}, that of the best baseline, {best}, {means[best]:.4f}: the diff"
    )
    assert "coverage@K: the share of all items" in printed
    # Against itself a run differs by chance at most.
    kept = str(tmp_path / "kept")
    assert main(["evaluate", str(model), str(shop / "sequences"), "--device", "cpu", "--compare", kept]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"NDCG@10 is {own_ndcg:.4f}, that of {kept} {own_ndcg:.4f}: the difference of +0.0000 "
        "may be chance, p = 1.000."
    )
    # One user tells of no spread.
    (tmp_path / "log.csv").write_text("user,item,time\nu,0,1\nu,1,2\n")
    assert main(["prepare", str(tmp_path / "log.csv"), "--k-core", "1", "--output", str(tmp_path / "one")]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(model), str(tmp_path / "one"), "--device", "cpu", "--ks", "50", "--baselines"]) == 0
    printed = capsys.readouterr().out
    assert ["hr@50", "1.0000", "-"] in [line.split() for line in printed.splitlines()]
    assert printed.count("\n-: without an interval: one user, or the same value of every user") == 4
    # Without them, none of another evaluation stay.
    assert main(command) == 0
    assert not (tmp_path / "kept" / "baselines.parquet").exists()


def test_two_evaluations_are_compared_at_the_cut_offs_of_both(
    shop: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", str(model), str(shop / "sequences"), "--device", "cpu"]
    kept = str(tmp_path / "kept")
    assert main([*command, "--ks", "2,3", "--output", kept]) == 0
    capsys.readouterr()
    assert main([*command, "--ks", "10,3", "--compare", kept]) == 0
    table = capsys.readouterr().out.partition(f"Minus {kept}, paired by user:\n")[2]
    assert re.findall(r"^ *(ndcg@\S+)", table, re.MULTILINE) == ["ndcg@3"]
    assert re.findall(r"^NDCG@3 is ", table, re.MULTILINE)
    assert refusal(capsys, *command, "--compare", kept, status=2).endswith(
        f"--compare {kept} was measured at the cut-offs 2,3, none of which is in --ks 10,20,50: give --ks 2,3 as well"
    )


def test_an_evaluation_says_how_many_users_it_skipped(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log.csv").write_text("user,item,time\nu,0,1\nu,1,2\nsingle,0,1\nonce,2,1\n")
    assert main(["prepare", str(tmp_path / "log.csv"), "--k-core", "1", "--output", str(tmp_path / "sequences")]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(model), str(tmp_path / "sequences"), "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "\n1 targets" in printed and "\n2 users have no target" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "no such folder: nowhere"),
        (["{shop}"], "holds no run; name the output_dir"),
        (["{shop}/run", "--metric", "ndcg@3"], "no metric 'ndcg@3'; there are hr@10, hr@20"),
        (["{shop}/run", "{shop}/run"], "given twice"),
    ],
)
def test_a_report_that_cannot_be_written_is_one_line(
    model: Path, shop: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert message in refusal(capsys, "report", *(argument.format(shop=shop) for argument in arguments))
