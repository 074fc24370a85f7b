"""Catalogues as folders and as data sets on the Hub: what was saved comes back, and what is damaged is said."""

import datetime
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.numpy import save_file

from mmm4rec_hf.items import ItemCatalog, ItemEncoder, storage
from mmm4rec_hf.items.images import PictureError
from mmm4rec_hf.outputs import replace_file
from mmm4rec_hf.training.saving import save_encoded_catalog

from .conftest import noise, png

FEATURES = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])


@pytest.fixture
def catalog(tmp_path: Path) -> ItemCatalog:
    """Three items whose pictures are a file, bytes, and an address."""
    shop = tmp_path / "shop"
    shop.mkdir()
    noise(0).save(shop / "a.png")
    records = [
        {"title": "é", "image": "a.png", "added": datetime.date(2026, 1, 2), "size": np.int64(3)},
        {"image": png(noise(1))},
        {"image": "https://example.org/c.jpg"},
    ]
    return ItemCatalog(
        ["a/../b", "0", "c"],
        records,
        root=shop,
        text_features=FEATURES,
        text_mask=np.array([True, False, True]),
        feature_info={"text": {"encoder": "x", "revision": "1"}},
    )


def replace_features(folder: Path, **arrays: np.ndarray) -> None:
    save_file(arrays, folder / "features.safetensors")


