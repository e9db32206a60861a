"""What S3 does: errors, throttling, stalls, bodies cut short, objects replaced while read."""

from __future__ import annotations

import gzip
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from local.clickhouse_server import ClickHouseServer
from tests.conftest import Ask, Bucket, Invoke, forget_connections
from tests.faults.http_proxy import Answer, Request, S3Proxy
from tests.support.reader import IDS, ROWS, ids
from tests.support.replicas import wait_for
from tests.support.samples import context, event_id, notification, sqs, video
from xapi_etl_processor.base import deadlines
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.deadlines import FOREVER
from xapi_etl_processor.base.errors import EventFailed
from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.common import process
from xapi_etl_processor.lambda_function import handler
from xapi_etl_processor.run import Connections, Run, Wanted, connections
from xapi_etl_processor.s3 import check, client, fetch, listing
from xapi_etl_processor.s3.client import Stores
from xapi_etl_processor.s3.listing import Scope
from xapi_etl_processor.s3.objects import S3Object

KEY = "section/1/video/2024-01-01T12-00-00Z_1.jsonl"
LEDGER = "SELECT etag, lines, video, rejected FROM processed_files FINAL"
LARGE = 4 * fetch.PART_BYTES


def bundle(count: int, size: int = 0) -> bytes:
    """Video statements 0 to count - 1, padded to about this many bytes in total."""
    padding = "é" * (size // count // 6)
    lines = [json.dumps(video(n, padding=padding)).encode() for n in range(count)]
    return b"".join(line + b"\n" for line in lines)


class Once:
    """Gives its answer to the first `times` requests for objects, also for the rest of one."""

    def __init__(self, answer: Answer, times: int = 1, method: str = "GET") -> None:
        self.answer, self.left, self.method = answer, times, method

    def __call__(self, request: Request) -> Answer | None:
        if request.method != self.method or "list-type" in request.path or self.left == 0:
            return None
        self.left -= 1
        return self.answer


@pytest.mark.slow
@pytest.mark.fault(20, 55, caught_by="length check; ranged GET of the rest; gzip trailer")
@pytest.mark.parametrize(
    ("body", "cut", "times"),
    [
        (lambda: bundle(200), 10_000, 3),
        # More attempts than usual are made as long as each one brings this much.
        (lambda: bundle(200, LARGE), 600_000, client.ATTEMPTS + 1),
        (lambda: gzip.compress(bundle(200) * 40), 10_000, 3),
    ],
    ids=["small", "streamed", "gzip"],
)
def test_reading_resumes_where_a_body_was_cut_short(
    bucket: Bucket,
    store: S3Proxy,
    invoke: Invoke,
    ask: Ask,
    body: Callable[[], bytes],
    cut: int,
    times: int,
) -> None:
    bucket.put(KEY, body=body())
    store.rule = Once(Answer(cut=cut), times)
    assert invoke(notification(bucket.name, KEY))["video_events_processed"] % 200 == 0
    assert ask(IDS) == ids(range(200))
    # What was read is not requested again.
    asked = store.asked("GET", "_1.jsonl")
    assert len(asked) > times
    assert any(r.range.startswith(f"bytes={cut}-") for r in asked)


@pytest.mark.slow
@pytest.mark.fault(20, caught_by="length check")
@pytest.mark.parametrize("size", [0, LARGE], ids=["small", "streamed"])
def test_a_body_that_is_always_cut_short_fails_and_is_not_in_the_ledger(
    bucket: Bucket, store: S3Proxy, invoke: Invoke, ask: Ask, size: int
) -> None:
    bucket.put(KEY, body=bundle(50, size))
    store.rule = Once(Answer(cut=100), times=100)
    with pytest.raises(EventFailed, match=f"{KEY} could not be read to its end"):
        invoke(notification(bucket.name, KEY))
    # Repeating requests that bring a hundred bytes each would not help.
    assert len(store.asked("GET", KEY[-10:])) == client.ATTEMPTS
    assert ask("SELECT count() FROM processed_files") == [[0]]
    store.rule = Once(Answer(), 0)
    invoke(notification(bucket.name, KEY))
    assert ask(IDS) == ids(range(50))


@pytest.mark.slow
@pytest.mark.fault(21, caught_by="read timeout; bounded retries")
@pytest.mark.parametrize(
    "size", [pytest.param(0, id="small", marks=pytest.mark.ci), pytest.param(LARGE, id="streamed")]
)
def test_threads_that_wait_for_a_silent_s3_end_by_its_timeouts(
    bucket: Bucket,
    store: S3Proxy,
    invoke: Invoke,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
) -> None:
    names = [bucket.put(f"section/1/{n}.jsonl", body=bundle(10, size)) for n in range(2)]
    store.rule = lambda r: Answer(stall=0) if ".jsonl" in r.path else None
    before = threads()
    with monkeypatch.context() as impatient:
        impatient.setattr(client, "READ_SECONDS", 0.2)
        for _ in range(2):
            with pytest.raises(EventFailed, match="time ran out|could not be read to its end"):
                invoke(notification(bucket.name, *names), seconds_left=2)
    wait_for(lambda: threads() <= before, 30)
    store.rule = lambda _: None
    # On a busy machine, a good answer may take longer than that.
    forget_connections()
    assert invoke(notification(bucket.name, *names))["files_processed"] == 2


def threads() -> int:
    """The threads that have work; the proxy's own stall until the end of the test."""
    running = sum("process_request" not in thread.name for thread in threading.enumerate())
    return running - len(deadlines._idle)


@pytest.mark.fault(8, 18, caught_by="error isolation per object")
def test_a_malformed_answer_from_s3_fails_only_that_object(
    bucket: Bucket, store: S3Proxy, ask: Ask
) -> None:
    names = [bucket.put(f"section/1/{n}.jsonl", video(n)) for n in range(3)]
    odd = Answer(headers={"ETag": None})
    store.rule = lambda r: odd if r.method == "GET" and "/1.jsonl" in r.path else None
    messages = {f"m{n}": notification(bucket.name, key) for n, key in enumerate(names)}
    answer = handler(sqs(**messages), context())
    assert answer == {"batchItemFailures": [{"itemIdentifier": "m1"}]}
    assert ask(IDS) == [[event_id(0)], [event_id(2)]]


@pytest.mark.slow
@pytest.mark.fault(21, caught_by="read timeout; ranged GET of the rest")
def test_reading_resumes_after_a_body_stalls(
    bucket: Bucket, store: S3Proxy, invoke: Invoke, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "READ_SECONDS", 1)
    body = bundle(200, LARGE)
    bucket.put(KEY, body=body)
    store.rule = Once(Answer(stall=len(body) // 4))
    assert invoke(notification(bucket.name, KEY))["video_events_processed"] == 200
    assert ask(IDS) == ids(range(200))


@pytest.mark.slow
@pytest.mark.fault(21, caught_by="deadline")
def test_a_stalled_body_does_not_outlast_the_invocation(
    bucket: Bucket, store: S3Proxy, invoke: Invoke, ask: Ask
) -> None:
    bucket.put(KEY, body=bundle(200, LARGE))
    store.rule = Once(Answer(stall=100), times=100)
    started = time.monotonic()
    with pytest.raises(EventFailed, match="failed: time ran out$"):
        invoke(notification(bucket.name, KEY), seconds_left=3)
    # A single read would wait for ten seconds.
    assert time.monotonic() - started < 3
    assert ask("SELECT count() FROM processed_files") == [[0]]


@pytest.mark.fault(12, 21, caught_by="deadline")
def test_when_time_runs_out_no_more_requests_are_begun(
    bucket: Bucket, store: S3Proxy, settings: Settings
) -> None:
    objects = [S3Object(bucket.name, bucket.put(f"section/1/{n}.jsonl")) for n in range(4)]
    go_on = threading.Event()
    store.rule = lambda _: Answer(do=lambda: go_on.wait(30))
    own = Connections(Stores(concurrency=1), ClickHouse(settings))
    # Connecting may take longer than the rest of the test on a busy machine.
    own.clickhouse.query("SELECT 1")
    run = Run(settings, own, "event", Wanted(force=True), deadline=FOREVER.within(2.5))
    assert [outcome.status for outcome in process(objects, run)] == ["waiting"] * 4
    go_on.set()
    own.clickhouse.disconnect()
    # None at all, if the machine was too busy to send one in that time.
    assert [request.method for request in store.requests] in (["HEAD"], [])


@pytest.mark.slow
@pytest.mark.fault(4, caught_by="conditional GET (If-Match)")
def test_two_versions_are_not_mixed_when_an_object_is_replaced_while_read(
    bucket: Bucket, store: S3Proxy, invoke: Invoke, ask: Ask
) -> None:
    body, later = bundle(200, LARGE), bundle(200, LARGE).replace(b"viewer-", b"VIEWER-")
    bucket.put(KEY, body=body)
    put_anew = Once(Answer(do=lambda: bucket.put(KEY, body=later)))
    store.rule = lambda r: None if r.range.startswith("bytes=0-") else put_anew(r)
    with pytest.raises(EventFailed, match="was replaced while it was read"):
        invoke(notification(bucket.name, KEY))
    assert ask("SELECT count() FROM processed_files") == [[0]]
    invoke(notification(bucket.name, KEY))
    assert ask(IDS) == ids(range(200))
    newer = "SELECT countIf(user_id LIKE 'VIEWER-%') FROM video_events FINAL"
    assert ask(newer) == [[200]]
    etag = bucket.client.head_object(Bucket=bucket.name, Key=KEY)["ETag"].strip('"')
    assert ask(LEDGER) == [[etag, 200, 200, 0]]


@pytest.mark.fault(3, 4, caught_by="ETag in the ledger's key")
def test_the_ledger_has_the_version_that_was_read(
    bucket: Bucket, store: S3Proxy, invoke: Invoke, ask: Ask
) -> None:
    bucket.put(KEY, video(1))
    store.rule = Once(Answer(do=lambda: bucket.put(KEY, video(2))))
    invoke(notification(bucket.name, KEY))
    assert ask(IDS) == [[event_id(2)]]
    assert invoke(notification(bucket.name, KEY))["files_skipped"] == 1


@pytest.mark.slow
@pytest.mark.fault(19, caught_by="bounded retries; deadline; redelivery")
def test_throttling_is_waited_out_and_fails_the_object_if_it_does_not_end(
    bucket: Bucket, store: S3Proxy, invoke: Invoke, ask: Ask
) -> None:
    bucket.put(KEY, video(1))
    each = {method: Once(Answer("SlowDown"), 1, method) for method in ("GET", "HEAD")}
    store.rule = lambda r: each[r.method](r)
    assert invoke(notification(bucket.name, KEY))["files_processed"] == 1
    assert [once.left for once in each.values()] == [0, 0]
    assert ask(IDS) == [[event_id(1)]]
    bucket.put(KEY, video(2))
    store.requests.clear()
    store.rule = Once(Answer("SlowDown"), times=1000)
    with pytest.raises(EventFailed, match=rf"{KEY} cannot be read \(SlowDown: injected\)"):
        invoke(notification(bucket.name, KEY))
    assert len(store.asked("GET", KEY[-10:])) == client.ATTEMPTS
    assert ask("SELECT count() FROM processed_files") == [[1]]


@pytest.mark.fault(18, caught_by="an error that says what to do; no retry within the invocation")
@pytest.mark.fault(46, caught_by="an error that says what to do")
def test_an_object_that_may_not_be_read_is_requested_once_and_named(
    bucket: Bucket, store: S3Proxy, invoke: Invoke, ask: Ask
) -> None:
    bucket.put(KEY, video(1))
    for code in ("AccessDenied", "KMS.DisabledException", "InvalidObjectState"):
        store.requests.clear()
        store.rule = Once(Answer(code, 403), times=1000)
        said = rf"s3://{bucket.name}/{KEY} .*\({code}: injected\)"
        with pytest.raises(EventFailed, match=said) as failed:
            invoke(notification(bucket.name, KEY))
        assert len(store.asked("GET", KEY[-10:])) == 1, code
    assert "restore it from Glacier first" in str(failed.value)
    assert ask("SELECT count() FROM processed_files") == [[0]]


@pytest.mark.slow
@pytest.mark.fault(22, caught_by="ranged GET of the rest")
def test_reading_resumes_after_s3_hangs_up_while_clickhouse_is_slow(
    bucket: Bucket,
    store: S3Proxy,
    invoke: Invoke,
    ask: Ask,
    clickhouse: ClickHouseServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BATCH_ROWS", "20")
    body = bundle(200, LARGE)
    bucket.put(KEY, body=body)
    cut = Answer(cut=fetch.PART_BYTES // 2, until=threading.Event())
    once = Once(cut)
    store.rule = lambda r: None if r.range.startswith("bytes=0-") else once(r)

    def slow(point: str, sql: str) -> None:
        if point == "insert" and ".video_events " in sql:
            assert cut.until
            cut.until.set()  # S3 now stops waiting for its body to be read.
            assert cut.was_cut.wait(30)

    clickhouse.hook = slow
    assert invoke(notification(bucket.name, KEY))["video_events_processed"] == 200
    assert ask(IDS) == ids(range(200))
    begun = [int(re.findall(r"\d+", r.range)[0]) for r in store.requests if r.range]
    parts = {0, *range(fetch.SMALL_BYTES, len(body), fetch.PART_BYTES)}
    # One more than there are parts: from where the answer ended, maybe before its first byte.
    assert parts <= set(begun)
    assert len(begun) > len(parts)


@pytest.mark.slow
@pytest.mark.fault(49, 19, caught_by="deadline")
def test_a_stalled_listing_does_not_outlast_the_invocation(
    bucket: Bucket, store: S3Proxy, invoke: Invoke, ask: Ask
) -> None:
    bucket.put(KEY, video(1))
    store.rule = lambda r: Answer(stall=50) if "list-type" in r.path else None
    started = time.monotonic()
    with pytest.raises(Exception, match="time ran out"):
        invoke({"section_id": 1}, seconds_left=3)
    assert time.monotonic() - started < 3
    assert ask(ROWS) == [[0]]


@pytest.mark.check("S3")
def test_a_bucket_or_a_key_that_is_not_allowed_gets_no_request(
    bucket: Bucket, store: S3Proxy, invoke: Invoke, ask: Ask
) -> None:
    other, folder = f"other-{bucket.name}", "not in the folder of the bundles"
    bucket.client.create_bucket(Bucket=other)
    bucket.client.put_object(Bucket=other, Key=KEY, Body=bundle(1))
    refused: list[tuple[str, str, str]] = [(other, KEY, f"s3://{other} is not a bucket of bundles")]
    for key in ("secrets/a.jsonl", "section.jsonl", "/section/1/a.jsonl"):
        refused.append((bucket.name, bucket.put(key, video(1)), folder))
    store.requests.clear()
    for name, key, message in refused:
        with pytest.raises(EventFailed, match=message):
            invoke(notification(name, key))
        answer = invoke({"bucket": name, "key": key})
        assert (answer.status, message in answer["error"]) == (400, True), key
    answer = invoke({"bucket": other, "mode": "bulk"})
    assert (answer.status, refused[0][2] in answer["error"]) == (400, True)
    assert store.requests == []
    assert ask(ROWS) == [[0]]


@pytest.mark.check("S3")
def test_another_bucket_can_be_allowed(
    bucket: Bucket, store: S3Proxy, invoke: Invoke, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = f"other-{bucket.name}"
    bucket.client.create_bucket(Bucket=other)
    bucket.client.put_object(Bucket=other, Key=KEY, Body=bundle(1))
    monkeypatch.setenv("S3_XAPI_OTHER_BUCKETS", f"one-more, {other}")
    assert invoke({"mode": "bulk", "bucket": other})["files_processed"] == 1
    assert invoke(notification(other, KEY))["files_skipped"] == 1
    assert ask("SELECT source_file FROM video_events") == [[f"s3://{other}/{KEY}"]]


@pytest.mark.check("S3")
def test_nothing_is_read_of_a_bucket_of_another_owner(
    bucket: Bucket, store: S3Proxy, settings: Settings
) -> None:
    ours = "123456789012"
    stating = Stores(owner=ours)
    assert list(listing.listing(stating, Scope(bucket.name))) == []
    check.check_bucket(stating, bucket.name, "")
    assert {request.owner for request in store.requests} == {ours}
    bucket.put(KEY, video(1))
    store.requests.clear()
    wrong = Answer("AccessDenied", 403)
    store.rule = lambda r: wrong if r.owner not in ("", ours) else None
    for owner in (ours, "999999999999"):
        own = replace(settings, bucket_owner=owner)
        (outcome,) = process([S3Object(bucket.name, KEY)], Run(own, connections(own), "event"))
        assert outcome.status == ("processed" if owner == ours else "failed")
    assert "access denied" in outcome.error
    asked = [(r.method, r.path.removeprefix(f"/{bucket.name}"), r.owner) for r in store.requests]
    assert asked[:3] == [("HEAD", "", ours), ("HEAD", f"/{KEY}", ""), ("GET", f"/{KEY}", "")]
    assert set(asked[3:]) == {("HEAD", "", "999999999999")}
