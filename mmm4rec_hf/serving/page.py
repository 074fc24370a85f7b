"""The page: catalogue, history, recommendations and new items, as a Gradio application on top of the API."""

import os
import secrets
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

# Read when Gradio is imported: nothing about the use of this server leaves it.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr
from fastapi import FastAPI, Query, Response, UploadFile
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from mmm4rec_hf.items.images import PictureError

from . import schemas
from .api import create_api
from .forms import checked_text
from .markup import Markup, problem, shown
from .pictures import MAX_UPLOAD_BYTES, read_upload
from .recommender import CannotAddItems, Recommender, UnknownItem
from .uploads import Uploads
from .worker import Busy

_PAGE_SIZE = 24
_MAX_HISTORY = 100
# Whose histories are kept; of more, who has clicked least lately starts anew.
_MAX_VISITORS = 500
_TIMES = {"a minute": 60, "an hour": 3600, "a day": 86_400, "a month": 30 * 86_400}
# Only differences of times count.
_START = 1_700_000_000
# Of a score: more than rounding, and less than anybody would call a difference.
_SEEN = 1e-4
_HERE = Path(__file__).parent
# A picture that cannot be read, among others: not an error of the page.
_NO_PICTURE = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="96" height="96" viewBox="0 0 96 96"><rect width="96" height="96" '
    'fill="#8884"/><text x="48" y="52" font-size="11" font-family="sans-serif" text-anchor="middle" fill="#888">'
    "not readable</text></svg>"
)
# It names nothing of the request, as some of Gradio's messages are HTML.
_NOT_HERE = (
    "it is not here; a picture must be uploaded (addresses and paths of this machine are not taken), and is kept for "
    "a quarter of an hour: choose it again"
)
# An event is a request of its own, not one of Gradio's queue, see `turns.js`.
_DIRECT: dict[str, Any] = {"queue": False, "api_visibility": "private"}
_FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
_MONO = ["ui-monospace", "Consolas", "monospace"]


def create_app(recommender: Recommender, *, local_only: bool = False, allowed_hosts: Sequence[str] = ()) -> FastAPI:
    """
    Page and API in one application: the page at `/`, the API's description at `/docs`.

    Args:
        recommender ([`Recommender`]): Answers both.
        local_only (`bool`, *optional*, defaults to `False`):
            Whether the server is for this machine alone; it then answers to this machine's own names only.
        allowed_hosts (`Sequence[str]`, *optional*): Names by which it is reached besides, such as a proxy's.

    Returns:
        `FastAPI`
    """
    app = create_api(recommender, local_only=local_only, allowed_hosts=allowed_hosts)

    @app.get("/thumbnail", include_in_schema=False)
    async def thumbnail(
        item_id: Annotated[str, Query(max_length=schemas.MAX_ID)], size: Literal["128", "256"] = "256", v: str = ""
    ) -> Response:
        try:
            content = await app.state.read_picture(item_id, int(size))
        except PictureError:
            # Another server may answer again in a minute.
            return Response(_NO_PICTURE, media_type="image/svg+xml", headers={"Cache-Control": "no-store"})
        # An item's picture does not change while this server runs, and another server has another `v`.
        return Response(
            content, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=86400, immutable"}
        )

    blocks = Page(recommender).build()
    uploads = Uploads(blocks.GRADIO_CACHE, blocks.upload_file_set)

    # In place of Gradio's.
    @app.post("/gradio_api/upload", include_in_schema=False)
    async def upload(files: list[UploadFile]) -> list[str]:
        recommender.check_takes_items()
        if len(files) != 1:
            raise ValueError(f"{len(files)} files were sent; upload one picture at a time")
        content = await files[0].read(MAX_UPLOAD_BYTES + 1)
        if len(content) > MAX_UPLOAD_BYTES:
            raise HTTPException(413, f"the file has more than {MAX_UPLOAD_BYTES >> 20} MB; choose a smaller picture")
        return [await run_in_threadpool(uploads.keep, files[0].filename or "", content)]

    return gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        footer_links=[],
        run_history=False,
        allowed_paths=[],
        show_error=False,
        max_file_size=MAX_UPLOAD_BYTES,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=gr.themes.Default(font=_FONTS, font_mono=_MONO),
        css=_asset("page.css"),
        head=f"<script>{_asset('turns.js')}</script>",
    )


