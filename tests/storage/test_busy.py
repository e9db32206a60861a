"""A ClickHouse that is up and has too much to do: loading waits, then comes back later."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest

from local.clickhouse_server import ClickHouseServer
from tests.conftest import Ask, Bucket, Invoke
from tests.support.clocks import Clock
from tests.support.reader import IDS, ids
from tests.support.refusals import refuse, watch
from tests.support.samples import notification, video
from tests.support.simulated_queue import HOUR, MINUTE, simulated_queue
from xapi_etl_processor import common
from xapi_etl_processor.base import attempts
from xapi_etl_processor.base.attempts import LONGEST_PAUSE_SECONDS
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.errors import (
    ClickHouseBusy,
    ClickHouseUnavailable,
    EventFailed,
)
from xapi_etl_processor.cli import main
from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.queues.sqs import pause_seconds

FEW = 40
"""Seconds for which a busy server is waited for, instead of minutes."""

ROWS: dict[str, list[Any]] = {"source_file": ["a"], "source_line": [1], "line": ["text"]}


def key(number: int) -> str:
    return f"section/1/video/2024-01-01T12-00-{number:02}Z_{number}.jsonl"


@pytest.fixture
def too_many_parts(bucket: Bucket, invoke: Invoke, ask: Ask) -> None:
    """A table whose month has as many parts as it may, and whose merges do not go on."""
    ask("SYSTEM STOP MERGES video_events")
    ask("ALTER TABLE video_events MODIFY SETTING parts_to_throw_insert = 2")
    for number in range(2):
        invoke({"bucket": bucket.name, "key": bucket.put(key(number), video(number))})


def merged(ask: Ask) -> None:
    """What merges do when they go on."""
    ask("SYSTEM START MERGES video_events")
    ask("OPTIMIZE TABLE video_events FINAL")


@pytest.mark.slow
@pytest.mark.fault(
    34,
    caught_by="growing pauses; the wait ends before the invocation; redelivery",
)
def test_an_event_waits_until_merges_have_caught_up_or_time_runs_out(
    bucket: Bucket,
    too_many_parts: None,
    invoke: Invoke,
    ask: Ask,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, pauses, caught_up_after = Clock(), [], 100

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        clock.now += seconds
        if len(pauses) == caught_up_after:
            merged(ask)

    monkeypatch.setattr("xapi_etl_processor.base.attempts.time.sleep", sleep)
    event = notification(bucket.name, bucket.put(key(7), video(7)))
    with pytest.raises(EventFailed, match="TOO_MANY_PARTS: .*Too many parts .*merges lag behind"):
        invoke(event, 300, clock)
    assert 240 < clock.now < 300
    caught_up_after = 7
    pauses.clear()
    assert invoke(event, 300, clock)["files_processed"] == 1
    assert ask(IDS) == [*ids(range(2)), *ids(range(7, 8))]
    # Each pause is at most its longest, which doubles, and at least half of that.
    longest = [1, 2, 4, 8, 16, 30, 30]
    assert all(most / 2 <= pause <= most for pause, most in zip(pauses, longest, strict=True))


@pytest.mark.slow
@pytest.mark.fault(34, caught_by="redelivery; only poison becomes a dead letter")
@pytest.mark.ci
def test_messages_come_back_after_ten_to_fifteen_minutes_and_none_becomes_a_dead_letter(
    bucket: Bucket,
    too_many_parts: None,
    settings: Settings,
    ask: Ask,
    pauses: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seconds = {pause_seconds(receives, busy=True) for receives in (1, 5, 100) for _ in range(100)}
    assert 600 <= min(seconds) < 650
    assert 850 < max(seconds) <= 900
    monkeypatch.setattr(attempts, "BUSY_SECONDS", 2)
    queue = simulated_queue(settings, monkeypatch)
    queue.send(notification(bucket.name, bucket.put(key(7), video(7))))
    # Poison would be a dead letter after the fifth delivery.
    queue.run_until(1.5 * HOUR)
    between = [b - a for a, b in pairwise(queue.deliveries)]
    assert len(between) >= 5
    assert all(10 * MINUTE - 1 <= pause <= 15 * MINUTE + 1 for pause in between)
    assert max(between) - min(between) > 5
    assert queue.dead_letters() == []
    merged(ask)
    queue.run_until(1.5 * HOUR + 15 * MINUTE)
    assert queue.is_empty
    assert ask(IDS) == [*ids(range(2)), *ids(range(7, 8))]


@pytest.mark.ci
@pytest.mark.slow
@pytest.mark.usefixtures("own_stream")
def test_bulk_waits_then_stops_with_a_token_that_continues_where_nothing_is_stored_yet(
    bucket: Bucket,
    settings: Settings,
    ask: Ask,
    pauses: list[float],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attempts, "BUSY_SECONDS", FEW)
    monkeypatch.setenv("BATCH_ROWS", "1")
    ask("SYSTEM STOP MERGES video_events")
    ask("ALTER TABLE video_events MODIFY SETTING parts_to_throw_insert = 2")
    bucket.put_each(*map(key, range(5)))
    assert main(["bulk"]) == 1
    stopped = json.loads(capsys.readouterr().out)
    assert (stopped["files_processed"], stopped["files_failed"]) == (1, 0)
    assert (stopped["success"], stopped["complete"]) == (False, False)
    assert stopped["stop_reason"] == "busy"
    [failure] = stopped["failures"]
    # The row of the second object is stored, and its ledger row waits for the third's.
    assert failure["key"] == key(1)
    assert failure["error"].endswith("; continue in some minutes, with the continuation token")
    assert FEW <= sum(pauses) < FEW + LONGEST_PAUSE_SECONDS
    token = stopped["continuation_token"]
    # Where nothing could be stored, there is no token to continue with.
    assert main(["bulk", "--token", token]) == 1
    assert "send the same request again in some" in capsys.readouterr().err
    merged(ask)
    ask("ALTER TABLE video_events RESET SETTING parts_to_throw_insert")
    assert main(["bulk", "--token", token]) == 0
    rest = json.loads(capsys.readouterr().out)
    assert (rest["files_processed"], rest["complete"]) == (4, True)
    assert ask(IDS) == ids(range(5))


@pytest.mark.fault(34, caught_by="queries wait for a busy server too")
def test_a_busy_ledger_is_waited_for_and_rows_read_before_are_stored(
    bucket: Bucket,
    invoke: Invoke,
    ask: Ask,
    clickhouse: ClickHouseServer,
    pauses: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attempts, "BUSY_SECONDS", FEW)
    monkeypatch.setattr(common, "PAGE_OBJECTS", 2)
    bucket.put_each(*map(key, range(4)))

    def be_busy() -> None:
        if len(asked) > 1:
            raise RuntimeError("Code: 202. DB::Exception: Too many simultaneous queries")

    asked = watch(clickhouse, "query", r"\(bucket, key, etag\) IN", be_busy)
    answer = invoke({"mode": "bulk"}, 900)
    assert FEW <= sum(pauses) < FEW + LONGEST_PAUSE_SECONDS
    assert (answer["files_processed"], answer["files_failed"]) == (2, 0)
    assert answer["continuation_token"]
    assert ask(IDS) == ids(range(2))


@pytest.mark.fault(34, 36, caught_by="error codes")
def test_an_insert_waits_for_a_server_that_has_too_much_to_do_and_a_person_does_not(
    client: ClickHouse,
    clickhouse: ClickHouseServer,
    pauses: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attempts, "BUSY_SECONDS", FEW)
    for code, text in (
        (202, "Too many simultaneous queries. Maximum: 100"),
        (241, "(total) memory limit exceeded: would use 7.00 GiB"),
        (241, "User memory limit exceeded: would use 7.00 GiB"),
        (252, "Too many parts (3000). Merges are processing significantly slower than inserts"),
    ):
        pauses.clear()
        seen = refuse(clickhouse, code, at="insert", text=text)
        with pytest.raises(ClickHouseBusy, match=f"code {code}"):
            client.insert("rejected_statements", ROWS)
        assert len(seen) == len(pauses) + 1, text
        assert FEW <= sum(pauses) < FEW + LONGEST_PAUSE_SECONDS, text
    pauses.clear()
    refuse(clickhouse, 202, "SELECT 2", text="Too many simultaneous queries")
    with pytest.raises(ClickHouseBusy):
        client.query("SELECT 2")
    assert len(pauses) == 3


def test_a_query_that_needs_too_much_memory_by_itself_is_not_waited_for(
    client: ClickHouse, clickhouse: ClickHouseServer, pauses: list[float]
) -> None:
    # Version 26 says the first, and version 22 the second.
    for text in ("Query memory limit exceeded: would use 1 GiB", "Memory limit (for query) exceed"):
        pauses.clear()
        refuse(clickhouse, 241, at="insert", text=text)
        with pytest.raises(ClickHouseUnavailable, match="lower BATCH_ROWS") as caught:
            client.insert("rejected_statements", ROWS)
        assert not isinstance(caught.value, ClickHouseBusy), text
        assert len(pauses) == 3, text
    clickhouse.hook = lambda *_: None
    large = "SELECT groupArray(number) FROM numbers(3000000) SETTINGS max_memory_usage = 1000000"
    with pytest.raises(ClickHouseUnavailable, match="lower BATCH_ROWS"):
        client.query(large)


def test_other_failures_are_counted_by_themselves(
    client: ClickHouse, clickhouse: ClickHouseServer, pauses: list[float], ask: Ask
) -> None:
    """A connection that is lost after a long wait is tried as often as any other."""
    failures = [252] * 6 + [210] * 3

    def fail() -> None:
        if failures:
            raise RuntimeError(f"Code: {failures.pop(0)}. DB::Exception: no")

    watch(clickhouse, "insert", act=fail)
    client.insert("rejected_statements", ROWS)
    assert ask("SELECT count() FROM rejected_statements") == [[1]]


@pytest.mark.fault(34, 74, caught_by="queries wait for a busy server too")
def test_a_server_that_is_too_busy_for_every_query_is_waited_for_all_the_same(
    bucket: Bucket, invoke: Invoke, ask: Ask, clickhouse: ClickHouseServer, pauses: list[float]
) -> None:
    """Code 202 refuses inserts and the look at the list of forgotten learners alike."""
    refused: list[str] = []

    def busy(point: str, sql: str) -> None:
        insert = point == "insert" and ".video_events " in sql
        if (insert or (refused and point == "query")) and len(refused) < 12:
            refused.append(sql)
            raise RuntimeError("Code: 202. DB::Exception: Too many simultaneous queries")

    clickhouse.hook = busy
    answer = invoke({"bucket": bucket.name, "key": bucket.put(key(1), video(1))}, seconds_left=900)
    assert (answer["success"], len(refused)) == (True, 12)
    assert ask(IDS) == ids(range(1, 2))
