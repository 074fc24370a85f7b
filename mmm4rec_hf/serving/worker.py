"""The one thread that asks the model, and the bounded queue before it."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


class Busy(RuntimeError):
    """More is waiting than the server takes; the same request may go through a moment later."""


class Worker:
    """
    Runs functions one after the other in a thread of its own.

    One call of the model already uses all cores, so that several at once would only make each slower; and an answer
    never depends on who else asks.

    Args:
        max_waiting (`int`): Functions that may wait or run; one more is refused with [`Busy`].
    """

    def __init__(self, max_waiting: int) -> None:
        if max_waiting < 1:
            raise ValueError(f"max_waiting must be at least 1, got {max_waiting}")
        self.max_waiting = max_waiting
        self._places = threading.BoundedSemaphore(max_waiting)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="model")

    def submit(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> "Future[T]":
        """
        Queues a function.

        Args:
            function (`Callable`): Runs in the worker's thread.
            args, kwargs: Its arguments.

        Returns:
            `Future`: Of what it returns.

        Raises:
            Busy: If the queue is full.
        """
        if not self._places.acquire(blocking=False):
            raise Busy(f"{self.max_waiting} requests are waiting already; try again in a moment")
        try:
            future = self._executor.submit(function, *args, **kwargs)
        except BaseException:
            self._places.release()
            raise
        # Also called where a future is cancelled before it ran.
        future.add_done_callback(lambda _: self._places.release())
        return future

    def close(self) -> None:
        """Refuses more, and drops what has not begun."""
        self._executor.shutdown(wait=False, cancel_futures=True)
