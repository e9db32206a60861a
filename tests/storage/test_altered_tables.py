"""Tables that were altered, deleted from or have a materialized view; dry and forced runs."""

from __future__ import annotations

import re

import pytest

from local.clickhouse_server import ClickHouseServer
from tests.conftest import Ask, Bucket, Invoke
from tests.faults.tcp_proxy import TcpProxy
from tests.support.reader import FORGET, IDS, ROWS, ids
from tests.support.refusals import watch
from tests.support.samples import BAD_LINE, VIDEO, event_id, notification, video, voiding
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.errors import EventFailed
from xapi_etl_processor.migrations.migrate import SCHEMA
from xapi_etl_processor.storage.tables import EVENTS, FILES, REJECTED, VOIDED

KEY = "section/1/video/2024-01-01T12-00-00Z_1.jsonl"


@pytest.mark.slow
@pytest.mark.fault(38, caught_by="column names in every insert; health check")
def test_moved_and_added_columns_do_no_harm_and_with_a_missing_one_nothing_is_stored(
    bucket: Bucket, invoke: Invoke, ask: Ask
) -> None:
    bucket.put(KEY, video(1, result={"completion": True}))
    ask("ALTER TABLE video_events ADD COLUMN cohort String DEFAULT 'a' FIRST")
    ask("ALTER TABLE video_events MODIFY COLUMN user_agent Nullable(String) AFTER cohort")
    invoke(notification(bucket.name, KEY))
    assert ask("SELECT cohort, event_id, user_id, completion FROM video_events") == [
        ["a", event_id(1), "viewer-1", True]
    ]
    ask("ALTER TABLE video_events DROP COLUMN verb")
    other = bucket.put("section/1/other.jsonl", video(2))
    with pytest.raises(EventFailed, match="verb.*a column is missing: run .*migrate"):
        invoke(notification(bucket.name, other))
    assert ask(ROWS) == [[1]]
    assert ask("SELECT count() FROM processed_files FINAL") == [[1]]


@pytest.mark.slow
@pytest.mark.fault(41, caught_by="row identity")
def test_a_statement_sent_again_in_another_month_counts_once(
    bucket: Bucket, invoke: Invoke, ask: Ask
) -> None:
    for month in ("01", "02", "03"):
        key = f"section/1/video/2025-{month}-15T00-00-00Z_1.jsonl"
        bucket.put(key, video(1, stored=f"2025-{month}-15T00:00:00Z"))
        invoke(notification(bucket.name, key))
    ask(FORGET)
    assert invoke({"section_id": 1})["files_processed"] == 3
    for across in (0, 1):
        final = f"SETTINGS do_not_merge_across_partitions_select_final = {across}"
        assert ask(f"SELECT count() FROM video_events FINAL {final}") == [[1]]
    parts = "SELECT DISTINCT partition FROM system.parts WHERE table = 'video_events'"
    assert ask(f"{parts} AND database = currentDatabase() AND active") == [["202401"]]


@pytest.mark.slow
@pytest.mark.fault(42, caught_by="a view with the same key, read with FINAL")
def test_a_materialized_view_that_is_built_as_documented_counts_each_statement_once(
    bucket: Bucket, settings: Settings, invoke: Invoke, ask: Ask
) -> None:
    page = (SCHEMA.parents[2] / "docs/tables.md").read_text()
    section = page.split("## A materialized view of your own")[1].split("\n## ")[0]
    create, view, query = re.findall(r"```sql\n(.*?);?\n```", section, re.DOTALL)
    for sql in (create, view):
        ask(sql.replace("xapi_analytics", settings.clickhouse_database))
    for table in ("watched_seconds", "video_events"):
        ask(f"SYSTEM STOP MERGES {table}")
    stretches = {"result": {"extensions": {VIDEO + "played-segments": "0[.]10"}}}
    bucket.put(KEY, *(video(n, **stretches) for n in range(5)))
    invoke(notification(bucket.name, KEY))
    ask(FORGET)
    invoke(notification(bucket.name, KEY))
    bucket.put("section/1/other/void.jsonl", voiding(4))
    invoke(notification(bucket.name, "section/1/other/void.jsonl"))
    # The view was told of the repeated insert too.
    assert ask("SELECT count() FROM watched_seconds") == [[10]]
    watched = ask(query.replace("xapi_analytics", settings.clickhouse_database))
    assert watched == [[1, "https://example.org/video/1", 40]]


