"""Runs in shards: killed, resumed, shared between processes, and never mixed with another encoder's."""

import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerate import PartialState
from PIL import Image

from mmm4rec_hf.items import ItemCatalog, ItemEncoder
from mmm4rec_hf.items.images import PictureError

from .conftest import noise, png

# Run as a script by the tests: encodes 12 items in shards of 2, and writes each text that it encodes to a file.
SCRIPT = """
import sys, time
import numpy as np
from accelerate import PartialState
from mmm4rec_hf.items import ItemCatalog, ItemEncoder

folder, delay = sys.argv[1], float(sys.argv[2])
process = PartialState(cpu=True).process_index


def slow_lengths(texts):
    time.sleep(delay)
    with open(f"{folder}/log-{process}.txt", "a") as log:
        log.writelines(text + "\\n" for text in texts)
    return np.array([[len(text)] for text in texts])


catalog = ItemCatalog.from_items([{"item_id": i, "title": "x" * i} for i in range(1, 13)])
catalog = catalog.encode(ItemEncoder(text_encoder=slow_lengths), f"{folder}/features", batch_size=2, shard_size=2)
np.save(f"{folder}/result-{process}.npy", catalog.text_features)
"""
EXPECTED = np.array([[len("Title:  ;") + i] for i in range(1, 13)])


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "encode.py"
    path.write_text(SCRIPT)
    return path


def encoded_texts(folder: Path) -> list[str]:
    return [line for log in folder.glob("log-*.txt") for line in log.read_text().splitlines()]


@pytest.mark.slow
def test_a_run_that_was_killed_loses_at_most_one_shard(script, tmp_path, monkeypatch):
    features = tmp_path / "features"
    process = subprocess.Popen([sys.executable, str(script), str(tmp_path), "0.3"])
    limit = time.monotonic() + 120
    while len(list(features.glob("text-*.safetensors"))) < 3 and time.monotonic() < limit:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = len(list(features.glob("text-*.safetensors")))
    assert 3 <= finished < 6
    before = len(encoded_texts(tmp_path))
    assert before <= 2 * finished + 2

    # A batch of two is encoded again: a function has nothing else to be known by. The script keeps to the CPU, and
    # only there.
    monkeypatch.setattr(PartialState, "_shared_state", {})
    monkeypatch.setattr(sys, "argv", [str(script), str(tmp_path), "0"])
    runpy.run_path(str(script), run_name="__main__")
    assert len(encoded_texts(tmp_path)) - before == 2 + 12 - 2 * finished
    np.testing.assert_array_equal(np.load(tmp_path / "result-0.npy"), EXPECTED)
    assert not list(features.glob(".*.partial"))

    runpy.run_path(str(script), run_name="__main__")
    assert len(encoded_texts(tmp_path)) - before == 2 + 12 - 2 * finished + 2


@pytest.mark.slow
def test_two_processes_share_the_work_and_both_return_all_of_it(script, tmp_path):
    # The launcher of several processes, which the script then keeps on the CPU.
    options = ["--multi_gpu", "--num_processes=2", "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no"]
    launch = [sys.executable, "-m", "accelerate.commands.launch", *options, "--main_process_port=0"]
    command = [*launch, str(script), str(tmp_path), "0"]
    subprocess.run(command, check=True, timeout=300)
    for process in range(2):
        np.testing.assert_array_equal(np.load(tmp_path / f"result-{process}.npy"), EXPECTED)
    shares = [len((tmp_path / f"log-{process}.txt").read_text().splitlines()) for process in range(2)]
    assert shares == [6, 6]
    assert len(set(encoded_texts(tmp_path))) == 12


def test_a_picture_that_changes_is_encoded_again_and_the_others_are_not(tmp_path):
    for name in ("a", "b", "c"):
        noise(ord(name)).save(tmp_path / f"{name}.png")
    seen: list[int] = []

    def sizes(pictures: list) -> np.ndarray:
        seen.append(len(pictures))
        return np.array([picture.size for picture in pictures], dtype=float)

    catalog = ItemCatalog.from_items([{"item_id": n, "image": f"{n}.png"} for n in "abc"], root=tmp_path)
    encoder = ItemEncoder(image_encoder=sizes)
    catalog.encode(encoder, tmp_path / "features", shard_size=1)
    noise(0, (5, 6)).save(tmp_path / "b.png")
    again = catalog.encode(encoder, tmp_path / "features", shard_size=1)
    # The two others in one batch, to see that they are this function's.
    assert seen == [1, 1, 1, 2, 1]
    np.testing.assert_array_equal(again.image_features, [[20, 30], [5, 6], [20, 30]])


