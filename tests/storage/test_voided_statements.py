"""Statements that another one voids are left out by readers, whatever arrives first."""

from __future__ import annotations

import re

import pytest

from local.clickhouse_server import ClickHouseServer
from tests.conftest import Ask, Bucket, Invoke
from tests.support.refusals import watch
from tests.support.samples import event_id, notification, video, voiding

KEY = "section/2001/video/2024-01-01T12-00-00Z_1.jsonl"
OTHER = "section/2001/admin/2024-01-02T12-00-00Z_2.jsonl"
READ = "SELECT event_id FROM video_statements ORDER BY event_id"
VOIDED = "SELECT voided_id, voided_by FROM voided_statements FINAL ORDER BY ALL"


@pytest.mark.slow
@pytest.mark.fault(73, caught_by="the view leaves out voided statements")
def test_a_voided_statement_is_left_out_whatever_arrives_first_and_however_often(
    bucket: Bucket, invoke: Invoke, ask: Ask
) -> None:
    bucket.put(KEY, video(1), video(2), voiding(4))
    bucket.put(OTHER, video(3), video(4), voiding(2), voiding(2, id=event_id(9)))
    for key in (KEY, OTHER):
        assert invoke(notification(bucket.name, key))["files_processed"] == 1
    expected = [
        [event_id(2), event_id(9)],
        [event_id(2), event_id(1002)],
        [event_id(4), event_id(1004)],
    ]
    for _ in range(2):
        assert ask(VOIDED) == expected
        assert ask(READ) == [[event_id(1)], [event_id(3)]]
        assert ask("SELECT count() FROM video_events FINAL") == [[4]]
        invoke({"mode": "bulk", "force_reprocess": True})


def test_a_voiding_statement_is_recorded_with_its_source_before_its_object_is_in_the_ledger(
    bucket: Bucket, invoke: Invoke, ask: Ask, clickhouse: ClickHouseServer
) -> None:
    voids = voiding(7, timestamp="2024-01-02T08:00:00Z")
    bucket.put(OTHER, video(1), voids, b"no statement")
    stored = watch(clickhouse, "stored")
    answer = invoke(notification(bucket.name, OTHER))
    tables = [sql.split(".")[1].split(" ")[0] for sql in stored]
    assert tables[-1] == "processed_files"
    assert set(tables[:-1]) == {"video_events", "rejected_statements", "voided_statements"}
    assert (answer["video_events_processed"], answer["other_events"]) == (1, 1)
    etag = bucket.client.head_object(Bucket=bucket.name, Key=OTHER)["ETag"].strip('"')
    columns = "voided_id, voided_by, voided_at, source_file, source_etag, source_line"
    assert ask(f"SELECT {columns} FROM voided_statements") == [
        [event_id(7), event_id(1007), "2024-01-02 08:00:00.000", bucket.uri(OTHER), etag, 2]
    ]


@pytest.mark.ci
@pytest.mark.slow
def test_a_filter_on_the_view_uses_the_primary_key_and_the_indexes_of_the_table(
    invoke: Invoke, ask: Ask
) -> None:
    # Half of the rows are in January, half in March, in 100 sections.
    moments = "toDateTime64('2024-01-01', 3, 'UTC') + toIntervalDay(number % 2 * 60)"
    ask(
        "INSERT INTO video_events (event_id, timestamp, section_id, section)"
        f" SELECT toString(number), {moments}, 2000 + number % 100 AS n, toString(n)"
        " FROM numbers(300000)"
    )
    whole = granules(ask, "1")
    assert granules(ask, "section_id = 2001") < whole / 5
    assert granules(ask, "section = '2001'") < whole / 5
    assert granules(ask, "timestamp < '2024-01-08'") <= whole / 2


def granules(ask: Ask, where: str) -> int:
    """How many granules of video_events a query of the view reads, after every index."""
    plan = f"EXPLAIN indexes = 1 SELECT count() FROM video_statements WHERE {where}"
    text = "\n".join(line for (line,) in ask(plan))
    of_table = text.partition(".video_events")[2].partition("ReadFromMergeTree")[0]
    return min(map(int, re.findall(r"Granules: (\d+)/\d+", of_table)))
