"""Event mode: uploads are stored once, and failures are reported to whoever retries."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from tests.conftest import Ask, Bucket, Invoke
from tests.support.samples import BAD_LINE, event_id, notification, other, sqs, video
from xapi_etl_processor.base.errors import EventFailed
from xapi_etl_processor.lambda_function import mode_of
from xapi_etl_processor.s3 import bundle
from xapi_etl_processor.xapi.parse import Parsed, parse

KEY = "section/2001/video/2024-01-01T12-00-00.123456Z_1.jsonl"


@pytest.mark.fault(28, caught_by="lines rejected one by one")
def test_an_uploaded_bundle_is_stored_with_every_line_accounted_for(
    bucket: Bucket, invoke: Invoke, ask: Ask
) -> None:
    bucket.put(KEY, video(1), other(1), b"", BAD_LINE, video(2), b" \r", other(2), other(3))
    answer = invoke(notification(bucket.name, KEY))
    assert answer.status == 200
    assert answer.body.pop("duration_ms") >= 0
    assert answer.body == {
        "success": True,
        "processing_mode": "event",
        "section_id": 2001,
        "events_processed": 5,
        "video_events_processed": 2,
        "other_events": 3,
        "rejected_lines": 1,
        "blank_lines": 2,
        "forgotten_events": 0,
        "timestamps_replaced": 0,
        "files_found": 1,
        "files_processed": 1,
        "files_skipped": 0,
        "files_ignored": 0,
        "files_failed": 0,
        "failures": [],
        "dry_run": False,
        "dead_letters": 0,
        "s3_bucket": bucket.name,
        "s3_key": KEY,
    }
    described = bucket.client.head_object(Bucket=bucket.name, Key=KEY)
    etag, size = described["ETag"].strip('"'), described["ContentLength"]
    source = "source_file, source_etag, source_line"
    assert ask(f"SELECT event_id, {source} FROM video_events ORDER BY 1") == [
        [event_id(1), bucket.uri(KEY), etag, 1],
        [event_id(2), bucket.uri(KEY), etag, 5],
    ]
    assert ask(f"SELECT {source}, line FROM rejected_statements") == [
        [bucket.uri(KEY), etag, 4, "this is no statement"]
    ]
    columns = "bucket, key, etag, toUInt32(size), lines, video, other, blank, rejected, mode"
    assert ask(f"SELECT {columns} FROM processed_files") == [
        [bucket.name, KEY, etag, size, 8, 2, 3, 2, 1, "event"]
    ]


@pytest.mark.slow
@pytest.mark.fault(55, caught_by="gzip recognized by content")
def test_a_gzip_bundle_that_is_named_by_hand_is_read_whatever_its_name_but_no_folder(
    bucket: Bucket, invoke: Invoke, ask: Ask
) -> None:
    lines = b"".join(json.dumps(video(n)).encode() + b"\n" for n in range(50))
    members = gzip.compress(lines[:5000]) + gzip.compress(lines[5000:])
    for key in ("section/1/a.jsonl.gz", "section/1/b.jsonl", "section/1/restored.jsonl.old"):
        bucket.put(key, body=members)
        assert invoke({"bucket": bucket.name, "key": key})["video_events_processed"] == 50
    assert ask("SELECT count() FROM video_events FINAL") == [[50]]
    # A folder is refused; a notification names one whenever somebody makes a folder.
    bucket.put("section/1/", body=b"")
    answer = invoke({"bucket": bucket.name, "key": "section/1/"})
    assert answer.status == 400
    assert "section/1/ is a folder: name an object in it" in answer["error"]
    assert invoke(notification(bucket.name, "section/1/"))["files_ignored"] == 1


@pytest.mark.slow
def test_without_a_timestamp_a_statement_gets_the_time_when_it_was_stored_or_its_keys(
    bucket: Bucket, invoke: Invoke, ask: Ask
) -> None:
    noon, no_time = "section/1/video/2024-05-06T12-00-00Z_1.jsonl", "section/1/video/merged.jsonl"
    stored = "2024-01-02T00:00:00Z"
    bucket.put(noon, video(1, timestamp=None), video(2, timestamp="noon", stored=stored), video(3))
    # Not LastModified, which changes when an object is written anew.
    bucket.put(no_time, video(4, timestamp=None))
    for key, replaced in ((noon, 2), (no_time, 1)):
        assert invoke(notification(bucket.name, key))["timestamps_replaced"] == replaced
    assert ask("SELECT timestamp, timestamp_source FROM video_statements ORDER BY event_id") == [
        ["2024-05-06 12:00:00.000", "key"],
        ["2024-01-02 00:00:00.000", "stored"],
        ["2024-01-01 12:00:00.000", "statement"],
        ["1970-01-01 00:00:00.000", "none"],
    ]


def test_a_slip_in_a_payload_is_named(invoke: Invoke) -> None:
    slips: list[tuple[Any, str]] = [
        ({"mode": "blk"}, "not an S3 event: it has no Records, no bucket and key"),
        ({"bucket": "b", "key": "k", "dryrun": True}, "unknown parameters 'dryrun'"),
        ({"bucket": "b", "key": "k", "mode": "blk"}, "mode is 'blk': with a bucket and a key"),
        ([], "not an S3 event: a JSON object is needed"),
        (None, "not an S3 event: a JSON object is needed"),
    ]
    for payload, said in slips:
        answer = invoke(payload)
        assert (answer.status, answer["error"].startswith(said)) == (400, True), payload
        accepted = answer["error"].partition("Accepted: ")[2]
        assert '"health_check": true' in accepted
        assert '"key"' in accepted


@pytest.mark.slow
@pytest.mark.fault(11, 17, caught_by="the handler raises")
def test_a_missing_object_raises_with_a_clear_message_and_does_not_hold_back_the_others(
    bucket: Bucket, invoke: Invoke, ask: Ask
) -> None:
    first, third = (bucket.put(f"section/1/video/{n}.jsonl", video(n)) for n in (1, 3))
    gone = "section/1/video/2.jsonl"
    said = f"1 of 3 objects failed.*{bucket.uri(gone)} does not exist.*restore it"
    with pytest.raises(EventFailed, match=said):
        invoke(notification(bucket.name, first, gone, third))
    assert ask("SELECT key FROM processed_files ORDER BY key") == [[first], [third]]
    assert ask("SELECT count() FROM video_events") == [[2]]


@pytest.mark.slow
@pytest.mark.fault(8, 10, caught_by="partial batch response")
def test_an_sqs_batch_fails_message_by_message(bucket: Bucket, invoke: Invoke, ask: Ask) -> None:
    keys = [bucket.put(f"section/1/video/{n}.jsonl", video(n)) for n in range(3)]
    answer = invoke(
        sqs(
            good=notification(bucket.name, keys[0]),
            gone=notification(bucket.name, keys[1], "section/1/video/gone.jsonl"),
            poison="not JSON",
            empty={"Records": []},
            test={"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": bucket.name},
            direct={"bucket": bucket.name, "key": keys[2]},
        )
    )
    failed = [item["itemIdentifier"] for item in answer["batchItemFailures"]]
    assert failed == ["gone", "poison", "empty"]
    assert answer.body.keys() == {"batchItemFailures"}
    assert ask("SELECT count() FROM video_events") == [[3]]


def test_the_mode_is_the_first_that_the_payload_fits() -> None:
    payloads: list[tuple[dict[str, Any], str]] = [
        ({"health_check": True, "mode": "bulk", "key": "k"}, "health_check"),
        ({"mode": "bulk", "key": "k"}, "bulk"),
        ({"bucket": "b", "dry_run": True}, "bulk"),
        ({"bucket": "b", "key": "k", "dry_run": True}, "event"),
        ({"Records": [], "dry_run": True}, "event"),
        ({"source": "aws.s3", "detail": {}, "dry_run": True}, "event"),
        ({"health_check": 1}, "event"),
        ({"bucket": "b"}, "event"),
    ]
    for payload, mode in payloads:
        assert mode_of(payload) == mode, payload


@pytest.mark.check("S14")
def test_a_misspelled_parameter_and_a_flag_inside_a_message_are_refused_and_not_ignored(
    bucket: Bucket, invoke: Invoke, ask: Ask
) -> None:
    direct = {"bucket": bucket.name, "key": bucket.put(KEY, video(1))}
    slips: list[dict[str, Any]] = [{"dryrun": True}, {"mode": "dry_run"}, {"section": 1}]
    flags = ("dry_run", "force_reprocess", "replace")
    odd: list[Any] = ["false", "true", 0, 1, "", [], "no"]
    slips += [{flag: value} for flag in flags for value in odd]
    for more in slips:
        answer = invoke({**direct, **more})
        assert (answer.status, next(iter(more)) in answer["error"]) == (400, True), more
    for flag in flags:
        answer = invoke(sqs(one={**direct, flag: True}))
        assert answer.body == {"batchItemFailures": [{"itemIdentifier": "one"}]}, flag
    assert ask("SELECT count() FROM video_events") == [[0]]


def test_a_bucket_that_does_not_exist_is_a_bad_request_when_named_by_hand(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, said in (
        ("no-such-bucket-here", "does not exist"),
        ("No Such Name!", "not a valid S3 name"),
    ):
        monkeypatch.setenv("S3_XAPI_OTHER_BUCKETS", f"another-one, {name}")
        answer = invoke({"bucket": name, "key": "section/x.jsonl"})
        assert answer.status == 400
        assert said in answer["error"]
        with pytest.raises(EventFailed, match=said):
            invoke(notification(name, "section/x.jsonl"))


@pytest.mark.slow
@pytest.mark.fault(7, caught_by="the other records are loaded; redelivery")
def test_a_record_from_another_service_fails_the_event_and_is_named(
    bucket: Bucket, invoke: Invoke, ask: Ask
) -> None:
    event = notification(bucket.name, bucket.put(KEY, video(1)))
    event["Records"].append({"eventSource": "aws:kinesis"})
    text = "^records of the event name no S3 object: a record is not from S3 but from aws:kinesis$"
    with pytest.raises(EventFailed, match=text):
        invoke(event)
    assert ask("SELECT count() FROM video_events") == [[1]]
    event = notification(bucket.name, "section/1/video/missing.jsonl")
    event["Records"].append({"eventSource": "aws:kinesis"})
    text = "^1 of 1 objects failed and records of the event name no S3 object: .*does not exist.*;"
    with pytest.raises(EventFailed, match=text):
        invoke(event)


def test_an_object_whose_counts_do_not_add_up_fails_and_never_counts_as_processed(
    bucket: Bucket, invoke: Invoke, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulated: no line is known that is counted twice or not at all."""

    def lose_a_line(*arguments: Any) -> Parsed:
        parsed = parse(*arguments)
        parsed.counts.other -= 1
        return parsed

    monkeypatch.setattr(bundle, "parse", lose_a_line)
    bucket.put(KEY, video(1), other(1))
    with pytest.raises(EventFailed, match=r"lines do not add up, .*lines=2, video=1, other=0"):
        invoke(notification(bucket.name, KEY))
    assert ask("SELECT count() FROM processed_files") == [[0]]
