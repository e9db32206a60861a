"""Deadlines, and calls that are abandoned when theirs passes."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from socket import SHUT_RDWR, socket
from threading import Thread
from typing import Any, TypeVar

from xapi_etl_processor.base.errors import DeadlinePassed

_NEVER = float("inf")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Deadline:
    """A moment on a clock; both in seconds. The clock travels with it, so that tests can set it."""

    at: float
    clock: Callable[[], float] = time.monotonic

    @property
    def seconds_left(self) -> float:
        """Seconds until the deadline, never below 0; infinite if there is none."""
        return max(0.0, self.at - self.clock())

    @property
    def timeout(self) -> float | None:
        """`seconds_left` as the standard library's waits take it: None to wait without limit."""
        return None if self.at == _NEVER else self.seconds_left

    @property
    def has_passed(self) -> bool:
        """Whether the moment has come."""
        return self.clock() >= self.at

    def earlier(self, seconds: float, share: float) -> Deadline:
        """A deadline before this one, by `seconds` or by that share of the time left, if less."""
        if self.at == _NEVER:
            return self
        return Deadline(self.at - min(seconds, self.seconds_left * share), self.clock)

    def within(self, seconds: float) -> Deadline:
        """`seconds` from now, or the deadline itself if that is sooner."""
        return Deadline(min(self.at, self.clock() + seconds), self.clock)


FOREVER = Deadline(_NEVER)
"""No deadline."""


class DaemonThreads:
    """Threads for calls that may be abandoned: unlike an Executor's, they end with the process."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._threads = 0
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._unfinished: set[Future[Any]] = set()

    def submit(self, call: Callable[..., _Result], *arguments: Any) -> Future[_Result]:
        """Make the call in one of at most `most` threads; calls begin in order."""
        future: Future[_Result] = Future()
        self._unfinished.add(future)
        future.add_done_callback(self._unfinished.discard)
        self._calls.put((future, partial(call, *arguments)))
        if self._threads < min(self._most, len(self._unfinished)):
            self._threads += 1
            _in_a_thread(self._work)
        return future

    def _work(self) -> None:
        while item := self._calls.get():
            future, call = item
            if future.set_running_or_notify_cancel():
                _settle(future, call)
            # A thread that waits for the next call must not keep this one's result.
            del item, future, call

    def close(self, seconds: float | None = 0) -> None:
        """Begin no more calls, and wait up to `seconds`, or for ever, for those that have begun."""
        for future in list(self._unfinished):
            future.cancel()
        for _ in range(self._threads):
            self._calls.put(None)
        wait(list(self._unfinished), seconds)


_idle: list[SimpleQueue[Callable[[], Any]]] = []
"""What threads without work wait for. They are kept, since starting one costs as much as a short
query.
"""


def _in_a_thread(work: Callable[[], Any]) -> None:
    """Do this in a thread that is idle, or in a new one; it must not raise."""
    try:
        inbox = _idle.pop()
    except IndexError:
        inbox = SimpleQueue()
        Thread(target=_work_for_ever, args=(inbox,), daemon=True).start()
    inbox.put(work)


def _work_for_ever(inbox: SimpleQueue[Callable[[], Any]]) -> None:
    while True:
        inbox.get()()
        _idle.append(inbox)


def _settle(future: Future[_Result], call: Callable[[], _Result]) -> None:
    try:
        future.set_result(call())
    except BaseException as error:  # noqa: BLE001  # re-raised in the caller's thread
        future.set_exception(error)


def call_with_deadline(
    deadline: Deadline,
    call: Callable[[], _Result],
    when_abandoned: Callable[[], object] = lambda: None,
) -> _Result:
    """The call's result, or what it raises; raises DeadlinePassed if it takes too long.

    A late call keeps running in its thread; `when_abandoned` is called once it ends.
    """
    if deadline.timeout is None:
        return call()
    result: Future[_Result] = Future()
    _in_a_thread(partial(_settle, result, call))
    wait((result,), deadline.timeout)
    if not result.done():
        result.add_done_callback(lambda _: when_abandoned())
        raise DeadlinePassed("no answer in time")
    return result.result()


def interrupt(connection: socket | None) -> None:
    """Shut a connection down, so that a thread that waits for it stops waiting."""
    if connection is not None:
        with suppress(OSError):
            # Not TLS's own shutdown: after it, a thread that still sends would send unencrypted.
            socket.shutdown(connection, SHUT_RDWR)
