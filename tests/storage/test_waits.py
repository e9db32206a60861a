"""Nothing waits longer than the invocation lasts, whatever is slow or never answers."""

from __future__ import annotations

import gzip
import json
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from threading import Event, Thread, current_thread
from typing import Any

import pytest
from clickhouse_driver import Client
from clickhouse_driver.connection import Connection

from local.clickhouse_server import ClickHouseServer
from tests.conftest import Ask, Bucket, Invoke, forget_connections
from tests.faults.http_proxy import Answer, Rule, S3Proxy
from tests.faults.tcp_proxy import TcpProxy
from tests.support.reader import IDS, ROWS, ids
from tests.support.samples import BAD_LINE, context, notification, sqs, video
from xapi_etl_processor import clickhouse_client
from xapi_etl_processor.base import secrets
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.deadlines import FOREVER, Deadline, call_with_deadline
from xapi_etl_processor.base.errors import (
    ClickHouseUnavailable,
    ConfigurationError,
    EventFailed,
    NothingDone,
)
from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.common import process
from xapi_etl_processor.lambda_function import handler
from xapi_etl_processor.modes import health
from xapi_etl_processor.run import Run, connections
from xapi_etl_processor.s3.objects import S3Object

pytestmark = pytest.mark.slow

KEY = "section/1/video/2024-01-01T12-00-00Z_1.jsonl"
PROGRESS = b"\x03\0\0\0\0\0"
"""A packet of ClickHouse's native protocol: number 3, and five counters that are 0."""


def failed_within(seconds: float, bucket: Bucket) -> bool:
    """Whether a message is reported as failed within an invocation of this many seconds."""
    started = time.monotonic()
    answer = handler(sqs(m=notification(bucket.name, KEY)), context(seconds))
    assert time.monotonic() - started < seconds
    return answer == {"batchItemFailures": [{"itemIdentifier": "m"}]}


@pytest.mark.fault(26, 32, caught_by="deadline")
def test_a_server_that_only_reports_progress_is_given_up_in_time(
    bucket: Bucket, wire: TcpProxy, ask: Ask, clickhouse: ClickHouseServer, invoke: Invoke
) -> None:
    bucket.put(KEY, video(1))
    abandoned = Event()

    def work_slowly(point: str, sql: str) -> None:
        if point == "insert" and ".video_events " in sql:
            end = time.monotonic() + 30
            while time.monotonic() < end and not abandoned.wait(0.2):
                wire.send_reply(PROGRESS)

    clickhouse.hook = work_slowly
    assert failed_within(3, bucket)
    abandoned.set()
    clickhouse.hook = lambda *_: None
    assert invoke(notification(bucket.name, KEY))["files_processed"] == 1
    assert ask(f"{ROWS} FINAL") == [[1]]


@pytest.mark.fault(14, 32, caught_by="deadline")
def test_a_host_name_with_several_dead_addresses_is_given_up_in_time(
    bucket: Bucket, wire: TcpProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses = ["127.0.0.11", "127.0.0.12", "127.0.0.13"]
    known = socket.getaddrinfo

    def three(host: str, port: int, *more: Any, **named: Any) -> Any:
        if host != "three.example":
            return known(host, port, *more, **named)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in addresses]

    with ExitStack() as open_sockets:
        port = unanswering_port(addresses, open_sockets)
        monkeypatch.setattr(socket, "getaddrinfo", three)
        monkeypatch.setenv("CLICKHOUSE_HOST", "three.example")
        monkeypatch.setenv("CLICKHOUSE_PORT", str(port))
        forget_connections()
        bucket.put(KEY, video(1))
        assert failed_within(1, bucket)


def unanswering_port(addresses: list[str], open_sockets: ExitStack) -> int:
    """A port on which these addresses never answer, because the listener's backlog is full."""
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


