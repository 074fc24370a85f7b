"""One object, many threads: answers are the pipeline's, and of one catalogue."""

import copy
import io
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmm4rec_hf import ItemCatalog, ItemEncoder
from mmm4rec_hf.items.images import PictureError
from mmm4rec_hf.serving.recommender import Answer, CannotAddItems, ItemExists, Recommender, UnknownItem
from mmm4rec_hf.serving.worker import Busy, Worker

from .conftest import IDS, PLAIN_TITLES, TITLES, draw

START = 1_600_000_000


def history(*items: str, gap: int = 3600) -> dict[str, Any]:
    return {"items": list(items), "timestamps": [START + gap * place for place in range(len(items))]}


def png(colour: str, shape: str) -> bytes:
    buffer = io.BytesIO()
    draw(colour, shape).save(buffer, "PNG")
    return buffer.getvalue()


def without_why(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in item.items() if name != "why"} for item in items]


def test_answers_are_the_pipelines(recommender: Recommender, reference: Any) -> None:
    histories = [history("item-3", "007", "7"), history("a/../b"), history("item-1", "item-1")]
    options = {"top_k": 7, "exclude_history": False, "candidates": IDS[5:]}
    assert recommender.recommend(histories, **options) == reference(histories, **options)
    similar = recommender.similar("item-3", top_k=5, by="image")
    assert similar == reference.similar_items("item-3", top_k=5, by="image")
    with pytest.raises(ValueError, match="holds no known item"):
        recommender.recommend([history("nobody")])
    with pytest.raises(UnknownItem, match="'nobody' is not in the catalogue of 36 items"):
        recommender.similar("nobody")


def test_why_names_the_nearest_of_the_history_by_each_modality(recommender: Recommender, reference: Any) -> None:
    # The last item of the history has no picture, the third no text but its description.
    seen = ["item-2", "item-14", IDS[-1], "x/image"]
    (items,) = recommender.recommend([history(*seen)], top_k=36, exclude_history=False, why=True)
    assert without_why(items) == reference(history(*seen), top_k=36, exclude_history=False)
    with torch.no_grad():
        tables = [table.double().numpy() for table in reference.model.item_embeds()]
    rows = {item_id: row for row, item_id in enumerate(IDS, start=1)}
    has_picture = set(IDS[: len(PLAIN_TITLES)])
    for item in items:
        for name, table in zip(("text", "image"), tables, strict=True):
            own = table[rows[item["item_id"]]]
            allowed = [
                i for i in seen if i != item["item_id"] and (name == "text" or {i, item["item_id"]} <= has_picture)
            ]
            cosines = {i: own @ table[rows[i]] / np.linalg.norm(own) / np.linalg.norm(table[rows[i]]) for i in allowed}
            if not cosines:
                assert item["why"][name] is None
                continue
            best = max(cosines, key=lambda i: cosines[i])
            assert item["why"][name]["item_id"] == best
            assert item["why"][name]["title"] == TITLES[IDS.index(best)]
            assert item["why"][name]["similarity"] == pytest.approx(cosines[best], abs=1e-5)
    assert {item["why"]["image"] is None for item in items} == {True, False}


def test_a_new_item_is_what_a_catalogue_made_with_it_holds(
    recommender: Recommender, reference: Any, shop: Path, encoder: ItemEncoder, tmp_path: Path
) -> None:
    before = recommender.state
    entry = recommender.add_item(" new-1 ", {"title": " Red star ", "description": ""}, png("red", "star"))
    assert (entry.pop("ignored_fields"), entry.pop("not_learned")) == ([], [])
    assert entry == {"item_id": "new-1", "title": "Red star", "has_image": True}

    (tmp_path / "new.png").write_bytes(png("red", "star"))
    catalog = ItemCatalog.from_items(shop / "items.jsonl")
    catalog.add_items([{"item_id": "new-1", "title": "Red star", "image": "new.png"}], root=tmp_path)
    whole = copy.deepcopy(reference)
    whole.set_items(catalog.encode(encoder))
    for items in (["item-2", "item-7"], ["new-1"], ["item-2", "new-1"]):
        found, expected = recommender.recommend([history(*items)], top_k=37)[0], whole(history(*items), top_k=37)
        assert [item["item_id"] for item in found] == [item["item_id"] for item in expected]
        # The new item was encoded alone here, and among others there.
        for name in ("score", "text_score", "image_score"):
            assert [item[name] for item in found] == pytest.approx([item[name] for item in expected], abs=1e-4)
    assert "new-1" in {item["item_id"] for item in recommender.recommend([history("item-2")], top_k=36)[0]}
    assert recommender.search("red star")[1] == [
        {"item_id": "item-2", "title": "Red star", "has_image": True},
        entry,
    ]
    # What had begun before it goes on without it.
    assert "new-1" not in before.catalog and before.pipeline(history("item-2")) == reference(history("item-2"))


