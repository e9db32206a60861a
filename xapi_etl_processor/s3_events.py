"""Any Lambda payload to the S3 objects that it names. Pure: asks no service."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

from .objects import S3Object

_MAX_DEPTH = 4
"""SQS around SNS around S3 is three. Ours."""


_INSIDE = 1
_FLAGS = {"dry_run", "force_reprocess"}


class UnknownPayload(ValueError):
    """The payload, or the message, names no S3 object in any form that is known."""


@dataclass(frozen=True)
class Message:
    """One unit of success or failure: an SQS message, or the whole payload (id '')."""

    id: str
    objects: tuple[S3Object, ...] = ()
    error: str = ""


@dataclass(frozen=True)
class Delivery:
    """What a payload delivers.

    from_sqs: its messages fail one by one; direct: a person, or a script, named the object.
    """

    messages: tuple[Message, ...]
    from_sqs: bool = False
    direct: bool = False

    @property
    def objects(self) -> list[S3Object]:
        """Every object once, in order of first mention."""
        return list(dict.fromkeys(o for message in self.messages for o in message.objects))


def read(payload: Any) -> Delivery:
    """The objects in an S3 notification, bare or inside SQS, SNS or both, in an EventBridge event,
    or in `{"bucket", "key"}`; removals and test events give none.

    What is bad inside an SQS batch, or beside good records, is its message's `error`, so that the
    rest is not lost with it. Raises UnknownPayload where nothing at all is good.
    """
    records = payload.get("Records") if isinstance(payload, Mapping) else None
    if isinstance(records, list) and records and all(map(_is_sqs, records)):
        return Delivery(tuple(_sqs_message(record) for record in records), from_sqs=True)
    message = _message("", payload, 0)
    if message.error and not message.objects:
        raise UnknownPayload(message.error)
    direct = isinstance(payload, Mapping) and "key" in payload
    return Delivery((message,), direct=direct)


def _is_sqs(record: Any) -> bool:
    return isinstance(record, Mapping) and record.get("eventSource") == "aws:sqs"


def _sqs_message(record: Mapping[str, Any]) -> Message:
    name = str(record.get("messageId", ""))
    try:
        return _message(name, _json(record.get("body"), "SQS message body"), _INSIDE)
    except UnknownPayload as error:
        return Message(name, error=str(error))


def _message(name: str, payload: Any, depth: int) -> Message:
    errors: list[str] = []
    try:
        objects = tuple(_objects(payload, depth, errors))
    except UnknownPayload as error:
        return Message(name, error=str(error))
    return Message(name, objects, "; ".join(errors))


def _objects(payload: Any, depth: int, errors: list[str]) -> list[S3Object]:
    """The objects; what is wrong with single records is added to errors."""
    if not isinstance(payload, Mapping) or depth > _MAX_DEPTH:
        raise UnknownPayload("no S3 event: a JSON object is needed")
    if payload.get("Event") == "s3:TestEvent":
        return []
    if "bucket" in payload and "key" in payload:
        if depth >= _INSIDE and payload.keys() & _FLAGS:
            raise UnknownPayload("dry_run and force_reprocess count only in a direct invocation")
        return [_named(payload["bucket"], payload["key"])]
    if payload.get("source") == "aws.s3" and isinstance(payload.get("detail"), Mapping):
        return _event_bridge(payload)
    if payload.get("Type") == "Notification" and "Message" in payload:
        return _objects(_json(payload["Message"], "SNS message"), depth + 1, errors)
    records = payload.get("Records")
    if not isinstance(records, list) or not records:
        raise UnknownPayload("no S3 event: it has no Records, no bucket and key, no S3 detail")
    found: list[S3Object] = []
    for record in records:
        try:
            found += _record(record, depth, errors)
        except UnknownPayload as error:
            errors.append(str(error))
    return found


def _record(record: Any, depth: int, errors: list[str]) -> list[S3Object]:
    if not isinstance(record, Mapping):
        raise UnknownPayload("a record is not a JSON object")
    if isinstance(record.get("Sns"), Mapping):
        message = _json(record["Sns"].get("Message"), "SNS message")
        return _objects(message, depth + 1, errors)
    s3 = record.get("s3")
    if not isinstance(s3, Mapping):
        raise UnknownPayload(f"a record is not of S3 but of {record.get('eventSource')!r}")
    if "ObjectCreated" not in str(record.get("eventName", "ObjectCreated")):
        return []
    bucket, described = s3.get("bucket"), s3.get("object")
    if not isinstance(bucket, Mapping) or not isinstance(described, Mapping):
        raise UnknownPayload("an S3 record lacks its bucket or its object")
    key = described.get("key")
    # Keys in S3's own notifications are encoded as in a form: a plus sign is a space.
    decoded = unquote_plus(key) if isinstance(key, str) else key
    return [_named(bucket.get("name"), decoded, described.get("eTag"), described.get("size"))]


def _event_bridge(event: Mapping[str, Any]) -> list[S3Object]:
    if event.get("detail-type") != "Object Created":
        return []
    bucket, described = event["detail"].get("bucket"), event["detail"].get("object")
    if not isinstance(bucket, Mapping) or not isinstance(described, Mapping):
        raise UnknownPayload("an EventBridge event lacks its bucket or its object")
    return [
        _named(
            bucket.get("name"), described.get("key"), described.get("etag"), described.get("size")
        )
    ]


def _named(bucket: Any, key: Any, etag: Any = None, size: Any = None) -> S3Object:
    if not isinstance(bucket, str) or not bucket or not isinstance(key, str) or not key:
        raise UnknownPayload("bucket and key must be text, and not empty")
    tag = etag.strip('"') if isinstance(etag, str) else ""
    try:
        (bucket + key + tag).encode()
    except UnicodeEncodeError:
        raise UnknownPayload("bucket, key and etag must be text that UTF-8 can write") from None
    return S3Object(
        bucket,
        key,
        tag,
        size if isinstance(size, int) and not isinstance(size, bool) else None,
    )


def _json(text: Any, what: str) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError, RecursionError):
        raise UnknownPayload(f"the {what} is not JSON") from None
