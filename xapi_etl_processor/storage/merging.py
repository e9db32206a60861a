"""Merges the parts of a month into one, and says what that changed.

Each insert writes a part for each month that it touches. ClickHouse merges parts by itself, small
ones first, and stops long before one is left; a query with FINAL reads faster, the fewer there are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import closing
from time import sleep
from typing import NamedTuple

from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.deadlines import DaemonThreads
from xapi_etl_processor.errors import BadRequest, ClickHouseDenied, ClickHouseUnavailable
from xapi_etl_processor.storage.tables import OLD_EVENTS, TYPES

POLL_SECONDS = 0.5
"""How often the server is asked how far it is. Our choice."""

ATTEMPTS = 3
"""How often a merge is requested if the server does not begin it. Our limit."""

SPACE = 1.1
"""Free space that a merge needs, by the size of what it merges. ClickHouse's own rule
(`DISK_USAGE_COEFFICIENT_TO_RESERVE`)."""

BY_MONTH = "toYYYYMM(timestamp)"
"""The partition key of tables that have months."""

_MONTH = re.compile(r"([0-9]{4})-(0[1-9]|1[0-2])")
_RANGE = ".."


class Part(NamedTuple):
    """An active part: which inserts it is made of, by number, its rows, and its bytes on disk."""

    first: int
    last: int
    rows: int
    bytes: int


class Running(NamedTuple):
    """A merge that runs: its share that is done, and the parts and bytes that it merges."""

    share: float
    parts: int
    bytes: int


Parts = Sequence[Part]


def months_of(texts: Sequence[str]) -> list[str]:
    """The months, such as 2024-01, that texts such as 2024-01 and 2024-01..2024-06 name, in order.

    Raises BadRequest if a text is neither, or a range ends before it begins.
    """
    found = {month for text in texts for month in _named(text)}
    return sorted(found)


def _named(text: str) -> Iterator[str]:
    first, _, last = text.partition(_RANGE) if _RANGE in text else (text, "", text)
    begin, end = _MONTH.fullmatch(first), _MONTH.fullmatch(last)
    if not begin or not end:
        raise BadRequest(f"{text!r} is not a month: write 2024-01, or 2024-01..2024-06 for several")
    if last < first:
        raise BadRequest(f"{text!r} ends before it begins: write the earlier month first")
    numbers = range(_number(begin), _number(end) + 1)
    yield from (f"{number // 12:04}-{number % 12 + 1:02}" for number in numbers)


def _number(month: re.Match[str]) -> int:
    return int(month[1]) * 12 + int(month[2]) - 1


def check_table(clickhouse: ClickHouse, table: str) -> None:
    """Raises BadRequest unless it is one of our tables that has a partition for each month."""
    rows = clickhouse.query(
        "SELECT name FROM system.tables WHERE database = %(database)s AND name IN %(names)s"
        " AND partition_key = %(key)s ORDER BY name",
        {"database": clickhouse.database, "names": (*TYPES, OLD_EVENTS), "key": BY_MONTH},
    )
    names = [name for (name,) in rows]
    if table not in names:
        have = f"use {' or '.join(names)}" if names else "are the tables there? See `health`"
        raise BadRequest(f"{clickhouse.database}.{table} is no table with months: {have}")


def parts(clickhouse: ClickHouse, table: str, months: Sequence[str]) -> dict[str, list[Part]]:
    """The active parts of each of the months, on this server."""
    found: dict[str, list[Part]] = {month: [] for month in months}
    rows = clickhouse.query(
        "SELECT partition_id, min_block_number, max_block_number, rows, bytes_on_disk"
        " FROM system.parts WHERE active AND database = %(database)s AND table = %(table)s"
        " AND partition_id IN %(partitions)s",
        {**_table(clickhouse, table), "partitions": tuple(map(_partition, months))},
    )
    for partition, *values in rows:
        found[f"{partition[:4]}-{partition[4:]}"].append(Part(*values))
    return found


def free_bytes(clickhouse: ClickHouse, table: str) -> int | None:
    """The free space on the table's emptiest disk; None if the user may not see it."""
    try:
        [(free,)] = clickhouse.query(
            "SELECT max(unreserved_space) FROM system.disks WHERE name IN"
            " (SELECT arrayJoin(disks) FROM system.storage_policies WHERE policy_name IN"
            " (SELECT storage_policy FROM system.tables"
            " WHERE database = %(database)s AND name = %(table)s))",
            _table(clickhouse, table),
        )
    except ClickHouseDenied:
        return None
    return int(free)