class _Blocks(gr.Blocks):
    """
    A page whose events take no file but one that was uploaded to it, and which keeps of a visitor the history alone.

    Gradio looks for files in the value of every part, a text box as well, downloads those that are addresses, and
    copies those that are paths of this machine to where a visitor can fetch them: of pages that are mounted, it does
    not check paths. Every way to ask for an event comes here.
    """

    async def process_api(
        self, block_fn: Any, inputs: list[Any], state: Any = None, *args: Any, **options: Any
    ) -> dict[str, Any]:
        """As Gradio's, which would keep what every part was last given, for links to a state of the page."""
        try:
            return await super().process_api(block_fn, inputs, state, *args, **options)
        finally:
            if state is not None:
                state.config_values.clear()

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *args: Any, **options: Any) -> list[Any]:
        """As Gradio's, after a look for files that nobody uploaded, or that are deleted by now."""
        # What Gradio raises, its page shows without a word where it does not queue: `Page` tells of those it expects.
        missing = [
            isinstance(part, gr.File) and isinstance(value, dict) and not self._is_uploaded(value)
            for part, value in zip(block_fn.inputs, inputs, strict=False)
        ]
        inputs = [None if place < len(missing) and missing[place] else value for place, value in enumerate(inputs)]
        waiting: list[Any] = [inputs]
        while waiting:
            value = waiting.pop()
            if isinstance(value, dict):
                if "path" in value and not self._is_uploaded(value):
                    raise gr.Error(_NOT_HERE, print_exception=False)
                waiting.extend(value.values())
            elif isinstance(value, list | tuple):
                waiting.extend(value)
        taken = await super().preprocess_data(block_fn, inputs, *args, **options)
        return [PictureError(_NOT_HERE) if gone else value for gone, value in zip(missing, taken, strict=True)]

    def _is_uploaded(self, file: dict[str, Any]) -> bool:
        path = str(file.get("path"))
        return path in self.upload_file_set and os.path.exists(path)