def test_a_folder_holds_json_lines_and_safetensors(catalog, tmp_path):
    catalog.save_pretrained(tmp_path / "saved")
    names = {path.name for path in (tmp_path / "saved").iterdir()}
    assert names == {"items.jsonl", "features.safetensors", "catalog.json"}
    first = json.loads((tmp_path / "saved" / "items.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert first == {"item_id": "a/../b", "title": "é", "image": "a.png", "added": "2026-01-02", "size": 3}


def test_an_item_keeps_its_id_whatever_its_record_holds(tmp_path, caplog):
    records = [{"item_id": "b", "title": "of a"}, {"item_id": "a", "title": "of b"}, {"item_id": 3, "title": "of 3"}]
    catalog = ItemCatalog(["a", "b", "3"], records, text_features=FEATURES)
    catalog.save_pretrained(tmp_path)
    loaded = ItemCatalog.from_pretrained(tmp_path)
    assert loaded.item_ids == ["a", "b", "3"] and loaded.titles == ["of a", "of b", "of 3"]
    assert loaded.select(["b"]).text_features.tolist() == [[3.0, 4.0]]
    assert "2 records hold an 'item_id' that is not their item's id, and it was left out" in caplog.text


def test_gaps_and_arrays_of_records_in_memory_are_saved_as_such(tmp_path, caplog):
    gap = pd.NA
    records = [{"title": gap, "image": gap, "genres": np.array(["Comedy", gap], dtype=object)}, {"title": pd.NaT}]
    catalog = ItemCatalog(["a", "b"], records)
    encoder = ItemEncoder(text_encoder=lambda texts: np.array([[len(text)] for text in texts]), text_fields=["genres"])
    catalog = catalog.encode(encoder)
    assert catalog.text_features.tolist() == [[len("Genres: Comedy ;")], [0]]
    assert catalog.picture("a") is None
    catalog.save_pretrained(tmp_path)
    assert "pictures" not in caplog.text
    assert ItemCatalog.from_pretrained(tmp_path).records == [
        {"title": None, "genres": ["Comedy", None]},
        {"title": None},
    ]


def test_pictures_held_in_memory_are_left_out_with_a_warning(catalog, tmp_path, caplog):
    catalog.save_pretrained(tmp_path / "saved")
    assert "1 pictures are held in memory and were left out; give save_images=True" in caplog.text
    loaded = ItemCatalog.from_pretrained(tmp_path / "saved", root=tmp_path / "shop")
    assert "image" not in loaded["0"] and loaded["c"]["image"] == "https://example.org/c.jpg"
    np.testing.assert_array_equal(np.asarray(loaded.picture("a/../b")), np.asarray(noise(0)))


def test_pictures_travel_along_on_request_and_stay_inside_the_folder(catalog, tmp_path):
    catalog.save_pretrained(tmp_path / "saved", save_images=True)
    shutil.rmtree(tmp_path / "shop")
    moved = shutil.move(tmp_path / "saved", tmp_path / "moved")
    loaded = ItemCatalog.from_pretrained(moved)
    np.testing.assert_array_equal(np.asarray(loaded.picture("a/../b")), np.asarray(noise(0)))
    np.testing.assert_array_equal(np.asarray(loaded.picture("0")), np.asarray(noise(1)))
    assert sorted(path.name for path in (moved / "images").iterdir()) == ["0", "a_2f__2e__2e__2f_b.png"]


LONG = "https://shop.example/" + "a-long-name/" * 15
PAIRS = [(LONG + "1", LONG + "2"), ("商品" * 17 + "一", "商品" * 17 + "二"), ("dQw4", "dqW4"), ("a" * 200, "a" * 201)]


@pytest.mark.parametrize("ids", PAIRS, ids=["address", "chinese", "case", "limit"])
@pytest.mark.parametrize("in_memory", [False, True])
def test_every_item_keeps_its_own_picture_whatever_ids_share(tmp_path, ids, in_memory):
    for number in (3, 4):
        noise(number, (number, 20)).save(tmp_path / f"{number}.png")
    images = [(tmp_path / f"{number}.png").read_bytes() if in_memory else f"{number}.png" for number in (3, 4)]
    catalog = ItemCatalog(ids, [{"image": image} for image in images], root=tmp_path)
    # Again over itself, and one of them alone: the name of a picture depends on nothing but its id.
    for kept in (ids, ids, ids[1:]):
        catalog.select(kept).save_pretrained(tmp_path / "saved", save_images=True)
        catalog = ItemCatalog.from_pretrained(tmp_path / "saved")
        assert [catalog.picture(item_id).width for item_id in kept] == [3, 4][-len(kept) :]
        names = [path.name for path in (tmp_path / "saved" / "images").iterdir()]
        # As Windows and macOS compare them, and with room for what is put around the name while a file is written.
        assert len({name.lower() for name in names}) == 2 and max(map(len, names)) <= 204


def test_a_picture_with_a_dot_and_a_sentence_in_its_name_is_copied(tmp_path):
    name = "No. 5, " + "a very long name of a picture, " * 7 + "in blue"
    noise(3, (3, 20)).save(tmp_path / name, "PNG")
    ItemCatalog(["a"], [{"image": name}], root=tmp_path).save_pretrained(tmp_path / "saved", save_images=True)
    assert [path.name for path in (tmp_path / "saved" / "images").iterdir()] == ["a"]
    assert ItemCatalog.from_pretrained(tmp_path / "saved").picture("a").width == 3


def test_pictures_that_cannot_be_copied_are_counted(tmp_path, caplog):
    images = ["absent.png", 17, {"bytes": None, "path": None}, "", png(noise(1))]
    catalog = ItemCatalog(list("abcde"), [{"image": image} for image in images])
    catalog.save_pretrained(tmp_path / "saved", save_images=True)
    assert "3 pictures are no files or bytes that could be copied" in caplog.text
    assert ["image" in record for record in ItemCatalog.from_pretrained(tmp_path / "saved").records] == [False] * 4 + [
        True
    ]


def test_a_kill_between_two_files_leaves_no_mixed_catalogue(catalog, tmp_path, monkeypatch):
    catalog.save_pretrained(tmp_path / "saved")

    def killed(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(storage, "save_file", killed)
    with pytest.raises(KeyboardInterrupt):
        catalog.select(["c", "0", "a/../b"]).save_pretrained(tmp_path / "saved")
    assert ItemCatalog.from_pretrained(tmp_path / "saved").item_ids == catalog.item_ids
    assert not list((tmp_path / "saved").glob(".*"))


def test_saving_over_itself_keeps_the_pictures(catalog, tmp_path):
    catalog.save_pretrained(tmp_path / "saved", save_images=True)
    ItemCatalog.from_pretrained(tmp_path / "saved").save_pretrained(tmp_path / "saved", save_images=True)
    assert ItemCatalog.from_pretrained(tmp_path / "saved").picture("a/../b").size == (20, 30)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "catalog.json").unlink(), "is not a saved catalogue: it has no catalog.json"),
        (lambda folder: (folder / "features.safetensors").unlink(), "it has no features.safetensors"),
        (lambda folder: (folder / "items.jsonl").write_text('{"item_id": "c"}\n'), "items.jsonl has 1 items of 3"),
        (lambda folder: replace_features(folder, text_features=FEATURES[:2]), r"\[3, size\], .* got \[2, 2\]"),
        (lambda folder: replace_features(folder, text_featurez=FEATURES), "'text_featurez', which is none of"),
        (lambda folder: (folder / "catalog.json").write_text("{}"), "is damaged .KeyError: 'num_items'"),
    ],
)
def test_a_damaged_folder_is_said(catalog, tmp_path, damage, message):
    catalog.save_pretrained(tmp_path / "saved")
    damage(tmp_path / "saved")
    with pytest.raises(ValueError, match=message):
        ItemCatalog.from_pretrained(tmp_path / "saved")


