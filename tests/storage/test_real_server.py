"""A real server process of an old version: rights, crash and restart.

It has no DateTime64, Bool or LowCardinality and no insert tokens: its tables are the same ones with
older types, and only the sorting key prevents duplicates.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.conftest import Bucket, forget_connections
from tests.faults.tcp_proxy import Fault, tcp_proxy
from tests.support.real_server import BINARY, PASSWORD, RealServer, needs
from tests.support.samples import context, notification, video
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.deadlines import FOREVER
from xapi_etl_processor.base.errors import ClickHouseRefused, EventFailed
from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.lambda_function import handler
from xapi_etl_processor.storage import tables

KEY = "section/2001/video/2024-01-01T12-00-00Z_1.jsonl"

pytestmark = [
    pytest.mark.slow,
    *needs(BINARY, "a real server process; install Debian's clickhouse-server"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    made = RealServer(tmp_path_factory.mktemp("real"))
    try:
        made.start()
        yield made
    finally:
        made.kill()


@pytest.fixture
def old(
    server: RealServer, unmigrated: Settings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Settings]:
    """Settings, also set in the environment, for a database on the real server."""
    logging.getLogger("clickhouse_driver").setLevel(logging.ERROR)
    database = unmigrated.clickhouse_database
    server.create_tables(database, "ReplacingMergeTree(VERSION)")
    made = replace(
        unmigrated,
        clickhouse_port=server.port,
        clickhouse_username="default",
        clickhouse_password=PASSWORD,
    )
    monkeypatch.setenv("CLICKHOUSE_PORT", str(made.clickhouse_port))
    monkeypatch.setenv("CLICKHOUSE_USERNAME", made.clickhouse_username)
    monkeypatch.setenv("CLICKHOUSE_PASSWORD", made.clickhouse_password)
    yield made
    server.ask(f"DROP DATABASE {database}")


def count(server: RealServer, settings: Settings, table: str = "video_events") -> object:
    return server.ask(f"SELECT count() FROM {settings.clickhouse_database}.{table} FINAL")[0][0]


@pytest.mark.fault(36, 66, caught_by="health check")
def test_a_read_only_user_is_refused_even_an_insert_without_rows(old: Settings) -> None:
    reader = ClickHouse(replace(old, clickhouse_username="reader"))
    assert reader.query(f"SELECT count() FROM {old.clickhouse_database}.video_events") == [(0,)]
    with pytest.raises(ClickHouseRefused, match="use a profile without `readonly`"):
        reader.check_insert("video_events", ["event_id"], deadline=FOREVER.within(10))
    reader.disconnect()
    writer = ClickHouse(old)
    writer.check_insert("video_events", ["event_id"], deadline=FOREVER.within(10))
    assert writer.query(f"SELECT count() FROM {old.clickhouse_database}.video_events") == [(0,)]
    writer.disconnect()


@pytest.mark.fault(23, 32, caught_by="a ping before each query; bounded retries; redelivery")
def test_events_raise_while_the_server_is_down_and_a_warm_container_reconnects(
    bucket: Bucket, old: Settings, server: RealServer
) -> None:
    first, second = (
        notification(bucket.name, bucket.put(f"section/1/video/{number}.jsonl", video(number)))
        for number in (1, 2)
    )
    handler(first, context())
    server.kill()
    with pytest.raises(EventFailed, match=f"127.0.0.1:{server.port}"):
        handler(second, context(seconds_left=4))
    server.start()
    assert count(server, old) == 1
    handler(second, context())
    assert count(server, old) == 2
    forget_connections()


@pytest.mark.ci
@pytest.mark.fault(24, 26, 39, caught_by="row identity")
@pytest.mark.parametrize(
    "injected",
    [
        Fault(cut_after=800),
        Fault(cut_after=60_000, since=b".video_events ("),
        Fault(mute_after=100_000, since=b".video_events ("),
        Fault(delay=0.05),
    ],
    ids=["cut before the block", "cut inside the block", "acknowledgement lost", "slow"],
)
def test_a_broken_connection_to_a_real_server_loses_and_doubles_nothing(
    bucket: Bucket,
    old: Settings,
    server: RealServer,
    monkeypatch: pytest.MonkeyPatch,
    injected: Fault,
) -> None:
    monkeypatch.setattr("xapi_etl_processor.clickhouse_client.REPLY_SECONDS", 1)
    noise = random.Random(7)
    bucket.put(KEY, *(video(n, registration=noise.randbytes(900).hex()) for n in range(150)))
    with tcp_proxy(server.port) as wire:
        monkeypatch.setenv("CLICKHOUSE_PORT", str(wire.port))
        wire.fault = replace(injected)
        handler(notification(bucket.name, KEY), context())
        assert wire.fault.fired == 1
        forget_connections()
    assert count(server, old) == 150
    assert count(server, old, tables.FILES) == 1


@pytest.mark.fault(32, caught_by="a ping before each query")
def test_a_server_killed_in_the_middle_of_an_object_loses_and_doubles_nothing(
    bucket: Bucket, old: Settings, server: RealServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCH_ROWS", "50")
    bucket.put(KEY, *(video(n, padding="x" * 1500) for n in range(600)))
    original = ClickHouse.insert
    inserts = []

    def insert(self: ClickHouse, *arguments: Any, **more: Any) -> None:
        original(self, *arguments, **more)
        inserts.append(1)
        if len(inserts) == 2:
            server.kill()
            server.start()

    monkeypatch.setattr(ClickHouse, "insert", insert)
    handler(notification(bucket.name, KEY), context())
    assert len(inserts) > 3
    assert count(server, old) == 600
    forget_connections()
