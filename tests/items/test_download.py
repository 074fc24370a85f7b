"""Downloads from a server of the test's own, whose loopback address stands for a public one where that is said."""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from mmm4rec_hf.items import ItemCatalog, ItemEncoder, download
from mmm4rec_hf.items.download import PictureDownloader
from mmm4rec_hf.items.images import PictureError

from .conftest import noise, png

CONTENT = png(noise(3))


class Shop(BaseHTTPRequestHandler):
    """Answers by the path asked for, and counts what was asked."""

    requests: Counter[str] = Counter()
    hosts: Counter[str] = Counter()

    def do_GET(self) -> None:
        self.requests[self.path] += 1
        self.hosts[self.headers["Host"]] += 1
        if self.path == "/busy-once.png" and self.requests[self.path] == 1 or self.path == "/busy.png":
            self.send_error(503)
        elif self.path == "/gone.png":
            self.send_error(404)
        elif self.path.startswith("/redirect/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/redirect/"))
            self.end_headers()
        elif self.path == "/cut-off.png":
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT[:100])
        elif self.path == "/slow-body.png":
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            self.write_slowly()
        elif self.path == "/slow-header.png":
            self.wfile.write(b"HTTP/1.0 200 OK\r\nServer: ")
            self.write_slowly()
        elif self.path.startswith("/slow-redirect"):
            threading.Event().wait(0.2)
            self.send_response(302)
            self.send_header("Location", self.path + "+")
            self.end_headers()
        elif self.path == "/redirect-with-a-long-text":
            self.send_response(302)
            self.send_header("Location", "/gone.png")
            self.end_headers()
            for _ in range(32):
                self.wfile.write(bytes(1 << 16))
        else:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(CONTENT)

    def write_slowly(self) -> None:
        """Twenty bytes a second until the other end is gone, for five seconds at most."""
        for _ in range(100):
            self.wfile.write(b"x")
            threading.Event().wait(0.05)

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            super().handle()

    def log_message(self, format: str, *args: object) -> None:
        """Keeps the test's output clean."""


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a running server."""
    monkeypatch.setattr(Shop, "requests", Counter())
    monkeypatch.setattr(Shop, "hosts", Counter())
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Shop)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def loopback_is_public(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the loopback through and nothing else that is private."""
    is_public = download._is_public
    monkeypatch.setattr(download, "_is_public", lambda address: address == "127.0.0.1" or is_public(address))


@pytest.fixture
def fetch(tmp_path: Path) -> PictureDownloader:
    return PictureDownloader(tmp_path / "cache", timeout=5, max_bytes=100_000, retries=2)


@pytest.mark.usefixtures("loopback_is_public")
def test_addresses_are_sent_as_browsers_send_them(shop, fetch):
    # Of letters the bytes in UTF-8, as RFC 3987 has it; what is a code already stays one.
    for name in ("red mug 1.jpg", "caf\u00e9%20au%2Flait.png?size=a b&c=1#top"):
        assert fetch(f"{shop}/{name}") == CONTENT
    assert set(Shop.requests) == {"/red%20mug%201.jpg", "/caf%C3%A9%20au%2Flait.png?size=a%20b&c=1"}
    # No server is to blame for what cannot be an address.
    with pytest.raises(PictureError, match="download: InvalidURL") as refused:
        fetch(f"{shop} x/a.png".replace("127.0.0.1", "shop .example"))
    assert type(refused.value) is PictureError


