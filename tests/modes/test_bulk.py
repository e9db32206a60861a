"""Bulk mode: which objects a request covers, what it answers, and how it resumes."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime, timedelta

import pytest

from local.clickhouse_server import ClickHouseServer
from tests.conftest import Ask, Bucket, Invoke
from tests.support.covered import found
from tests.support.samples import BAD_LINE, notification, other, video
from xapi_etl_processor.base.errors import NothingDone

COUNT = "SELECT count() FROM video_events"
SECTIONS = "SELECT section_id, section FROM video_statements"
LOADED = {
    "success": True,
    "processing_mode": "bulk",
    "section_id": 1,
    "events_processed": 4,
    "video_events_processed": 2,
    "other_events": 2,
    "rejected_lines": 1,
    "blank_lines": 2,
    "forgotten_events": 0,
    "timestamps_replaced": 0,
    "files_found": 2,
    "files_processed": 2,
    "files_skipped": 0,
    "files_ignored": 0,
    "files_failed": 0,
    "failures": [],
    "dry_run": False,
    "s3_prefix": "section/1/",
    "list_calls": 1,
    "stopped": None,
    "stop_reason": None,
    "complete": True,
    "continuation_token": None,
}
"""The answer to the first test's request, but for its duration."""


@pytest.mark.slow
def test_a_section_is_loaded_and_the_answer_reports_it(
    bucket: Bucket, invoke: Invoke, ask: Ask
) -> None:
    bucket.put("section/1/video/a.jsonl", video(1), other(1), BAD_LINE, b"", b"")
    bucket.put("section/1/page_viewed/b.jsonl", other(2), video(2))
    bucket.put("section/2/video/c.jsonl", video(3))
    answer = invoke({"section_id": 1})
    assert answer.status == 200
    assert answer.body.pop("duration_ms") >= 0
    assert answer.body == LOADED
    assert ask(COUNT) == [[2]]
    assert ask("SELECT DISTINCT mode FROM processed_files") == [["bulk"]]


