"""Compares objects in S3 with the ledger and the rows: what is missing, and what cannot be told."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple

from xapi_etl_processor.base.deadlines import Deadline
from xapi_etl_processor.base.errors import S3Error, S3Late
from xapi_etl_processor.base.telemetry import counted
from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.pipeline.contents import Reading, Row, expected_rows, parts, stored
from xapi_etl_processor.run import Run
from xapi_etl_processor.s3.objects import S3Object
from xapi_etl_processor.storage import months
from xapi_etl_processor.storage.ledger import identity
from xapi_etl_processor.storage.tables import EVENTS, FILES
from xapi_etl_processor.xapi.timestamps import instant

SHOWN_LINES = 20
"""Lines that a finding names; the rest are counted. Our limit."""

LEDGER_ROWS = 20_000
"""Rows of the ledger that one query reads. Our choice."""

Kind = Literal[
    "right", "missing", "changed", "differing", "unproven", "dropped", "recent", "unreadable"
]
"""What an object's comparison found: docs/operations.md, "Verify"."""

WRONG: tuple[Kind, ...] = ("missing", "changed", "differing")
"""The kinds that loading the object again puts right."""


class Check(NamedTuple):
    """What was found about an object, why, and its lines with statements that are not stored: the
    first SHOWN_LINES, and how many there are.
    """

    obj: S3Object
    kind: Kind
    why: str = ""
    lines: tuple[int, ...] = ()
    lines_missing: int = 0


def check(
    objects: Sequence[S3Object], run: Run, *, content: bool, min_age_minutes: int = 0
) -> Iterator[Check]:
    """Compare objects, as a listing gives them, in order.

    With `content`, the objects that the ledger knows are read, and each of their statements is
    looked for; without it, only those of which no row is there although the ledger counts some, and
    whose month was not dropped.
    Raises ClickHouseError, and S3Late or DeadlinePassed when the time is up.
    """
    clickhouse = run.connections.clickhouse
    versions = _ledger_rows(objects, clickhouse, run.deadline)
    counted = [obj for obj in objects if identity(obj) in versions]
    lines = _stored_lines(counted, clickhouse, run.deadline)
    limits = months.limits(clickhouse, run.deadline).items()
    dropped = {
        obj: max(
            (limit for limit, at in limits if at >= versions[identity(obj)].processed_at),
            default="",
        )
        for obj in counted
    }
    without = [
        obj
        for obj in counted
        if versions[identity(obj)].video
        and not lines.get(obj.uri)
        and not months.is_dropped(obj.month, dropped[obj])
    ]
    to_read = counted if content else without
    keys = {key for _, key, _ in versions}
    young = datetime.now(UTC) - timedelta(minutes=min_age_minutes)

    def by_counts(obj: S3Object) -> Check:
        if known := versions.get(identity(obj)):
            return _by_counts(obj, known.video, lines.get(obj.uri, 0), dropped[obj])
        if min_age_minutes and obj.modified and obj.modified > young:
            return Check(obj, "recent", "not in the ledger yet")
        if obj.key in keys:
            return Check(obj, "changed", "the ledger knows only other versions of it")
        return Check(obj, "missing", "not in the ledger")

    found = map(by_counts, objects)
    yield from _by_content(found, to_read, run, dropped) if to_read else found


def _by_counts(obj: S3Object, video: int, lines: int, limit: str) -> Check:
    if lines == video:
        return Check(obj, "right")
    if lines > video:
        have = counted(lines, "line has rows", "lines have rows")
        return Check(obj, "differing", f"{have}, the ledger counts {video}")
    have = counted(lines, "line has rows of its own", "lines have rows of their own")
    why = f"{have}, the ledger counts {video}"
    return Check(obj, "dropped" if months.is_dropped(obj.month, limit) else "unproven", why)


@dataclass
class _Looking:
    """An object whose statements are being looked up, and the lines whose statement was not found,
    in months that were dropped and in others.

    `check` is the result of its counts, or why its content could not be compared. `is_read` says
    that its content is compared, and `is_over` that all of it was.
    """

    check: Check
    limit: str
    is_read: bool = False
    is_over: bool = False
    shown: list[int] = field(default_factory=list)
    missing: int = 0
    dropped: int = 0

    def note(self, row: Row) -> None:
        """Note a line whose statement was not found."""
        if months.is_dropped(f"{instant(row.key.timestamp):%Y-%m}", self.limit):
            self.dropped += 1
            return
        self.missing += 1
        if len(self.shown) < SHOWN_LINES:
            self.shown.append(row.line)

    def result(self) -> Check:
        """What the content says; more than the counts do, unless there are too many rows."""
        found = self.check
        if self.missing and found.kind != "unreadable":
            first = self.shown[0]
            are = counted(self.missing, "statement is", "statements are")
            why = f"{are} not in {EVENTS}, the first in line {first}"
            return Check(found.obj, "differing", why, tuple(self.shown), self.missing)
        if not self.is_read or found.kind not in ("right", "unproven", "dropped"):
            return found
        if self.dropped:
            are = counted(self.dropped, "statement is", "statements are")
            why = f"{are} of months that were dropped"
            return found._replace(kind="dropped", why=why)
        return found._replace(kind="right", why="")


