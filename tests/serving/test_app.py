"""Page and API in one application: what it must not give away, and what it must not ask for elsewhere."""

import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from mmm4rec_hf.items.download import NoAnswer
from mmm4rec_hf.items.images import PictureError
from mmm4rec_hf.serving.page import create_app
from mmm4rec_hf.serving.pictures import PictureStore
from mmm4rec_hf.serving.recommender import Recommender
from mmm4rec_hf.serving.uploads import Uploads

from .conftest import IDS
from .test_recommender import png


@pytest.fixture
def app_client(recommender: Recommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    with TestClient(create_app(recommender, local_only=True), base_url="http://127.0.0.1:7860") as client:
        yield client


def test_the_page_loads_nothing_of_other_servers(app_client: TestClient) -> None:
    page = app_client.get("/").text
    loaded = re.findall(r"""<(?:script|link|img|iframe)\b[^>]*?\b(?:src|href)=["']([^"']+)["']""", page)
    assert [address for address in loaded if re.match("(https?:)?//", address)] == []
    config = app_client.get("/config").json()
    assert config["analytics_enabled"] is False and config["title"] == "MMM4Rec"


def test_files_of_this_machine_are_not_served(app_client: TestClient, shop: Path, repository: Path) -> None:
    for path in ("/etc/passwd", repository / "pyproject.toml", shop / "0.png", shop / "items.jsonl"):
        for address in (f"/gradio_api/file={path}", f"/file={path}", f"/gradio_api/file/{path}"):
            answer = app_client.get(address)
            assert answer.status_code in (403, 404), address
    assert app_client.get("/monitoring").status_code in (403, 404)


def test_a_page_of_another_site_reaches_nothing_of_it(app_client: TestClient) -> None:
    for path in ("/", "/config", "/items", "/docs", "/thumbnail?item_id=item-1"):
        assert app_client.get(path, headers={"host": "evil.example"}).status_code == 403
    headers = {"origin": "http://evil.example"}
    for path in ("/gradio_api/run/predict", "/gradio_api/upload", "/items", "/recommend"):
        assert app_client.post(path, headers=headers).status_code == 403


def test_uploads_of_the_page_are_bounded(app_client: TestClient) -> None:
    large = {"files": ("a.png", bytes(11 << 20))}
    answer = app_client.post("/gradio_api/upload", files=large)
    assert answer.status_code == 413 and "more than 10 MB" in answer.json()["detail"]
    assert app_client.post("/gradio_api/run/predict", content=b" " * (2 << 20)).status_code == 413


def test_thumbnails_are_pictures_even_where_the_file_is_broken(
    recommender: Recommender, app_client: TestClient, tmp_path: Path
) -> None:
    answer = app_client.get("/thumbnail", params={"item_id": "item-1", "size": 128})
    assert answer.headers["content-type"] == "image/jpeg" and "immutable" in answer.headers["cache-control"]
    (tmp_path / "broken.png").write_bytes(b"broken")
    recommender.state.catalog.records[1]["image"] = str(tmp_path / "broken.png")
    answer = app_client.get("/thumbnail", params={"item_id": "item-1"})
    assert answer.headers["content-type"] == "image/svg+xml" and "not readable" in answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert app_client.get("/thumbnail", params={"item_id": "nobody"}).status_code == 404
    assert app_client.get("/thumbnail", params={"item_id": "item-1", "size": 5000}).status_code == 422
    # Ids of every kind, as the page asks for them.
    for item_id in IDS:
        assert app_client.get("/thumbnail", params={"item_id": item_id}).status_code == 200


def test_a_server_of_pictures_that_does_not_answer_keeps_nobody_else_waiting(
    recommender: Recommender, serve: Callable[[Any], str]
) -> None:
    answered, lock, counts = threading.Event(), threading.Lock(), {"now": 0, "most": 0}

    def fetch(address: str) -> bytes:
        if "quick" in address:
            return png("red", "star")
        if "silent" in address:
            raise NoAnswer("download: TimeoutError")
        with lock:
            counts["now"] += 1
            counts["most"] = max(counts.values())
        answered.wait(60)
        with lock:
            counts["now"] -= 1
        return png("red", "star")

    recommender.pictures = PictureStore(fetch)
    hosts = {7: "quick", 8: "silent"}
    for number, record in enumerate(recommender.state.catalog.records[:30]):
        if number != 5:
            record["image"] = f"https://{hosts.get(number, 'shop')}{number}.example/a.png"
    # One that is here by now, and one that is not asked for again at once.
    kept = recommender.picture("item-7", 256)
    with pytest.raises(PictureError):
        recommender.picture("item-8", 256)
    address = serve(create_app(recommender, local_only=True))

    def ask(path: str) -> int:
        return httpx.get(f"{address}{path}", timeout=50).status_code

    # More than there are threads.
    with ThreadPoolExecutor(60) as pool:
        paths = [f"/thumbnail?item_id=item-{n % 5}&v={n}" for n in range(50)]
        waiting = [pool.submit(ask, path) for path in paths + ["/items/item-6/image"]]
        try:
            while counts["now"] < 8:
                time.sleep(0.01)
            time.sleep(0.3)
            for path in ("/items", "/thumbnail?item_id=item-5", "/items/item-5/image", "/health"):
                assert ask(path) == 200, path
            assert httpx.get(f"{address}/thumbnail?item_id=item-7", timeout=50).content == kept
            assert ask("/items/item-8/image") == 404
            assert not any(each.done() for each in waiting)
        finally:
            answered.set()
        assert {each.result() for each in waiting} == {200} and counts["most"] == 8


@pytest.mark.parametrize(
    "event",
    [
        {"action": "add", "id": "nobody"},
        {"action": "add", "id": 7},
        {"action": "remove", "place": 99},
        {"action": "remove", "place": "0"},
        {"action": "up", "place": -1},
        {"action": "run", "id": "item-1", "place": 0},
        {},
    ],
)
def test_clicks_that_no_button_makes_change_nothing(recommender: Recommender, event: dict[str, Any]) -> None:
    from gradio import EventData

    from mmm4rec_hf.serving.page import Page

    history = ["item-1", "item-2"]
    after = Page(recommender).act(history, "", 1, 10, "a day", EventData(None, event))[0]
    assert after == history == ["item-1", "item-2"]


def test_a_history_has_an_end(recommender: Recommender) -> None:
    from gradio import EventData

    from mmm4rec_hf.serving.page import Page

    page, history, told = Page(recommender), ["item-1"] * 98, []
    for _ in range(4):
        event = EventData(None, {"action": "add", "id": "item-2"})
        history, content, *_ = page.act(history, "", 1, 10, "a day", event)
        told.append("as long as a history gets" in content)
    assert len(history) == 100 and told == [False, True, True, True]


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What Gradio was about to fetch; each try fails, and is kept here, as Gradio makes a plain 500 of it."""
    import safehttpx
    from gradio import processing_utils

    asked: list[str] = []

    def refuse(address: str, *_: Any, **__: Any) -> Any:
        asked.append(address)
        raise AssertionError(address)

    names = ["async_ssrf_protected_download", "async_ssrf_protected_get", "ssrf_protected_download"]
    for name in [*names, "save_url_to_cache", "unsafe_download"]:
        monkeypatch.setattr(processing_utils, name, refuse)
    for name in ("async_validate_url", "get"):
        monkeypatch.setattr(safehttpx, name, refuse)
    return asked


def answers(client: TestClient, event: dict[str, Any], data: list[Any]) -> list[str]:
    """What each way gives to ask for an event of the page: by number, as the page does, and by name."""
    body = {"data": data, "fn_index": event["id"], "session_hash": secrets.token_hex(4)}
    paths = ("run/predict", f"run/{event['api_name']}", f"run/{event['api_name']}/")
    return [client.post(f"/gradio_api/{path}", json=body).text for path in paths]


@pytest.mark.parametrize("path", ["https://elsewhere.example/big.bin", "secret.svg", "in a list"])
def test_no_part_of_the_page_takes_a_file_that_was_not_uploaded(
    app_client: TestClient, recommender: Recommender, fetched: list[str], tmp_path: Path, path: str
) -> None:
    (tmp_path / "secret.svg").write_text("<svg/>")
    address = "http://127.0.0.1/a.png" if path == "in a list" else path.replace("secret", str(tmp_path / "secret"))
    file: Any = {"path": address, "orig_name": "a.png", "meta": {"_type": "gradio.FileData"}}
    if path == "in a list":
        file = [{"value": file}]
    config = app_client.get("/config").json()
    parts = {part["id"]: part for part in config["components"]}
    asked = set()
    for event in config["dependencies"]:
        for place, part in enumerate(event["inputs"]):
            # Every text is there, so that the picture is what is wrong.
            given = [parts[part] for part in event["inputs"]]
            data: list[Any] = [
                "new" if part["type"] == "textbox" else part.get("props", {}).get("value") for part in given
            ]
            data[place] = file
            for answer in answers(app_client, event, data):
                assert "a picture must be uploaded (addresses and paths of this machine are not taken)" in answer
            asked.add(parts[part]["type"])
    assert asked == {"textbox", "dropdown", "file", "state"} and fetched == []
    assert "new" not in recommender.state.catalog
    assert not list((tmp_path / "uploads").rglob("*.svg"))


def test_a_file_that_was_uploaded_is_taken(app_client: TestClient, fetched: list[str]) -> None:
    (path,) = app_client.post("/gradio_api/upload", files={"files": ("a.png", png("red", "bar"))}).json()
    (event,) = [each for each in app_client.get("/config").json()["dependencies"] if each["api_name"] == "check_file"]
    file = {"path": path, "orig_name": "a.png", "meta": {"_type": "gradio.FileData"}}
    given = answers(app_client, event, [file])
    assert all("The picture can be read: 48 x 64." in answer for answer in given)
    refused = app_client.post("/gradio_api/run/check_file", json={"data": [file | {"path": [path]}]})
    assert "must be uploaded" in refused.text


def uploaded(folder: Path) -> list[Path]:
    return [path for path in (folder / "uploads").rglob("*") if path.is_file()]


def test_what_is_kept_of_uploads_is_bounded_and_nothing_else_is_left(
    app_client: TestClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def send(*files: tuple[str, Any]) -> Any:
        return app_client.post("/gradio_api/upload", files=list(files))

    kept = [send(("files", (f"{n}.png", bytes([n]) * 10))).json()[0] for n in range(70)]
    assert sorted(map(str, uploaded(tmp_path))) == sorted(kept[-64:]) and len(set(kept)) == 70
    assert {Path(path).read_bytes() for path in kept[-64:]} == {bytes([n]) * 10 for n in range(6, 70)}
    assert (
        len([record for record in caplog.records if "1 uploaded pictures were deleted early" in record.message]) == 6
    )
    # Parts that are no files of the page, several at once, a large one, a name that leads elsewhere.
    assert send(("other", ("a.png", b"x"))).status_code == 422
    assert "one picture at a time" in send(*[("files", ("a.png", b"x"))] * 2).json()["detail"]
    assert send(("files", ("a.png", bytes((10 << 20) + 1)))).status_code == 413
    (path,) = send(("files", ("../../up.p/g", b"x"))).json()
    assert Path(path).parent == tmp_path / "uploads" and not Path(path).suffix
    # An event leaves no file of its own.
    (event,) = [each for each in app_client.get("/config").json()["dependencies"] if each["api_name"] == "check_file"]
    file = {"path": path, "orig_name": "a.png", "meta": {"_type": "gradio.FileData"}}
    assert all("cannot be used" in answer for answer in answers(app_client, event, [file]))
    assert len(list((tmp_path / "uploads").rglob("*"))) == 64


def test_the_oldest_uploads_go_where_there_is_no_room_for_a_new_one(tmp_path: Path) -> None:
    known: set[str] = set()
    uploads = Uploads(tmp_path, known, max_bytes=100)
    paths = [uploads.keep("a.JPG", bytes(size)) for size in (40, 40, 20)]
    assert known == set(paths) and all(path.endswith(".jpg") for path in paths)
    Path(paths[1]).unlink()  # as a system does that tidies its temporary files
    paths.append(uploads.keep("a", bytes(40)))
    assert [Path(path).exists() for path in paths] == [True, False, True, True]
    assert known == {paths[0], paths[2], paths[3]}
    paths.append(uploads.keep("a", bytes(30)))
    assert [Path(path).exists() for path in paths] == [False, False, True, True, True]
    assert known == set(paths[2:])


def test_a_server_that_takes_no_items_takes_no_pictures(
    load: Callable[..., Recommender], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    with TestClient(create_app(load(find_encoder=None)), base_url="http://127.0.0.1:7860") as client:
        answer = client.post("/gradio_api/upload", files={"files": ("a.png", png("red", "bar"))})
        assert answer.status_code == 403 and "this server takes no new items: it was" in answer.json()["detail"]
    assert not uploaded(tmp_path)


def test_a_picture_that_was_deleted_meanwhile_is_to_be_chosen_again(app_client: TestClient) -> None:
    events = {each["api_name"]: each for each in app_client.get("/config").json()["dependencies"]}
    (path,) = app_client.post("/gradio_api/upload", files={"files": ("a.png", png("red", "bar"))}).json()
    Path(path).unlink()
    file = {"path": path, "orig_name": "a.png", "meta": {"_type": "gradio.FileData"}}
    texts = ["Red bar"] * (len(events["add"]["inputs"]) - 2)
    for name, data in (("check_file", [file]), ("add", ["new", file, *texts])):
        for answer in answers(app_client, events[name], data):
            assert "This picture cannot be used: it is not here;" in answer
            assert "is kept for a quarter of an hour: choose it again" in answer


def test_files_of_other_servers_are_not_passed_on(app_client: TestClient, fetched: list[str]) -> None:
    for address in ("http://elsewhere.example/a.png", "https://elsewhere.example/a.png", "HTTP://elsewhere.example/a"):
        for path in ("file=", "file/", "file=%68ttp://a/", "proxy="):
            for ask in (app_client.get, app_client.head):
                assert ask(f"/gradio_api/{path}{address}").status_code in (400, 403), (path, address)
    assert fetched == []


def test_what_gradio_has_and_the_page_does_without_is_closed(app_client: TestClient, fetched: list[str]) -> None:
    recording = {"files": ("a.webm", b"RIFF", "video/webm")}
    assert app_client.post("/gradio_api/process_recording", files=recording).status_code == 403
    for path in ("component_server", "reset", "cancel", "vibe-edit", "stream/a/close", "run-history/connect"):
        assert app_client.post(f"/gradio_api/{path}", json={}).status_code == 403, path
    for path in (
        "proxy=https://elsewhere.example/a",
        "deep_link",
        "token",
        "user",
        "profiling/traces",
        "runs",
        "mcp/sse",
        "info",
        "queue/status",
    ):
        assert app_client.get(f"/gradio_api/{path}").status_code == 403, path
    assert app_client.get("/gradio_api/startup-events").status_code == 200 and fetched == []


def test_no_event_waits_in_a_queue_where_answers_are_kept(app_client: TestClient) -> None:
    (event,) = [each for each in app_client.get("/config").json()["dependencies"] if each["api_name"] == "browse"]
    body = {"data": ["", None, None], "fn_index": event["id"], "session_hash": "a"}
    assert app_client.post("/gradio_api/run/browse", json=body).status_code == 200
    for path in ("queue/join", "QUEUE/join", "call/browse", "call/v2/browse", "api/browse", "api/browse/"):
        answer = app_client.post(f"/gradio_api/{path}", json=body)
        assert answer.status_code == 403 and "this server has no" in answer.json()["detail"], path
    for path in ("/queue/join", "/call/browse", "//gradio_api/queue/join", "/gradio_api//queue/join"):
        assert app_client.post(path, json=body).status_code in (403, 404, 405), path


def session_states(client: TestClient) -> Any:
    """What Gradio keeps of the visitors of a page."""
    (app,) = [route.app for route in client.app.routes if hasattr(getattr(route, "app", None), "state_holder")]
    return app.state_holder


def test_of_a_visitor_the_history_is_kept_and_no_more(app_client: TestClient) -> None:
    events = {each["api_name"]: each for each in app_client.get("/config").json()["dependencies"]}

    def ask(session: str, name: str, data: list[Any], **more: Any) -> str:
        body = {"data": data, "fn_index": events[name]["id"], "session_hash": session} | more
        answer = app_client.post("/gradio_api/run/predict", json=body)
        assert answer.status_code == 200
        return answer.text

    ask("first", "find", ["z" * 20_000, None])
    for item_id in ("item-1", "item-2"):
        ask("first", "act", [None, "y" * 20_000, None, 10, "a day"], event_data={"action": "add", "id": item_id})
    kept = session_states(app_client)["first"]
    assert [value for value in kept.state_data.values() if isinstance(value, list)] == [["item-1", "item-2"]]
    assert not any(letter * 50 in repr(vars(kept)) for letter in "yz") and kept.config_values == {}
    # The next click goes on from there.
    told = ask("first", "act", [None, "", None, 10, "a day"], event_data={"action": "up", "id": None, "place": 1})
    assert kept.state_data and told.index("item-2") < told.index("item-1")
    states = session_states(app_client)
    for number in range(510):
        states[str(number)].is_closed = False
    assert len(states.session_data) == 500 and "first" not in states


def test_an_event_is_as_large_as_its_texts_may_be(app_client: TestClient, recommender: Recommender) -> None:
    events = {each["api_name"]: each for each in app_client.get("/config").json()["dependencies"]}
    count = len(recommender.text_fields)
    body = {"fn_index": events["add"]["id"], "session_hash": "a"}

    def ask(data: list[Any]) -> Any:
        content = json.dumps(body | {"data": data}, ensure_ascii=False).encode()
        return app_client.post(
            "/gradio_api/run/predict", content=content, headers={"content-type": "application/json"}
        )

    answer = ask(["new", None, *["\N{BAR OF SOAP}" * 10_000] * count])
    assert answer.status_code == 200 and "The catalogue has 37 items now" in answer.text
    answer = ask(["other", None, *["\N{BAR OF SOAP}" * 10_000] * count, "x" * (33 << 10)])
    assert answer.status_code == 413
    assert answer.json()["detail"] == f"the request has more than {32 + count * 40_000 // 1024} KB; send less at once"


def test_half_a_character_is_an_answer_of_the_page_too(app_client: TestClient, recommender: Recommender) -> None:
    events = {each["api_name"]: each for each in app_client.get("/config").json()["dependencies"]}

    def ask(name: str, data: list[Any], **more: Any) -> str:
        body = {"data": data, "fn_index": events[name]["id"], "session_hash": "a"} | more
        headers = {"content-type": "application/json"}
        answer = app_client.post(f"/gradio_api/run/{name}", content=json.dumps(body), headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.text

    assert "has all of these words: cut ?" in ask("browse", ["cut \ud83d", None, None])
    assert "has all of these words: cut ?" in ask("find", ["cut \ud83d", None])
    texts = len(recommender.text_fields)
    assert "half of a UTF-16 pair" in ask("add", ["new", None, "cut \ud83d", *["x"] * (texts - 1)])
    assert "half of a UTF-16 pair" in ask("add", ["\ud83d", None, *["x"] * texts])
    for item_id in ("\ud83d", ""):
        act = ask("act", [None, "", None, 10, "a day"], event_data={"action": "add", "id": item_id})
        assert "Choose at least one item" in act