class Page:
    """
    The page's parts and what happens on a click.

    Args:
        recommender ([`Recommender`]): Answers.
    """

    def __init__(self, recommender: Recommender) -> None:
        self.recommender = recommender
        self.markup = Markup(secrets.token_hex(4))
        self.gaps_count = _gaps_count(recommender)
        self._checking = threading.Lock()

    def build(self) -> gr.Blocks:
        """The parts, and what each click does."""
        clicks = _asset("page.js")
        # What was uploaded is deleted after a quarter of an hour.
        with _Blocks(title="MMM4Rec", analytics_enabled=False, delete_cache=(300, 900)) as blocks:
            blocks.state_session_capacity = _MAX_VISITORS
            history, page = gr.State([]), gr.State(1)
            gr.HTML(self._header(), elem_classes="m4-top")
            with gr.Row(elem_classes="m4-columns"):
                with gr.Column(scale=5, min_width=320):
                    query, previous, place, following, grid = self._build_catalogue(clicks)
                with gr.Column(scale=6, min_width=320):
                    clear, events, top_k, gap, results = self._build_results(clicks)
            form = self._build_form(clicks)

            shown_page = [query, page, history]
            grid_parts = [grid, place, page, previous, following]
            _in_turn(blocks.load, self.browse, shown_page, grid_parts)
            _in_turn(query.change, self.find, [query, history], grid_parts, trigger_mode="always_last")
            for button, step in ((previous, -1), (following, 1)):
                _in_turn(button.click, _with_step(self.turn, step), shown_page, grid_parts)

            everything = [history, events, results, grid]
            asked = [history, query, page, top_k, gap]
            parts = [grid, events, results] + ([form["result"]] if form else [])
            for part in parts:
                _in_turn(part.click, self.act, asked, everything)
            _in_turn(clear.click, self.clear, asked, everything)
            for choice in (top_k, gap):
                _in_turn(choice.change, self.recommend_again, [history, top_k, gap], [results])
            if form:
                self._connect_form(form, asked, grid_parts)
        return blocks

    def _header(self) -> str:
        state = self.recommender.state
        return (
            f"<h1>MMM4Rec</h1><p>{shown(self.recommender.name)}: {len(state.catalog):,} items. Choose a history, see "
            'what comes next, and which modality spoke for it. For programs: <a href="docs">the API</a>.</p>'
        )

    def _build_catalogue(self, clicks: str) -> tuple[Any, ...]:
        gr.HTML("<h2>Catalogue</h2>")
        query = gr.Textbox(
            label="Search titles", placeholder="words of a title, or an id", max_length=schemas.MAX_QUERY
        )
        with gr.Row(elem_classes="m4-pages"):
            previous = gr.Button("Previous", size="sm", min_width=90, elem_id="m4-previous")
            place = gr.HTML("", elem_classes="m4-where")
            following = gr.Button("Next", size="sm", min_width=90, elem_id="m4-next")
        grid = gr.HTML("", elem_id="m4-catalogue", js_on_load=clicks)
        return query, previous, place, following, grid

    def _build_results(self, clicks: str) -> tuple[Any, ...]:
        with gr.Row(elem_classes="m4-heading"):
            gr.HTML("<h2>History</h2>")
            clear = gr.Button("Clear", size="sm", min_width=80, elem_id="m4-clear")
        events = gr.HTML(self.markup.history([], 1), elem_id="m4-history", js_on_load=clicks)
        gr.HTML("<h2>Recommended next</h2>")
        with gr.Row(elem_classes="m4-options"):
            top_k = gr.Dropdown([5, 10, 20, 50], value=10, label="How many", min_width=110)
            gap = gr.Dropdown(
                list(_TIMES), value="a day", label="Time between", min_width=150, visible=self.gaps_count
            )
        results = gr.HTML(self._results([], 10, "a day"), elem_id="m4-results", js_on_load=clicks)
        return clear, events, top_k, gap, results

    def _build_form(self, clicks: str) -> dict[str, Any]:
        """The fields of a new item; empty where none is taken."""
        recommender = self.recommender
        with gr.Accordion("Add an item", open=False, elem_id="m4-new"):
            if recommender.encoder is None:
                gr.HTML(problem(f"New items cannot be added here: {recommender.encoder_problem}."))
                return {}
            with gr.Row():
                with gr.Column(min_width=280):
                    item_id = gr.Textbox(label="Id", placeholder="new-1", max_length=schemas.MAX_ID)
                    texts = [
                        gr.Textbox(label=_label(name), lines=1 if name == "title" else 2, max_length=schemas.MAX_TEXT)
                        for name in recommender.text_fields
                    ]
                with gr.Column(min_width=280):
                    file = gr.File(label="Picture, if there is one", file_types=["image"], type="binary", height=140)
                    note = gr.HTML("")
            button = gr.Button("Add", variant="primary", elem_id="m4-add-item")
            result = gr.HTML("", elem_id="m4-added", js_on_load=clicks)
        return {"id": item_id, "texts": texts, "file": file, "note": note, "button": button, "result": result}

    def _connect_form(self, form: dict[str, Any], asked: list[Any], grid_parts: list[Any]) -> None:
        history, query, page, *_ = asked
        aside = _DIRECT | {"show_progress": "minimal"}
        form["file"].change(self.check_file, form["file"], form["note"], **aside)
        fields = [form["id"], form["file"], *form["texts"]]
        added = form["button"].click(self.add, fields, [form["result"], *fields], **aside)
        _in_turn(added.then, self.browse, [query, page, history], grid_parts, trigger_mode="once")

    def browse(self, query: str, page: int, history: list[str]) -> tuple[Any, ...]:
        """One page of the catalogue."""
        query = str(query or "")[: schemas.MAX_QUERY]
        found, entries = self.recommender.search(query, int(page), _PAGE_SIZE)
        first = (found.page - 1) * _PAGE_SIZE
        place = f"{first + 1:,}\N{EN DASH}{first + len(entries):,} of {found.total:,}" if entries else "0 items"
        return (
            self.markup.catalogue(entries, history, query),
            f'<p role="status">{place}</p>',
            found.page,
            gr.update(interactive=found.page > 1),
            gr.update(interactive=found.page < found.pages),
        )

    def find(self, query: str, history: list[str]) -> tuple[Any, ...]:
        """The first page of what is searched for."""
        return self.browse(query, 1, history)

    def turn(self, step: int, query: str, page: int, history: list[str]) -> tuple[Any, ...]:
        """Another page."""
        return self.browse(query, page + step, history)

    def act(
        self, history: list[str], query: str, page: int, top_k: int, gap: str, event: gr.EventData
    ) -> tuple[Any, ...]:
        """A click on an item, or on one of the history's buttons."""
        action, item_id, place = (event._data.get(name) for name in ("action", "id", "place"))
        history = list(history)
        known = self._holds(item_id)
        if action == "add" and known and len(history) < _MAX_HISTORY:
            history.append(item_id)
        elif action == "only" and known:
            history = [item_id]
        elif isinstance(place, int) and 0 <= place < len(history):
            if action == "remove":
                del history[place]
            elif action in ("up", "down"):
                other = min(max(place + (1 if action == "down" else -1), 0), len(history) - 1)
                history[place], history[other] = history[other], history[place]
        return self._all(history, query, page, top_k, gap)

    def _holds(self, item_id: Any) -> bool:
        try:
            return isinstance(item_id, str) and item_id in self.recommender.state.catalog
        except ValueError:  # what cannot be an id at all
            return False

    def clear(self, history: list[str], query: str, page: int, top_k: int, gap: str) -> tuple[Any, ...]:
        """An empty history."""
        return self._all([], query, page, top_k, gap)

    def recommend_again(self, history: list[str], top_k: int, gap: str) -> str:
        """The recommendations with other options."""
        return self._results(history, top_k, gap)

    def _all(self, history: list[str], query: str, page: int, top_k: int, gap: str) -> tuple[Any, ...]:
        return (
            history,
            self.markup.history(
                self.recommender.entries(history), self.recommender.max_history, len(history) >= _MAX_HISTORY
            ),
            self._results(history, top_k, gap),
            self.browse(query, page, history)[0],
        )

    def _results(self, history: list[str], top_k: int, gap: str) -> str:
        if not history:
            return '<p class="m4-note">Choose at least one item of the catalogue.</p>'
        seconds = _TIMES.get(gap, _TIMES["a day"])
        events = {"items": history, "timestamps": [_START + seconds * place for place in range(len(history))]}
        try:
            (items,) = self.recommender.recommend(
                [events], top_k=min(max(int(top_k), 1), schemas.MAX_TOP_K), time_unit="s", why=True
            )
        except (Busy, ValueError) as error:
            return problem(str(error))
        near = [nearest for item in items for nearest in item["why"].values() if nearest is not None]
        entries = self.recommender.entries(dict.fromkeys(entry["item_id"] for entry in (*items, *near)))
        pictures = {entry["item_id"]: entry["has_image"] for entry in entries}
        return self.markup.recommendations(items, pictures, self._picture_note())

    def _picture_note(self) -> str:
        mask = self.recommender.state.catalog.image_mask
        if mask is None or mask.any():
            return ""
        return (
            '<p class="m4-note">These items have no pictures: all share one stand-in, and the picture part is what '
            "the model has learned of each item beside it.</p>"
        )

    def check_file(self, image: bytes | PictureError | None) -> str:
        """What is wrong with a picture, as soon as it is there."""
        if image is None:
            return ""
        try:
            # Decoded ones are large.
            with self._checking:
                picture = read_upload(_there(image))
        except PictureError as error:
            return problem(f"This picture cannot be used: {error}.")
        return f'<p class="m4-note" role="status">The picture can be read: {picture.width} x {picture.height}.</p>'

    def add(self, item_id: str, image: bytes | PictureError | None, *texts: str) -> tuple[Any, ...]:
        """Adds the item of the form, and empties the form where that went well."""
        kept = [gr.skip() for _ in range(2 + len(texts))]
        if not (item_id or "").strip():
            return problem("Give the item an id of its own."), *kept
        fields = dict(zip(self.recommender.text_fields, (text or "" for text in texts), strict=True))
        try:
            # Once more: a browser keeps to the lengths of the form, and others post what they like.
            checked_text("the id", item_id, schemas.MAX_ID)
            for name, text in fields.items():
                checked_text(name, text)
            entry = self.recommender.add_item(item_id, fields, None if image is None else _there(image))
        except PictureError as error:
            return problem(f"This picture cannot be used: {error}."), *kept
        except (Busy, CannotAddItems, UnknownItem, ValueError) as error:
            return problem(f"The item was not added: {error}."), *kept
        count = len(self.recommender.state.catalog)
        return self.markup.added(entry, count), "", None, *["" for _ in texts]


