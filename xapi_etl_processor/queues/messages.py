"""Objects as the messages of a backfill, each with work for one invocation. Contacts no service."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple
from urllib.parse import quote_plus

from xapi_etl_processor.queues.payloads import BACKFILL, Backfill
from xapi_etl_processor.s3.objects import S3Object

MESSAGE_BYTES = 240_000
"""Bytes of a message. Our limit: with the reason of a dead letter it has less than 256 KiB, which
was SQS's limit until August 2025 and is that of queues made before."""

MESSAGE_OBJECTS = 500
"""Objects of a message: as many as one query looks up in the ledger. Our limit."""

MESSAGE_SECONDS = 10
"""Expected seconds of a message, unless a single object has more. Our choice: a sixth of the
stack's shortest Timeout, so that there is time even if it takes three times as long."""

OBJECT_SECONDS, STATEMENT_SECONDS = 0.001, 0.000_025
"""Seconds of one processor for an object, and for each of its statements. Rounded up from
docs/performance.md."""

STATEMENT_BYTES = 1200
"""Bytes of a statement, as in the bundles of docs/performance.md."""

GZIP_RATIO = 15
"""How many bytes of such statements a byte of a `.gz` bundle holds."""

PROCESSORS = 1024 / 1769
"""Processors of a function with 1,024 MB, the stack's default: Lambda gives one for 1,769 MB."""

_json = json.JSONEncoder(separators=(",", ":")).encode


class Outgoing(NamedTuple):
    """A message: its objects, its body, and the seconds that one invocation needs for it."""

    objects: tuple[S3Object, ...]
    body: str
    seconds: float


def messages(objects: Iterable[S3Object], backfill: Backfill) -> Iterator[Outgoing]:
    """Each object in one message, in order, within the limits above, and with others of its month:
    an insert makes a part of the table for each.
    """
    part: list[S3Object] = []
    records: list[str] = []
    length, seconds = 0, 0.0
    month = ""
    for obj in objects:
        record, longer = _record(obj), expected_seconds(obj)
        if part and (
            len(part) == MESSAGE_OBJECTS
            or length + len(record) + 1 > MESSAGE_BYTES
            or seconds + longer > MESSAGE_SECONDS
            or obj.month != month
        ):
            yield Outgoing(tuple(part), _body(records, backfill), seconds)
            part, records, seconds = [], [], 0.0
        if not part:
            length, month = len(_body((), backfill)), obj.month
        part.append(obj)
        records.append(record)
        length += len(record) + 1
        seconds += longer
    if part:
        yield Outgoing(tuple(part), _body(records, backfill), seconds)


def body(objects: Iterable[S3Object], backfill: Backfill) -> str:
    """An S3 notification about the objects, in ASCII, with what is wanted beside its records."""
    return _body(map(_record, objects), backfill)


def _body(records: Iterable[str], backfill: Backfill) -> str:
    wanted = {name: True for name, value in backfill._asdict().items() if value}
    return f'{{"{BACKFILL}":{_json(wanted)},"Records":[{",".join(records)}]}}'


def expected_seconds(obj: S3Object) -> float:
    """How long the function needs for an object, with the stack's default memory."""
    size = obj.size or 0
    unpacked = size * GZIP_RATIO if obj.key.lower().endswith(".gz") else size
    statements = unpacked / STATEMENT_BYTES
    return (OBJECT_SECONDS + statements * STATEMENT_SECONDS) / PROCESSORS


def _record(obj: S3Object) -> str:
    described: dict[str, Any] = {"key": quote_plus(obj.key, safe="/")}
    if obj.size is not None:
        described["size"] = obj.size
    if obj.etag:
        described["eTag"] = obj.etag
    return _json(
        {
            "eventVersion": "2.1",
            "eventSource": "aws:s3",
            "eventName": "ObjectCreated:Put",
            "s3": {"bucket": {"name": obj.bucket}, "object": described},
        }
    )
