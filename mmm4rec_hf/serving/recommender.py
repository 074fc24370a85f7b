"""A pipeline and its catalogue behind one object that any number of threads may ask, and change, at once."""

import copy
import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from mmm4rec_hf.explanations import explain
from mmm4rec_hf.items import ItemCatalog, ItemEncoder
from mmm4rec_hf.items.fields import unread_fields
from mmm4rec_hf.items.images import Fetcher, PictureError
from mmm4rec_hf.items.text import title_text
from mmm4rec_hf.modeling import SequentialRecommendationPipeline
from mmm4rec_hf.modeling.ids_mmm4rec import canonical_id
from mmm4rec_hf.modeling.timestamps_mmm4rec import LEAST_MAGNITUDE

from .pictures import KEPT_SIZE, PictureStore, read_upload, to_jpeg
from .search import Found, TitleSearch
from .worker import Busy, Worker

# Uploads that may wait for the one that is encoded.
_MAX_ADDING = 4


class UnknownItem(LookupError):
    """An item that the catalogue does not hold."""


class ItemExists(ValueError):
    """A new item under an id that the catalogue holds already."""


class CannotAddItems(RuntimeError):
    """This server takes no new items; the message says why."""


@dataclass(frozen=True)
class Answer:
    """
    What one history is answered with.

    Args:
        items (`list[dict]`): What the pipeline gives for it.
        unknown (`list[str]`): The ids of its events that the catalogue did not hold, one for each of these events.
        unknown_candidates (`list[str]`): Those of the candidates that it did not hold.
    """

    items: list[dict[str, Any]]
    unknown: list[str]
    unknown_candidates: list[str]


@dataclass(frozen=True)
class CatalogState:
    """
    All that an answer is made of. It never changes: another catalogue is another state.

    Args:
        pipeline (`SequentialRecommendationPipeline`): With the catalogue's items.
        catalog (`ItemCatalog`): In the order of the model's rows.
        search (`TitleSearch`): Of its titles.
        version (`int`): Counts the changes, from 1.
    """

    pipeline: SequentialRecommendationPipeline
    catalog: ItemCatalog
    search: TitleSearch
    version: int

    def row(self, item_id: Any) -> int:
        """An item's place in the catalogue, from 0."""
        try:
            (row,), _ = self.pipeline.processor.rows([item_id], "error")
        except ValueError as error:
            raise UnknownItem(f"item {item_id!r} is not in the catalogue of {len(self.catalog):,} items") from error
        return row - 1

    def unknown(self, item_ids: Sequence[Any]) -> list[str]:
        """Those of some ids that the catalogue does not hold."""
        _, known = self.pipeline.processor.rows(item_ids)
        if len(known) == len(item_ids):
            return []
        places = set(known)
        return [canonical_id(item_id) for place, item_id in enumerate(item_ids) if place not in places]


