"""What someone meets who brings files of their own: other names, other ids, other folders."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import huggingface_hub.constants
import pytest
from PIL import Image

from mmm4rec_hf import ItemCatalog, MMM4RecForSequentialRecommendation
from mmm4rec_hf.cli import build_parser, main
from mmm4rec_hf.cli.wording import as_options
from mmm4rec_hf.saved_models import find_model

from .conftest import MODEL

NAMES = ["SKU", "Name", "Long description", "Photo"]


@pytest.fixture
def products(tmp_path: Path) -> Path:
    """A table of products with the names of another program; one picture is missing."""
    rows = [[f"00{n}", f"Title {n}", f"Long words of {n}", f"photos/{n}.png"] for n in range(4)]
    (tmp_path / "photos").mkdir()
    for n in range(3):
        Image.new("RGB", (20, 20), (60 * n, 0, 0)).save(tmp_path / "photos" / f"{n}.png")
    write(tmp_path / "products.csv", NAMES, rows)
    return tmp_path / "products.csv"


def write(path: Path, header: list[str], rows: list[list[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def renamed(products: Path, *header: str) -> Path:
    with products.open(encoding="utf-8") as file:
        _, *rows = csv.reader(file)
    path = products.with_name("renamed.csv")
    write(path, list(header), rows)
    return path


def encode(path: Path, shop: Path, *options: str) -> int:
    encoders = ["--text-encoder", str(shop / "bert"), "--image-encoder", str(shop / "vit")]
    return main(["encode", str(path), "--output", str(path.with_name("catalog")), *encoders, *options])


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.splitlines()[-1]


def test_usual_names_of_title_and_picture_are_found_and_said(
    products: Path, shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert encode(products, shop) == 0
    printed = capsys.readouterr().out
    assert "Texts are made of title; --text-fields also takes Long description." in printed
    assert "Name is read as the title.\nPhoto is read as the picture.\n" in printed
    assert "--text-fields also takes Long description." in printed and "0 without text, 1 without a picture" in printed
    catalog = ItemCatalog.from_pretrained(products.with_name("catalog"))
    assert catalog.titles == [f"Title {n}" for n in range(4)] and catalog.item_ids == [f"00{n}" for n in range(4)]
    assert catalog.image_mask is not None and catalog.image_mask.tolist() == [True] * 3 + [False]


def test_unusual_names_are_asked_for_before_anything_is_encoded(
    products: Path, shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = renamed(products, "SKU", "Label", "Words", "File")
    assert encode(path, shop) == 2
    assert "no item has a text: none has title, brand, description, they have Label, Words, File" in last_line(capsys)
    assert encode(path, shop, "--title-column", "Label") == 2
    assert "'File' holds 'photos/0.png': give --image-column 'File'" in last_line(capsys)
    assert encode(path, shop, "--title-column", "Labels") == 2
    assert "no item has a field 'Labels'; there are Label, Words, File" in last_line(capsys)
    table = ["encode", str(path), "--text-encoder", str(shop / "bert"), "--output", str(path.with_name("x"))]
    assert main([*table, "--id-column", "Labl"]) == 1
    told = "has an item id in 'Labl'; did you mean 'Label'? they have SKU, Label, Words, File"
    assert last_line(capsys).endswith(told)
    assert main([*table, "--id-column", "Label", "--title-column", "Label"]) == 2
    assert "no item has a field 'Label' beside its id; there are" in last_line(capsys)
    assert not path.with_name("catalog").exists()
    assert encode(path, shop, "--title-column", "Label", "--image-column", "File") == 0
    assert ItemCatalog.from_pretrained(path.with_name("catalog")).titles[0] == "Title 0"


def test_a_name_that_texts_are_made_of_is_the_title_too(
    products: Path, shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert encode(products, shop, "--text-fields", "Name,Long description") == 0
    assert ", 0 without text, 1 without a picture" in capsys.readouterr().out.replace(";", ",")
    catalog = ItemCatalog.from_pretrained(products.with_name("catalog"))
    assert catalog.titles[0] == "Title 0" and catalog["000"]["Name"] == "Title 0"
    assert catalog.source_fields == {"title": "Name", "image": "Photo"}


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Products without pictures, two of them of one text and one of none."""
    rows = [["a", "Title 1"], ["b", "Title 2"], ["c", "Title 1"], ["d", ""], ["e", "Title 3"]]
    write(tmp_path / "texts.csv", ["item_id", "title"], rows)
    return tmp_path / "texts.csv"


