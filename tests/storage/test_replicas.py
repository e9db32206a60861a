"""Two replicas: what one stores the other has, repeats count once, and a death loses nothing."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Bucket, forget_connections
from tests.faults.drill import drill
from tests.faults.tcp_proxy import TcpProxy, tcp_proxy
from tests.support.real_server import PASSWORD, REPLICATED, RealServer, needs
from tests.support.replicas import CLUSTER, INSTALLED, pair, wait_for, zookeeper
from tests.support.samples import BAD_LINE, context, notification, video
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.deadlines import FOREVER
from xapi_etl_processor.base.errors import ClickHouseRefused
from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.lambda_function import handler
from xapi_etl_processor.privacy import forget
from xapi_etl_processor.privacy.learner import Learner
from xapi_etl_processor.storage import checks, tables

KEY = "section/2001/video/2024-01-01T12-00-00Z_1.jsonl"
pytestmark = [
    pytest.mark.slow,
    *needs(INSTALLED, "replicas; install Debian's clickhouse-server and zookeeper"),
]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RealServer, RealServer]]:
    logging.getLogger("clickhouse_driver").setLevel(logging.CRITICAL)
    with pair(tmp_path_factory.mktemp("pair")) as both:
        yield both


@dataclass
class Replicas:
    """A database on both servers, behind one address that leads to the server that is chosen."""

    servers: tuple[RealServer, RealServer]
    address: TcpProxy
    settings: Settings

    def choose(self, server: RealServer) -> None:
        """Let new connections lead to this server, and forget the open ones."""
        forget_connections()
        self.address.upstream = server.port

    def counts(self, table: str = tables.EVENTS) -> list[object]:
        """How many rows a reader of each server sees."""
        sql = f"SELECT count() FROM {self.settings.clickhouse_database}.{table} FINAL"
        return [server.ask(sql)[0][0] for server in self.servers]


@pytest.fixture
def replicas(
    servers: tuple[RealServer, RealServer], unmigrated: Settings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Replicas]:
    """Replicated tables; the settings, also in the environment, name the common address."""
    database = unmigrated.clickhouse_database
    engine = REPLICATED.replace("DATABASE", database)
    servers[0].create_tables(database, engine, f"ON CLUSTER {CLUSTER}")
    with tcp_proxy(servers[0].port) as address:
        monkeypatch.setenv("CLICKHOUSE_PORT", str(address.port))
        monkeypatch.setenv("CLICKHOUSE_USERNAME", "default")
        monkeypatch.setenv("CLICKHOUSE_PASSWORD", PASSWORD)
        yield Replicas(servers, address, Settings.from_env(os.environ))
        forget_connections()


@pytest.mark.fault(69, caught_by="replicated tables; row identity")
def test_what_one_replica_stores_the_other_has_and_repeats_through_either_count_once(
    replicas: Replicas, bucket: Bucket
) -> None:
    one, other = replicas.servers
    bucket.put(KEY, video(1), BAD_LINE, video(2))
    handler(notification(bucket.name, KEY), context())
    wait_for(lambda: replicas.counts() == [2, 2], 30)
    wait_for(lambda: replicas.counts(tables.FILES) == [1, 1], 30)
    again: dict[str, Any] = {"bucket": bucket.name, "key": KEY}
    replicas.choose(other)
    # What the ledger knows through one replica, it knows through the other.
    assert json.loads(handler(again, context())["body"])["files_skipped"] == 1
    for server in (other, one):
        replicas.choose(server)
        handler({**again, "force_reprocess": True}, context())
    later = bucket.put(KEY.replace("_1", "_2"), video(3))
    handler(notification(bucket.name, later), context())
    # Replicas copy in order: when the third statement is there, the repeats are there too.
    wait_for(lambda: replicas.counts() == [3, 3], 30)
    assert replicas.counts(tables.REJECTED) == [1, 1]


@pytest.mark.ci
@pytest.mark.long
def test_who_is_forgotten_is_known_to_all_replicas_before_anything_is_removed(
    replicas: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A load could ask the other one, and would bring the learner back."""
    monkeypatch.setenv("CLICKHOUSE_CLUSTER", CLUSTER)
    clickhouse = ClickHouse(Settings.from_env(os.environ))
    database, other = clickhouse.database, replicas.servers[1]
    known = f"SELECT count() FROM {database}.{tables.FORGOTTEN}"
    to_copy = f"SELECT count() FROM system.replication_queue WHERE database = '{database}'"
    other.ask(f"SYSTEM STOP FETCHES {database}.{tables.FORGOTTEN}")
    with ThreadPoolExecutor(1) as pool:
        remembered = pool.submit(forget.remember, [Learner("learner-1")], clickhouse)
        wait_for(lambda: other.ask(to_copy) != [(0,)], 15)
        assert not remembered.done()
        other.ask(f"SYSTEM START FETCHES {database}.{tables.FORGOTTEN}")
        remembered.result(30)
    assert other.ask(known) == [(1,)]
    clickhouse.disconnect()


