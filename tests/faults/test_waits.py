"""Nothing is waited for beyond an invocation's time, whatever answers slowly, or for ever."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import sys
import time
import zlib
from contextlib import ExitStack, suppress
from threading import Event
from typing import Any

import pytest
from clickhouse_driver.connection import Connection

from local.clickhouse_server import ClickHouseServer
from tests.conftest import Ask, Bucket, Invoke, forget_connections
from tests.faults.http_proxy import Answer, S3Proxy
from tests.faults.matrix import check, fault
from tests.faults.reader import IDS, ROWS, ids
from tests.faults.tcp_proxy import Fault, TcpProxy
from tests.samples import context, notification, sqs, video
from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.errors import ConfigurationError, EventFailed
from xapi_etl_processor.lambda_function import handler

KEY = "section/1/video/2024-01-01T12-00-00Z_1.jsonl"
PROGRESS = b"\x03\0\0\0\0\0"
"""A packet of ClickHouse's native protocol: number 3, and five counters that are 0."""


def failed_within(seconds: float, bucket: Bucket) -> bool:
    """Whether one message fails, and is answered for, in an invocation that has so many seconds."""
    started = time.monotonic()
    answer = handler(sqs(m=notification(bucket.name, KEY)), context(seconds))
    assert time.monotonic() - started < seconds
    return answer == {"batchItemFailures": [{"itemIdentifier": "m"}]}


@fault(26, 32, caught_by="a deadline for the whole of an attempt, beside those of the socket")
def test_a_server_that_only_says_that_it_is_at_work_is_not_waited_for(
    bucket: Bucket, wire: TcpProxy, ask: Ask, clickhouse: ClickHouseServer, invoke: Invoke
) -> None:
    bucket.put(KEY, video(1))
    given_up = Event()

    def work_slowly(point: str, sql: str) -> None:
        if point == "insert" and ".video_events " in sql:
            end = time.monotonic() + 30
            while time.monotonic() < end and not given_up.wait(0.2):
                wire.say(PROGRESS)

    clickhouse.hook = work_slowly
    assert failed_within(5, bucket)
    given_up.set()
    clickhouse.hook = lambda *_: None
    assert invoke(notification(bucket.name, KEY))["files_processed"] == 1
    assert ask(ROWS) == [[1]]


@fault(14, 32, caught_by="a deadline for the whole of an attempt, beside those of the socket")
def test_a_slow_greeting_and_a_slow_reply_do_not_add_up_beyond_the_time(
    bucket: Bucket, wire: TcpProxy, ask: Ask
) -> None:
    bucket.put(KEY, video(1))
    wire.fault = Fault(delay=3, times=100)
    assert failed_within(5, bucket)
    assert wire.fault.fired
    assert ask(ROWS) == [[0]]


@fault(14, 32, caught_by="a deadline for the whole of an attempt, beside those of the socket")
@pytest.mark.parametrize("seconds", [4, 1])
def test_the_addresses_of_a_name_are_not_each_waited_for(
    bucket: Bucket, wire: TcpProxy, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    addresses = ["127.0.0.11", "127.0.0.12", "127.0.0.13"]
    known = socket.getaddrinfo

    def three(host: str, port: int, *more: Any, **named: Any) -> Any:
        if host != "three.example":
            return known(host, port, *more, **named)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in addresses]

    with ExitStack() as open_sockets:
        port = full(addresses, open_sockets)
        monkeypatch.setattr(socket, "getaddrinfo", three)
        monkeypatch.setenv("CLICKHOUSE_HOST", "three.example")
        monkeypatch.setenv("CLICKHOUSE_PORT", str(port))
        forget_connections()
        bucket.put(KEY, video(1))
        assert failed_within(seconds, bucket)


def full(addresses: list[str], open_sockets: ExitStack) -> int:
    """A port on which these addresses answer nothing: what listens there has no room for more."""
    port = 0
    for address in addresses:
        listener = open_sockets.enter_context(socket.socket())
        listener.bind((address, port))
        listener.listen(0)
        port = listener.getsockname()[1]
        for _ in range(3):
            waiting = open_sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            with suppress(BlockingIOError):
                waiting.connect((address, port))
    return port


