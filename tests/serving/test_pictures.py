"""Pictures that are shown, and pictures that somebody uploads."""

import io
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmm4rec_hf.items.download import NoAnswer, PictureDownloader
from mmm4rec_hf.items.images import PictureError
from mmm4rec_hf.serving.pictures import MAX_UPLOAD_BYTES, NotDownloaded, PictureStore, read_upload


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def png_of(width: int, height: int) -> bytes:
    """A small PNG file that says it is large: what a decompression bomb looks like before it is decoded."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def test_a_picture_is_made_small_upright_and_free_of_everything_but_its_pixels(tmp_path: Path) -> None:
    wide = Image.new("RGB", (400, 100), "red")
    wide.paste("blue", (0, 0, 200, 100))
    exif = wide.getexif()
    exif[0x0112], exif[0x010E] = 6, "somebody's address"  # to be turned by 90 degrees clockwise; a description
    wide.save(tmp_path / "a.jpg", exif=exif, quality=95)
    content = PictureStore().jpeg("a.jpg", tmp_path, 128)
    small = opened(content)
    assert (small.format, small.size) == ("JPEG", (32, 128))
    top, bottom = small.getpixel((16, 10)), small.getpixel((16, 118))
    assert top[2] > 200 > 60 > top[0] and bottom[0] > 200 > 60 > bottom[2]
    assert not small.getexif() and b"address" not in content


def test_a_small_picture_is_not_blown_up() -> None:
    assert opened(PictureStore().jpeg(encoded(Image.new("RGB", (20, 30))), None, 256)).size == (20, 30)


def test_the_store_keeps_what_fits_and_reads_a_kept_picture_once(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    for number, pixels in enumerate(noise):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    store = PictureStore(max_bytes=2 * len(PictureStore().jpeg("0.png", tmp_path, 64)) + 1000)
    first = [store.jpeg(f"{number}.png", tmp_path, 64) for number in range(3)]
    for path in tmp_path.iterdir():
        path.unlink()
    # The first went when the third came.
    with pytest.raises(PictureError, match="no such file"):
        store.jpeg("0.png", tmp_path, 64)
    assert [store.jpeg(f"{number}.png", tmp_path, 64) for number in (1, 2)] == first[1:]


def test_addresses_are_shown_only_where_somebody_fetches_them() -> None:
    address = "http://127.0.0.1/secret.png"
    assert not PictureStore().shows(address)
    with pytest.raises(PictureError, match="an address"):
        PictureStore().jpeg(address, None, 64)
    fetched = PictureStore(fetch=lambda url: encoded(Image.new("RGB", (9, 9), "red")))
    assert fetched.shows(address) and opened(fetched.jpeg(address, None, 64)).size == (9, 9)


def test_addresses_of_this_machine_and_its_network_are_never_fetched(tmp_path: Path) -> None:
    store = PictureStore(fetch=PictureDownloader(tmp_path, retries=0))
    for address in (
        "http://127.0.0.1:9/a.png",
        "http://localhost:9/a.png",
        "http://[::1]:9/a.png",
        "http://10.0.0.1/",
    ):
        with pytest.raises(PictureError, match="an address in a private network"):
            store.jpeg(address, None, 64)


class Shops:
    """Other servers' pictures: of a host that does not answer, of one that has none, and of one that has."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, address: str) -> bytes:
        self.asked.append(address)
        if "silent" in address:
            raise NoAnswer("download: TimeoutError")
        if "none" in address:
            raise PictureError("download: status 404")
        return encoded(Image.new("RGB", (9, 9), "red"))


def test_an_address_that_failed_is_asked_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("mmm4rec_hf.serving.pictures.time.monotonic", lambda: now[0])
    shops = Shops()
    store = PictureStore(shops)
    for seconds, count in ((0, 1), (30, 1), (59, 1), (61, 2), (100, 2)):
        now[0] = 1000.0 + seconds
        with pytest.raises(PictureError, match="download: status 404"):
            store.jpeg("https://shop.example/none.png", None, 64)
        assert len(shops.asked) == count
    # Others of that host are asked, however many it lacks.
    for number in range(9):
        with pytest.raises(PictureError, match="404"):
            store.jpeg({"path": f"https://shop.example/none-{number}.png"}, None, 64)
    assert store.jpeg("https://shop.example/a.png", None, 64) and len(shops.asked) == 12


def test_a_host_that_does_not_answer_is_left_alone_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("mmm4rec_hf.serving.pictures.time.monotonic", lambda: now[0])
    shops = Shops()
    store = PictureStore(shops)

    def ask(address: str) -> None:
        with pytest.raises(PictureError, match="download: TimeoutError"):
            store.jpeg(address, None, 64)

    for number in range(3):
        ask(f"https://one.example/silent-{number}.png")
    # It answers in between, be it that there is none, and then no more.
    store.jpeg("https://one.example/a.png", None, 64)
    for number in range(3, 6):
        ask(f"https://one.example/silent-{number}.png")
    with pytest.raises(PictureError, match="404"):
        store.jpeg("https://one.example/none.png", None, 64)
    for number in range(6, 20):
        ask(f"https://one.example/silent-{number}.png")
    assert len(shops.asked) == 3 + 1 + 3 + 1 + 4
    ask("https://ONE.example/b.png")
    assert store.jpeg("https://two.example/a.png", None, 64)
    now[0] += 61
    assert store.jpeg("https://one.example/b.png", None, 64) and len(shops.asked) == 14


