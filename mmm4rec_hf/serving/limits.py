"""What is refused before any route sees it: bodies that are too large, pages of other sites, other sites' files."""

import ipaddress
import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .pictures import MAX_UPLOAD_BYTES

MAX_JSON_BYTES = 1 << 20
# Around an uploaded picture: the other fields of the form.
_FORM_BYTES = 256 << 10
_READING = {"GET", "HEAD", "OPTIONS"}
# Gradio would fetch such an address and pass on what it gives.
_FILE_OF_ELSEWHERE = re.compile("/gradio_api/file[=/]https?:", re.IGNORECASE)
# What the page needs of Gradio. It has more: recordings, proxies, runs of others, and a queue that keeps every answer
# until somebody reads it, which takes any number of events.
_GRADIO = re.compile("/gradio_api/([^/=]*)", re.IGNORECASE)
_NEEDED = frozenset(("app_id", "file", "heartbeat", "run", "startup-events", "upload"))


class _TooLarge(HTTPException):
    """Ends the reading of a body; of this class, or the frameworks that read it would call it a broken one."""


class Limits:
    """
    Refuses requests with a large body (413) and requests that another site's page may have sent (403).

    A server on this machine is reached by every page that its browser shows: a page elsewhere can post to
    `127.0.0.1`, or give its own name this machine's address. So requests that change something must come from a page
    of this server, and a server for this machine alone answers to this machine's names only. Nor does it fetch files
    of other servers for those who ask it, or answer to what Gradio has and the page does without (403).

    Args:
        app (`ASGIApp`): What to protect.
        upload_paths (`Sequence[str]`): Where pictures may be posted.
        event_bytes (`int`, *optional*, defaults to 1 MiB):
            What an event of the page may have; Gradio keeps some of it as long as the session.
        local_only (`bool`, *optional*, defaults to `False`): Whether the server is for this machine alone.
        allowed_hosts (`Sequence[str]`, *optional*): Names by which it is reached besides, such as a proxy's.
    """

    def __init__(
        self,
        app: ASGIApp,
        upload_paths: Sequence[str],
        event_bytes: int = MAX_JSON_BYTES,
        local_only: bool = False,
        allowed_hosts: Sequence[str] = (),
    ) -> None:
        self.app = app
        self.upload_paths = tuple(upload_paths)
        self.event_bytes = event_bytes
        self.local_only = local_only
        self.allowed_hosts = {host.lower() for host in allowed_hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As every ASGI application."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        problem = self._foreign(scope["method"], headers)
        asked = _GRADIO.search(scope["path"])
        if problem is None and _FILE_OF_ELSEWHERE.search(scope["path"]):
            problem = "this server fetches no files of other servers; ask theirs"
        elif problem is None and asked and asked[1].lower() not in _NEEDED:
            problem = f"this server has no {asked[1]!r}, as its page needs none"
        if problem is not None:
            await JSONResponse({"detail": problem}, 403)(scope, receive, send)
            return
        limit = self._limit(scope)
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > limit:
            await _too_large(limit)(scope, receive, send)
            return
        await self._counted(scope, receive, send, limit)

    async def _counted(self, scope: Scope, receive: Receive, send: Send, limit: int) -> None:
        """Passes a request on, and stops reading where its body outgrows what it may have."""
        total = 0
        started = False

        async def counting() -> Message:
            nonlocal total
            message = await receive()
            total += len(message.get("body", b""))
            if total > limit:
                raise _TooLarge(413, _size_problem(limit))
            return message

        async def watching(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, counting, watching)
        except _TooLarge:
            if started:
                raise
            await _too_large(limit)(scope, receive, send)

    def _limit(self, scope: Scope) -> int:
        path = scope["path"].rstrip("/")
        if path in self.upload_paths:
            return MAX_UPLOAD_BYTES + _FORM_BYTES
        return self.event_bytes if _GRADIO.search(path) else MAX_JSON_BYTES

    def _foreign(self, method: str, headers: dict[str, str]) -> str | None:
        host = _host_name("//" + headers.get("host", ""))
        if self.local_only and not _is_local(host) and host not in self.allowed_hosts:
            return f"this server answers to this machine's own names, not to {host!r}; see --allow-host"
        origin = headers.get("origin")
        if method in _READING or origin is None:
            return None
        name = _host_name(origin)
        if name == host or name in self.allowed_hosts or (_is_local(name) and _is_local(host)):
            return None
        return f"a page of {origin!r} may not change anything here; see --allow-host"


def _host_name(address: str) -> str:
    try:
        return (urlsplit(address).hostname or "").lower()
    except ValueError:
        return ""


def _is_local(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _too_large(limit: int) -> JSONResponse:
    return JSONResponse({"detail": _size_problem(limit)}, 413)


def _size_problem(limit: int) -> str:
    size = f"{limit >> 20} MB" if limit >= 1 << 20 else f"{limit >> 10} KB"
    return f"the request has more than {size}; send less at once"


def is_loopback(host: str) -> bool:
    """Whether a server that listens at `host` is for this machine alone."""
    return _is_local(host.strip("[]").lower())