def _by_content(
    checks: Iterator[Check],
    to_read: Sequence[S3Object],
    run: Run,
    dropped: Mapping[S3Object, str],
) -> Iterator[Check]:
    """The checks, in order, with the content of the objects to read.

    The statements of many small objects are looked up together.
    """
    waiting: deque[_Looking] = deque()
    wanted = {obj.uri for obj in to_read}
    looked_up = (_Looking(found, dropped.get(found.obj, "")) for found in checks)
    rows = _rows(looked_up, wanted, expected_rows(to_read, run), waiting)
    for part in parts(rows, lambda item: item[1].key):
        keys = [row.key for _, row in part]
        known = stored(keys, run.connections.clickhouse, run.deadline)
        for looking, row in part:
            if row.key not in known:
                looking.note(row)
        while waiting and waiting[0].is_over:
            yield waiting.popleft().result()
    yield from (looking.result() for looking in waiting)


def _rows(
    all_looked_up: Iterator[_Looking],
    wanted: set[str],
    readings: Iterator[Reading],
    waiting: deque[_Looking],
) -> Iterator[tuple[_Looking, Row]]:
    """The rows of the objects whose URIs are wanted; every object is added to `waiting`."""
    for looking in all_looked_up:
        found = looking.check
        waiting.append(looking)
        if found.obj.uri in wanted:
            reading = next(readings)
            looking.is_read = True
            try:
                if reading.obj.etag == found.obj.etag:
                    yield from ((looking, row) for row in reading.rows)
                else:
                    why = "it was uploaded again while it was compared"
                    looking.check = Check(reading.obj, "changed", why)
            except S3Late:
                raise
            except S3Error as error:
                looking.check = Check(found.obj, "unreadable", str(error))
        looking.is_over = True


class _LedgerRow(NamedTuple):
    """How many video statements a version has, and when it was loaded last."""

    video: int
    processed_at: datetime


def _ledger_rows(
    objects: Sequence[S3Object], clickhouse: ClickHouse, deadline: Deadline
) -> dict[tuple[str, str, str], _LedgerRow]:
    """What the ledger knows of all versions of the objects, by version."""
    if not objects:
        return {}
    rows = clickhouse.query(
        "SELECT bucket, key, etag, argMax(video, processed_at), max(processed_at)"
        f" FROM {clickhouse.database}.{FILES} WHERE (bucket, key) IN %(keys)s"
        " GROUP BY bucket, key, etag",
        {"keys": tuple((obj.bucket, obj.key) for obj in objects)},
        deadline,
    )
    return {row[:3]: _LedgerRow(*row[3:]) for row in rows}


def _stored_lines(
    objects: Sequence[S3Object], clickhouse: ClickHouse, deadline: Deadline
) -> dict[str, int]:
    """How many lines of these versions have a row, by URI; repeats of a row count once."""
    if not objects:
        return {}
    rows = clickhouse.query(
        "SELECT source_file, source_etag, uniqExact(source_line)"
        f" FROM {clickhouse.database}.{EVENTS} PREWHERE source_file IN %(files)s"
        " GROUP BY source_file, source_etag",
        {"files": tuple(obj.uri for obj in objects)},
        deadline,
    )
    etags = {obj.uri: obj.etag for obj in objects}
    return {uri: lines for uri, etag, lines in rows if etag == etags[uri]}


def ledger_keys(
    clickhouse: ClickHouse, bucket: str, prefix: str, between: tuple[str, str], deadline: Deadline
) -> Iterator[str]:
    """The keys that the ledger knows after one key and up to another ('' for the end), in order."""
    after, upto = between
    wanted = {"bucket": bucket, "prefix": prefix, "upto": upto, "limit": LEDGER_ROWS}
    while True:
        rows = clickhouse.query(
            f"SELECT DISTINCT key FROM {clickhouse.database}.{FILES}"
            " WHERE bucket = %(bucket)s AND startsWith(key, %(prefix)s) AND key > %(after)s"
            " AND (%(upto)s = '' OR key <= %(upto)s) ORDER BY key LIMIT %(limit)s",
            {**wanted, "after": after},
            deadline,
        )
        yield from (key for (key,) in rows)
        if len(rows) < LEDGER_ROWS:
            return
        after = rows[-1][0]
