"""Remove or rewrite stored rows, and wait until every part has changed (a mutation). Rows that
are inserted after one began are not changed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from xapi_etl_processor.base.deadlines import FOREVER, Deadline
from xapi_etl_processor.base.errors import ClickHouseRefused, ClickHouseUnavailable
from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.storage import notes
from xapi_etl_processor.storage.tables import FORGOTTEN, NOTES

EVERYWHERE_SECONDS = 120
"""How long replicas may take to learn of a change. Our limit; Keeper needs a moment."""

_POLL_SECONDS = 0.1
_LONGEST_POLL_SECONDS = 2.0


def remove(
    clickhouse: ClickHouse,
    table: str,
    condition: str,
    params: Mapping[str, Any],
    deadline: Deadline = FOREVER,
) -> int:
    """Remove the rows for which a condition holds; returns how many there were, repeats included,
    when no part on any replica of CLICKHOUSE_CLUSTER holds them.

    Raises ClickHouseRefused if the user may not (it needs ALTER DELETE) or the server gives up, and
    ClickHouseUnavailable if it is not done by the deadline; then the server goes on with it.
    """
    where = f"{clickhouse.database}.{table}"
    [(rows,)] = clickhouse.query(f"SELECT count() FROM {where} WHERE {condition}", params, deadline)
    if rows:
        _mutate(clickhouse, table, f"DELETE WHERE {condition}", params, deadline)
    return int(rows)


def remove_notes(
    clickhouse: ClickHouse, command: str, until: datetime | None, deadline: Deadline = FOREVER
) -> None:
    """Remove what loads had noted by then, if ever, for this command, which has put it right."""
    if until is None:
        return
    # As `notes.overtaken` gives it: the driver would send a time without its milliseconds.
    params = {"command": command, "until": round(until.timestamp() * 1000)}
    noted = "kind = 'overtaken' AND subject = %(command)s AND toUnixTimestamp64Milli(noted_at)"
    remove(clickhouse, NOTES, f"{noted} <= %(until)s", params, deadline)
    if command == notes.SWEEP:
        again = "again AND toUnixTimestamp64Milli(forgotten_at) <= %(until)s"
        remove(clickhouse, FORGOTTEN, again, params, deadline)


def rewrite(
    clickhouse: ClickHouse, table: str, assignment: str, condition: str, params: Mapping[str, Any]
) -> None:
    """Set a column where a condition holds; as `remove`, but it needs ALTER UPDATE."""
    _mutate(clickhouse, table, f"UPDATE {assignment} WHERE {condition}", params, FOREVER)


def _mutate(
    clickhouse: ClickHouse, table: str, change: str, params: Mapping[str, Any], deadline: Deadline
) -> None:
    before = _newest_of_each(clickhouse, table, deadline)
    clickhouse.alter(table, change, params, deadline)
    pause, began = _POLL_SECONDS, time.monotonic()
    while True:
        # In this order: a replica may list a change only now, and has not begun it then.
        everywhere = _is_everywhere(clickhouse, table, before, deadline)
        unfinished = _unfinished(clickhouse, table, deadline)
        if everywhere and not unfinished:
            return
        if not everywhere and time.monotonic() - began > EVERYWHERE_SECONDS:
            raise ClickHouseUnavailable(
                f"{table}: not every replica has learned of the change in {EVERYWHERE_SECONDS}"
                " seconds: see system.replicas and system.mutations of each, then try again"
            )
        if reason := next(filter(None, unfinished), None):
            raise ClickHouseRefused(
                f"{table}: the server cannot change the rows: {reason}: correct that, or see"
                " system.mutations and KILL MUTATION, then try again"
            )
        if deadline.seconds_left < pause:
            raise ClickHouseUnavailable(
                f"{table}: the rows are not all changed yet; the server goes on: watch"
                " system.mutations, then try again"
            )
        time.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_POLL_SECONDS)


def _newest_of_each(
    clickhouse: ClickHouse, table: str, deadline: Deadline
) -> dict[str, str] | None:
    """The id of the newest mutation that each replica lists, by host; None without a cluster."""
    if not clickhouse.settings.clickhouse_cluster:
        return None
    rows = clickhouse.query(
        "SELECT concat(hostName(), ':', toString(tcpPort())), max(mutation_id)"
        f" FROM {clickhouse.everywhere('system.mutations')}"
        " WHERE database = %(database)s AND table = %(table)s GROUP BY 1",
        {"database": clickhouse.database, "table": table},
        deadline,
    )
    return dict(rows)


def _is_everywhere(
    clickhouse: ClickHouse, table: str, before: dict[str, str] | None, deadline: Deadline
) -> bool:
    """Whether every replica lists a mutation newer than those of before."""
    if before is None:
        return True
    newest = _newest_of_each(clickhouse, table, deadline) or {}
    # The ids of a replicated table have ten digits, and so compare as text.
    last = max(before.values(), default="")
    replicas = notes.on_all_replicas(clickhouse, table).get("insert_quorum", 1)
    return sum(found > last for found in newest.values()) >= replicas


def _unfinished(clickhouse: ClickHouse, table: str, deadline: Deadline) -> list[str]:
    """Each unfinished mutation's last error, '' if none: its name, as its text may quote values."""
    rows = clickhouse.query(
        f"SELECT extract(latest_fail_reason, '\\\\(([A-Z_]+)\\\\)') FROM"
        f" {clickhouse.everywhere('system.mutations')}"
        " WHERE database = %(database)s AND table = %(table)s AND NOT is_done",
        {"database": clickhouse.database, "table": table},
        deadline,
    )
    return [reason for (reason,) in rows]
