"""The one thread that asks the model: what waits for it is bounded, and alike requests are asked together."""

import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

# Of one call of the model. Twice as many would take twice as long by now.
_MAX_TOGETHER = 64


class Busy(RuntimeError):
    """More is waiting than the server takes; the same request may go through a moment later."""


@dataclass
class _Job:
    """What somebody waits for: `function` of `entries`, in one call with other jobs of the same `key`, if any."""

    function: Callable[[list[Any]], list[Any]]
    entries: list[Any]
    key: Hashable | None
    future: "Future[list[Any]]" = field(default_factory=Future)


class Worker:
    """
    Runs functions in a thread of its own, one after the other.

    One call of the model already uses all cores, so that several at once would only make each slower. Most of a small
    call is not arithmetic, though: a call for fifty histories takes six times as long as one for one. So those that
    wait for the same function are run as one call.

    Args:
        max_waiting (`int`): Jobs that may wait or run; one more is refused with [`Busy`].
    """

    def __init__(self, max_waiting: int) -> None:
        if max_waiting < 1:
            raise ValueError(f"max_waiting must be at least 1, got {max_waiting}")
        self.max_waiting = max_waiting
        self._open = 0
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._loop, name="model", daemon=True)
        self._thread.start()

    def submit(
        self, function: Callable[[list[Any]], list[Any]], entries: Sequence[Any], key: Hashable | None = None
    ) -> "Future[list[Any]]":
        """
        Queues a call.

        Args:
            function (`Callable[[list], list]`): From a list to a list of the same length, in the worker's thread.
            entries (`Sequence`): What it is called with.
            key (`Hashable`, *optional*):
                Calls of one key may be made as one, of one of their functions and the entries of all. Where that
                fails each is made by itself, so that an error reaches only those whose entries cause it.

        Returns:
            `Future`: Of what the function returns for these entries.

        Raises:
            Busy: If too many wait.
        """
        job = _Job(function, list(entries), key)
        with self._changed:
            if self._closed:
                raise Busy("the server is stopping")
            if self._open >= self.max_waiting:
                raise Busy(f"{self.max_waiting} requests are waiting already; try again in a moment")
            self._open += 1
            self._jobs.append(job)
            self._changed.notify()
        return job.future

    def close(self) -> None:
        """Refuses more, and cancels what has not begun."""
        with self._changed:
            self._closed = True
            waiting, self._open = list(self._jobs), 0
            self._jobs.clear()
            self._changed.notify()
        for job in waiting:
            job.future.cancel()

    def _loop(self) -> None:
        while jobs := self._take():
            # Some may have been cancelled by who waited for them.
            wanted = [job for job in jobs if job.future.set_running_or_notify_cancel()]
            self._done(len(jobs) - len(wanted))
            self._run(wanted)

    def _take(self) -> list[_Job]:
        """The job that has waited longest, and those that can be run with it; none when the worker is closed."""
        with self._changed:
            while not self._jobs and not self._closed:
                self._changed.wait()
            if self._closed:
                return []
            taken: list[_Job] = []
            left, room = deque[_Job](), _MAX_TOGETHER
            for job in self._jobs:
                if not taken or (job.key is not None and job.key == taken[0].key and len(job.entries) <= room):
                    taken.append(job)
                    room -= len(job.entries)
                else:
                    left.append(job)
            self._jobs = left
            return taken

    def _run(self, jobs: list[_Job]) -> None:
        if not jobs:
            return
        try:
            results = jobs[0].function([entry for job in jobs for entry in job.entries])
        except Exception as error:
            if len(jobs) > 1:
                for job in jobs:
                    self._run([job])
                return
            self._done(1)
            jobs[0].future.set_exception(error)
            return
        # Before the results: who has one may send the next request.
        self._done(len(jobs))
        start = 0
        for job in jobs:
            job.future.set_result(results[start : start + len(job.entries)])
            start += len(job.entries)

    def _done(self, count: int) -> None:
        with self._changed:
            self._open = max(0, self._open - count)
