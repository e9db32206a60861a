"""The status: what is fresh, loaded, rejected and waiting, and what could not be asked."""

from __future__ import annotations

import json
import socket
import time
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest

from local.clickhouse_server import ClickHouseServer
from tests.conftest import Ask, Bucket, Invoke, forget_connections
from tests.support.samples import BAD_LINE, other, video
from xapi_etl_processor.base.attempts import ATTEMPTS
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.cli import main

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_stream")]

FIRST = "section/2001/video/2024-01-01T12-00-00Z_1.jsonl"
SECOND = "section/2002/video/2024-01-02T12-00-00Z_2.jsonl"


@pytest.fixture
def loaded(bucket: Bucket, invoke: Invoke, capsys: pytest.CaptureFixture[str]) -> Bucket:
    """Two objects: three video statements, one of them in both, one without a timestamp."""
    bucket.put(FIRST, video(1), video(2, timestamp=None), other(1), BAD_LINE)
    invoke({"mode": "bulk"})
    bucket.put(SECOND, video(1), video(3))
    invoke({"mode": "bulk"})
    capsys.readouterr()
    return bucket


def status(capsys: pytest.CaptureFixture[str], *options: str, code: int = 0) -> dict[str, Any]:
    assert main(["status", "--json", *options]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_what_is_loaded_is_counted(loaded: Bucket, capsys: pytest.CaptureFixture[str]) -> None:
    found = status(capsys)
    today = datetime.now(UTC).date().isoformat()
    assert found["days"] == [{"day": today, "objects": 2, "video": 4, "other": 1, "rejected": 1}]
    # Of the four rows, two are those of video(1) in section 2001, from the key, and 2002.
    assert found["repeats"] == {"rows": 4, "statements": 4, "collapsed": 0}
    assert found["timestamps"] == {"key": 1}
    [reason] = found["rejected"]
    assert (reason["lines"], reason["example"]) == (1, f"{loaded.uri(FIRST)} line 4")
    assert found["not_set"] == {
        "queue": "SQS_QUEUE_URL",
        "backfill": "BACKFILL_QUEUE_URL",
        "dead_letters": "SQS_DEAD_LETTER_QUEUE_URL",
    }


def test_repeats_are_the_rows_that_reading_leaves_out(
    loaded: Bucket, capsys: pytest.CaptureFixture[str], invoke: Invoke, ask: Ask
) -> None:
    ask("SYSTEM STOP MERGES video_events")
    invoke({"bucket": loaded.name, "key": FIRST, "force_reprocess": True})
    capsys.readouterr()
    assert status(capsys)["repeats"] == {"rows": 6, "statements": 4, "collapsed": 2}


def test_one_section_is_counted_alone(loaded: Bucket, capsys: pytest.CaptureFixture[str]) -> None:
    found = status(capsys, "--section", "02002")
    assert [(day["objects"], day["video"]) for day in found["days"]] == [(1, 2)]
    assert (found["rejected"], found["timestamps"]) == ([], {})
    assert found["repeats"]["statements"] == 2
    assert found["freshness"]["objects"] == 1


def test_the_lag_is_between_the_newest_object_and_the_newest_that_is_loaded(
    loaded: Bucket, capsys: pytest.CaptureFixture[str]
) -> None:
    fresh = status(capsys)["freshness"]
    assert (fresh["lag_seconds"], fresh["not_loaded"]) == (0, 0)
    newest = loaded.put("section/3/new.jsonl", video(9))
    late = status(capsys)["freshness"]
    assert (late["newest"]["key"], late["newest_loaded"]["key"]) == (newest, SECOND)
    assert late["not_loaded"] == 1
    assert 0 <= late["lag_seconds"] < 60


def test_parts_and_bytes_are_shown_by_month(
    loaded: Bucket, capsys: pytest.CaptureFixture[str]
) -> None:
    [month] = status(capsys)["months"]
    assert (month["month"], month["rows"]) == ("202401", 4)
    assert month["bytes"] > 0


def test_what_cannot_be_asked_is_named_with_the_grant_and_the_rest_is_shown(
    loaded: Bucket, capsys: pytest.CaptureFixture[str], clickhouse: ClickHouseServer
) -> None:
    def refuse(_: str, sql: str) -> None:
        if "system.parts" in sql:
            raise RuntimeError("Code: 497. DB::Exception: Not enough privileges")

    clickhouse.hook = refuse
    found = status(capsys, code=1)
    assert "GRANT SELECT ON system.parts TO loader" in found["failed"]["months"]
    assert found["repeats"]["rows"] == 4


def test_without_a_bucket_that_is_said_and_the_tables_are_shown(
    loaded: Bucket, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("S3_XAPI_BUCKET_NAME")
    found = status(capsys, code=1)
    assert "S3_XAPI_BUCKET_NAME is not set" in found["failed"]["freshness"]
    assert found["days"]


def test_queues_are_asked_if_they_are_set(
    loaded: Bucket, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = boto3.client("sqs").create_queue(QueueName=f"q{time.monotonic_ns()}")["QueueUrl"]
    boto3.client("sqs").send_message(QueueUrl=url, MessageBody="no event")
    monkeypatch.setenv("SQS_DEAD_LETTER_QUEUE_URL", url)
    monkeypatch.setenv("BACKFILL_QUEUE_URL", url)
    monkeypatch.setenv("SQS_QUEUE_URL", url + "-that-is-not-there")
    found = status(capsys, code=1)
    assert found["dead_letters"] == found["backfill"] == {"waiting": 1, "in_progress": 0}
    assert "NonExistentQueue" in found["failed"]["queue"]


def test_the_page_fits_a_terminal_and_says_what_was_not_asked(
    loaded: Bucket, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status"]) == 0
    shown = capsys.readouterr().out
    assert all(len(line) <= 80 for line in shown.splitlines() if "://" not in line)
    assert f"    {SECOND}\n" in shown
    assert "not asked: set SQS_QUEUE_URL" in shown
    assert "2 bundles in S3" in shown
    assert shown.count("\n\n") == 9


def test_an_empty_database_has_a_status(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status"]) == 0
    assert "no bundles in S3" in capsys.readouterr().out


def test_a_server_that_is_away_is_asked_once_and_its_error_told_once(
    bucket: Bucket,
    settings: Settings,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    pauses: list[float],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    bucket.put(FIRST, video(1))
    monkeypatch.setenv("CLICKHOUSE_PORT", str(port))
    forget_connections()
    assert main(["status"]) == 1
    shown = capsys.readouterr().out
    assert " ".join(shown.split()).count("no connection") == 1
    assert shown.count("see above") == 5
    assert len(pauses) == ATTEMPTS - 1
