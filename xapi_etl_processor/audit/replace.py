"""Removes what earlier versions of an object left behind: rows that its current one does not hold.

The order keeps what must not be lost. The current version is stored and in the ledger first. Then
all that may hold a statement is read: the object itself, and every other object that has fewer rows
than the ledger counts, since a row of theirs may have been replaced by the one that is about to be
removed. Only what none of them holds is removed.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from itertools import islice
from typing import NamedTuple

from xapi_etl_processor import notes
from xapi_etl_processor.audit.contents import (
    KEY_COLUMNS,
    SELECTED_KEY,
    Key,
    key_texts,
    parts,
    read,
)
from xapi_etl_processor.common import PAGE_OBJECTS, process
from xapi_etl_processor.errors import ClickHouseDenied, ClickHouseError, DeadlinePassed, S3Error
from xapi_etl_processor.run import Outcome, Run, Status
from xapi_etl_processor.sources.objects import S3Object
from xapi_etl_processor.sources.reading import object_in
from xapi_etl_processor.storage.mutations import remove, remove_notes
from xapi_etl_processor.storage.tables import EVENTS, FILES, NOTES, SOURCE_FILE

EARLIER_ROWS = 200_000
"""Rows of earlier versions that are looked at together; bounds the memory. Our choice."""

_LATEST = (
    "SELECT bucket, key, argMax(etag, processed_at) AS etag, argMax(video, processed_at) AS video"
)


def load(objects: Iterable[S3Object], run: Run) -> Generator[Outcome, None, None]:
    """Process the objects as `common.process` does; with `run.replace`, also remove what earlier
    versions of them left behind.

    An object whose earlier rows cannot all be removed has failed, though it is loaded.
    """
    if not run.replace or run.dry_run:
        yield from process(objects, run)
        return
    source = iter(objects)
    while page := list(islice(source, PAGE_OBJECTS)):
        # Each page is stored whole before anything is removed: the ledger does not know an object
        # that is being loaded, whose rows may have been dropped in favor of those to be removed.
        with closing(process(page, run)) as loading:
            outcomes = list(loading)
        _replace(outcomes, run)
        yield from outcomes
        if any(outcome.stop for outcome in outcomes):
            return


def _replace(page: Sequence[Outcome], run: Run) -> None:
    """Remove what is left behind of the objects that are stored; notes it in their outcomes."""
    stored = [o for o in page if o.status in (Status.PROCESSED, Status.SKIPPED) and o.obj.etag]
    if not stored:
        return
    clickhouse, deadline = run.connections.clickhouse, run.deadline
    try:
        # A load of an earlier version that is still going on looks for this note after its insert.
        notes.note_replaced(clickhouse, [o.obj for o in stored], deadline)
        noted = notes.overtaken(clickhouse, deadline)
        earlier = _with_earlier_rows([o.obj for o in stored], run)
        others = _may_hold_more(run) if earlier else []
    except ClickHouseError as error:
        for outcome in stored:
            outcome.mark_failed(_not_removed(outcome.obj, error), poison=False)
        return
    for outcome in stored:
        command = notes.replace_command(outcome.obj)
        try:
            if outcome.obj.uri in earlier:
                outcome.rows_removed = _remove_earlier(outcome.obj, others, run)
            remove_notes(clickhouse, command, noted.get(command), deadline)
        except ClickHouseDenied as error:
            database, user = run.settings.clickhouse_database, run.settings.clickhouse_username
            needed = [f"ALTER DELETE ON {database}.{table}" for table in (EVENTS, FILES, NOTES)]
            needed.append("SELECT ON system.mutations")
            grants = "; ".join(f"GRANT {privilege} TO {user}" for privilege in needed)
            text = f"{_not_removed(outcome.obj, error)}. It needs these privileges: {grants}"
            outcome.mark_failed(text, poison=False)
        except (ClickHouseError, DeadlinePassed, S3Error) as error:
            outcome.mark_failed(_not_removed(outcome.obj, error), poison=False)


def _not_removed(obj: S3Object, error: Exception) -> str:
    why = str(error) or "time ran out"
    return f"{obj.uri} is loaded, but not all that its earlier versions left was removed: {why}"


def _with_earlier_rows(objects: Sequence[S3Object], run: Run) -> set[str]:
    """The URIs of the objects of which other versions have rows."""
    etags = {obj.uri: obj.etag for obj in objects}
    rows = run.connections.clickhouse.query(
        f"SELECT DISTINCT source_file, source_etag FROM {run.settings.clickhouse_database}.{EVENTS}"
        " PREWHERE source_file IN %(files)s",
        {"files": tuple(etags)},
        run.deadline,
    )
    return {uri for uri, etag in rows if etag != etags[uri]}


def _may_hold_more(run: Run) -> list[S3Object]:
    """The objects that have fewer rows than the ledger counts, as the ledger knows them last."""
    database = run.settings.clickhouse_database
    rows = run.connections.clickhouse.query(
        f"SELECT bucket, key FROM ({_LATEST} FROM {database}.{FILES} GROUP BY bucket, key) AS known"
        " LEFT JOIN (SELECT source_file, source_etag, uniqExact(source_line) AS lines"
        f" FROM {database}.{EVENTS} GROUP BY source_file, source_etag) AS stored"
        f" ON {SOURCE_FILE} = source_file AND etag = source_etag"
        " WHERE video > ifNull(lines, 0) ORDER BY bucket, key",
        deadline=run.deadline,
    )
    return [object_in(bucket, key) for bucket, key in rows]


def _remove_earlier(obj: S3Object, others: Sequence[S3Object], run: Run) -> int:
    """Remove the object's rows of other versions that nothing holds; returns how many there were,
    repeats included.
    """
    removed = 0
    after = _Place("", 0)
    while earlier := _earlier_rows(obj, after, run):
        after = earlier[-1].place
        left = {row.key for row in earlier}
        for holder in (obj, *(other for other in others if other.uri != obj.uri)):
            if left:
                _keep_what_it_holds(holder, left, run)
        removed += _remove(obj, [row for row in earlier if row.key in left], run)
    return removed


class _Place(NamedTuple):
    """Where an earlier row comes from."""

    etag: str
    line: int


class _Earlier(NamedTuple):
    """A row of an earlier version."""

    place: _Place
    key: Key


def _earlier_rows(obj: S3Object, after: _Place, run: Run) -> list[_Earlier]:
    """Up to EARLIER_ROWS rows of other versions of the object, after a place, in order."""
    rows = run.connections.clickhouse.query(
        f"SELECT source_etag, source_line, {SELECTED_KEY}"
        f" FROM {run.settings.clickhouse_database}.{EVENTS} PREWHERE source_file = %(file)s"
        " WHERE source_etag != %(etag)s AND (source_etag, source_line) > %(after)s"
        " ORDER BY source_etag, source_line LIMIT %(limit)s",
        {"file": obj.uri, "etag": obj.etag, "after": tuple(after), "limit": EARLIER_ROWS},
        run.deadline,
    )
    return [_Earlier(_Place(*row[:2]), Key(*row[2:])) for row in rows]


def _keep_what_it_holds(holder: S3Object, left: set[Key], run: Run) -> None:
    """Take out of `left` the statements that the object holds.

    Raises S3Error if it is another version than the one that was loaded: the earlier rows may be
    those of its current version.
    """
    for reading in read([holder], run):
        if holder.etag and reading.obj.etag != holder.etag:
            raise S3Error(f"{holder.uri} was uploaded again meanwhile: try again")
        left.difference_update(row.key for row in reading.rows)


def _remove(obj: S3Object, rows: Sequence[_Earlier], run: Run) -> int:
    """Remove these rows, and forget that the versions they came from were processed: if one of them
    is uploaded again, it must be loaded again.
    """
    if not rows:
        return 0
    clickhouse, deadline = run.connections.clickhouse, run.deadline
    version = {"bucket": obj.bucket, "key": obj.key, "etag": obj.etag}
    others = "bucket = %(bucket)s AND key = %(key)s AND etag != %(etag)s"
    remove(clickhouse, FILES, others, version, deadline)
    removed = 0
    for part in parts(rows, lambda row: row.key):
        condition = (
            "source_file = %(file)s AND source_etag != %(etag)s"
            f" AND ({', '.join(KEY_COLUMNS)}) IN %(keys)s"
        )
        keys = key_texts(row.key for row in part)
        params = {"file": obj.uri, "etag": obj.etag, "keys": keys}
        removed += remove(clickhouse, EVENTS, condition, params, deadline)
    return removed