def test_a_catalogue_that_has_grown_keeps_its_finished_shards(tmp_path):
    seen: list[str] = []

    def lengths(texts: list[str]) -> np.ndarray:
        seen.extend(texts)
        return np.array([[len(text)] for text in texts])

    items = [{"item_id": i, "title": "x" * i} for i in range(1, 6)]
    encoder = ItemEncoder(text_encoder=lengths)
    ItemCatalog.from_items(items[:4]).encode(encoder, tmp_path, shard_size=2)
    grown = ItemCatalog.from_items(items).encode(encoder, tmp_path, batch_size=1, shard_size=2)
    assert seen[4:] == ["Title: x ;", "Title: xxxxx ;"]
    np.testing.assert_array_equal(grown.text_features[:, 0], [10, 11, 12, 13, 14])


def test_a_feature_that_is_not_finite_names_its_item_and_is_not_kept(tmp_path):
    def broken(texts: list[str]) -> np.ndarray:
        return np.array([[np.nan if "bad" in text else 1.0] for text in texts])

    catalog = ItemCatalog.from_items([{"item_id": "x", "title": "good"}, {"item_id": "y", "title": "bad"}])
    with pytest.raises(ValueError, match="text features of 1 items hold NaN or infinity, first of item 'y'"):
        catalog.encode(ItemEncoder(text_encoder=broken), tmp_path)
    assert not list(tmp_path.glob("*.safetensors"))


def test_an_empty_catalogue_is_not_encoded():
    with pytest.raises(ValueError, match="nothing to encode"):
        ItemCatalog([]).encode(ItemEncoder(text_encoder=len))


def test_the_second_modality_may_come_later_into_the_same_folder(tmp_path):
    seen: list[str] = []

    def lengths(texts: list[str]) -> np.ndarray:
        seen.extend(texts)
        return np.array([[len(text)] for text in texts])

    def sizes(pictures: list) -> np.ndarray:
        return np.array([picture.size for picture in pictures], dtype=float)

    catalog = ItemCatalog.from_items([{"item_id": "a", "title": "x", "image": noise(0)}])
    catalog.encode(ItemEncoder(text_encoder=lengths), tmp_path)
    both = catalog.encode(ItemEncoder(text_encoder=lengths, image_encoder=sizes), tmp_path)
    assert seen == ["Title: x ;"] * 2 and both.image_features.tolist() == [[20, 30]]
    with pytest.raises(ValueError, match="another encoder .text: fields .*before.*now"):
        catalog.encode(ItemEncoder(text_encoder=lengths, text_fields=["title"]), tmp_path)


def test_a_damaged_shard_is_encoded_again(tmp_path, caplog):
    catalog = ItemCatalog.from_items([{"item_id": n, "title": "x" * n} for n in range(1, 5)])
    encoder = ItemEncoder(text_encoder=lambda texts: np.array([[len(text)] for text in texts]))
    first = catalog.encode(encoder, tmp_path, shard_size=2)
    (tmp_path / "text-000000002.safetensors").write_bytes(b"cut off")
    again = catalog.encode(encoder, tmp_path, shard_size=2)
    np.testing.assert_array_equal(again.text_features, first.text_features)
    assert "text-000000002.safetensors is damaged and is encoded again" in caplog.text
    (tmp_path / "encoder.json").write_text("{")
    with pytest.raises(ValueError, match=r"encoder.json is damaged .*; remove .* to encode again"):
        catalog.encode(encoder, tmp_path, shard_size=2)


def test_features_follow_their_ids_when_the_catalogue_is_in_another_order(tmp_path):
    encoder = ItemEncoder(text_encoder=lambda texts: np.array([[len(text)] for text in texts]))
    catalog = ItemCatalog.from_items([{"item_id": n, "title": "x" * n} for n in range(7)])
    catalog.encode(encoder, tmp_path, shard_size=2)
    order = ["5", "0", "3", "6", "1", "4", "2"]
    again = catalog.select(order).encode(encoder, tmp_path, shard_size=2)
    # "Title: xxx ;" is as long as its title and nine; item 0 has no title, and so no text.
    assert again.text_features[:, 0].tolist() == [0 if item == "0" else int(item) + 9 for item in order]


def text_lambda(factor: float) -> ItemEncoder:
    """Any of these has one name, and closes over another number."""
    return ItemEncoder(text_encoder=lambda texts: np.array([[len(text), factor] for text in texts]))


def image_lambda(factor: float) -> ItemEncoder:
    return ItemEncoder(image_encoder=lambda pictures: np.array([[picture.width, factor] for picture in pictures]))


@pytest.fixture
def films() -> ItemCatalog:
    """Texts are 10, 11, 12 letters long, pictures 1, 2, 3 wide; two more items have neither, or an address."""
    items = [{"item_id": f"i{n}", "title": "x" * n, "image": noise(n, (n, 20))} for n in (1, 2, 3)]
    return ItemCatalog.from_items([{"item_id": "bare"}, {"item_id": "far", "image": "http://127.0.0.1/a.png"}, *items])