def needed_bytes(month: Parts) -> int:
    """The free space that merging these parts needs; 0 if there is nothing to merge."""
    return int(SPACE * sum(part.bytes for part in month)) if len(month) > 1 else 0


def merge(
    clickhouse: ClickHouse, table: str, month: str, on_progress: Callable[[Running], None]
) -> None:
    """Merge all parts of a month into one, whatever their sizes; returns when that is done.

    `on_progress` is called about twice a second while the server merges. If this process ends, the
    server goes on. Raises ClickHouseError.
    """
    attempts = 0
    with closing(DaemonThreads(1)) as thread:
        while True:
            # Its connection is silent until the merge is done, and may be lost by then.
            reply = thread.submit(_optimize, clickhouse, table, month)
            began = _watch(clickhouse, table, month, on_progress, reply)
            try:
                reply.result()
            except ClickHouseUnavailable:
                # It was silent for too long, or waited for other merges, which have ended by now.
                attempts += not began
                if attempts == ATTEMPTS:
                    raise
            except ClickHouseDenied as error:
                user = clickhouse.settings.clickhouse_username
                grant = f"GRANT OPTIMIZE ON {clickhouse.database}.{table} TO {user}"
                raise ClickHouseDenied(f"{error}. It needs this privilege: {grant}") from error
            else:
                return
            if len(parts(clickhouse, table, [month])[month]) <= 1:
                return


def _optimize(clickhouse: ClickHouse, table: str, month: str) -> None:
    own = ClickHouse(clickhouse.settings)
    try:
        own.optimize(table, _partition(month))
    finally:
        own.disconnect()


def _watch(
    clickhouse: ClickHouse,
    table: str,
    month: str,
    on_progress: Callable[[Running], None],
    reply: Future[None],
) -> bool:
    """Wait for the reply and, if it was no success, until nothing of the month is merged any more;
    returns whether a merge was seen.
    """
    seen = False
    while True:
        if running := _running(clickhouse, table, month):
            seen = True
            on_progress(running)
        if not reply.done():
            wait((reply,), POLL_SECONDS)
        elif running and reply.exception():
            sleep(POLL_SECONDS)
        else:
            return seen


def _running(clickhouse: ClickHouse, table: str, month: str) -> Running | None:
    """The month's largest merge that runs."""
    rows = clickhouse.query(
        "SELECT progress, num_parts, total_size_bytes_compressed FROM"
        f" {clickhouse.everywhere('system.merges')} WHERE database = %(database)s AND"
        " table = %(table)s AND partition_id = %(partition)s ORDER BY num_parts DESC LIMIT 1",
        {**_table(clickhouse, table), "partition": _partition(month)},
    )
    if not rows:
        return None
    # Its sum of shares may be a little more than 1.
    return Running(min(1.0, rows[0][0]), *rows[0][1:])


def removed(before: Parts, after: Parts) -> int | None:
    """How many rows the merge removed, since another row of the same statement counts; None if rows
    were inserted meanwhile and merged too.
    """
    last = max((part.last for part in before), default=-1)
    merged = [part for part in after if part.first <= last]
    if any(part.last > last for part in merged):
        return None
    return sum(part.rows for part in before) - sum(part.rows for part in merged)


def totals(month: Parts) -> dict[str, int]:
    """How many parts, rows (repeats included) and bytes."""
    return {
        "parts": len(month),
        "rows": sum(part.rows for part in month),
        "bytes": sum(part.bytes for part in month),
    }


def _partition(month: str) -> str:
    """The id of a month's partition."""
    return month.replace("-", "")


def _table(clickhouse: ClickHouse, table: str) -> Mapping[str, str]:
    return {"database": clickhouse.database, "table": table}
