"""The rows that objects should have, read by the functions that load them, and which are stored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from typing import NamedTuple, TypeVar

from xapi_etl_processor.base.deadlines import Deadline
from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.run import Run
from xapi_etl_processor.s3 import read
from xapi_etl_processor.s3.bundle import parsed_parts
from xapi_etl_processor.s3.objects import S3Object
from xapi_etl_processor.storage.learners import people
from xapi_etl_processor.storage.tables import EVENTS
from xapi_etl_processor.xapi.columns import ABSENT
from xapi_etl_processor.xapi.lines import MIB
from xapi_etl_processor.xapi.timestamps import instant
from xapi_etl_processor.xapi.transpose import to_columns

LOOKUP_ROWS = 5_000
"""Rows that one query looks up. Our choice."""

LOOKUP_BYTES = 2 * MIB
"""Bytes of keys that one query looks up. Our choice: as text, they can take four times as many."""

_Item = TypeVar("_Item")

KEY_COLUMNS = ("section_id", "section", "video_url", "timestamp", "event_id")
"""The sorting key of video_events: rows that agree in it are one statement."""

SELECTED_KEY = "section_id, section, video_url, toUnixTimestamp64Milli(timestamp), event_id"
"""The columns of a Key, to SELECT."""


class Key(NamedTuple):
    """A row's place in video_events; `timestamp` is in milliseconds since 1970."""

    section_id: int
    section: str
    video_url: str
    timestamp: int
    event_id: str


class Row(NamedTuple):
    """A row that an object should have, and the line that it comes from, from 1."""

    line: int
    key: Key


class Reading(NamedTuple):
    """An object as it is now, and its rows, which raise S3Error, or DeadlinePassed."""

    obj: S3Object
    rows: Iterator[Row]


def expected_rows(objects: Sequence[S3Object], run: Run) -> Iterator[Reading]:
    """Each object with the rows that a load would store now, in order."""
    run.connections.learners.refresh(run.deadline)
    with closing(read.bodies(run.connections.s3, objects, run.read_until)) as bodies:
        for obj, body in bodies:
            yield Reading(obj, _rows(obj, body, run))


def _rows(obj: S3Object, body: Iterator[bytes], run: Run) -> Iterator[Row]:
    """The rows of all but forgotten learners. A load must leave out no others."""
    for parsed in parsed_parts(obj, body, run.read_until):
        numbers, columns = parsed.chunk.numbers, to_columns(parsed.chunk)
        viewers = people(columns, len(numbers))
        forgotten = run.connections.learners.forgotten(set(viewers))
        values = [columns.get(name) or [ABSENT[name]] * len(numbers) for name in KEY_COLUMNS]
        for line, viewer, *key in zip(numbers, viewers, *values, strict=True):
            if viewer not in forgotten:
                yield Row(line, Key(*key))


def parts(items: Iterable[_Item], key: Callable[[_Item], Key]) -> Iterator[list[_Item]]:
    """The items in parts whose keys one query can look up."""
    part: list[_Item] = []
    size = 0
    for item in items:
        part.append(item)
        wanted = key(item)
        size += len(wanted.video_url) + len(wanted.section) + len(wanted.event_id)
        if len(part) >= LOOKUP_ROWS or size >= LOOKUP_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


def stored(keys: Sequence[Key], clickhouse: ClickHouse, deadline: Deadline) -> set[Key]:
    """The keys that are stored, in rows of any object, and maybe some that were not asked for."""
    # Asked is for each column by itself: a list of whole keys takes the server ten times as long.
    times = [key.timestamp for key in keys]
    rows = clickhouse.query(
        f"SELECT DISTINCT {SELECTED_KEY} FROM {clickhouse.database}.{EVENTS}"
        " WHERE section_id IN %(numbers)s AND section IN %(sections)s AND video_url IN %(videos)s"
        " AND timestamp BETWEEN toDateTime64(%(first)s, 3, 'UTC') AND toDateTime64(%(last)s, 3,"
        " 'UTC') AND event_id IN %(ids)s",
        {
            "numbers": tuple({key.section_id for key in keys}),
            "sections": tuple({key.section for key in keys}),
            "videos": tuple({key.video_url for key in keys}),
            "first": _as_text(min(times)),
            "last": _as_text(max(times)),
            "ids": tuple({key.event_id for key in keys}),
        },
        deadline,
    )
    return {Key(*row) for row in rows}


def key_texts(keys: Iterable[Key]) -> tuple[tuple[object, ...], ...]:
    """Keys as a query compares them with KEY_COLUMNS: `(...) IN %(keys)s`."""
    return tuple((*key[:3], _as_text(key.timestamp), key.event_id) for key in keys)


def _as_text(timestamp: int) -> str:
    """A time as ClickHouse compares it with a DateTime64(3, 'UTC')."""
    return instant(timestamp).replace(tzinfo=None).isoformat(" ", "milliseconds")
