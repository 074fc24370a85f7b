"""The page's HTML: cards, lists and bars. The only place where a title becomes HTML, as text and nothing else."""

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from .schemas import displayable

# A picture in a list is half of that on the screen, so that it is sharp on a telephone.
SMALL, LARGE = 128, 256
_NAMES = {"text": "text", "image": "picture"}
# What the training log adds, in models with use_cooccurrence.
_LOG = {"cooccurrence": "log"}
_MINUS = "\N{MINUS SIGN}"


def shown(text: Any) -> str:
    """A text as HTML that shows it. Titles of shops are often HTML already (`Tom &amp; Jerry`), once."""
    return html.escape(html.unescape(displayable(text) or ""), quote=True)


def title_of(entry: Mapping[str, Any]) -> str:
    """An item's title as HTML, its id where it has none."""
    return shown(entry["title"]) if entry["title"] else f"Item {html.escape(entry['item_id'])}"


class Markup:
    """
    Writes HTML for one catalogue.

    Args:
        stamp (`str`): Part of the pictures' addresses, another for another server: browsers keep pictures.
    """

    def __init__(self, stamp: str) -> None:
        self.stamp = stamp

    def catalogue(self, entries: Sequence[Mapping[str, Any]], chosen: Sequence[str], query: str) -> str:
        """The grid of one page: a button an item, which puts it into the history."""
        if not entries:
            return f'<p class="m4-note">Nothing in the catalogue has all of these words: {shown(query)}</p>'
        plain = _plain(entry["has_image"] for entry in entries)
        cards = "".join(f"<li>{self._card(entry, chosen.count(entry['item_id']))}</li>" for entry in entries)
        return f'<ul class="m4-grid{plain}">{cards}</ul>'

    def _card(self, entry: Mapping[str, Any], times: int) -> str:
        title = title_of(entry)
        badge = f'<span class="m4-badge" aria-hidden="true">{times}</span>' if times else ""
        told = f", {times} times in the history" if times > 1 else ", in the history" if times else ""
        return (
            f'<button type="button" class="m4-card" {_act("add", entry)} aria-label="Add {title}{told}">'
            f"{self._picture(entry, LARGE)}{badge}"
            f'<span class="m4-title" title="{title}">{title}</span></button>'
        )

    def history(self, entries: Sequence[Mapping[str, Any]], read: int, full: bool = False) -> str:
        """
        The history in order, with buttons to move and remove.

        Args:
            entries (`Sequence[Mapping]`): The items, oldest first.
            read (`int`): How many events the model reads, the last ones.
            full (`bool`, *optional*, defaults to `False`): Whether no more can be added.
        """
        if not entries:
            return (
                '<p class="m4-note">Empty. Choose items of the catalogue, the oldest first: each is an event of a '
                "history, and the same item may come again.</p>"
            )
        last = len(entries) - 1
        lines = []
        for place, entry in enumerate(entries):
            title = title_of(entry)
            unread = " m4-unread" if place < len(entries) - read else ""
            lines.append(
                f'<li class="m4-event{unread}"><span class="m4-place">{place + 1}</span>'
                f'{self._picture(entry, SMALL)}<span class="m4-title" title="{title}">{title}</span>'
                '<span class="m4-tools">'
                + _tool("up", "\N{UPWARDS ARROW}", f"Move {title} earlier", entry, place, place == 0)
                + _tool("down", "\N{DOWNWARDS ARROW}", f"Move {title} later", entry, place, place == last)
                + _tool("remove", "\N{MULTIPLICATION SIGN}", f"Remove {title}", entry, place, False)
                + "</span></li>"
            )
        note = ""
        if len(entries) > read:
            note = f'<p class="m4-note">The model reads the last {read} events; the first ones are left out.</p>'
        if full:
            note += '<p class="m4-note">This is as long as a history gets here.</p>'
        plain = _plain(entry["has_image"] for entry in entries)
        return f'<ol class="m4-history{plain}">{"".join(lines)}</ol>{note}'

    def recommendations(self, items: Sequence[Mapping[str, Any]], pictures: Mapping[str, bool], note: str = "") -> str:
        """
        The recommended items.

        Args:
            items (`Sequence[Mapping]`): What the recommender gives with `why=True`.
            pictures (`Mapping[str, bool]`): By item id, whether it has a picture; of those nearest, too.
            note (`str`, *optional*): What to say before them, as HTML.
        """
        if not items:
            return f'{note}<p class="m4-note">Nothing is left to recommend.</p>'
        scale = BarScale(items)
        lines = "".join(
            f"<li>{self._recommendation(rank, item, pictures, scale)}</li>" for rank, item in enumerate(items, start=1)
        )
        return f'{note}{scale.legend()}<ol class="m4-list{_plain(pictures.values())}">{lines}</ol>'

    def _recommendation(
        self, rank: int, item: Mapping[str, Any], pictures: Mapping[str, bool], scale: "BarScale"
    ) -> str:
        entry = {**item, "has_image": pictures.get(item["item_id"], False)}
        title = title_of(entry)
        return (
            f'<article class="m4-item" data-item-id="{html.escape(item["item_id"])}">'
            f'<span class="m4-place">{rank}</span>{self._picture(entry, LARGE)}'
            f'<div class="m4-told"><div class="m4-head"><span class="m4-title">{title}</span>'
            f'<span class="m4-score" title="score">{number(item["score"])}</span></div>'
            f"{scale.bar(item)}{self._why(item.get('why') or {}, pictures)}</div>"
            f'<button type="button" class="m4-add" {_act("add", item)} aria-label="Add {title} to the history">'
            "+</button></article>"
        )

    def _why(self, why: Mapping[str, Any], pictures: Mapping[str, bool]) -> str:
        parts = []
        for name, nearest in why.items():
            if nearest is None:
                continue
            entry = {**nearest, "has_image": pictures.get(nearest["item_id"], False)}
            parts.append(
                f'<span class="m4-near"><span class="m4-key m4-{name}">{(_NAMES | _LOG)[name]}</span>'
                f'{self._picture(entry, SMALL)}<span class="m4-title">{title_of(entry)}</span> '
                f'<span class="m4-figure">{_nearness(nearest)}</span></span>'
            )
        return f'<div class="m4-why"><span>Why</span>{"".join(parts)}</div>' if parts else ""

    def added(self, entry: Mapping[str, Any], count: int) -> str:
        """What to say of an item that was added."""
        how = ", and is recommended like the others."
        if entry["not_learned"]:
            how = (
                ". The model knows it by its text and picture alone, and the others from its log as well, so that a "
                "new item is seldom among the first."
            )
        return (
            f'<div class="m4-added" role="status">{self._picture(entry, LARGE)}<div>'
            f"Added <strong>{title_of(entry)}</strong> ({html.escape(entry['item_id'])}). The catalogue has {count:,} "
            f"items now; this one stays until the server stops{how} "
            f'<button type="button" class="m4-link" {_act("add", entry)}>Put it into the history</button> '
            f'<button type="button" class="m4-link" {_act("only", entry)}>Start a history with it</button>'
            "</div></div>"
        )

    def _picture(self, entry: Mapping[str, Any], size: int) -> str:
        if not entry["has_image"]:
            return '<span class="m4-picture m4-none" aria-hidden="true"></span>'
        query = html.escape(urlencode({"item_id": entry["item_id"], "size": size, "v": self.stamp}))
        return (
            f'<img class="m4-picture" src="thumbnail?{query}" alt="Picture of {title_of(entry)}" loading="lazy" '
            'decoding="async">'
        )