def _gaps_count(recommender: Recommender) -> bool:
    """
    Whether a model tells a minute between events from a month. Many do not: without times, or with intervals that are
    normalised within a history, as published. A choice that changes nothing is better not offered.
    """
    items = recommender.state.catalog.item_ids[:4]
    histories = [
        {"items": items, "timestamps": [_START + seconds * place for place in range(len(items))]}
        for seconds in (min(_TIMES.values()), max(_TIMES.values()))
    ]
    short, long = recommender.recommend(histories, top_k=5, time_unit="s", exclude_history=False)
    return any(
        one["item_id"] != other["item_id"] or abs(one["score"] - other["score"]) > _SEEN * abs(one["score"])
        for one, other in zip(short, long, strict=True)
    )


def _in_turn(event: Any, act: Any, inputs: list[Any], outputs: list[Any], trigger_mode: str = "multiple") -> None:
    """Connects an event, so that it is sent when the earlier ones are shown (`turns.js`)."""
    # Gradio gives the values of inputs and of outputs, and sends what it gets back.
    take = f"(...values) => m4Turns.take(values.slice(0, {len(inputs)}))"
    shown = event(act, inputs, outputs, js=take, trigger_mode=trigger_mode, show_progress="hidden", **_DIRECT)
    # `then` does not come after a failure.
    for ended in (shown.success, shown.failure):
        ended(None, js="() => m4Turns.give()", show_progress="hidden", **_DIRECT)


def _asset(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _there(image: bytes | PictureError) -> bytes:
    """A picture's file, unless it was deleted or is none that was uploaded."""
    if isinstance(image, PictureError):
        raise image
    return image


def _label(field: str) -> str:
    return field[:1].upper() + field[1:].replace("_", " ")


def _with_step(turn: Any, step: int) -> Any:
    def turned(query: str, page: int, history: list[str]) -> tuple[Any, ...]:
        return tuple(turn(step, query, page, history))

    return turned
