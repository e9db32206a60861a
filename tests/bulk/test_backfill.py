"""A bulk request through the queue: sent, drained, continued, repeated, refused.

Time in the queue is simulated, and the handler, S3, SQS and ClickHouse are real: see
simulated_queue.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from local.clickhouse_server import ClickHouseServer
from tests.conftest import Ask, Bucket, Invoke, before_ledger_lookups, small_pages, until_complete
from tests.support.backfills import REQUEST, bodies, key, keys_in, refusing
from tests.support.clocks import Clock
from tests.support.reader import IDS, ROWS, ids
from tests.support.samples import notification, video
from tests.support.simulated_queue import MINUTE, SimulatedQueue
from xapi_etl_processor import common
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.errors import NothingDone
from xapi_etl_processor.bulk import queue as sending
from xapi_etl_processor.bulk.queue import Sent
from xapi_etl_processor.outcome import Status
from xapi_etl_processor.queues import messages
from xapi_etl_processor.queues import sqs as sqs_calls
from xapi_etl_processor.run import Run, connections
from xapi_etl_processor.s3 import listing
from xapi_etl_processor.s3.listing import Scope
from xapi_etl_processor.s3.objects import S3Object

LEDGER = "SELECT key, count() FROM processed_files GROUP BY key ORDER BY key"


@pytest.mark.slow
def test_one_invocation_uploads_and_the_queue_give_the_same_rows(
    bucket: Bucket, invoke: Invoke, ask: Ask, backfill: SimulatedQueue
) -> None:
    rows = "SELECT * EXCEPT (inserted_at, row_version) FROM video_events FINAL ORDER BY ALL"
    counts = "SELECT key, etag, size, lines, video, other, rejected FROM processed_files FINAL"
    for number in range(6):
        lines = [video(100 * number + n) for n in range(number + 1)]
        bucket.put(key(number, month=1 + number // 3), *lines, b"no statement")
    bucket.put("section/1/video/é +%2B.jsonl", video(7000))
    invoke({"mode": "bulk"})
    expected = ask(rows), ask(f"{counts} ORDER BY key")

    def forget() -> None:
        for table in ("video_events", "processed_files"):
            ask(f"TRUNCATE TABLE {table}")

    forget()
    for name in [row[0] for row in expected[1]]:
        invoke(notification(bucket.name, name))
    assert (ask(rows), ask(f"{counts} ORDER BY key")) == expected

    forget()
    answer = invoke(REQUEST)
    assert (answer["success"], answer["complete"]) == (True, True)
    assert (answer["files_found"], answer["files_sent"], answer["files_processed"]) == (7, 7, 0)
    assert ask(ROWS) == [[0]]
    backfill.run_until(MINUTE)
    assert backfill.is_empty
    assert len(backfill.deliveries) == answer["messages"] == 3
    assert (ask(rows), ask(f"{counts} ORDER BY key")) == expected


@pytest.mark.slow
def test_what_is_sent_twice_is_stored_once_and_again_only_with_force_or_another_version(
    bucket: Bucket, invoke: Invoke, ask: Ask, backfill: SimulatedQueue
) -> None:
    ask("SYSTEM STOP MERGES video_events")
    bucket.put_each(*map(key, range(3)))
    bucket.put(key(3), video(3), video(100))
    for _ in range(2):
        assert invoke(REQUEST)["files_sent"] == 4
    backfill.run_until(MINUTE)
    assert ask(ROWS) == [[5]]
    bucket.put(key(4), video(4))
    again = invoke(REQUEST)
    assert (again["files_found"], again["files_skipped"], again["files_sent"]) == (5, 4, 1)
    assert [keys_in(body) for body in bodies(backfill)] == [[key(4)]]
    answer = invoke({**REQUEST, "force_reprocess": True})
    assert (answer["files_skipped"], answer["files_sent"]) == (0, 5)
    backfill.run_until(2 * MINUTE)
    assert ask(ROWS) == [[11]]
    assert ask(IDS) == [*ids(range(5)), *ids(range(100, 101))]
    # With `replace`, what an earlier version left behind is removed.
    backfill.run_until(600 * MINUTE)
    ask("SYSTEM START MERGES video_events")
    bucket.put(key(3), video(3))
    assert invoke({**REQUEST, "replace": True})["files_sent"] == 1
    assert [body["backfill"] for body in bodies(backfill)] == [{"replace": True}]
    backfill.run_until(1200 * MINUTE)
    assert ask(IDS) == ids(range(5))


@pytest.mark.slow
def test_a_message_has_objects_of_one_month_whatever_the_section_and_the_page(
    bucket: Bucket, invoke: Invoke, backfill: SimulatedQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bucket is listed once."""
    for section, month in ((1, 2), (1, 11), (2, 2), (2, 3), (30, 11), (30, 1)):
        bucket.put(f"section/{section}/video/2024-{month:02}-05T00-00-00Z_1.jsonl", video(month))
    # The first object is in the first message, whatever its month. Otherwise the progress could not
    # get past a single message that SQS refused.
    with monkeypatch.context() as patch:
        refusing(patch, refused=3)
        answer = invoke(REQUEST)
    failed = "section/30/video/2024-01-05T00-00-00Z_1.jsonl"
    assert (answer["files_sent"], answer["failures"][0]["key"]) == (4, failed)
    assert invoke({"continuation_token": answer["continuation_token"]})["files_sent"] == 2
    bodies(backfill)
    answer = invoke(REQUEST)
    assert (answer["messages"], answer["list_calls"]) == (4, 1)
    sent = [[key.split("/")[1] for key in keys_in(body)] for body in bodies(backfill)]
    assert sent == [["1", "2"], ["1", "30"], ["2"], ["30"]]
    # A message can hold objects of several pages of the ledger.
    monkeypatch.setattr(sending, "PAGE_OBJECTS", 3)
    monkeypatch.setattr(messages, "MESSAGE_OBJECTS", 4)
    bucket.put_each(*(f"section/7/video/{number}.jsonl" for number in range(10)))
    assert invoke({**REQUEST, "section_id": 7})["messages"] == 3
    assert sorted(len(body["Records"]) for body in bodies(backfill)) == [2, 4, 4]


