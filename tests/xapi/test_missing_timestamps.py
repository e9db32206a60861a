"""Statements without a timestamp: what they get, and where that is counted."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import Ask, Bucket, Invoke
from tests.support.samples import notification, other, video

NOON = "section/1/video/2024-05-06T12-00-00Z_1.jsonl"
NO_TIME = "section/1/video/merged.jsonl"
ROWS = "SELECT timestamp, timestamp_source FROM video_statements ORDER BY event_id"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (NOON, [["2024-05-06 12:00:00.000", "key"], ["2024-01-02 00:00:00.000", "stored"]]),
        # Not LastModified, which changes when an object is written anew.
        (NO_TIME, [["1970-01-01 00:00:00.000", "none"], ["2024-01-02 00:00:00.000", "stored"]]),
    ],
)
def test_they_get_the_time_when_they_were_stored_or_the_keys(
    bucket: Bucket, invoke: Invoke, ask: Ask, key: str, expected: list[list[str]]
) -> None:
    stored = "2024-01-02T00:00:00Z"
    bucket.put(key, video(1, timestamp=None), video(2, timestamp="noon", stored=stored), video(3))
    answer = invoke(notification(bucket.name, key))
    assert answer["timestamps_replaced"] == 2
    assert ask(ROWS) == [*expected, ["2024-01-01 12:00:00.000", "statement"]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("payload", "counted"),
    [
        ({"key": NOON}, 2),
        ({"key": NOON, "dry_run": True}, 2),
        ({"mode": "bulk"}, 2),
        # It reads no object.
        ({"mode": "bulk", "dry_run": True}, 0),
    ],
)
def test_they_are_counted_in_the_answer(
    bucket: Bucket, invoke: Invoke, payload: dict[str, Any], counted: int
) -> None:
    bucket.put(NOON, video(1), video(2, timestamp=""), video(3, timestamp=None), other(4))
    assert invoke({**payload, "bucket": bucket.name})["timestamps_replaced"] == counted


def test_those_of_an_object_that_fails_are_not_counted(bucket: Bucket, invoke: Invoke) -> None:
    bucket.put("section/1/a.jsonl", video(1, timestamp=None))
    body = b'{"verb": {"id": "https://w3id.org/xapi/video/verbs/played"}}\n'
    bucket.put("section/1/b.jsonl.gz", body=b"\x1f\x8b" + body)
    answer = invoke({"mode": "bulk"})
    assert (answer["files_failed"], answer["timestamps_replaced"]) == (1, 1)
