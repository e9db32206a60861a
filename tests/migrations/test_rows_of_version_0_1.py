"""Rows of version 0.1, and what is loaded again after the migration: each statement once."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from local.clickhouse_server import ClickHouseServer
from tests.conftest import Ask, Bucket
from tests.support import version_0_1
from tests.support.samples import VIDEO, context, event_id, notification, video
from tests.support.version_0_1 import row
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.lambda_function import handler
from xapi_etl_processor.migrations.migrate import migrate

pytestmark = pytest.mark.slow

NUMBER = "section/2001/video/2024-01-01T12-00-00Z_1.jsonl"
TEXT = "section/BIO101/video/2024-01-02T12-00-00Z_2.jsonl"
NO_TIME = "section/7/video/merged.jsonl"
READ = "SELECT event_id, toString(timestamp), section FROM video_statements ORDER BY ALL"
PAGE = (Path(__file__).parents[2] / "docs/tables.md").read_text()
BEFORE = "2024-06-01 00:00:00.000"


class Old:
    """A database of version 0.1, and objects that it has loaded from a bucket."""

    def __init__(self, clickhouse: ClickHouseServer, settings: Settings, bucket: Bucket) -> None:
        self.clickhouse, self.settings, self.bucket = clickhouse, settings, bucket

    def loaded(self, key: str, *lines: tuple[dict[str, Any], dict[str, Any]]) -> None:
        """Upload statements, and store for each the row that version 0.1 made of it."""
        self.bucket.put(key, *(statement for statement, _ in lines))
        etag = self.bucket.client.head_object(Bucket=self.bucket.name, Key=key)["ETag"].strip('"')
        database = self.settings.clickhouse_database
        source = {"source_file": self.bucket.uri(key), "source_etag": etag, "inserted_at": BEFORE}
        rows = [found | source | {"source_line": line} for line, (_, found) in enumerate(lines, 1)]
        version_0_1.insert(self.clickhouse, database, *rows)
        version_0_1.record(self.clickhouse, database, self.bucket.name, key, etag)


@pytest.fixture
def old(unmigrated: Settings, clickhouse: ClickHouseServer, bucket: Bucket) -> Old:
    version_0_1.create(unmigrated)
    return Old(clickhouse, unmigrated, bucket)


def load(payload: Any) -> dict[str, Any]:
    """What the handler answers, as Lambda calls it."""
    body: dict[str, Any] = json.loads(handler(payload, context())["body"])
    assert body["success"] is True
    return body


@pytest.mark.ci
def test_replays_overlaps_and_forced_reloads_after_the_migration_double_nothing(
    old: Old, ask: Ask
) -> None:
    without_id = video(3) | {"id": None}
    digest = hashlib.sha256(json.dumps(without_id).encode()).hexdigest()
    line_id = re.sub(r"(.{8})(.{4})(.{4})(.{4})(.{12}).*", r"\1-\2-\3-\4-\5", digest)
    braced = "{" + event_id(2) + "}"
    speed = {"extensions": {VIDEO + "speed": "1.5x"}}
    old.loaded(
        NUMBER,
        (video(1, context=speed), row(1, speed="1.5x")),
        (video(2, id=braced.upper()), row(2, event_id=braced)),
        (without_id, row(3, event_id=line_id)),
    )
    old.loaded(
        TEXT,
        (video(5), row(5, section_id=0)),
        (video(6, timestamp=None), row(6, section_id=0, timestamp="2024-01-02 12:00:00.000")),
    )
    zero = {"extensions": {"http://oli.cmu.edu/extensions/section_id": 0}}
    old.loaded(NO_TIME, (video(7, context=zero), row(7, section_id=0)))
    migrate(old.settings)
    noon = "2024-01-01 12:00:00.000"
    expected = [
        [event_id(1), noon, "2001"],
        [event_id(2), noon, "2001"],
        [event_id(5), noon, "BIO101"],
        [event_id(6), "2024-01-02 12:00:00.000", "BIO101"],
        [event_id(7), noon, "7"],
        [line_id, noon, "2001"],
    ]
    assert ask(READ) == sorted(expected)

    name = old.bucket.name
    assert load(notification(name, NUMBER, TEXT))["files_skipped"] == 2
    assert load({"mode": "bulk"})["files_skipped"] == 3
    assert load({"bucket": name, "key": TEXT, "force_reprocess": True})["files_processed"] == 1
    assert ask(READ) == sorted(expected)
    assert load({"mode": "bulk", "force_reprocess": True})["files_processed"] == 3
    assert ask(READ) == sorted(expected)
    # All of them are the new ones.
    assert ask("SELECT count() FROM video_statements WHERE row_version = 0") == [[0]]
    assert ask("SELECT timestamp_source, count() FROM video_statements GROUP BY 1 ORDER BY 1") == [
        ["key", 1],
        ["statement", 5],
    ]
    ask("OPTIMIZE TABLE video_events FINAL")
    assert ask("SELECT count() FROM video_events") == [[6]]


@pytest.mark.ci
def test_rows_that_are_no_longer_made_stay_until_the_documented_query_removes_them(
    old: Old, ask: Ask
) -> None:
    audio = {
        "id": "https://example.org/audio/1",
        "definition": {"type": "https://w3id.org/xapi/audio/activity-type/audio"},
    }
    page = {"id": "https://example.org/page/1"}
    experienced = {"id": "http://adlnet.gov/expapi/verbs/experienced"}
    old.loaded(
        NO_TIME,
        (video(1), row(1, section_id=7)),
        # Version 0.1 took the object's LastModified.
        (video(2, timestamp=None), row(2, section_id=7, timestamp="2024-05-05 05:05:05.000")),
        (video(3, object=audio), row(3, section_id=7, video_url=audio["id"])),
        (
            video(4, object=page, verb=experienced, result={}),
            row(4, section_id=7, video_url=page["id"], verb="experienced"),
        ),
    )
    old.loaded(TEXT, (video(5, object=audio), row(5, section_id=0, video_url=audio["id"])))
    migrate(old.settings)
    load({"bucket": old.bucket.name, "key": NO_TIME, "force_reprocess": True})
    stored = "SELECT event_id, row_version = 0 FROM video_events FINAL ORDER BY ALL"
    old_and_new = [[event_id(1), 0], [event_id(2), 0], [event_id(2), 1]]
    left_over = [[event_id(3), 1], [event_id(4), 1], [event_id(5), 1]]
    assert ask(stored) == old_and_new + left_over

    # What version 0.1 still inserts after the migration has no row_version either.
    version_0_1.insert(
        old.clickhouse,
        old.settings.clickhouse_database,
        row(6, source_file=old.bucket.uri(NO_TIME), inserted_at="2100-01-01 00:00:00.000"),
    )
    (query,) = re.findall(r"^ALTER TABLE.*?;", PAGE, re.MULTILINE | re.DOTALL)
    ask(query.replace("xapi_analytics", old.settings.clickhouse_database))
    # The other object was not loaded again: its rows stay.
    kept = [[event_id(5), 1], [event_id(6), 1]]
    assert ask(stored) == [[event_id(1), 0], [event_id(2), 0], *kept]
