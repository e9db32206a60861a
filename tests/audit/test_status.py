"""The status: what is fresh, loaded, rejected and waiting, and what could not be asked."""

from __future__ import annotations

import re
import socket
import time

import boto3
import pytest

from local.clickhouse_server import ClickHouseServer
from tests.conftest import Bucket, Cli, Invoke, forget_connections, set_variables, variables_for
from tests.support.dirty import ALL, NO_BUNDLE, Dirty
from tests.support.refusals import refuse
from tests.support.samples import video
from tests.support.watched import Watched, row
from xapi_etl_processor.audit import status as audit
from xapi_etl_processor.base.attempts import ATTEMPTS
from xapi_etl_processor.base.config import Settings

FIRST = "section/2001/video/2024-01-01T12-00-00Z_1.jsonl"


def test_ids_with_several_timestamps_are_counted_with_an_example_or_of_a_sample(
    watched: Watched,
    clickhouse: ClickHouseServer,
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stamped 40 ms later. A repeat of the same row, or another video, does not count."""
    rows = [row(at, "played", event_id=f"id {at}") for at in range(5)]
    again = [one | {"timestamp": one["timestamp"] + 0.04} for one in rows[:3]]
    watched.insert(*rows, *again)
    watched.insert(rows[4], rows[4] | {"video_url": "https://videos.example.edu/2"})
    set_variables(monkeypatch, variables_for(clickhouse, watched.database))
    section = ("--section", str(watched.section))
    asked = {"ids": 3, "example": "id 0", "of_each": 1}
    assert cli("status", "--json", *section, code=1).json["restamped"] == asked
    assert re.search(
        r"each of them a statement\n +3 +such as\n +id 0\n", cli("status", *section, code=1).out
    )
    # Nine rows, or ten while the repeat is not merged.
    monkeypatch.setattr(audit, "SAMPLE_ROWS", 4)
    found = cli("status", "--json", *section, code=1).json["restamped"]
    assert (found["of_each"], found["ids"] < 3) == (3, True)
    assert "of one in 3 ids, such as" in cli("status", *section, code=1).out


def test_what_is_loaded_is_counted_once(on_dirty: Dirty, cli: Cli) -> None:
    found = cli("status", "--json").json
    [today, long_ago] = found["days"]
    assert today["day"] > long_ago["day"]
    assert today | {"day": ""} == {"day": "", "objects": 7, "video": 28, "other": 2, "rejected": 3}
    assert (long_ago["objects"], long_ago["video"]) == (1, 1)
    assert found["repeats"] == {"rows": 50, "statements": 27, "collapsed": 23}
    assert found["timestamps"] == {"key": 1, "none": 1}
    reasons = {one["reason"]: (one["lines"], one["example"]) for one in found["rejected"]}
    assert reasons.pop("not UTF-8") == (1, f"{on_dirty.uri(ALL)} line 24")
    no_bundle = on_dirty.uri(NO_BUNDLE)
    lines, newest = reasons.pop("not JSON: invalid character")
    assert (lines, newest in {f"{no_bundle} line {n}" for n in (1, 2)}) == (3, True)
    assert reasons == {}
    assert (found["freshness"]["not_loaded"], found["freshness"]["looked_up"]) == (1, 8)
    assert found["not_set"] == {
        "queue": "SQS_QUEUE_URL",
        "backfill": "BACKFILL_QUEUE_URL",
        "dead_letters": "SQS_DEAD_LETTER_QUEUE_URL",
    }
    months = found["months"]
    rows = [("197001", 2), ("201905", 1), ("202401", 2), ("202403", 45)]
    assert [(one["month"], one["rows"]) for one in months] == rows
    # Each of the seven loads made a part in March.
    assert [one["parts"] for one in months] == [2, 1, 2, 7]
    assert [[one["bytes"]] for one in months] == on_dirty.ask(
        "SELECT sum(bytes_on_disk) FROM system.parts WHERE database = currentDatabase() AND active"
        " AND table = 'video_events' GROUP BY partition ORDER BY partition"
    )


def test_one_section_is_counted_alone(on_dirty: Dirty, cli: Cli) -> None:
    found = cli("status", "--json", "--section", "01").json
    assert [(day["objects"], day["video"]) for day in found["days"]] == [(1, 1), (1, 1)]
    assert (found["rejected"], found["timestamps"]) == ([], {"key": 1})
    assert found["repeats"] == {"rows": 1, "statements": 1, "collapsed": 0}
    assert found["freshness"]["objects"] == 2
    there = "the ledger has no section 2002; nearest: 2001 (2 in all)"
    assert (
        f"no object of section '2002' was loaded: {there}" in cli("status", "--section", "2002").err
    )


@pytest.mark.slow
def test_the_lag_is_between_the_newest_object_and_the_newest_that_is_loaded(
    bucket: Bucket, invoke: Invoke, cli: Cli
) -> None:
    assert "no bundles in S3" in cli("status").out
    bucket.put(FIRST, video(1))
    invoke({"mode": "bulk"})
    fresh = cli("status", "--json").json["freshness"]
    assert (fresh["lag_seconds"], fresh["not_loaded"]) == (0, 0)
    assert "  1 bundle in S3\n" in cli("status").out
    newest = bucket.put("section/3/new.jsonl", video(9))
    late = cli("status", "--json").json["freshness"]
    assert (late["newest"]["key"], late["newest_loaded"]["key"]) == (newest, FIRST)
    assert late["not_loaded"] == 1
    assert 0 <= late["lag_seconds"] < 60


def test_what_is_set_is_asked_and_what_cannot_be_asked_is_named_and_the_rest_is_shown(
    on_dirty: Dirty, cli: Cli, clickhouse: ClickHouseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = boto3.client("sqs").create_queue(QueueName=f"q{time.monotonic_ns()}")["QueueUrl"]
    boto3.client("sqs").send_message(QueueUrl=url, MessageBody="no event")
    monkeypatch.setenv("SQS_DEAD_LETTER_QUEUE_URL", url)
    monkeypatch.setenv("BACKFILL_QUEUE_URL", url)
    monkeypatch.setenv("SQS_QUEUE_URL", url + "-that-is-not-there")
    monkeypatch.delenv("S3_XAPI_BUCKET_NAME")
    # monkeypatch undoes it at the end: other tests share this database.
    monkeypatch.setattr(clickhouse, "hook", clickhouse.hook)
    refuse(clickhouse, 497, r"system\.parts")
    found = cli("status", "--json", code=1).json
    assert "GRANT SELECT ON system.parts TO loader" in found["failed"]["months"]
    assert "S3_XAPI_BUCKET_NAME is not set" in found["failed"]["freshness"]
    assert "NonExistentQueue" in found["failed"]["queue"]
    assert found["dead_letters"] == found["backfill"] == {"waiting": 1, "in_progress": 0}
    assert found["repeats"]["rows"] == 50


def test_the_page_fits_a_terminal_and_says_what_was_not_asked(on_dirty: Dirty, cli: Cli) -> None:
    shown = cli("status").out
    assert all(len(line) <= 80 for line in shown.splitlines() if "://" not in line)
    assert f"    {NO_BUNDLE}\n" in shown
    assert "not asked: set SQS_QUEUE_URL" in shown
    assert "8 bundles in S3" in shown
    assert shown.count("\n\n") == 10


@pytest.mark.slow
def test_a_server_that_is_away_is_asked_once_and_its_error_told_once(
    bucket: Bucket,
    settings: Settings,
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
    pauses: list[float],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    bucket.put(FIRST, video(1))
    monkeypatch.setenv("CLICKHOUSE_PORT", str(port))
    forget_connections()
    shown = cli("status", code=1).out
    assert " ".join(shown.split()).count("no connection") == 1
    assert shown.count("see above") == 6
    assert len(pauses) == ATTEMPTS - 1
