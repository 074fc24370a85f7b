"""The JSON API: the pipeline's answers, and what is refused."""

import io
import json
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mmm4rec_hf.serving.api import create_api
from mmm4rec_hf.serving.recommender import Recommender

from .conftest import HOSTILE, IDS, TITLES
from .test_recommender import history, png, without_why

MEGABYTE = 1 << 20


def detail(response: Any, status: int) -> str:
    """The one line of an error."""
    assert response.status_code == status, response.text
    body = response.json()
    assert list(body) == ["detail"] and "\n" not in body["detail"]
    return body["detail"]


def test_recommendations_are_the_pipelines(client: TestClient, reference: Any) -> None:
    histories = [history("item-3", "007", "7"), {"items": ["a/../b"], "timestamps": ["2020-01-01T00:00:00Z"]}]
    body = {"histories": histories, "top_k": 7, "exclude_history": False, "candidates": IDS[3:]}
    found = client.post("/recommend", json=body).json()["recommendations"]
    assert found == reference(histories, top_k=7, exclude_history=False, candidates=IDS[3:])
    why = client.post("/recommend", json=body | {"why": True}).json()["recommendations"]
    assert [without_why(items) for items in why] == found
    assert set(why[0][0]["why"]) == {"text", "image"}


def test_ids_may_be_numbers_and_times_may_be_left_out(client: TestClient, reference: Any) -> None:
    found = client.post("/recommend", json={"histories": [{"items": [7, 9007199254740993]}]}).json()
    assert found["recommendations"][0] == reference({"items": ["7", "9007199254740993"]})
    # A day apart, as the pipeline reads them.
    assert found["recommendations"][0] == reference(history("7", "9007199254740993", gap=86_400))


def test_items_that_are_not_known_are_told_of_each_history(client: TestClient) -> None:
    many = [f"gone-{n % 12}" for n in range(30)]
    histories = [{"items": items} for items in (["item-3", "nope"], ["item-3"], [404, "7", "nope", 404, *many])]
    answer = client.post("/recommend", json={"histories": histories, "top_k": 5}).json()
    assert answer["unknown_items"] == [
        {"count": 1, "item_ids": ["nope"]},
        {"count": 0, "item_ids": []},
        {"count": 33, "item_ids": ["404", "nope", *many[:8]]},
    ]
    one, other, _ = ([item["item_id"] for item in items] for items in answer["recommendations"])
    assert one == other and len(one) == 5
    body = {"histories": [{"items": []}, {"items": ["nope"]}], "empty_histories": "default"}
    assert [left_out["count"] for left_out in client.post("/recommend", json=body).json()["unknown_items"]] == [0, 1]
    # A new item is known from then on, to the list of what is not, too.
    assert client.post("/items", data={"item_id": "nope", "title": "Red star"}).status_code == 201
    answer = client.post("/recommend", json={"histories": histories[:1]}).json()
    assert answer["unknown_items"] == [{"count": 0, "item_ids": []}]


def test_candidates_that_are_not_known_are_told_of_the_request(client: TestClient) -> None:
    body = {"histories": [history("item-2"), history("item-3")]}
    assert "unknown_candidates" not in client.post("/recommend", json=body).json()
    for candidates, unknown in ((["7", "nope", 404], ["nope", "404"]), (["7"], []), ([], []), (["nope"], ["nope"])):
        answer = client.post("/recommend", json=body | {"candidates": candidates}).json()
        assert answer["unknown_candidates"] == {"count": len(unknown), "item_ids": unknown}
        found = [[item["item_id"] for item in items] for items in answer["recommendations"]]
        assert found == [["7"] if "7" in candidates else []] * 2


def test_similar_items_are_the_pipelines(client: TestClient, reference: Any) -> None:
    found = client.get("/similar", params={"item_id": "item-3", "top_k": 4, "by": "text"}).json()["similar"]
    assert found == reference.similar_items("item-3", top_k=4, by="text")


