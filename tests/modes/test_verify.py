"""Verification: what is missing is found, what is not missing raises no alarm, repair loads it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from local.clickhouse_server import ClickHouseServer
from tests.conftest import Answer, Ask, Bucket, Invoke
from tests.faults.http_proxy import S3Proxy
from tests.support.clocks import Clock
from tests.support.refusals import refuse
from tests.support.samples import BAD_LINE, other, video
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.deadlines import FOREVER
from xapi_etl_processor.bulk import compare, selection
from xapi_etl_processor.bulk.request import read_request
from xapi_etl_processor.bulk.selection import Step, select
from xapi_etl_processor.modes import verify
from xapi_etl_processor.pipeline import contents
from xapi_etl_processor.run import Run, connections
from xapi_etl_processor.s3 import bundle
from xapi_etl_processor.s3.objects import S3Object
from xapi_etl_processor.storage import notes
from xapi_etl_processor.xapi.lines import MIB

FIRST = "section/2001/video/2024-01-01T12-00-00Z_1.jsonl"
SECOND = "section/2001/video/2024-01-02T12-00-00Z_2.jsonl"
THIRD = "section/2002/video/2024-01-03T12-00-00Z_3.jsonl"


@pytest.fixture
def loaded(bucket: Bucket, invoke: Invoke) -> Bucket:
    """Two objects of two video statements each, stored; the second has other lines too."""
    bucket.put(FIRST, video(1), video(2))
    bucket.put(SECOND, video(3), b"", other(1), BAD_LINE, video(4))
    assert invoke({"mode": "bulk"})["success"]
    return bucket


def verified(invoke: Invoke, **more: Any) -> Answer:
    answer = invoke({"mode": "bulk", "verify": True, **more})
    assert answer.status == 200
    return answer


def found(answer: Answer) -> dict[str, str]:
    return {one["key"]: one["finding"] for one in answer["findings"]}


def remove_rows(ask: Ask, condition: str) -> None:
    ask(f"ALTER TABLE video_events DELETE WHERE {condition} SETTINGS mutations_sync = 2")


@pytest.mark.slow
def test_an_object_is_stored_missing_changed_recent_or_gone(loaded: Bucket, invoke: Invoke) -> None:
    for content in (False, True):
        answer = verified(invoke, content=content)
        assert answer["success"]
        assert answer["complete"]
        counts = answer["objects_checked"], answer["objects_missing"], answer["findings"]
        assert counts == (2, 0, [])
    loaded.put(THIRD, video(5))
    answer = verified(invoke)
    assert (answer["success"], found(answer)) == (False, {THIRD: "missing"})
    assert (answer["objects_missing"], answer["missing"]) == (1, 1)
    # It may still be on its way.
    answer = verified(invoke, min_age_minutes=60)
    assert (answer["success"], found(answer)) == (True, {THIRD: "recent"})
    loaded.put(FIRST, video(1))
    answer = verified(invoke, section_id=2001)
    assert (answer["success"], found(answer)) == (False, {FIRST: "changed"})
    for key in (FIRST, SECOND):
        loaded.client.delete_object(Bucket=loaded.name, Key=key)
    # Objects that are gone from S3 are counted, if the request covers them, and are no failure.
    answer = verified(invoke, section_id=2001, allow_empty=True)
    assert answer["success"]
    assert (answer["gone"], answer["gone_keys"]) == (2, [FIRST, SECOND])
    assert verified(invoke, start_date="2024-01-02")["gone"] == 1
    assert verified(invoke, section_id=2002)["gone"] == 0


@pytest.mark.slow
def test_lost_rows_are_unproven_by_counts_proven_by_content_and_repaired(
    loaded: Bucket, invoke: Invoke, ask: Ask
) -> None:
    remove_rows(ask, f"event_id = '{video(4)['id']}'")
    by_counts = verified(invoke)
    assert (by_counts["success"], found(by_counts)) == (True, {SECOND: "unproven"})
    by_content = verified(invoke, content=True)
    assert not by_content["success"]
    [finding] = by_content["findings"]
    # The last of the five lines.
    lost = finding["key"], finding["finding"], finding["lines"]
    assert lost == (SECOND, "differing", [5])
    assert by_content["lines_missing"] == 1
    loaded.put(THIRD, video(5))
    assert not verified(invoke, content=True)["success"]
    ledger = "SELECT count() FROM processed_files"
    assert ask(ledger) == [[2]], "nothing is written without repair"
    answer = verified(invoke, content=True, repair=True)
    assert answer["success"]
    assert (answer["repaired"], answer["objects_missing"], answer["findings"]) == (2, 0, [])
    assert ask("SELECT count() FROM video_statements") == [[5]]
    assert verified(invoke, content=True)["success"]
    # An object that cannot be repaired stays a finding, with the reason.
    loaded.put(THIRD, BAD_LINE)
    answer = verified(invoke, repair=True)
    assert (answer["success"], answer["repaired"], answer["missing"]) == (False, 0, 0)
    assert found(answer) == {THIRD: "changed"}
    assert "none of its lines is a statement" in answer["failures"][0]["error"]


def test_an_object_of_which_no_row_is_left_is_read_and_found_and_can_be_repaired(
    loaded: Bucket, invoke: Invoke, ask: Ask, store: S3Proxy
) -> None:
    """The ledger calls it done; others are still told by their counts alone."""
    remove_rows(ask, f"event_id IN ('{video(1)['id']}', '{video(2)['id']}')")
    store.requests.clear()
    answer = verified(invoke)
    assert not answer["success"]
    assert answer["objects_missing"] == 1
    [finding] = answer["findings"]
    assert (finding["key"], finding["finding"], finding["lines"]) == (FIRST, "differing", [1, 2])
    assert [request.path.rpartition("/")[2] for request in store.asked("GET", ".jsonl")] == [
        FIRST.rpartition("/")[2]
    ]
    repaired = verified(invoke, repair=True)
    assert (repaired["success"], repaired["repaired"]) == (True, 1)
    assert verified(invoke)["findings"] == []


@pytest.mark.slow
def test_statements_that_also_came_in_another_object_are_no_false_alarm(
    loaded: Bucket, invoke: Invoke, ask: Ask
) -> None:
    again = loaded.put(FIRST.replace("_1", "_4"), video(1), video(2))
    for more in (), (video(1), video(1), video(3, timestamp="2024-01-01T13:00:00+01:00")):
        if more:
            loaded.put(THIRD, *more)
        assert invoke({"mode": "bulk"})["success"]
        assert verified(invoke, content=True)["findings"] == []
        ask("OPTIMIZE TABLE video_events FINAL")
        # An object without a row of its own is read; one that has some is told by its counts.
        assert found(verified(invoke)) == ({THIRD: "unproven"} if more else {})
        assert verified(invoke, content=True)["findings"] == []
        if not more:
            rows = "SELECT countIf(source_file = '{}') FROM video_events"
            counts = [*ask(rows.format(loaded.uri(FIRST))), *ask(rows.format(loaded.uri(again)))]
            assert sorted(counts) == [[0], [2]]
    # Rows that were stored twice are no false alarm either.
    ask("INSERT INTO video_events SELECT * EXCEPT played_stretches FROM video_events")
    assert found(verified(invoke)) == {THIRD: "unproven"}


def test_the_statements_of_small_objects_are_looked_up_together_and_those_of_large_ones_in_parts(
    loaded: Bucket,
    invoke: Invoke,
    ask: Ask,
    clickhouse: ClickHouseServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded.put(THIRD, video(5), video(6), video(7))
    invoke({"mode": "bulk"})
    remove_rows(ask, "event_id IN ('{}', '{}')".format(video(1)["id"], video(7)["id"]))
    lookups: list[str] = []

    def count(point: str, sql: str) -> None:
        if point == "query" and "event_id IN" in sql:
            lookups.append(sql)

    clickhouse.hook = count
    for rows, queries in ((5_000, 1), (3, 3), (1, 7)):
        lookups.clear()
        monkeypatch.setattr(contents, "LOOKUP_ROWS", rows)
        answer = verified(invoke, content=True)
        assert {one["key"]: one["lines"] for one in answer["findings"]} == {FIRST: [1], THIRD: [3]}
        assert (answer["lines_missing"], len(lookups)) == (2, queries)


def test_rows_of_earlier_versions_are_not_more_than_the_ledger_counts(
    bucket: Bucket, invoke: Invoke
) -> None:
    keys = [f"section/1/{number}.jsonl" for number in range(0, 50, 10)]
    for kept in (2, 1):
        for number, key in enumerate(keys):
            bucket.put(key, *(video(10 * number + one) for one in range(kept)))
        assert invoke({"mode": "bulk"})["success"]
    assert found(verified(invoke)) == {}


@pytest.mark.slow
def test_forgotten_learners_are_not_missed_more_rows_are_a_difference_and_an_unread_object_fails(
    loaded: Bucket, invoke: Invoke, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove_rows(ask, "user_id = 'viewer-4'")
    with monkeypatch.context() as patch:
        patch.setattr(
            "xapi_etl_processor.storage.learners.Learners.forgotten",
            lambda _, people: {person for person in people if person[0] == "viewer-4"},
        )
        assert verified(invoke, content=True)["success"]
        # More rows than the ledger counts.
        ask(
            "INSERT INTO processed_files SELECT * REPLACE (1 AS video, now64(3) AS processed_at)"
            f" FROM processed_files WHERE key = '{FIRST}'"
        )
        answer = verified(invoke, content=True)
        assert (answer["success"], found(answer)) == (False, {FIRST: "differing"})
    loaded.put(THIRD, body=b" " * (1024**2 + 1))
    assert invoke({"mode": "bulk"})["success"]
    monkeypatch.setattr(bundle, "MAX_OBJECT_BYTES", MIB)
    answer = verified(invoke, content=True)
    assert (answer["success"], answer["unreadable"]) == (False, 1)
    assert answer["failures"][0]["key"] == THIRD


@pytest.mark.slow
def test_when_time_runs_out_it_pauses_and_the_token_continues(
    loaded: Bucket, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded.put(THIRD, video(5))
    monkeypatch.setattr(verify, "PAGE_OBJECTS", 1)
    # Reading ends at 45 s.
    clock = iter([0.0] * 40 + [50.0] * 1000).__next__
    first = invoke({"mode": "bulk", "verify": True, "content": True}, 60, clock)
    assert first.status == 200
    assert not first["complete"]
    assert (first["stopped"], first["stop_reason"]) == ("time ran out", "out_of_time")
    assert 0 < first["objects_checked"] < 3
    rest = invoke({"continuation_token": first["continuation_token"]})
    assert (rest["complete"], rest["stopped"], rest["stop_reason"]) == (True, None, None)
    assert rest["list_calls"] == 1
    assert rest["objects_checked"] == 3 - first["objects_checked"]
    assert found(rest) == {THIRD: "missing"}


@pytest.mark.slow
def test_a_verification_that_is_scheduled_goes_on_where_the_last_one_ended(
    loaded: Bucket, invoke: Invoke, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large bucket takes several nights, and what the first one missed is not forgotten."""
    loaded.put("section/2000/video/2024-01-01T12-00-00Z_0.jsonl", video(6))
    loaded.put(THIRD, video(5))
    monkeypatch.setattr(verify, "PAGE_OBJECTS", 1)
    asked = {"mode": "bulk", "verify": True, "continue": True}
    clock = Clock()
    checked, answers = compare.check, []

    def then_time_runs_out(*given: Any, **more: Any) -> Any:
        yield from checked(*given, **more)
        clock.now = 50

    with monkeypatch.context() as patch:
        patch.setattr(verify, "check", then_time_runs_out)
        for _ in range(3):
            clock.now = 0
            answers.append(invoke(asked, 60, clock))
    answers.append(invoke(asked))
    assert [one["complete"] for one in answers] == [False, False, False, True]
    assert [one["objects_checked"] for one in answers] == [1, 1, 1, 1]
    assert [one["objects_missing"] for one in answers] == [1, 1, 1, 2]
    assert not any(one["success"] for one in answers)
    # All was compared: the next one begins anew. Another request is another verification.
    assert invoke(asked)["objects_checked"] == 4
    assert invoke({**asked, "section_id": 2001})["objects_checked"] == 2
    assert ask("SELECT uniq(subject) FROM load_notes WHERE kind = 'verified'") == [[2]]


