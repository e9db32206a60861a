"""Apply the numbered .sql files of `schema/`, and make the views of `views.sql` anew: for people
and pipelines, never at event time.

clickhouse-migrations does the work. It is not in the deployment package, so it is imported inside
functions. What SQL cannot express, such as a condition, is a function in BEFORE.
"""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xapi_etl_processor.base import secrets
from xapi_etl_processor.base.attempts import CONNECT_SECONDS
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.errors import ClickHouseRefused, ClickHouseUnavailable
from xapi_etl_processor.clickhouse_client import REPLY_SECONDS, WAKE_SECONDS
from xapi_etl_processor.migrations.replication import on_cluster
from xapi_etl_processor.storage.tables import (
    EVENTS,
    FORGOTTEN,
    OLD_EVENTS,
    REJECTED,
    SUMMARIES,
    TYPES,
)

if TYPE_CHECKING:
    from clickhouse_migrations.clickhouse_cluster import ClickhouseCluster
    from clickhouse_migrations.connection import Connection

SCHEMA = Path(__file__).parent / "schema"
VIEWS = Path(__file__).parent / "views.sql"

FORMER_MD5 = {
    1: "15e1c36628d393e35e053a4f79df054c",
    2: "5bec3f72967b6714f22b4b99cae4e170",
    3: "126376817e2f777d35a555aabd9f2927",
    4: "ef8a67419c22edda32b6271607123dfc",
    5: "4b3978cbd9ad3d478a4c037f6fdf6413",
}
"""By a file's number: its MD5 before it was edited. The former files gave tables deduplication
windows, and made the views. `_drop_windows`, BEFORE and VIEWS bring such databases forward."""

INSERT_SECONDS = 2 * REPLY_SECONDS
"""How long inserts that run during an exchange are waited for. Our limit: the loader gives an
insert up after REPLY_SECONDS of silence."""

QUIET_SECONDS = 7 * 86400
"""How old all parts of a month must be to be merged into one. Our limit: a late row has its month
written anew, so at most once a week.
"""

_POLL_SECONDS = 0.5


def migrate(settings: Settings) -> list[str]:
    """Create the database, or bring it to the newest schema; returns the files that were applied.

    With CLICKHOUSE_CLUSTER, on every server of that cluster, with replicated tables. Safe to
    repeat, also after it was interrupted. Raises MigrationException if an applied file was edited,
    ClickHouseRefused if tables are there that should be replicated and are not,
    ClickHouseUnavailable if inserts do not end, and the driver's errors.
    """
    server = _server(settings)
    cluster = settings.clickhouse_cluster or None
    database = settings.clickhouse_database
    names = {int(path.name.split("_")[0]): path.name for path in sorted(SCHEMA.glob("*.sql"))}
    if cluster:
        with server.connection("") as connection:
            _refuse_unreplicated(connection, database, cluster)
    _accept_edits(server, database)
    before = _applied(server, database)
    if before:
        with server.connection("") as connection:
            _drop_windows(connection, database)
    # A new database needs none of the steps between the files.
    for version in sorted(BEFORE.keys() - before) if before else ():
        server.migrate(database, SCHEMA, cluster, to_version=version - 1)
        with server.connection("") as connection:
            BEFORE[version](connection, database)
    server.migrate(database, SCHEMA, cluster)
    applied = sorted(_applied(server, database) - before)
    with server.connection("") as connection:
        _drop_windows(connection, database)
        if applied:
            _drop_if_empty(connection, database)
        _bound_rejected(connection, database, settings.rejected_days)
        _compress(connection, database)
        _merge_months(connection, database)
    _make_views(server, database)
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
        query_timeout=max(REPLY_SECONDS, WAKE_SECONDS),
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


def _tables(connection: Connection, database: str) -> dict[str, dict[str, Any]]:
    """The tables that are there, by name: their engines, and how many rows they have."""
    rows = connection.query(
        "SELECT name, engine, engine_full, total_rows FROM system.tables"
        f" WHERE database = '{database}' ORDER BY name"
    )
    return {row["name"]: row for row in rows}