@pytest.mark.parametrize(("make", "modality"), [(text_lambda, "text"), (image_lambda, "image")])
def test_a_function_that_gives_other_features_under_its_name_is_another_encoder(films, tmp_path, make, modality):
    films.encode(make(1.0), tmp_path, shard_size=2)
    told = rf"another encoder \({modality}: .*lambda> gave item 'i\d' other features before\); .* overwrite=True"
    with pytest.raises(ValueError, match=told):
        films.encode(make(1.5), tmp_path, shard_size=2)
    # The refusal has changed nothing, and on request nothing of the first one stays.
    size = {"text": [10, 11, 12], "image": [1, 2, 3]}[modality]
    for factor, overwrite in ((1.0, False), (1.5, True), (1.5, False)):
        made = films.encode(make(factor), tmp_path, shard_size=2, overwrite=overwrite)
        features = {"text": made.text_features, "image": made.image_features}[modality]
        assert features[2:].tolist() == [[number, factor] for number in size]
        assert features[0, 1] == factor


def test_a_function_of_another_width_or_that_finds_no_number_is_another_encoder(films, tmp_path):
    films.encode(text_lambda(1.0), tmp_path)
    for vector in ([1.0], [np.nan, np.nan]):
        other = ItemEncoder(text_encoder=lambda texts, v=vector: np.array([v] * len(texts)))
        other.text_encoder.info = text_lambda(1.0).text_encoder.info
        with pytest.raises(ValueError, match="gave item 'i.' other features before"):
            films.encode(other, tmp_path)


def test_rounding_and_what_cannot_be_compared_make_no_other_encoder(films, tmp_path):
    films.encode(text_lambda(1.0), tmp_path / "texts")
    films.encode(text_lambda(1.001), tmp_path / "texts")
    films.select(["bare", "far"]).encode(text_lambda(1.0), tmp_path / "bare")
    kept = films.select(["bare", "far"]).encode(text_lambda(2.0), tmp_path / "bare")
    assert kept.text_features.tolist() == [[0, 1], [0, 1]]
    # Pictures are not fetched again for it.
    encoder, other = image_lambda(1.0), image_lambda(2.0)
    encoder.fetch, other.fetch = lambda url: png(noise(0, (7, 7))), pytest.fail
    films.select(["far"]).encode(encoder, tmp_path / "far")
    assert films.select(["far"]).encode(other, tmp_path / "far").image_features.tolist() == [[7, 1]]


@pytest.mark.parametrize(("make", "modality"), [(text_lambda, "text"), (image_lambda, "image")])
def test_items_are_added_by_the_function_that_made_the_features_and_by_no_other(films, make, modality):
    catalog = films.encode(make(1.0))
    new = {"item_id": "new", "title": "x" * 9, "image": noise(0, (9, 9))}
    with pytest.raises(ValueError, match=rf"lambda> gives item 'i1' other {modality} features than it has; .*again"):
        catalog.add_items([new], encoder=make(1.5))
    assert len(catalog) == 5
    catalog.add_items([new], encoder=make(1.0))
    features = {"text": catalog.text_features, "image": catalog.image_features}[modality]
    assert features[-1].tolist() == [{"text": 18, "image": 9}[modality], 1.0]


def test_a_function_is_compared_once(films):
    batches: list[int] = []

    def lengths(texts: list[str]) -> np.ndarray:
        batches.append(len(texts))
        return np.array([[len(text), 1.0] for text in texts])

    first, again = ItemEncoder(text_encoder=lengths), ItemEncoder(text_encoder=lengths)
    catalog = films.encode(first)
    batches.clear()
    catalog.add_items([{"item_id": "a", "title": "x"}])
    catalog.add_items([{"item_id": "b", "title": "x"}], encoder=first)
    assert batches == [1, 1]
    for item_id in ("c", "d"):
        catalog.add_items([{"item_id": item_id, "title": "x"}], encoder=again)
    assert batches == [1, 1, 5, 1, 1]


class Server:
    """A web of pictures as wide as the number in their addresses, of which some cannot be had."""

    def __init__(self, *down: int) -> None:
        self.down, self.asked = set(down), []

    def __call__(self, url: str) -> bytes:
        number = int(url.rsplit("/", 1)[1])
        self.asked.append(number)
        if number in self.down:
            raise PictureError("download: status 503")
        return png(noise(number, (number, 20)))


