"""What the API takes and gives, and how much of it."""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictInt, StrictStr, StringConstraints

MAX_HISTORIES = 64
MAX_EVENTS = 1000
MAX_TOP_K = 100
MAX_CANDIDATES = 10_000
MAX_PAGE_SIZE = 100
MAX_QUERY = 200
MAX_ID = 200
MAX_TEXT = 10_000
# Fields of one new item.
MAX_FIELDS = 20
# Unknown ids of one history that an answer names.
MAX_UNKNOWN = 10

_Id = Annotated[StrictStr, StringConstraints(min_length=1, max_length=MAX_ID)] | StrictInt
_Time = StrictInt | Annotated[StrictStr, StringConstraints(min_length=1, max_length=64)]


def displayable(text: Any) -> str | None:
    """A text as one that can be sent: half a character of a broken file becomes a question mark."""
    return None if text is None else str(text).encode("utf-8", "replace").decode("utf-8")


def _displayable_fields(fields: dict[str, Any]) -> Any:
    return json.loads(displayable(json.dumps(fields, ensure_ascii=False)) or "")


Title = Annotated[str | None, BeforeValidator(displayable)]
Fields = Annotated[dict[str, Any], BeforeValidator(_displayable_fields)]


class _Request(BaseModel):
    # A misspelt option that is quietly ignored would give a wrong answer.
    model_config = ConfigDict(extra="forbid")


class History(_Request):
    """One user's events."""

    items: list[_Id] = Field(
        max_length=MAX_EVENTS,
        description="Item ids, oldest first; none of someone without events, see empty_histories.",
        examples=[["50", "172"]],
    )
    timestamps: list[_Time] | None = Field(
        default=None,
        max_length=MAX_EVENTS,
        description="When each happened: unix numbers or ISO dates; without them a day apart.",
        examples=[[891035000, 891035500]],
    )


class RecommendRequest(_Request):
    """Histories, and what to recommend for them."""

    histories: list[History] = Field(min_length=1, max_length=MAX_HISTORIES)
    top_k: int = Field(default=10, ge=1, le=MAX_TOP_K, strict=True, description="Items for each history.")
    exclude_history: bool = Field(default=True, description="Whether items of the history are left out.")
    candidates: list[_Id] | None = Field(
        default=None, max_length=MAX_CANDIDATES, description="The only items that may be recommended."
    )
    unknown_items: Literal["skip", "error"] = Field(
        default="skip",
        description=("Ids that the catalogue lacks: left out, which the answer tells of each history, or an error."),
    )
    empty_histories: Literal["error", "default"] = Field(
        default="error",
        description=(
            "Histories without a known item: an error for the whole request, or the ranking of someone without "
            "events, one for all of them."
        ),
    )
    time_unit: Literal["s", "ms", "us", "ns"] | None = Field(
        default=None, description="Of timestamps that are numbers; told by their size by default."
    )
    why: bool = Field(
        default=False, description="Whether to name the nearest items of the history, for each part of the score."
    )


class Nearest(BaseModel):
    """An item of the history, and how near it is."""

    item_id: str
    title: Title
    similarity: float = Field(description="Cosine of the model's own vectors, in [-1, 1].")


class NearInLog(BaseModel):
    """An item of the history that the recommended one stood near in the training log."""

    item_id: str
    title: Title
    share: float = Field(description="Its part of what the last items of the history count, above 0 and at most 1.")


class Why(BaseModel):
    """The items of the history that are nearest to a recommended one; null where a text or a picture is missing."""

    text: Nearest | None
    image: Nearest | None
    cooccurrence: NearInLog | None = Field(
        default=None, description="Of a model that counts near items; null where it stood near none of the history."
    )


class Scored(BaseModel):
    """An item with its score, which is the sum of its parts."""

    item_id: str
    title: Title
    score: float
    text_score: float
    image_score: float


class Recommended(Scored):
    """A recommended item."""

    cooccurrence_score: float | None = Field(
        default=None, description="Of a model that counts near items: what the training log adds."
    )
    why: Why | None = None


class UnknownItems(BaseModel):
    """What was left out, since the catalogue does not hold it: events of one history, or candidates."""

    count: int = Field(description="Events, or candidates, that were left out.")
    item_ids: list[str] = Field(description=f"Their ids, the first {MAX_UNKNOWN} different ones.")


class RecommendResponse(BaseModel):
    """The items of each history, best first, and what was left out of it."""

    recommendations: list[list[Recommended]]
    unknown_items: list[UnknownItems] = Field(description="Of each history, in the order of the request.")
    unknown_candidates: UnknownItems | None = Field(default=None, description="Of the request's, where it has any.")


class SimilarResponse(BaseModel):
    """Items by their cosine with one item."""

    similar: list[Scored]


class Entry(BaseModel):
    """An item of the catalogue."""

    item_id: str
    title: Title
    has_image: bool


class Item(Entry):
    """An item with all its fields."""

    fields: Fields


class ItemsPage(BaseModel):
    """One page of the catalogue, or of what was found in it."""

    items: list[Entry]
    total: int = Field(description="Items on all pages.")
    page: int
    pages: int


class NewItem(Entry):
    """An item that was added."""

    num_items: int = Field(description="Items of the catalogue now.")
    ignored_fields: list[str] = Field(description="Those of its fields that are kept, but not read.")
    not_learned: list[str] = Field(
        description="What this model has learned of the other items from its log, and not of this one: options of its "
        "config. Where there are any, a new item is seldom among the first."
    )


class Health(BaseModel):
    """What is served."""

    status: Literal["ok"] = "ok"
    model: str
    num_items: int
    catalog_version: int = Field(description="Counts the changes of the catalogue, from 1.")
    max_history: int = Field(description="Events that the model reads, the last ones of a history.")
    takes_new_items: bool
    new_items_problem: str | None = Field(description="Why new items cannot be added.")
    text_fields: list[str] = Field(description="The fields of a new item that are read.")
    version: str


class Problem(BaseModel):
    """What went wrong, for a person to read."""

    detail: str
