"""Statements without a timestamp: what they get, and where that is counted."""

from __future__ import annotations

import pytest

from tests.conftest import Ask, Bucket, Invoke
from tests.support.samples import notification, other, video

NOON = "section/1/video/2024-05-06T12-00-00Z_1.jsonl"
NO_TIME = "section/1/video/merged.jsonl"
ROWS = "SELECT timestamp, timestamp_source FROM video_statements ORDER BY event_id"


@pytest.mark.slow
def test_they_get_the_time_when_they_were_stored_or_the_keys(
    bucket: Bucket, invoke: Invoke, ask: Ask
) -> None:
    stored = "2024-01-02T00:00:00Z"
    bucket.put(NOON, video(1, timestamp=None), video(2, timestamp="noon", stored=stored), video(3))
    # Not LastModified, which changes when an object is written anew.
    bucket.put(NO_TIME, video(4, timestamp=None))
    for key, replaced in ((NOON, 2), (NO_TIME, 1)):
        assert invoke(notification(bucket.name, key))["timestamps_replaced"] == replaced
    assert ask(ROWS) == [
        ["2024-05-06 12:00:00.000", "key"],
        ["2024-01-02 00:00:00.000", "stored"],
        ["2024-01-01 12:00:00.000", "statement"],
        ["1970-01-01 00:00:00.000", "none"],
    ]


@pytest.mark.slow
def test_they_are_counted_in_the_answer_unless_their_object_fails_or_is_not_read(
    bucket: Bucket, invoke: Invoke
) -> None:
    bucket.put(NOON, video(1), video(2, timestamp=""), video(3, timestamp=None), other(4))
    body = b'{"verb": {"id": "https://w3id.org/xapi/video/verbs/played"}}\n'
    bucket.put("section/1/b.jsonl.gz", body=b"\x1f\x8b" + body)
    for payload, counted in (
        ({"mode": "bulk", "dry_run": True}, 0),
        ({"key": NOON, "dry_run": True}, 2),
        ({"mode": "bulk"}, 2),
    ):
        answer = invoke({**payload, "bucket": bucket.name})
        assert answer["timestamps_replaced"] == counted, payload
    assert answer["files_failed"] == 1
