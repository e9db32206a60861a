"""Bulk mode stops in time; a token carries the whole request, and continues it where it stopped."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from typing import Any

import pytest

from local.clickhouse_server import ClickHouseServer
from tests.conftest import Answer, Ask, Bucket, Invoke, before_ledger_lookups, until_complete
from tests.support.clocks import Clock, run_out_of_time_after
from tests.support.refusals import refuse
from tests.support.samples import video
from xapi_etl_processor import common
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.errors import BadRequest, NothingDone
from xapi_etl_processor.bulk.request import read_request
from xapi_etl_processor.run import connections
from xapi_etl_processor.s3 import bundle, listing
from xapi_etl_processor.xapi.parse import parse

COUNT = "SELECT count() FROM video_events"


@pytest.mark.slow
@pytest.mark.fault(49, caught_by="continuation token")
def test_when_time_runs_out_a_token_resumes_where_it_stopped(
    bucket: Bucket,
    invoke: Invoke,
    ask: Ask,
    clickhouse: ClickHouseServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(common, "PAGE_OBJECTS", 7)
    bucket.put_each(*(f"section/1/video/{number:03}.jsonl" for number in range(30)))
    clock = Clock()

    def time_passes() -> None:
        # Not while an insert runs, which would have no time left.
        clock.now += 10

    for dry_run in (True, False):
        before_ledger_lookups(clickhouse, time_passes)
        request = {"section_id": "1", "dry_run": dry_run}
        answers = list(until_complete(invoke, request, seconds_left=40, clock=clock))
        clickhouse.hook = lambda *_: None
        assert len(answers) > 1
        assert sum(answer["files_found"] for answer in answers) == 30
        assert all(answer["success"] for answer in answers)
        assert [a["complete"] for a in answers] == [False] * (len(answers) - 1) + [True]
        stored = [[0 if dry_run else 30]]
        assert ask(COUNT) == ask("SELECT count() FROM processed_files") == stored


@pytest.mark.slow
@pytest.mark.fault(12, 49, caught_by="continuation token")
def test_a_pause_in_the_middle_of_an_object_is_a_failure_only_if_no_invocation_can_finish_it(
    bucket: Bucket,
    invoke: Invoke,
    ask: Ask,
    clickhouse: ClickHouseServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BATCH_ROWS", "500")
    bucket.put_each("section/1/video/a.jsonl")
    # Several chunks, and so several batches.
    bucket.put("section/1/video/b.jsonl", *(video(n, padding="x" * 1000) for n in range(1, 3000)))
    clock = run_out_of_time_after(clickhouse, inserts=1)
    answer = invoke({"section_id": 1}, clock=clock)
    assert (answer["success"], answer["complete"]) == (True, False)
    assert answer["stop_reason"] == "out_of_time"
    assert (answer["files_processed"], answer["files_failed"], answer["failures"]) == (1, 0, [])
    rest = {"continuation_token": answer["continuation_token"]}
    clock = run_out_of_time_after(clickhouse, inserts=1)
    with pytest.raises(NothingDone, match=r"b\.jsonl: time ran out at line \d+.*command line"):
        invoke(rest, clock=clock)
    answer = invoke(rest)
    assert (answer["complete"], answer["files_processed"]) == (True, 1)
    assert ask(f"{COUNT} FINAL") == [[3000]]


@pytest.mark.slow
@pytest.mark.fault(36, 49, caught_by="a failed insert is a failure, not a pause")
def test_a_pause_whose_rows_are_not_stored_is_a_failure(
    bucket: Bucket,
    invoke: Invoke,
    ask: Ask,
    clickhouse: ClickHouseServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bucket.put_each("section/1/video/a.jsonl")
    assert invoke({"section_id": 1})["files_processed"] == 1
    bucket.put("section/1/video/b.jsonl", *(video(n, padding="x" * 1000) for n in range(1, 3000)))
    clock = Clock()

    def parse_slowly(*arguments: Any) -> Any:
        clock.now += 16
        return parse(*arguments)

    refuse(clickhouse, 60, r"\.video_events \(", at="insert")
    monkeypatch.setattr(bundle, "parse", parse_slowly)
    answer = invoke({"section_id": 1}, clock=clock)
    assert (answer["success"], answer["complete"], answer["files_failed"]) == (False, False, 1)
    assert answer["stop_reason"] == "insert_failed"
    (failure,) = answer["failures"]
    assert failure["key"] == "section/1/video/b.jsonl"
    assert "table is missing" in failure["error"]
    clickhouse.hook = lambda *_: None
    answer = invoke({"continuation_token": answer["continuation_token"]})
    assert (answer["complete"], answer["files_processed"]) == (True, 1)
    assert ask(f"{COUNT} FINAL") == [[3000]]


def made(carried: dict[str, Any]) -> str:
    """A token, as whoever may invoke the function can make one."""
    return base64.urlsafe_b64encode(json.dumps(carried).encode()).decode()


@pytest.mark.slow
@pytest.mark.check("S14")
def test_a_token_with_a_different_request_or_that_would_skip_objects_is_refused(
    bucket: Bucket, invoke: Invoke
) -> None:
    bucket.put_each("section/1/video/a.jsonl", "section/1/video/b.jsonl")

    def sent(token: dict[str, Any], **beside: Any) -> Answer:
        return invoke({"continuation_token": made(token), **beside})

    of_one = {"section_id": 1, "after": "section/1/video/a"}
    others: list[dict[str, Any]] = [{"section_id": 2}, {"dry_run": True}]
    for other_request in (*others, {"start_date": "2024-01-01"}):
        assert sent(of_one, **other_request).status == 400
    assert sent({"after": ""}, section_id=0).status == 400  # A missing section is not section 0.
    skipping = {"after": "zzzz"}, {"after": "section/10/x", "section_id": 1}
    for token in (*skipping, {"after": "", "dryrun": True}):
        assert sent(token).status == 400, token
    of_a_dry_run = {"dry_run": True, "after": ""}
    assert sent(of_a_dry_run)["dry_run"] is True
    assert sent(of_a_dry_run, dry_run=False).status == 400
    same: list[dict[str, Any]] = [{"section_id": "1"}, {"mode": "bulk"}, {"dry_run": False}]
    for same_request in same:
        assert sent(of_one, **same_request)["files_found"] == 2


def list_slowly(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that a listing advances: each page has five keys and takes five seconds."""
    clock = Clock()

    def page(params: dict[str, Any], **_: Any) -> None:
        params["MaxKeys"] = 5
        clock.now += 5

    events = connections(settings).s3.boto3.meta.events
    events.register("before-parameter-build.s3.ListObjectsV2", page)
    monkeypatch.setattr(listing, "PAGE_KEYS", 5)
    return clock


