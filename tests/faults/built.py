"""Nearly valid input made from arbitrary bytes: gzip streams, and payloads for Lambda."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tests.support.samples import notification, sqs
from xapi_etl_processor.bulk.request import PARAMETERS

_EVENTS = Path(__file__).parent.parent / "events"
_Choice = TypeVar("_Choice")


class Dice:
    """Choices made by bytes, in their order; after the last one, every choice is 0."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def below(self, limit: int) -> int:
        """A number from 0 to limit - 1."""
        size = (limit.bit_length() + 7) // 8
        return int.from_bytes(self.taken(size), "big") % limit

    def pick(self, choices: Sequence[_Choice]) -> _Choice:
        """One of the choices."""
        return choices[self.below(len(choices))]

    def taken(self, size: int) -> bytes:
        """The next bytes; fewer at the end."""
        found = self._data[self._at : self._at + size]
        self._at += size
        return found


# --- gzip ---


def gzip_of(dice: Dice) -> tuple[bytes, bytes | None]:
    """A stream of one to three members, and its content, or None if the stream was changed."""
    contents = [dice.taken(dice.below(40)) * dice.pick((1, 1, 50, 9000)) for _ in range(3)]
    contents = contents[: 1 + dice.below(3)]
    stream = b"".join(_member(content, dice) for content in contents)
    changes = dice.below(4)
    for _ in range(changes):
        stream = _changed_bytes(stream, dice)
    return stream, None if changes else b"".join(contents)


def _member(content: bytes, dice: Dice) -> bytes:
    packed = gzip.compress(content, dice.below(10), mtime=0)
    named = dice.pick((b"", b"", b"name\0"))
    if not named:
        return packed
    # FNAME is flag 8; the name follows the header's ten bytes.
    return packed[:3] + b"\x08" + packed[4:10] + named + packed[10:]


def _changed_bytes(stream: bytes, dice: Dice) -> bytes:
    at = dice.below(len(stream) + 1)
    # Changes to the header, at the start, and to the checksum, at the end, find the most.
    at = dice.pick((at, at % 20, max(0, len(stream) - at % 20)))
    some = dice.taken(1 + dice.below(6))
    return dice.pick(
        (
            stream + b"\0" * dice.below(600),
            stream + b"\0\0" + stream,
            stream + some,
            stream + gzip.compress(b""),
            stream[:at],
            stream[:at] + some + stream[at:],
            stream[:at] + some + stream[at + len(some) :],
            stream + zlib.compress(some),
        )
    )


# --- payloads ---


_KNOWN = {
    "bulk": {
        "mode": "bulk",
        "bucket": "b",
        "s3_prefix": "section",
        "section_id": 7,
        "start_date": "2024-01-01",
        "end_date": "2024-01-31",
        "dry_run": True,
        "force_reprocess": False,
    },
    "health_check": {"health_check": True},
    "token": {"continuation_token": "eyJzZWN0aW9uX2lkIjogNywgImFmdGVyIjogInNlY3Rpb24vNy9rIn0="},
    "direct": {"bucket": "b", "key": "section/7/video/2024-01-01T12-00-00Z_1.jsonl"},
    "sqs": sqs(a=notification("b", "k.jsonl"), b={"bucket": "b", "key": "k"}, c="[" * 9000),
}
SHAPES: dict[str, str] = {
    **{path.stem: path.read_text(encoding="utf-8") for path in sorted(_EVENTS.glob("*.json"))},
    **{name: json.dumps(value) for name, value in _KNOWN.items()},
}
"""A payload of every kind, as JSON."""

_SHAPES = list(SHAPES.values())
_NAMES = (
    *PARAMETERS,
    *("mode", "bucket", "key", "object", "name", "eTag", "etag", "size", "s3", "Sns", "Message"),
    *("Records", "Type", "Event", "messageId", "body", "eventSource", "eventName"),
    *("source", "detail", "detail-type"),
)
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 7, 2**63, 2**64, 2**70, 10**400, 0.5, 1e308),
    *(float("nan"), float("inf"), "", " ", "7", "٣", "-0", "0" * 30, "\x00", "\ud800", "é+%2B%ff"),
    *("%ED%A0%80", "\ud83d\ude00", "null", "[]", "{}", '{"Records":[]}', '"\\ud800"', "NaN"),
    *("[" * 3000, "{" * 9, "a" * 2000, "1" * 5000, "\ufeff{}", "aws:sqs", "aws.s3", "Notification"),
    *("s3:TestEvent", "ObjectCreated:Put", "Object Created", "bulk", "2024-02-30", "9999-12-31"),
    *(
        "section/7/",
        "/section",
        "section/99999999999999999999/",
        "eyJhZnRlciI6IDF9",
        "W10=",
        "bnVsbA",
    ),
    *("9999-99-99T00-00-00Z.jsonl", "2299-12-31T23-59-59,999999999Z_", "0000-00-00T00:00:00Z"),
    *([], {}, [None], [[]], {"Records": []}, {"": ""}, {"bucket": "b", "key": "k"}),
)
"""Values that often cause trouble."""


def payload_of(data: bytes) -> Any:
    """The bytes as JSON if they are JSON, else a known payload that the bytes change."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        pass
    dice = Dice(data)
    payload = json.loads(dice.pick(_SHAPES))
    for _ in range(dice.below(6)):
        payload = _changed(payload, dice)
    # As Lambda passes it.
    return json.loads(json.dumps(payload))


def _changed(payload: Any, dice: Dice) -> Any:
    found = list(places(payload))
    way = dice.below(8)
    if way == 0 or not found:
        return _wrapped(payload, dice)
    node, key = found[dice.below(len(found))]
    value = node[key]
    if way == 1:
        del node[key]
    elif way == 2 and isinstance(node, dict):
        node[dice.pick(_NAMES)] = node.pop(key)
    elif way == 3 and isinstance(node, list):
        node.append(value)
    elif way in (4, 5) and isinstance(value, str) and value.startswith("{"):
        node[key] = _changed_text(value, dice)
    else:
        node[key] = _odd(dice)
    return payload


def _changed_text(text: str, dice: Dice) -> str:
    try:
        return json.dumps(_changed(json.loads(text), dice))
    except (ValueError, RecursionError):
        return text[: dice.below(len(text) + 1)]


def _odd(dice: Dice) -> Any:
    kind = dice.below(4)
    if kind == 0:
        return dice.taken(dice.below(30)).decode("utf-8", "surrogateescape")
    # A copy, because later steps may change it.
    return json.loads(json.dumps(dice.pick(ODD)))


def _wrapped(payload: Any, dice: Dice) -> Any:
    text = json.dumps(payload)
    return dice.pick(
        (
            sqs(a=text, b=text),
            {"Records": [{"eventSource": "aws:sqs", "body": text}]},
            {"Type": "Notification", "Message": text},
            {"Records": [{"EventSource": "aws:sns", "Sns": {"Message": text}}]},
            {"Records": [payload, payload]},
            {"detail": payload, "source": "aws.s3", "detail-type": "Object Created"},
            [payload],
        )
    )


def places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a JSON value, with each of its keys."""
    if isinstance(node, dict | list):
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            yield node, key
            yield from places(node[key])