@pytest.mark.filterwarnings("ignore:timestamps")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"histories": []}, "histories: "),
        ({"histories": [{"items": ["7"]}] * 65}, "histories: .* at most 64"),
        ({"histories": [{"items": []}]}, r"holds no known item \(no events\); .* empty_histories='default'"),
        ({"histories": [["7"]]}, r'histories.0: .*; send JSON .* such as {"histories": \[{"items": \["50"'),
        ({"histories": [{"items": ["7"] * 1001}]}, "histories.0.items: .* at most 1000"),
        ({"histories": [{"items": ["x" * 201]}]}, "histories.0.items.0"),
        ({"histories": [{"items": [1.5]}]}, "histories.0.items.0"),
        ({"histories": [{"items": [True]}]}, "histories.0.items.0"),
        ({"histories": [{"items": ["7"], "timestamps": [1, 2]}]}, "1 items and 2 timestamps"),
        ({"histories": [{"items": ["7"], "timestamps": ["soon"]}]}, "'soon'"),
        ({"histories": [{"items": ["7"], "timestamps": [10**30]}]}, "timestamp"),
        ({"histories": [{"items": ["nobody"]}]}, "holds no known item"),
        ({"unknown_items": "error", "histories": [{"items": ["7", "nobody"]}]}, "'nobody' is not in the catalogue"),
        ({"top_k": 0}, "top_k: .* greater than or equal to 1"),
        ({"top_k": 101}, "top_k: .* less than or equal to 100"),
        ({"top_k": "ten"}, "top_k"),
        ({"candidates": ["7"] * 10_001}, "candidates: .* at most 10000"),
        ({"topk": 5}, "topk: Extra inputs are not permitted"),
    ],
)
def test_a_request_that_asks_for_too_much_or_makes_no_sense_is_refused(
    client: TestClient, change: dict[str, Any], message: str
) -> None:
    response = client.post("/recommend", json={"histories": [{"items": ["7"]}]} | change)
    assert re.search(message, detail(response, 422))
    assert len(response.text) < 1000


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
REQUEST = st.fixed_dictionaries(
    {
        "histories": JSON
        | st.lists(
            st.fixed_dictionaries(
                {"items": JSON | st.lists(st.sampled_from(IDS) | st.text(max_size=3) | st.integers(), max_size=4)},
                optional={"timestamps": JSON | st.lists(st.integers() | st.text(max_size=12), max_size=4)},
            ),
            max_size=3,
        )
    },
    optional=dict.fromkeys(("top_k", "exclude_history", "candidates", "unknown_items", "time_unit", "why"), JSON),
)


@pytest.mark.filterwarnings("ignore:timestamps")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(REQUEST, st.text(max_size=20))
def test_whatever_is_asked_is_answered_or_refused(client: TestClient, body: Any, text: str) -> None:
    # An error of the server would be raised here.
    answer = client.post("/recommend", json=body)
    assert answer.status_code in (200, 422)
    if answer.status_code == 200:
        assert len(answer.json()["recommendations"]) == len(body["histories"])
    assert client.get("/items", params={"query": text}).status_code == 200
    assert client.get(f"/items/{quote(text, safe='')}").status_code in (200, 404)
    assert client.get("/similar", params={"item_id": text}).status_code in (200, 404, 422)


def test_someone_without_events_gets_the_default_ranking(client: TestClient, reference: Any) -> None:
    body = {"histories": [{"items": []}, {"items": ["nobody"]}], "empty_histories": "default", "top_k": 5}
    answer = client.post("/recommend", json=body)
    assert answer.status_code == 200, answer.text
    empty, unknown = answer.json()["recommendations"]
    expected = reference({"items": []}, empty_histories="default", top_k=5)
    assert empty == unknown and [item["item_id"] for item in empty] == [item["item_id"] for item in expected]


@pytest.mark.parametrize("body", [{"items": ["7"]}, ["7"], "7", {}, {"history": {"items": ["7"]}}])
def test_a_body_of_another_form_is_answered_with_the_right_one(client: TestClient, body: Any) -> None:
    told = detail(client.post("/recommend", json=body), 422)
    shown = told.partition("send JSON (content-type: application/json) such as ")[2]
    # What is shown is taken, but for its ids, which this shop lacks.
    assert "holds no known item" in detail(client.post("/recommend", json=json.loads(shown)), 422)
    told = detail(client.post("/items", json=body), 422)
    assert "item_id: Field required" in told and "curl -F item_id=new-1 -F title='Blue mug'" in told


def test_a_body_that_is_no_json_is_refused(client: TestClient) -> None:
    response = client.post("/recommend", content=b"{", headers={"content-type": "application/json"})
    assert "JSON" in detail(response, 422)


