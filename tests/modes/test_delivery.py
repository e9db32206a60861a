"""What SQS and Lambda do: deliver twice, late, in part or in parallel, kill, run out of time."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote_plus

import pytest

from local.clickhouse_server import ClickHouseServer
from tests.conftest import Ask, Bucket, Invoke, before_ledger_lookups
from tests.faults import child
from tests.support.clocks import run_out_of_time_after
from tests.support.event_source_mapping import failed_messages
from tests.support.reader import IDS, ROWS, ids
from tests.support.samples import BAD_LINE, context, event_id, notification, sqs, video
from tests.support.simulated_queue import simulated_queue
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.errors import EventFailed
from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.common import process
from xapi_etl_processor.lambda_function import handler
from xapi_etl_processor.pipeline import batch
from xapi_etl_processor.run import Run, connections
from xapi_etl_processor.s3.objects import S3Object
from xapi_etl_processor.xapi.chunk import Chunk
from xapi_etl_processor.xapi.transpose import to_columns

pytestmark = pytest.mark.usefixtures("settings")

LEDGER = "SELECT key, lines, video, rejected FROM processed_files FINAL ORDER BY key"


def keys(count: int) -> list[str]:
    return [f"section/1/video/2024-01-01T12-00-{n:02}Z_{n}.jsonl" for n in range(count)]


def uploaded(bucket: Bucket, names: list[str]) -> dict[str, Any]:
    """Upload bundles of one video statement each, numbered from 0; returns a message for each."""
    for n, key in enumerate(names):
        bucket.put(key, video(n))
    return {f"id{n}": notification(bucket.name, key) for n, key in enumerate(names)}


def deliver(
    messages: dict[str, Any], seconds_left: float = 60, clock: Callable[[], float] = time.monotonic
) -> dict[str, Any]:
    """The messages left after one invocation, by Lambda's own rules."""
    answer = handler(sqs(**messages), context(seconds_left, clock))
    failed = failed_messages(list(messages), json.dumps(answer).encode())
    return {name: body for name, body in messages.items() if name in failed}


class OutOfMemory:
    """Values that cannot be copied for lack of memory."""

    def __iter__(self) -> Iterator[Any]:
        raise MemoryError