@pytest.mark.slow
@pytest.mark.fault(46, caught_by="prefixes match whole folders")
def test_a_section_or_prefix_covers_whole_folders_alone(
    bucket: Bucket, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = "section/1/video/a.jsonl", "section/1/page_viewed/d.jsonl"
    tenth = "section/10/video/b.jsonl"
    bucket.put_each(first, second, tenth, "section/100/video/c.jsonl")
    assert found(invoke, section_id=1) == [second, first]
    assert found(invoke, section_id="10") == [tenth]
    for prefix in ("section/1", "section/1/", "/section/1"):
        assert found(invoke, s3_prefix=prefix) == [second, first]
    assert found(invoke, s3_prefix="section/1/video") == [first]
    # Sections are looked for only in folders named `section`, wherever those are.
    monkeypatch.setenv("S3_XAPI_PREFIX", "/")
    archived = ["archive/section/1/video/a.jsonl", "archive/section/2/video/b.jsonl"]
    below = "subsection/section/1/video/b.jsonl"
    bucket.put_each(*archived, "subsection/1/video/a.jsonl", below)
    assert found(invoke, s3_prefix="archive") == archived
    assert found(invoke, s3_prefix="archive/", section_id=2) == archived[1:]
    assert found(invoke, s3_prefix="subsection", section_id=1) == [below]
    assert len(found(invoke, s3_prefix="")) == 8


@pytest.mark.slow
def test_a_section_that_is_no_number_is_loaded_and_stored_as_text(
    bucket: Bucket, invoke: Invoke, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put_each("section/101/video/c.jsonl")
    sections = ["BIO101", "Médecine 1+2", "20x1", "1e3", "a" * 256]
    for number, section in enumerate(sections):
        bucket.put(f"section/{section}/video/a.jsonl", video(number))
        bucket.put_each(f"section/{section}x/video/b.jsonl")
        answer = invoke({"section_id": section})
        assert (answer["section_id"], answer["s3_prefix"]) == (section, f"section/{section}/")
        assert answer["files_processed"] == 1
    assert sorted(ask(SECTIONS)) == sorted([0, section] for section in sections)
    # Sections are also found below other folders.
    monkeypatch.setenv("S3_XAPI_PREFIX", "/")
    keys = ["archive/section/BIO/a.jsonl", "archive/section/MAT/b.jsonl", "archive/BIO/c.jsonl"]
    bucket.put_each(*keys)
    assert found(invoke, section_id="BIO", s3_prefix="archive") == keys[:1]


@pytest.mark.slow
def test_a_number_may_be_sent_as_text_and_with_zeros(
    bucket: Bucket, invoke: Invoke, ask: Ask
) -> None:
    bucket.put_each("section/7/video/a.jsonl", "section/007/video/b.jsonl")
    for number in (7, "7", "007"):
        assert found(invoke, section_id=number) == ["section/7/video/a.jsonl"]
    # A folder with zeros has the same section, but another name.
    zeros = {"section_id": 7, "s3_prefix": "section/007/"}
    assert found(invoke, **zeros) == ["section/007/video/b.jsonl"]
    assert invoke(zeros)["section_id"] == 7
    assert ask(SECTIONS) == [[7, "7"]]


@pytest.mark.slow
@pytest.mark.usefixtures("logged_to_standard_output")
def test_an_events_answer_and_log_name_a_section_of_text(
    bucket: Bucket, invoke: Invoke, capfd: pytest.CaptureFixture[str]
) -> None:
    bucket.put_each("section/BIO101/video/a.jsonl", "section/BIO101/video/b.jsonl")
    keys = ("section/BIO101/video/a.jsonl", "section/BIO101/video/b.jsonl")
    assert invoke(notification(bucket.name, *keys))["section_id"] == "BIO101"
    assert '"section_id":"BIO101"' in capfd.readouterr().out
    bucket.put_each("section/MAT/video/a.jsonl")
    both = notification(bucket.name, keys[0], "section/MAT/video/a.jsonl")
    assert invoke(both)["section_id"] is None


@pytest.mark.fault(46, caught_by="file extension")
def test_only_bundles_are_covered_and_others_are_counted_where_the_request_would_cover_them(
    bucket: Bucket, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundles = ["C.JSONL", "a.jsonl", "b.jsonl.gz", "2024-01-05T12-00-00Z_2.jsonl"]
    others = ["a.json", "b.ndjson", "2024-01-05T12-00-00Z_1.csv", "e.jsonl.part", "folder/"]
    for name in (*bundles, *others):
        bucket.put(f"exports/section/1/video/{name}", body=b"")
    bucket.put("exports/section/2/video/c.json", body=b"")
    bucket.put("section/1/video/d.jsonl", body=b"")
    # The folder of the bundles is configurable.
    monkeypatch.setenv("S3_XAPI_PREFIX", "exports/section/")
    covered = sorted(f"exports/section/1/video/{name}" for name in bundles)
    assert found(invoke, mode="bulk") == found(invoke, section_id=1) == covered
    for dry_run in (True, False):
        answer = invoke({"section_id": 1, "dry_run": dry_run})
        assert (answer["files_found"], answer["files_ignored"]) == (4, 4)
    assert invoke({"mode": "bulk"})["files_ignored"] == 5
    on_the_day = {"section_id": 1, "start_date": "2024-01-05", "end_date": "2024-01-05"}
    assert invoke(on_the_day)["files_ignored"] == 1


@pytest.mark.slow
@pytest.mark.fault(47, caught_by="inclusive UTC days")
@pytest.mark.fault(47, caught_by="`files_found` of 0")
def test_dates_are_inclusive_utc_days_of_the_timestamp_in_the_key(
    bucket: Bucket, invoke: Invoke
) -> None:
    bucket.put_each(
        "section/1/video/2024-02-28T23-59-59.999999Z_0.jsonl",
        "section/1/video/2024-02-29T00-00-00Z_1.jsonl",
        "section/1/video/2024-02-29T12:30:00.123Z_2.jsonl",
        "section/1/video/2024-02-29T23-59-59.999999Z_3.jsonl",
        "section/1/video/2024-03-01T00-00-00.000Z_4.jsonl",
    )
    for start, end, expected in (
        ("2024-02-29", "2024-02-29", "123"),
        ("2024-02-29", None, "1234"),
        (None, "2024-02-28", "0"),
        ("2024-03-01", "2024-03-01", "4"),
        ("2024-03-02", "2024-03-31", ""),
        (None, None, "01234"),
    ):
        keys = found(invoke, mode="bulk", start_date=start, end_date=end)
        assert sorted(key[-len("0.jsonl")] for key in keys) == list(expected), (start, end)
    # A key without a timestamp is dated by its last modification.
    bucket.put_each("section/1/video/merged.jsonl")
    today = datetime.now(UTC)
    start, end = [(today + timedelta(days=days)).date().isoformat() for days in (-1, 1)]
    keys = found(invoke, start_date=start, end_date=end)
    assert keys == ["section/1/video/merged.jsonl"]
    # Finding nothing is no failure.
    answer = invoke({"section_id": 404})
    assert (answer["success"], answer["files_found"], answer["complete"]) == (True, 0, True)


@pytest.mark.slow
@pytest.mark.fault(45, caught_by="no writing query is sent")
def test_a_dry_run_reads_no_object_writes_nothing_and_consults_the_ledger(
    bucket: Bucket, invoke: Invoke, ask: Ask, clickhouse: ClickHouseServer
) -> None:
    keys = [f"section/1/video/{n:02}.jsonl" for n in range(15)]
    bucket.put_each(*keys)
    invoke({"bucket": bucket.name, "key": keys[0]})
    asked: list[str] = []
    clickhouse.hook = lambda point, sql: asked.append(sql) if point == "query" else None
    answer = invoke({"section_id": 1, "dry_run": True})
    assert answer.body.keys() == LOADED.keys() | {"duration_ms", "files", "bytes_found"}
    assert answer["files"] == keys[1:11]
    assert (answer["files_found"], answer["files_skipped"]) == (15, 1)
    assert answer["files_processed"] == answer["events_processed"] == 0
    size = sum(len(json.dumps(video(n))) + 1 for n in range(15))
    assert answer["bytes_found"] == size
    assert all(sql.startswith("SELECT") for sql in asked)
    assert ask(COUNT) == [[1]]


@pytest.mark.slow
@pytest.mark.fault(16, caught_by="limits of an answer")
def test_bad_objects_are_named_up_to_a_limit_and_the_others_are_processed(
    bucket: Bucket, invoke: Invoke, ask: Ask
) -> None:
    bucket.put("section/1/video/a.jsonl", video(1), other(1))
    # No line of an object that fails half-way is counted.
    lines = b"".join(json.dumps(video(n)).encode() + b"\n" for n in range(500))
    bad = [bucket.put("section/1/video/b.jsonl.gz", body=gzip.compress(lines)[:-8])]
    answer = invoke({"section_id": 1})
    assert answer.status == 200
    assert (answer["success"], answer["complete"], answer["files_failed"]) == (False, True, 1)
    assert (answer["files_processed"], answer["events_processed"]) == (1, 2)
    assert [failure["key"] for failure in answer["failures"]] == bad
    assert "cut short" in answer["failures"][0]["error"]
    assert ask("SELECT key FROM processed_files") == [["section/1/video/a.jsonl"]]
    for number in range(25):
        bucket.put(f"section/1/video/{number}.jsonl", body=b"\x1f\x8b broken")
    answer = invoke({"section_id": 1})
    assert (answer["files_failed"], len(answer["failures"])) == (26, 20)


def test_a_bucket_that_does_not_exist_is_a_bad_request(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("S3_XAPI_BUCKET_NAME", "no-such-bucket-here")
    answer = invoke({"mode": "bulk"})
    assert answer.status == 400
    assert "no-such-bucket-here" in answer["error"]
    assert "does not exist: check the bucket's name" in answer["error"]


@pytest.mark.fault(23, caught_by="the handler raises")
@pytest.mark.usefixtures("pauses")
def test_bulk_mode_without_clickhouse_raises_and_names_the_server(
    bucket: Bucket, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put_each("section/1/video/a.jsonl")
    monkeypatch.setenv("CLICKHOUSE_PORT", "1")
    for dry_run in (False, True):
        with pytest.raises(NothingDone, match=r"127\.0\.0\.1:1: no connection"):
            invoke({"section_id": 1, "dry_run": dry_run})