@pytest.mark.fault(32, caught_by="a ping before a query on an idle connection")
def test_a_warm_connection_that_the_network_forgot_is_replaced(
    bucket: Bucket, wire: TcpProxy, invoke: Invoke, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xapi_etl_processor.clickhouse_client.CONNECT_SECONDS", 1)
    monkeypatch.setattr("xapi_etl_processor.clickhouse_client.IDLE_SECONDS", 0)
    forget_connections()
    for number in range(2):
        bucket.put(KEY, *(video(n) for n in range(number + 1)))
        started = time.monotonic()
        assert invoke(notification(bucket.name, KEY))["files_processed"] == 1
        assert time.monotonic() - started < 5  # The driver's own limit for a ping.
        wire.freeze()
    assert ask(IDS) == ids(range(2))


@pytest.mark.fault(26, 32, caught_by="the driver's own reconnecting is off")
def test_an_abandoned_insert_does_not_start_over(
    bucket: Bucket, wire: TcpProxy, invoke: Invoke, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put(KEY, video(1))
    ping, insert = Connection.ping, ClickHouse.insert
    inserting, frozen = Event(), Event()

    def freeze_after_the_ping(connection: Connection) -> bool:
        alive = bool(ping(connection))
        if inserting.is_set() and not frozen.is_set():
            wire.freeze()
            frozen.set()
        return alive

    def note_and_insert(self: ClickHouse, *arguments: Any) -> None:
        inserting.set()
        insert(self, *arguments)

    monkeypatch.setattr("xapi_etl_processor.clickhouse_client.IDLE_SECONDS", 0)
    monkeypatch.setattr(Connection, "ping", freeze_after_the_ping)
    monkeypatch.setattr(ClickHouse, "insert", note_and_insert)
    assert failed_within(3, bucket)
    assert frozen.is_set()
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        assert b"INSERT INTO" not in wire.sent
        time.sleep(0.1)  # Polls for what must not happen.
    assert ask(ROWS) == [[0]]


@pytest.mark.fault(32, caught_by="deadline")
def test_a_connection_that_is_given_up_is_closed_soon_and_by_the_thread_that_uses_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If another thread closed TLS, the thread that uses it could send the rest unencrypted."""
    closed_by: list[Thread] = []
    closed, disconnect = Event(), Client.disconnect

    def note_and_disconnect(client: Client) -> None:
        disconnect(client)
        closed_by.append(current_thread())
        closed.set()

    monkeypatch.setattr(Client, "disconnect", note_and_disconnect)
    # The driver by itself would wait for so long.
    monkeypatch.setattr(clickhouse_client, "CONNECT_SECONDS", 60)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        quiet = replace(settings, clickhouse_port=silent.getsockname()[1])
        with pytest.raises(ClickHouseUnavailable):
            ClickHouse(quiet).query("SELECT 1", deadline=FOREVER.within(0.5))
        assert closed.wait(10)
    assert current_thread() not in closed_by


@pytest.mark.fault(14, caught_by="deadline")
@pytest.mark.parametrize("mode", ["event", "health check"])
def test_every_question_and_every_insert_has_the_deadline_of_the_invocation(
    bucket: Bucket, settings: Settings, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    ends: list[float] = []

    def noted(end: Deadline, *call: Any) -> Any:
        ends.append(end.at)
        return call_with_deadline(end, *call)

    monkeypatch.setattr(clickhouse_client, "call_with_deadline", noted)
    deadline = FOREVER.within(60)
    if mode == "event":
        obj = S3Object(bucket.name, bucket.put(KEY, video(1), BAD_LINE))
        run = Run(settings, connections(settings), "event", deadline=deadline)
        assert [outcome.status for outcome in process([obj], run)] == ["processed"]
    else:
        assert health.check(settings, connections(settings), deadline)["healthy"]
    # Connecting, three questions and three inserts.
    assert len(ends) >= 7
    assert max(ends) < deadline.at


@pytest.mark.ci
@pytest.mark.fault(66, caught_by="abandoned threads do not delay the exit")
def test_the_command_line_ends_after_its_answer_when_s3_is_silent(store: S3Proxy) -> None:
    store.rule = lambda _: Answer(stall=0)
    code = (
        "import sys\n"
        "from xapi_etl_processor.cli import main\n"
        "from xapi_etl_processor.modes import health\n"
        "health.SERVICE_SECONDS = 1\n"
        "sys.exit(main(['health']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=9, check=False)
    assert done.returncode == 1
    assert b"S3 did not answer in time" in done.stdout


ARN = "arn:aws:secretsmanager:us-east-1:123456789012:secret:password-abcdef"


@pytest.fixture
def silent_secrets(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The password is in a secret, and Secrets Manager does not answer."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", url)
        monkeypatch.setenv("CLICKHOUSE_PASSWORD_SECRET_ARN", ARN)
        forget_connections()
        yield


@pytest.mark.fault(63, caught_by="timeouts for Secrets Manager; deadline")
@pytest.mark.check("S13")
@pytest.mark.parametrize(
    "payload", [{"health_check": True}, pytest.param({"mode": "bulk"}, marks=pytest.mark.ci)]
)
def test_an_unreachable_secret_is_named_in_time(
    bucket: Bucket, settings: Settings, silent_secrets: None, payload: dict[str, Any]
) -> None:
    bucket.put(KEY, video(1))
    started = time.monotonic()
    try:
        said = json.loads(handler(payload, context(3))["body"])["clickhouse"]["error"]
    except NothingDone as error:
        said = str(error)
    # Two attempts of five seconds each would be too long.
    assert time.monotonic() - started < 3
    assert f"{ARN} cannot be read" in said


@pytest.mark.fault(63, caught_by="timeouts for Secrets Manager; bounded retries")
def test_a_silent_secrets_manager_is_given_up_without_any_deadline_and_an_error_asked_twice(
    store: S3Proxy, settings: Settings, silent_secrets: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command line has no deadline."""
    monkeypatch.setattr(secrets, "TIMEOUT_SECONDS", 0.1)
    there = replace(settings, clickhouse_password_secret_arn=ARN)
    started = time.monotonic()
    with pytest.raises(ConfigurationError, match=f"{ARN} cannot be read"):
        secrets.password(there, FOREVER.within(20))
    assert time.monotonic() - started < 10
    monkeypatch.setattr(secrets, "TIMEOUT_SECONDS", 5)
    store.rule = lambda _: Answer("InternalServiceError", 500)
    monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", store.url)
    with pytest.raises(ConfigurationError, match=f"{ARN} cannot be read"):
        secrets.password(there)
    assert len(store.requests) == 2


@pytest.mark.fault(66, caught_by="health check")
def test_the_health_check_gives_up_on_a_silent_s3_in_time(
    store: S3Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the time left, if that is shorter than SERVICE_SECONDS."""
    monkeypatch.setattr(health, "SERVICE_SECONDS", 60)
    store.rule = lambda _: Answer(stall=0)
    started = time.monotonic()
    answer = handler({"health_check": True}, context(3))
    assert time.monotonic() - started < 3
    body = json.loads(answer["body"])
    assert (answer["statusCode"], body["clickhouse"]["ok"]) == (503, True)
    assert "S3 did not answer in time" in body["s3"]["error"]


def refusing(method: str) -> Rule:
    return lambda r: Answer("AccessDenied", 403) if r.method == method else None


@pytest.mark.fault(66, caught_by="health check")
def test_the_health_check_says_which_s3_rights_to_allow(store: S3Proxy) -> None:
    for denied in ("GET", "HEAD"):
        store.rule = refusing(denied)
        answer = handler({"health_check": True}, context())
        said = json.loads(answer["body"])["s3"]["error"]
        assert answer["statusCode"] == 503, denied
        assert "allow s3:GetObject and s3:ListBucket" in said, denied


@pytest.mark.fault(12, 54, caught_by="deadline")
@pytest.mark.check("S13")
def test_reading_an_endless_line_stops_at_the_deadline(
    bucket: Bucket, ask: Ask, invoke: Invoke
) -> None:
    noise = random.Random(7).randbytes(5000).replace(b"\n", b" ")
    body = gzip.compress(noise + b" " * 1_000_000, 1) * 2500
    assert 2500 * 1_005_000 / len(body) < 200, "the limit of the ratio would end it too"
    bucket.put(KEY, body=body)
    started = time.monotonic()
    with pytest.raises(EventFailed, match="time ran out"):
        invoke(notification(bucket.name, KEY), seconds_left=1)
    assert time.monotonic() - started < 1
    assert ask("SELECT count() FROM processed_files") == [[0]]
