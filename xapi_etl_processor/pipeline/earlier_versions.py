"""Removes what earlier versions of an object left behind: rows that its current one does not hold.

The current version is stored already. The rows of earlier ones are read, and after them (a merge in
between must be seen) all that may hold their statements: the object itself, and every other that
has fewer rows than the ledger counts, since one of those rows may have replaced a row of theirs.
Only what none of them holds is removed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from xapi_etl_processor.base.deadlines import Deadline
from xapi_etl_processor.base.errors import (
    ClickHouseDenied,
    ClickHouseError,
    DeadlinePassed,
    S3Error,
)
from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.outcome import Outcome, Status
from xapi_etl_processor.pipeline.contents import (
    KEY_COLUMNS,
    SELECTED_KEY,
    Key,
    expected_rows,
    key_texts,
    parts,
)
from xapi_etl_processor.run import Run
from xapi_etl_processor.s3.objects import S3Object, object_in
from xapi_etl_processor.storage import notes
from xapi_etl_processor.storage.checks import check_whole_results
from xapi_etl_processor.storage.mutations import remove, remove_notes
from xapi_etl_processor.storage.tables import EVENTS, FILES, NOTES, SOURCE_FILE

EARLIER_ROWS = 200_000
"""Rows of earlier versions that are looked at together; bounds the memory. Our choice."""

SETTLED_MS = 600_000
"""How much older than a question rows are that its answer has taken into account: more than
replicas lag and their clocks differ. Our choice."""


class EarlierVersions:
    """Removes what earlier versions left. One for a run: it keeps which objects lack rows, which
    took reading the table, until that may not know the rows in question or objects were loaded.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._asked = 0
        self._lacking: list[S3Object] = []

    def remove(self, page: Sequence[Outcome]) -> None:
        """Remove what is left of the objects that are stored, and count it in their outcomes; those
        of which not all could be removed are marked as failed.
        """
        stored = [o for o in page if o.status in (Status.PROCESSED, Status.SKIPPED) and o.obj.etag]
        if not stored:
            return
        objects = [outcome.obj for outcome in stored]
        clickhouse, deadline = self._run.connections.clickhouse, self._run.deadline
        try:
            check_whole_results(clickhouse)
            # A load of an earlier version that still goes on looks for this note after its insert.
            notes.note_replaced(clickhouse, objects, deadline)
            noted = notes.overtaken(clickhouse, deadline)
            earlier = _with_earlier_rows(objects, self._run)
        except ClickHouseError as error:
            _mark_failed(stored, str(error))
            return
        changed = [outcome for outcome in stored if outcome.obj.uri in earlier]
        removed = Counter[str]()
        try:
            self._remove_earlier([o.obj for o in changed], removed)
            # What the loads stored that noted these commands is removed.
            for command in map(notes.replace_command, objects):
                remove_notes(clickhouse, command, noted.get(command), deadline)
        except ClickHouseDenied as error:
            _mark_failed(changed or stored, f"{error}. {self._grants_needed()}")
        except (ClickHouseError, DeadlinePassed, S3Error) as error:
            _mark_failed(changed or stored, str(error) or "time ran out")
        for outcome in changed:
            outcome.rows_removed = removed[outcome.obj.uri]

    def _remove_earlier(self, objects: Sequence[S3Object], removed: Counter[str]) -> None:
        """Remove rows of the objects' other versions whose statements no object holds; counts them
        by URI, repeats included. For each EARLIER_ROWS, it reads every object that may hold one; if
        one cannot be read, it removes nothing more.
        """
        after: dict[S3Object, _Place] = dict.fromkeys(objects, ("", 0))
        while after:
            room = EARLIER_ROWS
            found: dict[S3Object, list[_Earlier]] = {}
            for obj, place in list(after.items()):
                if room:
                    found[obj] = _earlier_rows(obj, place, room, self._run)
                    if len(found[obj]) < room:
                        del after[obj]
                    else:
                        after[obj] = found[obj][-1].place
                    room -= len(found[obj])
            left = {row.key for rows in found.values() for row in rows}
            if left:
                newest = max(row.inserted for rows in found.values() for row in rows)
                others = self._lacking_after(newest)
                holders = list({obj.uri: obj for obj in (*others, *objects)}.values())
                _keep_what_they_hold(holders, left, self._run)
            for obj, rows in found.items():
                unheld = [row for row in rows if row.key in left]
                removed[obj.uri] += _remove(obj, unheld, self._run)

    def _lacking_after(self, inserted: int) -> list[S3Object]:
        """The objects that have fewer rows than the ledger counts, or will when parts are merged,
        after rows were stored; `inserted` is when, in milliseconds since 1970.
        """
        clickhouse, deadline = self._run.connections.clickhouse, self._run.deadline
        # `now` is by the clock that stamps the rows.
        ((loaded, now),) = clickhouse.query(
            "SELECT max(toUnixTimestamp64Milli(processed_at)), toUnixTimestamp64Milli(now64(3))"
            f" FROM {clickhouse.database}.{FILES}",
            deadline=deadline,
        )
        if max(inserted, loaded) > self._asked - SETTLED_MS:
            self._lacking = _lacking_rows(clickhouse, deadline)
            self._asked = now
        return self._lacking

    def _grants_needed(self) -> str:
        settings = self._run.settings
        tables = (f"{settings.clickhouse_database}.{table}" for table in (EVENTS, FILES, NOTES))
        needed = [*(f"ALTER DELETE ON {table}" for table in tables), "SELECT ON system.mutations"]
        grants = (f"GRANT {one} TO {settings.clickhouse_username}" for one in needed)
        return f"It needs these privileges: {'; '.join(grants)}"