@pytest.mark.usefixtures("loopback_is_public")
def test_a_host_is_asked_by_the_name_that_it_has(shop, fetch, monkeypatch):
    # The names of these hosts in ASCII are those that a registry shows.
    names = {
        "b\u00fccher.example": "xn--bcher-kva.example",
        "\u043f\u0440\u0438\u043c\u0435\u0440.\u0440\u0444": "xn--e1afmkfd.xn--p1ai",
    }
    port = int(shop.rpartition(":")[2])
    asked = []

    def find(host, *args, **options):
        asked.append(host)
        return [(2, 1, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(download.socket, "getaddrinfo", find)
    for host in names:
        assert fetch(f"http://{host}:{port}/a.png") == CONTENT
    # Each is looked up, and the address that was checked is connected to.
    assert [host for host in asked if host != "127.0.0.1"] == list(names.values())
    assert set(Shop.hosts) == {f"{name}:{port}" for name in names.values()}
    with pytest.raises(PictureError, match="download: Unicode"):
        fetch("http://" + "\u00fc" * 70 + ".example/a.png")


@pytest.mark.usefixtures("loopback_is_public")
def test_a_picture_is_fetched_once_and_kept(shop, fetch, tmp_path):
    assert fetch(f"{shop}/a.png") == CONTENT
    assert PictureDownloader(tmp_path / "cache")(f"{shop}/a.png") == CONTENT
    assert Shop.requests == {"/a.png": 1}
    assert not list((tmp_path / "cache").rglob("*.partial"))


@pytest.mark.usefixtures("loopback_is_public")
def test_a_busy_server_is_asked_again_and_a_missing_picture_is_not(shop, fetch):
    assert fetch(f"{shop}/busy-once.png") == CONTENT
    with pytest.raises(PictureError, match="status 503"):
        fetch(f"{shop}/busy.png")
    with pytest.raises(PictureError, match="status 404"):
        fetch(f"{shop}/gone.png")
    assert Shop.requests == {"/busy-once.png": 2, "/busy.png": 3, "/gone.png": 1}


@pytest.mark.usefixtures("loopback_is_public")
def test_a_picture_cut_off_half_way_is_not_kept(shop, fetch, tmp_path):
    with pytest.raises(PictureError, match="IncompleteRead"):
        fetch(f"{shop}/cut-off.png")
    assert Shop.requests["/cut-off.png"] == 3
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.usefixtures("loopback_is_public")
def test_a_file_beyond_the_size_limit_is_refused(shop, tmp_path):
    with pytest.raises(PictureError, match="more than 1,000 bytes"):
        PictureDownloader(tmp_path, max_bytes=1000)(f"{shop}/a.png")


@pytest.mark.usefixtures("loopback_is_public")
def test_a_server_that_takes_too_long_over_one_picture_is_left(shop, tmp_path):
    with pytest.raises(PictureError, match="too slow|timeout|Timeout"):
        PictureDownloader(tmp_path, timeout=1e-6, retries=0)(f"{shop}/a.png")


@pytest.mark.usefixtures("loopback_is_public")
@pytest.mark.parametrize("path", ["slow-body.png", "slow-header.png", "slow-redirect"])
def test_a_server_that_never_stops_for_long_is_left_at_the_end_of_the_time(shop, tmp_path, path):
    start = time.monotonic()
    with pytest.raises(PictureError, match="too slow"):
        PictureDownloader(tmp_path, timeout=0.3)(f"{shop}/{path}")
    assert 0.8 < time.monotonic() - start < 1.8


@pytest.mark.usefixtures("loopback_is_public")
def test_a_redirect_s_own_text_is_within_the_size_limit(shop, tmp_path):
    with pytest.raises(PictureError, match="more than 1,000 bytes"):
        PictureDownloader(tmp_path, max_bytes=1000)(f"{shop}/redirect-with-a-long-text")


@pytest.mark.usefixtures("loopback_is_public")
@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("http://10.0.0.7/a.png", "an address in a private network"),
        ("http://169.254.169.254/latest/meta-data", "an address in a private network"),
        ("http://[::1]/a.png", "an address in a private network"),
        ("file:///etc/passwd", "status 302"),
        ("ftp://example.org/a.png", "unknown url type"),
    ],
)
def test_a_redirect_leads_nowhere_that_an_address_may_not(shop, fetch, target, reason):
    with pytest.raises(PictureError, match=reason):
        fetch(f"{shop}/redirect/{target}")


