"""Marks in the table of summaries: a section was worked out, and has no other rows than those of
the same time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

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
    clickhouse: ClickHouse, sections: Iterable[Section], at: int, deadline: Deadline = FOREVER
) -> None:
    """Say that these sections were worked out at that time: the view section_videos then shows no
    earlier rows of them, whenever those are inserted. Safe to repeat.
    """
    _mark(
        clickhouse,
        "SELECT arrayJoin(%(sections)s) AS one",
        {"sections": sorted(sections)},
        at,
        deadline,
    )


def remove_all(clickhouse: ClickHouse) -> None:
    """Remove all summaries, also those that are being worked out: the view shows none until each
    section is worked out again. Needs INSERT and ALTER DELETE; safe to repeat.
    """
    database, at = clickhouse.database, now(clickhouse)
    every = (
        f"SELECT DISTINCT (section_id, toString(section)) AS one FROM {database}.{EVENTS} UNION ALL"
        f" SELECT DISTINCT (section_id, toString(section)) AS one FROM {database}.{SUMMARIES}"
    )
    _mark(clickhouse, every, {}, at, FOREVER)
    earlier = "summarized_at < fromUnixTimestamp64Milli(toInt64(%(at)s), 'UTC')"
    remove(clickhouse, SUMMARIES, earlier, {"at": at})


def _mark(
    clickhouse: ClickHouse, sections: str, params: Mapping[str, Any], at: int, deadline: Deadline
) -> None:
    clickhouse.query(
        f"INSERT INTO {clickhouse.database}.{SUMMARIES} (section_id, section, summarized_at)"
        " SELECT one.1, one.2, fromUnixTimestamp64Milli(toInt64(%(at)s), 'UTC')"
        f" FROM ({sections})",
        {**params, "at": at},
        deadline,
    )