class Recommender:
    """
    Recommends, explains, searches and grows a catalogue, from any thread.

    The model is asked by one thread, behind a queue of bounded length; every other method runs where it is called.
    Histories that wait at the same time are scored together, so that a score can differ in its last digits, as the
    pipeline's own do from batch to batch (5e-6 of 15 was seen).

    Args:
        pipeline ([`SequentialRecommendationPipeline`]): With the catalogue's items. It belongs to this object now.
        catalog ([`ItemCatalog`]): The same items, with features where new ones are to be added.
        encoder ([`ItemEncoder`], *optional*): What encodes new items, the one that made the catalogue's features.
        encoder_problem (`str`, *optional*): Why there is none, for those who would add an item.
        name (`str`, *optional*): Of the model, for people.
        fetch (`Fetcher`, *optional*): How to download pictures that are addresses; without it they count as none.
        max_waiting (`int`, *optional*, defaults to 128): Requests of the model that may wait or run.
        max_new_items (`int`, *optional*, defaults to 1000): Items that may be added; they are kept in memory.

    Raises:
        ValueError: If the pipeline and the catalogue hold different items.
    """

    def __init__(
        self,
        pipeline: SequentialRecommendationPipeline,
        catalog: ItemCatalog,
        *,
        encoder: ItemEncoder | None = None,
        encoder_problem: str = "it was started without an item encoder",
        name: str = "MMM4Rec",
        fetch: Fetcher | None = None,
        max_waiting: int = 128,
        max_new_items: int = 1000,
    ) -> None:
        if pipeline.processor.item_ids != catalog.item_ids:
            raise ValueError(
                f"the model holds {len(pipeline.processor.item_ids):,} items, the catalogue {len(catalog):,} or in "
                "another order; call pipeline.set_items(catalog) before"
            )
        self.name = name
        self.encoder = encoder
        self.encoder_problem = None if encoder is not None else encoder_problem
        self.max_new_items = max_new_items
        self.pictures = PictureStore(fetch)
        self._added = 0
        self._worker = Worker(max_waiting)
        self._changing = threading.Lock()
        self._adders = threading.BoundedSemaphore(_MAX_ADDING)
        pipeline.model.eval()
        self._state = _warm_state(pipeline, catalog, 1)

    @property
    def state(self) -> CatalogState:
        """`CatalogState`: The one of now. Who needs it twice for one answer asks once, and keeps it."""
        return self._state

    @property
    def max_history(self) -> int:
        """`int`: Events of a history that the model reads, the last ones."""
        return int(self._state.pipeline.model.config.max_sequence_length)

    def close(self) -> None:
        """Ends the thread that asks the model."""
        self._worker.close()

    def recommend(self, histories: Sequence[Mapping[str, Any]], **options: Any) -> list[list[dict[str, Any]]]:
        """
        Recommends items.

        Args:
            histories (`Sequence[Mapping]`): As the pipeline takes them.
            why (`bool`, *optional*, defaults to `False`):
                Whether each item gets `"why"`: under `"text"` and `"image"` the item of the history that is nearest to
                it by the model's own vectors, with `"similarity"`, a cosine; `None` where one of the two has no text
                or no picture. With counts of a log also under `"cooccurrence"`, see [`explain`].
            options: Others of [`SequentialRecommendationPipeline`], such as `top_k`.

        Returns:
            `list[list[dict]]`: What the pipeline gives for each history.

        Raises:
            Busy: If too many requests wait.
            ValueError: As the pipeline.
        """
        return [answer.items for answer in self.start_recommend(histories, **options).result()]

    def start_recommend(self, histories: Sequence[Mapping[str, Any]], **options: Any) -> "Future[list[Answer]]":
        """As [`~Recommender.recommend`], without waiting, and with what was unknown of each history."""
        key, options = _alike(histories, options)
        return self._worker.submit(lambda entries: self._recommend(entries, **options), histories, key)

    def _recommend(self, histories: list[Mapping[str, Any]], why: bool = False, **options: Any) -> list[Answer]:
        state = self._state
        results: Any = state.pipeline(histories, **options)
        if why:
            for history, items in zip(histories, results, strict=True):
                explain(items, history, state.pipeline, state.catalog, options.get("time_unit"))
        unknown_candidates = state.unknown(options.get("candidates") or ())
        return [
            Answer(items, state.unknown(history["items"]), unknown_candidates)
            for history, items in zip(histories, results, strict=True)
        ]

    def similar(self, item_id: str | int, **options: Any) -> list[dict[str, Any]]:
        """
        Items whose embeddings point in the most similar direction.

        Args:
            item_id (`str` or `int`): External id.
            options: Of [`~SequentialRecommendationPipeline.similar_items`].

        Raises:
            UnknownItem: If the catalogue does not hold the item.
            Busy: If too many requests wait.
        """
        return self.start_similar([item_id], **options).result()[0]

    def start_similar(self, item_ids: Sequence[str | int], **options: Any) -> "Future[list[list[dict[str, Any]]]]":
        """As [`~Recommender.similar`] for each of several items, without waiting."""
        key = None if options.get("candidates") is not None else json.dumps(["similar", sorted(options.items())])
        return self._worker.submit(lambda entries: self._similar(entries, **options), item_ids, key)

    def _similar(self, item_ids: list[str | int], **options: Any) -> list[list[dict[str, Any]]]:
        state = self._state
        for item_id in item_ids:
            state.row(item_id)
        results: Any = state.pipeline.similar_items(item_ids, **options)
        return results

    def search(self, query: str = "", page: int = 1, page_size: int = 24) -> tuple[Found, list[dict[str, Any]]]:
        """
        One page of the items whose title or id holds every word of a query, in the catalogue's order.

        Args:
            query (`str`, *optional*): Words; by default everything is found.
            page (`int`, *optional*, defaults to 1): From 1.
            page_size (`int`, *optional*, defaults to 24): Items a page.

        Returns:
            `tuple`: What was found, and of each item `"item_id"`, `"title"` and `"has_image"`.
        """
        state = self._state
        found = state.search.find(query, page, page_size)
        return found, [self._entry(state, row) for row in found.rows]

    def entries(self, item_ids: Iterable[str]) -> list[dict[str, Any]]:
        """`"item_id"`, `"title"` and `"has_image"` of items; those that the catalogue does not hold are left out."""
        state = self._state
        rows, _ = state.pipeline.processor.rows(item_ids)
        return [self._entry(state, row - 1) for row in rows]

    def item(self, item_id: str | int) -> dict[str, Any]:
        """
        An item's fields, but for its picture: `"item_id"`, `"title"`, `"has_image"` and `"fields"`.

        Raises:
            UnknownItem: If the catalogue does not hold it.
        """
        state = self._state
        row = state.row(item_id)
        fields = {name: value for name, value in state.catalog.records[row].items() if name != "image"}
        # Values of any library as JSON knows them, which has no NaN.
        plain = json.loads(json.dumps(fields, default=str), parse_constant=lambda _: None)
        return self._entry(state, row) | {"fields": plain}

    def picture(self, item_id: str | int, size: int, download: bool = True) -> bytes:
        """
        An item's picture as a JPEG.

        Args:
            item_id (`str` or `int`): External id.
            size (`int`): The longer side at most, in pixels.
            download (`bool`, *optional*, defaults to `True`): As [`PictureStore.jpeg`].

        Raises:
            UnknownItem: If the catalogue does not hold the item.
            PictureError: If it has no picture, or one that cannot be read.
            NotDownloaded: As [`PictureStore.jpeg`].
        """
        state = self._state
        reference = state.catalog.records[state.row(item_id)].get("image")
        if not self.pictures.shows(reference):
            raise PictureError("this item has no picture here")
        return self.pictures.jpeg(reference, state.catalog.root, size, download)

    @property
    def text_fields(self) -> tuple[str, ...]:
        """`tuple[str]`: The fields that an item's text is made of; the title alone where that is not known."""
        return ("title",) if self.encoder is None else self.encoder.text_fields

    @property
    def not_learned(self) -> list[str]:
        """`list[str]`: What the model has learned of its items from the log, and has not of a new one: the options of
        its config."""
        config = self._state.pipeline.model.config
        return [name for name in ("use_item_bias", "use_cooccurrence") if getattr(config, name)]

    def check_takes_items(self) -> ItemEncoder:
        """
        The encoder of new items.

        Raises:
            CannotAddItems: If there is none, with the reason.
        """
        if self.encoder is None:
            raise CannotAddItems(f"this server takes no new items: {self.encoder_problem}")
        return self.encoder

    def add_item(self, item_id: str, fields: Mapping[str, str], image: bytes | None = None) -> dict[str, Any]:
        """
        Encodes a new item and makes it recommendable. It is kept until the server stops.

        Args:
            item_id (`str`): An id that the catalogue does not hold yet.
            fields (`Mapping[str, str]`): Its texts; those of [`~Recommender.text_fields`] are read.
            image (`bytes`, *optional*): A picture's file.

        Returns:
            `dict`: As an entry of [`~Recommender.search`], and `"ignored_fields"`: those that are kept, but neither
            read nor shown as the title; and `"not_learned"`: see [`~Recommender.not_learned`].

        Raises:
            CannotAddItems: If there is no encoder, or there are too many new items.
            ItemExists: If the id is taken.
            PictureError: If the picture cannot be read.
            ValueError: For an item without text and picture, a field that is nearly one of the texts, an empty id, or
                half of a character.
            Busy: If too many items wait to be encoded.
        """
        encoder = self.check_takes_items()
        item_id = canonical_id(item_id.strip())
        for name, text in fields.items():
            if _has_half(name) or _has_half(text):
                raise ValueError(
                    f"field {name!r} holds half of a UTF-16 pair, which is no text; mend it where it was cut"
                )
        texts = self._state.catalog.name_alike({name: text.strip() for name, text in fields.items() if text.strip()})
        # A text by a name that pictures have would be a path or an address on this machine, which nobody may name.
        texts.pop("image", None)
        for name in {"item_id", self._state.catalog.source_fields.get("item_id", "item_id")}:
            if texts.pop(name, item_id) != item_id:
                raise ValueError(f"{name!r} is the id, and differs from {item_id!r} here; give one of them")
        if image is None and not any(name in texts for name in encoder.text_fields):
            given = f"; it has {', '.join(map(repr, texts))}" if texts else ""
            raise ValueError(f"an item needs a text ({', '.join(encoder.text_fields)}) or a picture{given}")
        if not self._adders.acquire(blocking=False):
            raise Busy(f"{_MAX_ADDING} new items are being encoded already; try again in a moment")
        try:
            with self._changing:
                return self._add_item(encoder, item_id, texts, image)
        finally:
            self._adders.release()

    def _add_item(
        self, encoder: ItemEncoder, item_id: str, texts: dict[str, str], image: bytes | None
    ) -> dict[str, Any]:
        state = self._state
        if item_id in state.catalog:
            raise ItemExists(f"item {item_id!r} is in the catalogue already; give the new one another id")
        if self._added >= self.max_new_items:
            raise CannotAddItems(f"this server has taken {self._added:,} new items, as many as it keeps")
        record: dict[str, Any] = dict(texts)
        picture = None if image is None else read_upload(image)
        if picture is not None:
            record["image"] = picture
        # Adding gives the copy new lists and arrays; those of the catalogue in use stay as they are.
        catalog = copy.copy(state.catalog)
        # By the names it has: were they told once more, another field would be the picture that was left out.
        catalog.add_named(item_id, record, encoder=encoder)
        if picture is not None:
            catalog.records[-1]["image"] = to_jpeg(picture, KEPT_SIZE)
        self._swap(catalog)
        self._added += 1
        return self._entry(self._state, len(catalog) - 1) | {
            "ignored_fields": unread_fields(texts, encoder.text_fields),
            "not_learned": self.not_learned,
        }

    def set_items(self, catalog: ItemCatalog) -> None:
        """
        Replaces the catalogue. Requests that have begun are answered from the old one, all others from the new one.

        Args:
            catalog (`ItemCatalog`): With features of the model's encoder.

        Raises:
            ValueError: As [`~MMM4RecForSequentialRecommendation.set_items`]; the old catalogue stays then.
        """
        with self._changing:
            self._swap(catalog)

    def _swap(self, catalog: ItemCatalog) -> None:
        before = self._state
        pipeline = _with_items(before.pipeline, catalog)
        self._state = _warm_state(pipeline, catalog, before.version + 1)

    def _entry(self, state: CatalogState, row: int) -> dict[str, Any]:
        record = state.catalog.records[row]
        return {
            "item_id": state.catalog.item_ids[row],
            "title": title_text(record),
            "has_image": self.pictures.shows(record.get("image")),
        }


