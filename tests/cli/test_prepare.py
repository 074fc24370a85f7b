"""What `prepare` says of what it left out and replaced."""

import json
import logging
from pathlib import Path

import pytest

from mmm4rec_hf.cli import main
from mmm4rec_hf.data import SequenceDatasets

# Item x and user w leave the 2-core together: x has two events, one of them w's, and w has two, one of them x's.
LOG = """user_id,item_id,timestamp
u,a,1400000010
u,b,1400000020
u,a,1400000030
v,b,1400000040
v,a,1400000050
v,x,1400000060
w,x,1400000070
w,y,1400000080
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.csv"
    path.write_text(LOG)
    return path


def test_formats_of_times_are_told_as_a_shell_takes_them(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(time: str, written: str) -> str:
        log.write_text(f"user_id,item_id,timestamp\nu,a,{time}\n")
        assert main(["prepare", str(log), "--output", str(tmp_path / "x"), "--time-format", written]) == 1
        return capsys.readouterr().err.strip().partition(", read by ")[2]

    told_short = "--time-format %m/%d/%Y; day and month may be swapped: give --time-format %d/%m/%Y"
    assert told("26/01/2008", "%m/%d/%Y") == told_short
    assert told("26/01/2008 08:33:53 PM", "%m/%d/%Y %I:%M:%S %p") == (
        "--time-format '%m/%d/%Y %I:%M:%S %p'; day and month may be swapped: give --time-format '%d/%m/%Y %I:%M:%S %p'"
    )


def test_what_the_k_core_took_is_told_with_the_remedy(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["prepare", str(log), "--output", str(tmp_path / "sequences"), "--k-core"]
    assert main([*line, "2"]) == 0
    out = capsys.readouterr().out
    words = [row.split() for row in out.splitlines()]
    assert ["users", "below", "k", "core", "1"] in words and ["items", "below", "k", "core", "2"] in words
    told = (
        "2 of 4 items and 1 of 3 users have fewer than 2 events\namong those that stay, and are left out; --k-core 1"
    )
    assert f"{told} keeps them.\n" in out
    assert main([*line, "2", "--json"]) == 0
    statistics = json.loads(capsys.readouterr().out)["statistics"]
    assert (statistics["users_below_k_core"], statistics["items_below_k_core"]) == (1, 2)
    assert main([*line, "1"]) == 0
    out = capsys.readouterr().out
    assert ["users", "below", "k", "core", "0"] in [row.split() for row in out.splitlines()]
    assert "left out" not in out
    cuts = ["--split", "temporal", "--valid-from", "2014-05-13T16:54:25", "--test-from", "2014-05-14"]
    # Before the cut, 1400000065, x and v's event of it alone are out; w and y are of after it.
    assert main([*line, "2", *cuts]) == 0
    out = capsys.readouterr().out
    assert (
        "1 of 3 items and 0 of 2 users have fewer than 2 events\namong those that stay before 2014-05-13T16:54:25,"
        in out
    )


def test_sequences_that_are_replaced_by_others_are_told(
    log: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output = tmp_path / "sequences"
    line = ["prepare", str(log), "--output", str(output), "--k-core"]

    def told(*options: str) -> list[str]:
        caplog.clear()
        assert main([*line, *options]) == 0
        return [message for message in caplog.messages if "held sequences" in message]

    caplog.set_level(logging.WARNING, "mmm4rec_hf")
    assert told("2") == told("2") == []
    assert told("1") == [
        f"{output} held sequences prepared with k_core=2, which are replaced by ones with k_core=1: a model that was "
        "trained on the old ones is no longer tested on them; to have both, name another --output"
    ]
    assert told("1") == []
    (message,) = told("1", "--time-unit", "s", "--split", "temporal", "--valid-from", "1400000050", "--test-from",
                      "1400000070")  # fmt: skip
    assert "with split=leave_one_out, no valid_from, no test_from, no time_unit, which are" in message
    assert "by ones with split=temporal, valid_from=1400000050, test_from=1400000070, time_unit=s:" in message
    # What cannot be read is replaced like the rest.
    for damaged in ("{", "[]"):
        (output / "prepare.json").write_text(damaged)
        assert told("1") == []


def test_what_a_user_put_beside_the_sequences_stays_and_the_command_is_refused_before_the_work(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "shop"
    line = ["--output", str(output), "--k-core", "1", "--shards", "1"]
    log.write_text(f"{LOG}u,x,1400000090\n")  # u has an event to train on
    # Given again, over shards too, it replaces what it wrote.
    assert [main(["prepare", str(log), *line]) for _ in range(2)] == [0, 0]
    for name in ("catalog/catalog.json", "run/model/config.json", "shards/notes.txt"):
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (output / name).write_text("mine")
    inside = output / "log.csv"
    inside.write_text(LOG)
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}

    def load(*arguments: object, **options: object) -> None:
        raise AssertionError("the log was read")

    capsys.readouterr()
    with monkeypatch.context() as patched:
        patched.setattr("mmm4rec_hf.data.load_interactions", load)
        for source in (log, inside):
            assert main(["prepare", str(source), *line]) == 1
            assert capsys.readouterr().err == (
                f"mmm4rec: error: {output} holds something else than what is written there, which would be lost: "
                "catalog/, log.csv, run/, shards/notes.txt; name another folder, or move this away\n"
            )
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before


def test_sequences_whose_rows_were_shuffled_are_prepared_again(log: Path, tmp_path: Path) -> None:
    line = ["prepare", str(log), "--output", str(tmp_path / "sequences"), "--k-core", "1"]
    assert main(line) == 0
    # The library `datasets` keeps the order beside the rows.
    assert len(SequenceDatasets.load_from_disk(tmp_path / "sequences")["test"].shuffle(seed=0)) == 3
    assert list((tmp_path / "sequences").glob("cache-*.arrow"))
    assert main(line) == 0
    assert not list((tmp_path / "sequences").glob("cache-*.arrow"))


@pytest.mark.parametrize(
    ("cuts", "told"),
    [
        # v and u have three events, so that one validates, one tests, and the first has no history.
        (None, ["the split 'train' is empty, as no user has four events: finetune and pretrain have nothing"]),
        (
            ("2014-05-14", "2015-01-01"),
            [
                "the split 'validation' is empty, as no user has an event from valid_from to before test_from and one "
                "before it: finetune cannot choose the best epoch",
                "the split 'test' is empty, as no user has an event from test_from on and one before it: finetune and",
            ],
        ),
        # u's second event trains, its third validates, and v's second tests.
        (("2014-05-13T16:53:50Z", "2014-05-13T16:54:01Z"), []),
    ],
)
def test_splits_without_rows_are_warned_of(
    log: Path, tmp_path: Path, cuts: tuple[str, str] | None, told: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    line = ["prepare", str(log), "--output", str(tmp_path / "sequences"), "--k-core", "1"]
    if cuts is not None:
        line += ["--split", "temporal", "--valid-from", cuts[0], "--test-from", cuts[1]]
    caplog.set_level(logging.WARNING, "mmm4rec_hf")
    assert main(line) == 0
    messages = [message for message in caplog.messages if "is empty" in message]
    assert len(messages) == len(told)
    assert all(message.startswith(expected) for message, expected in zip(messages, told, strict=True))


def test_sequences_of_other_items_than_a_model_or_a_catalogue_are_told(
    shop: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, output = tmp_path / "log.csv", tmp_path / "sequences"
    # The shop's items are "0" and "1"; "w" and "x" it does not have.
    rows = [f"{user},{item},{1_400_000_000 + n}" for user in "uv" for n, item in enumerate(("0", "x", "1", "w"))]
    log.write_text("\n".join(["user_id,item_id,timestamp", *rows]))
    assert main(["prepare", str(log), "--output", str(output), "--k-core", "2"]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(shop / "run"), str(output)]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mmm4rec: error: ")]
    # As the fixture prepared what the model was trained on.
    assert line == (
        f"mmm4rec: error: {output} (prepared with k_core=2) holds 2 items with events that the model {model} does not "
        f"know: 'w', 'x'; it was trained on other sequences ({shop / 'sequences'} as it was, prepared with k_core=1): "
        "evaluate it on those, or prepare them again, with --k-core 1 as then, or with the model's items alone, "
        f"--items {model / 'catalog'}"
    )
    # The remedy is one.
    alone = ["--items", str(model / "catalog")]
    assert main(["prepare", str(log), "--output", str(tmp_path / "alone"), "--k-core", "1", *alone]) == 0
    assert main(["evaluate", str(shop / "run"), str(tmp_path / "alone")]) == 0
    capsys.readouterr()
    recipe = [f"sequences={output}", f"catalog={shop / 'catalog'}", f"output_dir={tmp_path / 'run'}"]
    assert main(["finetune", *recipe]) == 1
    error = capsys.readouterr().err
    assert (
        f"{output} (prepared with k_core=2) holds 2 items with events that are not among the 12 of the catalogue "
        f"{shop / 'catalog'}: 'w', 'x'; it was made for other sequences: make one for these, mmm4rec encode ITEMS "
        f"--sequences {output} ..., or prepare these again with the catalogue's items alone, mmm4rec prepare LOG "
        f"--items {shop / 'catalog'} ..."
    ) in error
