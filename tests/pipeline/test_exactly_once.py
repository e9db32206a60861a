"""Nothing lost and nothing doubled, whatever repeats, breaks off or overlaps."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from local.bundles import generate
from local.clickhouse_server import ClickHouseServer
from tests.conftest import Ask, Bucket, Invoke
from tests.faults.http_proxy import S3Proxy
from tests.support.refusals import cut, refuse, watch
from tests.support.samples import BAD_LINE, event_id, notification, video, voiding
from xapi_etl_processor import common
from xapi_etl_processor.base import attempts
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.deadlines import FOREVER
from xapi_etl_processor.base.errors import EventFailed, NothingDone
from xapi_etl_processor.common import process
from xapi_etl_processor.run import Run, connections
from xapi_etl_processor.s3.objects import S3Object
from xapi_etl_processor.storage import ledger
from xapi_etl_processor.storage.tables import EVENTS, FILES, REJECTED, VOIDED
from xapi_etl_processor.xapi.parse import Counts

KEY = "section/2001/video/2024-01-01T12-00-00Z_1.jsonl"
COUNT = "SELECT count() FROM video_events"


@pytest.mark.slow
@pytest.mark.fault(1, caught_by="ledger; row identity")
def test_loading_everything_twice_leaves_the_same_counts(
    bucket: Bucket, invoke: Invoke, ask: Ask
) -> None:
    bundles = list(generate(sections=(1, 2), days=1, bundles_per_day=4))
    for bundle in bundles:
        bucket.put(bundle.key, body=bundle.body)
    distinct = len(set().union(*(bundle.video_lines for bundle in bundles)))
    rejected = sum(bundle.rejected for bundle in bundles)
    for payload in (
        notification(bucket.name, bundles[0].key, bundles[1].key),
        {"mode": "bulk"},
        notification(bucket.name, *(bundle.key for bundle in bundles[:5])),
        {"mode": "bulk"},
        {"mode": "bulk", "force_reprocess": True},
        {"bucket": bucket.name, "key": bundles[0].key, "force_reprocess": True},
    ):
        assert invoke(payload)["success"] is True
    assert ask(f"{COUNT} FINAL") == [[distinct]]
    assert ask("SELECT count() FROM rejected_statements FINAL") == [[rejected]]
    assert ask("SELECT count() FROM processed_files FINAL") == [[len(bundles)]]
    assert ask(
        "SELECT sum(lines) = sum(video + other + blank + rejected + forgotten)"
        " FROM processed_files FINAL"
    ) == [[1]]


@pytest.mark.fault(1, caught_by="ledger")
def test_a_repeated_notification_is_skipped_without_reading_the_object(
    bucket: Bucket, invoke: Invoke, store: S3Proxy
) -> None:
    bucket.put(KEY, video(1))
    for _ in range(2):
        answer = invoke(notification(bucket.name, KEY))
    assert answer["files_skipped"] == 1
    assert len(store.asked("GET", KEY)) == 1


@pytest.mark.slow
def test_the_ledger_and_the_list_of_learners_are_queried_once_for_many_objects(
    bucket: Bucket,
    invoke: Invoke,
    clickhouse: ClickHouseServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # However slow this machine is, the list does not age meanwhile.
    monkeypatch.setattr("xapi_etl_processor.pipeline.writer.FRESH_SECONDS", 3600)
    for number in range(20):
        bucket.put(f"section/1/video/{number}.jsonl", video(number))
    asked = watch(clickhouse, "query")
    assert invoke({"section_id": 1})["files_processed"] == 20
    verbs = [re.findall(r"(?:FROM|INTO) \w+\.(\w+)", sql)[-1] for sql in asked]
    # The first question comes once for each connection: is it ClickHouse Cloud? The second asks the
    # ledger too. The last one: was one of the months dropped?
    assert verbs == [
        *("tables", "forgotten_learners", "video_events"),
        *("forgotten_learners", "processed_files", "load_notes"),
    ]


def test_a_done_object_is_skipped_though_the_key_of_forgotten_learners_is_missing(
    bucket: Bucket, invoke: Invoke, ask: Ask
) -> None:
    sent = notification(bucket.name, bucket.put(KEY, video(1)))
    assert invoke(sent)["files_processed"] == 1
    ask(
        "INSERT INTO forgotten_learners (learner, name, salt, key_id)"
        " VALUES ('a', 'b', 'c', 'another')"
    )
    assert invoke(sent)["files_skipped"] == 1


@pytest.mark.parametrize("letter", ["a", "'", "\\", "é", "\U0001f600", "\x01", "%"])
def test_a_page_of_the_longest_keys(letter: str, settings: Settings) -> None:
    """S3 allows keys of 1,024 bytes, and a server by itself only queries of 256 KiB."""
    size = len(letter.encode())
    objects = [
        S3Object("b" * 63, f"section/1/{n:04}/" + letter * ((1024 - 15) // size), f"{n:032x}-100")
        for n in range(500)
    ]
    own = connections(settings).clickhouse
    ledger.record_files(own, [(o, Counts()) for o in objects[::2]], "bulk", "r", FOREVER)
    found, state = ledger.look_up(own, objects, FOREVER)
    assert found == set(map(ledger.identity, objects[::2]))
    assert found == ledger.already_processed(own, objects, FOREVER)
    none, again = ledger.look_up(own, [S3Object("b", "k")], FOREVER)
    assert (none, again) == (set(), state)


@pytest.mark.slow
def test_the_ledger_can_be_asked_what_is_done_lately(settings: Settings, ask: Ask) -> None:
    page = [S3Object("bundles", KEY, f"etag-{n}") for n in range(2)]
    known = connections(settings).clickhouse
    ledger.record_files(known, [(page[1], Counts())], "bulk", "run", FOREVER)
    done = {ledger.identity(page[1])}
    ((at,),) = ask("SELECT toString(toUnixTimestamp64Milli(processed_at)) FROM processed_files")
    assert ledger.already_processed(known, page, FOREVER, since=int(at)) == done
    assert ledger.already_processed(known, page, FOREVER, since=int(at) + 1) == set()


@pytest.mark.slow
@pytest.mark.fault(3, caught_by="ETag in the ledger's key; the current version is read")
def test_an_overwritten_object_is_processed_again_whichever_notification_comes_late(
    bucket: Bucket, invoke: Invoke, ask: Ask
) -> None:
    bucket.put(KEY, video(1))
    invoke(notification(bucket.name, KEY))
    bucket.put(KEY, video(1), video(2))
    late = notification(bucket.name, KEY)
    late["Records"][0]["s3"]["object"]["eTag"] = "0" * 32
    assert invoke(late)["files_processed"] == 1
    assert invoke(late)["success"] is True
    assert invoke(notification(bucket.name, KEY))["files_skipped"] == 1
    landed = ask("SELECT event_id FROM video_events FINAL ORDER BY 1")
    assert landed == [[event_id(1)], [event_id(2)]]
    assert ask("SELECT count() FROM processed_files FINAL") == [[2]]


@pytest.mark.slow
@pytest.mark.fault(25, 26, caught_by="the same rows are sent again; redelivery; row identity")
def test_a_connection_lost_at_any_point_of_an_insert_is_repaired_at_once_or_by_redelivery(
    bucket: Bucket, invoke: Invoke, ask: Ask, clickhouse: ClickHouseServer, pauses: list[float]
) -> None:
    points = [
        *((EVENTS, point) for point in ("query", "block", "insert", "stored")),
        *((table, "stored") for table in (REJECTED, VOIDED, FILES)),
    ]
    for done, (table, point) in enumerate(points, 1):
        key = KEY.replace("_1", f"_{done}")
        bucket.put(key, video(10 * done), BAD_LINE, video(10 * done + 1), voiding(10 * done + 4))
        reached = cut(clickhouse, point, rf"^INSERT.*\.{table} \(", times=2)
        pauses.clear()
        assert invoke(notification(bucket.name, key))["success"] is True, (table, point)
        assert (len(reached) >= 2, len(pauses)) == (True, 2), (table, point)
        assert ask(f"{COUNT} FINAL") == [[2 * done]], (table, point)
        for once in (REJECTED, VOIDED, FILES):
            assert ask(f"SELECT count() FROM {once} FINAL") == [[done]], (table, point)
    cut(clickhouse, "stored", rf"^INSERT.*\.{EVENTS} \(", times=attempts.ATTEMPTS)
    last = bucket.put("section/1/last.jsonl", video(1))
    with pytest.raises(EventFailed, match="may or may not have been done"):
        invoke(notification(bucket.name, last))
    assert ask("SELECT count() FROM processed_files FINAL") == [[done]]
    assert invoke(notification(bucket.name, last))["files_processed"] == 1
    assert ask(f"{COUNT} FINAL") == [[2 * done + 1]]


@pytest.mark.slow
@pytest.mark.parametrize("names", ["c", "abcde"], ids=["only", "with a page behind it"])
def test_an_object_of_several_batches_that_is_not_stored_never_counts_as_processed(
    bucket: Bucket,
    invoke: Invoke,
    ask: Ask,
    clickhouse: ClickHouseServer,
    monkeypatch: pytest.MonkeyPatch,
    names: str,
) -> None:
    monkeypatch.setenv("BATCH_ROWS", "10")
    monkeypatch.setattr(common, "PAGE_OBJECTS", 3)
    for name in names:
        # Enough for several batches: whether one is full is checked after each chunk of lines.
        count = 800 if name == "c" else 1
        lines = (video(10_000 * ord(name) + n, padding="x" * 300) for n in range(count))
        bucket.put(f"section/1/video/{name}.jsonl", *lines)
    refuse(clickhouse, 60, r"\.video_events \(", at="insert")
    keys = [f"section/1/video/{name}.jsonl" for name in names]
    with pytest.raises(EventFailed, match="table is missing"):
        invoke(notification(bucket.name, *keys))
    with pytest.raises(NothingDone, match="table is missing"):
        invoke({"section_id": 1})
    clickhouse.hook = lambda *_: None
    assert invoke({"section_id": 1})["files_processed"] == len(names)
    assert ask(f"{COUNT} FINAL") == [[799 + len(names)]]


@pytest.mark.slow
@pytest.mark.fault(35, caught_by="no partition limit")
def test_statements_from_more_than_a_hundred_months_are_one_insert(
    bucket: Bucket, invoke: Invoke, ask: Ask
) -> None:
    """ClickHouse's default is to refuse an insert into more than 100 partitions."""
    years, months_of_year = range(2000, 2009), range(1, 13)
    months = [f"{year}-{month:02}-01T00:00:00Z" for year in years for month in months_of_year]
    bucket.put(KEY, *(video(n, timestamp=month) for n, month in enumerate(months)))
    assert invoke(notification(bucket.name, KEY))["success"] is True
    assert ask("SELECT count(), uniqExact(toYYYYMM(timestamp)) FROM video_events") == [[108, 108]]


@pytest.mark.slow
def test_an_object_is_in_the_ledger_only_after_its_last_row(
    bucket: Bucket, settings: Settings, ask: Ask, clickhouse: ClickHouseServer
) -> None:
    """A crash after any of the inserts is safe: the ledger never runs ahead of the rows."""
    ledger_ahead: list[Any] = []
    without_rows = (
        "SELECT key FROM processed_files AS done FINAL LEFT JOIN"
        " (SELECT source_file, count() AS rows FROM video_events FINAL GROUP BY 1) AS v"
        " ON v.source_file = concat('s3://', bucket, '/', key) WHERE video > rows"
    )
    for n in range(6):
        bucket.put(f"section/1/video/{n}.jsonl", *(video(1000 * n + i) for i in range(20)))
    watch(clickhouse, "stored", act=lambda: ledger_ahead.extend(ask(without_rows)))
    run = Run(replace(settings, batch_rows=25), connections(settings), "bulk")
    objects = [S3Object(bucket.name, f"section/1/video/{n}.jsonl") for n in range(6)]
    assert [o.status for o in process(objects, run)] == ["processed"] * 6
    assert ledger_ahead == []
