"""The JSON API: routes, and errors as one line for a person."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, FastAPI, File, Form, Query, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

import mmm4rec_hf
from mmm4rec_hf.items.images import PictureError
from mmm4rec_hf.suggestions import remedy

from . import schemas
from .forms import named_fields, texts_of
from .limits import Limits
from .pictures import MAX_UPLOAD_BYTES, NotDownloaded
from .recommender import CannotAddItems, ItemExists, Recommender, UnknownItem
from .worker import Busy

_DESCRIPTION = """
Recommendations for histories of items, from their texts, their pictures and the times between events. A score is the
sum of a text part and a picture part. Errors come as `{"detail": "..."}`.
"""
# What each error of the package is called in HTTP; the message stands in `detail`.
_STATUS: dict[type[Exception], int] = {
    UnknownItem: 404,
    CannotAddItems: 403,
    ItemExists: 409,
    PictureError: 422,
    Busy: 429,
    ValueError: 422,
    TypeError: 422,
}
# What a body should look like, for an error about one that looks otherwise.
_FORMS = {
    "/recommend": (
        "JSON (content-type: application/json) such as "
        '{"histories": [{"items": ["50", "172"], "timestamps": [891035000, 891035500]}]}'
    ),
    "/items": "a form, not JSON, such as curl -F item_id=new-1 -F title='Blue mug' -F image=@mug.jpg",
}
# What an event of the page has beside the texts of a new item.
_EVENT_BYTES = 32 << 10
# Pictures that other servers are asked for at a time; some 40 threads answer all requests.
_DOWNLOADS = 8
_OTHER_FORM = {"missing", "extra_forbidden", "json_invalid", "model_attributes_type", "list_type"}
_Text = Annotated[str, Form(max_length=schemas.MAX_TEXT)]


def create_api(recommender: Recommender, *, local_only: bool = False, allowed_hosts: Sequence[str] = ()) -> FastAPI:
    """
    The API as an application, with its description at `/docs`.

    Args:
        recommender ([`Recommender`]): Answers.
        local_only (`bool`, *optional*, defaults to `False`): As [`Limits`].
        allowed_hosts (`Sequence[str]`, *optional*): As [`Limits`].
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        recommender.close()

    app = FastAPIOffline(
        title="MMM4Rec",
        version=mmm4rec_hf.__version__,
        description=_DESCRIPTION,
        redoc_url=None,
        lifespan=lifespan,
        responses={status: {"model": schemas.Problem} for status in (422, 429)},
    )
    app.add_middleware(
        Limits,
        upload_paths=("/items", "/gradio_api/upload"),
        # A character is four bytes at most.
        event_bytes=_EVENT_BYTES + 4 * schemas.MAX_TEXT * len(recommender.text_fields),
        local_only=local_only,
        allowed_hosts=allowed_hosts,
    )
    app.state.read_picture = _picture_reader(recommender)
    _add_errors(app)
    # Of these routes alone: the page's pictures have parameters of their own.
    router = APIRouter(dependencies=[Depends(_check_parameters)])
    _add_recommending(router, recommender)
    _add_catalog(router, recommender)
    _add_new_items(router, recommender)
    app.include_router(router)
    return app


def _picture_reader(recommender: Recommender) -> Callable[[str, int], Awaitable[bytes]]:
    """Reads pictures in threads, few of which wait for other servers at a time: all requests share the threads."""
    downloads = asyncio.Semaphore(_DOWNLOADS)

    async def read(item_id: str, size: int) -> bytes:
        # What is here, or known to fail, has no part in the wait for others.
        with contextlib.suppress(NotDownloaded):
            return await run_in_threadpool(recommender.picture, item_id, size, download=False)
        async with downloads:
            return await run_in_threadpool(recommender.picture, item_id, size)

    return read


async def _check_parameters(request: Request) -> None:
    """Refuses a parameter of the address that nothing reads: the answer would be one to another question."""
    if not request.query_params:
        return
    known = [field.alias for field in request.scope["route"].dependant.query_params]
    for name in request.query_params:
        if name not in known:
            name = name[: schemas.MAX_ID]
            told = remedy(name, known) if known else "there are none here"
            if request.method == "POST":
                told += "; what is asked goes into the body"
            raise ValueError(f"unknown query parameter {name!r}; {told}")


def _add_errors(app: FastAPI) -> None:
    def answer(status: int) -> Callable[[Request, Exception], Awaitable[Response]]:
        async def handler(_: Request, error: Exception) -> Response:
            headers = {"Retry-After": "1"} if status == 429 else None
            return JSONResponse({"detail": schemas.displayable(" ".join(str(error).split()))}, status, headers)

        return handler

    for kind, status in _STATUS.items():
        app.add_exception_handler(kind, answer(status))

    async def invalid(request: Request, error: Exception) -> Response:
        # Without what was sent, which may be large.
        assert isinstance(error, RequestValidationError)
        places = [(".".join(str(part) for part in e["loc"][1:]) or "body", e["msg"]) for e in error.errors()]
        told = [f"{place}: {message}" for place, message in places[:10]]
        has_other_form = any(e["loc"][0] == "body" and e["type"] in _OTHER_FORM for e in error.errors())
        if has_other_form and request.url.path in _FORMS:
            told.append(f"send {_FORMS[request.url.path]}")
        return JSONResponse({"detail": "; ".join(told)}, 422)

    app.add_exception_handler(RequestValidationError, invalid)