@pytest.mark.slow
def test_a_sparse_backfill_reaches_its_objects_in_the_end(
    bucket: Bucket, invoke: Invoke, ask: Ask, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys that are not covered are progress too, or a sparse backfill would never advance."""
    clock = list_slowly(settings, monkeypatch)
    day = "2025-06-01T00-00-00Z"
    bucket.put_each(*(f"section/1/video/{n:02}.jsonl" for n in range(40)))
    bucket.put(f"section/1/video/later/{day}_1.jsonl", video(100))
    request = {"start_date": "2025-01-01", "end_date": "2025-12-31"}
    answers = list(until_complete(invoke, request, seconds_left=40, clock=clock))
    assert 1 < len(answers) < 10
    assert answers[-1]["complete"]
    assert {answer["files_found"] for answer in answers[:-1]} == {0}
    assert ask("SELECT count() FROM processed_files") == [[1]]


@pytest.mark.fault(11, 14, caught_by="the handler raises")
def test_bulk_mode_without_time_for_a_single_object_raises(
    bucket: Bucket, invoke: Invoke, settings: Settings
) -> None:
    bucket.put_each("section/1/video/a.jsonl", "section/1/video/b.jsonl")
    with pytest.raises(NothingDone, match="time ran out"):
        invoke({"section_id": 1}, seconds_left=0)
    # Otherwise a script that sends token after token would never end.
    token = read_request({"section_id": 1}, settings).token_after("section/1/video/a.jsonl")
    with pytest.raises(NothingDone, match="time ran out"):
        invoke({"continuation_token": token}, seconds_left=0)


SETTINGS = Settings("ch.example.org", bucket="bundles", other_buckets=("older",))
EVERYTHING: dict[str, Any] = {
    "section_id": 7,
    "start_date": "2024-01-01",
    "end_date": "2024-01-31",
    "s3_bucket": "older",
    "s3_prefix": "section/7/video",
    "dry_run": True,
    "force_reprocess": True,
}
KEY = "section/7/video/2024-01-02T00-00-00Z_ÿ??>>.jsonl"


@pytest.mark.parametrize(
    "request_",
    [{"mode": "bulk"}, EVERYTHING, *({name: value} for name, value in EVERYTHING.items())]
    + [{"section_id": "BIO 101"}],
    ids=["nothing", "everything", *EVERYTHING, "a section of text"],
)
def test_a_token_alone_continues_the_same_request_after_its_key(request_: dict[str, Any]) -> None:
    asked = read_request(request_, SETTINGS)
    key = KEY.replace("/7/", f"/{request_.get('section_id', 7)}/")
    token = asked.token_after(key)
    # It needs no escaping, neither in JSON nor in a shell nor in a URL's path.
    assert re.fullmatch(r"[A-Za-z0-9_=-]+", token)
    continued = read_request({"continuation_token": token}, SETTINGS)
    assert continued == replace(asked, after=key)
    assert read_request({**request_, "continuation_token": token}, SETTINGS) == continued


def test_a_token_that_carries_what_a_request_may_not_is_refused() -> None:
    """Whoever may invoke the function may also make tokens."""
    wrong = {"section_id": "x/y", "dry_run": "true", "start_date": "May", "s3_prefix": 5}
    for name, value in wrong.items():
        with pytest.raises(BadRequest, match=name):
            read_request({"continuation_token": made({name: value, "after": ""})}, SETTINGS)


def test_all_sections_beside_a_token_of_one_is_another_request() -> None:
    token = read_request({"section_id": 5}, SETTINGS).token_after("section/5/a.jsonl")
    with pytest.raises(BadRequest, match="section_id differs"):
        read_request({"continuation_token": token, "section_id": "all"}, SETTINGS)
    token = read_request({"section_id": "all"}, SETTINGS).token_after("section/5/a.jsonl")
    assert read_request({"continuation_token": token, "section_id": "all"}, SETTINGS).sections == ()


def test_a_default_that_is_spelled_out_beside_a_token_is_the_same_request() -> None:
    token = read_request({"section_id": 5}, SETTINGS).token_after("section/5/a.jsonl")
    off = ("repair", "allow_empty", "dry_run", "force_reprocess")
    defaults = {"s3_bucket": "bundles", "engine": "function", **dict.fromkeys(off, False)}
    for name, value in defaults.items():
        asked = {"continuation_token": token, "section_id": 5, name: value}
        assert read_request(asked, SETTINGS).after == "section/5/a.jsonl", name
