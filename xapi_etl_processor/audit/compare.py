"""Compares objects in S3 with the ledger and the rows: what is missing, and what cannot be told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Literal, NamedTuple

from xapi_etl_processor.audit.contents import UNREADABLE, Reading, lines_not_stored, read
from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.deadlines import Deadline
from xapi_etl_processor.errors import S3Late
from xapi_etl_processor.run import Run
from xapi_etl_processor.sources.objects import S3Object
from xapi_etl_processor.storage.ledger import identity
from xapi_etl_processor.storage.tables import EVENTS, FILES

SHOWN_LINES = 20
"""Lines that a finding names; the rest are counted. Our limit."""

LEDGER_ROWS = 20_000
"""Rows of the ledger that one query reads. Our choice."""

Kind = Literal["right", "missing", "changed", "differing", "unproven", "recent", "unreadable"]
"""What became of an object's comparison.

right: nothing is missing, as far as was asked. missing: the ledger does not know it. changed: the
ledger knows only other versions of it. differing: rows are missing, or there are more than the
ledger counts. unproven: it has fewer rows of its own than the ledger counts, because its statements
also came in another object or twice in this one, or because rows are missing; only its content can
tell. recent: the ledger does not know it, and it may be on its way. unreadable: its content could
not be read.
"""

WRONG: tuple[Kind, ...] = ("missing", "changed", "differing")
"""The kinds that loading the object again puts right."""


class Check(NamedTuple):
    """What was found about an object: why it is not right, and which of its lines have statements
    that are not stored (the first SHOWN_LINES, and how many there are).
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
    looked for. Objects younger than `min_age_minutes` that the ledger does not know are recent, not
    missing. Raises ClickHouseError, and S3Late or DeadlinePassed when the time is up.
    """
    clickhouse = run.connections.clickhouse
    versions = _ledger_counts(objects, clickhouse, run.deadline)
    counted = [obj for obj in objects if identity(obj) in versions]
    lines = _stored_lines(counted, clickhouse, run.deadline)
    readings = read(counted, run) if content and counted else None
    keys = {key for _, key, _ in versions}
    young = datetime.now(UTC) - timedelta(minutes=min_age_minutes)
    for obj in objects:
        if identity(obj) in versions:
            found = _by_counts(obj, versions[identity(obj)], lines.get(obj.uri, 0))
            yield _by_content(obj, found, next(readings), run) if readings else found
        elif min_age_minutes and obj.modified and obj.modified > young:
            yield Check(obj, "recent", "not in the ledger yet")
        elif obj.key in keys:
            yield Check(obj, "changed", "the ledger knows only other versions of it")
        else:
            yield Check(obj, "missing", "not in the ledger")


def _by_counts(obj: S3Object, video: int, lines: int) -> Check:
    if lines > video:
        return Check(obj, "differing", f"{lines} lines have rows, the ledger counts {video}")
    if lines < video:
        why = f"{lines} lines have rows of their own, the ledger counts {video}"
        return Check(obj, "unproven", why)
    return Check(obj, "right")


def _by_content(obj: S3Object, counts: Check, reading: Reading, run: Run) -> Check:
    """What the object's content says; more than its counts do, unless there are too many rows."""
    if reading.obj.etag != obj.etag:
        return Check(reading.obj, "changed", "it was uploaded again while it was compared")
    missing = lines_not_stored(reading.rows, run.connections.clickhouse, run.deadline)
    try:
        shown = tuple(islice(missing, SHOWN_LINES))
        total = len(shown) + sum(1 for _ in missing)
    except S3Late:
        raise
    except UNREADABLE as error:
        return Check(obj, "unreadable", str(error))
    if total:
        why = f"statements of {total} lines are not in {EVENTS}, the first in line {shown[0]}"
        return Check(obj, "differing", why, shown, total)
    return counts if counts.kind == "differing" else Check(obj, "right")


def _ledger_counts(
    objects: Sequence[S3Object], clickhouse: ClickHouse, deadline: Deadline
) -> dict[tuple[str, str, str], int]:
    """The video statements that the ledger counts, by version, of all versions of the objects."""
    if not objects:
        return {}
    rows = clickhouse.query(
        "SELECT bucket, key, etag, argMax(video, processed_at)"
        f" FROM {clickhouse.database}.{FILES} WHERE (bucket, key) IN %(keys)s"
        " GROUP BY bucket, key, etag",
        {"keys": tuple((obj.bucket, obj.key) for obj in objects)},
        deadline,
    )
    return {(bucket, key, etag): video for bucket, key, etag, video in rows}


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
    """The keys that the ledger knows under the prefix, after one key and up to another ('' for the
    end), in order.
    """
    after, upto = between
    while True:
        rows = clickhouse.query(
            f"SELECT DISTINCT key FROM {clickhouse.database}.{FILES}"
            " WHERE bucket = %(bucket)s AND startsWith(key, %(prefix)s) AND key > %(after)s"
            " AND (%(upto)s = '' OR key <= %(upto)s) ORDER BY key LIMIT %(limit)s",
            {
                "bucket": bucket,
                "prefix": prefix,
                "after": after,
                "upto": upto,
                "limit": LEDGER_ROWS,
            },
            deadline,
        )
        yield from (key for (key,) in rows)
        if len(rows) < LEDGER_ROWS:
            return
        after = rows[-1][0]