@pytest.mark.slow
def test_messages_that_want_different_things_are_right_in_one_invocation(
    bucket: Bucket, invoke: Invoke, ask: Ask, backfill: SimulatedQueue
) -> None:
    ask("SYSTEM STOP MERGES video_events")
    bucket.put_each(*map(key, range(3)))
    invoke({"mode": "bulk"})
    stored = "SELECT event_id, count() FROM video_events GROUP BY event_id ORDER BY event_id"
    force = {"force_reprocess": True}
    wishes: list[tuple[int, dict[str, bool]]] = [(0, {}), (1, force), (2, {}), (2, force)]
    for number, wish in wishes:
        record = {
            "eventSource": "aws:s3",
            "s3": {"bucket": {"name": bucket.name}, "object": {"key": key(number)}},
        }
        backfill.send({"backfill": wish, "Records": [record]})
    backfill.batch = 10
    assert backfill.deliver() == []
    assert [count for _, count in ask(stored)] == [1, 2, 2]


@pytest.mark.slow
@pytest.mark.fault(75, caught_by="continuation token")
@pytest.mark.parametrize(
    "seconds", [40, *(pytest.param(n, marks=pytest.mark.ci) for n in (10, 70, 100))]
)
def test_wherever_the_sender_is_stopped_the_token_continues_and_nothing_is_lost(
    bucket: Bucket,
    invoke: Invoke,
    ask: Ask,
    clickhouse: ClickHouseServer,
    backfill: SimulatedQueue,
    monkeypatch: pytest.MonkeyPatch,
    seconds: int,
) -> None:
    """Each look at the ledger and each call to SQS takes ten seconds."""
    monkeypatch.setattr(common, "PAGE_OBJECTS", 3)
    monkeypatch.setattr(messages, "MESSAGE_OBJECTS", 2)
    clock = Clock()
    call = sqs_calls._call

    def slowly(*arguments: Any) -> Any:
        clock.now += 10
        return call(*arguments)

    def time_passes() -> None:
        clock.now += 10

    monkeypatch.setattr(sqs_calls, "_call", slowly)
    before_ledger_lookups(clickhouse, time_passes)
    bucket.put_each(*map(key, range(10)))
    request: dict[str, Any] = REQUEST
    sent = 0
    with suppress(NothingDone):
        answer = invoke(request, seconds_left=seconds, clock=clock)
        assert answer["success"]
        sent = answer["files_sent"]
        token = answer["continuation_token"]
        request = {"continuation_token": token} if token else {}
    for answer in until_complete(invoke, request, seconds_left=200, clock=clock):
        assert answer["success"]
        sent += answer["files_sent"]
    clickhouse.hook = lambda *_: None
    assert sent >= 10
    backfill.run_until(MINUTE)
    assert ask(IDS) == ids(range(10))
    assert ask(LEDGER) == [[key(n), 1] for n in range(10)]