def test_a_large_body_is_refused_whether_it_says_so_or_not(client: TestClient) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(40):
            yield b" " * (MEGABYTE // 32)

    headers = {"content-type": "application/json"}
    for content in (b" " * (MEGABYTE + 1), pieces()):
        assert "more than 1 MB" in detail(client.post("/recommend", content=content, headers=headers), 413)
    upload = {"image": ("a.png", bytes(11 * MEGABYTE))}
    assert "more than 10 MB" in detail(client.post("/items", data={"item_id": "new"}, files=upload), 413)
    assert client.get("/health").json()["num_items"] == len(IDS)


def test_the_catalogue_in_pages(client: TestClient) -> None:
    found, page = [], 1
    while True:
        answer = client.get("/items", params={"page": page, "page_size": 10}).json()
        assert answer["total"] == len(IDS) and answer["page"] == page and answer["pages"] == 4
        found += answer["items"]
        if page == answer["pages"]:
            break
        page += 1
    assert [entry["item_id"] for entry in found] == IDS and [entry["title"] for entry in found] == TITLES
    assert [entry["has_image"] for entry in found] == [n < 30 for n in range(len(IDS))]
    assert client.get("/items", params={"query": "BRULEE creme"}).json()["items"][0]["title"] == "Crème brûlée"
    assert "page_size" in detail(client.get("/items", params={"page_size": 101}), 422)
    assert "query" in detail(client.get("/items", params={"query": "x" * 201}), 422)


@pytest.mark.parametrize("item_id", IDS)
def test_an_item_is_found_under_its_id_whatever_that_holds(client: TestClient, item_id: str) -> None:
    number = IDS.index(item_id)
    answer = client.get(f"/items/{quote(item_id, safe='')}")
    if item_id == "x/image":
        # The address of the picture of "x", which is not there; found by search instead.
        assert answer.status_code == 404
        answer = client.get("/items", params={"query": item_id})
        assert [entry["item_id"] for entry in answer.json()["items"]] == [item_id]
        return
    item = answer.json()
    assert (item["item_id"], item["title"]) == (item_id, TITLES[number])
    assert item["fields"]["description"] == f"number {number}" and "image" not in item["fields"]


def test_pictures_come_as_jpegs_of_the_size_asked_for(client: TestClient) -> None:
    answer = client.get("/items/item-1/image", params={"size": 32})
    picture = Image.open(io.BytesIO(answer.content))
    assert (answer.headers["content-type"], picture.format, picture.size) == ("image/jpeg", "JPEG", (24, 32))
    # Item 1 is a red square.
    red, green, blue = picture.getpixel((12, 16))
    assert red > 200 and green < 60 and blue < 60
    assert "has no picture" in detail(client.get(f"/items/{quote('é,&=?#%', safe='')}/image"), 404)
    assert "'nobody' is not in the catalogue" in detail(client.get("/items/nobody/image"), 404)
    assert "'nobody' is not in the catalogue" in detail(client.get("/items/nobody"), 404)
    assert "'nobody' is not in the catalogue" in detail(client.get("/similar", params={"item_id": "nobody"}), 404)
    assert "size" in detail(client.get("/items/item-1/image", params={"size": 5000}), 422)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("/items?search=red&limit=2", "unknown query parameter 'search'; there are page, page_size, query"),
        ("/items?q=red", "unknown query parameter 'q'; there are page, page_size, query"),
        ("/items?query=red&pagesize=2", "unknown query parameter 'pagesize'; did you mean 'page_size'?"),
        ("/items?limit=", "unknown query parameter 'limit'; there are page, page_size, query"),
        ("/similar?id=item-3", "unknown query parameter 'id'; did you mean 'item_id'?"),
        ("/similar?item_id=item-3&topk=2", "unknown query parameter 'topk'; did you mean 'top_k'?"),
        ("/items/item-3/image?width=32", "unknown query parameter 'width'; there are size"),
        ("/items/item-3?size=32", "unknown query parameter 'size'; there are none here"),
        ("/health?verbose=1", "unknown query parameter 'verbose'; there are none here"),
    ],
)
def test_a_parameter_that_nothing_reads_is_refused(client: TestClient, address: str, message: str) -> None:
    assert detail(client.get(address), 422) == message


