"""What loads and people's commands write down for one another, in the table `load_notes`
(docs/architecture.md, "Nothing comes back").
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple

from xapi_etl_processor.base.deadlines import FOREVER, Deadline
from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.s3.objects import S3Object

TABLE = "load_notes"
FORGOTTEN = "forgotten_learners"

SWEEP = "forget --sweep"
PSEUDONYMIZE = "pseudonymize"
"""Commands that put right what a load could not undo; a third is that of `replace_command`."""

DROPPED = "dropped"
"""The kind of note that a month was dropped (months.py)."""

CLOCK_SECONDS = 60
"""How far the clocks of replicas may differ. Our limit."""

VERIFIED_DAYS = 7
"""For how long a verification can be continued: older findings say little. Our choice."""


class State(NamedTuple):
    """What loads must heed: how many notes there are of learners and objects, and the last one's
    time; and the id of the key under which all ids are pseudonyms, '' if that was never noted.

    `replaced_at` is in seconds since 1970.
    """

    forgotten: tuple[int, datetime]
    replaced: tuple[int, datetime]
    replaced_at: int
    learner_ids: str


def read(clickhouse: ClickHouse, deadline: Deadline = FOREVER) -> State:
    """The state now; waits for a busy server. Raises ClickHouseError."""
    return read_with(clickhouse, "0", {}, deadline)[0]


def read_with(
    clickhouse: ClickHouse, more: str, params: Mapping[str, Any], deadline: Deadline
) -> tuple[State, Any]:
    """The state, and the value of the expression `more`, by one query; raises as `read`."""
    where = f"{clickhouse.database}.{TABLE}"
    [row] = clickhouse.query(
        f"SELECT count(), max(forgotten_at),"
        f" (SELECT count() FROM {where} WHERE kind = 'replaced'),"
        f" (SELECT max(noted_at) FROM {where} WHERE kind = 'replaced'),"
        f" (SELECT max(toInt64(noted_at)) FROM {where} WHERE kind = 'replaced'),"
        f" (SELECT argMax(value, noted_at) FROM {where} WHERE kind = 'learner_ids'),"
        f" {more} FROM {clickhouse.database}.{FORGOTTEN}",
        params,
        deadline,
        # An insert that waits for a busy server asks this before each further attempt.
        decisive=True,
    )
    return State(row[:2], row[2:4], row[4], row[5]), row[6]


def note_replaced(
    clickhouse: ClickHouse, objects: Sequence[S3Object], deadline: Deadline = FOREVER
) -> None:
    """Note, on all replicas of CLICKHOUSE_CLUSTER, that only these versions count from now on."""
    columns: dict[str, list[Any]] = {
        "kind": ["replaced"] * len(objects),
        "subject": [obj.uri for obj in objects],
        "value": [obj.etag for obj in objects],
        # Unknown is later than every version that is being loaded now.
        "version": [obj.modified_ms or round(time.time() * 1000) for obj in objects],
    }
    clickhouse.insert(TABLE, columns, deadline, on_all_replicas(clickhouse, TABLE))


def note_learner_ids(
    clickhouse: ClickHouse,
    key: str,
    deadline: Deadline = FOREVER,
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Note that all ids are pseudonyms from now on, under the key with this id."""
    clickhouse.insert(TABLE, {"kind": ["learner_ids"], "value": [key]}, deadline, settings)


def on_all_replicas(clickhouse: ClickHouse, table: str) -> dict[str, int]:
    """Settings for an insert that ends when every replica has it: a load may ask any of them."""
    if not clickhouse.settings.clickhouse_cluster:
        return {}
    rows = clickhouse.query(
        "SELECT total_replicas FROM system.replicas"
        " WHERE database = %(database)s AND table = %(table)s",
        {"database": clickhouse.database, "table": table},
    )
    return {"insert_quorum": rows[0][0]} if rows else {}


def replaced_since(
    clickhouse: ClickHouse, objects: Sequence[S3Object], seen: State, deadline: Deadline = FOREVER
) -> list[S3Object]:
    """Those of the objects that a later version has replaced since a state was read."""
    rows = clickhouse.query(
        "SELECT subject, argMax(value, noted_at), argMax(version, noted_at)"
        f" FROM {clickhouse.database}.{TABLE} WHERE kind = 'replaced' AND subject IN %(objects)s"
        " AND toInt64(noted_at) >= %(since)s GROUP BY subject",
        {"objects": tuple(obj.uri for obj in objects), "since": seen.replaced_at - CLOCK_SECONDS},
        deadline,
        decisive=True,
    )
    counts = {uri: (etag, version) for uri, etag, version in rows}
    return [obj for obj in objects if _is_earlier(obj, *counts.get(obj.uri, (obj.etag, 0)))]


def _is_earlier(obj: S3Object, etag: str, version: int) -> bool:
    return obj.etag != etag and (obj.modified_ms or 0) <= version


def replace_command(obj: S3Object) -> str:
    """The command that removes what earlier versions of an object left behind."""
    return f"event --replace {shlex.quote(obj.uri)}"


def note_overtaken(clickhouse: ClickHouse, commands: Sequence[str], deadline: Deadline) -> None:
    """Note the commands that put right what a load could not undo."""
    columns = {"kind": ["overtaken"] * len(commands), "subject": list(commands)}
    clickhouse.insert(TABLE, columns, deadline)


def overtaken(clickhouse: ClickHouse, deadline: Deadline = FOREVER) -> Mapping[str, datetime]:
    """The commands that loads have noted, and when last. Raises ClickHouseError."""
    rows = clickhouse.query(
        "SELECT subject, max(noted_at) FROM"
        f" (SELECT subject, noted_at FROM {clickhouse.database}.{TABLE} WHERE kind = 'overtaken'"
        # A function that was not updated notes it there.
        f" UNION ALL SELECT '{SWEEP}', forgotten_at FROM {clickhouse.database}.{FORGOTTEN}"
        " WHERE again) GROUP BY subject ORDER BY subject",
        deadline=deadline,
    )
    return dict(rows)


class Verified(NamedTuple):
    """The last key of a verification, and how many objects up to it are missing or not compared."""

    after: str
    missing: int
    failed: int


NOTHING_VERIFIED = Verified("", 0, 0)


def verified(clickhouse: ClickHouse, identity: str, deadline: Deadline) -> Verified:
    """Where the last verification of a request ended, if it did so early, in VERIFIED_DAYS."""
    rows = clickhouse.query(
        f"SELECT value FROM {clickhouse.database}.{TABLE}"
        " WHERE kind = 'verified' AND subject = %(identity)s"
        " AND noted_at > now() - toIntervalDay(%(days)s) ORDER BY noted_at DESC LIMIT 1",
        {"identity": identity, "days": VERIFIED_DAYS},
        deadline,
    )
    return Verified(*json.loads(rows[0][0])) if rows else NOTHING_VERIFIED


def note_verified(
    clickhouse: ClickHouse, identity: str, reached: Verified, deadline: Deadline
) -> None:
    """Note where a verification ended early; NOTHING_VERIFIED if it compared all."""
    columns = {"kind": ["verified"], "subject": [identity], "value": [json.dumps(reached)]}
    clickhouse.insert(TABLE, columns, deadline)
