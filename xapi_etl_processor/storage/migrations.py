"""Apply the numbered .sql files of `schema/`: for people and pipelines, never at event time.

clickhouse-migrations does the work: it is maintained, takes plain SQL and uses the same driver. It
is not in the deployment package, so it is imported inside functions. What SQL cannot express, such
as a condition, is a function in BEFORE. On a cluster, `replication.py` changes each statement just
before it is sent: the files, whose hashes are remembered, stay the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from xapi_etl_processor import secrets
from xapi_etl_processor.clickhouse_client import CONNECT_SECONDS, REPLY_SECONDS
from xapi_etl_processor.config import Settings
from xapi_etl_processor.errors import ClickHouseRefused, ClickHouseUnavailable
from xapi_etl_processor.storage.replication import on_cluster
from xapi_etl_processor.storage.tables import EVENTS, OLD_EVENTS, REJECTED

if TYPE_CHECKING:
    from clickhouse_migrations.clickhouse_cluster import ClickhouseCluster
    from clickhouse_migrations.connection import Connection

SCHEMA = Path(__file__).parent / "schema"

INSERT_SECONDS = 2 * REPLY_SECONDS
"""How long inserts that run during an exchange are waited for. Our limit: the loader gives an
insert up after REPLY_SECONDS of silence."""

_POLL_SECONDS = 0.5


def migrate(settings: Settings) -> list[str]:
    """Create the database, or bring it to the newest schema; returns the files that were applied.

    Rejected lines are kept for REJECTED_DAYS. With CLICKHOUSE_CLUSTER, on every server of that
    cluster, with replicated tables. Safe to repeat, also after it was interrupted. Raises
    MigrationException if an applied file was edited, ClickHouseRefused if tables are there that
    should be replicated and are not, ClickHouseUnavailable if inserts do not end, and the
    driver's errors.
    """
    server = _server(settings)
    cluster = settings.clickhouse_cluster or None
    database = settings.clickhouse_database
    names = {int(path.name.split("_")[0]): path.name for path in sorted(SCHEMA.glob("*.sql"))}
    if cluster:
        with server.connection("") as connection:
            _refuse_unreplicated(connection, database, cluster)
    before = _applied(server, database)
    # A new database needs none of the steps between the files.
    for version in sorted(BEFORE.keys() - before) if before else ():
        server.migrate(database, SCHEMA, cluster, to_version=version - 1)
        with server.connection("") as connection:
            BEFORE[version](connection, database)
    server.migrate(database, SCHEMA, cluster)
    applied = sorted(_applied(server, database) - before)
    with server.connection("") as connection:
        if applied:
            _drop_if_empty(connection, database)
        _bound_rejected(connection, database, settings.rejected_days)
    return [names[version] for version in applied]


def _server(settings: Settings) -> ClickhouseCluster:
    """Connects for migrating; on a cluster, each statement is changed to fit it."""
    from clickhouse_migrations.clickhouse_cluster import ClickhouseCluster

    server = ClickhouseCluster(
        settings.clickhouse_host,
        settings.clickhouse_username,
        secrets.password(settings),
        str(settings.clickhouse_port),
        secure=settings.clickhouse_secure,
        ca_cert=settings.clickhouse_ca_certs or None,
        connect_timeout=CONNECT_SECONDS,
        # The wait for the greeting, and for each packet of an answer.
        query_timeout=max(REPLY_SECONDS, settings.clickhouse_wake_seconds),
        compression="lz4",
    )
    if settings.clickhouse_cluster:
        server.connection = partial(_connected, server.connection, settings.clickhouse_cluster)
    return server


def _connected(
    connect: Callable[[str | None], Connection], cluster: str, database: str | None = None
) -> Connection:
    """A connection whose statements are for the whole cluster."""
    connection = connect(database)
    command, query = connection.command, connection.query
    connection.command = lambda sql, *shown: command(on_cluster(sql, cluster), *shown)
    connection.query = lambda sql: query(on_cluster(sql, cluster))
    return connection


def _refuse_unreplicated(connection: Connection, database: str, cluster: str) -> None:
    """Migrating leaves an existing table as it is: its rows would stay on this server alone."""
    alone = connection.query(
        f"SELECT name FROM system.tables WHERE database = '{database}' AND engine LIKE '%MergeTree'"
        " AND engine NOT LIKE 'Replicated%' AND engine NOT LIKE 'Shared%' ORDER BY name"
    )
    if alone:
        raise ClickHouseRefused(
            f"{', '.join(row['name'] for row in alone)} in {database} is not replicated, and"
            f" CLICKHOUSE_CLUSTER is {cluster}: convert it, or take a new database, as"
            " docs/clickhouse.md says"
        )


def _applied(server: ClickhouseCluster, database: str) -> set[int]:
    return {row.version for row in server.status(database, SCHEMA) if row.state == "applied"}


def _undo_exchange(connection: Connection, database: str) -> None:
    """Exchange the tables back if 0002 was interrupted behind its EXCHANGE, which it repeats.

    Rows that were inserted meanwhile come back with the next exchange.
    """
    exchanged = connection.query(
        f"SELECT 1 FROM system.columns WHERE database = '{database}' AND table = '{EVENTS}'"
        " AND name = 'row_version'"
    )
    if exchanged:
        connection.command(f"EXCHANGE TABLES {database}.{EVENTS} AND {database}.{OLD_EVENTS}")


def _wait_for_inserts(connection: Connection, database: str) -> None:
    """Wait for inserts that began before the exchange: they end in the old table, which 0003 reads.

    Without CLICKHOUSE_CLUSTER only this server's inserts are seen. Raises ClickHouseUnavailable
    after INSERT_SECONDS.
    """
    end = time.monotonic() + INSERT_SECONDS
    while connection.query(
        "SELECT 1 FROM system.processes"
        f" WHERE query ILIKE 'INSERT INTO%' AND position(query, '{database}.{EVENTS} ') > 0"
    ):
        if time.monotonic() > end:
            raise ClickHouseUnavailable(
                f"inserts into {database}.{EVENTS} have not ended for {INSERT_SECONDS} seconds:"
                " pause the function (docs/operations.md), then migrate again"
            )
        time.sleep(_POLL_SECONDS)


def _bound_rejected(connection: Connection, database: str, days: int) -> None:
    """Let rejected lines be removed after so many days."""
    life = f"toDateTime(rejected_at) + toIntervalDay({days})"
    is_so = connection.query(
        f"SELECT 1 FROM system.tables WHERE database = '{database}' AND name = '{REJECTED}'"
        f" AND position(engine_full, '{life}') > 0"
    )
    if not is_so:
        connection.command(f"ALTER TABLE {database}.{REJECTED}\nMODIFY TTL {life}")


def _drop_if_empty(connection: Connection, database: str) -> None:
    """A database that was new has nothing in the old table."""
    held = connection.query(
        f"SELECT total_rows FROM system.tables"
        f" WHERE database = '{database}' AND name = '{OLD_EVENTS}' AND total_rows = 0"
    )
    if held:
        connection.command(f"DROP TABLE {database}.{OLD_EVENTS}")


BEFORE: dict[int, Callable[[Connection, str], None]] = {2: _undo_exchange, 3: _wait_for_inserts}
"""By a file's number: what to do before the file is applied."""
