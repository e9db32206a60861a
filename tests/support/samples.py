"""Statements and payloads for tests, as short as they can be."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote_plus

PLAYED = "https://w3id.org/xapi/video/verbs/played"
VIDEO = "https://w3id.org/xapi/video/extensions/"
BAD_LINE = b"this is no statement"


def video(number: int, **more: Any) -> dict[str, Any]:
    """A video statement; a different number makes a different statement."""
    return {
        "id": f"00000000-0000-4000-8000-{number:012x}",
        "actor": {"account": {"name": f"viewer-{number}", "homePage": "https://example.org"}},
        "verb": {"id": PLAYED},
        "object": {"id": "https://example.org/video/1"},
        "result": {"extensions": {VIDEO + "time": number / 2}},
        "timestamp": "2024-01-01T12:00:00Z",
        **more,
    }


def event_id(number: int) -> str:
    """The id of video(number)."""
    return f"00000000-0000-4000-8000-{number:012x}"


def voiding(number: int, **more: Any) -> dict[str, Any]:
    """A statement that voids video(number); its own id is event_id(1000 + number)."""
    return {
        **video(1000 + number),
        "verb": {"id": "http://adlnet.gov/expapi/verbs/voided"},
        "object": {"objectType": "StatementRef", "id": event_id(number)},
        **more,
    }


def other(number: int) -> dict[str, Any]:
    """A statement that is not about a video."""
    return {
        "actor": {"mbox": "mailto:viewer@example.org"},
        "verb": {"id": "http://id.tincanapi.com/verb/viewed"},
        "object": {"id": f"https://example.org/page/{number}"},
    }


def content(*lines: bytes | dict[str, Any]) -> bytes:
    """The body of a bundle with these lines."""
    made = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    return b"".join(line + b"\n" for line in made)


def notification(bucket: str, *keys: str) -> dict[str, Any]:
    """What S3 sends about uploads."""
    return {
        "Records": [
            {
                "eventSource": "aws:s3",
                "eventName": "ObjectCreated:Put",
                "s3": {"bucket": {"name": bucket}, "object": {"key": quote_plus(key)}},
            }
            for key in keys
        ]
    }


def sqs(**bodies: Any) -> dict[str, Any]:
    """A batch of messages by id; a body that is not text is sent as JSON."""
    return {
        "Records": [
            {
                "messageId": name,
                "eventSource": "aws:sqs",
                "body": body if isinstance(body, str) else json.dumps(body),
            }
            for name, body in bodies.items()
        ]
    }


def context(seconds_left: float = 60, clock: Callable[[], float] = time.monotonic) -> Any:
    """The parts of Lambda's context that are used; the clock decides how much time is left."""
    end = clock() + seconds_left
    return SimpleNamespace(
        aws_request_id="request-1",
        get_remaining_time_in_millis=lambda: max(0, int((end - clock()) * 1000)),
    )
