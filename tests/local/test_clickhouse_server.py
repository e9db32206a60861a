"""The local ClickHouse server behaves as a server: login, types, errors, several clients."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clickhouse_driver import Client, dbapi, errors

from local import process
from local.clickhouse_server import ClickHouseServer
from tests.conftest import PASSWORD, USER
from tests.support.dirty import Dirty
from xapi_etl_processor.base.config import Settings

ROOT = Path(__file__).parents[2]


def client(server: ClickHouseServer, **options: Any) -> Client:
    given = {"user": USER, "password": PASSWORD, "compression": "lz4", **options}
    return Client("127.0.0.1", server.port, **given)


@pytest.fixture
def connected(clickhouse: ClickHouseServer) -> Iterator[Client]:
    with client(clickhouse) as connected:
        yield connected


@pytest.fixture
def table(unmigrated: Settings, connected: Client) -> str:
    """A table that holds a 1, in a database of its own."""
    connected.execute(f"CREATE DATABASE {unmigrated.clickhouse_database}")
    table = f"{unmigrated.clickhouse_database}.t"
    connected.execute(f"CREATE TABLE {table} (a UInt8) ENGINE = MergeTree ORDER BY a")
    connected.execute(f"INSERT INTO {table} VALUES", [(1,)])
    return table


def test_a_select_is_answered_whole_however_it_begins_and_ends_with_its_own_settings(
    connected: Client,
) -> None:
    for sql in (
        "/* dashboard */ SELECT 42 AS a",
        "-- why\nSELECT 42 AS a;",
        "(SELECT 42 AS a) UNION ALL (SELECT 1 WHERE 0)",
        "FROM system.one SELECT 42 AS a",
        "SELECT 42 AS a FORMAT Vertical",
        "WITH 42 AS x SELECT x AS a",
    ):
        assert connected.execute(sql, with_column_types=True)[0] == [(42,)], sql
    # Answers of many blocks, and of none.
    rows = connected.execute("SELECT number FROM numbers(300000)")
    assert [row[0] for row in rows] == list(range(300_000))
    found = connected.execute("SELECT 1 AS a WHERE 0", with_column_types=True)
    assert found == ([], [("a", "UInt8")])
    asked = "SELECT getSetting('max_threads') = 3"
    assert connected.execute(asked, settings={"max_threads": 3}) == [(1,)]
    assert connected.execute(asked) == [(0,)]


def test_whatever_reads_names_its_columns_even_without_rows(
    clickhouse: ClickHouseServer, unmigrated: Settings, table: str
) -> None:
    database = unmigrated.clickhouse_database
    login = {"user": USER, "password": PASSWORD, "database": database}
    with dbapi.connect(host="127.0.0.1", port=clickhouse.port, **login) as connection:
        cursor = connection.cursor()
        for sql, columns, rows in (
            ("SHOW TABLES", ["name"], [("t",)]),
            ("SHOW TABLES LIKE 'u'", ["name"], []),
            (
                f"-- which?\nDESCRIBE {table};",
                ["name", "type", "default_type"],
                [("a", "UInt8", "")],
            ),
            (f"EXISTS {table}", ["result"], [(1,)]),
            ("EXPLAIN AST SELECT 1", ["explain"], [("SelectWithUnionQuery (children 1)",)]),
        ):
            cursor.execute(sql)
            assert [name for name, *_ in cursor.description][:3] == columns, sql
            assert [row[:3] for row in cursor.fetchall()][:1] == rows, sql


@pytest.mark.slow
# Of a tuple in an array, which no reader asks for, it does not know the type.
@pytest.mark.filterwarnings("ignore:Did not recognize type .* of column 'sessions'")
def test_sqlalchemy_reflects_and_reads_every_table_and_view(dirty: Dirty) -> None:
    from sqlalchemy import MetaData, Table, create_engine, inspect, select

    engine = create_engine(
        f"clickhouse+native://{USER}:{PASSWORD}@127.0.0.1:{dirty.server.port}/{dirty.database}"
    )
    found = inspect(engine)
    names = {*found.get_table_names(), *found.get_view_names()}
    assert {"video_events", "processed_files", "video_statements", "video_engagement"} < names
    with engine.connect() as connection:
        for name in names:
            reflected = Table(name, MetaData(), autoload_with=connection)
            shown = connection.exec_driver_sql(f"DESCRIBE {name}")
            assert [column.name for column in reflected.columns] == [row[0] for row in shown]
            assert len(connection.execute(select(reflected).limit(1)).all()) <= 1, name
    engine.dispose()


def test_an_error_has_the_engines_code_and_the_connection_can_be_used_again(
    clickhouse: ClickHouseServer, connected: Client
) -> None:
    for sql, code in (("SELECT nope", 47), ("SELEC 1", 62), ("SELECT 1 FROM no.table", 81)):
        with pytest.raises(errors.ServerException) as refused:
            connected.execute(sql)
        assert refused.value.code == code
        assert connected.execute("SELECT 2") == [(2,)]
    for login in ({"password": "wrong"}, {"user": "nobody"}):
        with (
            client(clickhouse, **login) as other,
            pytest.raises(errors.ServerException) as refused,
        ):
            other.execute("SELECT 1")
        assert refused.value.code == 516, login


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("ADD CONSTRAINT small CHECK a < 2", 469),
        ("MODIFY SETTING parts_to_throw_insert = 1", 252),
    ],
)
def test_what_the_engine_does_not_store_is_never_acknowledged(
    connected: Client, table: str, change: str, code: int
) -> None:
    connected.execute(f"SYSTEM STOP MERGES {table}")
    connected.execute(f"ALTER TABLE {table} {change}")
    with pytest.raises(errors.ServerException) as caught:
        connected.execute(f"INSERT INTO {table} VALUES", [(3,)])
    assert caught.value.code == code
    assert connected.execute(f"SELECT count() FROM {table}") == [(1,)]


def test_an_insert_of_two_blocks_is_one_insert(clickhouse: ClickHouseServer, table: str) -> None:
    with client(clickhouse, settings={"insert_block_size": 2}) as connected:
        assert connected.execute(f"INSERT INTO {table} (a) VALUES", [(2,), (3,), (4,)]) == 3
        parts = f"SELECT rows FROM system.parts WHERE database || '.' || table = '{table}'"
        assert sorted(connected.execute(parts)) == [(1,), (3,)]


# --- As a process ---


@pytest.mark.ci
@pytest.mark.slow
def test_it_serves_what_an_earlier_one_stored_and_ends_quietly(tmp_path: Path) -> None:
    create = "CREATE TABLE default.t (a UInt8) ENGINE = MergeTree ORDER BY a"
    with process.clickhouse(tmp_path) as port, Client("127.0.0.1", port) as connected:
        assert connected.execute("SHOW TABLES FROM default") == []
        connected.execute(create)
    with (
        process.clickhouse(tmp_path, "--read-only") as port,
        Client("127.0.0.1", port) as connected,
    ):
        assert connected.execute("SHOW TABLES FROM default") == [("t",)]
        with pytest.raises(errors.ServerException, match="This ClickHouse is read-only"):
            connected.execute(create)
        # Without this file, it looks as if another program served the folder.
        (tmp_path / "served_on_port").unlink()
        command = [sys.executable, "-m", "local.query", "--data", str(tmp_path), "SELECT 1"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
        assert done.returncode == 1
        assert b"if it is being served, ask that server, or stop it" in done.stderr


# --- Read-only ---


@pytest.fixture
def read_only(clickhouse: ClickHouseServer, unmigrated: Settings, table: str) -> Iterator[Client]:
    server = ClickHouseServer(Path(clickhouse.path), read_only=True).start()
    database = unmigrated.clickhouse_database
    with Client("127.0.0.1", server.port, database=database, compression="lz4") as connected:
        yield connected
    server.stop()


def test_a_read_only_server_answers_what_reads_and_lets_a_session_be_set_up(
    read_only: Client,
) -> None:
    for sql in (
        "/* dashboard */ SELECT a FROM t",
        "(SELECT a FROM t)",
        "FROM t SELECT a",
        "WITH 1 AS x SELECT a FROM t WHERE x",
        "SELECT a FROM t SETTINGS max_threads = 1",
    ):
        assert read_only.execute(sql, settings={"max_threads": 2}) == [(1,)], sql
    for sql in ("SHOW TABLES", "DESCRIBE t", "DESC TABLE t", "EXPLAIN SELECT 1", "EXISTS t"):
        assert read_only.execute(sql), sql
    for sql in ("USE default", "SET max_threads = 1"):
        assert not read_only.execute(sql), sql


@pytest.mark.slow
def test_a_read_only_server_refuses_everything_else(read_only: Client) -> None:
    for sql in (
        "INSERT INTO t VALUES (2)",
        "/* SELECT */ CREATE TABLE u (a UInt8) ENGINE = MergeTree ORDER BY a",
        "CREATE TEMPORARY TABLE u (a UInt8)",
        "ALTER TABLE t DELETE WHERE 1",
        "DROP TABLE t",
        "SYSTEM STOP MERGES",
        "SET readonly = 0",
        "SELECT 1 SETTINGS readonly = 0",
    ):
        with pytest.raises(errors.ServerException) as refused:
            read_only.execute(sql)
        assert refused.value.code == 164, sql
        assert "`make local`" in refused.value.message
        assert "`make run` rebuilds the demo each time" in refused.value.message
        assert read_only.execute("SELECT a FROM t") == [(1,)], sql
    # Inserts are refused before rows are sent; so are clients that ask for the right to write.
    for sql, rows, settings in (
        ("INSERT INTO t VALUES", [(2,)], {}),
        ("SELECT 1", None, {"readonly": 0}),
    ):
        with pytest.raises(errors.ServerException) as refused:
            read_only.execute(sql, rows, settings=settings)
        assert refused.value.code == 164, sql
    # These begin like queries and would write.
    for sql in (
        "WITH n AS (SELECT 2 AS a) INSERT INTO t SELECT a FROM n",
        "SELECT 1; DROP TABLE t",
        "EXPLAIN SELECT 1; DROP TABLE t",
        "SELEC 1",
    ):
        with pytest.raises(errors.ServerException):
            read_only.execute(sql)
        assert read_only.execute("SELECT a FROM t") == [(1,)], sql
