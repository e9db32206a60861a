"""Kills ClickHouse at every system call of an insert, one after the other, and judges the tables.

It is started again, and the bundle is delivered until the loader says that it is done. Nothing may
be lost or doubled then.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, NamedTuple
from uuid import uuid4

import boto3
import pytest

from local.aws import loader_environment
from tests.faults.drill_servers import Server
from tests.faults.system_calls import killed_at
from tests.faults.tcp_proxy import TcpProxy, tcp_proxy
from tests.support.real_server import PASSWORD, RealServer
from tests.support.samples import BAD_LINE, context, event_id, video
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.errors import XapiEtlError
from xapi_etl_processor.lambda_function import handler
from xapi_etl_processor.migrations.migrate import migrate
from xapi_etl_processor.run import connections
from xapi_etl_processor.storage.tables import EVENTS, FILES, REJECTED, VOIDED

VIDEOS = 50
KEY = "section/2001/video/2024-01-01T00-00-00Z_1.jsonl"
DELIVERIES = 6
"""How often SQS may have to deliver the bundle. Our limit: one kill needs two at most."""

SECONDS_LEFT = 60


def bundle() -> bytes:
    """Statements of every kind: videos, another one, one that voids, a line that is rejected."""
    void = {"id": "http://adlnet.gov/expapi/verbs/voided"}
    voided = {"objectType": "StatementRef", "id": event_id(900)}
    page = {"id": "https://example.org/page", "objectType": "Activity"}
    lines: list[Any] = [video(n) for n in range(VIDEOS)]
    lines += [video(800, verb={"id": "http://example.org/viewed"}, object=page)]
    lines += [video(801, verb=void, object=voided)]
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines) + BAD_LINE + b"\n"


RIGHT = {"ids": VIDEOS, "rows": VIDEOS, "rejected": 1, "voided": 1, "ledger": [(53, 50, 2, 1)]}
"""What the tables must hold in the end."""


def found(ask: Callable[[str], Sequence[Sequence[Any]]], prefix: str = "") -> dict[str, Any]:
    """What the tables hold: RIGHT, if each line of the bundle is there once."""

    def one(sql: str) -> Any:
        return ask(sql.format(prefix))[0][0]

    ledger = "SELECT lines, video, other, rejected FROM {}processed_files FINAL"
    return {
        "ids": one("SELECT uniqExact(event_id) FROM {}video_events"),
        "rows": one("SELECT count() FROM {}video_events FINAL"),
        "rejected": one("SELECT count() FROM {}rejected_statements FINAL"),
        "voided": one("SELECT count() FROM {}voided_statements FINAL"),
        "ledger": [tuple(row) for row in ask(ledger.format(prefix))],
    }


class Point(NamedTuple):
    """A place at which a server was killed: the n-th of these calls of a thread, since the insert
    into this table was sent; and what was in the tables in the end.
    """

    table: str
    calls: str
    nth: int
    found: dict[str, Any]


TABLES = (EVENTS, REJECTED, VOIDED, FILES)
"""The tables that a load writes, in this order."""


@dataclass
class CrashPoints:
    """A server that is killed, and a bundle that is loaded into it through a proxy."""

    server: Server | RealServer
    wire: TcpProxy
    bucket: str
    settings: Settings
    points: list[Point] = field(default_factory=list)
    made: str = ""
    """The name of the database, once there is one."""

    def of_kind(self, calls: str, step: int = 1) -> int:
        """Kill it at each of these calls of each insert; returns how many there were."""
        before = len(self.points)
        for table in TABLES:
            for nth in count(1, step):
                with self.database() as database:
                    if not self._killed(f"INSERT INTO {database}.{table} ".encode(), calls, nth):
                        break
                    made = found(self.server.ask, f"{database}.")
                    self.points.append(Point(table, calls, nth, made))
        return len(self.points) - before

    @property
    def wrong(self) -> list[Point]:
        """The points after which something was lost or doubled."""
        return [point for point in self.points if point.found != RIGHT]

    @contextmanager
    def database(self) -> Iterator[str]:
        """A database with empty tables, also named in the environment."""
        if not self.made:
            self.made = f"crash_{uuid4().hex[:8]}"
            os.environ["CLICKHOUSE_DATABASE"] = self.made
            if isinstance(self.server, RealServer):
                self.server.create_tables(self.made, "ReplacingMergeTree(VERSION)")
            else:
                migrate(replace(self.settings, clickhouse_database=self.made))
        connections.cache_clear()
        yield self.made
        connections(Settings.from_env(os.environ)).clickhouse.disconnect()
        for table in TABLES:
            self.server.ask(f"TRUNCATE TABLE {self.made}.{table}")

    def _killed(self, insert: bytes, calls: str, nth: int) -> bool:
        """Load the bundle; whether the server was killed meanwhile."""
        running = self.server.process
        assert running
        loaded = threading.Event()
        restarting = threading.Thread(target=self._restart, args=(running, loaded))
        with ExitStack() as armed:

            def arm(piece: bytes) -> None:
                if insert in piece:
                    self.wire.before = lambda _: None
                    armed.enter_context(killed_at(running.pid, calls, nth))

            self.wire.before = arm
            restarting.start()
            try:
                self.deliver()
            finally:
                loaded.set()
                restarting.join()
        return running.poll() is not None

    def _restart(self, running: subprocess.Popen[bytes], loaded: threading.Event) -> None:
        while not loaded.is_set():
            if running.poll() is not None:
                self.server.start()
                return
            loaded.wait(0.01)

    def deliver(self) -> None:
        """Deliver the bundle, as SQS does, until the loader says that it is loaded."""
        for number in range(DELIVERIES):
            try:
                handler({"bucket": self.bucket, "key": KEY}, context(SECONDS_LEFT))
            except XapiEtlError:
                assert number < DELIVERIES - 1, "it is never done"
            else:
                return


@contextmanager
def crash_points(server: Server | RealServer, endpoint: dict[str, str]) -> Iterator[CrashPoints]:
    """A bucket with the bundle, and the settings of the server, also in the environment."""
    bucket = f"crash-{uuid4().hex[:8]}"
    with tcp_proxy(server.port) as wire, pytest.MonkeyPatch.context() as patch:
        variables = loader_environment(wire.port, endpoint, bucket) | {"LOG_LEVEL": "CRITICAL"}
        if isinstance(server, RealServer):
            variables["CLICKHOUSE_PASSWORD"] = PASSWORD
        for name, value in {**variables, "CLICKHOUSE_DATABASE": "x"}.items():
            patch.setenv(name, value)
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket=bucket)
        s3.put_object(Bucket=bucket, Key=KEY, Body=bundle())
        s3.close()
        yield CrashPoints(server, wire, bucket, Settings.from_env(os.environ))
        connections.cache_clear()