def _mark_failed(outcomes: Sequence[Outcome], why: str) -> None:
    for outcome in outcomes:
        text = "is loaded, but not all that its earlier versions left was removed"
        outcome.mark_failed(f"{outcome.obj.uri} {text}: {why}", poison=False)


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


def _lacking_rows(clickhouse: ClickHouse, deadline: Deadline) -> list[S3Object]:
    database = clickhouse.database
    # FINAL: a row that is still stored may be gone, in favor of an earlier one, at the next merge.
    # Lines, not rows: an earlier release may have given a line another time, and so a row more.
    rows = clickhouse.query(
        "SELECT bucket, key FROM (SELECT bucket, key, argMax(etag, processed_at) AS etag,"
        f" argMax(video, processed_at) AS video FROM {database}.{FILES} GROUP BY bucket, key)"
        " AS known"
        " LEFT JOIN (SELECT source_file, source_etag, uniqExact(source_line) AS lines"
        f" FROM {database}.{EVENTS} FINAL GROUP BY source_file, source_etag) AS stored"
        f" ON {SOURCE_FILE} = source_file AND etag = source_etag"
        " WHERE video > ifNull(lines, 0) ORDER BY bucket, key",
        deadline=deadline,
    )
    return [object_in(bucket, key) for bucket, key in rows]


_Place = tuple[str, int]
"""An etag and a line."""


class _Earlier(NamedTuple):
    """A row of an earlier version, and when it was inserted, in milliseconds since 1970."""

    place: _Place
    inserted: int
    key: Key


def _earlier_rows(obj: S3Object, after: _Place, limit: int, run: Run) -> list[_Earlier]:
    """Up to `limit` rows of other versions of the object, after a place, in order."""
    rows = run.connections.clickhouse.query(
        f"SELECT source_etag, source_line, toUnixTimestamp64Milli(inserted_at), {SELECTED_KEY}"
        f" FROM {run.settings.clickhouse_database}.{EVENTS} PREWHERE source_file = %(file)s"
        " WHERE source_etag != %(etag)s AND (source_etag, source_line) > %(after)s"
        " ORDER BY source_etag, source_line LIMIT %(limit)s",
        {"file": obj.uri, "etag": obj.etag, "after": after, "limit": limit},
        run.deadline,
    )
    return [_Earlier(row[:2], row[2], Key(*row[3:])) for row in rows]


def _keep_what_they_hold(holders: Sequence[S3Object], left: set[Key], run: Run) -> None:
    """Take out of `left` the statements that the objects hold; raises S3Error if one is another
    version than was loaded, whose rows the earlier ones may be.
    """
    etags = {obj.uri: obj.etag for obj in holders}
    for obj, rows in expected_rows(holders, run):
        if etags[obj.uri] not in ("", obj.etag):
            raise S3Error(f"{obj.uri} was uploaded again meanwhile: try again")
        left.difference_update(row.key for row in rows)


def _remove(obj: S3Object, rows: Sequence[_Earlier], run: Run) -> int:
    """Remove these rows, and forget that the versions they came from were processed."""
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
