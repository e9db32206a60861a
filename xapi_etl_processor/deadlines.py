"""Deadlines, and calls that are abandoned when theirs passes."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass
from socket import SHUT_RDWR, socket
from threading import Thread
from typing import TypeVar

from xapi_etl_processor.errors import DeadlinePassed

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


def call_with_deadline(
    deadline: Deadline,
    call: Callable[[], _Result],
    when_abandoned: Callable[[], object] = lambda: None,
) -> _Result:
    """The call's result, or what it raises; raises DeadlinePassed if it takes too long.

    A late call keeps running in its thread and its result is discarded; `when_abandoned` is called
    once it ends. Socket timeouts are not enough: they restart with every packet and address.
    """
    if deadline.timeout is None:
        return call()
    result: Future[_Result] = Future()

    def run() -> None:
        try:
            result.set_result(call())
        except BaseException as error:  # noqa: BLE001  # re-raised in the caller's thread
            result.set_exception(error)

    # A daemon thread, so that a late call cannot keep the process alive.
    Thread(target=run, daemon=True).start()
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