def test_a_name_that_is_nowhere_is_said_in_one_line(monkeypatch):
    def unreachable(*arguments: Any, **options: Any) -> str:
        raise LocalEntryNotFoundError("Cannot find the snapshot.\nCheck the connection.")

    monkeypatch.setattr(storage, "snapshot_download", unreachable)
    told = "'org/none' is no folder here, and no data set .*: the Hub .*, and it was not loaded before$"
    with pytest.raises(ValueError, match=told):
        ItemCatalog.from_pretrained("org/none")


def test_a_path_that_does_not_exist_is_no_name():
    with pytest.raises(ValueError, match="no data set to be had from the Hub: it cannot be a repository's name"):
        ItemCatalog.from_pretrained("./not/a/folder")


def test_more_items_need_an_encoder_after_loading_and_the_same_one(catalog, tmp_path):
    catalog.save_pretrained(tmp_path / "saved")
    loaded = ItemCatalog.from_pretrained(tmp_path / "saved")
    with pytest.raises(ValueError, match=r"text features were made by .*catalog.add_items\(items, encoder="):
        loaded.add_items([{"item_id": "d", "title": "a text"}])
    with pytest.raises(ValueError, match="features of two encoders cannot be compared"):
        loaded.add_items(
            [{"item_id": "d", "title": "a text"}],
            encoder=ItemEncoder(text_encoder=lambda texts: np.zeros((len(texts), 2))),
        )
    loaded.add_items([{"item_id": "d", "text_features": [7.0, 8.0]}])
    assert loaded.item_ids[-1] == "d" and loaded.text_features[-1].tolist() == [7, 8]
    assert loaded.text_mask.tolist() == [True, False, True, True]


def test_added_items_find_their_pictures_in_their_own_folder(catalog, tmp_path):
    more = tmp_path / "more"
    more.mkdir()
    noise(5).save(more / "a.png")
    (more / "items.jsonl").write_text('{"item_id": "d", "image": "a.png", "text_features": [7.0, 8.0]}\n')
    catalog.add_items(more)
    np.testing.assert_array_equal(np.asarray(catalog.picture("d")), np.asarray(noise(5)))
    np.testing.assert_array_equal(np.asarray(catalog.picture("a/../b")), np.asarray(noise(0)))


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """Items of somebody else that name files of this machine, two of them pictures."""
    for name in ("feed/a.png", "private/b.png"):
        (tmp_path / name).parent.mkdir()
        noise(1).save(tmp_path / name)
    (tmp_path / "feed" / "key.png").write_text("-----BEGIN OPENSSH PRIVATE KEY-----")
    images = ["a.png", "../private/b.png", str(tmp_path / "private" / "b.png"), "key.png", "/etc/hostname"]
    lines = [json.dumps({"item_id": str(n), "image": image}) + "\n" for n, image in enumerate(images)]
    (tmp_path / "feed" / "items.jsonl").write_text("".join(lines))
    return tmp_path / "feed"


@pytest.mark.parametrize("save_images", [False, True])
def test_only_pictures_of_the_items_folder_travel(hostile, tmp_path, caplog, save_images):
    caplog.set_level("WARNING")
    ItemCatalog.from_items(hostile).save_pretrained(tmp_path / "saved", save_images=save_images)
    assert "3 paths of pictures lead out of" in caplog.text
    assert ("1 pictures are no files or bytes that could be copied" in caplog.text) == save_images
    files = {str(path.relative_to(tmp_path / "saved")) for path in (tmp_path / "saved").rglob("*") if path.is_file()}
    assert files - {"items.jsonl", "features.safetensors", "catalog.json", ".images.json"} == (
        {"images/0.png"} if save_images else set()
    )
    with_picture = [i for i, record in enumerate(ItemCatalog.from_pretrained(tmp_path / "saved").records) if record]
    assert with_picture == ([0] if save_images else [0, 3])