def test_options_of_a_body_are_no_parameters(client: TestClient) -> None:
    body = {"histories": [history("item-2")]}
    told = detail(client.post("/recommend", json=body, params={"top_k": 2}), 422)
    assert told == "unknown query parameter 'top_k'; there are none here; what is asked goes into the body"
    told = detail(client.post("/items", data={"item_id": "new"}, params={"title": "Red star"}), 422)
    assert "unknown query parameter 'title'" in told
    assert client.get("/health").json()["catalog_version"] == 1


def test_a_new_item_is_recommended_at_once(client: TestClient) -> None:
    form = {"item_id": "new-1", "title": "Red star", "fields": json.dumps({"description": "number 3"})}
    answer = client.post("/items", data=form, files={"image": ("a.png", png("red", "star"))})
    assert answer.status_code == 201
    entry = {"item_id": "new-1", "title": "Red star", "has_image": True}
    assert answer.json() == entry | {"num_items": len(IDS) + 1, "ignored_fields": [], "not_learned": []}
    assert client.get("/items/new-1").json()["fields"] == {"title": "Red star", "description": "number 3"}
    assert client.get("/items/new-1/image").status_code == 200
    body = {"histories": [history("item-2")], "top_k": 100}
    (items,) = client.post("/recommend", json=body).json()["recommendations"]
    assert "new-1" in {item["item_id"] for item in items} and len(items) == len(IDS)
    health = client.get("/health").json()
    assert (health["num_items"], health["catalog_version"], health["takes_new_items"]) == (len(IDS) + 1, 2, True)
    assert "in the catalogue already" in detail(client.post("/items", data=form), 409)


@pytest.mark.parametrize(
    ("form", "image", "message"),
    [
        ({"title": "x"}, None, "item_id"),
        ({"item_id": "new"}, None, "needs a text"),
        ({"item_id": "new", "title": "x"}, b"broken", "no picture of these kinds"),
        ({"item_id": "new", "title": "x" * 10_001}, None, "title"),
        ({"item_id": "new", "fields": "[1]"}, None, "JSON object of strings"),
        ({"item_id": "new", "fields": "{"}, None, "JSON object of strings"),
        ({"item_id": "new", "fields": '{"image": "/etc/passwd"}'}, None, "must not hold 'image'"),
        ({"item_id": "new", "fields": json.dumps({f"f{n}": "x" for n in range(21)})}, None, "at most 20"),
    ],
)
def test_a_new_item_that_cannot_be_taken_is_refused(
    client: TestClient, form: dict[str, str], image: bytes | None, message: str
) -> None:
    files = None if image is None else {"image": ("a.png", image)}
    assert message in detail(client.post("/items", data=form, files=files), 422)
    assert client.get("/health").json()["catalog_version"] == 1


def test_a_server_without_an_encoder_says_so(load: Callable[..., Recommender]) -> None:
    with TestClient(create_api(load(find_encoder=None))) as client:
        assert "takes no new items" in detail(client.post("/items", data={"item_id": "new", "title": "x"}), 403)
        health = client.get("/health").json()
        assert not health["takes_new_items"] and "without an item encoder" in health["new_items_problem"]


def test_more_than_the_queue_holds_is_told_to_come_again(load: Callable[..., Recommender]) -> None:
    recommender = load(max_waiting=1)
    gate = threading.Event()
    with TestClient(create_api(recommender)) as client:
        blocking = recommender._worker.submit(lambda entries: [gate.wait(30)], [None])
        answer = client.post("/recommend", json={"histories": [history("item-2")]})
        assert "waiting already" in detail(answer, 429) and answer.headers["retry-after"] == "1"
        # What needs no model is answered all the same.
        assert client.get("/items").status_code == 200
        gate.set()
        blocking.result(30)


