"""The local ClickHouse server behaves as a server: login, types, errors, several clients."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from clickhouse_driver import Client, errors

from local import process
from local.clickhouse_server import ClickHouseServer
from tests.conftest import PASSWORD, USER
from xapi_etl_processor.base.config import Settings

ROOT = Path(__file__).parents[2]


def client(server: ClickHouseServer, **options: Any) -> Client:
    given = {"user": USER, "password": PASSWORD, "compression": "lz4", **options}
    return Client("127.0.0.1", server.port, **given)


@pytest.mark.parametrize("compression", ["lz4", False])
def test_a_select_has_names_types_and_values(
    clickhouse: ClickHouseServer, compression: object
) -> None:
    sql = (
        "SELECT 1::UInt8 AS a, 'ä'::LowCardinality(String) AS b, NULL::Nullable(Float64) AS c,"
        " true AS d, toDateTime64('2024-01-01 00:00:00.123', 3, 'UTC') AS e"
    )
    with client(clickhouse, compression=compression) as connected:
        rows, columns = connected.execute(sql, with_column_types=True)
    moment = datetime(2024, 1, 1, microsecond=123_000, tzinfo=UTC)
    assert [row[:4] for row in rows] == [(1, "ä", None, True)]
    assert rows[0][4] == moment
    assert [kind for _, kind in columns] == [
        "UInt8",
        "LowCardinality(String)",
        "Nullable(Float64)",
        "Bool",
        "DateTime64(3, 'UTC')",
    ]


def test_a_result_of_many_blocks_comes_whole(clickhouse: ClickHouseServer) -> None:
    with client(clickhouse) as connected:
        rows = connected.execute("SELECT number FROM numbers(300000)")
    assert [row[0] for row in rows] == list(range(300_000))


def test_an_empty_result_still_has_its_columns(clickhouse: ClickHouseServer) -> None:
    with client(clickhouse) as connected:
        found = connected.execute("SELECT 1 AS a WHERE 0", with_column_types=True)
    assert found == ([], [("a", "UInt8")])


@pytest.mark.parametrize("login", [{"password": "wrong"}, {"user": "nobody"}])
def test_a_wrong_login_is_refused(clickhouse: ClickHouseServer, login: dict[str, str]) -> None:
    with client(clickhouse, **login) as connected, pytest.raises(errors.ServerException) as refused:
        connected.execute("SELECT 1")
    assert refused.value.code == 516


@pytest.mark.parametrize(
    ("sql", "code"),
    [("SELECT nope", 47), ("SELEC 1", 62), ("SELECT 1 FROM no.table", 81)],
)
def test_an_error_has_the_engines_code_and_the_connection_can_be_used_again(
    clickhouse: ClickHouseServer, sql: str, code: int
) -> None:
    with client(clickhouse) as connected:
        with pytest.raises(errors.ServerException) as refused:
            connected.execute(sql)
        assert refused.value.code == code
        assert connected.execute("SELECT 2") == [(2,)]


@pytest.mark.parametrize(
    "sql",
    [
        "/* dashboard */ SELECT 42 AS a",
        "-- why\nSELECT 42 AS a;",
        "(SELECT 42 AS a) UNION ALL (SELECT 1 WHERE 0)",
        "FROM system.one SELECT 42 AS a",
        "SELECT 42 AS a FORMAT Vertical",
        "WITH 42 AS x SELECT x AS a",
    ],
)
def test_a_select_is_answered_however_it_begins_and_ends(
    clickhouse: ClickHouseServer, sql: str
) -> None:
    with client(clickhouse) as connected:
        assert connected.execute(sql, with_column_types=True)[0] == [(42,)]


@pytest.mark.slow
def test_a_folder_that_is_served_is_not_taken_and_the_reason_is_said(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "local.clickhouse_server", "--data", str(tmp_path)]
    with process.clickhouse(tmp_path):
        (tmp_path / "served_on_port").unlink()  # As if another program served it.
        ask = [sys.executable, "-m", "local.query", "--data", str(tmp_path), "SELECT 1"]
        for taken in ([*command, "--port", "0"], ask):
            done = subprocess.run(taken, cwd=ROOT, capture_output=True, check=False)
            assert done.returncode == 1
            assert b"if it is being served, ask that server, or stop it" in done.stderr


def test_settings_reach_the_engine_for_one_query_only(clickhouse: ClickHouseServer) -> None:
    with client(clickhouse) as connected:
        asked = "SELECT getSetting('max_threads') = 3"
        assert connected.execute(asked, settings={"max_threads": 3}) == [(1,)]
        assert connected.execute(asked) == [(0,)]


def test_several_clients_are_served_at_once(clickhouse: ClickHouseServer) -> None:
    def ask(number: int) -> int:
        with client(clickhouse) as connected:
            rows = connected.execute(f"SELECT sum(number) + {number} FROM numbers(100000)")
        return int(rows[0][0])

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(16))) == [4_999_950_000 + n for n in range(16)]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("ALTER TABLE default.t ADD CONSTRAINT small CHECK n < 2", 469),
        ("ALTER TABLE default.t MODIFY SETTING parts_to_throw_insert = 1", 252),
    ],
)
def test_what_the_engine_does_not_store_is_never_acknowledged(
    clickhouse: ClickHouseServer, change: str, code: int
) -> None:
    with client(clickhouse) as connected:
        connected.execute("CREATE TABLE default.t (n UInt64) ENGINE = MergeTree ORDER BY n")
        connected.execute("SYSTEM STOP MERGES default.t")
        connected.execute("INSERT INTO default.t VALUES", [(1,)])
        connected.execute(change)
        with pytest.raises(errors.ServerException) as caught:
            connected.execute("INSERT INTO default.t VALUES", [(3,)])
        assert caught.value.code == code
        assert connected.execute("SELECT count() FROM default.t") == [(1,)]
        connected.execute("DROP TABLE default.t")


def test_an_insert_of_two_blocks_is_one_insert(
    clickhouse: ClickHouseServer, unmigrated: Settings
) -> None:
    database = unmigrated.clickhouse_database
    with client(clickhouse, settings={"insert_block_size": 2}) as connected:
        connected.execute(f"CREATE DATABASE {database}")
        connected.execute(f"CREATE TABLE {database}.t (a UInt8) ENGINE = MergeTree ORDER BY a")
        assert connected.execute(f"INSERT INTO {database}.t (a) VALUES", [(1,), (2,), (3,)]) == 3
        assert connected.execute(f"SELECT a FROM {database}.t ORDER BY a") == [(1,), (2,), (3,)]


@pytest.mark.slow
def test_it_serves_what_an_earlier_one_stored_and_ends_quietly(tmp_path: Path) -> None:
    for expected in ([], [("t",)]):
        with process.clickhouse(tmp_path) as port, Client("127.0.0.1", port) as connected:
            assert connected.execute("SHOW TABLES FROM default") == expected
            connected.execute(
                "CREATE TABLE IF NOT EXISTS default.t (a UInt8) ENGINE = MergeTree ORDER BY a"
            )


@pytest.mark.slow
def test_one_that_drops_rows_answers_inserts_and_stores_nothing(tmp_path: Path) -> None:
    with process.clickhouse(tmp_path, "--drop-rows") as port:
        connected = Client("127.0.0.1", port, compression="lz4")
        connected.execute("CREATE TABLE default.t (a UInt8) ENGINE = MergeTree ORDER BY a")
        assert connected.execute("INSERT INTO default.t (a) VALUES", [(1,), (2,)]) == 2
        assert connected.execute("SELECT count() FROM default.t") == [(0,)]
        with pytest.raises(errors.ServerException, match="No such column b"):
            connected.execute("INSERT INTO default.t (b) VALUES", [(1,)])
        connected.disconnect()


@pytest.mark.slow
@pytest.mark.parametrize(
    "sql",
    [
        "/* dashboard */ SELECT a FROM default.t",
        "(SELECT a FROM default.t)",
        "FROM default.t SELECT a",
        "WITH 1 AS x SELECT a FROM default.t WHERE x",
        "SELECT a FROM default.t SETTINGS max_threads = 1",
    ],
)
def test_a_read_only_server_answers_selects(read_only: Client, sql: str) -> None:
    assert read_only.execute(sql, settings={"max_threads": 2}) == [(1,)]


@pytest.mark.parametrize(
    ("sql", "answered"),
    [
        ("SHOW TABLES FROM default", True),
        ("DESCRIBE default.t", True),
        ("DESC TABLE default.t", True),
        ("EXPLAIN SELECT 1", True),
        ("EXISTS default.t", True),
        ("USE default", False),
        ("SET max_threads = 1", False),
    ],
)
def test_a_read_only_server_describes_tables_and_lets_a_session_be_set_up(
    read_only: Client, sql: str, answered: bool
) -> None:
    assert bool(read_only.execute(sql)) == answered


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO default.t VALUES (2)",
        "INSERT INTO default.t SELECT 2",
        "/* SELECT */ CREATE TABLE default.u (a UInt8) ENGINE = MergeTree ORDER BY a",
        "CREATE TEMPORARY TABLE u (a UInt8)",
        "CREATE DATABASE u",
        "ALTER TABLE default.t DELETE WHERE 1",
        "DELETE FROM default.t WHERE 1",
        "TRUNCATE TABLE default.t",
        "DROP TABLE default.t",
        "RENAME TABLE default.t TO default.u",
        "OPTIMIZE TABLE default.t FINAL",
        "SYSTEM STOP MERGES",
        "SET readonly = 0",
        "SELECT 1 SETTINGS readonly = 0",
    ],
)
def test_a_read_only_server_refuses_everything_else(read_only: Client, sql: str) -> None:
    with pytest.raises(errors.ServerException) as refused:
        read_only.execute(sql)
    assert refused.value.code == 164
    assert "`make local`" in refused.value.message
    assert "`make run` rebuilds the demo each time" in refused.value.message
    assert read_only.execute("SELECT a FROM default.t") == [(1,)]


def test_a_read_only_server_tells_what_is_misspelled(read_only: Client) -> None:
    with pytest.raises(errors.ServerException) as refused:
        read_only.execute("SELEC 1")
    assert refused.value.code == 62


@pytest.mark.parametrize(
    "sql",
    [
        "WITH n AS (SELECT 2 AS a) INSERT INTO default.t SELECT a FROM n",
        "SELECT 1; DROP TABLE default.t",
        "EXPLAIN SELECT 1; DROP TABLE default.t",
    ],
)
def test_a_read_only_server_is_not_fooled_by_the_first_word(read_only: Client, sql: str) -> None:
    with pytest.raises(errors.ServerException):
        read_only.execute(sql)
    assert read_only.execute("SELECT a FROM default.t") == [(1,)]


def test_a_read_only_server_refuses_rows_before_they_are_sent(read_only: Client) -> None:
    with pytest.raises(errors.ServerException) as refused:
        read_only.execute("INSERT INTO default.t VALUES", [(2,)])
    assert refused.value.code == 164


def test_a_read_only_server_refuses_a_client_that_asks_to_write(read_only: Client) -> None:
    with pytest.raises(errors.ServerException) as refused:
        read_only.execute("SELECT 1", settings={"readonly": 0})
    assert refused.value.code == 164


@pytest.mark.slow
def test_a_column_is_named_as_it_was_asked_for(clickhouse: ClickHouseServer) -> None:
    with client(clickhouse) as connected:
        _, columns = connected.execute("SELECT 'a' = 'b'", with_column_types=True)
    assert columns == [("equals('a', 'b')", "UInt8")]


@pytest.fixture(scope="module")
def read_only_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    data: Path = tmp_path_factory.mktemp("read-only")
    with process.clickhouse(data) as port, Client("127.0.0.1", port) as connected:
        connected.execute("CREATE TABLE default.t (a UInt8) ENGINE = MergeTree ORDER BY a")
        connected.execute("INSERT INTO default.t SELECT 1")
    with process.clickhouse(data, "--read-only") as port:
        yield port


@pytest.fixture
def read_only(read_only_port: int) -> Iterator[Client]:
    with Client("127.0.0.1", read_only_port, compression="lz4") as connected:
        yield connected
