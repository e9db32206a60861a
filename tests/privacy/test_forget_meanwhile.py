"""A learner is forgotten while objects are loaded: rows that were read already are not kept."""

from __future__ import annotations

import time
from typing import Any

import pytest
from clickhouse_driver import Client

from local.clickhouse_server import ClickHouseServer
from tests.conftest import Ask, Cli, Invoke, forget_connections
from tests.privacy.conftest import (
    LATER,
    Load,
    at_the_second_look,
    by_account,
    hashes,
    users,
)
from tests.support.samples import video
from xapi_etl_processor.base.attempts import ATTEMPTS
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.errors import EventFailed
from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.privacy import forget as forgetting
from xapi_etl_processor.privacy.learner import Learner


def forgotten_at(clickhouse: ClickHouseServer, ask: Ask, at: str, then: str = "") -> None:
    """Forget the learner when an insert of statements gets to the point `at`; the insert then fails
    with `then`, if that is given.
    """

    def meanwhile(point: str, sql: str) -> None:
        if point == at and ".video_events " in sql:
            clickhouse.hook = lambda *_: None
            ask(f"INSERT INTO forgotten_learners (learner, name, salt) VALUES {hashes()}")
            if then:
                raise RuntimeError(then)

    clickhouse.hook = meanwhile


@pytest.mark.fault(74, caught_by="forgotten learners are checked around each insert")
def test_a_load_that_has_read_its_object_already_stores_nothing(
    load: Load, ask: Ask, clickhouse: ClickHouseServer, settings: Settings
) -> None:
    """The learner is forgotten between the first and the second look at the list."""
    looks = at_the_second_look(clickhouse, lambda: forget_quietly(settings))
    with pytest.raises(EventFailed, match="a learner was forgotten"):
        load(by_account(1), video(2))
    assert len(looks) == 2
    assert users(ask) == []
    # So there is nothing to put right.
    assert ask("SELECT count() FROM load_notes") == [[0]]
    assert load(by_account(1), video(2))["forgotten_events"] == 1
    assert users(ask) == ["viewer-2"]


def forget_quietly(settings: Settings) -> None:
    clickhouse = ClickHouse(settings)
    forgetting.forget([Learner("learner-1")], clickhouse)
    clickhouse.disconnect()


@pytest.mark.fault(74, caught_by="forgotten learners are checked around each insert")
def test_a_load_that_is_held_up_behind_its_check_says_so_and_a_sweep_removes_its_rows(
    load: Load, invoke: Invoke, ask: Ask, clickhouse: ClickHouseServer, forget: Cli
) -> None:
    """The insert reaches the server only after everything of the learner was removed."""

    load(video(3), key=LATER)
    forgotten_at(clickhouse, ask, "block")
    with pytest.raises(EventFailed, match="a learner was forgotten"):
        load(by_account(1), video(2))
    assert users(ask) == ["learner-1", "viewer-2", "viewer-3"]
    health = invoke({"health_check": True})["clickhouse"]
    assert "forget --sweep" in health["warning"]
    assert forget("--sweep", "--dry-run").json["rows_removed"] == 1
    assert forget("--sweep").json["rows_removed"] == 1
    assert users(ask) == ["viewer-2", "viewer-3"]
    assert "forget" not in str(invoke({"health_check": True})["clickhouse"])


@pytest.mark.fault(26, 74, caught_by="forgotten learners are checked around each insert")
def test_a_load_whose_replies_are_lost_says_so_too(
    load: Load,
    invoke: Invoke,
    ask: Ask,
    clickhouse: ClickHouseServer,
    forget: Cli,
    pauses: list[float],
) -> None:
    """Its rows are stored after everything of the learner was removed, and it never hears of it."""

    def meanwhile(point: str, sql: str) -> None:
        if point == "stored" and ".video_events " in sql:
            if not ask("SELECT count() FROM forgotten_learners")[0][0]:
                ask(f"INSERT INTO forgotten_learners (learner, name, salt) VALUES {hashes()}")
            raise ConnectionAbortedError

    clickhouse.hook = meanwhile
    with pytest.raises(EventFailed, match="a learner was forgotten"):
        load(by_account(1), video(2))
    clickhouse.hook = lambda *_: None
    # Whether to try again is asked first.
    assert len(pauses) == 1 < ATTEMPTS
    assert "forget --sweep" in invoke({"health_check": True})["clickhouse"]["warning"]
    assert forget("--sweep").json["rows_removed"] == 1
    assert users(ask) == ["viewer-2"]


