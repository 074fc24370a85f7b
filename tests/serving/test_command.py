"""`mmm4rec serve`: from a folder to an address, and what goes wrong in one line."""

import http.client
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from mmm4rec_hf.cli import main
from mmm4rec_hf.serving.server import address, bind, serve

from ..cli.conftest import refusal


def test_what_cannot_be_served_is_said_in_one_line(
    capsys: pytest.CaptureFixture[str], run: Path, shop: Path, tmp_path: Path
) -> None:
    free = ["--port", "0"]
    assert "holds no model" in refusal(capsys, "serve", str(tmp_path), *free)
    assert "no such folder: " in refusal(capsys, "serve", str(tmp_path / "absent"), *free)
    assert "is a catalogue, not a model" in refusal(capsys, "serve", str(shop / "catalog"), *free)
    assert "not a saved catalogue" in refusal(capsys, "serve", str(run), "--catalog", str(tmp_path), *free)
    assert "give another --port or --host" in refusal(capsys, "serve", str(run), "--host", "192.0.2.1", *free)
    named = refusal(
        capsys, "serve", str(run), "--text-encoder", str(shop / "vit"), "--image-encoder", str(shop / "vit"), *free
    )
    assert "the encoder that was named cannot be used" in named


def test_a_port_that_is_taken_is_named_before_anything_is_loaded(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"port {port}, cannot be listened at" in refusal(
            capsys, "serve", str(tmp_path / "absent"), "--port", port
        )


def test_wrong_usage_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (["--port", "65536"], "--port must be from 0 to 65535"),
        (["--encoder", "a", "--text-encoder", "b"], "either --encoder, or"),
        (["--no-new-items", "--encoder", "a"], "--no-new-items loads no encoder"),
    ):
        assert message in refusal(capsys, "serve", "run", *arguments, status=2)
    for arguments in (["serve"], ["serve", "model", "--port", "many"], ["serve", "model", "--share"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
    told = capsys.readouterr().err.splitlines()
    assert all(line.startswith("mmm4rec serve: error: ") for line in told) and len(told) == 3
    assert all(line.endswith(" --help") for line in told)


def test_an_address_is_one_that_a_browser_takes() -> None:
    with bind("127.0.0.1", 0) as sock:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", address(sock))
    with bind("0.0.0.0", 0) as sock:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", address(sock))
    if socket.has_ipv6:
        try:
            with bind("::1", 0) as sock:
                assert re.fullmatch(r"http://\[::1\]:\d+", address(sock))
        except ValueError:
            pytest.skip("this machine has no IPv6")


@pytest.mark.slow
def test_the_command_serves_page_and_api_until_it_is_interrupted(run: Path, shop: Path) -> None:
    encoders = ["--text-encoder", str(shop / "bert"), "--image-encoder", str(shop / "vit")]
    command = [sys.executable, "-m", "mmm4rec_hf.cli", "serve", str(run), "--port", "0", "--device", "cpu", *encoders]
    process: Any = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        lines = []
        for line in process.stderr:
            lines.append(line)
            if found := re.search(r"Open (http://127\.0\.0\.1:\d+) ", line):
                break
        else:
            pytest.fail("".join(lines))
        with urllib.request.urlopen(f"{found[1]}/health", timeout=30) as answer:
            assert b'"num_items":36' in answer.read()
        with urllib.request.urlopen(found[1], timeout=30) as answer:
            page = answer.read().decode()
        assert "MMM4Rec" in page
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
        assert process.returncode == 0 and out == ""
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_connection_may_rest_longer_than_uvicorn_lets_it() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
            await send({"type": "http.response.body", "body": b"ok"})

    sock = bind("127.0.0.1", 0)
    threading.Thread(target=serve, args=(app, sock), daemon=True).start()
    connection = http.client.HTTPConnection(*sock.getsockname()[:2], timeout=10)
    connection.request("GET", "/")
    assert connection.getresponse().read() == b"ok"
    used = connection.sock
    time.sleep(6)  # uvicorn's own limit is 5
    connection.request("GET", "/")
    assert connection.getresponse().read() == b"ok" and connection.sock is used
