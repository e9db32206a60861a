"""What ClickHouse does: drop connections, lose acknowledgements, refuse, never answer."""

from __future__ import annotations

import os
import time
from hashlib import sha256
from typing import Any

import pytest

from local.clickhouse_server import ClickHouseServer
from tests.conftest import Ask, Bucket, Invoke, forget_connections
from tests.faults.tcp_proxy import Fault, TcpProxy
from tests.support.reader import FORGET, IDS, ROWS, ids
from tests.support.samples import BAD_LINE, event_id, notification, video
from xapi_etl_processor import common
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.errors import ClickHouseRefused, EventFailed
from xapi_etl_processor.clickhouse_client import ClickHouse
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
@pytest.mark.parametrize("after", [1_000, 30_000, 200_000])
def test_a_connection_cut_in_the_middle_of_the_only_block_stores_it_once(
    bucket: Bucket, wire: TcpProxy, invoke: Invoke, ask: Ask, after: int
) -> None:
    bucket.put(KEY, *(bulky(n) for n in range(150)), BAD_LINE)
    wire.fault = Fault(cut_after=after, since=INTO_EVENTS)
    assert invoke(notification(bucket.name, KEY))["video_events_processed"] == 150
    assert wire.fault.fired == 1
    assert ask(IDS) == ids(range(150))
    assert ask(ROWS) == [[150]]
    assert ask(LEDGER) == [[151, 150, 1]]


@pytest.mark.slow
@pytest.mark.fault(24, caught_by="all-or-nothing block; redelivery")
def test_a_connection_always_cut_in_the_middle_of_the_block_stores_nothing(
    bucket: Bucket, wire: TcpProxy, invoke: Invoke, ask: Ask, pauses: list[float]
) -> None:
    bucket.put(KEY, *(bulky(n) for n in range(150)))
    wire.fault = Fault(cut_after=50_000, since=INTO_EVENTS, times=100)
    with pytest.raises(EventFailed, match="may or may not have been done"):
        invoke(notification(bucket.name, KEY))
    assert ask(ROWS) == [[0]]
    assert ask("SELECT count() FROM processed_files") == [[0]]
    wire.fault = Fault(times=0)
    invoke(notification(bucket.name, KEY))
    assert ask(IDS) == ids(range(150))