def test_titles_are_sent_as_they_are(client: TestClient) -> None:
    answer = client.get("/items", params={"query": "pwned"})
    assert [entry["title"] for entry in answer.json()["items"]] == HOSTILE
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {"host": "localhost:7860"}, 200),
        ("GET", {"host": "127.0.0.1:7860", "origin": "http://evil.example"}, 200),
        ("GET", {"host": "[::1]:7860"}, 200),
        ("GET", {"host": "shop.example"}, 200),
        ("GET", {"host": "evil.example"}, 403),
        ("GET", {"host": "127.0.0.1.evil.example"}, 403),
        ("POST", {"host": "127.0.0.1:7860", "origin": "http://localhost:7860"}, 200),
        ("POST", {"host": "127.0.0.1:7860", "origin": "https://shop.example"}, 200),
        ("POST", {"host": "127.0.0.1:7860", "origin": "http://evil.example"}, 403),
        ("POST", {"host": "127.0.0.1:7860", "origin": "null"}, 403),
        ("POST", {"host": "127.0.0.1:7860"}, 200),
    ],
)
def test_a_local_server_answers_no_other_sites_page(
    recommender: Recommender, method: str, headers: dict[str, str], status: int
) -> None:
    with TestClient(create_api(recommender, local_only=True, allowed_hosts=["shop.example"])) as client:
        body = {"histories": [history("item-2")]} if method == "POST" else None
        path = "/recommend" if method == "POST" else "/items"
        answer = client.request(method, path, json=body, headers=headers)
        assert answer.status_code == status
        if status == 403:
            assert "--allow-host" in detail(answer, 403)


def test_a_public_server_takes_its_own_pages_only(client: TestClient) -> None:
    body = {"histories": [history("item-2")]}
    own = {"host": "shop.example", "origin": "https://shop.example"}
    assert client.post("/recommend", json=body, headers=own).status_code == 200
    other = {"host": "shop.example", "origin": "https://evil.example"}
    assert "may not change anything" in detail(client.post("/recommend", json=body, headers=other), 403)


def test_the_description_needs_no_other_server(client: TestClient) -> None:
    page = client.get("/docs").text
    addresses = re.findall(r"""(?:src|href)=["']([^"']+)["']""", page)
    assert addresses and all(address.startswith("/") for address in addresses)
    for address in addresses:
        assert client.get(address).status_code == 200
    described = client.get("/openapi.json").json()
    assert {(path, method) for path, methods in described["paths"].items() for method in methods} == {
        ("/recommend", "post"),
        ("/similar", "get"),
        ("/items", "get"),
        ("/items", "post"),
        ("/items/{item_id}", "get"),
        ("/items/{item_id}/image", "get"),
        ("/health", "get"),
    }


@pytest.mark.parametrize("fields", [{"\ud800": "x"}, {"brand": "a\udc00"}, {"title": "\ud83d"}])
def test_half_a_character_in_a_new_item_is_refused_before_it_is_added(
    client: TestClient, fields: dict[str, str]
) -> None:
    answer = client.post("/items", data={"item_id": "new", "description": "red", "fields": json.dumps(fields)})
    assert "holds half of a UTF-16 pair, which is no text" in detail(answer, 422)
    assert client.get("/items/new").status_code == 404 and client.get("/health").json()["catalog_version"] == 1


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("\ud800", "x", r"unknown form field '\ud800'"),
        ("name\ud800", "x" * 10_001, "name? has 10,001 characters"),
        ("description", "\ud800", "field 'description' holds half of a UTF-16 pair"),
        ("item_id", "\ud800", "item_id: Input should be a valid string"),
    ],
)
def test_half_a_character_of_a_form_in_another_encoding_is_refused(
    client: TestClient, name: str, value: str, message: str
) -> None:
    def part(name: str, value: str) -> bytes:
        letters = [text.encode("utf-7", "surrogatepass") for text in (name, value)]
        return b'--b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % tuple(letters)

    form = {"item_id": "new", "title": "red"} | {name: value}
    body = b"".join(part(*pair) for pair in form.items()) + b"--b--\r\n"
    headers = {"content-type": "multipart/form-data; boundary=b; charset=utf-7"}
    assert message in detail(client.post("/items", content=body, headers=headers), 422)
    assert client.get("/health").json()["catalog_version"] == 1


def test_half_a_character_in_an_item_of_a_broken_file_becomes_a_question_mark(
    client: TestClient, recommender: Recommender
) -> None:
    recommender.state.catalog.records[3] |= {"title": "cut \ud83d", "brand": ["a\ud83d"], "odd\ud83d": 1}
    item = client.get("/items/item-3").json()
    assert item["title"] == "cut ?" and (item["fields"]["brand"], item["fields"]["odd?"]) == (["a?"], 1)


def test_as_many_events_count_as_the_model_reads(recommender: Recommender, client: TestClient) -> None:
    # Another pipeline with a longer model may have raised the processor's.
    recommender.state.pipeline.processor.max_sequence_length = 50
    assert client.get("/health").json()["max_history"] == 6
