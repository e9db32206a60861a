"""A database of version 0.1 is brought forward with its rows, whatever happens meanwhile."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from chdb.state.sqlitelike import Connection
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from local.clickhouse_server import ClickHouseServer
from tests.conftest import Ask, Template
from tests.faults.tcp_proxy import Fault, tcp_proxy
from tests.support import former_schema, version_0_1
from tests.support.refusals import watch
from tests.support.replicas import wait_for
from tests.support.rows import NOON
from tests.support.samples import event_id
from tests.support.version_0_1 import row
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.errors import ClickHouseRefused, ClickHouseUnavailable
from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.migrations import migrate as migrations
from xapi_etl_processor.migrations.migrate import SCHEMA, migrate
from xapi_etl_processor.migrations.replication import on_cluster
from xapi_etl_processor.s3.objects import S3Object
from xapi_etl_processor.storage.tables import EVENTS
from xapi_etl_processor.xapi.identity import statement_id
from xapi_etl_processor.xapi.quantities import speed
from xapi_etl_processor.xapi.values import section

pytestmark = pytest.mark.slow

IDS = "SELECT event_id FROM video_statements ORDER BY event_id"


@pytest.fixture
def old(unmigrated: Settings) -> Settings:
    """Settings, also set in the environment, for an empty database of version 0.1."""
    version_0_1.create(unmigrated)
    return unmigrated


@pytest.fixture
def insert(clickhouse: ClickHouseServer, old: Settings) -> Any:
    """Store rows as version 0.1 did."""
    return lambda *rows: version_0_1.insert(clickhouse, old.clickhouse_database, *rows)


def test_a_database_becomes_like_a_new_one_with_all_rows_and_values(
    old: Settings, insert: Any, ask: Ask, clickhouse: ClickHouseServer, template: Template
) -> None:
    folder, early = "s3://bucket/section", "2024-03-01 00:00:00.000"
    insert(
        row(1, speed="1.5x", completion_threshold=0.9, verb_id="v", full_screen=True),
        row(2, event_id="{00000000-0000-4000-8000-000000000002}"),
        row(3, event_id="urn:uuid:00000000000040008000000000000003", speed="fast"),
        row(4, event_id=" not-a-uuid ", speed="2", video_played_segments="0[.]10"),
        # Version 0.1 had no column for sections that are texts, and took a statement's 0 for one.
        row(5, section_id=0, source_file=f"{folder}/BIO101/video/x.jsonl"),
        row(6, section_id=0, source_file=f"{folder}/007/video/x.jsonl"),
        row(7, section_id=0, source_file="s3://section/merged.jsonl"),
        row(8, timestamp="1999-12-31 23:59:59.999", inserted_at="2024-05-06 07:08:09.123"),
        row(9, user_id="viewer-9", inserted_at="2024-03-02 00:00:00.000"),
    )
    # Of repeated rows, the one that was inserted last counts.
    insert(row(9, user_id="before", inserted_at=early))
    insert(row(2, event_id=event_id(2).upper(), user_id="before", inserted_at=early))
    names = random_rows(ask, 6)

    stop = "SYSTEM STOP MERGES video_events"
    watch(clickhouse, "query", "MATERIALIZE COLUMN", lambda: ask(stop))
    try:
        assert migrate(old) == [
            "0002_versions_sections_voiding.sql",
            "0003_late_rows.sql",
            "0004_watching.sql",
            "0005_learners.sql",
            "0006_notes.sql",
            "0007_summaries.sql",
        ]
        # All parts are written anew to fill the new column, which may take hours.
        unfinished = "SELECT command FROM system.mutations WHERE database = currentDatabase()"
        assert "MATERIALIZE COLUMN" in str(ask(f"{unfinished} AND NOT is_done"))
    finally:
        ask("SYSTEM START MERGES video_events")
    columns = "section_id, section, speed, row_version, timestamp_source, played_stretches"
    known = "FROM video_events FINAL WHERE source_etag = 'etag-1'"
    assert ask(f"SELECT event_id, {columns} {known} ORDER BY user_id") == [
        [event_id(1), 2001, "2001", 1.5, 0, "", []],
        [event_id(2), 2001, "2001", None, 0, "", []],
        [event_id(3), 2001, "2001", None, 0, "", []],
        ["not-a-uuid", 2001, "2001", 2, 0, "", [[0, 10]]],
        [event_id(5), 0, "BIO101", None, 0, "", []],
        [event_id(6), 7, "7", None, 0, "", []],
        [event_id(7), 0, "", None, 0, "", []],
        [event_id(8), 2001, "2001", None, 0, "", []],
        [event_id(9), 2001, "2001", None, 0, "", []],
    ]
    kept = "timestamp, inserted_at, user_id, video_time"
    assert ask(f"SELECT {kept} FROM video_statements WHERE event_id = '{event_id(8)}'") == [
        ["1999-12-31 23:59:59.999", "2024-05-06 07:08:09.123", "viewer-8", 4]
    ]
    other = "completion_threshold, verb_id, full_screen"
    assert ask(f"SELECT {other} FROM video_statements WHERE event_id = '{event_id(1)}'") == [
        [0.9, "v", True]
    ]
    assert len(names) == 44
    computed = {"event_id", "section_id", "speed"}
    copied = ", ".join(name for name in names if name not in computed)
    rows = f"SELECT {copied} FROM {{}} FINAL WHERE source_etag = 'random' ORDER BY ALL"
    assert ask(rows.format("video_events")) == ask(rows.format("video_events_old"))
    page = (SCHEMA.parents[2] / "docs/operations.md").read_text()
    (query,) = re.findall(r"SELECT \(SELECT count\(\) .*?;", page, re.DOTALL)
    # Before, the two spellings of an id were two rows.
    assert ask(query.replace("xapi_analytics", old.clickhouse_database)) == [[16, 15]]
    assert former_schema.creates(ask, old.clickhouse_database) == former_schema.creates(
        ask, template.database
    )
    assert migrate(old) == []
    version_0_1_still_inserts_but_no_speeds(old, ask)


def random_rows(ask: Ask, count: int) -> list[str]:
    """Store rows with random values; gives the names of version 0.1's columns."""
    described = ask(
        "SELECT name, type FROM system.columns WHERE table = 'video_events'"
        " AND database = currentDatabase()"
    )
    structure = ", ".join(f"{name} {kind}" for name, kind in described)
    ask("SET allow_suspicious_low_cardinality_types = 1")
    ask(
        "INSERT INTO video_events SELECT * REPLACE ('random' AS source_etag)"
        f" FROM generateRandom($${structure}$$, 11) LIMIT {count}"
    )
    return [name for name, _ in described]


