"""Marks in the table of summaries: a section was worked out, and has no other rows than those of
the same time.
"""

from __future__ import annotations

from collections.abc import Iterable

from xapi_etl_processor.base.deadlines import FOREVER, Deadline
from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.storage.mutations import remove
from xapi_etl_processor.storage.tables import EVENTS, SUMMARIES

Section = tuple[int, str]
"""Its number, and its text."""


def now(
    clickhouse: ClickHouse, sections: Iterable[Section] = (), deadline: Deadline = FOREVER
) -> int:
    """The server's clock, in milliseconds since 1970, but later than all summaries of these
    sections, of all if none is named: a clock may have been ahead.
    """
    named = tuple(sections)
    where = " WHERE (section_id, section) IN %(sections)s" if named else ""
    [(millis,)] = clickhouse.query(
        "SELECT greatest(toUnixTimestamp64Milli(now64(3)), (SELECT"
        " max(toUnixTimestamp64Milli(summarized_at)) + 1"
        f" FROM {clickhouse.database}.{SUMMARIES}{where}))",
        {"sections": named},
        deadline,
    )
    return int(millis)


def mark(
    clickhouse: ClickHouse,
    sections: Iterable[Section] | None,
    at: int,
    deadline: Deadline = FOREVER,
) -> None:
    """Say that these sections, all if None, were worked out at that time: the view section_videos
    then shows no earlier rows of them, whenever those are inserted. Safe to repeat.
    """
    database = clickhouse.database
    named = "SELECT arrayJoin(%(sections)s) AS one"
    if sections is None:
        one = "SELECT DISTINCT (section_id, toString(section)) AS one FROM"
        named = f"{one} {database}.{EVENTS} UNION ALL {one} {database}.{SUMMARIES}"
    clickhouse.query(
        f"INSERT INTO {database}.{SUMMARIES} (section_id, section, summarized_at)"
        " SELECT one.1, one.2, fromUnixTimestamp64Milli(toInt64(%(at)s), 'UTC')"
        f" FROM ({named})",
        {"sections": sorted(sections or ()), "at": at},
        deadline,
    )


def remove_all(clickhouse: ClickHouse) -> None:
    """Remove all summaries, also those that are being worked out: the view shows none until each
    section is worked out again. Needs INSERT and ALTER DELETE; safe to repeat.
    """
    at = now(clickhouse)
    mark(clickhouse, None, at)
    earlier = "summarized_at < fromUnixTimestamp64Milli(toInt64(%(at)s), 'UTC')"
    remove(clickhouse, SUMMARIES, earlier, {"at": at})
