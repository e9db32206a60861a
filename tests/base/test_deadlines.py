"""Deadlines to the second, and calls that end, fail or are abandoned."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import closing
from functools import partial

import pytest

from tests.support.clocks import Clock
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.deadlines import (
    FOREVER,
    DaemonThreads,
    Deadline,
    call_with_deadline,
    interrupt,
)
from xapi_etl_processor.base.errors import DeadlinePassed
from xapi_etl_processor.run import Run, connections


def test_a_deadline_has_passed_from_its_moment_on_and_without_one_there_is_no_limit() -> None:
    for now, left, passed in ((0, 10, False), (9.5, 0.5, False), (10, 0, True), (12, 0, True)):
        found = Deadline(10, Clock(now))
        assert (found.seconds_left, found.timeout, found.has_passed) == (left, left, passed), now
    endless = (FOREVER.timeout, FOREVER.seconds_left, FOREVER.has_passed)
    assert endless == (None, float("inf"), False)
    assert FOREVER.earlier(15, share=1 / 3) is FOREVER


def test_an_earlier_deadline_keeps_seconds_or_a_share_and_one_within_seconds_is_never_later() -> (
    None
):
    """15 of 100 and of 45 seconds; a third of 30 seconds; nothing of what has passed."""
    for now, at in ((0, 85), (55, 85), (70, 90), (100, 100), (130, 100)):
        found = Deadline(100, Clock(now)).earlier(15, share=1 / 3)
        assert found.at == pytest.approx(at), now
    for now, at in ((0, 8), (95, 100), (130, 100)):
        assert Deadline(100, Clock(now)).within(8).at == at, now


@pytest.mark.parametrize(("seconds", "reading"), [(900, 885), (45, 30), (30, 20), (3, 2)])
def test_an_invocation_keeps_fifteen_seconds_or_a_third_of_its_time_for_storing(
    aws_environment: dict[str, str], seconds: int, reading: int
) -> None:
    settings = Settings("ch.example.org")
    run = Run(settings, connections(settings), "event", deadline=Deadline(seconds, Clock()))
    assert run.read_until.at == pytest.approx(reading)


def test_a_call_in_time_gives_its_result_or_raises_at_once_and_nothing_is_abandoned() -> None:
    abandoned: list[str] = []

    def fail(kind: type[BaseException]) -> None:
        raise kind("why")

    started = time.monotonic()
    for deadline in (FOREVER, FOREVER.within(60)):
        assert call_with_deadline(deadline, lambda: 5, lambda: abandoned.append("")) == 5
        for kind in (ValueError, SystemExit):
            with pytest.raises(kind, match="why"):
                call_with_deadline(deadline, partial(fail, kind))
    assert time.monotonic() - started < 10
    assert abandoned == []


def test_a_late_call_is_abandoned_and_cleaned_up_when_it_ends() -> None:
    began, go_on, cleaned = threading.Event(), threading.Event(), threading.Event()
    threads: list[threading.Thread] = []

    def wait() -> None:
        threads.append(threading.current_thread())
        began.set()
        go_on.wait(30)

    with pytest.raises(DeadlinePassed):
        call_with_deadline(FOREVER.within(0.01), wait, cleaned.set)
    assert began.wait(30)
    (late,) = threads
    assert late.daemon
    assert not cleaned.is_set()
    go_on.set()
    assert cleaned.wait(30)
    late.join(30)


def test_interrupting_ends_a_wait_and_does_no_harm_to_a_closed_connection() -> None:
    waiting, other = socket.socketpair()
    thread = threading.Thread(target=waiting.recv, args=(1,), daemon=True)
    thread.start()
    interrupt(waiting)
    thread.join(30)
    assert not thread.is_alive()
    waiting.close()
    other.close()
    interrupt(waiting)
    interrupt(None)


def test_calls_begin_in_order_in_no_more_threads_than_allowed() -> None:
    threads = DaemonThreads(2)
    together: list[int] = []
    at_once = [0]

    def call(number: int) -> int:
        at_once[0] += 1
        together.append(at_once[0])
        time.sleep(0.01)
        at_once[0] -= 1
        return number

    with closing(threads):
        futures = [threads.submit(call, number) for number in range(10)]
        assert [future.result(30) for future in futures] == list(range(10))
    assert max(together) <= 2


def test_calls_that_have_not_begun_are_dropped_and_the_threads_end() -> None:
    go_on, begun = threading.Event(), threading.Event()
    workers: list[threading.Thread] = []

    def call() -> None:
        workers.append(threading.current_thread())
        begun.set()
        go_on.wait(30)

    threads = DaemonThreads(1)
    first, second = threads.submit(call), threads.submit(call)
    assert begun.wait(30)
    threads.close()
    assert second.cancelled()
    assert not first.done()
    go_on.set()
    (worker,) = workers
    worker.join(30)
    assert not worker.is_alive()
    assert worker.daemon


def test_closing_waits_for_calls_that_have_begun_and_what_one_raises_is_raised_by_its_result() -> (
    None
):
    threads = DaemonThreads(2)
    done, failed = threads.submit(time.sleep, 0.1), threads.submit(lambda: 1 / 0)
    threads.close(30)
    assert done.done()
    with pytest.raises(ZeroDivisionError):
        failed.result(30)