@pytest.mark.ci
@pytest.mark.long
@pytest.mark.fault(69, caught_by="replicated tables; row identity")
def test_a_replica_that_dies_before_the_other_has_its_rows_loses_and_doubles_nothing(
    replicas: Replicas, bucket: Bucket
) -> None:
    """The ledger that the other one has does not know the object either: it is loaded again."""
    one, other = replicas.servers
    database = replicas.settings.clickhouse_database
    for table in tables.TYPES:
        other.ask(f"SYSTEM STOP FETCHES {database}.{table}")
    bucket.put(KEY, *(video(n) for n in range(20)), BAD_LINE)
    event = notification(bucket.name, KEY)
    assert json.loads(handler(event, context())["body"])["success"]
    # Without insert tokens, this server takes the same rows of the same second for a repeat.
    later = f"SELECT now() > max(inserted_at) FROM {database}.video_events"
    wait_for(lambda: one.ask(later) == [(1,)], 10)
    one.kill()
    replicas.choose(other)
    assert json.loads(handler(event, context())["body"])["files_processed"] == 1
    assert other.ask(f"SELECT count() FROM {database}.video_events FINAL") == [(20,)]
    one.start()
    for table in tables.TYPES:
        other.ask(f"SYSTEM START FETCHES {database}.{table}")
    wait_for(lambda: replicas.counts() == [20, 20], 60)
    wait_for(lambda: replicas.counts(tables.REJECTED) == [1, 1], 60)
    wait_for(lambda: replicas.counts(tables.FILES) == [1, 1], 60)


@pytest.mark.fault(36, 66, caught_by="health check")
def test_a_read_only_user_is_refused_even_an_insert_without_rows(replicas: Replicas) -> None:
    empty = f"SELECT count() FROM {replicas.settings.clickhouse_database}.video_events"
    reader = ClickHouse(replace(replicas.settings, clickhouse_username="reader"))
    assert reader.query(empty) == [(0,)]
    with pytest.raises(ClickHouseRefused, match="use a profile without `readonly`"):
        reader.check_insert("video_events", ["event_id"], deadline=FOREVER.within(10))
    reader.disconnect()
    writer = ClickHouse(replicas.settings)
    writer.check_insert("video_events", ["event_id"], deadline=FOREVER.within(10))
    assert writer.query(empty) == [(0,)]
    writer.disconnect()


@pytest.mark.ci
@pytest.mark.fault(68, caught_by="health check")
def test_tables_that_are_not_replicated_are_an_error_on_a_server_of_a_cluster(
    replicas: Replicas,
) -> None:
    database = replicas.settings.clickhouse_database
    client = ClickHouse(replicas.settings)
    engines = checks.engines(client.query, database)
    assert engines.keys() == tables.TYPES.keys()
    assert checks.replication(client.query, engines, "") == (None, None)
    assert checks.replication(client.query, engines, CLUSTER) == (None, None)

    replicas.servers[0].ask(f"DROP TABLE {database}.video_events")
    create = f"CREATE TABLE {database}.video_events (a UInt8) ENGINE = MergeTree ORDER BY a"
    replicas.servers[0].ask(create)
    engines = checks.engines(client.query, database)
    for wanted in ("", CLUSTER):
        error, _ = checks.replication(client.query, engines, wanted)
        assert error == (
            "video_events is not replicated, but this server is one of 2 replicas of the cluster"
            " 'pair', and each would hold other rows: see docs/clickhouse.md"
        )
    nowhere, _ = checks.replication(client.query, engines, "triple")
    assert nowhere is not None
    assert nowhere.startswith("this server belongs to no cluster 'triple'")
    client.disconnect()