def _refuse_unreplicated(connection: Connection, database: str, cluster: str) -> None:
    """Migrating leaves an existing table as it is: its rows would stay on this server alone."""
    alone = [
        name
        for name, row in _tables(connection, database).items()
        if re.fullmatch(r"(?!Replicated|Shared)\w*MergeTree", row["engine"])
    ]
    if alone:
        raise ClickHouseRefused(
            f"{', '.join(alone)} in {database} is not replicated, and"
            f" CLICKHOUSE_CLUSTER is {cluster}: convert it, or take a new database, as"
            " docs/clickhouse.md says"
        )


def _applied(server: ClickhouseCluster, database: str) -> set[int]:
    return {row.version for row in server.status(database, SCHEMA) if row.state == "applied"}


def views() -> str:
    """The statements that make the views, in the order in which they need each other."""
    from jinja2 import Template

    return str(Template(VIEWS.read_text()).render())


def _make_views(server: ClickhouseCluster, database: str) -> None:
    """Make the views anew, and ask those that no other reads for no rows: some versions take a
    view and then refuse to read it.
    """
    from clickhouse_driver.errors import ServerException
    from clickhouse_migrations.migrator import Migrator

    script = views()
    with server.connection(database) as connection:
        for statement in Migrator.script_to_statements(script, multi_statement=True):
            connection.command(statement)
        for view in re.findall(r"^CREATE OR REPLACE VIEW (\w+)", script, re.MULTILINE):
            if re.search(rf"FROM {view}\b", script):
                continue
            try:
                connection.query(f"SELECT * FROM {database}.{view} LIMIT 0")
            except ServerException as error:
                [version] = connection.query("SELECT version() AS version")
                raise ClickHouseRefused(
                    f"the tables are made, but ClickHouse {version['version']} refuses to read the"
                    f" view {view} (code {error.code}): docs/clickhouse.md says which versions do"
                ) from error


def _accept_edits(server: ClickhouseCluster, database: str) -> None:
    """Note the present contents of files that were applied as they were formerly."""
    edited = [
        row.version
        for row in server.status(database, SCHEMA)
        if row.state == "md5-mismatch" and row.md5 == FORMER_MD5.get(row.version)
    ]
    if edited:
        server.repair(database, SCHEMA, versions=edited, write=True)
    if not _applied(server, database):
        return
    # Repairing adds a row and then removes the former one: it may have been interrupted in between.
    former = tuple(FORMER_MD5.items())
    with server.connection("") as connection:
        table, where = f"{database}.schema_versions", f"WHERE (version, md5) IN {former}"
        if connection.query(f"SELECT 1 FROM {table} {where}"):
            connection.command(f"ALTER TABLE {table}\nDELETE {where} SETTINGS mutations_sync = 2")


def _drop_windows(connection: Connection, database: str) -> None:
    """Have the tables forget earlier inserts: within a window of deduplication, a server that was
    killed may take an insert that it lost for a repeat.
    """
    for name, row in _tables(connection, database).items():
        windows = re.findall(r"(\w*deduplication_window\w*) = ", row["engine_full"])
        if windows and name in (*TYPES, OLD_EVENTS):
            connection.command(f"ALTER TABLE {database}.{name}\nRESET SETTING {', '.join(windows)}")


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


def _wait_for_inserts(connection: Connection, database: str, table: str = EVENTS) -> None:
    """Wait for inserts that began before an exchange: they end in the old table, read next.

    Without CLICKHOUSE_CLUSTER only this server's inserts are seen. Raises ClickHouseUnavailable
    after INSERT_SECONDS.
    """
    end = time.monotonic() + INSERT_SECONDS
    while connection.query(
        "SELECT 1 FROM system.processes"
        f" WHERE query ILIKE 'INSERT INTO%' AND position(query, '{database}.{table} ') > 0"
    ):
        if time.monotonic() > end:
            raise ClickHouseUnavailable(
                f"inserts into {database}.{table} have not ended for {INSERT_SECONDS} seconds:"
                " pause the function (docs/operations.md), then migrate again"
            )
        time.sleep(_POLL_SECONDS)