@pytest.mark.slow
@pytest.mark.fault(8, 65, caught_by="error isolation per object")
def test_running_out_of_memory_while_a_batch_grows_fails_only_that_object(
    bucket: Bucket, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = keys(4)
    messages = uploaded(bucket, names)
    # The objects after it also fill a column that the batch did not have before.
    for n in (2, 3):
        bucket.put(names[n], video(n, result={"completion": True}))
    chunks: list[Chunk] = []

    def second_is_short(chunk: Chunk) -> Any:
        """Memory runs out at the second of two columns."""
        chunks.append(chunk)
        columns = to_columns(chunk)
        short = {"event_id": columns["event_id"], "user_id": OutOfMemory()}
        return short if len(chunks) == 2 else columns

    monkeypatch.setattr(batch, "to_columns", second_is_short)
    assert deliver(messages).keys() == {"id1"}
    assert ask(IDS) == ids(range(1)) + ids(range(2, 4))
    assert ask("SELECT count() FROM processed_files FINAL") == [[3]]
    assert deliver(messages) == {}
    assert ask(IDS) == ids(range(4))


@pytest.mark.slow
@pytest.mark.fault(8, caught_by="error isolation per object")
def test_a_defect_while_storing_fails_only_what_was_not_stored(
    bucket: Bucket, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCH_ROWS", "1")
    names = keys(4)
    messages = uploaded(bucket, names)
    original = ClickHouse.insert
    inserts: list[str] = []

    def broken(clickhouse: ClickHouse, table: str, *arguments: Any) -> None:
        if table == "video_events":
            inserts.append(table)
            if len(inserts) == 3:
                raise ZeroDivisionError
        original(clickhouse, table, *arguments)

    monkeypatch.setattr(ClickHouse, "insert", broken)
    left = deliver(messages)
    assert 0 < len(left) < 4
    assert ask("SELECT count() FROM processed_files FINAL") == [[4 - len(left)]]
    assert deliver(messages) == {}
    assert ask(IDS) == ids(range(4))


@pytest.mark.slow
@pytest.mark.fault(9, caught_by="partial batch response; ledger")
@pytest.mark.fault(10, caught_by="format of the answer")
def test_one_record_of_a_message_fails_and_the_others_are_not_doubled(
    bucket: Bucket, ask: Ask
) -> None:
    names = keys(3)
    for n in (0, 2):
        bucket.put(names[n], video(n))
    batch_ = sqs(some=notification(bucket.name, *names), one=notification(bucket.name, names[0]))
    assert handler(batch_, context()) == {"batchItemFailures": [{"itemIdentifier": "some"}]}
    assert ask(IDS) == [[event_id(0)], [event_id(2)]]
    bucket.put(names[1], video(1))
    assert handler(batch_, context()) == {"batchItemFailures": []}
    assert ask(IDS) == ids(range(3))
    assert ask(ROWS) == [[3]]


@pytest.mark.slow
@pytest.mark.fault(12, 14, caught_by="deadline; partial batch response")
def test_when_time_runs_out_only_finished_messages_are_not_delivered_again(
    bucket: Bucket, ask: Ask, clickhouse: ClickHouseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCH_ROWS", "1")
    names = keys(6)
    messages = uploaded(bucket, names)
    assert deliver(messages, seconds_left=0) == messages
    with pytest.raises(EventFailed, match="time ran out"):
        handler(notification(bucket.name, *names), context(0))
    assert ask(ROWS) == [[0]]
    clock = run_out_of_time_after(clickhouse, inserts=3)
    left = deliver(messages, clock=clock).keys()
    # The fourth may have been read while the third was on its way.
    assert left in ({"id3", "id4", "id5"}, {"id4", "id5"})
    done = 6 - len(left)
    assert ask(IDS) == ids(range(done))
    assert ask(LEDGER) == [[key, 1, 1, 0] for key in names[:done]]
    assert deliver(messages) == {}
    assert ask(ROWS) == [[6]]


@pytest.mark.slow
@pytest.mark.fault(12, caught_by="deadline")
def test_an_object_unfinished_when_time_runs_out_is_not_in_the_ledger(
    bucket: Bucket, ask: Ask, clickhouse: ClickHouseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCH_ROWS", "500")
    key = bucket.put(keys(1)[0], body=b"".join(line(n) for n in range(3000)))
    clock = run_out_of_time_after(clickhouse, inserts=1)
    with pytest.raises(EventFailed, match=r"time ran out at line \d+: give the function more"):
        handler(notification(bucket.name, key), context(clock=clock))
    assert ask("SELECT count() FROM processed_files") == [[0]]
    handler(notification(bucket.name, key), context())
    assert ask("SELECT count() FROM video_events FINAL") == [[3000]]


def line(number: int) -> bytes:
    """A line so long that a few hundred fill several chunks, and so several batches."""
    return json.dumps(video(number, padding="x" * 1000)).encode() + b"\n"


@pytest.mark.slow
@pytest.mark.fault(13, caught_by="row identity; ledger written last")
def test_a_loader_of_several_objects_that_is_killed_loses_and_doubles_nothing(
    bucket: Bucket, ask: Ask, clickhouse: ClickHouseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is killed when all but the ledger is stored. test_crash_points.py kills a loader of one
    object at every message.
    """
    names = keys(2)
    for n, key in enumerate(names):
        lines = b"".join(line(1000 * n + m) for m in range(250))
        bucket.put(key, body=lines + BAD_LINE + b"\n")
    started = threading.Event()

    def kill(point: str, sql: str) -> None:
        if point == "block" and ".processed_files " in sql:
            assert started.wait(30)
            killed.send_signal(signal.SIGKILL)
            killed.wait(30)

    clickhouse.hook = kill
    monkeypatch.setenv("BATCH_ROWS", "100")
    killed = child.start({"mode": "bulk"})
    started.set()
    assert killed.wait(60) == -signal.SIGKILL
    killed.communicate()
    clickhouse.hook = lambda *_: None
    # No lock is left behind: the next delivery succeeds by itself.
    body = json.loads(handler({"mode": "bulk"}, context())["body"])
    assert (body["success"], body["complete"]) == (True, True)
    assert ask(IDS) == ids(range(250)) + ids(range(1000, 1250))
    assert ask(LEDGER) == [[key, 251, 250, 1] for key in names]
    rejected = "SELECT source_file, source_line FROM rejected_statements FINAL ORDER BY 1"
    assert ask(rejected) == [[bucket.uri(key), 251] for key in names]


@pytest.mark.slow
@pytest.mark.fault(15, caught_by="ledger; row identity")
@pytest.mark.fault(2, caught_by="row identity")
def test_a_message_delivered_again_while_in_progress_counts_once(
    bucket: Bucket, ask: Ask, clickhouse: ClickHouseServer
) -> None:
    key = bucket.put(keys(1)[0], *(video(n) for n in range(50)))
    started, go_on = threading.Event(), threading.Event()
    first_insert = iter([True])

    def hold_the_first(point: str, sql: str) -> None:
        if point == "insert" and ".video_events " in sql and next(first_insert, False):
            started.set()
            assert go_on.wait(30)

    clickhouse.hook = hold_the_first
    slow = child.start({"bucket": bucket.name, "key": key})
    assert started.wait(30)
    assert deliver({"again": notification(bucket.name, key)}) == {}
    go_on.set()
    assert child.body_of(slow)["success"] is True
    assert ask(IDS) == ids(range(50))
    assert ask(LEDGER) == [[key, 50, 50, 0]]


@pytest.mark.slow
@pytest.mark.fault(48, caught_by="ledger; row identity")
def test_a_backfill_at_the_same_time_as_live_events_counts_each_statement_once(
    bucket: Bucket, ask: Ask, clickhouse: ClickHouseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = keys(10)
    for n, key in enumerate(names):
        bucket.put(key, *(video(100 * n + m) for m in range(20)))
    asked = threading.Barrier(2)
    # Each waits until the other has asked the ledger, which is empty.
    before_ledger_lookups(clickhouse, lambda: asked.wait(60))
    backfill = child.start({"section_id": 1}, BATCH_ROWS="90")
    # Their batches end at different rows.
    monkeypatch.setenv("BATCH_ROWS", "70")
    assert deliver({"live": notification(bucket.name, *names)}) == {}
    body = child.body_of(backfill)
    assert (body["success"], body["complete"]) == (True, True)
    assert ask("SELECT count(), uniqExact(event_id) FROM video_events FINAL") == [[200, 200]]
    assert ask(LEDGER) == [[key, 20, 20, 0] for key in names]


@pytest.mark.ci
@pytest.mark.slow
@pytest.mark.fault(16, caught_by="limits of an answer")
@pytest.mark.check("S13")
def test_answers_stay_small_whatever_is_sent(bucket: Bucket) -> None:
    names = [f"section/1/video/{'x' * 900}{n}.jsonl" for n in range(105)]
    bucket.put(names[0], video(1))
    with pytest.raises(EventFailed) as caught:
        handler(notification(bucket.name, *names), context())
    assert "104 of 105 objects failed" in str(caught.value)
    assert len(str(caught.value)) < 100_000
    long = "9" * 1_000_000
    for payload in ({long: 1}, {"mode": "bulk", "section_id": long}, {"mode": "bulk", long: 1}):
        answer = handler(payload, context())
        assert (answer["statusCode"], len(json.dumps(answer)) < 10_000) == (400, True)


@pytest.mark.slow
@pytest.mark.fault(5, caught_by="keys are decoded once")
def test_keys_in_s3_notifications_are_decoded_once_and_listed_keys_never(
    bucket: Bucket, invoke: Invoke, ask: Ask, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = ["a b", "a+b", "a%2Bb", "a=b:c", "é", "%20", "&amp;"]
    names = [f"section/1/video/{name}.jsonl" for name in odd]
    queue = simulated_queue(settings, monkeypatch)
    queue.notify_of(bucket.name)
    for n, key in enumerate(names):
        bucket.put(key, video(n))
    records = queue.receive()
    # S3's test event came first; it names no object.
    assert "s3:TestEvent" in str(records)
    assert quote_plus("section/1/video/a b.jsonl") in str(records)
    assert queue.invoke(records) == {"batchItemFailures": []}
    assert ask("SELECT source_file FROM video_events FINAL ORDER BY 1") == sorted(
        [bucket.uri(key)] for key in names
    )
    assert invoke({"section_id": 1})["files_skipped"] == len(names)
    for key in names:
        assert invoke({"bucket": bucket.name, "key": key})["files_skipped"] == 1


@pytest.mark.slow
@pytest.mark.fault(33, caught_by="only connections outlive an invocation")
def test_an_abandoned_invocation_does_not_affect_the_next_one(
    bucket: Bucket, invoke: Invoke, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCH_ROWS", "10")
    names = keys(3)
    for n, key in enumerate(names):
        bucket.put(key, *(video(100 * n + m) for m in range(15)))
    warm = Settings.from_env(os.environ)
    abandoned: Any = process(
        [S3Object(bucket.name, key) for key in names[:2]], Run(warm, connections(warm), "event")
    )
    next(abandoned)  # Never continued: the second object is not in the ledger yet.
    assert invoke(notification(bucket.name, names[2]))["video_events_processed"] == 15
    assert ask(LEDGER) == [[key, 15, 15, 0] for key in (names[0], names[2])]
    assert invoke({"section_id": 1})["files_processed"] == 1
    assert ask(IDS) == [row for n in range(3) for row in ids(range(100 * n, 100 * n + 15))]
    abandoned.close()