def test_a_new_item_without_a_picture_or_without_a_text_counts_as_lacking_it(recommender: Recommender) -> None:
    recommender.add_item("blind", {"title": "Blue circle"})
    recommender.add_item("mute", {}, png("blue", "circle"))
    catalog = recommender.state.catalog
    assert catalog.image_mask is not None and catalog.text_mask is not None
    assert catalog.image_mask[-2:].tolist() == [False, True] and catalog.text_mask[-2:].tolist() == [True, False]
    assert not recommender.item("blind")["has_image"] and recommender.item("mute")["has_image"]
    (items,) = recommender.recommend([history("item-10")], top_k=40, why=True)
    why = {item["item_id"]: item["why"] for item in items}
    assert why["blind"]["image"] is None and why["mute"]["text"] is None
    assert why["blind"]["text"]["item_id"] == why["mute"]["image"]["item_id"] == "item-10"


def test_a_new_item_s_fields_may_have_usual_names_but_name_no_picture_of_this_machine(
    recommender: Recommender,
) -> None:
    recommender.add_item("named", {"Name": "Blue circle", "photo": "0.png"})
    recommender.add_item("titled", {"title": "Blue circle"})
    catalog = recommender.state.catalog
    assert catalog.titles[-2:] == ["Blue circle"] * 2 and not recommender.item("named")["has_image"]
    assert catalog.image_mask is not None and catalog.image_mask[-2:].tolist() == [False, False]
    assert catalog.text_features is not None and (catalog.text_features[-1] == catalog.text_features[-2]).all()
    with pytest.raises(ValueError, match="needs a text .* or a picture"):
        recommender.add_item("picture", {"img": "0.png"})


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("item-3", {"title": "x"}), ItemExists, "'item-3' is in the catalogue already"),
        (("new", {}), ValueError, "needs a text .* or a picture"),
        (("new", {"colour": "red"}), ValueError, "needs a text .* or a picture"),
        (("  ", {"title": "x"}), ValueError, "empty string"),
        (("new", {"title": "x"}, b"broken"), PictureError, "no picture of these kinds"),
    ],
)
def test_an_item_that_cannot_be_added_changes_nothing(
    recommender: Recommender, arguments: Any, error: type[Exception], message: str
) -> None:
    before = recommender.state
    with pytest.raises(error, match=message):
        recommender.add_item(*arguments)
    assert recommender.state is before


def test_a_server_says_why_it_takes_no_items(load: Callable[..., Recommender]) -> None:
    assert load(find_encoder=None).encoder_problem == "it was started without an item encoder"
    # What the catalogue records of an encoder in a folder does not say where that is.
    from mmm4rec_hf.items.recorded import recorded_encoder

    recommender = load(find_encoder=recorded_encoder)
    with pytest.raises(CannotAddItems, match=r"made by a model in a folder 'bert' \(sha256:.*--text-encoder"):
        recommender.add_item("new", {"title": "Red star"})
    full = load(max_new_items=1)
    full.add_item("new", {"title": "Red star"})
    with pytest.raises(CannotAddItems, match="has taken 1 new items"):
        full.add_item("newer", {"title": "Red star"})


def test_a_catalogue_that_does_not_fit_leaves_the_old_one(recommender: Recommender, reference: Any) -> None:
    before = recommender.state
    catalog = copy.copy(before.catalog)
    catalog.text_features = np.zeros((len(IDS), 5), np.float32)
    with pytest.raises(ValueError, match="text features have shape"):
        recommender.set_items(catalog)
    assert recommender.state is before
    assert recommender.recommend([history("item-2")])[0] == reference(history("item-2"))