@pytest.mark.slow
def test_a_position_is_continued_with_what_could_not_be_read_unless_it_is_old(
    loaded: Bucket,
    invoke: Invoke,
    settings: Settings,
    clickhouse: ClickHouseServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = {"mode": "bulk", "verify": True, "continue": True}

    def continued_after_first(unread: int = 0) -> Answer:
        reached, identity = notes.Verified(FIRST, 0, unread), read_request(asked, settings).identity
        notes.note_verified(connections(settings).clickhouse, identity, reached, FOREVER)
        return invoke(asked)

    answer = continued_after_first(unread=1)
    assert (answer["complete"], answer["success"]) == (True, False)
    assert "1 object could not be compared before" in answer["failures"][0]["error"]
    assert invoke(asked)["success"]
    answer = continued_after_first()
    assert (answer["continued_after"], answer["objects_checked"]) == (FIRST, 1)
    monkeypatch.setattr(notes, "VERIFIED_DAYS", -1)
    answer = continued_after_first()
    assert (answer["continued_after"], answer["objects_checked"]) == ("", 2)
    # If the position cannot be noted, that is a failure, and what is found is in the answer.
    refuse(clickhouse, 497, "load_notes", at="insert")
    assert (invoke(asked)["findings"], invoke(asked)["success"]) == ([], False)
    loaded.put(THIRD, video(5))
    answer = verified(invoke, **{"continue": True})
    assert (answer["success"], found(answer)) == (False, {THIRD: "missing"})
    assert "the position was not noted" in answer["failures"][0]["error"]


def test_no_more_than_a_page_of_objects_is_held(
    loaded: Bucket, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bucket may have millions."""
    monkeypatch.setattr(verify, "PAGE_OBJECTS", 1)
    taken: list[S3Object] = []

    def counted(*arguments: Any) -> Iterator[Step]:
        for step in select(*arguments):
            taken.extend([step.obj] if step.obj else [])
            yield step

    monkeypatch.setattr(selection, "select", counted)
    held = []
    verify.run_verify(
        read_request({"mode": "bulk", "verify": True}, settings),
        Run(settings, connections(settings), "bulk"),
        lambda _: held.append(len(taken)),
    )
    assert held == [1, 2]