def version_0_1_still_inserts_but_no_speeds(old: Settings, ask: Ask) -> None:
    """An insert with speeds is refused whole, so its message is delivered again."""
    version_0_1_writes = ClickHouse(old)

    def send(number: int, **more: Any) -> None:
        values = row(number, timestamp=NOON, **more)
        columns = {name: [value] for name, value in values.items() if value is not None}
        version_0_1_writes.insert(EVENTS, columns)

    send(11)
    with pytest.raises(
        ClickHouseRefused, match="insert into video_events failed: TypeMismatchError"
    ):
        send(12, speed="1.5x")
    version_0_1_writes.disconnect()
    late = f"SELECT event_id, section FROM video_events WHERE event_id > '{event_id(10)}'"
    assert ask(f"{late} AND source_etag = 'etag-1' AND event_id < 'g'") == [[event_id(11), "2001"]]


STEPS = (
    "0001 is recorded",
    'ALTER TABLE "schema_versions"',
    "RESET SETTING",
    "CREATE TABLE IF NOT EXISTS voided_statements",
    "CREATE TABLE IF NOT EXISTS video_events_old",
    "INSERT INTO video_events_old",
    "EXCHANGE TABLES video_events AND",
    "0002 is recorded",
    "INSERT INTO video_events\n",
    "0003 is recorded",
    "ADD COLUMN IF NOT EXISTS",
    "MATERIALIZE COLUMN",
    "0004 is recorded",
    "CREATE TABLE IF NOT EXISTS load_notes",
    "MODIFY SETTING fsync",
    "0006 is recorded",
    "CREATE OR REPLACE VIEW video_statements",
    "CREATE OR REPLACE VIEW section_daily",
)
"""What migrating does to a database of version 0.1."""


class Steps:
    """Calls `act` before a step of a migration, for as long as it has not been done."""

    def __init__(self, clickhouse: ClickHouseServer, act: Callable[[str], None]) -> None:
        self.act, self.recorded = act, 0
        clickhouse.hook = self

    def __call__(self, point: str, sql: str) -> None:
        if sql.startswith('INSERT INTO "schema_versions"'):
            self.recorded += point == "stored"
            sql = f"000{self.recorded + 1} is recorded"
        if point == "query":
            self.act(next((step for step in STEPS if step in sql), ""))


