"""The page as a person uses it: Debian's Chromium, headless, driven by Playwright."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mmm4rec_hf.serving.markup import number
from mmm4rec_hf.serving.page import create_app
from mmm4rec_hf.serving.recommender import Recommender

from .conftest import HOSTILE, IDS, TITLES
from .test_recommender import history, png

CHROMIUM = os.environ.get("MMM4REC_TEST_CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(
    not Path(CHROMIUM).exists(), reason=f"no Chromium at {CHROMIUM}: apt-get install chromium"
)
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 375, "height": 812}
# A laden machine draws slowly.
PATIENCE = 20_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Any, serve: Callable[[Any], str]) -> Iterator[Callable[..., Any]]:
    """Opens the page of a recommender, and fails where it asked another server or its scripts failed."""
    contexts, problems = [], []

    def open_page(recommender: Recommender, viewport: dict[str, int] = DESKTOP, **options: Any) -> Any:
        address = serve(create_app(recommender, local_only=True))
        context = browser.new_context(viewport=viewport, **options)
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(f"script: {error}"))
        page.on("request", lambda r: None if r.url.startswith((address, "data:", "blob:")) else problems.append(r.url))
        # An event of Gradio's queue can be left without an answer.
        page.on("request", lambda r: problems.append(r.url) if "/queue/" in r.url else None)
        page.goto(address)
        page.locator("#m4-catalogue .m4-card").first.wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not problems


def wait_for(page: Any, script: str) -> None:
    page.wait_for_function(script)


def cards(page: Any) -> Any:
    return page.locator("#m4-catalogue .m4-card")


def choose(page: Any, title: str, place: int) -> None:
    """Puts an item into the history by a click, where it becomes the event at `place`, from 1."""
    page.locator("#m4-catalogue").get_by_role("button", name=re.compile(f"^Add {title}(,|$)")).click()
    page.locator(f"#m4-history li:nth-child({place})", has_text=title).wait_for()


def recommended(page: Any) -> list[str]:
    return [item.get_attribute("data-item-id") for item in page.locator("#m4-results article").all()]


def wait_for_results(page: Any, expected: list[str]) -> None:
    """Until the items recommended are those."""
    wait_for(
        page,
        "JSON.stringify([...document.querySelectorAll('#m4-results article')].map(e => e.dataset.itemId)) === "
        f"JSON.stringify({expected!r})",
    )


def ids(items: list[dict[str, Any]]) -> list[str]:
    return [item["item_id"] for item in items]


def test_a_history_is_clicked_together_and_recommended_for(
    visit: Callable[..., Any], recommender: Recommender, reference: Any
) -> None:
    page = visit(recommender)
    assert cards(page).count() == 24
    choose(page, "Red star", 1)
    choose(page, "Blue bar", 2)
    choose(page, "Red star", 3)
    # A day apart, as the page says.
    expected = reference(history("item-2", "item-13", "item-2", gap=86_400), top_k=10)
    wait_for_results(page, ids(expected))
    for article, item in zip(page.locator("#m4-results article").all(), expected, strict=True):
        told = article.inner_text().replace("\N{MINUS SIGN}", "-").replace("+", "")
        for name in ("score", "text_score", "image_score"):
            assert f"{item[name]:.2f}" in told
    near = page.locator("#m4-results article").first.locator(".m4-near")
    assert near.first.inner_text().split("\n")[0].startswith("text")
    # Twice in the history, and told so on the card.
    assert cards(page).filter(has_text="Red star").locator(".m4-badge").inner_text() == "2"

    page.get_by_role("button", name="Move Blue bar earlier").click()
    page.locator("#m4-history li:first-child", has_text="Blue bar").wait_for()
    wait_for_results(page, ids(reference(history("item-13", "item-2", "item-2", gap=86_400), top_k=10)))
    page.get_by_role("button", name="Remove Blue bar").click()
    wait_for(page, "document.querySelectorAll('#m4-history li').length === 2")
    wait_for_results(page, ids(reference(history("item-2", "item-2", gap=86_400), top_k=10)))
    page.get_by_role("button", name="Clear", exact=True).first.click()
    wait_for(page, "document.querySelectorAll('#m4-history li, #m4-results article').length === 0")
    assert not cards(page).locator(".m4-badge").count()


def test_quick_clicks_are_kept_in_their_order(
    visit: Callable[..., Any], recommender: Recommender, reference: Any
) -> None:
    page = visit(recommender)
    asked: list[str] = []

    def answer(route: Any) -> None:
        asked.append(route.request.post_data_json["event_data"]["id"])
        # The first answer would come last, and one click fails.
        page.wait_for_timeout(300 if asked == ["item-2"] else 0)
        route.fulfill(status=500, json={"error": None}) if asked[-1] == "item-7" else route.continue_()

    page.route("**/run/predict**", answer)
    # All before the page has drawn one.
    page.evaluate(
        "['item-2', 'item-7', 'item-13', 'item-2'].forEach(id => "
        "document.querySelector(`#m4-catalogue [data-action=add][data-id=${id}]`).click())"
    )
    wait_for(page, "document.querySelectorAll('#m4-history li').length === 3")
    wait_for_results(page, ids(reference(history("item-2", "item-13", "item-2", gap=86_400), top_k=10)))
    assert asked == ["item-2", "item-7", "item-13", "item-2"]


def test_how_many_are_asked_for(visit: Callable[..., Any], recommender: Recommender, reference: Any) -> None:
    page = visit(recommender)
    choose(page, "Red star", 1)
    page.get_by_label("How many").click()
    page.get_by_role("option", name="20").click()
    wait_for_results(page, ids(reference(history("item-2"), top_k=20)))
    # This model does not tell a minute from a month, so that nobody is asked.
    assert page.get_by_label("Time between").count() == 0


def test_the_time_between_events_counts(
    visit: Callable[..., Any], load: Callable[..., Recommender], timed_run: Path
) -> None:
    recommender = load(timed_run)
    expected = {}
    for gap in (86_400, 30 * 86_400):
        (items,) = recommender.recommend([history("item-2", "item-13", gap=gap)], top_k=10)
        expected[gap] = [number(item["score"]) for item in items]
    assert expected[86_400] != expected[30 * 86_400]
    page = visit(recommender)
    choose(page, "Red star", 1)
    choose(page, "Blue bar", 2)
    for choice, gap in ((None, 86_400), ("a month", 30 * 86_400)):
        if choice is not None:
            page.get_by_label("Time between").click()
            page.get_by_role("option", name=choice).click()
        wait_for(
            page,
            "JSON.stringify([...document.querySelectorAll('#m4-results .m4-score')].map(e => e.textContent)) === "
            f"JSON.stringify({expected[gap]!r})",
        )


def test_the_catalogue_is_searched_and_paged(visit: Callable[..., Any], recommender: Recommender) -> None:
    page = visit(recommender)
    page.get_by_label("Search titles").fill("RED")
    wait_for(page, "document.querySelectorAll('#m4-catalogue .m4-card').length === 5")
    assert [card.inner_text() for card in cards(page).all()] == [title for title in TITLES if "Red" in (title or "")]
    page.get_by_label("Search titles").fill("no such thing")
    page.get_by_text("Nothing in the catalogue has all of these words: no such thing").wait_for()
    page.get_by_label("Search titles").fill("")
    page.get_by_text("1\N{EN DASH}24 of 36").wait_for()
    assert page.locator("#m4-previous").is_disabled()
    page.locator("#m4-next").click()
    page.get_by_text("25\N{EN DASH}36 of 36").wait_for()
    wait_for(page, "document.querySelectorAll('#m4-catalogue .m4-card').length === 12")
    assert page.locator("#m4-next").is_disabled()
    # The one without a title goes by its id.
    assert cards(page).last.inner_text() == f"Item {IDS[-1]}"


def test_pictures_are_there_and_have_a_text(visit: Callable[..., Any], recommender: Recommender) -> None:
    page = visit(recommender)
    choose(page, "Red star", 1)
    page.locator("#m4-results article").first.wait_for()
    for part, least in (("#m4-catalogue", 24), ("#m4-history", 1), ("#m4-results", 2)):
        for picture in page.locator(f"{part} img").all():
            picture.scroll_into_view_if_needed()
        selected = f"[...document.querySelectorAll('{part} img')]"
        wait_for(page, f"{selected}.length >= {least} && {selected}.every(i => i.complete && i.naturalWidth > 0)")
        assert all(
            picture.get_attribute("alt").startswith("Picture of ") for picture in page.locator(f"{part} img").all()
        )


def test_hostile_titles_are_shown_and_never_run(visit: Callable[..., Any], recommender: Recommender) -> None:
    page = visit(recommender)
    page.get_by_label("Search titles").fill("pwned")
    wait_for(page, f"document.querySelectorAll('#m4-catalogue .m4-card').length === {len(HOSTILE)}")
    assert [card.inner_text() for card in cards(page).all()] == HOSTILE
    for place in range(len(HOSTILE)):
        cards(page).nth(place).click()
        page.locator(f"#m4-history li:nth-child({place + 1})").wait_for()
    shown = [line.inner_text() for line in page.locator("#m4-history .m4-title").all()]
    assert shown == HOSTILE
    page.locator("#m4-results article").first.wait_for()
    assert page.evaluate("window.pwned") is None


def test_an_item_is_added_and_recommended_at_once(
    visit: Callable[..., Any], recommender: Recommender, tmp_path: Path
) -> None:
    page = visit(recommender)
    choose(page, "Red star", 1)
    (tmp_path / "broken.png").write_bytes(png("red", "star")[:60])
    (tmp_path / "new.png").write_bytes(png("red", "star"))
    form = page.locator("#m4-new")
    form.get_by_role("button", name="Add an item").click()
    form.get_by_role("button", name="Add", exact=True).click()
    form.get_by_text("Give the item an id of its own").wait_for()
    form.get_by_label("Id").fill("new-1")
    form.get_by_label("Title").fill("Red <b>star</b> again")

    form.locator("input[type=file]").set_input_files(tmp_path / "broken.png")
    form.get_by_text("This picture cannot be used: the picture is broken or cut off").wait_for()
    form.get_by_role("button", name="Add", exact=True).click()
    form.locator("#m4-added").get_by_text("This picture cannot be used").wait_for()
    assert "new-1" not in recommender.state.catalog

    form.get_by_role("button", name="Clear").click()
    # What is put into the input of the file that goes is lost: the alert below the button stays, the one above goes.
    wait_for(page, "document.querySelectorAll('#m4-new [role=alert]').length === 1")
    form.get_by_role("button", name="Clear").wait_for(state="detached")
    form.locator("input[type=file]").set_input_files(tmp_path / "new.png")
    form.get_by_text("The picture can be read: 48 x 64").wait_for()
    form.get_by_role("button", name="Add", exact=True).click()
    form.get_by_text("The catalogue has 37 items now").wait_for()
    assert "Red <b>star</b> again" in form.locator("#m4-added").inner_text()
    wait_for(page, "document.querySelector('#m4-added img').naturalWidth > 0")
    assert form.get_by_label("Id").input_value() == ""

    form.get_by_role("button", name="Start a history with it").click()
    page.locator("#m4-history li:first-child", has_text="Red <b>star</b> again").wait_for()
    wait_for_results(page, ids(recommender.recommend([history("new-1", gap=86_400)], top_k=10)[0]))
    form.get_by_label("Id").fill("new-1")
    form.get_by_label("Title").fill("Once more")
    form.get_by_role("button", name="Add", exact=True).click()
    form.get_by_text("in the catalogue already").wait_for()


def test_a_picture_that_was_chosen_long_ago_is_asked_for_again(
    visit: Callable[..., Any], recommender: Recommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    page = visit(recommender)
    (tmp_path / "new.png").write_bytes(png("red", "star"))
    form = page.locator("#m4-new")
    form.get_by_role("button", name="Add an item").click()
    form.get_by_label("Id").fill("new-1")
    form.locator("input[type=file]").set_input_files(tmp_path / "new.png")
    form.get_by_text("The picture can be read: 48 x 64").wait_for()
    (kept,) = (tmp_path / "uploads").iterdir()
    kept.unlink()
    form.get_by_role("button", name="Add", exact=True).click()
    form.locator("#m4-added").get_by_text("is kept for a quarter of an hour: choose it again").wait_for()
    assert form.get_by_label("Id").input_value() == "new-1" and "new-1" not in recommender.state.catalog


def test_a_page_that_takes_no_items_says_why(visit: Callable[..., Any], load: Callable[..., Recommender]) -> None:
    page = visit(load(find_encoder=None))
    page.locator("#m4-new").get_by_role("button", name="Add an item").click()
    page.get_by_text("New items cannot be added here: it was started without an item encoder").wait_for()
    assert page.locator("#m4-new input").count() == 0


def test_a_telephone_shows_everything_and_scrolls_one_way(visit: Callable[..., Any], recommender: Recommender) -> None:
    page = visit(recommender, PHONE, has_touch=True, is_mobile=True)
    cards(page).first.tap()
    page.locator("#m4-results article").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    # Wide enough for a finger, and inside the screen.
    for button in page.locator("#m4-history button, #m4-results .m4-add").all():
        box = button.bounding_box()
        assert box["width"] >= 40 and box["height"] >= 40 and box["x"] + box["width"] <= PHONE["width"]
    bars = [bar.bounding_box() for bar in page.locator("#m4-results .m4-bar").all()]
    assert len(bars) == 10 and all(box["width"] > 200 and box["height"] >= 10 for box in bars)


def test_keys_alone_do_it(visit: Callable[..., Any], recommender: Recommender) -> None:
    page = visit(recommender)
    page.get_by_label("Search titles").focus()
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.classList.contains('m4-card')"):
            break
    page.keyboard.press("Enter")
    page.locator("#m4-history li:nth-child(1)").wait_for()
    # The focus is where it was, so that the next key goes to the same item.
    page.keyboard.press("Enter")
    page.locator("#m4-history li:nth-child(2)").wait_for()
    assert page.evaluate("document.activeElement.dataset.id") == IDS[0]
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_a_shop_without_pictures_has_a_page(
    visit: Callable[..., Any], load: Callable[..., Recommender], shop: Path, tmp_path: Path
) -> None:
    from mmm4rec_hf import ItemCatalog

    catalog = ItemCatalog.from_pretrained(shop / "catalog").select(IDS[30:])
    catalog.save_pretrained(tmp_path)
    page = visit(load(catalog=tmp_path))
    assert cards(page).count() == 6 and page.locator("#m4-catalogue img").count() == 0
    cards(page).last.click()
    page.get_by_text("These items have no pictures").wait_for()
    page.locator("#m4-results article").first.wait_for()
    assert len(recommended(page)) == 5 and page.locator("#m4-results img").count() == 0
    assert page.locator(".m4-near .m4-key").first.inner_text() == "text"
    # Titles that are one long word: on a telephone too the scores are beside the buttons, not below them.
    page.set_viewport_size(PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    for article in page.locator("#m4-results article").all():
        score, button = (article.locator(part).bounding_box() for part in (".m4-score", ".m4-add"))
        assert score["x"] + score["width"] <= button["x"]


def test_the_apis_page_works_without_the_internet(visit: Callable[..., Any], recommender: Recommender) -> None:
    page = visit(recommender)
    page.get_by_role("link", name="the API").click()
    page.locator(".opblock").first.wait_for()
    assert page.locator(".opblock").count() == 7