@pytest.mark.slow
@pytest.mark.fault(39, 43, caught_by="`async_insert=0`; a unique token in every insert")
def test_every_insert_is_compressed_synchronous_and_unlike_any_other_whatever_the_profile_says(
    bucket: Bucket, wire: TcpProxy, invoke: Invoke
) -> None:
    lines = [b"not a statement" * 100] * 200
    for key in (KEY, f"2{KEY}"):
        bucket.put(f"section/{key}", *lines, video(1))
        assert invoke({"bucket": bucket.name, "key": f"section/{key}"})["rejected_lines"] == 200
    # In the native protocol, a setting is two texts, each after its length, with a flag between.
    inserts = wire.sent.count(b"INSERT INTO")
    assert inserts == 6
    assert wire.sent.count(b"\x0casync_insert\x01\x010") == inserts
    tokens = re.findall(rb"\x1ainsert_deduplication_token\x01\x20([0-9a-f]{32})", wire.sent)
    assert len(set(tokens)) == inserts
    # Of 600 kilobytes.
    assert len(wire.sent) < 100_000


@pytest.mark.slow
@pytest.mark.fault(39, caught_by="a unique token in every insert")
def test_no_insert_is_taken_for_a_repeat_whatever_the_tables_settings_say(
    bucket: Bucket, invoke: Invoke, ask: Ask
) -> None:
    """A server that was killed may remember an insert, and not have its rows."""
    tables = (EVENTS, REJECTED, VOIDED, FILES)
    bucket.put(KEY, video(1), BAD_LINE, voiding(4))
    # Windows of deduplication: that of version 0.1's tables, and none.
    for window in (10000, 10000, 0, 0):
        for table in tables:
            ask(
                f"ALTER TABLE {table} MODIFY SETTING non_replicated_deduplication_window = {window}"
            )
            # Unlike DELETE, it leaves the log of inserts as it is.
            ask(f"ALTER TABLE {table} DELETE WHERE 1 SETTINGS mutations_sync = 2")
        assert invoke(notification(bucket.name, KEY))["files_processed"] == 1
        for table in tables:
            assert ask(f"SELECT count() FROM {table} FINAL") == [[1]], window


@pytest.mark.slow
@pytest.mark.fault(44, caught_by="row identity")
def test_forced_reprocessing_restores_deleted_rows_every_time(
    bucket: Bucket, invoke: Invoke, ask: Ask
) -> None:
    bucket.put(KEY, *(video(n) for n in range(10)), BAD_LINE)
    force = {"bucket": bucket.name, "key": KEY, "force_reprocess": True}
    invoke(notification(bucket.name, KEY))
    for _ in range(2):
        for table in ("video_events", "rejected_statements"):
            ask(f"ALTER TABLE {table} DELETE WHERE 1 SETTINGS mutations_sync = 2")
        assert invoke(notification(bucket.name, KEY))["files_skipped"] == 1
        assert ask(ROWS) == [[0]]
        for _ in range(2):
            assert invoke(force)["video_events_processed"] == 10
        assert ask(IDS) == ids(range(10))
        assert ask("SELECT count() FROM rejected_statements FINAL") == [[1]]
    assert ask("SELECT count() FROM processed_files FINAL") == [[1]]


@pytest.mark.slow
@pytest.mark.fault(45, caught_by="no writing query is sent")
def test_a_dry_run_of_an_event_sends_no_writing_query_and_counts_like_a_real_run(
    bucket: Bucket, invoke: Invoke, ask: Ask, clickhouse: ClickHouseServer
) -> None:
    payload = {"bucket": bucket.name, "key": KEY}
    bucket.put(KEY, video(1), BAD_LINE, video(2), voiding(4))
    sent = watch(clickhouse, "query")
    dry = invoke({**payload, "dry_run": True}).body
    assert sent
    assert all(sql.startswith("SELECT ") for sql in sent)
    for table in (EVENTS, REJECTED, VOIDED, FILES):
        assert ask(f"SELECT count() FROM {table}") == [[0]]
    real = invoke(payload).body
    counters = ("files_found", "video_events_processed", "rejected_lines", "events_processed")
    assert [dry[name] for name in counters] == [real[name] for name in counters] == [1, 2, 1, 3]
    stored = [ask(f"SELECT count() FROM {table}") for table in (EVENTS, REJECTED, VOIDED, FILES)]
    assert stored == [[[2]], [[1]], [[1]], [[1]]]