@pytest.mark.ci
def test_a_migration_that_is_killed_at_steps_loses_no_rows_that_are_inserted_meanwhile(
    old: Settings,
    insert: Any,
    ask: Ask,
    clickhouse: ClickHouseServer,
    template: Template,
) -> None:
    insert(row(0), row(1, event_id=event_id(1).upper()))
    numbers, left = count(2), list(STEPS)

    def insert_and_kill(step: str) -> None:
        if step:
            insert(row(next(numbers)))
        if left and step == left[0]:
            del left[0]
            raise ConnectionAbortedError

    Steps(clickhouse, insert_and_kill)
    for _ in STEPS:
        with pytest.raises(EOFError):
            migrate(old)
    migrate(old)
    assert ask(IDS) == [[event_id(number)] for number in range(next(numbers))]
    key = "SELECT sorting_key, engine_full FROM system.tables WHERE name = 'video_events'"
    assert ask(f"{key} AND database = currentDatabase()") == ask(
        f"{key} AND database = '{template.database}'"
    )


@pytest.mark.ci
def test_an_insert_that_began_before_the_exchange_is_waited_for_and_then_named(
    old: Settings, ask: Ask, clickhouse: ClickHouseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = Connection(clickhouse.path)
    three_rows_in_two_seconds = (
        f"INSERT INTO {old.clickhouse_database}.video_events (event_id, section_id)"
        " SELECT toString(number + sleepEachRow(0.7)), 1 FROM numbers(3)"
        " SETTINGS max_block_size = 1"
    )
    slow = threading.Thread(target=connection.query, args=(three_rows_in_two_seconds,))
    running = "SELECT 1 FROM system.processes WHERE query LIKE 'INSERT % sleepEachRow%'"

    def begin(step: str) -> None:
        if step.startswith("EXCHANGE"):
            slow.start()
            wait_for(lambda: bool(ask(running)), 10)

    Steps(clickhouse, begin)
    with monkeypatch.context() as impatient:
        impatient.setattr(migrations, "INSERT_SECONDS", 0)
        with pytest.raises(ClickHouseUnavailable, match="pause the function"):
            migrate(old)
    later = sorted(path.name for path in SCHEMA.glob("*.sql"))[3:]
    assert migrate(old) == ["0003_late_rows.sql", *later]
    slow.join()
    connection.close()
    assert ask("SELECT count() FROM video_events_old") == [[3]]
    assert ask(IDS) == [["0"], ["1"], ["2"]]


# What may stand in a key: blanks, signs, digits, letters, and more than fit a number or a column.
_folders = st.text(" +-.0189BéI_", min_size=1, max_size=6) | st.text(
    "019", min_size=19, max_size=21
)
_parents = st.sampled_from(["", "a/", "sub", "section//"])
_hex = st.text("0123456789abcdefABCDEF", min_size=12, max_size=12)
_hyphen = st.sampled_from(["-", ""])
_uuids = st.builds(
    "{}{}{}{}12ab{}4ABC{}89ef{}{}{}".format,
    *(st.sampled_from(["", " ", "\t"]), st.sampled_from(["", "urn:uuid:", "URN:UUID:", "{"])),
    *(st.sampled_from(["0123abCD", "0123abC"]), _hyphen, _hyphen, _hyphen, _hyphen, _hex),
    st.sampled_from(["", "}", "\r\n"]),
)
_factors = st.builds(
    "{}{}{}{}".format,
    *(st.sampled_from(["", " ", "x", "×", "+", "-"]), st.text("0123456789.,", max_size=5)),
    *(st.sampled_from(["", " "]), st.sampled_from(["", "x", "X", "×", "fast"])),
)
on_the_engine = hypothesis_settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@on_the_engine
@given(parent=_parents, folder=_folders)
@example(parent="", folder=f"{2**64 - 1}")
@example(parent="", folder=f"{2**64}")
@example(parent="", folder="1/section/2")
@example(parent="", folder="a" * 256)
@example(parent="", folder="a" * 257)
def test_sections_of_old_rows_are_equal_in_python_and_sql(
    clickhouse: ClickHouseServer, parent: str, folder: str
) -> None:
    key = f"{parent}section/{folder}/x"
    made = in_sql(clickhouse, "named", source_file=f"s3://section/{key}")
    assert made == (section(S3Object("b", key).section) or "")


@on_the_engine
@given(text=_uuids | st.text("{}urn:id-0 ", min_size=1, max_size=9).filter(str.strip))
def test_ids_of_old_rows_are_equal_in_python_and_sql(
    clickhouse: ClickHouseServer, text: str
) -> None:
    assert in_sql(clickhouse, "id", event_id=text) == statement_id(text)


@on_the_engine
@given(text=_factors)
def test_speeds_of_old_rows_are_equal_in_python_and_sql(
    clickhouse: ClickHouseServer, text: str
) -> None:
    made = in_sql(clickhouse, "toFloat64OrNull(replaceOne(factor, ',', '.'))", speed=text)
    assert made == speed(text)


def in_sql(clickhouse: ClickHouseServer, what: str, **columns: str) -> Any:
    """What the migration makes of a row of version 0.1 without a section."""
    sql = (SCHEMA / "0002_versions_sections_voiding.sql").read_text()
    (computed,) = re.findall(r"\nWITH\n(.*?)\nSELECT", sql, re.DOTALL)
    values = {"event_id": "", "speed": "", "source_file": ""} | columns
    texts = ", ".join(f"unhex('{v.encode().hex()}') AS {name}" for name, v in values.items())
    answer = clickhouse.engine.query(
        f"WITH {computed} SELECT {what} FROM (SELECT {texts}, toUInt64(0) AS section_id)",
        "JSONCompactEachRow",
    )
    return json.loads(answer.bytes())[0]


@pytest.mark.fault(68, caught_by="replicated tables")
def test_columns_are_compressed_and_quiet_months_merged_also_of_older_databases(
    unmigrated: Settings, ask: Ask, clickhouse: ClickHouseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an earlier version left it, which set neither. The table has rows."""
    migrate(unmigrated)
    ask("ALTER TABLE video_events MODIFY COLUMN verb REMOVE CODEC")
    ask("ALTER TABLE video_events MODIFY COLUMN row_version CODEC(NONE)")
    ask("ALTER TABLE video_events RESET SETTING min_age_to_force_merge_seconds")
    ask(
        "INSERT INTO video_events (event_id, timestamp, verb, video_url)"
        " VALUES ('a', '2024-03-01', 'played', 'u')"
    )
    changes: list[str] = []
    monkeypatch.setattr(clickhouse, "hook", lambda _, sql: changes.append(sql))
    assert migrate(unmigrated) == []
    assert [sql.split("\n")[1] for sql in changes if sql.startswith("ALTER")] == [
        "MODIFY COLUMN `verb` CODEC(ZSTD(1))",
        "MODIFY SETTING min_age_to_force_merge_seconds = 604800,"
        " min_age_to_force_merge_on_partition_only = 1",
    ]
    # A codec that somebody chose stays.
    assert ask(
        "SELECT name, compression_codec FROM system.columns WHERE database = currentDatabase()"
        " AND table = 'video_events' AND name IN ('verb', 'row_version', 'timestamp')"
        " ORDER BY name"
    ) == [
        ["row_version", "CODEC(NONE)"],
        ["timestamp", "CODEC(Delta(8), ZSTD(1))"],
        ["verb", "CODEC(ZSTD(1))"],
    ]
    assert ask("SELECT event_id, verb FROM video_statements") == [["a", "played"]]
    changes.clear()
    migrate(unmigrated)
    assert not [sql for sql in changes if sql.startswith("ALTER")]


def test_tables_that_are_not_replicated_are_not_taken_for_those_of_a_cluster(
    settings: Settings,
) -> None:
    with pytest.raises(
        ClickHouseRefused, match=r"video_events.* is not replicated.*docs/clickhouse.md"
    ):
        migrate(replace(settings, clickhouse_cluster="pair"))


def test_a_step_of_a_migration_is_for_the_whole_cluster() -> None:
    changed = {
        "ALTER TABLE a.b\nADD COLUMN c": "ALTER TABLE a.b ON CLUSTER 'pair'\nADD COLUMN c",
        "DROP TABLE a.b": "DROP TABLE a.b ON CLUSTER 'pair' SYNC",
        "EXCHANGE TABLES a.b AND a.c;": "EXCHANGE TABLES a.b AND a.c ON CLUSTER 'pair';",
        "SELECT 1 FROM system.processes WHERE query ILIKE 'INSERT INTO%'": (
            "SELECT 1 FROM clusterAllReplicas('pair', system.processes)"
            " WHERE query ILIKE 'INSERT INTO%'"
        ),
        "INSERT INTO a SELECT * FROM b": "INSERT INTO a SELECT * FROM b",
        "-- EXCHANGE TABLES a AND b": "-- EXCHANGE TABLES a AND b",
    }
    assert {statement: on_cluster(statement, "pair") for statement in changed} == changed


@pytest.mark.fault(67, caught_by="a new connection waits for the greeting")
def test_migrating_waits_for_a_sleeping_server(
    unmigrated: Settings, ask: Ask, clickhouse: ClickHouseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "REPLY_SECONDS", 0.5)
    with tcp_proxy(clickhouse.port) as wire:
        wire.fault = Fault(hold=1.5, times=1)
        version_0_1.create(replace(unmigrated, clickhouse_port=wire.port))
        assert wire.fault.fired == 1
    assert ask("SELECT count() FROM video_events") == [[0]]
