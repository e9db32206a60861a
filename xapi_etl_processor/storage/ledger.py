"""What is recorded about objects: those that are done, rejected lines, voided statements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from xapi_etl_processor.base.deadlines import Deadline
from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.s3.objects import S3Object
from xapi_etl_processor.storage import notes
from xapi_etl_processor.storage.tables import FILES, REJECTED, TYPES, VOIDED
from xapi_etl_processor.xapi.parse import Counts, RejectedLine
from xapi_etl_processor.xapi.timestamps import since_epoch
from xapi_etl_processor.xapi.voiding import Voided

MAX_REJECTED_BYTES = 4096
"""How much of a rejected line is kept. Our limit."""

Identity = tuple[str, str, str]
"""Bucket, key and etag: the same three are the same bytes."""


def identity(obj: S3Object) -> Identity:
    """The key under which the ledger records an object."""
    return obj.bucket, obj.key, obj.etag


def already_processed(
    clickhouse: ClickHouse, objects: Sequence[S3Object], deadline: Deadline, since: int = 0
) -> set[Identity]:
    """Which versions of the objects the ledger knows as processed at `since` (milliseconds since
    1970) or later.
    """
    known = tuple(identity(o) for o in objects if o.etag)
    if not known:
        return set()
    lately = " AND toUnixTimestamp64Milli(processed_at) >= %(since)s" if since else ""
    rows = clickhouse.query(
        f"SELECT DISTINCT bucket, key, etag FROM {clickhouse.database}.{FILES}"
        f" WHERE (bucket, key, etag) IN %(known)s{lately}",
        {"known": known, "since": since},
        deadline,
        decisive=True,
    )
    return set(rows)


def look_up(
    clickhouse: ClickHouse, objects: Sequence[S3Object], deadline: Deadline
) -> tuple[set[Identity], notes.State]:
    """Which of the objects are in the ledger, and what loads must heed: one query, since an upload
    waits for each. Raises ClickHouseError.
    """
    known = tuple(identity(o) for o in objects if o.etag)
    in_ledger = (
        f"(SELECT groupUniqArray((bucket, key, etag)) FROM {clickhouse.database}.{FILES}"
        " WHERE (bucket, key, etag) IN %(known)s)"
    )
    state, found = notes.read_with(
        clickhouse, in_ledger if known else "emptyArrayString()", {"known": known}, deadline
    )
    return set(map(tuple, found)), state


def record_files(
    clickhouse: ClickHouse,
    done: Sequence[tuple[S3Object, Counts]],
    mode: str,
    run_id: str,
    deadline: Deadline,
) -> None:
    """Write a ledger row for each object. Call it only after all their rows were acknowledged."""
    now = _now_ms()
    rows = [(*identity(o), o.size or 0, *vars(c).values(), mode, run_id, now) for o, c in done]
    columns = dict(zip(TYPES[FILES], map(list, zip(*rows, strict=True)), strict=True))
    clickhouse.insert(FILES, columns, deadline)


def _now_ms() -> int:
    return since_epoch(datetime.now(UTC))


def record_rejected(
    clickhouse: ClickHouse,
    rejected: Sequence[tuple[S3Object, RejectedLine]],
    deadline: Deadline,
    before_again: Callable[[bool], None],
) -> None:
    """Write a row for each rejected line; `before_again` is that of `ClickHouse.insert`."""
    columns: dict[str, list[Any]] = {
        "source_file": [o.uri for o, _ in rejected],
        "source_etag": [o.etag for o, _ in rejected],
        "source_line": [line.number for _, line in rejected],
        "reason": [line.reason for _, line in rejected],
        "line": [line.line for _, line in rejected],
    }
    clickhouse.insert(REJECTED, columns, deadline, before_again=before_again)


def as_bytes(line: str | bytes) -> bytes:
    """A rejected line that was read: the driver gives bytes if it is no UTF-8."""
    return line if isinstance(line, bytes) else line.encode()


def record_voided(
    clickhouse: ClickHouse, voided: Sequence[tuple[S3Object, Voided]], deadline: Deadline
) -> None:
    """Write a row for each statement that another one voids."""
    columns: dict[str, list[Any]] = {
        "voided_id": [found.voided_id for _, found in voided],
        "voided_by": [found.event_id for _, found in voided],
        "voided_at": [found.timestamp_ms for _, found in voided],
        "source_file": [o.uri for o, _ in voided],
        "source_etag": [o.etag for o, _ in voided],
        "source_line": [found.number for _, found in voided],
    }
    clickhouse.insert(VOIDED, columns, deadline)
