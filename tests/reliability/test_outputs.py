"""Outputs are whole or not there, and what a killed or failed command leaves is never taken for whole."""

import errno
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, BertTokenizerFast

from mmm4rec_hf import ItemCatalog
from mmm4rec_hf.cli import main
from mmm4rec_hf.data import SequenceDatasets
from mmm4rec_hf.evaluation.evaluator import Evaluation
from mmm4rec_hf.evaluation.protocol import read_preparation
from mmm4rec_hf.evaluation.yardsticks import load_baselines
from mmm4rec_hf.outputs import refuse_other_files, replace_file, replace_folder
from mmm4rec_hf.training.checkpoints import last_whole_checkpoint, remove_old_checkpoints, save_checkpoint
from mmm4rec_hf.training.saving import save_encoded_catalog

KILLED = """
import os, signal, sys
from pathlib import Path
from mmm4rec_hf.outputs import replace_file, replace_folder

with replace_folder(Path("folder")) as folder, replace_file(Path("file")) as file:
    (folder / "part").write_text("new")
    file.write_text("new")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="processes are told by their number")
def test_what_a_killed_process_left_is_removed_by_the_next_one(tmp_path: Path, repository: Path) -> None:
    (tmp_path / "file").write_text("old")
    environment = os.environ | {"PYTHONPATH": str(repository)}
    killed = subprocess.run([sys.executable, "-c", KILLED], cwd=tmp_path, env=environment)
    assert killed.returncode == -9 and len(names(tmp_path)) == 3
    assert (tmp_path / "file").read_text() == "old" and not (tmp_path / "folder").exists()
    left = [name for name in names(tmp_path) if name.endswith(".partial")]
    # Of a process that runs, the first one; and of another machine.
    running = tmp_path / left[0].replace(left[0].split("-")[-2], "1")
    elsewhere = tmp_path / f".folder.{'0' * 6}-{left[0].split('-', 1)[1]}"
    # Killed between two renames, where a system cannot swap names: the earlier folder has another name.
    between = tmp_path / left[0].replace(".folder.", ".other.").replace(".file.", ".other.").replace(
        ".partial", ".replaced"
    )
    for folder in (running, elsewhere, between):
        folder.mkdir()
    (between / "part").write_text("old")
    with replace_folder(tmp_path / "folder") as partial:
        (partial / "part").write_text("new")
    assert names(tmp_path) == sorted([running.name, elsewhere.name, "file", "folder", "other"])
    assert (tmp_path / "other" / "part").read_text() == "old"


def test_a_folder_that_is_replaced_is_never_absent(tmp_path: Path) -> None:
    target, seen, stop = tmp_path / "folder", [], threading.Event()
    with replace_folder(target) as partial:
        (partial / "part").write_text("0")

    def look() -> None:
        while not stop.is_set():
            seen.append(target.is_dir())

    thread = threading.Thread(target=look)
    thread.start()
    for number in range(100):
        with replace_folder(target) as partial:
            (partial / "part").write_text(str(number))
    stop.set()
    thread.join()
    assert (target / "part").read_text() == "99" and names(tmp_path) == ["folder"]
    if sys.platform == "linux":
        assert all(seen)


@pytest.mark.parametrize("can_swap", [True, False])
def test_an_error_keeps_the_earlier_output(tmp_path: Path, can_swap: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not can_swap:
        monkeypatch.setattr("mmm4rec_hf.outputs._renameat2", lambda: None)
    with replace_folder(tmp_path / "folder") as folder, replace_file(tmp_path / "file") as file:
        (folder / "part").write_text("old")
        file.write_text("old")
    with (
        pytest.raises(KeyboardInterrupt),
        replace_folder(tmp_path / "folder"),
        replace_file(tmp_path / "file") as file,
    ):
        file.write_text("new")
        raise KeyboardInterrupt
    assert (tmp_path / "folder" / "part").read_text() == (tmp_path / "file").read_text() == "old"
    with replace_folder(tmp_path / "folder") as folder:
        (folder / "other").write_text("new")
    assert names(tmp_path) == ["file", "folder"] and names(tmp_path / "folder") == ["other"]


def test_threads_that_write_one_file_do_not_mix_their_parts(tmp_path: Path) -> None:
    def write(text: str) -> None:
        for _ in range(30):
            with replace_file(tmp_path / "file") as partial, partial.open("w") as stream:
                for _ in range(200):
                    stream.write(text)

    threads = [threading.Thread(target=write, args=(text,)) for text in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "file").read_text() in {text * 200 for text in "abc"} and names(tmp_path) == ["file"]


def test_a_link_stays_and_what_it_names_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk", target_is_directory=True)
    with replace_folder(tmp_path / "link") as partial:
        (partial / "part").write_text("new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "disk" / "part").read_text() == "new"
    assert names(tmp_path) == ["disk", "link"]


def test_a_mount_point_is_refused_before_anything_is_written() -> None:
    # /proc is one on every Linux; the root is one everywhere.
    target = Path("/proc") if Path("/proc").is_mount() else Path("/")
    with (
        pytest.raises(ValueError, match="is the mount point of a disk .*; name a folder inside it"),
        replace_folder(target),
    ):
        raise AssertionError("a folder was made")


OWN = ("about.json", "part-*.bin", "inner/part.bin", "pictures/")


def fill(folder: Path, *paths: str) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("old")


@pytest.mark.parametrize(
    ("lies_there", "named"),
    [
        (["thesis.txt"], "thesis.txt"),
        (["run/model/weights", "log.csv"], "log.csv, run/"),
        (["part-7.txt", "inner/notes/a.txt", "inner/b.txt"], "inner/b.txt, inner/notes/, part-7.txt"),
        # A star ends at a slash, and a folder is no file.
        (["part-/x.bin", "part-9.bin/x"], "part-/, part-9.bin/"),
        ([f"{n}.txt" for n in range(9)], "0.txt, 1.txt, 2.txt, 3.txt, 4.txt, ..."),
        # Renamed away by a command that was killed before it could rename it back.
        ([".run.0a1b2c-12-01234567.replaced/model"], ".run.0a1b2c-12-01234567.replaced/"),
    ],
)
def test_a_folder_that_holds_more_than_is_written_there_is_not_replaced(
    tmp_path: Path, lies_there: list[str], named: str
) -> None:
    target = tmp_path / "folder"
    fill(target, "about.json", "part-1.bin", "inner/part.bin", *lies_there)
    before = sorted(target.rglob("*"))
    message = f"holds something else than what is written there, which would be lost: {named}; name another folder, or"
    with pytest.raises(ValueError, match=re.escape(message)), replace_folder(target, OWN):
        raise AssertionError("the work was begun")
    assert sorted(target.rglob("*")) == before and names(tmp_path) == ["folder"]


def test_what_was_written_before_is_replaced_with_what_commands_and_systems_leave(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    own = ["about.json", "part-1.bin", "inner/part.bin", "pictures/a/b.png"]
    left = [".inner.0a1b2c-12-01234567.partial/x", ".pictures.0a1b2c-12-01234567.replaced/c.png",
            "inner/.part.bin.0a1b2c-12-01234567.partial/part.bin", ".DS_Store", "inner/._x"]  # fmt: skip
    fill(target, *own, *left)
    (target / "empty").mkdir()
    with replace_folder(target, OWN) as partial:
        fill(partial, "about.json")
    assert names(target) == ["about.json"] and names(tmp_path) == ["folder"]


def test_a_folder_without_the_file_that_tells_it_and_a_file_are_others(tmp_path: Path) -> None:
    fill(tmp_path, "folder/part-1.bin", "file")
    (tmp_path / "empty").mkdir()
    for target, own, message in (
        ("folder", OWN, "would be lost: part-1.bin; name another folder"),
        ("folder", (), "would be lost: part-1.bin; name another folder"),
        ("file", OWN, "file is a file and would be replaced by a folder; name another folder"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)), replace_folder(tmp_path / target, own):
            raise AssertionError("the work was begun")
    for target in ("empty", "absent"):
        with replace_folder(tmp_path / target, ()) as partial:
            fill(partial, "part")
        assert names(tmp_path / target) == ["part"]


def test_what_is_put_into_a_folder_during_the_work_is_not_lost(tmp_path: Path) -> None:
    fill(tmp_path / "folder", "about.json")
    with (
        pytest.raises(ValueError, match="would be lost: thesis.txt"),
        replace_folder(tmp_path / "folder", OWN) as partial,
    ):
        fill(partial, "about.json")
        fill(tmp_path / "folder", "thesis.txt")
    assert names(tmp_path / "folder") == ["about.json", "thesis.txt"] and names(tmp_path) == ["folder"]


def test_what_else_lies_in_a_folder_goes_along_where_that_is_asked_for(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    ours = ["about.json", "part-1.bin", "inner/part.bin", "pictures/a/b.png", "code.py"]
    left = [".inner.0a1b2c-12-01234567.partial/x", ".DS_Store"]
    fill(target, *ours, *left, "LICENSE", "inner/note.txt", "notes/deep/paper.txt")
    (target / "link").symlink_to("notes", target_is_directory=True)
    with replace_folder(target, OWN, keep_others=True) as partial:
        # Of no name that was told, and written all the same.
        for name in ("about.json", "code.py"):
            (partial / name).write_text("new")
        fill(target, "put-there-meanwhile")
    found = {path.relative_to(target).as_posix(): path.read_text() for path in target.rglob("*") if path.is_file()}
    assert found == {
        "about.json": "new", "code.py": "new", "LICENSE": "old", "inner/note.txt": "old",
        "notes/deep/paper.txt": "old", "put-there-meanwhile": "old",
    }  # fmt: skip
    assert os.readlink(target / "link") == "notes" and names(tmp_path) == ["folder"]
    # Of a folder that is known to be the caller's, whatever is missing there.
    (target / "about.json").unlink()
    with replace_folder(target, OWN, keep_others=True) as partial:
        fill(partial, "about.json")
    assert (target / "LICENSE").read_text() == "old"
    fill(tmp_path, "file")
    with pytest.raises(ValueError, match="file is a file"), replace_folder(tmp_path / "file", OWN, keep_others=True):
        raise AssertionError("the work was begun")


def test_of_another_folder_what_has_the_same_names_is_refused_where_the_rest_goes_along(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    fill(target, "thesis.txt", "notes/a.txt")
    refuse_other_files(target, OWN, keep_others=True)
    fill(target, "part-7.bin", "inner/part.bin", "pictures/a.png")
    with pytest.raises(ValueError, match=r"would be lost: inner/, part-7\.bin, pictures/; name another folder"):
        refuse_other_files(target, OWN, keep_others=True)
    fill(target, "about.json")
    refuse_other_files(target, OWN, keep_others=True)
    refuse_other_files(tmp_path / "absent", OWN, keep_others=True)


def test_a_link_in_a_folder_is_not_followed(tmp_path: Path) -> None:
    fill(tmp_path, "folder/about.json", "disk/part.bin")
    (tmp_path / "folder" / "inner").symlink_to(tmp_path / "disk", target_is_directory=True)
    with pytest.raises(ValueError, match="would be lost: inner; name"), replace_folder(tmp_path / "folder", OWN):
        raise AssertionError("the work was begun")
    assert (tmp_path / "disk" / "part.bin").read_text() == "old"


def test_the_name_that_a_writer_puts_into_a_file_is_that_of_the_file(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(3)}, tmp_path / "direct.ckpt")
    (tmp_path / "again").mkdir()
    with replace_file(tmp_path / "again" / "direct.ckpt") as partial:
        torch.save({"weight": torch.ones(3)}, partial)
    assert (tmp_path / "again" / "direct.ckpt").read_bytes() == (tmp_path / "direct.ckpt").read_bytes()


@pytest.mark.parametrize(
    "found", [OSError(errno.ENOSPC, "Error writing bytes to file"), RuntimeError("unexpected pos 64 vs 0")], ids=repr
)
def test_a_full_disk_is_said_in_the_same_words(
    tmp_path: Path, found: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The second error does not tell: a small file that cannot be written does.
    monkeypatch.setattr("mmm4rec_hf.outputs._is_full", lambda folder: folder == tmp_path)
    with pytest.raises(OSError, match=r"No space left on device: '.*/weights'"), replace_file(tmp_path / "weights"):
        raise found
    monkeypatch.setattr("mmm4rec_hf.outputs._is_full", lambda folder: False)
    with pytest.raises(RuntimeError, match="^another$"), replace_file(tmp_path / "weights"):
        raise RuntimeError("another")
    assert names(tmp_path) == []


def catalog_of(folder: Path, shade: int) -> ItemCatalog:
    records = []
    for name in ("a", "b", "c"):
        Image.new("RGB", (8, 8), (shade,) * 3).save(folder / f"{name}{shade}.png")
        records.append({"title": f"{name} {shade}", "image": f"{name}{shade}.png"})
    features = {"text_features": np.full((3, 2), shade), "image_features": np.full((3, 2), -shade)}
    return ItemCatalog(["a", "b", "c"], records, root=folder, **features)


@pytest.mark.parametrize("failing", ["items.jsonl", "features.safetensors", "catalog.json", "b.png"])
def test_a_catalogue_that_cannot_be_written_leaves_the_earlier_one_with_its_pictures(
    tmp_path: Path, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog_of(tmp_path, 10).save_pretrained(tmp_path / "saved", save_images=True)

    def refuse(path: Path) -> Any:
        if path.name == failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return replace_file(path)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr("mmm4rec_hf.items.storage.replace_file", refuse)
        catalog_of(tmp_path, 200).save_pretrained(tmp_path / "saved", save_images=True)
    for shade in (10, 200):
        if shade == 200:
            catalog_of(tmp_path, 200).save_pretrained(tmp_path / "saved", save_images=True)
        made = ItemCatalog.from_pretrained(tmp_path / "saved")
        assert made["b"]["title"] == f"b {shade}" and made.text_features[1, 0] == shade
        assert [np.asarray(made.picture(name)).max() for name in ("a", "b", "c")] == [shade] * 3
        # Which pictures are a save's own; nothing of the save that failed.
        assert [path.name for path in (tmp_path / "saved").rglob(".*")] == [".images.json"]


def write_log(path: Path, users: int) -> None:
    rows = [(f"u{u}", f"i{(u + n) % 9}", 1_400_000_000 + 900 * n) for u in range(users) for n in range(6)]
    pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").write_csv(path)


def test_sequences_whose_shards_cannot_be_written_leave_the_earlier_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for users in (10, 20):
        write_log(tmp_path / f"{users}.csv", users)
    output = ["--output", str(tmp_path / "sequences")]
    assert main(["prepare", str(tmp_path / "10.csv"), *output, "--k-core", "2", "--shards", "2"]) == 0
    assert main(["prepare", str(tmp_path / "20.csv"), *output, "--k-core", "1", "--shards", "500"]) == 1
    assert "the number of shards must be from 1 to 20" in capsys.readouterr().err.splitlines()[-1]
    assert len(SequenceDatasets.load_from_disk(tmp_path / "sequences").user_ids) == 10
    assert read_preparation(tmp_path / "sequences")["k_core"] == 2
    assert len(list((tmp_path / "sequences" / "shards").glob("shard-*"))) == 2
    assert names(tmp_path) == ["10.csv", "20.csv", "sequences"]


def evaluation_of(above: list[int]) -> Evaluation:
    columns = {"user_id": list("abcd"), "item_id": list("wxyz"), "above": above, "level": [1] * 4, "loss": [1.0] * 4,
               "history_length": ["1-4"] * 4, "target_popularity": ["head"] * 4}  # fmt: skip
    protocol = {"split": "test", "num_items": 200, "exclude_history": False, "score_padding_item": False, "ks": [5],
                "prepared": {}, "users_without_target": 0}  # fmt: skip
    return Evaluation(pl.DataFrame(columns), protocol, {})


def test_an_evaluation_that_cannot_be_written_leaves_the_earlier_one_and_its_baselines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, popularity = evaluation_of([0, 0, 9, 9]), evaluation_of([0, 9, 9, 9]), evaluation_of([9, 9, 9, 0])
    first.save(tmp_path, {"popularity": popularity})

    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(pl.DataFrame, "write_parquet", full)
        second.save(tmp_path, {"popularity": first})
    # Two of four, one of four and one of four stand at the first place.
    assert Evaluation.load(tmp_path).metrics["hr@5"] == 0.5
    assert load_baselines(tmp_path, first)["popularity"].metrics["hr@5"] == 0.25
    second.save(tmp_path)
    assert Evaluation.load(tmp_path).metrics["hr@5"] == 0.25 and load_baselines(tmp_path, second) == {}


def test_a_run_goes_on_without_the_checkpoints_that_a_killed_one_had_not_removed(tmp_path: Path) -> None:
    for step in (2, 4, 6, 8):
        save_checkpoint(tmp_path, step, lambda folder: (folder / "weights").write_text("w"), keep=9)
    (tmp_path / ".checkpoint-000000010.partial").mkdir()
    (tmp_path / "checkpoint-000000008" / "weights").write_text("damaged")
    checkpoint = last_whole_checkpoint(tmp_path)
    assert checkpoint is not None and checkpoint.name == "checkpoint-000000006"
    remove_old_checkpoints(tmp_path, 6, keep=2)
    # A damaged one is no reason to remove a whole one.
    assert names(tmp_path) == [f"checkpoint-{step:09d}" for step in (4, 6, 8)]


def test_the_saved_tokenizer_does_not_tell_whether_this_run_used_it(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "title"]))
    BertTokenizerFast(vocab=str(tmp_path / "vocab.txt"), model_max_length=4).save_pretrained(tmp_path / "bert")
    encoder = SimpleNamespace(tokenizer=AutoTokenizer.from_pretrained(tmp_path / "bert"), image_processor=None)
    catalog = ItemCatalog(["a"], [{"title": "title"}], text_features=[[1.0, 1.0]])
    save_encoded_catalog(catalog, encoder, tmp_path / "one")
    encoder.tokenizer(["title"] * 2, padding=True, truncation=True)
    save_encoded_catalog(catalog, encoder, tmp_path / "other")
    files = [(tmp_path / name / "processor" / "tokenizer.json").read_bytes() for name in ("one", "other")]
    assert files[0] == files[1]