def test_an_answer_is_of_the_old_catalogue_or_the_new_one(recommender: Recommender, reference: Any) -> None:
    old = recommender.state.catalog
    assert old.text_features is not None and old.image_features is not None
    # The same ids under other titles and features: a mix would be seen in titles, in scores, or in both parts.
    other = copy.copy(old)
    other.records = [{**record, "title": f"other {n}"} for n, record in enumerate(old.records)]
    other.text_features, other.image_features = old.text_features[::-1].copy(), old.image_features[::-1].copy()
    asked = [history("item-3", "007", "item-20"), history("item-8")]
    changed = copy.deepcopy(reference)
    changed.set_items(other)
    answers = [reference(asked, top_k=12), changed(asked, top_k=12)]
    assert answers[0] != answers[1]
    seen, pages, failures = [], [], []
    stop = threading.Event()

    def of(answer: list[list[dict[str, Any]]]) -> int | None:
        """Which of the two answers this is: the same items and titles, scores but for rounding."""
        for number, expected in enumerate(answers):
            pairs = [
                pair for one, other in zip(answer, expected, strict=True) for pair in zip(one, other, strict=True)
            ]
            if all(
                (a["item_id"], a["title"]) == (b["item_id"], b["title"])
                and all(abs(a[name] - b[name]) < 1e-5 for name in ("score", "text_score", "image_score"))
                for a, b in pairs
            ):
                return number
        return None

    def ask() -> None:
        try:
            while not stop.is_set():
                seen.append(of(recommender.recommend(asked, top_k=12, why=True)))
                pages.append({(entry["title"] or "").startswith("other") for entry in recommender.search()[1]})
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(20):
        recommender.set_items(old if number % 2 else other)
        time.sleep(0.01)
    stop.set()
    for thread in threads:
        thread.join(30)
    assert not failures
    assert set(seen) == {0, 1} and all(len(page) == 1 for page in pages)
    assert recommender.state.version == 21


