"""Marks in the table of summaries: a section was worked out, and has no other rows than those of
the same time.
"""

from __future__ import annotations

from collections.abc import Iterable

from xapi_etl_processor.base.deadlines import FOREVER, Deadline
from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.storage.tables import SUMMARIES

Section = tuple[int, str]
"""Its number, and its text."""


def now(clickhouse: ClickHouse, deadline: Deadline = FOREVER) -> int:
    """The server's clock, in milliseconds since 1970."""
    [(millis,)] = clickhouse.query("SELECT toUnixTimestamp64Milli(now64(3))", deadline=deadline)
    return int(millis)


def mark(
    clickhouse: ClickHouse, sections: Iterable[Section], at: int, deadline: Deadline = FOREVER
) -> None:
    """Say that these sections were worked out at that time: the view section_videos then shows no
    earlier rows of them, whenever those are inserted. Safe to repeat.
    """
    clickhouse.query(
        f"INSERT INTO {clickhouse.database}.{SUMMARIES} (section_id, section, summarized_at)"
        " SELECT one.1, one.2, fromUnixTimestamp64Milli(toInt64(%(at)s), 'UTC')"
        " FROM (SELECT arrayJoin(%(sections)s) AS one)",
        {"at": at, "sections": sorted(sections)},
        deadline,
    )