def test_distinct_texts_are_counted(texts: Path, shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["encode", str(texts), "--text-encoder", str(shop / "bert"), "--output", str(texts.with_name("catalog"))]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "5 items, 3 distinct texts, 1 without text\n2 items share their text with another" in printed
    assert main([*command, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["items"], summary["distinct_texts"], summary["without_text"]) == (5, 3, 1)


def test_a_shop_of_texts_needs_no_image_encoder(
    texts: Path, shop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(shop)  # where the recorded encoder is found
    folder = texts.parent
    log = [[f"u{n}", "abcde"[(n + place) % 5], str(1_400_000_000 + place)] for n in range(6) for place in range(4)]
    write(folder / "log.csv", ["user_id", "item_id", "timestamp"], log)
    sequences, catalog, run = (str(folder / name) for name in ("sequences", "catalog", "run"))
    assert main(["prepare", str(folder / "log.csv"), "--k-core", "1", "--output", sequences]) == 0
    command = ["encode", str(texts), "--sequences", sequences, "--text-encoder", "bert", "--output", catalog]
    assert main(command) == 0
    said = capsys.readouterr()
    assert "No picture was looked at: --image-encoder was left out.\n" in said.out and "picture" not in said.err
    sizes = [f"model.{name}={value}" for name, value in MODEL.items()]
    recipe = [f"sequences={sequences}", f"catalog={catalog}", f"output_dir={run}", "training.num_train_epochs=1"]
    assert main(["finetune", *recipe, *sizes]) == 0
    printed = capsys.readouterr().out
    # The last items of six users are d, e, a, b, c and d, and a has the text of c.
    assert "\n6 targets, 2 of them have the same score as another item;" in printed
    assert "cannot be told apart: train with model.use_item_bias=true" in printed
    assert re.search(r"\nNDCG@10 is [01]\.\d{4}, that of the best baseline, [a-z -]+, [01]\.\d{4}: the diff", printed)
    assert main(["evaluate", run, sequences, "--device", "cpu", "--baselines", "--subgroups"]) == 0
    (last,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("NDCG@10 is ")]
    assert last in printed.splitlines()
    assert main(["recommend", run, "--device", "cpu", "--history", "a", "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    # Texts alone tell the four others apart.
    assert len({round(entry["image_score"], 5) for entry in entries}) == 1
    assert len({round(entry["score"], 5) for entry in entries}) == len(entries) == 4
    # A table has no column that says the same of all.
    assert main(["recommend", run, "--device", "cpu", "--history", "a"]) == 0
    header, *table, note = capsys.readouterr().out.splitlines()
    assert header.split() == ["rank", "score", "text", "item", "title"] and len(table) == 4
    part = entries[0]["image_score"]
    assert note == f"No item has a picture of its own: {part:.3f} of each score is the picture part of all."
    score, text = (float(cell) for cell in table[0].split()[1:3])
    assert score == pytest.approx(text + part, abs=2e-3)
    log_file = str(folder / "log.csv")
    assert main(["recommend", run, "--device", "cpu", "--input", log_file, "--user", "u0"]) == 0
    assert "picture of its own" in (printed := capsys.readouterr().out) and " picture  " not in printed
    assert main(["recommend", run, "--device", "cpu", "--history", "a", "--output", str(folder / "x.csv")]) == 0
    assert "image_score" in (folder / "x.csv").read_text().splitlines()[0]
    capsys.readouterr()
    assert main(["recommend", run, "--device", "cpu", "--history", "b", "--json"]) == 0
    scores = {entry["item_id"]: entry["score"] for entry in json.loads(capsys.readouterr().out)}
    assert scores["a"] == pytest.approx(scores["c"], abs=1e-6) and scores["a"] != pytest.approx(scores["e"], abs=1e-4)
    items = ItemCatalog.from_pretrained(catalog)
    items.add_items([{"item_id": "new", "name": "Title 1"}])
    assert items.image_mask is not None and not items.image_mask.any()
    assert items.text_features is not None and items.image_features is not None
    assert items.text_features[-1] == pytest.approx(items.text_features[0], abs=1e-5)
    model = MMM4RecForSequentialRecommendation.from_pretrained(folder / "run" / "model")
    model.set_items(items)


def test_pictures_that_nobody_looks_at_are_counted(
    products: Path, shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    catalog = str(products.with_name("catalog"))
    assert main(["encode", str(products), "--text-encoder", str(shop / "bert"), "--output", catalog]) == 0
    assert "--image-encoder was left out; 4 items have one." in capsys.readouterr().out
    assert main(["encode", str(products), "--image-encoder", str(shop / "vit"), "--output", catalog + "-2"]) == 0
    assert "4 items, 1 without a picture\nNo text was looked at: --text-encoder" in capsys.readouterr().out


def test_one_picture_for_all_and_pictures_that_are_not_there_are_said_with_their_count(
    products: Path, shop: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with products.open(encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    write(products, header, [[*row[:3], "photos/0.png"] for row in rows])
    assert encode(products, shop, "--output", str(products.with_name("one"))) == 0
    assert caplog.text.count("the pictures of all 4 items that have one are alike: they tell no items apart") == 1
    caplog.clear()
    write(products, header, [rows[0], *([*row[:3], f"pictures/{row[0]}.png"] for row in rows[1:])])
    assert encode(products, shop, "--output", str(products.with_name("few"))) == 0
    assert caplog.text.count("no such file") == 1
    assert "3 of 4 pictures cannot be used and count as missing: 3 no such file (paths start from" in caplog.text
    assert str(products.parent) in caplog.text and "root= names another place" in caplog.text
    # None at all is no catalogue of pictures.
    root = str(products.parent.parent)
    assert encode(products, shop, "--output", str(products.with_name("none")), "--image-root", root) == 1
    told = last_line(capsys)
    assert "none of the 4 pictures can be used; the first is 'photos/0.png': no such file. Paths" in told
    assert (
        f"Paths start from {root}; name another folder by --image-root" in told
        and not products.with_name("none").exists()
    )


def test_what_is_not_there_is_told_before_anything_else(
    products: Path, shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = ["--output", str(tmp_path / "none")]
    assert main(["encode", str(tmp_path / "nowhere.csv"), *output]) == 1
    assert last_line(capsys) == f"mmm4rec: error: no such file or folder: {tmp_path}/nowhere.csv"
    assert main(["encode", str(products), *output]) == 2 and "no encoder was named" in last_line(capsys)
    for absent in (tmp_path / "pictures", products):
        assert encode(products, shop, "--image-root", str(absent)) == 1
        assert last_line(capsys) == (
            f"mmm4rec: error: no such folder: {absent} (given as --image-root, where paths of pictures start)"
        )


def test_a_named_column_is_not_told_again_unless_another_gives_way(
    products: Path, shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = renamed(products, "SKU", "film", "title", "cover")
    columns = ["--title-column", "film", "--image-column", "cover"]
    assert encode(path, shop, *columns) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("film is read as the title, instead of what 4 items have as title.\n")
    assert "cover is read" not in printed
    path = renamed(products, "SKU", "film", "words", "cover")
    assert encode(path, shop, *columns) == 0
    assert "is read as" not in capsys.readouterr().out


def test_other_items_in_the_place_of_a_catalogue_are_told(
    products: Path, shop: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def replaced() -> list[str]:
        messages = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        caplog.clear()
        return [message for message in messages if "holds a catalogue" in message]

    with products.open(encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert encode(products, shop) == 0 and encode(products, shop) == 0
    assert replaced() == []  # the first, and the same again
    write(products, header, [*rows[1:], ["x", "X", "x", ""], ["y", "Y", "y", ""]])
    assert encode(products, shop) == 0
    catalog = products.with_name("catalog")
    told = "{} holds a catalogue of {} items, whose place one of {} takes ({} are in both); another --output keeps it"
    assert replaced() == [told.format(catalog, 4, 5, 3)]
    # The same in another order, and what cannot be told from a damaged one.
    write(products, header, [["y", "Y", "y", ""], *rows[1:], ["x", "X", "x", ""]])
    assert encode(products, shop) == 0
    (catalog / "items.jsonl").write_text("{")
    assert encode(products, shop) == 0 and replaced() == []


def test_what_the_sequences_leave_out_and_what_else_to_train_is_told(
    products: Path, shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = products.with_name("log.csv")
    write(log, ["user_id", "item_id", "timestamp"], [["u", f"00{n}", f"2024-01-0{n + 1}"] for n in range(3)])
    sequences = str(products.with_name("sequences"))
    assert main(["prepare", str(log), "--k-core", "1", "--output", sequences]) == 0
    capsys.readouterr()
    assert encode(products, shop, "--sequences", sequences) == 0
    printed = capsys.readouterr().out
    assert "1 of 4 items are not in the sequences and left out: they cannot be recommended." in printed
    assert "on a CPU in a quarter to a third of the time:" in printed and "model.hidden_size=64" in printed
    assert encode(products, shop, "--output", str(products.with_name("all"))) == 0
    assert "left out: they" not in capsys.readouterr().out


def test_warnings_of_python_are_one_line_in_options(tmp_path: Path) -> None:
    write(
        tmp_path / "log.csv", ["user_id", "item_id", "timestamp"], [["u", f"{n}", "1600000000000"] for n in range(3)]
    )
    line = [sys.executable, "-m", "mmm4rec_hf.cli", "prepare", "log.csv", "--k-core", "1", "--output", "out"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    (told,) = [line for line in done.stderr.splitlines() if "read as 'ms'" in line]
    assert told.startswith("timestamps of ")
    assert "give --time-unit ms to confirm" in told and "site-packages" not in done.stderr and ".py" not in done.stderr


def test_a_name_that_is_nearly_a_column_or_a_folder_is_suggested(
    products: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prepare", str(products), "--output", "x", "--user-column", "Nmae"]) == 1
    assert "--user-column Nmae is no column of" in (told := last_line(capsys)) and "did you mean 'Name'?" in told
    monkeypatch.chdir(tmp_path)
    # The variable of this name is read when the client is imported, and a Hub that cannot be reached is asked again.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    (tmp_path / "modell").mkdir()
    assert main(["recommend", "model", "--history", "1"]) == 1
    assert "'model' is no folder here (did you mean 'modell'?)" in last_line(capsys)


def test_all_options_of_unusual_names_are_told_at_once(
    products: Path, shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert encode(renamed(products, "Nr", "Headline", "Long", "Still"), shop) == 1
    told = last_line(capsys)
    assert "give --id-column, and --title-column and --image-column where items have these by other names" in told
    assert encode(renamed(products, "Nr", "Name", "Long", "Still"), shop) == 1
    assert "give --id-column, and --image-column where items have" in last_line(capsys)
    assert encode(renamed(products, "Nr", "Name", "Long", "Photo"), shop) == 1
    assert last_line(capsys).endswith("give --id-column")


def test_two_fields_that_may_be_the_title_are_in_question(
    products: Path, shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = renamed(products, "SKU", "Name", "Product name", "Photo")
    assert encode(path, shop) == 2
    assert "the title may be any of 'Name', 'Product name'; give --title-column" in last_line(capsys)
    # One that is called so is meant.
    path = renamed(products, "SKU", "title", "Name", "image")
    assert encode(path, shop) == 0


def test_ids_that_are_spelled_otherwise_are_shown_side_by_side(
    products: Path, shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = products.with_name("log.csv")
    write(log, ["user_id", "item_id", "timestamp"], [["u", str(n), str(1_400_000_000 + n)] for n in range(4)])
    sequences = str(products.with_name("sequences"))
    assert main(["prepare", str(log), "--k-core", "1", "--output", sequences]) == 0
    assert encode(products, shop, "--sequences", sequences) == 1
    assert "such as '0', '1', '2'; it has '000', '001', '002'" in last_line(capsys)


def test_an_error_of_the_interface_is_told_in_options(products: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(products, ["Customer", "SKU", "Wann"], [["u", "1", "2024-01-01"]])
    assert main(["prepare", str(products), "--output", "x"]) == 1
    told = last_line(capsys)
    assert "it has 'Customer', 'SKU', 'Wann'. Give --timestamp-column;" in told
    assert main(["prepare", str(products), "--output", "x", "--timestamp-column", "Wann"]) == 1
    assert last_line(capsys).endswith("no users and items with 5 events each; lower --k-core")
    parser = build_parser()
    for message, told in (
        ('give time_unit="s", or', "give --time-unit s, or"),
        ("give time_format='%d/%m/%Y  %H:%M', or", "give --time-format '%d/%m/%Y  %H:%M', or"),
        ("give time_format='%d.%m.%Y;%H:%M', or", "give --time-format '%d.%m.%Y;%H:%M', or"),
        ("give time_format='%d.%m.%Y', or", "give --time-format %d.%m.%Y, or"),
        ("pass empty_histories='default' to", "pass --empty-histories default to"),
        ("a/k_core.csv and 'k_core' stay; xk_core=3", "a/k_core.csv and 'k_core' stay; xk_core=3"),
        ("model=3 is by place", "model=3 is by place"),
        ("x is missing; prepare_sequences makes them", "x is missing; mmm4rec prepare makes them"),
        ("give the ids to prepare_sequences(item_ids=)", "give the ids to mmm4rec prepare --items"),
        ("encode it first: catalog.encode(encoder)", "encode it first: mmm4rec encode"),
        (
            "this processor knows no items; call set_items(catalog) or load one that was saved with items",
            "this processor knows no items; a base has none: mmm4rec finetune start_from=... sequences=... "
            "catalog=... gives it a shop's",
        ),
        ("give the format or a data frame with named columns", "give --format"),
        (
            "name one that holds all as root=, or allow links of yours by follow_links=True",
            "name one that holds all as --image-root, or allow links of yours by --follow-links",
        ),
        ("skipped histories; unknown_items='error' names one", "skipped histories; --unknown-items error names one"),
        ("history 0 has 2 items, of histories", "the history has 2 items, of histories"),
        ("history 7 (user 'u\"3') of histories", "the history of user 'u\"3' of histories"),
        (
            "history 7 (user 'a') and history 0 differ in histories",
            "the history of user 'a' and the first one differ in histories",
        ),
        ("/data/history 0/histories", "/data/history 0/histories"),
    ):
        command = "recommend" if "histories" in message else "encode" if "follow_links" in message else "prepare"
        assert as_options(parser, command, message) == told


def test_a_recipe_is_told_what_to_give_by_its_own_names(
    model: Path, shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = [f"sequences={shop / 'sequences'}", f"catalog={shop / 'catalog'}"]
    assert main(["finetune", *recipe, f"output_dir={tmp_path / 'run'}", "model.hidden_size=64"]) == 1
    assert last_line(capsys).endswith("(128 / 64 = 2); give model.n_groups=2 or model.head_dim=16")
    # Of another recipe what is left to its default is not called `None`.
    assert main(["finetune", *recipe, f"output_dir={shop / 'run'}", "model.use_item_bias=true"]) == 1
    told = last_line(capsys)
    assert "model.use_item_bias not given before, True now" in told
    assert "model.hidden_size 16 before, not given now" in told and "None" not in told


def test_warnings_and_errors_of_one_history_are_told_in_options(model: Path) -> None:
    line = ["recommend", str(model), "--device", "cpu", "--history"]
    statuses = f"main({[*line, '1', 'nowhere']}), main({[*line, 'nowhere']})"
    code = f"from mmm4rec_hf.cli import main\nassert ({statuses}) == (0, 1)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # Counted, and not warned of besides.
    assert "the catalogue does not hold" not in done.stderr
    told = "1 of 2 events are of items that the model does not know ('nowhere'), and are skipped"
    assert told in done.stderr.splitlines()
    assert done.stderr.splitlines()[-1] == (
        "mmm4rec: error: the history holds no known item (none of its 1 ids is in the catalogue, the first is "
        "'nowhere'); leave the user out, or pass --empty-histories default, which gives the ranking of someone "
        "without events, one for all of them"
    )


def test_a_folder_that_prepare_did_not_write_is_told_with_the_command(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(model), str(tmp_path), "--device", "cpu"]) == 1
    assert last_line(capsys).endswith("is missing; mmm4rec prepare makes them")


def test_the_folder_of_a_run_stands_for_its_model(
    model: Path, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert find_model(str(shop / "run")) == str(shop / "run" / "model") == find_model(str(model))
    monkeypatch.chdir(shop)
    for name in ("run/modle", "./nowhere", str(tmp_path / "nowhere")):
        with pytest.raises(FileNotFoundError, match="no such folder"):
            find_model(name)
    with pytest.raises(ValueError, match=r"sequences holds sequences, not a model"):
        find_model("sequences")
    capsys.readouterr()
    assert main(["recommend", "run", "--device", "cpu", "--history", "1", "--top-k", "3", "--json"]) == 0
    from_run = capsys.readouterr().out
    assert main(["recommend", str(model), "--device", "cpu", "--history", "1", "--top-k", "3", "--json"]) == 0
    assert capsys.readouterr().out == from_run


def test_pictures_that_links_lead_to_elsewhere_need_an_option(
    products: Path,
    shop: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level("WARNING")
    (tmp_path / "disk").mkdir()
    (tmp_path / "photos").rename(tmp_path / "disk" / "photos")
    (tmp_path / "work").mkdir()
    path = products.rename(tmp_path / "work" / "products.csv")
    (tmp_path / "work" / "photos").symlink_to(tmp_path / "disk" / "photos")
    assert encode(path, shop) == 1
    assert (
        "none of the 4 pictures can be used; the first is" in (told := last_line(capsys)) and "--follow-links" in told
    )
    # One of them in its place is enough to go on without the others.
    (tmp_path / "work" / "own.png").write_bytes((tmp_path / "disk" / "photos" / "0.png").read_bytes())
    masks = []
    for options in ([], ["--follow-links"]):
        write(
            path, NAMES, [["000", "A", "a", "own.png"], *([f"00{n}", "B", "b", f"photos/{n}.png"] for n in (1, 2, 3))]
        )
        assert encode(path, shop, *options) == 0
        masks.append(ItemCatalog.from_pretrained(path.with_name("catalog")).image_mask.tolist())
    assert masks == [[True, False, False, False], [True] * 3 + [False]]
    assert "give a root= that holds them, or follow_links=True" in caplog.text
    assert ItemCatalog.from_pretrained(path.with_name("catalog")).picture("001").getpixel((0, 0)) == (60, 0, 0)