def test_pictures_that_are_here_are_shown_while_their_host_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shops = Shops()
    monkeypatch.setattr(PictureDownloader, "_fetch", lambda _, address: shops(address))
    PictureDownloader(tmp_path)("https://one.example/here.png")
    store = PictureStore(PictureDownloader(tmp_path))
    for number in range(4):
        with pytest.raises(NoAnswer):
            store.jpeg(f"https://one.example/silent-{number}.png", None, 64)
    assert store.jpeg("https://one.example/here.png", None, 64, download=False)
    assert store.jpeg("https://one.example/here.png", None, 32)
    with pytest.raises(PictureError, match="TimeoutError"):
        store.jpeg("https://one.example/other.png", None, 64)
    assert len(shops.asked) == 1 + 4


def test_a_slow_server_keeps_no_other_picture_from_being_decoded(tmp_path: Path) -> None:
    Image.new("RGB", (9, 9), "red").save(tmp_path / "a.png")
    waiting, answered = threading.Semaphore(0), threading.Event()

    def fetch(address: str) -> bytes:
        waiting.release()
        assert answered.wait(30)
        raise NoAnswer("download: too slow")

    store = PictureStore(fetch)
    with ThreadPoolExecutor(4) as pool:
        slow = [pool.submit(store.jpeg, f"https://shop.example/{number}.png", None, 64) for number in range(3)]
        for _ in slow:
            assert waiting.acquire(timeout=30)
        try:
            assert opened(pool.submit(store.jpeg, "a.png", tmp_path, 64).result(timeout=30)).size == (9, 9)
        finally:
            answered.set()
        assert [type(each.exception()) for each in slow] == [NoAnswer] * 3


def test_what_was_downloaded_before_needs_no_other_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shops = Shops()
    monkeypatch.setattr(PictureDownloader, "_fetch", lambda _, address: shops(address))
    first, address = PictureStore(PictureDownloader(tmp_path)), "https://one.example/a.png"
    with pytest.raises(NotDownloaded):
        first.jpeg(address, None, 64, download=False)
    content = first.jpeg(address, None, 64)
    assert first.jpeg(address, None, 64, download=False) == content
    # Another server of the same folder, and another size.
    second = PictureStore(PictureDownloader(tmp_path))
    assert second.jpeg({"path": address}, None, 64, download=False) == content
    assert opened(second.jpeg(address, None, 5, download=False)).size == (5, 5)
    assert shops.asked == [address]


def test_what_failed_a_moment_ago_is_refused_and_nobody_has_to_be_asked() -> None:
    shops, address = Shops(), "https://one.example/none.png"
    store = PictureStore(shops)
    # Not to have asked is no failure of the address.
    for _ in range(9):
        with pytest.raises(NotDownloaded):
            store.jpeg(address, None, 64, download=False)
    for download in (True, False):
        with pytest.raises(PictureError, match="status 404"):
            store.jpeg(address, None, 64, download=download)
    assert shops.asked == [address]


def test_nobody_waits_long_for_a_picture_of_another_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[float] = []

    def connect(address: Any, timeout: float) -> Any:
        tries.append(timeout)
        raise TimeoutError

    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: [(0, 0, 0, "", ("93.184.216.34", 443))])
    monkeypatch.setattr("socket.create_connection", connect)
    with pytest.raises(NoAnswer, match="download: TimeoutError"):
        PictureStore(PictureDownloader(tmp_path)).jpeg("https://shop.example/a.png", None, 64)
    assert len(tries) == 1 and 4.5 < tries[0] <= 5


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_the_usual_kinds_can_be_uploaded(kind: str) -> None:
    assert read_upload(encoded(Image.new("RGB", (12, 8), "red"), kind)).size == (12, 8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"nothing of a picture", "no picture of these kinds"),
        (b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", "no picture of these kinds"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "no picture of these kinds"),
        (encoded(Image.new("RGB", (10, 10)), "TIFF"), "no picture of these kinds"),
        (encoded(Image.effect_noise((200, 200), 90).convert("RGB"), "JPEG")[:3000], "broken or cut off"),
        (encoded(Image.effect_noise((200, 200), 90))[:3000], "broken or cut off"),
        (png_of(8000, 8000), "more than 50 million pixels"),
        (png_of(60_000, 60_000), "more than 50 million pixels"),
        (encoded(Image.new("RGB", (1, 1))), "one pixel"),
        (b"\x89PNG\r\n\x1a\n" + bytes(MAX_UPLOAD_BYTES), "more than 10 MB"),
    ],
    ids=["empty", "text", "svg", "eps", "tiff", "cut-jpeg", "cut-png", "large", "bomb", "pixel", "bytes"],
)
def test_what_cannot_be_used_is_refused_with_a_reason(content: bytes, message: str) -> None:
    with pytest.raises(PictureError, match=message):
        read_upload(content)