def _has_half(text: str) -> bool:
    """Whether a text holds half of a UTF-16 pair, which no answer can be written with."""
    return not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)


def _alike(histories: Sequence[Mapping[str, Any]], options: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """
    What requests must have in common to be one call of the pipeline, and the options of that call.

    The pipeline tells one unit of time for all histories of a call. So requests are alike only where nothing has to be
    told: they name the unit, have no times, or numbers that are seconds and nothing else.
    """
    if options.get("candidates") is not None:
        return None, options
    stamps = [history.get("timestamps") for history in histories]
    with_times = [times for times in stamps if times is not None]
    if with_times and options.get("time_unit") is None:
        if not all(type(time) is int and abs(time) < LEAST_MAGNITUDE["ms"] for times in with_times for time in times):
            return None, options
        options = options | {"time_unit": "s"}
    return json.dumps([sorted(options.items()), len(with_times) > 0, len(with_times) == len(stamps)]), options


def _with_items(pipeline: SequentialRecommendationPipeline, catalog: ItemCatalog) -> SequentialRecommendationPipeline:
    """The same model with other items, beside the one in use: the backbone is one, the items are two."""
    model = pipeline.model
    shared: list[Any] = [model.model, *model.items.buffers()]
    other = copy.copy(pipeline)
    other.model = copy.deepcopy(model, {id(part): part for part in shared})
    other.processor = copy.copy(pipeline.processor)
    other.set_items(catalog)
    return other


def _warm_state(pipeline: SequentialRecommendationPipeline, catalog: ItemCatalog, version: int) -> CatalogState:
    """A state whose first answer is as fast as the others; a model that cannot answer fails here."""
    pipeline({"items": catalog.item_ids[:1], "timestamps": [0]}, top_k=1, exclude_history=False)
    return CatalogState(pipeline, catalog, TitleSearch(catalog.item_ids, catalog.titles), version)
