"""Statements without a timestamp: what they get, and where that is counted."""

from __future__ import annotations

import pytest

from tests.conftest import Ask, Bucket, Invoke
from tests.support.samples import notification, video

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