def test_items_added_from_many_threads_are_all_there_once(load: Callable[..., Recommender]) -> None:
    recommender = load()
    outcomes: list[str] = []

    def add(number: int) -> None:
        # Ids 0 to 5, each from two threads.
        while True:
            try:
                recommender.add_item(f"new-{number % 6}", {"title": f"Red {number}"})
                outcomes.append("added")
            except Busy:
                time.sleep(0.01)
                continue
            except ItemExists:
                outcomes.append("there")
            return

    threads = [threading.Thread(target=add, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(outcomes) == ["added"] * 6 + ["there"] * 6
    state = recommender.state
    assert sorted(state.catalog.item_ids[len(IDS) :]) == [f"new-{n}" for n in range(6)]
    assert state.catalog.item_ids == state.pipeline.processor.item_ids == state.pipeline.model.item_ids


def test_requests_that_wait_together_are_asked_together_and_answered_each(
    recommender: Recommender, reference: Any
) -> None:
    asked = [[history("item-3", "007"), history(IDS[n])] for n in range(10)]
    calls = []
    pipeline = recommender.state.pipeline
    original = type(pipeline).__call__

    def counting(self: Any, inputs: Any, **options: Any) -> Any:
        calls.append(len(inputs))
        return original(self, inputs, **options)

    gate = threading.Event()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(pipeline), "__call__", counting)
        blocking = recommender._worker.submit(lambda entries: [gate.wait(30)], [None])
        futures = [recommender.start_recommend(histories, top_k=5) for histories in asked]
        # Others, since they ask for something else.
        why = recommender.start_recommend(asked[0], top_k=5, why=True)
        gate.set()
        assert blocking.result(30)
        answers = [future.result(30) for future in futures]
        assert "why" in why.result(30)[0].items[0]
    assert calls == [20, 2]
    for histories, answer in zip(asked, answers, strict=True):
        for found, expected in zip(answer, reference(histories, top_k=5), strict=True):
            assert [item["item_id"] for item in found.items] == [item["item_id"] for item in expected]
            scores = [[item["score"] for item in items] for items in (found.items, expected)]
            assert scores[0] == pytest.approx(scores[1], abs=1e-5)


def test_of_requests_together_a_bad_one_alone_fails(recommender: Recommender, reference: Any) -> None:
    gate = threading.Event()
    recommender._worker.submit(lambda entries: [gate.wait(30)], [None])
    good = recommender.start_recommend([history("item-3")], unknown_items="error")
    bad = recommender.start_recommend([history("item-3", "nobody")], unknown_items="error")
    gate.set()
    assert good.result(30) == [Answer(reference(history("item-3")), [], [])]
    with pytest.raises(ValueError, match="'nobody' is not in the catalogue"):
        bad.result(30)


def test_times_of_two_requests_are_never_read_in_one_unit(load: Callable[..., Recommender], timed_run: Path) -> None:
    recommender = load(timed_run)
    alone = history("item-3", "007", "7", gap=3600)
    in_units = [
        alone,
        alone | {"timestamps": [1000 * time for time in alone["timestamps"]]},
        alone | {"timestamps": ["2020-09-13T12:26:40Z", "2020-09-13T13:26:40Z", "2020-09-13T14:26:40Z"]},
    ]
    expected = recommender.recommend([alone])
    assert expected != recommender.recommend([history("item-3", "007", "7", gap=86_400)])
    gate = threading.Event()
    recommender._worker.submit(lambda entries: [gate.wait(30)], [None])
    with pytest.warns(UserWarning, match="read as 'ms'"):
        futures = [recommender.start_recommend([one]) for one in in_units]
        gate.set()
        assert [[answer.items for answer in future.result(30)] for future in futures] == [expected] * 3


def test_a_full_queue_refuses_more_until_something_is_done() -> None:
    worker, gate = Worker(2), threading.Event()
    first = worker.submit(lambda entries: [gate.wait(30)], [None])
    second = worker.submit(lambda entries: entries, ["second"])
    with pytest.raises(Busy, match="2 requests are waiting already"):
        worker.submit(lambda entries: entries, ["third"])
    gate.set()
    assert first.result(30) == [True] and second.result(30) == ["second"]
    # Who has a result may ask again at once.
    for _ in range(50):
        assert worker.submit(lambda entries: entries, ["third"]).result(30) == ["third"]
    failed = worker.submit(lambda entries: [1 // 0], [None])
    with pytest.raises(ZeroDivisionError):
        failed.result(30)
    assert worker.submit(lambda entries: entries, ["fourth"]).result(30) == ["fourth"]
    worker.close()


def test_who_does_not_wait_any_more_leaves_the_place() -> None:
    worker, gate = Worker(2), threading.Event()
    worker.submit(lambda entries: [gate.wait(30)], [None])
    given_up = worker.submit(lambda entries: entries, ["given up"])
    assert given_up.cancel()
    gate.set()
    for _ in range(50):
        both = [None, None]
        deadline = time.monotonic() + 30
        while both[1] is None:
            assert time.monotonic() < deadline
            try:
                both[0] = both[0] or worker.submit(lambda entries: entries, ["first"])
                both[1] = worker.submit(lambda entries: entries, ["second"])
            except Busy:
                time.sleep(0.001)
        assert [future.result(30) for future in both] == [["first"], ["second"]]
    worker.close()


def test_one_call_holds_no_more_than_it_should() -> None:
    worker, gate, calls = Worker(300), threading.Event(), []

    def call(entries: list[int]) -> list[int]:
        calls.append(len(entries))
        return [2 * entry for entry in entries]

    worker.submit(lambda entries: [gate.wait(30)], [None])
    futures = [worker.submit(call, [number, -number], key="same") for number in range(100)]
    gate.set()
    assert [future.result(30) for future in futures] == [[2 * number, -2 * number] for number in range(100)]
    assert calls == [64, 64, 64, 8]
    worker.close()


def test_closing_cancels_what_has_not_begun_and_refuses_more() -> None:
    worker, gate = Worker(5), threading.Event()
    running = worker.submit(lambda entries: [gate.wait(30)], [None])
    while not running.running():
        time.sleep(0.001)
    waiting = worker.submit(lambda entries: entries, ["never"])
    worker.close()
    gate.set()
    assert running.result(30) == [True] and waiting.cancelled()
    with pytest.raises(Busy, match="is stopping"):
        worker.submit(lambda entries: entries, ["late"])


def test_a_recommender_refuses_a_catalogue_of_other_items(reference: Any, shop: Path) -> None:
    catalog = ItemCatalog.from_pretrained(shop / "catalog").select(IDS[:5])
    with pytest.raises(ValueError, match="the model holds 36 items, the catalogue 5"):
        Recommender(reference, catalog)