@fault(32, caught_by="ping before a query")
def test_a_warm_connection_that_is_forgotten_on_the_way_is_left_for_a_new_one(
    bucket: Bucket, wire: TcpProxy, invoke: Invoke, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xapi_etl_processor.clickhouse_client.CONNECT_SECONDS", 1)
    forget_connections()
    for number in range(2):
        bucket.put(KEY, *(video(n) for n in range(number + 1)))
        started = time.monotonic()
        assert invoke(notification(bucket.name, KEY))["files_processed"] == 1
        assert time.monotonic() - started < 10
        wire.hush()
    assert ask(IDS) == ids(range(2))


@fault(26, 32, caught_by="no reconnecting below ours")
def test_an_insert_that_was_given_up_does_not_begin_anew(
    bucket: Bucket, wire: TcpProxy, invoke: Invoke, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put(KEY, video(1))
    ping, insert = Connection.ping, ClickHouse.insert
    inserting, hushed = Event(), Event()

    def answered_for_the_last_time(connection: Connection) -> bool:
        alive = bool(ping(connection))
        if inserting.is_set() and not hushed.is_set():
            wire.hush()
            hushed.set()
        return alive

    def told(self: ClickHouse, *arguments: Any) -> None:
        inserting.set()
        insert(self, *arguments)

    monkeypatch.setattr(Connection, "ping", answered_for_the_last_time)
    monkeypatch.setattr(ClickHouse, "insert", told)
    assert failed_within(3, bucket)
    assert hushed.is_set()
    end = time.monotonic() + 3
    while time.monotonic() < end:
        assert b"INSERT INTO" not in wire.sent
        time.sleep(0.1)  # Between looks at what must not happen.
    assert ask(ROWS) == [[0]]


@fault(66, caught_by="nobody waits for a thread that is left behind")
def test_the_command_line_ends_with_its_answer_though_s3_is_silent(
    bucket: Bucket, store: S3Proxy, settings: Any
) -> None:
    store.rule = lambda _: Answer(stall=0)
    command = [sys.executable, "-m", "xapi_etl_processor", "health"]
    done = subprocess.run(command, capture_output=True, timeout=25, check=False)
    assert done.returncode == 1
    assert b"S3 did not answer in time" in done.stdout


@fault(63, caught_by="timeouts for the secret, and the invocation's deadline")
@check("S13")
@pytest.mark.parametrize("payload", [{"mode": "bulk"}, {"health_check": True}])
def test_a_secret_that_is_out_of_reach_is_named_in_time(
    bucket: Bucket, wire: TcpProxy, monkeypatch: pytest.MonkeyPatch, payload: dict[str, Any]
) -> None:
    arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:password-abcdef"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", url)
        monkeypatch.setenv("CLICKHOUSE_PASSWORD_SECRET_ARN", arn)
        forget_connections()
        bucket.put(KEY, video(1))
        started = time.monotonic()
        try:
            said = json.loads(handler(payload, context(4))["body"])["clickhouse"]["error"]
        except ConfigurationError as error:
            said = str(error)
        assert time.monotonic() - started < 4
    assert f"{arn} cannot be read" in said


@fault(66, caught_by="health check")
@pytest.mark.parametrize("seconds", [5, 60])
def test_the_health_check_gives_a_silent_s3_up_in_time(
    bucket: Bucket, store: S3Proxy, seconds: int
) -> None:
    store.rule = lambda _: Answer(stall=0)
    started = time.monotonic()
    answer = handler({"health_check": True}, context(seconds))
    assert time.monotonic() - started < min(seconds, 10)
    body = json.loads(answer["body"])
    assert (answer["statusCode"], body["clickhouse"]["ok"]) == (503, True)
    assert "S3 did not answer in time" in body["s3"]["error"]


@fault(66, caught_by="health check")
def test_the_health_check_says_what_may_not_be_listed(bucket: Bucket, store: S3Proxy) -> None:
    store.rule = lambda _: Answer("AccessDenied", 403)
    answer = handler({"health_check": True}, context())
    assert answer["statusCode"] == 503
    assert "allow s3:GetObject and s3:ListBucket" in json.loads(answer["body"])["s3"]["error"]


@fault(12, 54, caught_by="the time is looked at for each piece of what is unpacked")
@check("S13")
def test_a_line_without_an_end_is_not_read_beyond_the_time(
    bucket: Bucket, settings: Any, ask: Ask, invoke: Invoke
) -> None:
    noise = random.Random(7).randbytes(5000).replace(b"\n", b" ")
    packer = zlib.compressobj(1, wbits=31)
    blocks = (packer.compress(noise + b" " * 1_000_000) for _ in range(2500))
    body = b"".join(blocks) + packer.flush()
    assert 2500 * 1_005_000 / len(body) < 200, "the limit on what a byte may hold would do"
    bucket.put(KEY, body=body)
    started = time.monotonic()
    with pytest.raises(EventFailed, match="time ran out"):
        invoke(notification(bucket.name, KEY), seconds_left=1)
    assert time.monotonic() - started < 1
    assert ask("SELECT count() FROM processed_files") == [[0]]
