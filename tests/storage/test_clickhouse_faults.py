"""What ClickHouse does: drop connections, lose acknowledgements, refuse, never answer."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest

from local.clickhouse_server import ClickHouseServer
from tests.conftest import Ask, Bucket, Invoke
from tests.faults.tcp_proxy import Fault, TcpProxy
from tests.support.reader import FORGET, IDS, ROWS, ids
from tests.support.refusals import refuse, watch
from tests.support.samples import BAD_LINE, notification, video
from xapi_etl_processor import common
from xapi_etl_processor.base.errors import EventFailed
from xapi_etl_processor.s3 import bundle
from xapi_etl_processor.xapi.parse import parse

KEY = "section/1/video/2024-01-01T12-00-00Z_1.jsonl"
INTO_EVENTS = b".video_events ("
"""Near the end of an insert's text; its block follows."""
LEDGER = "SELECT lines, video, rejected FROM processed_files FINAL"


def bulky(number: int) -> dict[str, Any]:
    """A statement whose row hardly compresses: a few kilobytes of hashes of its number."""
    text = "".join(sha256(b"%d %d" % (number, part)).hexdigest() for part in range(60))
    return video(number, object={"id": f"https://example.org/{text}"})


@pytest.mark.slow
@pytest.mark.fault(24, caught_by="all-or-nothing block; the same rows are sent again")
def test_a_connection_cut_in_the_middle_of_the_only_block_stores_it_once(
    bucket: Bucket, wire: TcpProxy, invoke: Invoke, ask: Ask
) -> None:
    bucket.put(KEY, *(bulky(n) for n in range(150)), BAD_LINE)
    wire.fault = Fault(cut_after=200_000, since=INTO_EVENTS)
    assert invoke(notification(bucket.name, KEY))["video_events_processed"] == 150
    assert wire.fault.fired == 1
    assert ask(IDS) == ids(range(150))
    assert ask(ROWS) == [[150]]
    assert ask(LEDGER) == [[151, 150, 1]]


@pytest.mark.slow
@pytest.mark.fault(26, 40, caught_by="the same rows are sent again; row identity")
def test_rows_count_once_when_the_acknowledgement_is_lost(
    bucket: Bucket, wire: TcpProxy, invoke: Invoke, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask("SYSTEM STOP MERGES video_events")  # Merges would remove the repeats.
    monkeypatch.setattr("xapi_etl_processor.clickhouse_client.REPLY_SECONDS", 0.5)
    bucket.put(KEY, *(bulky(n) for n in range(150)))
    wire.fault = Fault(mute_after=100_000, since=INTO_EVENTS)
    answer = invoke(notification(bucket.name, KEY))
    assert answer["video_events_processed"] == 150
    assert wire.fault.fired == 1
    assert ask(IDS) == ids(range(150))
    ask(FORGET)  # As if the ledger had not been written, and a long time had passed.
    invoke(notification(bucket.name, KEY))
    assert ask(ROWS) == [[450]]
    assert ask(IDS) == ids(range(150))


@pytest.mark.slow
@pytest.mark.fault(27, caught_by="row identity")
def test_a_different_batch_size_at_the_second_attempt_loses_and_doubles_nothing(
    bucket: Bucket,
    invoke: Invoke,
    ask: Ask,
    clickhouse: ClickHouseServer,
    monkeypatch: pytest.MonkeyPatch,
    pauses: list[float],
) -> None:
    bucket.put(KEY, *(bulky(n) for n in range(200)))
    monkeypatch.setenv("BATCH_ROWS", "30")

    def fail_from_the_second_batch_on() -> None:
        if len(stored) >= 2:
            raise ConnectionAbortedError

    stored = watch(clickhouse, "stored", r"\.video_events ", fail_from_the_second_batch_on)
    with pytest.raises(EventFailed):
        invoke(notification(bucket.name, KEY))
    clickhouse.hook = lambda *_: None
    monkeypatch.setenv("BATCH_ROWS", "70")
    invoke(notification(bucket.name, KEY))
    assert ask(IDS) == ids(range(200))
    assert ask(LEDGER) == [[200, 200, 0]]


@pytest.mark.fault(23, caught_by="bounded retries; redelivery")
def test_an_unreachable_server_is_tried_a_few_times_and_named(
    bucket: Bucket,
    invoke: Invoke,
    ask: Ask,
    pauses: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bucket.put(KEY, video(1))
    for variable, value in (("CLICKHOUSE_PORT", "1"), ("CLICKHOUSE_HOST", "nowhere.invalid")):
        pauses.clear()
        monkeypatch.setenv(variable, value)
        with pytest.raises(EventFailed, match=rf"{value}.*: no connection"):
            invoke(notification(bucket.name, KEY))
        assert 0 < len(pauses) <= 3, variable
        assert len(set(pauses)) == len(pauses), variable
    assert ask(ROWS) == [[0]]


@pytest.mark.fault(36, caught_by="reading stops at a failed insert")
def test_nothing_more_is_read_of_an_object_whose_rows_were_refused(
    bucket: Bucket, invoke: Invoke, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCH_ROWS", "10")
    # Several chunks, and so several batches.
    bucket.put(KEY, *(video(n, padding="x" * 1000) for n in range(1000)))
    ask("DROP TABLE video_events")
    read: list[int] = []

    def noted(lines: list[bytes], number: int, *more: Any) -> Any:
        read.append(number)
        return parse(lines, number, *more)

    monkeypatch.setattr(bundle, "parse", noted)
    with pytest.raises(EventFailed, match="table is missing"):
        invoke(notification(bucket.name, KEY))
    # One batch is read while the one before it is on its way.
    assert len(read) <= 2


@pytest.mark.fault(23, caught_by="one query to the ledger; redelivery")
def test_a_ledger_that_cannot_be_read_is_asked_once_whatever_the_number_of_objects(
    bucket: Bucket, invoke: Invoke, clickhouse: ClickHouseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(common, "PAGE_OBJECTS", 1)
    names = [bucket.put(f"section/1/{n}.jsonl", video(n)) for n in range(3)]
    asked = refuse(clickhouse, 497)
    with pytest.raises(EventFailed, match="3 of 3 objects failed: .*grant the rights"):
        invoke(notification(bucket.name, *names))
    assert len(asked) == 1


@pytest.mark.fault(36, caught_by="error codes")
def test_a_missing_table_is_not_retried_and_nothing_is_recorded_as_done(
    bucket: Bucket, invoke: Invoke, ask: Ask, pauses: list[float]
) -> None:
    bucket.put(KEY, video(1), BAD_LINE)
    for table in ("rejected_statements", "video_events", "processed_files"):
        assert ask("SELECT count() FROM processed_files") == [[0]], table
        ask(f"RENAME TABLE {table} TO away")
        with pytest.raises(EventFailed, match="a table is missing: run"):
            invoke(notification(bucket.name, KEY))
        ask(f"RENAME TABLE away TO {table}")
    assert ask("SELECT count() FROM processed_files") == [[0]]
    assert pauses == []
