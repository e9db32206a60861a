"""Deadlines to the second, and calls that end, fail or are abandoned."""

from __future__ import annotations

import time
from functools import partial

import pytest

from tests.support.clocks import Clock
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.deadlines import (
    FOREVER,
    Deadline,
    call_with_deadline,
)
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