class BarScale:
    """
    One scale for the bars of a list: from its lowest to its highest part or score, with 0 where it is.

    A part below 0 goes to the left of 0. Parts of one sign stand end to end, so that they end at the score; of two
    signs they go both ways, and the mark of the score says what is left of the larger one.

    Args:
        items (`Sequence[Mapping]`): With `"score"` and its parts, `"text_score"` and `"image_score"`, and where the
            model has it `"cooccurrence_score"`.
    """

    def __init__(self, items: Sequence[Mapping[str, Any]]) -> None:
        has_log = any(item.get("cooccurrence_score") is not None for item in items)
        self.names = _NAMES | _LOG if has_log else _NAMES
        ends = [0.0]
        for item in items:
            parts = [item[f"{name}_score"] for name in self.names]
            ends += [sum(part for part in parts if part < 0), sum(part for part in parts if part > 0)]
        self.low, self.high = min(ends), max(ends)
        self.width = self.high - self.low or 1.0

    def legend(self) -> str:
        """What the colours and marks mean; 0 is one of them where it is not the left end."""
        meanings = {name: f"{word} part" for name, word in self.names.items()} | {"sum": "score, their sum"}
        if self.low < 0:
            meanings["null"] = "0: parts to its left count against the item"
        told = "".join(
            f'<span><span class="m4-swatch m4-{name}"></span>{word}</span>' for name, word in meanings.items()
        )
        log = ", and in the training log, with its share of what the last items count there"
        return (
            f'<p class="m4-legend">{told}</p><p class="m4-legend">Why: the items of the history nearest to it by text '
            f"and by picture, with their cosine{log if 'cooccurrence' in self.names else ''}.</p>"
        )

    def share(self, value: float) -> float:
        """Where a value stands, in percent of the bar from the left."""
        return 100 * (value - self.low) / self.width

    def bar(self, item: Mapping[str, Any]) -> str:
        """The bar of one item, and the numbers of its parts."""
        pieces = []
        ends = {False: 0.0, True: 0.0}
        for name in self.names:
            part = item[f"{name}_score"]
            start = ends[part < 0]
            end = ends[part < 0] = start + part
            left, right = sorted((self.share(start), self.share(end)))
            pieces.append(
                f'<span class="m4-part m4-{name}" style="left:{left:.2f}%;width:{right - left:.2f}%"></span>'
            )
        told = "".join(
            f'<span><span class="m4-key m4-{name}">{word}</span> {number(item[f"{name}_score"], plus=True)}</span>'
            for name, word in self.names.items()
        )
        label = ", ".join(f"{word} part {number(item[f'{name}_score'])}" for name, word in self.names.items())
        return (
            f'<div class="m4-bar" role="img" aria-label="{label}, score {number(item["score"])}">{"".join(pieces)}'
            f'<span class="m4-zero" style="left:{self.share(0):.2f}%"></span>'
            f'<span class="m4-mark" style="left:{self.share(item["score"]):.2f}%"></span></div>'
            f'<div class="m4-parts" aria-hidden="true">{told}</div>'
        )


def number(value: float, plus: bool = False) -> str:
    """Two decimals with a real minus; what rounds to 0 has no sign."""
    text = f"{abs(value):.2f}"
    if float(text) == 0:
        return text
    return (_MINUS if value < 0 else "+" if plus else "") + text


def _nearness(nearest: Mapping[str, Any]) -> str:
    """A cosine, or a share of what the log counts."""
    return f"{nearest['share']:.0%}" if "share" in nearest else number(nearest["similarity"])


def problem(message: str) -> str:
    """An error for a person."""
    return f'<p class="m4-problem" role="alert">{shown(message)}</p>'


def _plain(have_images: Iterable[bool]) -> str:
    """The class of a list in which nothing has a picture, so that no room is kept for any."""
    return "" if any(have_images) else " m4-plain"


def _act(action: str, entry: Mapping[str, Any]) -> str:
    return f'data-action="{action}" data-id="{html.escape(entry["item_id"])}"'


def _tool(action: str, sign: str, label: str, entry: Mapping[str, Any], place: int, disabled: bool) -> str:
    return (
        f'<button type="button" class="m4-tool" {_act(action, entry)} data-place="{place}" aria-label="{label}"'
        f"{' disabled' if disabled else ''}>{sign}</button>"
    )
