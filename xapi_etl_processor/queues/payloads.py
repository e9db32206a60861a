"""Any Lambda payload to the S3 objects that it names. Contacts no service."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple
from urllib.parse import unquote_plus

from xapi_etl_processor.base.errors import UnknownPayload
from xapi_etl_processor.s3.objects import S3Object

_MAX_DEPTH = 4
"""How deeply envelopes may be nested; S3 inside SNS inside SQS is three. Our limit."""

SHOWN_ERRORS = 5
"""Errors of a message's records that are reported; the rest are counted. Our limit."""

MAX_BUCKET_BYTES, MAX_KEY_BYTES = 255, 1024
"""The longest names in S3: buckets have 63 bytes, or 255 if made before 2018 in us-east-1."""

_CREATED = "ObjectCreated"
_OTHER_EVENTS = (
    *("ObjectRemoved", "ObjectRestore", "ObjectTagging", "ObjectAcl", "Replication"),
    *("LifecycleExpiration", "LifecycleTransition", "IntelligentTiering"),
    "ReducedRedundancyLostObject",
)
"""S3's names for events that are no uploads ("Supported event types")."""

_OTHER_DETAILS = (
    *("Object Deleted", "Object ACL Updated", "Object Tags Added", "Object Tags Deleted"),
    *("Object Restore Initiated", "Object Restore Completed", "Object Restore Expired"),
    *("Object Storage Class Changed", "Object Access Tier Changed"),
)
"""The same in EventBridge ("EventBridge event mapping")."""

BACKFILL = "backfill"
"""The field of a backfill's message, beside its Records, that says what is wanted."""

_INSIDE = 1

LOAD_FLAGS = ("dry_run", "force_reprocess", "replace")
"""What a request to load may have beside the names of objects, in the order of `Wanted`."""


class Backfill(NamedTuple):
    """What a message of a backfill wants of its objects: see `Run`."""

    force_reprocess: bool = False
    replace: bool = False


class Receipt(NamedTuple):
    """What is needed to tell SQS about a message: its queue's ARN, the handle of this delivery, how
    often it was delivered, its body, and when first, in milliseconds since 1970 (0 if not known).
    """

    queue_arn: str
    handle: str
    receives: int
    body: str
    first_ms: int = 0


@dataclass(frozen=True)
class Message:
    """What succeeds or fails as one: an SQS message, or the whole payload (id '', no receipt)."""

    id: str
    objects: tuple[S3Object, ...] = ()
    error: str = ""
    receipt: Receipt | None = None
    backfill: Backfill | None = None


@dataclass(frozen=True)
class Delivery:
    """What a payload delivers; `direct` if a person or a script named the object."""

    messages: tuple[Message, ...]
    from_sqs: bool = False
    direct: bool = False

    @property
    def objects(self) -> list[S3Object]:
        """Every object once, in the order of first mention."""
        return list(dict.fromkeys(o for message in self.messages for o in message.objects))