def web_encoder(server: Server | None, seen: list[int] | None = None, **options: Any) -> ItemEncoder:
    """The width of pictures; 224 is that of the white one which stands for those that are missing."""

    def widths(pictures: list) -> np.ndarray:
        (seen if seen is not None else []).extend(picture.width for picture in pictures)
        return np.array([[picture.width] for picture in pictures], dtype=float)

    encoder = ItemEncoder(image_encoder=widths, **options)
    encoder.fetch = server
    return encoder


def far_items(*numbers: int) -> ItemCatalog:
    return ItemCatalog.from_items([{"item_id": n, "image": f"https://a.example/{n}"} for n in numbers])


@pytest.mark.parametrize("overwrite", [False, True])
def test_addresses_are_fetched_by_a_later_run_that_may(tmp_path, caplog, overwrite):
    caplog.set_level("INFO")
    catalog = far_items(2, 3, 4)
    assert not catalog.encode(web_encoder(None), tmp_path, shard_size=2).image_mask.any()
    assert "an address, and download=True was not given" in caplog.text
    caplog.clear()
    found = catalog.encode(web_encoder(Server()), tmp_path, shard_size=2, overwrite=overwrite)
    assert found.image_features.tolist() == [[2], [3], [4]] and found.image_mask.all()
    assert "3 pictures that could not be used before are tried again" in caplog.text
    assert "encoded already" not in caplog.text and "usable" not in caplog.text
    # Nothing is left to be fetched.
    server = Server()
    assert catalog.encode(web_encoder(server), tmp_path, shard_size=2).image_mask.all() and server.asked == []


@pytest.mark.parametrize(("missing", "stand_in"), [("white", 224), ("zeros", 0)])
def test_a_download_that_failed_is_tried_again_and_the_other_items_are_not_encoded_again(
    tmp_path, caplog, missing, stand_in
):
    caplog.set_level("INFO")
    catalog = far_items(2, 3, 4, 5, 6)
    seen: list[int] = []
    first = catalog.encode(web_encoder(Server(3, 6), missing=missing), tmp_path, shard_size=4)
    assert first.image_features.tolist() == [[2], [stand_in], [4], [5], [stand_in]]
    caplog.clear()
    server = Server(6)
    # A function is told from others by pictures that need no download; here there are none.
    again = catalog.encode(web_encoder(server, seen, missing=missing), tmp_path, shard_size=4)
    assert again.image_features.tolist() == [[2], [3], [4], [5], [stand_in]]
    assert again.image_mask.tolist() == [True] * 4 + [False]
    assert sorted(server.asked) == [3, 6] and set(seen) <= {3, 224}
    assert "3 of 5 items are encoded already" in caplog.text
    assert "1 of 5 pictures cannot be used and count as missing: 1 download: status 503" in caplog.text
    # Those of a run that may not fetch stay what they are.
    kept = catalog.encode(web_encoder(None, missing=missing), tmp_path, shard_size=4)
    assert kept.image_features.tolist() == again.image_features.tolist()


def test_a_cell_with_an_address_is_fetched_later_as_well(tmp_path):
    catalog = ItemCatalog(["2", "3"], [{"image": {"bytes": None, "path": f"https://a.example/{n}"}} for n in (2, 3)])
    assert not catalog.encode(web_encoder(None), tmp_path).image_mask.any()
    assert catalog.encode(web_encoder(Server()), tmp_path).image_features.tolist() == [[2], [3]]
    # Seeing that the function is the same one takes no download.
    server = Server()
    catalog.encode(web_encoder(server), tmp_path)
    assert server.asked == []


def test_a_file_that_may_be_read_at_last_is_encoded(tmp_path, monkeypatch):
    for number in (2, 3):
        noise(number, (number, 20)).save(tmp_path / f"{number}.png")
    opened = Image.open

    def refuse(path: Path, **options: Any) -> Image.Image:
        if Path(path).name == "3.png":
            raise PermissionError(13, "Permission denied")
        return opened(path, **options)

    catalog = ItemCatalog.from_items([{"item_id": n, "image": f"{n}.png"} for n in (2, 3)], root=tmp_path)
    seen: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", refuse)
        assert catalog.encode(web_encoder(None), tmp_path / "kept").image_mask.tolist() == [True, False]
    found = catalog.encode(web_encoder(None, seen), tmp_path / "kept")
    assert found.image_features.tolist() == [[2], [3]] and sorted(seen) == [2, 3]


def test_where_no_picture_is_looked_at_none_is_tried_again(tmp_path, caplog):
    caplog.set_level("INFO")
    encoder = ItemEncoder(text_encoder=lambda texts: np.ones((len(texts), 1)), image_encoder="none", download=True)
    encoder.fetch = pytest.fail
    catalog = ItemCatalog(["2"], [{"title": "x", "image": "https://a.example/2"}])
    for _ in range(2):
        catalog.encode(encoder, tmp_path)
    assert "tried again" not in caplog.text