def _key_forgotten(connection: Connection, database: str) -> None:
    """Give the list of forgotten learners an engine in which a repeated row replaces itself.

    Safe to repeat, wherever it was interrupted: no row is dropped before its copy is there.
    """
    now, old = f"{database}.{FORGOTTEN}", f"{database}.{FORGOTTEN}_old"
    columns = ", ".join(TYPES[FORGOTTEN])
    tables = _tables(connection, database)
    if FORGOTTEN not in tables:
        return
    if "Replacing" not in tables[FORGOTTEN]["engine"]:
        connection.command(
            f"CREATE TABLE IF NOT EXISTS {old}\nAS {now}\n"
            "ENGINE = ReplacingMergeTree(forgotten_at)\nORDER BY learner"
        )
        connection.command(f"INSERT INTO {old} ({columns}) SELECT {columns} FROM {now}")
        connection.command(f"EXCHANGE TABLES {now} AND {old}")
    elif f"{FORGOTTEN}_old" not in tables:
        return
    _wait_for_inserts(connection, database, FORGOTTEN)
    connection.command(f"INSERT INTO {now} ({columns}) SELECT {columns} FROM {old}")
    connection.command(f"DROP TABLE {old}")


def _bound_rejected(connection: Connection, database: str, days: int) -> None:
    """Let rejected lines be removed after so many days."""
    life = f"toDateTime(rejected_at) + toIntervalDay({days})"
    _set_unless(connection, database, REJECTED, life, f"MODIFY TTL {life}")


def _set_unless(
    connection: Connection, database: str, table: str, engine_has: str, change: str
) -> None:
    """Alter a table, unless its engine has this text already."""
    found = _tables(connection, database).get(table)
    # If it cannot be seen, the error of ClickHouse says why.
    if not found or engine_has not in found["engine_full"]:
        connection.command(f"ALTER TABLE {database}.{table}\n{change}")


def _compress(connection: Connection, database: str) -> None:
    """Give each column that has no codec one, for parts that are written from now on: servers of
    your own would compress with LZ4.
    """
    without: dict[str, list[str]] = defaultdict(list)
    for row in connection.query(
        "SELECT table, name, type LIKE 'DateTime%' OR name = 'row_version' AS rises"
        f" FROM system.columns WHERE database = '{database}' AND table IN {(*TYPES, SUMMARIES)}"
        " AND compression_codec = '' ORDER BY table, position"
    ):
        codec = "Delta, ZSTD(1)" if row["rises"] else "ZSTD(1)"
        without[row["table"]].append(f"MODIFY COLUMN `{row['name']}` CODEC({codec})")
    for table, changes in without.items():
        connection.command(f"ALTER TABLE {database}.{table}\n" + ", ".join(changes))


def _merge_months(connection: Connection, database: str) -> None:
    """Have the server merge a month that got no rows for QUIET_SECONDS into one part: until repeats
    are merged, every query with FINAL sorts them out.
    """
    age = "min_age_to_force_merge_seconds"
    change = f"MODIFY SETTING {age} = {QUIET_SECONDS}, min_age_to_force_merge_on_partition_only = 1"
    _set_unless(connection, database, EVENTS, f"{age} = ", change)


def _drop_if_empty(connection: Connection, database: str) -> None:
    """A database that was new has nothing in the old table."""
    old = _tables(connection, database).get(OLD_EVENTS)
    if old and old["total_rows"] == 0:
        connection.command(f"DROP TABLE {database}.{OLD_EVENTS}")


BEFORE: dict[int, Callable[[Connection, str], None]] = {
    2: _undo_exchange,
    3: _wait_for_inserts,
    6: _key_forgotten,
}
"""By a file's number: what to do before the file is applied."""
