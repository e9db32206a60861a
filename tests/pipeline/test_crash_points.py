"""ClickHouse is killed at every step of an insert, and the loader at each of its exchanges, not at
random ones; what was acknowledged is on the disk before the ledger says so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from local.clickhouse_server import ClickHouseServer
from tests.conftest import Ask, Bucket, Template, forget_connections, run_all
from tests.faults import child
from tests.faults.crash_points import KEY, RIGHT, TABLES, CrashPoints, bundle, crash_points, found
from tests.faults.drill_servers import Server
from tests.faults.system_calls import KINDS, RENAMES, STRACE, noted
from tests.faults.tcp_proxy import TcpProxy
from tests.support.real_server import BINARY, RealServer, needs
from tests.support.samples import context
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.errors import EventFailed
from xapi_etl_processor.lambda_function import handler

pytestmark = [
    pytest.mark.slow,
    *needs(STRACE and BINARY, "crash points; install Debian's strace and clickhouse-server"),
]


@pytest.fixture
def crashing(
    request: pytest.FixtureRequest, tmp_path: Path, aws_environment: dict[str, str]
) -> Iterator[CrashPoints]:
    """A server of this version, which can be killed."""
    server: Any
    if request.param == "current":
        server = Server(tmp_path / "data")
    else:
        server = RealServer(tmp_path)
        server.start()
    with crash_points(server, aws_environment) as made:
        forget_connections()
        yield made
        forget_connections()
    server.kill()


KILLED = [
    pytest.param(RENAMES, 1, id="rename", marks=pytest.mark.ci),
    *(
        pytest.param(KINDS[kind], 4, id=kind, marks=pytest.mark.drill)
        for kind in ("open", "write", "sync", "folder", "unlink")
    ),
]
"""System calls, and which of them are tried: each, or every fourth one."""


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.fault(13, 39, caught_by="a unique token in every insert; row identity")
@pytest.mark.parametrize("crashing", ["current", "of 2018"], indirect=True)
@pytest.mark.parametrize(("calls", "step"), KILLED)
def test_a_server_killed_at_any_change_of_its_disk_loses_and_doubles_nothing(
    crashing: CrashPoints, calls: str, step: int
) -> None:
    # One rename puts the new part of an insert into its place.
    assert crashing.of_kind(calls, step) >= (len(TABLES) if calls == RENAMES else 0)
    assert crashing.wrong == []


SYNC = "fsync,fdatasync"
"""System calls that return when data is on the disk."""

RECEIVE = "recvfrom,read,recvmsg"


@pytest.mark.ci
@pytest.mark.long
@pytest.mark.parametrize("crashing", ["current"], indirect=True)
@pytest.mark.fault(13, caught_by="parts are synced before the ledger is written")
def test_rows_and_their_folders_are_on_the_disk_before_the_ledger_is_sent(
    crashing: CrashPoints, tmp_path: Path
) -> None:
    """The kernel writes in any order: after a power cut, the ledger's row could be there alone."""
    log = tmp_path / "calls"
    with crashing.database() as database:
        running = crashing.server.process
        assert running
        with noted(running.pid, f"{SYNC},{RECEIVE},{RENAMES}", log):
            crashing.deliver()
        folders = dict(
            crashing.server.ask(
                "SELECT name, arrayElement(data_paths, 1) FROM system.tables"
                f" WHERE database = '{database}' AND engine LIKE '%MergeTree'"
            )
        )
    before, _, after = log.read_text().partition(f"INSERT INTO {database}.processed_files")
    assert after
    for table in ("video_events", "rejected_statements", "voided_statements"):
        synced = re.findall(rf"sync\(\d+<{re.escape(folders[table])}(.*?)>", before)
        assert any(path.endswith("/data.bin") for path in synced), table
        # The part's folder: without it, the files may be there without their names.
        assert any(re.fullmatch(r"[^/]+/?", path) for path in synced), table
    assert not re.findall(rf"sync\(\d+<{re.escape(folders['processed_files'])}", before)


STEPS = [
    pytest.param(7, id="every seventh"),
    pytest.param(1, id="every", marks=pytest.mark.ci),
]
"""Which of the exchanges between loader and server are tried."""


@pytest.mark.long
@pytest.mark.fault(13, caught_by="row identity; ledger written last")
@pytest.mark.parametrize("step", STEPS)
def test_a_loader_killed_at_any_exchange_with_clickhouse_loses_and_doubles_nothing(
    bucket: Bucket, wire: TcpProxy, ask: Ask, step: int
) -> None:
    payload = {"bucket": bucket.name, "key": bucket.put(KEY, body=bundle())}
    for turn in count(step, step):
        empty(ask)
        wire.turn = 0
        loader = child.waiting({})

        def kill(_: bytes, turn: int = turn, loader: Any = loader) -> None:
            if wire.turn == turn:
                loader.kill()
                loader.wait()

        wire.before = kill
        ended = child.ask(loader, payload)
        wire.before = lambda _: None
        loader.kill()
        loader.communicate()
        if ended:
            break
        assert json.loads(handler(payload, context())["body"])["success"]
        assert found(ask) == RIGHT, f"killed at exchange {turn}"
    # A question to the ledger, one about learners; four inserts of two messages each.
    assert turn > 10
    assert found(ask) == RIGHT


def failure(payload: Any) -> str:
    """What the loader raises, '' if it succeeds."""
    try:
        handler(payload, context())
    except EventFailed as error:
        return str(error)
    return ""


def empty(ask: Ask) -> None:
    """Empty the tables that a load writes."""
    for table in TABLES:
        ask(f"TRUNCATE TABLE {table}")


@pytest.mark.fault(13, caught_by="rows and ledger are lost together; redelivery")
@pytest.mark.parametrize("step", STEPS)
def test_a_server_that_is_replaced_by_an_empty_one_at_any_exchange_gets_all_rows(
    bucket: Bucket,
    settings: Settings,
    wire: TcpProxy,
    ask: Ask,
    clickhouse: ClickHouseServer,
    template: Template,
    step: int,
) -> None:
    payload = {"bucket": bucket.name, "key": bucket.put(KEY, body=bundle())}
    database = settings.clickhouse_database
    for turn in count(step, step):
        wire.turn = 0

        def replace_server(_: bytes, turn: int = turn) -> None:
            if wire.turn == turn:
                wire.before = lambda _: None
                clickhouse.engine.query(f"DROP DATABASE {database}")

        wire.before = replace_server
        said = failure(payload)
        if not said:
            break
        assert "run `python -m xapi_etl_processor migrate`" in said
        run_all(clickhouse, template.creates, template.database, database)
        handler(payload, context())
        assert found(ask) == RIGHT, f"replaced at exchange {turn}"
        empty(ask)
    assert turn > 10
