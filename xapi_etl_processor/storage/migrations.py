"""Apply the numbered .sql files of `schema/`: for people and pipelines, never at event time.

clickhouse-migrations does the work: it is maintained, takes plain SQL and uses the same driver. It
is not in the deployment package, so it is imported inside functions. What SQL cannot express, such
as a condition, is a function in BEFORE.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from xapi_etl_processor import secrets
from xapi_etl_processor.clickhouse_client import CONNECT_SECONDS, REPLY_SECONDS
from xapi_etl_processor.config import Settings
from xapi_etl_processor.errors import ClickHouseUnavailable
from xapi_etl_processor.storage.tables import EVENTS

if TYPE_CHECKING:
    from clickhouse_migrations.clickhouse_cluster import ClickhouseCluster
    from clickhouse_migrations.connection import Connection

SCHEMA = Path(__file__).parent / "schema"

OLD_EVENTS = "video_events_old"
"""The table of version 0.1, with its rows; before the exchange in 0002, the table that is new."""

INSERT_SECONDS = 2 * REPLY_SECONDS
"""How long inserts that run during an exchange are waited for. Our limit: the loader gives an
insert up after REPLY_SECONDS of silence."""

_POLL_SECONDS = 0.5


def migrate(settings: Settings) -> list[str]:
    """Create the database, or bring it to the newest schema; returns the files that were applied.

    Safe to repeat, also after it was interrupted. Raises MigrationException if an applied file was
    edited, ClickHouseUnavailable if inserts do not end, and the driver's errors.
    """
    from clickhouse_migrations.clickhouse_cluster import ClickhouseCluster

    cluster = ClickhouseCluster(
        settings.clickhouse_host,
        settings.clickhouse_username,
        secrets.password(settings),
        str(settings.clickhouse_port),
        secure=settings.clickhouse_secure,
        ca_cert=settings.clickhouse_ca_certs or None,
        connect_timeout=CONNECT_SECONDS,
        query_timeout=REPLY_SECONDS,
        compression="lz4",
    )
    database = settings.clickhouse_database
    names = {int(path.name.split("_")[0]): path.name for path in sorted(SCHEMA.glob("*.sql"))}
    before = _applied(cluster, database)
    # A new database needs none of the steps between the files.
    for version in sorted(BEFORE.keys() - before) if before else ():
        cluster.migrate(database, SCHEMA, to_version=version - 1)
        with cluster.connection("") as connection:
            BEFORE[version](connection, database)
    cluster.migrate(database, SCHEMA)
    applied = sorted(_applied(cluster, database) - before)
    if applied:
        with cluster.connection("") as connection:
            _drop_if_empty(connection, database)
    return [names[version] for version in applied]


def _applied(cluster: ClickhouseCluster, database: str) -> set[int]:
    return {row.version for row in cluster.status(database, SCHEMA) if row.state == "applied"}


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

    Only this server's inserts are seen. Raises ClickHouseUnavailable after INSERT_SECONDS.
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
