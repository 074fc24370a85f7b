"""The page's HTML: titles stay texts, and bars say what the numbers say."""

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from mmm4rec_hf.serving.markup import BarScale, Markup, number, problem, shown

from .conftest import HOSTILE

MARKUP = Markup("stamp")
TAGS = {"ul", "ol", "li", "button", "img", "span", "p", "div", "article", "strong"}


class Parsed(HTMLParser):
    """What a browser would make of HTML: elements with their attributes, and texts."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(content)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def entry(item_id: str, title: str | None, has_image: bool = True) -> dict[str, Any]:
    return {"item_id": item_id, "title": title, "has_image": has_image}


def test_an_added_item_is_told_apart_where_the_others_have_learned_more() -> None:
    alike, less = (MARKUP.added(entry("i", "t") | {"not_learned": names}, 5) for names in ([], ["use_item_bias"]))
    assert "stays until the server stops, and is recommended like the others." in alike
    assert "seldom among the first" not in alike
    assert "text and picture alone" in less and "seldom among the first" in less and "like the others" not in less


def scored(text: float, image: float, title: str | None = "t", item_id: str = "i") -> dict[str, Any]:
    return {"item_id": item_id, "title": title, "score": text + image, "text_score": text, "image_score": image}


def test_why_has_the_log_with_its_share() -> None:
    why = {"text": None, "image": None, "cooccurrence": {"item_id": "b", "title": "Bread", "share": 0.625}}
    item = scored(1.0, 2.0) | {"cooccurrence_score": 0.5, "why": why}
    texts = [text.strip() for text in Parsed(MARKUP.recommendations([item], {})).texts if text.strip()]
    assert texts[texts.index("Why") + 1 :][:2] == ["log", "Bread"] and "62%" in texts
    assert any("with its share of what the last items count there" in text for text in texts)


@pytest.mark.parametrize(
    "hostile", [*HOSTILE, "' onclick='x", '" style="x', "<!-- ", "</button><b>", "&lt;script&gt;"]
)
def test_titles_and_ids_never_become_elements_or_attributes(hostile: str) -> None:
    near = {"item_id": hostile, "title": hostile, "similarity": 0.5}
    in_log = {"item_id": hostile, "title": hostile, "share": 0.5}
    item = scored(1.0, 2.0, hostile, hostile) | {"why": {"text": near, "image": near, "cooccurrence": in_log}}
    known = entry(hostile, hostile)
    for content in (
        MARKUP.catalogue([known, entry(hostile, None)], [hostile], ""),
        MARKUP.history([known, known], 1),
        MARKUP.recommendations([item], {hostile: True}),
        MARKUP.added(known | {"not_learned": []}, 5),
        MARKUP.catalogue([], [], hostile),
        problem(hostile),
    ):
        parsed = Parsed(content)
        assert {tag for tag, _ in parsed.elements} <= TAGS
        names = {name for _, attributes in parsed.elements for name in attributes}
        assert not [name for name in names if name.startswith("on") or name in ("href", "srcdoc", "formaction")]
        assert all(a["src"].startswith("thumbnail?item_id=") for tag, a in parsed.elements if tag == "img")
        styles = [a["style"] for _, a in parsed.elements if "style" in a]
        assert all(re.fullmatch(r"left:[\d.]+%;(width:[\d.]+%)?|left:[\d.]+%", style or "") for style in styles)
        # Shown to the letter, or as what a shop's own escapes mean.
        assert any(hostile in text or "<script>" in text for text in parsed.texts)
    clicked = [a["data-id"] for tag, a in Parsed(MARKUP.history([known], 9)).elements if tag == "button"]
    assert clicked == [hostile] * 3


def test_a_shops_own_escapes_are_read_once() -> None:
    assert Parsed(shown("Tom &amp; Jerry &#39;s")).texts == ["Tom & Jerry 's"]
    assert Parsed(shown("AT&amp;amp;T")).texts == ["AT&amp;T"]


def pieces(bar: str) -> dict[str, tuple[float, float]]:
    """Where the parts, zero and the score of a bar stand, in percent."""
    found = {}
    for name, style in re.findall(r'class="(?:m4-part )?m4-(text|image|zero|mark)" style="([^"]*)"', bar):
        left = float(re.search(r"left:([\d.]+)%", style)[1])
        width = re.search(r"width:([\d.]+)%", style)
        found[name] = (round(left, 1), round(left + float(width[1] if width else 0), 1))
    return found


@pytest.mark.parametrize(
    ("text", "image", "expected"),
    [
        # The scale goes from -4 to 6: ten percent a unit, zero at 40.
        (4.0, 2.0, {"text": (40, 80), "image": (80, 100), "zero": (40, 40), "mark": (100, 100)}),
        (-3.0, -1.0, {"text": (10, 40), "image": (0, 10), "zero": (40, 40), "mark": (0, 0)}),
        (5.0, -2.0, {"text": (40, 90), "image": (20, 40), "zero": (40, 40), "mark": (70, 70)}),
        (-2.0, 1.0, {"text": (20, 40), "image": (40, 50), "zero": (40, 40), "mark": (30, 30)}),
        (0.0, 0.0, {"text": (40, 40), "image": (40, 40), "zero": (40, 40), "mark": (40, 40)}),
    ],
)
def test_bars_of_one_list_share_a_scale_with_zero_in_it(text: float, image: float, expected: Any) -> None:
    scale = BarScale([scored(4.0, 2.0), scored(-3.0, -1.0)])
    assert (scale.low, scale.high) == (-4, 6)
    assert pieces(scale.bar(scored(text, image))) == expected


def test_a_bar_is_told_in_words_too() -> None:
    bar = BarScale([scored(5.0, -2.25)]).bar(scored(5.0, -2.25))
    assert 'role="img" aria-label="text part 5.00, picture part \N{MINUS SIGN}2.25, score 2.75"' in bar
    assert ">text</span> +5.00<" in bar and ">picture</span> \N{MINUS SIGN}2.25<" in bar


def test_what_the_log_adds_is_a_third_part() -> None:
    item = scored(2.0, 1.0) | {"cooccurrence_score": 1.0, "score": 4.0}
    scale = BarScale([item, scored(1.0, 1.0) | {"cooccurrence_score": -1.0, "score": 1.0}])
    assert (scale.low, scale.high) == (-1, 4) and "log part" in scale.legend()
    bar = scale.bar(item)
    assert 'm4-cooccurrence" style="left:80.00%;width:20.00%"' in bar
    assert "text part 2.00, picture part 1.00, log part 1.00, score 4.00" in bar
    assert "log part" not in BarScale([scored(1.0, 1.0) | {"cooccurrence_score": None}]).legend()


def test_scores_that_are_all_zero_have_a_bar() -> None:
    assert pieces(BarScale([scored(0.0, 0.0)]).bar(scored(0.0, 0.0)))["mark"] == (0, 0)


def test_numbers_have_a_real_minus_and_no_minus_zero() -> None:
    assert [number(value) for value in (1.234, -1.235001, -0.001)] == ["1.23", "\N{MINUS SIGN}1.24", "0.00"]
    assert [number(value, plus=True) for value in (1.0, -1.0, 0.001)] == ["+1.00", "\N{MINUS SIGN}1.00", "0.00"]


def test_a_catalogue_without_pictures_is_a_list_of_titles() -> None:
    assert "<img" not in MARKUP.catalogue([entry("a", "A", False)], [], "")
    assert "m4-plain" in MARKUP.catalogue([entry("a", "A", False)], [], "")
    assert "m4-plain" not in MARKUP.catalogue([entry("a", "A", False), entry("b", "B")], [], "")


def test_pictures_have_a_text_and_buttons_a_name() -> None:
    parsed = Parsed(MARKUP.catalogue([entry("a", "Red star")], ["a", "a"], ""))
    assert ("img", "Picture of Red star") in [(tag, a.get("alt")) for tag, a in parsed.elements]
    labels = [a["aria-label"] for tag, a in parsed.elements if tag == "button"]
    assert labels == ["Add Red star, 2 times in the history"]


def test_a_long_history_says_what_the_model_reads() -> None:
    content = MARKUP.history([entry(str(n), f"T{n}") for n in range(5)], 3)
    assert content.count("m4-unread") == 2 and "reads the last 3 events" in content
    buttons = [a for tag, a in Parsed(content).elements if tag == "button"]
    assert [a["data-place"] for a in buttons if "disabled" in a] == ["0", "4"]