@pytest.mark.slow
@pytest.mark.fault(25, caught_by="the same rows are sent again; ledger written last")
def test_a_connection_cut_between_batches_repeats_no_batch(
    bucket: Bucket,
    wire: TcpProxy,
    invoke: Invoke,
    ask: Ask,
    clickhouse: ClickHouseServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BATCH_ROWS", "30")
    bucket.put(KEY, *(bulky(n) for n in range(200)))
    stored: list[int] = []

    def cut_before_the_third_batch(point: str, sql: str) -> None:
        if ".video_events " in sql and point == "stored":
            stored.append(ask(ROWS)[0][0])
        if ".video_events " in sql and point == "query" and len(stored) == 2:
            stored.append(-1)
            raise ConnectionAbortedError

    clickhouse.hook = cut_before_the_third_batch
    assert invoke(notification(bucket.name, KEY))["video_events_processed"] == 200
    sizes = [count for count in stored if count >= 0]
    assert sizes == sorted(set(sizes))  # No batch was stored twice.
    assert ask(ROWS) == [[200]]
    assert ask(IDS) == ids(range(200))


@pytest.mark.slow
@pytest.mark.fault(26, caught_by="the same rows are sent again; row identity")
def test_rows_count_once_when_the_acknowledgement_is_lost(
    bucket: Bucket, wire: TcpProxy, invoke: Invoke, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xapi_etl_processor.clickhouse_client.REPLY_SECONDS", 1)
    bucket.put(KEY, *(bulky(n) for n in range(150)))
    wire.fault = Fault(mute_after=100_000, since=INTO_EVENTS)
    answer = invoke(notification(bucket.name, KEY))
    assert answer["video_events_processed"] == 150
    assert wire.fault.fired == 1
    assert ask(IDS) == ids(range(150))


@pytest.mark.slow
@pytest.mark.fault(26, 40, caught_by="row identity")
def test_rows_that_are_loaded_again_count_once_with_final(
    bucket: Bucket, settings: Settings, invoke: Invoke, ask: Ask
) -> None:
    ask("SYSTEM STOP MERGES video_events")  # Merges would remove the repeats.
    bucket.put(KEY, *(video(n) for n in range(20)))
    invoke(notification(bucket.name, KEY))
    ask(FORGET)  # As if nothing had been acknowledged.
    invoke(notification(bucket.name, KEY))
    assert ask(ROWS) == [[40]]
    assert ask(IDS) == ids(range(20))


@pytest.mark.slow
@pytest.mark.fault(27, caught_by="row identity")
def test_a_different_batch_size_at_the_second_attempt_loses_and_doubles_nothing(
    bucket: Bucket,
    settings: Settings,
    invoke: Invoke,
    ask: Ask,
    clickhouse: ClickHouseServer,
    monkeypatch: pytest.MonkeyPatch,
    pauses: list[float],
) -> None:
    bucket.put(KEY, *(bulky(n) for n in range(200)))
    monkeypatch.setenv("BATCH_ROWS", "30")
    reached: list[str] = []

    def fail_from_the_second_batch_on(point: str, sql: str) -> None:
        if point == "stored" and ".video_events " in sql:
            reached.append(sql)
            if len(reached) >= 2:
                raise ConnectionAbortedError

    clickhouse.hook = fail_from_the_second_batch_on
    with pytest.raises(EventFailed):
        invoke(notification(bucket.name, KEY))
    clickhouse.hook = lambda *_: None
    monkeypatch.setenv("BATCH_ROWS", "70")
    invoke(notification(bucket.name, KEY))
    assert ask(IDS) == ids(range(200))
    assert ask(LEDGER) == [[200, 200, 0]]


@pytest.mark.slow
@pytest.mark.fault(28, caught_by="lines rejected one by one")
def test_a_bad_line_in_a_batch_does_not_affect_the_others(
    bucket: Bucket, invoke: Invoke, ask: Ask
) -> None:
    lines: list[Any] = [video(n) for n in range(5000)]
    lines[3500] = b'{"id": "x", "actor": {}, "verb": {"id": "v"}'
    bucket.put(KEY, *lines)
    answer = invoke(notification(bucket.name, KEY))
    assert (answer["video_events_processed"], answer["rejected_lines"]) == (4999, 1)
    assert ask(IDS) == ids(range(3500)) + ids(range(3501, 5000))
    assert ask("SELECT source_line FROM rejected_statements") == [[3501]]


ODD: list[Any] = [
    *(None, True, [], {}, "", "NaN", "1e999", -1, 2**63, 2**64, 1.5),
    *("\ud83d\ude00", "\0", "x" * 9),
]


@pytest.mark.fault(29, 30, caught_by="converted by the column's rule, or absent")
def test_an_odd_value_in_any_field_keeps_no_statement_from_being_stored(
    bucket: Bucket, invoke: Invoke, ask: Ask
) -> None:
    time_ = "https://w3id.org/xapi/video/extensions/time"
    section = "http://oli.cmu.edu/extensions/section_id"
    lines = [
        video(
            n,
            timestamp=odd,
            registration=odd,
            actor={"account": {"name": odd, "homePage": odd}},
            result={"extensions": {time_: odd}, "completion": odd, "duration": odd},
            context={"extensions": {section: odd}, "registration": odd},
        )
        for n, odd in enumerate(ODD)
    ]
    bucket.put(KEY, *lines, video(100))
    assert invoke(notification(bucket.name, KEY))["video_events_processed"] == len(ODD) + 1
    assert ask("SELECT uniqExact(event_id) FROM video_events FINAL") == [[len(ODD) + 1]]
    times = "SELECT video_time FROM video_events FINAL WHERE event_id = '{}'"
    for n, odd in enumerate(ODD):
        # Only numbers count as numbers: not true, NaN, infinity or text.
        number = float(odd) if isinstance(odd, int | float) and odd is not True else None
        ((found,),) = ask(times.format(event_id(n)))
        assert (None if found is None else float(found)) == number, odd


@pytest.mark.fault(31, caught_by="a new connection after every error")
def test_a_client_can_store_again_after_any_kind_of_error(
    wire: TcpProxy, settings: Settings, ask: Ask, pauses: list[float]
) -> None:
    client = ClickHouse(Settings.from_env(os.environ))
    good: dict[str, list[Any]] = {"source_file": ["s3://b/k"], "source_line": [1], "line": [b"x"]}
    wrong: list[dict[str, list[Any]]] = [
        *({"nope": [1]}, {"source_line": ["text"]}, {"source_line": [None]})
    ]
    for n, bad in enumerate(wrong):
        with pytest.raises(ClickHouseRefused):
            client.insert("rejected_statements", bad)
        client.insert("rejected_statements", {**good, "source_line": [n]})
    wire.fault = Fault(cut_after=10)
    client.disconnect()
    client.insert("rejected_statements", {**good, "source_line": [9]})
    client.disconnect()
    lines = "SELECT source_line FROM rejected_statements ORDER BY 1"
    assert ask(lines) == [[0], [1], [2], [9]]


@pytest.mark.slow
@pytest.mark.fault(32, caught_by="limit for the greeting")
def test_a_connection_that_swallows_everything_is_replaced_in_time(
    bucket: Bucket, wire: TcpProxy, invoke: Invoke, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xapi_etl_processor.clickhouse_client.WAKE_SECONDS", 1)
    forget_connections()
    bucket.put(KEY, video(1))
    wire.fault = Fault(swallow=True)
    started = time.monotonic()
    assert invoke(notification(bucket.name, KEY))["files_processed"] == 1
    assert time.monotonic() - started < 10
    assert ask(IDS) == ids(range(1, 2))


@pytest.mark.slow
@pytest.mark.fault(14, 32, caught_by="deadline")
def test_a_server_that_never_answers_is_given_up_before_the_invocation_ends(
    bucket: Bucket, wire: TcpProxy, invoke: Invoke, ask: Ask
) -> None:
    bucket.put(KEY, video(1))
    wire.fault = Fault(swallow=True, times=100)
    for seconds in (3, 0):
        started = time.monotonic()
        with pytest.raises(EventFailed):
            invoke(notification(bucket.name, KEY), seconds_left=seconds)
        assert time.monotonic() - started < 3
    assert ask(ROWS) == [[0]]


@pytest.mark.fault(23, caught_by="bounded retries; redelivery")
@pytest.mark.parametrize(
    ("variable", "value"), [("CLICKHOUSE_PORT", "1"), ("CLICKHOUSE_HOST", "nowhere.invalid")]
)
def test_an_unreachable_server_is_tried_a_few_times_and_named(
    bucket: Bucket,
    settings: Settings,
    invoke: Invoke,
    ask: Ask,
    pauses: list[float],
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
) -> None:
    monkeypatch.setenv(variable, value)
    bucket.put(KEY, video(1))
    with pytest.raises(EventFailed, match=rf"{value}.*: no connection"):
        invoke(notification(bucket.name, KEY))
    assert 0 < len(pauses) <= 3
    assert len(set(pauses)) == len(pauses)
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
    bucket: Bucket,
    settings: Settings,
    invoke: Invoke,
    ask: Ask,
    clickhouse: ClickHouseServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(common, "PAGE_OBJECTS", 1)
    names = [bucket.put(f"section/1/{n}.jsonl", video(n)) for n in range(3)]
    asked: list[str] = []

    def refuse(point: str, sql: str) -> None:
        if point == "query":
            asked.append(sql)
            raise RuntimeError("Code: 497. DB::Exception: Not enough privileges")

    clickhouse.hook = refuse
    with pytest.raises(EventFailed, match="3 of 3 objects failed: .*grant the rights"):
        invoke(notification(bucket.name, *names))
    assert len(asked) == 1


@pytest.mark.fault(36, caught_by="one table of error codes")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("DROP TABLE video_events", "a table is missing: run"),
        ("DROP TABLE processed_files", "a table is missing: run"),
        ("DROP TABLE rejected_statements", "a table is missing: run"),
    ],
)
def test_a_missing_table_is_not_retried_and_nothing_is_recorded_as_done(
    bucket: Bucket,
    settings: Settings,
    invoke: Invoke,
    ask: Ask,
    pauses: list[float],
    change: str,
    message: str,
) -> None:
    bucket.put(KEY, video(1), BAD_LINE)
    ask(change)
    with pytest.raises(EventFailed, match=message):
        invoke(notification(bucket.name, KEY))
    assert pauses == []
    if "processed_files" not in change:
        assert ask("SELECT count() FROM processed_files") == [[0]]
