"""Clocks that tests set, so that nothing waits for time to pass."""

from __future__ import annotations

from dataclasses import dataclass

from local.clickhouse_server import ClickHouseServer


@dataclass
class Clock:
    """A clock, in seconds, that moves only when a test moves it."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def run_out_of_time_after(clickhouse: ClickHouseServer, inserts: int) -> Clock:
    """A clock that jumps by 50 seconds once this many inserts of statements have been stored.

    In an invocation of 60 seconds, that is too late to read more, and early enough to store what
    was read.
    """
    clock = Clock()
    stored: list[str] = []

    def note(point: str, sql: str) -> None:
        if point == "stored" and ".video_events (" in sql:
            stored.append(point)
            if len(stored) == inserts:
                clock.now += 50

    clickhouse.hook = note
    return clock