def _add_recommending(router: APIRouter, recommender: Recommender) -> None:
    @router.post("/recommend", response_model=schemas.RecommendResponse, response_model_exclude_unset=True)
    async def recommend(request: schemas.RecommendRequest) -> Any:
        """The best items for each history."""
        options = request.model_dump(exclude={"histories"}, exclude_none=True)
        histories = [history.model_dump(exclude_none=True) for history in request.histories]
        answers = await asyncio.wrap_future(recommender.start_recommend(histories, **options))
        content = {
            "recommendations": [answer.items for answer in answers],
            "unknown_items": [_left_out(answer.unknown) for answer in answers],
        }
        if request.candidates is not None:
            content["unknown_candidates"] = _left_out(answers[0].unknown_candidates)
        return content

    @router.get("/similar", response_model=schemas.SimilarResponse, responses={404: {"model": schemas.Problem}})
    async def similar(
        item_id: Annotated[str, Query(min_length=1, max_length=schemas.MAX_ID)],
        top_k: Annotated[int, Query(ge=1, le=schemas.MAX_TOP_K)] = 10,
        by: Literal["text", "image", "both"] = "both",
    ) -> Any:
        """Items like one item, by their texts, their pictures or both; scores are cosines."""
        (found,) = await asyncio.wrap_future(recommender.start_similar([item_id], top_k=top_k, by=by))
        return {"similar": found}


def _left_out(unknown: list[str]) -> dict[str, Any]:
    return {"count": len(unknown), "item_ids": list(dict.fromkeys(unknown))[: schemas.MAX_UNKNOWN]}


def _add_catalog(router: APIRouter, recommender: Recommender) -> None:
    missing: Any = {404: {"model": schemas.Problem}}

    @router.get("/health", response_model=schemas.Health)
    async def health() -> Any:
        """What is served, and whether new items are taken."""
        state = recommender.state
        return {
            "model": recommender.name,
            "num_items": len(state.catalog),
            "catalog_version": state.version,
            "max_history": recommender.max_history,
            "takes_new_items": recommender.encoder is not None,
            "new_items_problem": recommender.encoder_problem,
            "text_fields": list(recommender.text_fields),
            "version": mmm4rec_hf.__version__,
        }

    @router.get("/items", response_model=schemas.ItemsPage)
    def items(
        query: Annotated[str, Query(max_length=schemas.MAX_QUERY)] = "",
        page: Annotated[int, Query(ge=1, le=10**9)] = 1,
        page_size: Annotated[int, Query(ge=1, le=schemas.MAX_PAGE_SIZE)] = 24,
    ) -> Any:
        """The catalogue, or the items whose title or id holds every word of the query; the last page at most."""
        found, entries = recommender.search(query, page, page_size)
        return {"items": entries, "total": found.total, "page": found.page, "pages": found.pages}

    # Before the route of an item, whose id may hold slashes.
    @router.get(
        "/items/{item_id:path}/image",
        response_class=Response,
        responses=missing | {200: {"content": {"image/jpeg": {}}}},
    )
    async def image(request: Request, item_id: str, size: Annotated[int, Query(ge=16, le=1024)] = 512) -> Any:
        """An item's picture as a JPEG whose longer side has at most `size` pixels."""
        try:
            content = await request.app.state.read_picture(item_id, size)
        except PictureError as error:
            raise HTTPException(404, f"item {item_id!r} has no picture to show: {error}") from error
        return Response(content, media_type="image/jpeg", headers={"Cache-Control": "no-cache"})

    @router.get("/items/{item_id:path}", response_model=schemas.Item, responses=missing)
    def item(item_id: str) -> Any:
        """An item with all its fields."""
        return recommender.item(item_id)


def _add_new_items(router: APIRouter, recommender: Recommender) -> None:
    codes: Any = {status: {"model": schemas.Problem} for status in (403, 409, 413)}

    @router.post("/items", response_model=schemas.NewItem, status_code=201, responses=codes)
    async def add_item(
        request: Request,
        item_id: Annotated[
            str | None,
            Form(min_length=1, max_length=schemas.MAX_ID, description="Required, by this name or the file's own."),
        ] = None,
        title: _Text = "",
        fields: Annotated[
            str, Form(max_length=schemas.MAX_TEXT, description="Other texts, as a JSON object of strings.")
        ] = "{}",
        image: Annotated[UploadFile | None, File(description="A picture: JPEG, PNG, WebP, GIF or BMP.")] = None,
    ) -> Any:
        """
        Encodes a new item; it is recommended from now on, until the server stops. The fields that `/health` names as
        `text_fields` may also be fields of the form; id, title and picture may go by the names that the catalogue's
        file has for them.
        """
        source_fields = recommender.state.catalog.source_fields
        named = named_fields(await request.form(), recommender.text_fields, source_fields)
        item_id = item_id or named.item_id
        if item_id is None:
            own = f", or as {source_fields['item_id']!r}" if "item_id" in source_fields else ""
            missing = {"type": "missing", "loc": ("body", "item_id"), "msg": f"Field required{own}"}
            raise RequestValidationError([missing])
        texts = texts_of(fields) | named.texts | ({"title": title} if title else {})
        picture = image or named.image
        content = None if picture is None else await picture.read(MAX_UPLOAD_BYTES + 1)
        entry = await run_in_threadpool(recommender.add_item, item_id, texts, content)
        return entry | {"num_items": len(recommender.state.catalog)}
