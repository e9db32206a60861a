"""Replacing: what an object's earlier versions left behind is removed, and nothing else."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from local.clickhouse_server import ClickHouseServer
from tests.conftest import Answer, Ask, Bucket, Invoke
from tests.faults.http_proxy import S3Proxy
from tests.support.refusals import refuse, watch
from tests.support.samples import BAD_LINE, event_id, video
from xapi_etl_processor import common
from xapi_etl_processor.base.errors import EventFailed
from xapi_etl_processor.cli import main
from xapi_etl_processor.pipeline import contents, earlier_versions
from xapi_etl_processor.pipeline.earlier_versions import EarlierVersions

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_stream")]

KEY = "section/2001/video/2024-01-01T12-00-00Z_1.jsonl"
OTHER = "section/2001/video/2024-01-02T12-00-00Z_2.jsonl"


@pytest.fixture
def twice(bucket: Bucket, invoke: Invoke) -> Bucket:
    """The object was loaded with statements 1, 2 and 3; now S3 has it with statement 1 only."""
    bucket.put(KEY, video(1), video(2), video(3))
    assert load(invoke, bucket)["success"]
    bucket.put(KEY, video(1))
    return bucket


def load(invoke: Invoke, bucket: Bucket, key: str = KEY, **more: Any) -> Answer:
    return invoke({"bucket": bucket.name, "key": key, **more})


def stored(ask: Ask) -> list[str]:
    return [found for (found,) in ask("SELECT event_id FROM video_statements ORDER BY event_id")]


def test_rows_that_the_current_version_does_not_hold_are_removed_by_event_and_bulk(
    twice: Bucket, invoke: Invoke, ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["event", twice.uri(KEY), "--replace"], ["bulk", "--replace"]):
        assert main([*command, "--dry-run"]) == 2
        assert "replace does not go with" in capsys.readouterr().err
    assert main(["event", twice.uri(KEY), "--replace"]) == 0
    assert json.loads(capsys.readouterr().out)["rows_removed"] == 2
    assert stored(ask) == [event_id(1)]
    # An earlier version that comes back is loaded again.
    twice.put(KEY, video(1), video(2), video(3))
    assert load(invoke, twice)["files_processed"] == 1
    assert stored(ask) == [event_id(1), event_id(2), event_id(3)]
    # Rows are also removed if the object is loaded already. A statement with another time is a
    # row of its own.
    twice.put(KEY, video(2, timestamp="2024-02-01T12:00:00Z"))
    assert load(invoke, twice)["success"]
    assert stored(ask).count(event_id(2)) == 2
    ask("OPTIMIZE TABLE video_events FINAL")
    capsys.readouterr()
    assert main(["bulk", "--replace"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["files_skipped"], answer["rows_removed"]) == (1, 3)
    assert ask("SELECT event_id, toString(timestamp) FROM video_statements") == [
        [event_id(2), "2024-02-01 12:00:00.000"]
    ]


def test_a_statement_that_another_object_holds_or_may_hold_stays(
    bucket: Bucket, invoke: Invoke, ask: Ask
) -> None:
    # The other object is loaded first, so that its row is replaced by that of KEY.
    load(invoke, bucket, bucket.put(OTHER, video(2), video(4)))
    load(invoke, bucket, bucket.put(KEY, video(1), video(2), video(3)))
    ask("OPTIMIZE TABLE video_events FINAL")
    bucket.client.delete_object(Bucket=bucket.name, Key=OTHER)
    bucket.put(KEY, video(1))
    with pytest.raises(EventFailed, match="is loaded, but not all that its earlier") as failure:
        load(invoke, bucket, replace=True)
    assert OTHER in str(failure.value)
    assert stored(ask) == [event_id(1), event_id(2), event_id(3), event_id(4)]
    bucket.put(OTHER, video(2), video(4))
    assert load(invoke, bucket, replace=True)["success"]
    assert stored(ask) == [event_id(1), event_id(2), event_id(4)]


def test_a_line_that_has_two_rows_does_not_hide_that_another_one_lost_its_own(
    bucket: Bucket, invoke: Invoke, ask: Ask
) -> None:
    load(invoke, bucket, bucket.put(OTHER, video(2), video(4)))
    # An earlier release stored this statement with another time, so it has a second row.
    ask(
        "INSERT INTO video_events SELECT * REPLACE (timestamp - toIntervalDay(9) AS timestamp)"
        f" FROM video_events WHERE event_id = '{event_id(4)}'"
    )
    load(invoke, bucket, bucket.put(KEY, video(1), video(2)))
    ask("OPTIMIZE TABLE video_events FINAL")
    bucket.put(KEY, video(1))
    assert load(invoke, bucket, replace=True)["success"]
    assert set(stored(ask)) == {event_id(1), event_id(2), event_id(4)}


def test_nothing_is_removed_if_the_new_version_cannot_be_stored_or_changes_or_without_the_right(
    twice: Bucket, invoke: Invoke, ask: Ask, clickhouse: ClickHouseServer
) -> None:
    twice.put(KEY, BAD_LINE)
    with pytest.raises(EventFailed, match="none of its lines is a statement"):
        load(invoke, twice, replace=True)
    assert len(stored(ask)) == 3

    twice.put(KEY, video(1))
    refuse(clickhouse, 497, "^ALTER")
    with pytest.raises(EventFailed, match=r"GRANT ALTER DELETE ON \w+\.video_events TO loader"):
        load(invoke, twice, replace=True)
    assert len(stored(ask)) == 3
    # The new version itself is stored.
    assert ask("SELECT uniq(etag) FROM processed_files") == [[2]]

    watch(clickhouse, "query", "LEFT JOIN", lambda: twice.put(KEY, video(1), video(2)))
    with pytest.raises(EventFailed, match="was uploaded again meanwhile"):
        load(invoke, twice, replace=True)
    assert len(stored(ask)) == 3


def test_hostile_names_are_compared_as_they_are(bucket: Bucket, invoke: Invoke, ask: Ask) -> None:
    odd = {"id": "https://example.org/it's \\ a %s \U0001f600 \t video\u0000"}
    load(invoke, bucket, bucket.put(KEY, video(1, object=odd), video(2, object=odd)))
    assert invoke({"mode": "bulk", "verify": True, "content": True})["success"]
    bucket.put(KEY, video(1, object=odd))
    assert load(invoke, bucket, replace=True)["rows_removed"] == 1
    assert stored(ask) == [event_id(1)]


@pytest.mark.ci
@pytest.mark.parametrize("rows", [2, 3])
def test_repair_can_replace_also_many_rows_part_by_part(
    twice: Bucket, invoke: Invoke, ask: Ask, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    """With `rows` at a time, the third row is read with the others or in a part of its own."""
    monkeypatch.setattr(earlier_versions, "EARLIER_ROWS", rows)
    monkeypatch.setattr(contents, "LOOKUP_ROWS", 1)
    load(invoke, twice, twice.put(OTHER, video(4), video(5)))
    twice.put(OTHER, video(4))
    answer = invoke({"mode": "bulk", "verify": True, "repair": True, "replace": True})
    assert answer["success"]
    assert (answer["repaired"], answer["rows_removed"]) == (2, 3)
    assert stored(ask) == [event_id(1), event_id(4)]


def test_an_object_whose_load_has_not_ended_loses_nothing(
    bucket: Bucket,
    invoke: Invoke,
    ask: Ask,
    clickhouse: ClickHouseServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bucket.put("section/2001/video/2024-01-03T12-00-00Z_3.jsonl", video(2), video(4))
    load(invoke, bucket, bucket.put(KEY, video(1), video(2)))
    bucket.put(KEY, video(1))
    watch(clickhouse, "query", "LEFT JOIN", lambda: ask("OPTIMIZE TABLE video_events FINAL"))
    # If both objects are read together, the last batch of KEY also has rows of the late one.
    monkeypatch.setenv("BATCH_ROWS", "2")
    monkeypatch.setattr(common, "PAGE_OBJECTS", 1)
    assert invoke({"mode": "bulk", "replace": True})["files_processed"] == 2
    assert stored(ask) == [event_id(1), event_id(2), event_id(4)]


def test_a_merge_while_the_rows_are_compared_takes_no_statement_of_another_object(
    bucket: Bucket, invoke: Invoke, ask: Ask, clickhouse: ClickHouseServer
) -> None:
    load(invoke, bucket, bucket.put(OTHER, video(2), video(4)))
    load(invoke, bucket, bucket.put(KEY, video(1), video(2)))
    bucket.put(KEY, video(1))
    merged = watch(
        clickhouse,
        "query",
        "^SELECT source_etag, source_line",
        lambda: ask("OPTIMIZE TABLE video_events FINAL"),
    )
    assert load(invoke, bucket, replace=True)["success"]
    assert merged
    assert stored(ask) == [event_id(1), event_id(2), event_id(4)]


@pytest.mark.ci
def test_an_object_that_an_earlier_page_loaded_loses_nothing_to_an_earlier_row(
    bucket: Bucket, invoke: Invoke, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two rows the one of the object that was modified later stays."""
    keys = [f"section/2001/video/2024-01-01T12-00-0{n}Z_{n}.jsonl" for n in range(3)]
    bucket.put(keys[1], video(7))
    # S3's LastModified has whole seconds.
    second = int(time.time())
    while int(time.time()) == second:
        time.sleep(0.01)
    bucket.put(keys[0], video(0), video(10))
    bucket.put(keys[2], video(2), video(7))
    for key in (keys[0], keys[2]):
        assert load(invoke, bucket, key)["success"]
    bucket.put(keys[0], video(0))
    bucket.put(keys[2], video(2))
    monkeypatch.setattr(common, "PAGE_OBJECTS", 1)
    monkeypatch.setattr(earlier_versions, "SETTLED_MS", 0)
    pages: list[Any] = []
    removed = EarlierVersions.remove

    def then_merge(*given: Any) -> None:
        ask("OPTIMIZE TABLE video_events FINAL")
        pages.append(removed(*given))

    monkeypatch.setattr(EarlierVersions, "remove", then_merge)
    assert invoke({"mode": "bulk", "replace": True})["success"]
    assert len(pages) == 3
    assert stored(ask) == [event_id(0), event_id(2), event_id(7)]


