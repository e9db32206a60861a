"""The payloads that users were promised, word for word."""

from __future__ import annotations

import json

import boto3
import pytest

from tests.conftest import Ask, Bucket, Invoke
from tests.support.samples import video

BULK = """{
  "mode": "bulk",
  "section_id": "123",
  "start_date": "2024-01-01",
  "end_date": "2024-12-31",
  "s3_bucket": "your-s3-bucket",
  "s3_prefix": "section/",
  "dry_run": false,
  "force_reprocess": false
}"""
DIRECT = """{"bucket": "your-s3-bucket", "key": "section/123/video/2024-05-01T12-00-00Z_1.jsonl"}"""
S3_EVENT = """{"Records": [{"eventSource": "aws:s3", "s3": {"bucket": {"name": "your-s3-bucket"},
 "object": {"key": "section/123/video/2024-05-01T12-00-00Z_1.jsonl"}}}]}"""
HEALTH_CHECK = """{"health_check": true}"""

KEY = "section/123/video/2024-05-01T12-00-00Z_1.jsonl"
COUNT = "SELECT count() FROM video_events FINAL"


@pytest.fixture(autouse=True)
def your_bucket(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """The bucket that the payloads name, with a bundle of their section and one of another."""
    monkeypatch.setenv("S3_XAPI_BUCKET_NAME", "your-s3-bucket")
    client = boto3.client("s3")
    client.create_bucket(Bucket="your-s3-bucket")
    yours = Bucket("your-s3-bucket", client)
    yours.put(KEY, video(1))
    yours.put("section/124/video/2024-05-01T12-00-00Z_1.jsonl", video(2))
    return yours


@pytest.mark.slow
def test_each_payload_does_what_was_promised(invoke: Invoke, ask: Ask) -> None:
    for payload in (BULK, DIRECT, S3_EVENT):
        answer = invoke(json.loads(payload))
        assert (answer.status, answer["success"], answer["section_id"]) == (200, True, 123)
        assert answer["video_events_processed"] == 1
        assert ask(COUNT) == [[1]]
        ask("TRUNCATE TABLE processed_files")
    answer = invoke(json.loads(HEALTH_CHECK))
    assert (answer.status, answer["healthy"]) == (200, True)
    assert answer["s3"]["bucket"] == "your-s3-bucket"


def test_the_bucket_has_two_spellings_that_must_agree_and_alone_makes_a_bulk_request(
    invoke: Invoke,
) -> None:
    request = json.loads(BULK) | {"dry_run": True}
    del request["s3_bucket"]
    assert invoke(request | {"bucket": "your-s3-bucket"})["files_found"] == 1
    both = request | {"bucket": "your-s3-bucket", "s3_bucket": "your-s3-bucket"}
    assert invoke(both)["files_found"] == 1
    answer = invoke(request | {"bucket": "another-bucket", "s3_bucket": "your-s3-bucket"})
    assert answer.status == 400
    assert "s3_bucket and bucket name different buckets" in answer["error"]
    answer = invoke({"s3_bucket": "your-s3-bucket"})
    assert (answer["processing_mode"], answer["files_found"]) == ("bulk", 2)