@pytest.mark.slow
@pytest.mark.fault(75, caught_by="continuation token; ledger")
def test_the_token_continues_before_the_first_message_that_was_not_acknowledged(
    bucket: Bucket,
    invoke: Invoke,
    ask: Ask,
    backfill: SimulatedQueue,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(messages, "MESSAGE_OBJECTS", 2)
    monkeypatch.setattr(common, "PAGE_OBJECTS", 4)
    bucket.put_each(*map(key, range(9)))
    invoke({"bucket": bucket.name, "key": key(3)})
    with monkeypatch.context() as patch:
        refusing(patch, refused=1)
        answer = invoke(REQUEST)
    # 0 and 1 are in the queue; then 2 and 4 were refused; the rest is there, and will be again.
    assert sqs_calls.depth(backfill.url)["waiting"] == 3
    assert (answer["success"], answer["complete"]) == (False, False)
    assert answer["stop_reason"] == "sending_failed"
    assert (answer["files_sent"], answer["messages"]) == (2, 3)
    (failure,) = answer["failures"]
    assert failure["key"] == key(2)
    assert failure["error"].startswith(
        f"{backfill.url} did not take 1 of 4 messages, InternalError: check"
    )
    rest = invoke({"continuation_token": answer["continuation_token"]})
    assert (rest["files_sent"], rest["files_skipped"], rest["complete"]) == (6, 1, True)
    backfill.run_until(MINUTE)
    assert ask(IDS) == ids(range(9))
    assert ask(ROWS) == [[9]]
    # A queue that takes nothing is named with the reason.
    bucket.put_each("section/77/video/a.jsonl")
    request = REQUEST | {"section_id": 77}
    said = r"1 of 1 messages, .*{}.*sqs:SendMessage"
    with monkeypatch.context() as patch:
        refusing(patch, refused=0, code="AccessDenied")
        with pytest.raises(NothingDone, match=said.format("AccessDenied")):
            invoke(request)
    monkeypatch.setenv("BACKFILL_QUEUE_URL", f"{backfill.url}-gone")
    with pytest.raises(NothingDone, match=said.format("NonExistentQueue")):
        invoke(request)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "done"), [("function", "files_processed"), ("queue", "files_sent")]
)
def test_if_the_rest_cannot_be_listed_the_token_continues_there(
    bucket: Bucket,
    invoke: Invoke,
    ask: Ask,
    backfill: SimulatedQueue,
    monkeypatch: pytest.MonkeyPatch,
    engine: str,
    done: str,
) -> None:
    bucket.put_each(*map(key, range(3)))
    small_pages(Settings.from_env(os.environ), 1)
    monkeypatch.setattr(listing, "PAGE_KEYS", 1)
    events = connections(Settings.from_env(os.environ)).s3.boto3.meta.events
    asked = []

    def fail(**_: Any) -> None:
        asked.append(1)
        if len(asked) > 2:
            raise EndpointConnectionError(endpoint_url="https://s3.example.org")

    # A page is given once the next one shows that the store lists in order.
    events.register("before-parameter-build.s3.ListObjectsV2", fail)
    answer = invoke({"engine": engine, "section_id": 1})
    assert (answer["success"], answer["complete"], answer[done]) == (False, False, 1)
    assert answer["stop_reason"] == "listing_failed"
    (failure,) = answer["failures"]
    assert failure["key"] == "section/1/"
    assert "S3 is out of reach" in failure["error"]
    events.unregister("before-parameter-build.s3.ListObjectsV2", fail)
    rest = invoke({"continuation_token": answer["continuation_token"]})
    assert (rest[done], rest["complete"]) == (2, True)
    backfill.run_until(MINUTE)
    assert ask(IDS) == ids(range(3))