def test_an_encoded_catalogue_leads_to_no_picture_that_was_refused(hostile, tmp_path, caplog):
    caplog.set_level("WARNING")
    made = ItemEncoder(image_encoder=lambda pictures: np.ones((len(pictures), 2)), num_workers=1)
    encoded = ItemCatalog.from_items(hostile).encode(made)
    assert encoded.image_mask.tolist() == [True, False, False, False, False]
    save_encoded_catalog(encoded, made, tmp_path / "saved")
    assert caplog.text.count("3 paths of pictures lead out of") == 1
    loaded = ItemCatalog.from_pretrained(tmp_path / "saved")
    assert loaded.picture("0").size == (20, 30)
    assert [loaded.picture(n) for n in "124"] == [None] * 3
    with pytest.raises(PictureError, match="no picture of these formats"):
        loaded.picture("3")
    allowed = ItemCatalog.from_items(hostile, root="/")
    assert allowed.picture("2").size == (20, 30)


def test_added_items_bring_no_path_that_leads_out_of_their_folder(hostile, tmp_path, caplog):
    caplog.set_level("WARNING")
    catalog = ItemCatalog(["x"])
    catalog.add_items(hostile)
    assert caplog.text.count("3 paths of pictures lead out of") == 1
    assert catalog.picture("0").size == (20, 30)
    assert [catalog.picture(n) for n in "124"] == [None] * 3


def test_absolute_paths_are_followed_in_a_folder_of_ours_and_in_none_of_the_hub(hostile, tmp_path, monkeypatch):
    private = str(tmp_path / "private" / "b.png")
    ItemCatalog(["a"], [{"image": private}]).save_pretrained(tmp_path / "saved")
    assert ItemCatalog.from_pretrained(tmp_path / "saved").picture("a").size == (20, 30)
    monkeypatch.setattr(storage, "snapshot_download", lambda *arguments, **options: str(tmp_path / "saved"))
    for fetched in (
        ItemCatalog.from_pretrained("org/items"),
        ItemCatalog.from_pretrained(tmp_path / "saved", root=tmp_path / "feed"),
    ):
        with pytest.raises(PictureError, match="outside the items' folder"):
            fetched.picture("a")
    # A model's repository that was downloaded as a whole, with the catalogue that lies in it.
    snapshot = tmp_path / "models--org--films" / "snapshots" / "0123"
    shutil.copytree(tmp_path / "saved", snapshot / "catalog")
    (tmp_path / "link").symlink_to(snapshot)
    for folder in (snapshot / "catalog", tmp_path / "link" / "catalog"):
        with pytest.raises(PictureError, match="outside the items' folder"):
            ItemCatalog.from_pretrained(folder).picture("a")
    line = json.dumps({"item_id": "a", "image": "../private/b.png"}) + "\n"
    (tmp_path / "saved" / "items.jsonl").write_text(line)
    with pytest.raises(PictureError, match="outside the items' folder"):
        ItemCatalog.from_pretrained(tmp_path / "saved").picture("a")


@pytest.mark.parametrize("name", ["items.jsonl", "features.safetensors", "catalog.json", "images/0", "images"])
def test_what_is_no_catalogue_is_not_replaced_by_one(catalog, tmp_path, name):
    theirs = tmp_path / "shop" / name
    theirs.parent.mkdir(exist_ok=True)
    theirs.write_text('{"item_id": "theirs"}')
    before = sorted(tmp_path.rglob("*"))
    told = {
        "images": "shop/images is no folder, and pictures go there; name another",
        "images/0": "shop/images/0 would be replaced by an item's picture, and no catalogue .*; name another",
    }.get(name, f"shop holds {name}, which a catalogue would replace, and no catalogue; name another")
    with pytest.raises(ValueError, match=told):
        catalog.save_pretrained(tmp_path / "shop", save_images=True)
    assert sorted(tmp_path.rglob("*")) == before and theirs.read_text() == '{"item_id": "theirs"}'
    # Beside other files, and beside pictures that stay what they are, it may lie.
    if name.startswith("images"):
        catalog.save_pretrained(tmp_path / "shop")
        assert theirs.read_text() == '{"item_id": "theirs"}'
        assert ItemCatalog.from_pretrained(tmp_path / "shop").item_ids == catalog.item_ids
        # Nor is it that catalogue's afterwards, which has copied none, also where it lists one of this name.
        listing = [{}, {"image": "images/0"}, {}]
        ItemCatalog(catalog.item_ids, listing, root=tmp_path / "shop").save_pretrained(tmp_path / "shop")
        with pytest.raises(ValueError, match=told):
            catalog.save_pretrained(tmp_path / "shop", save_images=True)
        assert theirs.read_text() == '{"item_id": "theirs"}'


