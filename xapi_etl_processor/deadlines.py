"""Calls that nobody waits for beyond a deadline, in time.monotonic()'s seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from socket import SHUT_RDWR, socket
from threading import Thread
from typing import TypeVar

FOREVER = float("inf")
"""The deadline of who may take as long as it takes."""

_Answer = TypeVar("_Answer")


class Late(Exception):
    """The deadline came before the answer."""


def by(
    deadline: float,
    call: Callable[[], _Answer],
    when_over: Callable[[], object] = lambda: None,
) -> _Answer:
    """The call's answer, or what it raises; raises Late at the deadline.

    A late call goes on in its thread, for nobody; when_over is called when it has ended after all.
    Timeouts of a socket do not do: they begin anew with each byte, and each address of a name.
    """
    if deadline == FOREVER:
        return call()
    answer: Future[_Answer] = Future()

    def answering() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:  # noqa: BLE001  # whoever waits is to see it
            answer.set_exception(error)

    # A daemon: whoever ends the process does not wait for it either.
    Thread(target=answering, daemon=True).start()
    wait((answer,), left(deadline))
    if not answer.done():
        answer.add_done_callback(lambda _: when_over())
        raise Late("no answer in time")
    return answer.result()


def left(deadline: float) -> float | None:
    """Seconds until then, none below 0; None where there is no end."""
    return None if deadline == FOREVER else max(0.0, deadline - time.monotonic())


def wake(connection: socket | None) -> None:
    """End the connection that a late call waits for, and with it the wait."""
    if connection is not None:
        with suppress(OSError):
            # Not TLS's own shutdown, after which a thread that still sends does so in clear.
            socket.shutdown(connection, SHUT_RDWR)
