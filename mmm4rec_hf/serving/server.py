"""Serves an application until it is interrupted."""

import contextlib
import socket
from typing import Any

import uvicorn

# Pages keep a connection open for news; a server that is stopped does not wait for them.
_LAST_SECONDS = 2
# One that is closed while its next request is on the way is an error for who asks; proxies keep theirs a minute.
_IDLE_SECONDS = 75


def bind(host: str, port: int) -> socket.socket:
    """
    The socket of a server.

    Args:
        host (`str`): An address of this machine.
        port (`int`): 0 for any that is free.

    Raises:
        ValueError: If there is no such address, or the port is taken or not allowed, with what to do.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise ValueError(
            f"{host}, port {port}, cannot be listened at: {error.strerror or error}; give another --port or --host"
        ) from error


def serve(app: Any, sock: socket.socket) -> None:
    """
    Serves until SIGINT or SIGTERM.

    Args:
        app (ASGI application): What to serve.
        sock (`socket.socket`): What [`bind`] gave.
    """
    config = uvicorn.Config(
        app, log_level="warning", timeout_graceful_shutdown=_LAST_SECONDS, timeout_keep_alive=_IDLE_SECONDS
    )
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[sock])


def address(sock: socket.socket) -> str:
    """Where a person finds what is served at a socket."""
    host, port = sock.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{host}:{port}"