@pytest.mark.ci
@pytest.mark.fault(69, caught_by="health check")
def test_a_replica_that_is_away_causes_a_warning(replicas: Replicas) -> None:
    other = replicas.servers[1]
    client = ClickHouse(replicas.settings)
    database = replicas.settings.clickhouse_database
    assert checks.missing_replicas(client.query, database) is None
    other.kill()
    wait_for(lambda: checks.missing_replicas(client.query, database) is not None, 30)
    assert "has 1 of 2 replicas: what is" in str(checks.missing_replicas(client.query, database))
    other.start()
    client.disconnect()


@pytest.mark.ci
@pytest.mark.long
@pytest.mark.fault(13, 69, caught_by="ledger; replicated tables; row identity")
@pytest.mark.timeout(300)
def test_killed_loaders_and_replicas_lose_and_double_nothing() -> None:
    verdict, figures = drill(seed=5, client_kills=2, server_kills=2, replicated=True)
    assert verdict == (0, 0, 0, 0, 0)
    assert (figures.client_kills, figures.server_kills) == (2, 2)
    assert figures.repeated > 0


IN_A_PROCESS = """
import json, os, re, sys
import chdb
from clickhouse_migrations.migrator import Migrator
from xapi_etl_processor.migrations.migrate import SCHEMA
from xapi_etl_processor.migrations.replication import on_cluster

folder, config = sys.argv[1:]
engine = chdb.connect(f"file:{folder}?config-file={config}")
engine.query("CREATE DATABASE events")
engine.query("USE events")
# What alters a table cannot run here: without a task queue, a replica stays read-only.
for number, path in enumerate(sorted(SCHEMA.glob("000[12356]_*.sql"))):
    for place, sql in enumerate(Migrator.script_to_statements(path.read_text(), True)):
        if re.search("^ALTER TABLE", sql, re.M):
            continue
        sql = on_cluster(sql, "pair")
        # A cluster's task queue gives each table a UUID. This engine has no task queue.
        uuid = f"UUID '00000000-0000-4000-8000-0000{os.getpid():06d}{number}{place}'"
        sql = re.sub(r"^(CREATE TABLE.*) ON CLUSTER 'pair'$", rf"\\1 {uuid}", sql, flags=re.M)
        engine.query(sql.replace(" ON CLUSTER 'pair'", ""))
found = engine.query("SELECT name, engine_full FROM system.tables WHERE database = 'events'", "CSV")
columns = "SELECT table, name, type FROM system.columns WHERE database = 'events'"
columns = engine.query(columns, "JSONCompactEachRow").bytes().decode()
print(json.dumps([found.bytes().decode(), columns]), flush=True)
os._exit(0)  # The engine does not end while replicated tables are open.
"""


@pytest.mark.ci
@pytest.mark.fault(68, caught_by="replicated tables")
def test_the_current_engine_takes_the_tables_of_a_cluster(tmp_path: Path) -> None:
    """It has no replication here, but it checks each statement, and registers the tables."""
    (keeper := tmp_path / "zookeeper").mkdir()
    with zookeeper(keeper) as port:
        (config := tmp_path / "config.xml").write_text(
            f"<clickhouse><zookeeper><node><host>127.0.0.1</host><port>{port}</port></node>"
            "</zookeeper><macros><shard>1</shard><replica>a</replica></macros></clickhouse>"
        )
        command = [sys.executable, "-c", IN_A_PROCESS, str(tmp_path / "data"), str(config)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
    engines, rows = json.loads(done.stdout)
    columns: dict[str, dict[str, str]] = {}
    for table, name, kind in map(json.loads, rows.splitlines()):
        columns.setdefault(table, {})[name] = kind
    for table, types in tables.TYPES.items():
        added = {("forgotten", "UInt64")} if table == tables.FILES else set()  # by an ALTER
        assert types.items() - added <= columns[table].items()
    path = "MergeTree('/clickhouse/tables/{uuid}/{shard}', '{replica}'"
    assert engines.count(path) == len(tables.TYPES) + 1  # and video_events_old
    assert engines.count(f"ReplicatedReplacing{path}, ") == len(tables.TYPES) + 1
    assert "deduplication_window" not in engines