@pytest.mark.parametrize(
    ("page", "settled_ms", "questions"),
    [
        (1000, 0, 1),
        # The next page reads the whole table again, unless all rows are older than `settled_ms`.
        pytest.param(1, 0, 1, marks=pytest.mark.ci),
        pytest.param(1, 600_000, 2, marks=pytest.mark.ci),
    ],
)
def test_the_table_and_each_object_that_may_hold_an_earlier_row_are_read_once(
    bucket: Bucket,
    invoke: Invoke,
    ask: Ask,
    store: S3Proxy,
    clickhouse: ClickHouseServer,
    monkeypatch: pytest.MonkeyPatch,
    page: int,
    settled_ms: int,
    questions: int,
) -> None:
    """It is not read again for each object that is replaced, if all was loaded before."""
    replaced = [f"section/2001/video/2024-01-01T12-00-0{n}Z_{n}.jsonl" for n in range(2)]
    overlapping = [f"section/2001/video/2024-01-02T12-00-0{n}Z_{n}.jsonl" for n in range(3)]
    for n, key in enumerate(replaced):
        bucket.put(key, video(n), video(100 + n), video(200))
    for key in overlapping:
        # Of a statement that several objects hold, one row stays.
        bucket.put(key, video(200), video(300))
    assert invoke({"mode": "bulk"})["success"]
    for n, key in enumerate(replaced):
        bucket.put(key, video(n))
    assert invoke({"mode": "bulk"})["success"]
    store.requests.clear()
    asked = watch(clickhouse, "query", "video_events FINAL")
    monkeypatch.setattr(earlier_versions, "SETTLED_MS", settled_ms)
    monkeypatch.setattr(common, "PAGE_OBJECTS", page)
    answer = invoke({"mode": "bulk", "replace": True})
    assert (answer["success"], answer["rows_removed"]) == (True, 2)
    assert stored(ask) == sorted(map(event_id, (0, 1, 200, 300)))
    assert len(asked) == questions
    gets = [request.path for request in store.requests if ".jsonl" in request.path]
    if page > 1:
        assert len(gets) <= len(replaced) + len(overlapping)
        assert len(gets) == len(set(gets))