def parse_payload(payload: Any) -> Delivery:
    """The objects in an S3 notification (bare, or inside SQS, SNS or both), in an EventBridge
    event, or in `{"bucket", "key"}`; removals and test events name none.

    A bad record inside an SQS batch, or beside good records, becomes its message's `error`, so
    that the rest is not lost with it. Raises UnknownPayload if no record can be used.
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
    backfill = None
    try:
        body = _json(record.get("body"), "SQS message body")
        if isinstance(body, dict) and BACKFILL in body:
            backfill = _backfill(body.pop(BACKFILL))
        message = _message(name, body, _INSIDE)
    except UnknownPayload as error:
        message = Message(name, error=str(error))
    return replace(message, receipt=_receipt(record), backfill=backfill)


def _backfill(wanted: Any) -> Backfill:
    known = isinstance(wanted, dict) and wanted.keys() <= set(Backfill._fields)
    if not known or not all(isinstance(value, bool) for value in wanted.values()):
        raise UnknownPayload(
            f"a message's {BACKFILL} may hold only {' and '.join(Backfill._fields)}, true or false"
        )
    return Backfill(**wanted)


def _receipt(record: Mapping[str, Any]) -> Receipt | None:
    attributes = record.get("attributes")
    attributes = attributes if isinstance(attributes, Mapping) else {}
    receives = _number(attributes.get("ApproximateReceiveCount"))
    first_ms = _number(attributes.get("ApproximateFirstReceiveTimestamp"))
    texts = [record.get(name) for name in ("eventSourceARN", "receiptHandle", "body")]
    if not receives or not all(isinstance(text, str) and text for text in texts):
        return None
    queue_arn, handle, body = map(str, texts)
    return Receipt(queue_arn, handle, receives, body, first_ms)


def _number(text: Any) -> int:
    """What SQS writes as digits; 0 for anything else."""
    return int(str(text)) if re.fullmatch(r"[0-9]{1,15}", str(text), re.ASCII) else 0


def _message(name: str, payload: Any, depth: int) -> Message:
    errors: list[str] = []
    try:
        objects = tuple(_objects(payload, depth, errors))
    except UnknownPayload as error:
        return Message(name, error=str(error))
    more = f"; and {len(errors) - SHOWN_ERRORS} more" if len(errors) > SHOWN_ERRORS else ""
    return Message(name, objects, "; ".join(errors[:SHOWN_ERRORS]) + more)


def _objects(payload: Any, depth: int, errors: list[str]) -> list[S3Object]:
    """The objects; faults of single records are added to `errors`."""
    if not isinstance(payload, Mapping) or depth > _MAX_DEPTH:
        raise UnknownPayload("not an S3 event: a JSON object is needed")
    _check_flags(payload, depth)
    if payload.get("Event") == "s3:TestEvent" and "Records" not in payload:
        return []
    if "bucket" in payload and "key" in payload:
        return [_object(payload["bucket"], payload["key"])]
    if payload.get("source") == "aws.s3" and isinstance(payload.get("detail"), Mapping):
        return _event_bridge(payload)
    if payload.get("Type") == "Notification" and "Message" in payload:
        return _objects(_json(payload["Message"], "SNS message"), depth + 1, errors)
    records = payload.get("Records")
    if not isinstance(records, list) or not records:
        raise UnknownPayload(
            "not an S3 event: it has no Records, no bucket and key, and no S3 detail"
        )
    found: list[S3Object] = []
    for record in records:
        try:
            found += _record(record, depth, errors)
        except UnknownPayload as error:
            errors.append(str(error))
    return found


def _check_flags(payload: Mapping[str, Any], depth: int) -> None:
    """Raises UnknownPayload for what would otherwise be ignored: a dry run would write."""
    if BACKFILL in payload:
        raise UnknownPayload(f"{BACKFILL} is allowed only in a message from SQS, beside Records")
    flagged = any(flag in payload for flag in LOAD_FLAGS)
    if depth >= _INSIDE and "bucket" in payload and "key" in payload and flagged:
        raise UnknownPayload(f"{', '.join(LOAD_FLAGS)} are allowed only in a direct invocation")


def _record(record: Any, depth: int, errors: list[str]) -> list[S3Object]:
    if not isinstance(record, Mapping):
        raise UnknownPayload("a record is not a JSON object")
    if isinstance(record.get("Sns"), Mapping):
        message = _json(record["Sns"].get("Message"), "SNS message")
        return _objects(message, depth + 1, errors)
    s3 = record.get("s3")
    if not isinstance(s3, Mapping):
        source = str(record.get("eventSource"))
        # A text that is not AWS's own may hold anything, and is not repeated.
        known = re.fullmatch(r"aws:[a-z0-9]{1,30}", source, re.ASCII)
        raise UnknownPayload(
            f"a record is not from S3 but from {source if known else 'something else'}"
        )
    # Without a name it counts as an upload: if the object was deleted, reading it fails visibly.
    event = record.get("eventName") or _CREATED
    if not isinstance(event, str):
        raise UnknownPayload("a record's eventName is not text")
    if _CREATED not in event:
        if not event.removeprefix("s3:").startswith(_OTHER_EVENTS):
            raise UnknownPayload("a record's eventName is not one of S3's")
        return []
    # Keys in S3 notifications are encoded as in a form: a plus sign is a space.
    return [_described(s3, "an S3 record", "eTag", unquote_plus)]


def _event_bridge(event: Mapping[str, Any]) -> list[S3Object]:
    kind = event.get("detail-type") or "Object Created"
    if kind in _OTHER_DETAILS:
        return []
    if kind != "Object Created":
        raise UnknownPayload("an EventBridge event's detail-type is not one of S3's")
    return [_described(event["detail"], "an EventBridge event", "etag", str)]


def _described(
    event: Mapping[str, Any], what: str, etag: str, decode: Callable[[str], str]
) -> S3Object:
    bucket, described = event.get("bucket"), event.get("object")
    if not isinstance(bucket, Mapping) or not isinstance(described, Mapping):
        raise UnknownPayload(f"{what} lacks its bucket or its object")
    key = described.get("key")
    decoded = decode(key) if isinstance(key, str) else key
    return _object(bucket.get("name"), decoded, described.get(etag), described.get("size"))


def _object(bucket: Any, key: Any, etag: Any = None, size: Any = None) -> S3Object:
    if not isinstance(bucket, str) or not bucket or not isinstance(key, str) or not key:
        raise UnknownPayload("bucket and key must be text, and not empty")
    tag = etag.strip('"') if isinstance(etag, str) else ""
    try:
        tag.encode()
        too_long = len(bucket.encode()) > MAX_BUCKET_BYTES or len(key.encode()) > MAX_KEY_BYTES
    except UnicodeEncodeError:
        raise UnknownPayload("bucket, key and etag must be valid Unicode text") from None
    if too_long:
        raise UnknownPayload("bucket or key is longer than S3 allows: 255 and 1,024 bytes")
    return S3Object(bucket, key, tag, size if type(size) is int else None)


def _json(text: Any, what: str) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError, RecursionError):
        raise UnknownPayload(f"the {what} is not JSON") from None
