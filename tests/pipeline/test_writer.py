"""Storing batches one after the other, each while the next one fills."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from local.clickhouse_server import ClickHouseServer
from tests.conftest import Ask, Bucket
from tests.faults.killable import wait_until
from tests.support.reader import ROWS
from tests.support.refusals import watch
from tests.support.samples import video
from xapi_etl_processor import common
from xapi_etl_processor.base import deadlines
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.deadlines import DaemonThreads
from xapi_etl_processor.base.errors import S3Error
from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.outcome import TIME_RAN_OUT, Outcome, Status
from xapi_etl_processor.pipeline.writer import Writer
from xapi_etl_processor.run import Run, Wanted, connections
from xapi_etl_processor.s3 import bundle
from xapi_etl_processor.s3.objects import S3Object
from xapi_etl_processor.xapi.chunk import Source
from xapi_etl_processor.xapi.parse import parse

KEY = "section/1/video/2024-01-01T12-00-00Z_1.jsonl"


@pytest.fixture
def writer(settings: Settings) -> Iterator[Writer]:
    with closing(DaemonThreads(1)) as thread:
        yield Writer(Run(settings, connections(settings), "event"), thread)


def store(writer: Writer) -> list[Outcome]:
    """Store what was added so far."""
    return list(writer.finish())


def _fill(writer: Writer, first: int, *statements: dict[str, Any]) -> None:
    """Add statements to a batch, as the lines of an object from this line on."""
    obj = S3Object("bucket", KEY, "etag")
    lines = [json.dumps(statement).encode() for statement in statements]
    writer.batch.add(obj, parse(lines, first, Source(obj.uri, obj.etag, "1", None, 0)))


@pytest.mark.parametrize("status", [Status.PROCESSED, Status.WAITING])
def test_nothing_is_stored_after_a_failed_insert_which_is_what_is_said_of_the_object(
    writer: Writer, ask: Ask, status: Status
) -> None:
    """If the rest of the object were stored, the ledger would say that all of it is. The object may
    also be one that time cut off: its rows so far are in the batch too.
    """
    ask("RENAME TABLE video_events TO away")
    _fill(writer, 1, video(1))
    assert store(writer) == []
    ask("RENAME TABLE away TO video_events")
    _fill(writer, 2, video(2))
    finished = Outcome(S3Object("bucket", KEY, "etag"))
    if status is Status.WAITING:
        finished.mark_stopped(status, TIME_RAN_OUT)
    writer.batch.outcomes.append(finished)
    (found,) = store(writer)
    assert found.status is Status.UNSTORED
    assert "video_events" in found.error
    assert ask(ROWS) == [[0]]
    assert ask("SELECT count() FROM processed_files") == [[0]]


def test_the_limit_of_partitions_is_lifted_only_if_needed(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some users are not allowed to change this setting."""
    settings_sent: list[dict[str, Any]] = []
    original = ClickHouse.insert

    def insert(self: ClickHouse, *arguments: Any) -> None:
        settings_sent.append(arguments[3])
        original(self, *arguments)

    monkeypatch.setattr(ClickHouse, "insert", insert)
    for last in ("2024-01-31", "2032-06-01"):
        days = enumerate(("2024-01-01", last))
        _fill(writer, 1, *(video(n, timestamp=f"{day}T00:00:00Z") for n, day in days))
        assert store(writer) == []
    # From January 2024 to June 2032: 102 months.
    assert settings_sent == [{}, {"max_partitions_per_insert_block": 0}]


def objects(bucket: Bucket, settings: Settings, count: int) -> tuple[list[S3Object], Run]:
    """Objects of one statement each, and a run that stores each as a batch of its own."""
    found = [S3Object(bucket.name, bucket.put(f"{n}.jsonl", video(n))) for n in range(count)]
    return found, Run(
        replace(settings, batch_rows=1), connections(settings), "bulk", Wanted(force=True)
    )


def test_the_next_batch_fills_while_one_is_stored_and_one_at_most_is_on_its_way(
    bucket: Bucket,
    settings: Settings,
    ask: Ask,
    clickhouse: ClickHouseServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server does not answer the first insert before the second object is parsed."""
    found, run = objects(bucket, settings, 3)
    parsed: list[str] = []
    second = threading.Event()
    in_time: list[bool] = []
    points: list[str] = []

    def noted(lines: list[bytes], number: int, source: Source, *more: Any) -> Any:
        parsed.append(source.file)
        if len(parsed) == 2:
            second.set()
        return parse(lines, number, source, *more)

    def wait_for_the_second(point: str, sql: str) -> None:
        if point == "block" and ".video_events " in sql:
            in_time.append(second.wait(30))
        if point in ("insert", "stored"):
            points.append(point)

    monkeypatch.setattr(bundle, "parse", noted)
    clickhouse.hook = wait_for_the_second
    assert [o.status for o in common.process(found, run)] == [Status.PROCESSED] * 3
    assert in_time == [True] * 3
    assert points == ["insert", "stored"] * (len(points) // 2)
    assert ask(ROWS) == [[3]]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["nobody listens", "an error of the listing"])
def test_whoever_stops_waits_for_the_rows_that_are_on_their_way(
    bucket: Bucket,
    settings: Settings,
    ask: Ask,
    clickhouse: ClickHouseServer,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    """Otherwise two threads would use the connection at the same time."""
    found, run = objects(bucket, settings, 3)
    monkeypatch.setattr(common, "PAGE_OBJECTS", 3)
    ended: list[float] = []

    def wait() -> None:
        time.sleep(0.2)  # The server takes its time.
        ended.append(time.monotonic())

    def listed() -> Iterator[S3Object]:
        yield from found
        if how != "nobody listens":
            raise S3Error("listing")

    begun = watch(clickhouse, "block", r"\.video_events ", wait)
    outcomes = common.process(listed(), run)
    if how == "nobody listens":
        assert next(outcomes).status is Status.PROCESSED
        outcomes.close()
    else:
        with pytest.raises(S3Error, match="listing"):
            list(outcomes)
    assert len(begun) == len(ended)
    assert ask(ROWS) == [[len(ended)]]


def test_ctrl_c_does_not_wait_for_a_silent_clickhouse(
    bucket: Bucket,
    settings: Settings,
    clickhouse: ClickHouseServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, run = objects(bucket, settings, 1)
    monkeypatch.setattr(common, "PAGE_OBJECTS", 1)
    silent, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        silent.set()
        go_on.wait(30)

    def pressed() -> Iterator[S3Object]:
        yield from found
        assert silent.wait(30)
        raise KeyboardInterrupt

    watch(clickhouse, "block", r"\.video_events ", wait)
    monkeypatch.setattr(deadlines, "_idle", [])
    of_others = set(threading.enumerate())
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        list(common.process(pressed(), run))
    assert time.monotonic() - started < 20
    workers = [t for t in set(threading.enumerate()) - of_others if "_work" in t.name]
    # One that is not would keep the process alive.
    assert workers
    assert all(worker.daemon for worker in workers)
    go_on.set()
    wait_until(lambda: len(deadlines._idle) == len(workers), 30, "the end of the insert")
