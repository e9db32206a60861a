"""When a batch is stored, and what makes its rows differ from those of another batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from local.clickhouse_server import ClickHouseServer
from tests.conftest import Ask, Bucket, Invoke
from tests.support.refusals import watch
from tests.support.samples import BAD_LINE, event_id, notification, other, video, voiding
from xapi_etl_processor import common
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.pipeline import batch
from xapi_etl_processor.run import Run, connections
from xapi_etl_processor.s3.objects import S3Object
from xapi_etl_processor.xapi.lines import MIB

KEY = "section/1/video/2024-01-01T12-00-00Z_1.jsonl"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "limit", "table"),
    [
        (video, {"rows": 2}, "video_events"),
        (lambda n: video(n, padding="x" * 600_000), {"mb": 1}, "video_events"),
        (lambda _: BAD_LINE, {"rows": 2}, "rejected_statements"),
        (lambda _: BAD_LINE, {"bytes": 2 * len(BAD_LINE)}, "rejected_statements"),
        (voiding, {"rows": 2}, "voided_statements"),
        (voiding, {"bytes": 4 * len(event_id(1))}, "voided_statements"),
        (other, {"objects": 2}, "processed_files"),
    ],
    ids=[
        *("rows", "bytes", "rejected lines", "bytes of rejected lines"),
        *("voided ids", "bytes of voided ids", "objects"),
    ],
)
def test_a_batch_is_stored_as_soon_as_it_is_full(
    bucket: Bucket,
    settings: Settings,
    clickhouse: ClickHouseServer,
    monkeypatch: pytest.MonkeyPatch,
    line: Callable[[int], Any],
    limit: dict[str, int],
    table: str,
) -> None:
    """Each object fills half a batch, whatever it is that the limit bounds."""
    monkeypatch.setattr(batch, "MAX_OBJECTS", limit.get("objects", 100))
    monkeypatch.setattr(batch, "MAX_NOTED_BYTES", limit.get("bytes", 10_000))
    monkeypatch.setattr(batch, "BATCH_BYTES", limit.get("mb", 64) * MIB)
    settings = replace(settings, batch_rows=limit.get("rows", 100))
    keys = [bucket.put(f"section/1/video/{n}.jsonl", line(n), other(n)) for n in range(6)]
    stored = watch(clickhouse, "stored", rf"\.{table} \(")
    run = Run(settings, connections(settings), "bulk")
    outcomes = list(common.process([S3Object(bucket.name, key) for key in keys], run))
    assert [outcome.status for outcome in outcomes] == ["processed"] * 6
    assert len(stored) == 3


@pytest.mark.slow
def test_objects_without_lines_do_not_pile_up(
    bucket: Bucket, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their outcomes are given before the others have been listed."""
    monkeypatch.setattr(batch, "MAX_OBJECTS", 2)
    monkeypatch.setattr(common, "PAGE_OBJECTS", 2)
    listed = [S3Object(bucket.name, bucket.put(f"section/1/{n}.jsonl")) for n in range(6)]
    run = Run(settings, connections(settings), "bulk")
    # The objects are empty: the first pass puts them into the ledger, the second skips them.
    for status in ("processed", "skipped"):
        coming = iter(listed)
        outcomes = common.process(coming, run)
        assert next(outcomes).status == status
        assert len(list(coming)) == 4, status
        outcomes.close()
        assert len(list(common.process(listed, run))) == 6


@pytest.mark.slow
def test_nothing_more_is_listed_after_a_failed_insert(
    bucket: Bucket, settings: Settings, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(common, "PAGE_OBJECTS", 2)
    coming = iter([S3Object(bucket.name, bucket.put(f"{n}.jsonl", video(n))) for n in range(6)])
    ask("DROP TABLE video_events")
    run = Run(replace(settings, batch_rows=1), connections(settings), "bulk")
    statuses = [outcome.status for outcome in common.process(coming, run)]
    # The second was read while the first was on its way.
    assert statuses == ["unstored", "unstored"]
    assert len(list(coming)) == 4


@pytest.mark.slow
def test_the_same_line_is_a_row_in_each_section_and_wherever_it_is_in_an_object(
    bucket: Bucket, invoke: Invoke, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal lines are equal inserts, which ClickHouse must not take for repeats."""
    monkeypatch.setenv("BATCH_ROWS", "1")
    ask("SYSTEM STOP MERGES video_events")
    for section in (1, 2):
        key = KEY.replace("section/1", f"section/{section}")
        # Long enough that each line is a chunk, and so a batch, of its own.
        bucket.put(key, *[video(1, padding="x" * 150_000)] * 2)
        assert invoke(notification(bucket.name, key))["video_events_processed"] == 2
    found = ask("SELECT section_id, source_line FROM video_events ORDER BY ALL")
    assert found == [[1, 1], [1, 2], [2, 1], [2, 2]]