def test_a_folder_beside_the_catalogue_is_not_replaced_either(catalog, tmp_path):
    (tmp_path / "shop" / "processor").mkdir()
    (tmp_path / "shop" / "processor" / "cpu.png").write_text("a picture of goods")
    encoder = ItemEncoder(text_encoder=lambda texts: np.ones((len(texts), 2)))
    with pytest.raises(ValueError, match="shop holds processor, which a catalogue would replace, and no catalogue"):
        save_encoded_catalog(catalog, encoder, tmp_path / "shop")
    assert (tmp_path / "shop" / "processor" / "cpu.png").read_text() == "a picture of goods"
    assert not (tmp_path / "shop" / "items.jsonl").exists()


def cut_off_without_features(folder: Path) -> None:
    (folder / "features.safetensors").unlink()
    content = (folder / "catalog.json").read_bytes()
    (folder / "catalog.json").write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "catalog.json").write_text("{"),
        lambda folder: (folder / "items.jsonl").unlink(),
        lambda folder: (folder / "features.safetensors").unlink(),
        cut_off_without_features,
        # Killed when the files took their places: the new catalog.json waits under its other name.
        lambda folder: (folder / "catalog.json").rename(folder / ".catalog.json.abcdef-1-01234567.partial"),
    ],
)
def test_a_catalogue_that_is_damaged_or_half_replaced_is_saved_again(catalog, tmp_path, damage):
    catalog.save_pretrained(tmp_path / "saved", save_images=True)
    damage(tmp_path / "saved")
    catalog.select(["c"]).save_pretrained(tmp_path / "saved", save_images=True)
    assert ItemCatalog.from_pretrained(tmp_path / "saved").item_ids == ["c"]


def test_a_first_save_that_failed_is_repeated(catalog, tmp_path, monkeypatch):
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device", "features.safetensors")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(storage, "save_file", full)
        catalog.save_pretrained(tmp_path / "saved", save_images=True)
    catalog.save_pretrained(tmp_path / "saved", save_images=True)
    assert ItemCatalog.from_pretrained(tmp_path / "saved").picture("a/../b").size == (20, 30)


@pytest.mark.parametrize("own", ["", '{"item_id": "a"}\n{"item_id": "b"}\n', '{"goods": '])
def test_a_shop_s_catalog_json_that_cannot_be_read_is_no_catalogue(catalog, tmp_path, own):
    (tmp_path / "shop" / "catalog.json").write_text(own)
    (tmp_path / "shop" / "items.jsonl").write_text("theirs")
    with pytest.raises(ValueError, match="shop holds catalog.json, items.jsonl, which a catalogue would replace"):
        catalog.save_pretrained(tmp_path / "shop")
    assert (tmp_path / "shop" / "catalog.json").read_text() == own


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(5, "Input/output error", "x")], ids=repr)
@pytest.mark.parametrize("at", ["images/0", "features.safetensors", "items.jsonl", "catalog.json"])
@pytest.mark.parametrize("over_another", [False, True])
def test_a_save_interrupted_while_files_take_their_places_is_repeated(
    catalog, tmp_path, monkeypatch, error, at, over_another
):
    saved = tmp_path / "saved"
    if over_another:
        ItemCatalog(["x"], [{"title": "x"}]).save_pretrained(saved)
    rename = Path.replace

    def interrupted(path: Path, target: Path) -> Path:
        if target == saved / at:
            raise error
        return rename(path, target)

    # A second time, when the first has left its half.
    for _ in range(2):
        with monkeypatch.context() as patch, pytest.raises(type(error)):
            patch.setattr(Path, "replace", interrupted)
            catalog.save_pretrained(saved, save_images=True)
        with pytest.raises(ValueError, match="is not a saved catalogue: it has no"):
            ItemCatalog.from_pretrained(saved)
        # Another process that starts to write there removes what processes that ended have left.
        monkeypatch.setattr("mmm4rec_hf.outputs._cleaned", set())
        monkeypatch.setattr("mmm4rec_hf.outputs._is_running", lambda process: False)
        with replace_file(saved / "notes.txt") as notes:
            notes.write_text("of the shop")
    catalog.save_pretrained(saved, save_images=True)
    assert ItemCatalog.from_pretrained(saved).item_ids == ["a/../b", "0", "c"]
    assert not list(saved.rglob(".*.partial"))


def pictures_of(folder: Path, **widths: int) -> ItemCatalog:
    """Items with a picture each, by id."""
    return ItemCatalog(list(widths), [{"image": png(noise(1, (width, 20)))} for width in widths.values()], root=folder)


