"""Failed messages: tried again after pauses that grow; poison is a dead letter, an outage is not.

Time is simulated, and the handler, S3, SQS and ClickHouse are real: see simulated_queue.py.
"""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from local.clickhouse_server import ClickHouseServer
from tests.conftest import PASSWORD, Ask, Bucket, forget_connections
from tests.faults.http_proxy import Answer, S3Proxy
from tests.support.backfills import key
from tests.support.clocks import Clock
from tests.support.reader import IDS, ROWS, ids
from tests.support.samples import BAD_LINE, context, notification, video
from tests.support.simulated_queue import HOUR, MINUTE, SimulatedQueue, simulated_queue
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.lambda_function import handler
from xapi_etl_processor.queues import sqs as sqs_calls
from xapi_etl_processor.queues.sqs import pause_seconds
from xapi_etl_processor.s3 import bundle, client
from xapi_etl_processor.xapi.lines import MIB
from xapi_etl_processor.xapi.parse import parse

GONE = "section/1/video/gone.jsonl"


@pytest.fixture
def queue(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> SimulatedQueue:
    return simulated_queue(settings, monkeypatch)


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that refuses connections as long as the test lasts."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture
def no_clickhouse(
    closed_port: int, pauses: list[float], monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    """ClickHouse refuses connections, until a test sets CLICKHOUSE_PORT."""
    monkeypatch.setenv("CLICKHOUSE_PORT", str(closed_port))


def fifth_delivery(queue: SimulatedQueue) -> list[dict[str, Any]]:
    """The messages that wait, as if they had been delivered four times before."""
    records = queue.receive()
    for record in records:
        record["attributes"]["ApproximateReceiveCount"] = "5"
    return records


@pytest.mark.slow
@pytest.mark.fault(23, 70, caught_by="growing pauses; only poison becomes a dead letter")
@pytest.mark.usefixtures("no_clickhouse")
def test_after_hours_without_clickhouse_only_poison_is_dead_and_the_rest_is_soon_stored(
    bucket: Bucket,
    queue: SimulatedQueue,
    ask: Ask,
    clickhouse: ClickHouseServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert [pause_seconds(n) / MINUTE for n in (0, 1, 4, 5, 999)] == [1, 1, 8, 10, 10]
    # This message waits: one of its two objects can be stored later.
    queue.send(notification(bucket.name, GONE, bucket.put(key(5), video(5))))
    queue.notify_of(bucket.name)
    bucket.put_each(*map(key, range(3)))
    bucket.put(key(50), video(50))
    bucket.client.delete_object(Bucket=bucket.name, Key=key(50))
    bucket.put(key(51), body=gzip.compress(json.dumps(video(51)).encode())[:-5])
    queue.run_until(46 * MINUTE)
    minutes = [0, 1, 3, 7, 15, 25, 35, 45]
    assert queue.deliveries == pytest.approx([m * MINUTE for m in minutes], abs=1)
    assert sorted(queue.reasons()) == [
        f"{bucket.uri(key(50))} does not exist: check the key; if it was deleted, restore it, or"
        " drop the message (NoSuchKey: The specified key does not exist.)",
        f"{bucket.uri(key(51))}: gzip stream is cut short: upload it again",
    ]
    queue.send("no event")
    bucket.put(key(3), video(3))
    queue.run_until(2 * HOUR - MINUTE)
    assert "no event" in [letter["Body"] for letter in queue.dead_letters()]
    bucket.put(key(4), video(4))
    queue.run_until(2 * HOUR)
    assert ask(ROWS) == [[0]]

    monkeypatch.setenv("CLICKHOUSE_PORT", str(clickhouse.port))
    queue.run_until(2 * HOUR + 10 * MINUTE)
    assert ask(IDS) == ids(range(6))
    assert ask(ROWS) == [[6]]
    assert queue.is_empty
    assert [GONE in reason for reason in queue.reasons()].count(True) == 1
    assert len(queue.dead_letters()) == 4


@pytest.mark.ci
@pytest.mark.slow
@pytest.mark.fault(7, 17, 55, 59, caught_by="dead letter")
@pytest.mark.usefixtures("logged_to_standard_output")
def test_poison_of_every_kind_is_a_dead_letter_with_its_reason_after_a_quarter_of_an_hour(
    bucket: Bucket,
    queue: SimulatedQueue,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(bundle, "MAX_OBJECT_BYTES", MIB)
    defect = bucket.put(key(9), video(9))

    def broken(lines: list[bytes], number: int, source: Any, *more: Any) -> Any:
        if source.file == bucket.uri(defect):
            raise ZeroDivisionError
        return parse(lines, number, source, *more)

    monkeypatch.setattr(bundle, "parse", broken)
    archived = bucket.put(key(8), video(8))
    bucket.client.put_object(Bucket=bucket.name, Key=archived, Body=b"", StorageClass="GLACIER")
    objects = {
        GONE: "does not exist",
        "elsewhere/a.jsonl": "not in the folder of the bundles",
        bucket.put(key(1), body=gzip.compress(b"{}")[:-5]): "cut short",
        bucket.put(key(2), BAD_LINE): "none of its lines is a statement",
        bucket.put(key(3), body=b" " * 2_000_000): "more than 1 MiB",
        archived: "is archived",
        defect: "ZeroDivisionError at",
    }
    expected = {json.dumps(notification(bucket.name, one)): why for one, why in objects.items()}
    expected |= {"no event": "not JSON", '{"Records": []}': "not an S3 event"}
    for body in expected:
        queue.send(body)

    queue.run_until(14 * MINUTE)
    assert queue.dead_letters() == []
    capfd.readouterr()
    queue.run_until(16 * MINUTE)

    assert queue.is_empty
    dead = {one["Body"]: one["MessageAttributes"] for one in queue.dead_letters()}
    assert dead.keys() == expected.keys()
    for body, why in expected.items():
        assert why in dead[body]["reason"]["StringValue"]
    assert len(queue.deliveries) == 5

    # The log and the metrics name these dead letters too.
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    (named,) = (line for line in lines if line.get("message") == "sent to the dead-letter queue")
    assert {one["reason"] for one in named["dead_letters"]} == set(queue.reasons())
    assert len({one["message"] for one in named["dead_letters"]}) == len(expected)
    (ended,) = (line["summary"] for line in lines if line.get("message") == "event ended")
    assert (ended["dead_letters"], ended["success"]) == (len(expected), False)
    (metrics,) = (line for line in lines if "_aws" in line)
    assert (metrics["dead_letters"], metrics["success"]) == ([len(expected)], [0])


@pytest.mark.slow
@pytest.mark.fault(18, 19, 36, 63, caught_by="only poison becomes a dead letter")
@pytest.mark.usefixtures("pauses")
def test_what_a_service_or_the_configuration_is_at_fault_for_waits_until_that_is_mended(
    bucket: Bucket, queue: SimulatedQueue, store: S3Proxy, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "ATTEMPTS", 2)
    answers = {key(0): Answer("AccessDenied", 403), key(1): Answer("SlowDown", 503)}
    store.rule = lambda request: answers.get(request.path.partition(f"/{bucket.name}/")[2])
    for number in range(2):
        queue.send(notification(bucket.name, bucket.put(key(number), video(number))))
    queue.run_until(20 * MINUTE)
    assert ask(ROWS) == [[0]]
    store.rule = lambda _: None
    queue.run_until(35 * MINUTE)
    assert ask(IDS) == ids(range(2))
    monkeypatch.setenv("CLICKHOUSE_PASSWORD", "wrong")
    queue.send(notification(bucket.name, bucket.put(key(2), video(2))))
    queue.run_until(60 * MINUTE)
    assert queue.dead_letters() == []
    monkeypatch.setenv("CLICKHOUSE_PASSWORD", PASSWORD)
    queue.run_until(70 * MINUTE)
    assert ask(IDS) == ids(range(3))
    # The key of pseudonyms cannot be read.
    arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:no-such-key-abcdef"
    monkeypatch.setenv("LEARNER_IDS", "pseudonyms")
    monkeypatch.setenv("LEARNER_KEY_SECRET_ARN", arn)
    queue.send(notification(bucket.name, bucket.put(key(3), video(3))))
    queue.run_until(100 * MINUTE)
    assert queue.dead_letters() == []
    monkeypatch.delenv("LEARNER_KEY_SECRET_ARN")
    monkeypatch.setenv("LEARNER_KEY", "k" * 32)
    queue.run_until(115 * MINUTE)
    assert ask(IDS) == ids(range(4))
    assert queue.is_empty


@pytest.mark.slow
@pytest.mark.fault(70, caught_by="objects are checked before ClickHouse is asked")
def test_poison_is_found_even_if_clickhouse_takes_all_the_time(
    bucket: Bucket, queue: SimulatedQueue, clickhouse: ClickHouseServer
) -> None:
    clock = Clock()

    def slow(point: str, sql: str) -> None:
        if point == "query" and "processed_files" in sql:
            clock.now += 56  # of 60: nothing is read any more, and SQS can still be told

    clickhouse.hook = slow
    gone = notification(bucket.name, GONE)
    gone["Records"][0]["s3"]["object"]["eTag"] = "0" * 32
    queue.send(gone)
    for _ in range(5):
        assert queue.dead_letters() == []
        queue.now = queue.next_visible()
        queue.deliver(60, clock)
    assert len(queue.reasons()) == 1
    assert queue.is_empty


@pytest.mark.fault(1, 17, caught_by="ledger")
def test_an_object_that_was_stored_and_then_deleted_is_no_poison(
    bucket: Bucket, queue: SimulatedQueue
) -> None:
    queue.notify_of(bucket.name)
    bucket.put(key(1), video(1))
    queue.deliver()
    bucket.put(key(1), video(1))
    bucket.client.delete_object(Bucket=bucket.name, Key=key(1))
    (record,) = fifth_delivery(queue)
    assert queue.invoke([record]) == {"batchItemFailures": []}
    assert queue.dead_letters() == []


@pytest.mark.slow
@pytest.mark.fault(61, caught_by="SQS restarts its count; ledger")
def test_a_dead_letter_that_is_moved_back_is_a_message_like_any_other(
    bucket: Bucket, queue: SimulatedQueue, ask: Ask
) -> None:
    queue.send(notification(bucket.name, GONE))
    queue.run_until(16 * MINUTE)
    (letter,) = queue.dead_letters()
    queue.sqs.purge_queue(QueueUrl=queue.dead_url)
    queue.send(letter["Body"])
    queue.run_until(30 * MINUTE)
    assert queue.dead_letters() == []
    bucket.put(GONE, video(1))
    queue.run_until(32 * MINUTE)
    assert ask(IDS) == ids(range(1, 2))
    assert queue.is_empty
    assert queue.dead_letters() == []


@pytest.mark.slow
@pytest.mark.fault(16, caught_by="limits of a call")
def test_a_large_batch_is_given_back_and_sent_in_calls_that_sqs_takes(
    queue: SimulatedQueue,
) -> None:
    calls: list[int] = []
    sqs_calls.client().meta.events.register(
        "before-parameter-build.sqs", lambda params, **_: calls.append(len(params["Entries"]))
    )
    for number in range(25):
        queue.send(f"no event {number}")
    queue.deliver()
    assert calls == [10, 10, 5]
    assert queue.receive() == []
    queue.run_until(14 * MINUTE)
    calls.clear()
    for number in range(3):
        queue.send(f"{number}" * 100_000)
    queue.run_until(40 * MINUTE)
    assert queue.is_empty
    assert queue.dead_count() == 28
    # The dead letters: those of 100 kB two by two.
    assert calls[-2:] == [2, 1]


@pytest.mark.slow
@pytest.mark.fault(60, caught_by="a dead letter counts once SQS has acknowledged it")
def test_poison_that_sqs_does_not_take_stays_and_is_sent_later(queue: SimulatedQueue) -> None:
    def refuse_the_first(parsed: dict[str, Any], **_: Any) -> None:
        first, *rest = parsed["Successful"]
        refused = {"Id": first["Id"], "Code": "InternalError", "SenderFault": False}
        parsed.update(Successful=rest, Failed=[refused])

    queue.sqs.delete_queue(QueueUrl=queue.dead_url)
    queue.send("no event")
    queue.run_until(20 * MINUTE)
    assert len(queue.deliveries) == 5
    assert not queue.is_empty
    queue.sqs.create_queue(QueueName=queue.dead_url.rpartition("/")[2])
    queue.run_until(30 * MINUTE)
    assert queue.deliveries[-1] == pytest.approx(25 * MINUTE, abs=1)
    assert len(queue.reasons()) == 1
    assert queue.is_empty
    # moto takes or refuses a call as a whole.
    sqs_calls.client().meta.events.register("after-call.sqs.SendMessageBatch", refuse_the_first)
    for number in range(3):
        queue.send(f"no event {number}")
    queue.run_until(44 * MINUTE)
    queue.now = queue.next_visible()
    (left,) = queue.deliver()
    assert left == "no event 0"


@pytest.mark.slow
@pytest.mark.fault(60, caught_by="visibility timeout")
@pytest.mark.usefixtures("logged_to_standard_output")
def test_a_message_that_cannot_be_given_back_comes_again_by_the_queues_own_timeout(
    queue: SimulatedQueue, capfd: pytest.CaptureFixture[str]
) -> None:
    queue.send("no event 0")
    queue.send("no event 1")
    records = queue.receive()
    records[0]["receiptHandle"] = "not a handle"
    named = {item["itemIdentifier"] for item in queue.invoke(records)["batchItemFailures"]}
    assert named == {record["messageId"] for record in records}
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    (warned,) = (line for line in lines if line.get("level") == "WARNING")
    assert (warned["messages"], warned["error"]) == (1, "ReceiptHandleIsInvalid")
    queue.now = 34 * MINUTE
    assert [one["messageId"] for one in queue.receive()] == [records[1]["messageId"]]
    queue.now = 36 * MINUTE
    assert records[0]["messageId"] in [one["messageId"] for one in queue.receive()]


@pytest.mark.slow
@pytest.mark.fault(60, caught_by="short timeouts; visibility timeout")
@pytest.mark.usefixtures("pauses")
def test_without_a_way_to_sqs_the_answer_comes_in_time_and_keeps_every_message(
    queue: SimulatedQueue, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(25):
        queue.send(f"no event {number}")
    records = fifth_delivery(queue)
    monkeypatch.setattr(sqs_calls, "READ_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for port in (closed_port, silent.getsockname()[1]):
            monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", f"http://127.0.0.1:{port}")
            forget_connections()
            attempts: list[str] = []
            sqs_calls.client().meta.events.register(
                "before-send.sqs", lambda request, seen=attempts, **_: seen.append(request.url)
            )
            assert len(queue.invoke(records)["batchItemFailures"]) == 25
            # Two attempts to send and two to give back. Then it gives up: more would fail too.
            assert len(attempts) == 4
    queue.now = 36 * MINUTE
    assert len(queue.receive()) == 25


@pytest.mark.slow
@pytest.mark.fault(45, caught_by="no call to SQS")
def test_a_dry_run_a_message_of_another_queue_and_a_missing_url_leave_sqs_alone(
    queue: SimulatedQueue, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.send(notification(bucket.name, GONE))
    (record,) = fifth_delivery(queue)
    other = {**record, "eventSourceARN": f"{queue.arn}-other"}
    failed = {"batchItemFailures": [{"itemIdentifier": record["messageId"]}]}
    assert handler({"Records": [record], "dry_run": True}, context()) == failed
    assert handler({"Records": [other]}, context()) == failed
    for missing in ("SQS_QUEUE_URL", "SQS_DEAD_LETTER_QUEUE_URL"):
        with monkeypatch.context() as patch:
            patch.delenv(missing)
            assert queue.invoke([record]) == failed
    assert queue.dead_letters() == []
    queue.now = 34 * MINUTE
    assert queue.receive() == []


@pytest.mark.check("S10")
def test_a_reason_is_short_and_has_only_characters_that_sqs_takes(
    bucket: Bucket, queue: SimulatedQueue
) -> None:
    odd = f"elsewhere/\x01\ufffe\U0001f600{'x' * 1000}"
    queue.send({"bucket": bucket.name, "key": odd})
    (record,) = fifth_delivery(queue)
    assert queue.invoke([record]) == {"batchItemFailures": []}
    (reason,) = queue.reasons()
    assert reason == f"s3://{bucket.name}/elsewhere/??\U0001f600{'x' * 1000}"[:1000]
