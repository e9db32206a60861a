"""How fresh and how complete the tables are, as far as S3, ClickHouse and SQS can be asked."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from clickhouse_driver.errors import NetworkError, SocketTimeoutError

from xapi_etl_processor.audit.rejected import Chosen, by_reason
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.deadlines import FOREVER
from xapi_etl_processor.base.errors import ClickHouseDenied, ClickHouseRefused, XapiEtlError
from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.queues import sqs
from xapi_etl_processor.run import Connections
from xapi_etl_processor.s3 import listing
from xapi_etl_processor.s3.access import NO_BUCKET
from xapi_etl_processor.s3.listing import Scope
from xapi_etl_processor.s3.objects import S3Object, section_id, section_of
from xapi_etl_processor.storage.checks import cut_results
from xapi_etl_processor.storage.ledger import already_processed, identity
from xapi_etl_processor.storage.tables import EVENTS, FILES

SHOWN_DAYS = 14
"""Days with loads that are shown. Our choice."""

SAMPLE_ROWS = 1_000_000
"""Of more rows, only a sample of the ids is compared. Our limit: half a gigabyte of memory."""

NEWEST_OBJECTS = 1_000
"""The newest objects of S3 that are looked up in the ledger. Our choice."""


@dataclass
class Status:
    """What could be asked, by name; why a thing could not, or which variable is not set for it."""

    facts: dict[str, Any] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    not_set: dict[str, str] = field(default_factory=dict)
    away: str = ""

    def ask(self, name: str, question: Callable[[], Any]) -> Exception | None:
        """Note the answer to a question, or why there is none; returns that error."""
        try:
            self.facts[name] = question()
        except (XapiEtlError, ClientError, BotoCoreError) as error:
            self.failed[name] = str(error)
            return error
        return None

    def ask_clickhouse(self, name: str, question: Callable[[], Any]) -> None:
        """The same, but a server that is away is not asked again: each time takes seconds."""
        if self.away:
            self.failed[name] = self.away
        elif (error := self.ask(name, question)) and _is_away(error):
            self.away = str(error)


def status(settings: Settings, connections: Connections, section: str = "") -> Status:
    """Ask everything, of one section or of all (queues and months always of all), as far as it can
    be asked. Raises ClickHouseRefused as `check_whole_results` does.
    """
    clickhouse = connections.clickhouse
    named = str(section_id(section)) if section else ""
    found = Status()
    try:
        problem = cut_results(clickhouse.query)
    except XapiEtlError as error:
        # Each part says why it could not be asked.
        problem = None
        found.away = str(error) if _is_away(error) else ""
    if problem:
        raise ClickHouseRefused(problem)
    if settings.bucket:
        found.ask_clickhouse("freshness", lambda: _freshness(settings, connections, named))
    else:
        found.failed["freshness"] = NO_BUCKET
    found.ask_clickhouse("days", lambda: _days(clickhouse, named))
    found.ask_clickhouse("rejected", lambda: _rejected(clickhouse, named))
    found.ask_clickhouse("timestamps", lambda: _timestamps(clickhouse, named))
    found.ask_clickhouse("repeats", lambda: _repeats(clickhouse, named))
    found.ask_clickhouse("restamped", lambda: _restamped(clickhouse, named))
    found.ask_clickhouse("months", lambda: _months(clickhouse))
    for name, variable, url in (
        ("queue", "SQS_QUEUE_URL", settings.queue_url),
        ("backfill", "BACKFILL_QUEUE_URL", settings.backfill_queue_url),
        ("dead_letters", "SQS_DEAD_LETTER_QUEUE_URL", settings.dead_letter_queue_url),
    ):
        if url:
            found.ask(name, lambda url=url: sqs.depth(url))  # type: ignore[misc]
        else:
            found.not_set[name] = variable
    return found


def _is_away(error: Exception) -> bool:
    """Whether there was no connection to ClickHouse at all."""
    return isinstance(error.__cause__, NetworkError | SocketTimeoutError)


def _freshness(settings: Settings, connections: Connections, section: str) -> dict[str, Any]:
    """The newest object of S3, the newest of those that are loaded, and how far apart they are."""
    objects, newest = _newest(settings, connections, section)
    known = already_processed(connections.clickhouse, newest, FOREVER) if newest else set()
    loaded = next((obj for obj in newest if identity(obj) in known), None)
    found: dict[str, Any] = {
        "objects": objects,
        "newest": _moment(newest[0]) if newest else None,
        "newest_loaded": _moment(loaded) if loaded else None,
        "lag_seconds": None,
        "not_loaded": len(newest) - len(known),
        "looked_up": len(newest),
    }
    if loaded and loaded.modified and newest[0].modified:
        found["lag_seconds"] = round((newest[0].modified - loaded.modified).total_seconds())
    return found


def _newest(
    settings: Settings, connections: Connections, section: str
) -> tuple[int, list[S3Object]]:
    """How many bundles there are, and the NEWEST_OBJECTS of them, the newest first."""
    count = 0

    def bundles() -> Iterator[tuple[datetime, int, S3Object]]:
        nonlocal count
        for obj in listing.listing(connections.s3, Scope(settings.bucket, settings.prefix)):
            if obj.is_bundle and (not section or str(obj.section_id) == section) and obj.modified:
                count += 1
                yield obj.modified, count, obj

    newest = heapq.nlargest(NEWEST_OBJECTS, bundles())
    return count, [obj for _, _, obj in newest]


def _moment(obj: S3Object) -> dict[str, str]:
    return {"key": obj.key, "modified": obj.modified.isoformat() if obj.modified else ""}


_OF_SECTION = "(%(section)s = '' OR section = %(section)s)"


def _days(clickhouse: ClickHouse, section: str) -> list[dict[str, Any]]:
    """What was loaded on each of the last SHOWN_DAYS days on which anything was, newest first."""
    rows = clickhouse.query(
        "SELECT toString(toDate(processed_at)) AS day, count(), sum(video), sum(other),"
        f" sum(rejected) FROM {clickhouse.database}.{FILES} FINAL"
        f" WHERE %(section)s = '' OR {section_of('key')} = %(section)s"
        " GROUP BY day ORDER BY day DESC LIMIT %(days)s",
        {"section": section, "days": SHOWN_DAYS},
    )
    names = ("day", "objects", "video", "other", "rejected")
    return [dict(zip(names, row, strict=True)) for row in rows]


def _rejected(clickhouse: ClickHouse, section: str) -> list[dict[str, Any]]:
    return [
        {"reason": reason, "lines": lines, "example": f"{uri} line {number}"}
        for reason, lines, uri, number in by_reason(clickhouse, Chosen(section=section))
    ]


def _timestamps(clickhouse: ClickHouse, section: str) -> dict[str, int]:
    """Statements without a timestamp of their own, by what they have instead."""
    rows = clickhouse.query(
        f"SELECT timestamp_source, count() FROM {clickhouse.database}.{EVENTS} FINAL"
        f" WHERE timestamp_source NOT IN ('statement', '') AND {_OF_SECTION}"
        " GROUP BY timestamp_source ORDER BY timestamp_source",
        {"section": section},
    )
    return dict(rows)


def _repeats(clickhouse: ClickHouse, section: str) -> dict[str, int]:
    """Rows as they are stored, statements as they are read, and the difference."""
    where = f"{clickhouse.database}.{EVENTS}"
    [(rows, statements)] = clickhouse.query(
        f"SELECT (SELECT count() FROM {where} WHERE {_OF_SECTION}),"
        f" (SELECT count() FROM {where} FINAL WHERE {_OF_SECTION})",
        {"section": section},
    )
    return {"rows": rows, "statements": statements, "collapsed": rows - statements}


def _restamped(clickhouse: ClickHouse, section: str) -> dict[str, Any]:
    """Ids that a video has with several timestamps, and one of them. Of more than SAMPLE_ROWS rows,
    one in `of_each` ids is asked.
    """
    table = f"{clickhouse.database}.{EVENTS}"
    [(rows,)] = clickhouse.query(
        f"SELECT count() FROM {table} WHERE {_OF_SECTION}", {"section": section}
    )
    of_each = rows // SAMPLE_ROWS + 1
    [(ids, example)] = clickhouse.query(
        "SELECT count(), min(id) FROM ("
        f"SELECT min(event_id) AS id FROM {table}"
        f" WHERE {_OF_SECTION} AND cityHash64(event_id) %% %(of_each)s = 0"
        " GROUP BY section_id, section, cityHash64(video_url), cityHash64(event_id)"
        " HAVING min(timestamp) < max(timestamp))",
        {"section": section, "of_each": of_each},
    )
    return {"ids": ids, "example": example, "of_each": of_each} if ids else {}


def _months(clickhouse: ClickHouse) -> list[dict[str, Any]]:
    """Parts, rows and bytes of each month of video_events, on the server that answers."""
    try:
        rows = clickhouse.query(
            "SELECT partition, count(), sum(rows), sum(bytes_on_disk) FROM system.parts"
            " WHERE active AND database = %(database)s AND table = %(table)s"
            " GROUP BY partition ORDER BY partition",
            {"database": clickhouse.database, "table": EVENTS},
        )
    except ClickHouseDenied as error:
        user = clickhouse.settings.clickhouse_username
        raise ClickHouseDenied(f"{error}. GRANT SELECT ON system.parts TO {user}") from None
    names = ("month", "parts", "rows", "bytes")
    return [dict(zip(names, row, strict=True)) for row in rows]
