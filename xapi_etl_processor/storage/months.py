"""Old months: which ones have statements, how to drop them, and the notes of which were dropped."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from xapi_etl_processor.base.deadlines import FOREVER, Deadline
from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.storage import notes
from xapi_etl_processor.storage.tables import EVENTS

WITHOUT_TIME = "1970-01"
"""The month of rows that have no time at all. It is never dropped: they may be of any age."""


class Month(NamedTuple):
    """A month such as 2022-12: its rows (repeats included), sections, and bytes on disk."""

    month: str
    rows: int
    sections: int
    bytes: int


def months_before(clickhouse: ClickHouse, before: str) -> list[Month]:
    """The months that have rows and are earlier than `before`, in order."""
    params = {
        "database": clickhouse.database,
        "table": EVENTS,
        "before": before,
        "never": WITHOUT_TIME,
    }
    month = "concat(substring({0}, 1, 4), '-', substring({0}, 5, 2))"
    found = clickhouse.query(
        f"SELECT {month.format('partition')} AS month, sum(rows), sum(bytes_on_disk)"
        " FROM system.parts WHERE database = %(database)s AND table = %(table)s"
        " AND active AND rows > 0 AND match(partition, '^[0-9]{6}$')"
        " AND month < %(before)s AND month != %(never)s"
        " GROUP BY month ORDER BY month",
        params,
    )
    if not found:
        return []
    sections = dict(
        clickhouse.query(
            f"SELECT {month.format('_partition_id')} AS month, uniqExact(section_id, section)"
            f" FROM {clickhouse.database}.{EVENTS} WHERE _partition_id IN %(parts)s GROUP BY month",
            {"parts": tuple(_partition(month) for month, *_ in found)},
        )
    )
    return [Month(month, rows, sections.get(month, 0), size) for month, rows, size in found]


def drop(clickhouse: ClickHouse, before: str, months: list[Month]) -> None:
    """Drop these months, all that are earlier than `before`, and then note that they were.

    Safe to repeat: if it was interrupted, verifications call their statements missing until then.
    Raises ClickHouseRefused without the right (ALTER DELETE), or if a month is larger than the
    server allows to drop.
    """
    for one in months:
        clickhouse.alter(EVENTS, f"DROP PARTITION ID '{_partition(one.month)}'", {})
    clickhouse.insert(
        notes.TABLE,
        {"kind": [notes.DROPPED], "subject": [before]},
        settings=notes.on_all_replicas(clickhouse, notes.TABLE),
    )


def _partition(month: str) -> str:
    return month.replace("-", "")


def limits(clickhouse: ClickHouse, deadline: Deadline = FOREVER) -> dict[str, datetime]:
    """By the first month that was kept: when all months before it were dropped last."""
    rows = clickhouse.query(
        f"SELECT subject, max(noted_at) FROM {clickhouse.database}.{notes.TABLE}"
        " WHERE kind = %(kind)s GROUP BY subject",
        {"kind": notes.DROPPED},
        deadline,
    )
    return dict(rows)


def is_dropped(month: str, limit: str) -> bool:
    """Whether a month, '' if unknown, is among those that were dropped before a limit."""
    return "" < month < limit and month != WITHOUT_TIME