@pytest.mark.parametrize("after_one_without", [False, True])
def test_pictures_lie_beside_a_shop_s_own_and_replace_but_those_that_a_save_wrote(tmp_path, after_one_without):
    shop = tmp_path / "shop"
    (shop / "images").mkdir(parents=True)
    for name in ("mine", "same"):
        noise(1, (9, 20)).save(shop / "images" / name, "PNG")
    if after_one_without:
        pictures_of(shop, a=3).save_pretrained(shop)
    # With the bytes that are there already nothing is lost.
    pictures_of(shop, a=3, b=4).save_pretrained(shop, save_images=True)
    pictures_of(shop, a=5, same=9).save_pretrained(shop, save_images=True)
    assert ItemCatalog.from_pretrained(shop).picture("a").width == 5
    with pytest.raises(ValueError, match="shop/images/mine would be replaced"):
        pictures_of(shop, a=6, mine=7).save_pretrained(shop, save_images=True)
    loaded = ItemCatalog.from_pretrained(shop)
    assert loaded.picture("a").width == 5 and loaded.item_ids == ["a", "same"]
    assert (shop / "images" / "mine").read_bytes() == png(noise(1, (9, 20)))


def test_a_shop_s_own_picture_stays_also_where_a_catalogue_lists_it_or_it_came_later(tmp_path):
    shop = tmp_path / "shop"
    (shop / "images").mkdir(parents=True)
    noise(1, (9, 20)).save(shop / "images" / "a.png")
    own = (shop / "images" / "a.png").read_bytes()
    (tmp_path / "new.png").write_bytes(png(noise(1, (7, 20))))

    def save(folder: Path, **images: str) -> None:
        items = [{"image": image} for image in images.values()]
        ItemCatalog(list(images), items, root=folder).save_pretrained(folder, save_images=True)

    # Saved where it lies, nothing is copied.
    save(shop, a="images/a.png")
    (shop / "new.png").write_bytes((tmp_path / "new.png").read_bytes())
    with pytest.raises(ValueError, match=r"shop/images/a.png would be replaced"):
        save(shop, a="new.png")
    assert (shop / "images" / "a.png").read_bytes() == own
    # The folder of a first save is the shop's as well.
    save(tmp_path, b="new.png")
    (tmp_path / "images" / "c.png").write_bytes(own)
    with pytest.raises(ValueError, match=r"images/c.png would be replaced"):
        save(tmp_path, b="new.png", c="new.png")
    assert (tmp_path / "images" / "c.png").read_bytes() == own


def test_what_a_save_wrote_is_known_after_one_without_pictures(tmp_path):
    shop = tmp_path / "shop"
    (shop / "images").mkdir(parents=True)
    (shop / "images" / "mine").write_bytes(b"of the shop")
    pictures_of(shop, a=3).save_pretrained(shop, save_images=True)
    ItemCatalog.from_pretrained(shop).save_pretrained(shop)
    pictures_of(shop, a=4).save_pretrained(shop, save_images=True)
    assert ItemCatalog.from_pretrained(shop).picture("a").width == 4


def test_an_item_that_comes_back_may_have_another_picture(tmp_path):
    for widths in ({"a": 3, "b": 4}, {"a": 3}, {"a": 3, "b": 5}):
        pictures_of(tmp_path, **widths).save_pretrained(tmp_path / "saved", save_images=True)
    ItemCatalog(["x"]).save_pretrained(tmp_path / "saved")
    pictures_of(tmp_path, a=6).save_pretrained(tmp_path / "saved", save_images=True)
    assert ItemCatalog.from_pretrained(tmp_path / "saved").picture("a").width == 6


@pytest.mark.parametrize("own", [[], ["mine"]])
def test_pictures_of_an_interrupted_save_are_replaced_by_others(tmp_path, monkeypatch, own):
    saved = tmp_path / "saved"
    (saved / "images").mkdir(parents=True)
    for name in own:
        (saved / "images" / name).write_bytes(b"of the shop")
    rename = Path.replace

    def interrupted(path: Path, target: Path) -> Path:
        if target == saved / "catalog.json":
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "replace", interrupted)
        pictures_of(tmp_path, a=3).save_pretrained(saved, save_images=True)
    assert (saved / "images" / "a").is_file()
    pictures_of(tmp_path, a=4).save_pretrained(saved, save_images=True)
    assert ItemCatalog.from_pretrained(saved).picture("a").width == 4
    assert sorted(path.name for path in (saved / "images").iterdir()) == ["a", *own]