@pytest.mark.usefixtures("loopback_is_public")
def test_a_redirect_to_another_picture_is_followed_and_a_circle_is_not(shop, fetch):
    assert fetch(f"{shop}/redirect/{shop}/a.png") == CONTENT
    with pytest.raises(PictureError, match="status 302"):
        fetch(f"{shop}/redirect//redirect/")


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "10.1.2.3", "192.168.0.1", "172.16.0.1", "169.254.169.254"]
    + ["[::ffff:127.0.0.1]", "[fd00::1]", "100.64.0.1", "224.0.0.1", "2130706433"],
)
def test_private_addresses_are_refused_before_anything_is_sent(shop, fetch, host):
    port = shop.rsplit(":", 1)[1]
    with pytest.raises(PictureError, match="private network|gaierror|OSError"):
        fetch(f"http://{host}:{port}/a.png")
    assert not Shop.requests


@pytest.mark.parametrize(
    "address",
    ["64:ff9b::a00:1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::808:808"]  # NAT64, IPv4 in its last bits
    + [
        "2002:7f00:1::1",
        "2002:a00:1::",
        "2001:0:7f00:1::",
        "2001:0:808:808::",
    ]  # 6to4 and Teredo, IPv4 after the prefix
    + ["::7f00:1", "::808:808", "::ffff:0:808:808", "::ffff:7f00:1", "::"]  # IPv4 in other ways
    + ["fec0::1", "fe80::1%eth0", "fc00::1", "ff02::1", "2001:db8::1", "100::1", "4000::1"],
)
def test_an_ipv6_address_that_leads_into_a_private_network_or_nowhere_is_not_public(address):
    assert not download._is_public(address)


@pytest.mark.parametrize(
    "address",
    ["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", "64:ff9b::808:808", "2002:808:808::1", "::ffff:8.8.8.8"],
)
def test_addresses_of_the_internet_are_public(address):
    assert download._is_public(address)


@pytest.mark.parametrize("addresses", [["169.254.169.254"], ["93.184.216.34", "127.0.0.1"], ["::ffff:10.0.0.1"]])
def test_a_name_that_leads_into_a_private_network_is_refused(fetch, monkeypatch, addresses):
    def looked_up(host: str, port: int, **options: object) -> list:
        assert host == "pictures.example.org"
        return [(0, 0, 0, "", (address, port)) for address in addresses]

    def connect(*arguments: object) -> None:
        raise AssertionError("a connection was made")

    monkeypatch.setattr(download.socket, "getaddrinfo", looked_up)
    monkeypatch.setattr(download.socket, "create_connection", connect)
    for scheme in ("http", "https"):
        with pytest.raises(PictureError, match="an address in a private network"):
            fetch(f"{scheme}://pictures.example.org/a.png")


@pytest.mark.parametrize("url", ["http://", "http://a b/", "https://[/a.png"])
def test_an_address_that_is_none_has_a_reason(fetch, monkeypatch, url):
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
    with pytest.raises(PictureError, match="download: "):
        fetch(url)


@pytest.mark.usefixtures("loopback_is_public")
def test_a_catalogue_of_addresses_is_encoded_only_where_that_was_asked_for(shop, tmp_path, caplog):
    catalog = ItemCatalog.from_items([{"item_id": name, "image": f"{shop}/{name}.png"} for name in ("a", "gone")])

    def mean_colour(pictures: list) -> np.ndarray:
        return np.stack([np.asarray(picture, dtype=float).mean(axis=(0, 1)) for picture in pictures])

    assert catalog.encode(ItemEncoder(image_encoder=mean_colour)).image_mask.tolist() == [False, False]
    assert "2 an address, and download=True was not given" in caplog.text and not Shop.requests
    encoded = catalog.encode(ItemEncoder(image_encoder=mean_colour, download=True, cache_dir=tmp_path))
    assert encoded.image_mask.tolist() == [True, False] and "1 download: status 404" in caplog.text
    np.testing.assert_allclose(encoded.image_features[0], np.asarray(noise(3)).mean(axis=(0, 1)), rtol=1e-6)
