"""What one upload costs: few exchanges with ClickHouse, and one with S3."""

from __future__ import annotations

import time
from threading import Thread
from typing import Any

import pytest

from tests.conftest import Ask, Bucket, Invoke
from tests.faults.http_proxy import S3Proxy
from tests.faults.tcp_proxy import CutAnswers, TcpProxy
from tests.support.samples import notification, video
from xapi_etl_processor import clickhouse_client
from xapi_etl_processor.base import deadlines

IDS = "SELECT count() FROM video_events"


def uploaded(bucket: Bucket, number: int) -> dict[str, Any]:
    """Upload a bundle of ten statements, of its own; what S3 then sends."""
    statements = (video(10 * number + line) for line in range(10))
    key = bucket.put(f"section/1/video/2024-01-01T12-00-00Z_{number}.jsonl", *statements)
    found = bucket.client.head_object(Bucket=bucket.name, Key=key)
    sent = notification(bucket.name, key)
    sent["Records"][0]["s3"]["object"] |= {
        "size": found["ContentLength"],
        "eTag": found["ETag"].strip('"'),
    }
    return sent


def test_a_warm_function_needs_six_exchanges_with_clickhouse_and_one_get(
    bucket: Bucket, wire: TcpProxy, store: S3Proxy, invoke: Invoke, ask: Ask
) -> None:
    """A question before, two inserts of two exchanges each, and a question after."""
    for number in range(3):
        wire.turn = 0
        sent = uploaded(bucket, number)
        store.requests.clear()
        assert invoke(sent)["files_processed"] == 1
        if number:
            assert wire.turn == 6
            assert [request.method for request in store.requests] == ["GET"]
    assert ask(IDS) == [[30]]


def test_a_warm_function_keeps_its_threads(
    bucket: Bucket, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[object] = []

    def counting(**how: Any) -> Thread:
        started.append(how)
        return Thread(**how)

    monkeypatch.setattr(deadlines, "_idle", [])
    monkeypatch.setattr(deadlines, "Thread", counting)
    for number in range(10):
        assert invoke(uploaded(bucket, number))["files_processed"] == 1
    # Three are at work at the same time. One that has just answered may not be idle yet.
    assert 1 <= len(started) < 10


def test_a_connection_that_was_idle_for_long_is_asked_first(
    bucket: Bucket, wire: TcpProxy, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    invoke(uploaded(bucket, 1))
    later = time.time() + clickhouse_client.IDLE_SECONDS
    monkeypatch.setattr("xapi_etl_processor.clickhouse_client.time.time", lambda: later)
    wire.turn = 0
    assert invoke(uploaded(bucket, 2))["files_processed"] == 1
    assert wire.turn == 7


def test_a_connection_that_the_server_closed_is_replaced_without_a_failed_attempt(
    bucket: Bucket, wire: TcpProxy, invoke: Invoke, ask: Ask, pauses: list[float]
) -> None:
    for number in range(2):
        assert invoke(uploaded(bucket, number))["files_processed"] == 1
        wire.hang_up()
    assert ask(IDS) == [[20]]
    assert pauses == []


def test_a_connection_that_is_cut_at_any_answer_is_replaced(
    bucket: Bucket, wire: TcpProxy, invoke: Invoke, ask: Ask, pauses: list[float]
) -> None:
    assert invoke(uploaded(bucket, 0))["files_processed"] == 1
    number = 1
    for to in (b"max(forgotten_at)", b"INSERT INTO", b"processed_files", b"kind = 'replaced'"):
        for after in (0, 1, 20):
            wire.answers = CutAnswers(to, after, times=1)
            assert invoke(uploaded(bucket, number))["files_processed"] == 1
            number += 1
    assert ask("SELECT count() FROM video_events FINAL") == [[10 * number]]
    assert ask("SELECT uniqExact(key), count() FROM processed_files FINAL") == [[number, number]]
