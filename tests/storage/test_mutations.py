"""Stored rows are removed and rewritten, and the call returns when that is done."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.conftest import Ask, Bucket, Invoke
from tests.support.samples import video
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.deadlines import FOREVER
from xapi_etl_processor.base.errors import ClickHouseRefused, ClickHouseUnavailable
from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.storage.mutations import remove, rewrite

KEY = "section/2001/video/2024-01-01T12-00-00Z_1.jsonl"
IS_USER = "user_id = %(user)s"


@pytest.fixture
def stored(client: ClickHouse, bucket: Bucket, invoke: Invoke) -> ClickHouse:
    """The viewers viewer-1, viewer-2 and viewer-3 have one statement each."""
    invoke({"bucket": bucket.name, "key": bucket.put(KEY, video(1), video(2), video(3))})
    return client


def users(ask: Ask) -> list[str]:
    return [user for (user,) in ask("SELECT user_id FROM video_events ORDER BY user_id")]


def test_rows_are_removed_and_rewritten_when_the_call_returns(stored: ClickHouse, ask: Ask) -> None:
    assert remove(stored, "video_events", IS_USER, {"user": "viewer-4"}) == 0
    # Where there is nothing to remove, the table stays as it is.
    assert ask("SELECT count() FROM system.mutations WHERE database = currentDatabase()") == [[0]]
    assert remove(stored, "video_events", IS_USER, {"user": "viewer-2"}) == 1
    assert users(ask) == ["viewer-1", "viewer-3"]
    names = {"old": "viewer-1", "new": r"it's \new"}
    rewrite(stored, "video_events", "user_id = %(new)s", "user_id = %(old)s", names)
    assert users(ask) == [r"it's \new", "viewer-3"]


def test_a_change_that_cannot_be_made_or_is_not_done_by_its_deadline_is_named(
    stored: ClickHouse, ask: Ask
) -> None:
    with pytest.raises(ClickHouseUnavailable):
        stored.alter("video_events", "DELETE WHERE 1", {}, FOREVER.within(0))
    assert len(users(ask)) == 3
    ask("SYSTEM STOP MERGES video_events")
    try:
        with pytest.raises(ClickHouseUnavailable, match="not all changed yet"):
            remove(stored, "video_events", IS_USER, {"user": "viewer-2"}, FOREVER.within(3))
    finally:
        ask("SYSTEM START MERGES video_events")
    with pytest.raises(ClickHouseRefused, match=r"CANNOT_PARSE|KILL MUTATION") as failure:
        rewrite(stored, "video_events", "video_time = toFloat64(user_id)", "1", {})
    assert "viewer" not in str(failure.value)


def test_the_server_is_asked_less_and_less_often_and_all_questions_end_in_time(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    deadlines: list[object] = []
    unfinished = [[("",)]] * 10 + [[]]

    def query(_: ClickHouse, sql: str, __: object, deadline: object) -> list[tuple[object, ...]]:
        deadlines.append(deadline)
        return list(unfinished.pop(0)) if "latest_fail_reason" in sql else [(1,)]

    monkeypatch.setattr(ClickHouse, "query", query)
    monkeypatch.setattr(ClickHouse, "alter", lambda *given: deadlines.append(given[-1]))
    monkeypatch.setattr("xapi_etl_processor.storage.mutations.time.sleep", pauses.append)
    until = FOREVER.within(99)
    assert remove(ClickHouse(settings), "video_events", "1", {}, until) == 1
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (0.1, 2.0)
    assert deadlines == [until] * 13


def test_on_a_cluster_every_replica_must_list_the_change_before_it_counts_as_done(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replica learns of it from Keeper, a moment after the other has accepted it. No two current
    servers with Keeper run here, so that their answers are made up.
    """
    # What the two replicas list: before, then three times after the change was accepted.
    looks = [
        [("a", "0000000006"), ("b", "0000000006")],
        [("a", "0000000006"), ("b", "0000000006")],
        [("a", "0000000007"), ("b", "0000000006")],
        [("a", "0000000007"), ("b", "0000000007")],
        [("a", "0000000007"), ("b", "0000000007")],
    ]
    unfinished = [[], [("",)], [("",)], []]
    asked: list[str] = []

    def query(_: ClickHouse, sql: str, *__: object) -> list[tuple[object, ...]]:
        asked.append(sql)
        if "system.replicas" in sql:
            return [(2,)]
        if "hostName()" in sql:
            return list(looks.pop(0))
        return list(unfinished.pop(0)) if "latest_fail_reason" in sql else [(1,)]

    monkeypatch.setattr(ClickHouse, "query", query)
    monkeypatch.setattr(ClickHouse, "alter", lambda *_: asked.append("ALTER"))
    monkeypatch.setattr("xapi_etl_processor.storage.mutations.time.sleep", lambda _: None)
    clickhouse = ClickHouse(replace(settings, clickhouse_cluster="pair"))
    assert remove(clickhouse, "video_events", IS_USER, {"user": "viewer-2"}) == 1
    assert (looks, unfinished) == ([], [])
    assert asked.index("ALTER") > next(n for n, sql in enumerate(asked) if "hostName()" in sql)
    assert all("clusterAllReplicas('pair'" in sql for sql in asked if "system.mutations" in sql)