@pytest.mark.fault(34, 74, caught_by="forgotten learners are checked around each insert")
@pytest.mark.usefixtures("pauses")
def test_an_insert_that_a_busy_server_refused_is_not_tried_again_with_a_forgotten_learner(
    load: Load, ask: Ask, clickhouse: ClickHouseServer
) -> None:
    busy = "Code: 252. DB::Exception: Too many parts (3000)."
    forgotten_at(clickhouse, ask, "insert", then=busy)
    with pytest.raises(EventFailed, match="a learner was forgotten"):
        load(by_account(1), video(2))
    assert users(ask) == []
    # The server stored nothing, so that nothing is to be put right.
    assert ask("SELECT count() FROM load_notes") == [[0]]
    assert load(by_account(1), video(2))["forgotten_events"] == 1
    assert users(ask) == ["viewer-2"]


@pytest.mark.fault(13, 74, caught_by="the next attempt looks for rows that should not be there")
@pytest.mark.usefixtures("pauses")
def test_rows_of_a_load_that_could_not_look_again_are_noted_by_the_next_one(
    load: Load, invoke: Invoke, ask: Ask, clickhouse: ClickHouseServer, forget: Cli
) -> None:
    """ClickHouse answers nothing from the insert on, so that nobody can note anything."""
    ends: list[str] = []

    def meanwhile(point: str, sql: str) -> None:
        if ends:
            raise ConnectionAbortedError
        if ".video_events " in sql and point == "block":
            clickhouse.hook = lambda *_: None
            ask(f"INSERT INTO forgotten_learners (learner, name, salt) VALUES {hashes()}")
            clickhouse.hook = meanwhile
        if ".video_events " in sql and point == "stored":
            ends.append(sql)

    clickhouse.hook = meanwhile
    with pytest.raises(EventFailed):
        load(by_account(1), video(2))
    clickhouse.hook = lambda *_: None
    assert ends
    assert users(ask) == ["learner-1", "viewer-2"]
    assert load(by_account(1), video(2))["forgotten_events"] == 1
    assert "forget --sweep" in invoke({"health_check": True})["clickhouse"]["warning"]
    assert forget("--sweep").json["rows_removed"] == 1
    assert load(by_account(1), video(2))["success"]
    assert "forget" not in str(invoke({"health_check": True})["clickhouse"])


@pytest.mark.fault(74, caught_by="`forget` waits for running loads")
def test_loads_that_read_the_list_just_before_are_waited_for(
    clickhouse: ClickHouseServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[object] = []

    def look(_: str, sql: str) -> None:
        if "system.processes" in sql:
            steps.append("looked at what runs")

    clickhouse.hook = look
    monkeypatch.setattr(forgetting, "FRESH_SECONDS", 3)
    monkeypatch.setattr(time, "sleep", steps.append)
    forget_quietly(settings)
    assert steps == [3, "looked at what runs"]


def test_on_cloud_what_decides_an_insert_is_asked_of_a_replica_that_has_all_rows(
    load: Load, forget: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No engine here is Shared, so the test answers the question whether there is one."""
    load(by_account(1), video(2))
    forget("--user", "learner-1")
    forget_connections()
    asked: dict[str, bool] = {}
    execute = Client.execute

    def note(client: Client, sql: str, *given: Any, **more: Any) -> Any:
        if "engine LIKE 'Shared%%'" in sql:
            return [(6, 6)]
        if sql.startswith("SELECT") and "system." not in sql:
            asked[sql] = more["settings"].get("select_sequential_consistency") == 1
        return execute(client, sql, *given, **more)

    monkeypatch.setattr(Client, "execute", note)
    load(by_account(3), video(4), key=LATER)
    assert all(asked.values())
    named = " ".join(asked)
    for table in ("processed_files", "load_notes", "forgotten_learners"):
        assert f".{table}" in named