@pytest.mark.slow
@pytest.mark.usefixtures("pauses")
def test_without_the_ledger_nothing_is_sent_and_the_token_continues(
    bucket: Bucket,
    invoke: Invoke,
    clickhouse: ClickHouseServer,
    backfill: SimulatedQueue,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(common, "PAGE_OBJECTS", 3)
    bucket.put_each(*map(key, range(6)))
    asked = []

    def second_look_fails() -> None:
        asked.append(1)
        if len(asked) > 1:
            raise RuntimeError("Code: 241. DB::Exception: Memory limit exceeded")

    before_ledger_lookups(clickhouse, second_look_fails)
    answer = invoke(REQUEST)
    clickhouse.hook = lambda *_: None
    assert (answer["success"], answer["files_sent"]) == (False, 3)
    assert "code 241" in answer["failures"][0]["error"]
    assert invoke({"continuation_token": answer["continuation_token"]})["files_sent"] == 3


@pytest.mark.slow
def test_no_more_objects_are_held_than_the_limit_however_few_are_new(
    bucket: Bucket, invoke: Invoke, backfill: SimulatedQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(common, "PAGE_OBJECTS", 2)
    monkeypatch.setattr(sending, "HELD_OBJECTS", 6)
    bucket.put_each(*map(key, range(20)))
    invoke({"mode": "bulk"})
    settings = Settings.from_env(os.environ)
    run = Run(settings, connections(settings), "bulk")
    taken = 0

    def objects() -> Iterator[S3Object]:
        nonlocal taken
        for obj in listing.listing(run.connections.s3, Scope(bucket.name, "section/")):
            taken += 1
            yield obj

    for number, outcome in enumerate(sending.send(objects(), run, Sent(5)), 1):
        assert outcome.status is Status.SKIPPED
        assert taken - number < 6

    for new in (5, 13):
        bucket.put(key(new), video(100 + new))
    taken = 0
    given: list[Status] = []
    for outcome in sending.send(objects(), run, Sent(5)):
        given.append(outcome.status)
        assert taken - len(given) < 6
    assert [n for n, status in enumerate(given) if status is Status.SENT] == [5, 13]
    assert [keys_in(body) for body in bodies(backfill)] == [[key(5)], [key(13)]]


def test_a_dry_run_says_what_would_be_sent_and_sends_nothing(
    bucket: Bucket, invoke: Invoke, backfill: SimulatedQueue
) -> None:
    for number in range(3):
        bucket.put(key(number, month=number + 1), body=b"x" * 120_000)
    answer = invoke({**REQUEST, "dry_run": True})
    assert (answer["files_found"], answer["files_sent"], answer["messages"]) == (3, 3, 3)
    assert answer["bytes_found"] == answer["bytes_sent"] == 360_000
    assert answer["files"] == [key(n, month=n + 1) for n in range(3)]
    assert answer["engine"] == "queue"
    assert bodies(backfill) == []


def test_minutes_are_those_of_as_many_invocations_as_run_at_once() -> None:
    def sent(concurrency: int, *seconds: float) -> Sent:
        made = Sent(concurrency)
        for one in seconds:
            made.add(messages.Outgoing((S3Object("b", "1.jsonl"),), "{}", one))
        return made

    # 1,200 messages of 9.9 seconds, and 0.1 for each invocation: 12,000 seconds.
    many = [9.9] * 1200
    assert sent(5, *many).minutes == pytest.approx(40)
    assert sent(100, *many).minutes == pytest.approx(2)
    # The longest message is not divided.
    assert sent(100, 11.9, 1.9).minutes == pytest.approx(0.2)
    assert sent(5).minutes == 0
    assert sent(5, *[9.9] * 2000).body()["estimated_minutes"] == 66.7
