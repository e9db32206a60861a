"""Summaries have the numbers of the view, or those of the last run, and nothing in between."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from threading import Thread
from typing import Any

import pytest

from local.clickhouse_server import ClickHouseServer
from tests.conftest import Answer, Ask, Invoke
from tests.privacy.conftest import be_quick
from tests.report.test_dashboards import ROOT, Loaded
from tests.support.clocks import Clock
from tests.support.dirty import HOSTILE, Dirty
from tests.support.grafana import OPERATORS
from tests.support.refusals import refuse
from tests.support.watched import row
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.errors import NothingDone, XapiEtlError
from xapi_etl_processor.cli import main
from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.modes import summarize
from xapi_etl_processor.modes.summarize import SummaryRequest
from xapi_etl_processor.privacy.forget import forget, sweep
from xapi_etl_processor.privacy.learner import Learner
from xapi_etl_processor.run import Connections, Run, connections
from xapi_etl_processor.s3.client import Stores
from xapi_etl_processor.storage import checks

pytestmark = pytest.mark.usefixtures("own_stream")

COLUMNS = (
    "section_id, section, video_url, title, video_length, opened, played, sessions, completions,"
    " minutes_watched, minutes_played, average_share, first_day, last_day"
)

Insert = Callable[..., None]


@pytest.fixture
def insert(clickhouse: ClickHouseServer, watching: Settings) -> Insert:
    """Insert rows into video_events, as those of the section that is given first."""

    def insert(section: int | str, *rows: dict[str, Any]) -> None:
        number = section if isinstance(section, int) else 0
        here = {"section_id": number, "section": str(section)}
        lines = "\n".join(json.dumps({**here, **one}) for one in rows)
        table = f"{watching.clickhouse_database}.video_events"
        clickhouse.engine.query(f"INSERT INTO {table} FORMAT JSONEachRow {lines}")

    return insert


@pytest.fixture
def three_sections(insert: Insert) -> None:
    """Sections 1, 2 and `spring`: in each, ada watched 30 seconds of a video."""
    for section in (1, 2, "spring"):
        insert(section, row(0, "played", video_time=0), row(30, "paused", video_time=30))


def summarized(invoke: Invoke, **more: Any) -> Answer:
    answer = invoke({"mode": "summarize", **more})
    assert answer.status == 200
    return answer


def seconds(ask: Ask) -> dict[str, int]:
    """The seconds watched in each section, as the summaries have them."""
    rows = ask("SELECT section, round(sum(minutes_watched) * 60) FROM section_videos GROUP BY 1")
    return {section: round(watched) for section, watched in rows}


def watch_more(insert: Insert, *sections: int | str) -> None:
    """Let another learner watch 20 seconds in each of these sections."""
    for section in sections:
        insert(
            section,
            row(0, "played", video_time=0, user_id="bob", session_id="b"),
            row(20, "paused", video_time=20, user_id="bob", session_id="b"),
        )


def summarize_elsewhere(settings: Settings) -> None:
    """Work out all sections, by a connection of its own."""
    other = ClickHouse(settings)
    run = Run(settings, Connections(Stores(), other), "summarize")
    assert summarize.run_summarize(SummaryRequest(), run)["success"]
    other.disconnect()


def forget_bob(settings: Settings) -> None:
    own = ClickHouse(settings)
    try:
        forget([Learner("bob")], own)
    finally:
        own.disconnect()


@pytest.mark.parametrize("rows", [1, summarize.CHUNK_ROWS])
@pytest.mark.usefixtures("watching")
def test_they_are_the_rows_of_the_view(
    rows: int, dirty: Dirty, ask: Ask, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of tables with repeats, versions and voided rows, a section at a time or all at once."""
    monkeypatch.setattr(summarize, "CHUNK_ROWS", rows)
    for table in ("video_events", "voided_statements"):
        ask(f"SYSTEM STOP MERGES {table}")
        ask(f"ALTER TABLE {table} ATTACH PARTITION ALL FROM {dirty.database}.{table}")
    for _ in range(2):
        answer = summarized(invoke)
        assert (answer["success"], answer["sections"]) == (True, 3)
        stored = ask(f"SELECT {COLUMNS} FROM section_videos ORDER BY ALL")
        assert stored == ask(f"SELECT {COLUMNS} FROM video_engagement ORDER BY ALL")
    assert answer["rows_read"] == 50
    assert {name for _, name, *_ in stored} == {"1", "2001", HOSTILE.strip()}


@pytest.mark.usefixtures("three_sections")
def test_what_is_gone_since_is_not_shown(ask: Ask, insert: Insert, invoke: Invoke) -> None:
    insert(1, row(0, "played", video_time=0, video_url="https://videos.example.edu/2"))
    summarized(invoke)
    assert len(ask("SELECT * FROM section_videos")) == 4
    ask(
        "ALTER TABLE video_events DELETE WHERE section = 'spring' OR video_url LIKE '%/2'"
        " SETTINGS mutations_sync = 2"
    )
    assert summarized(invoke)["sections"] == 3
    assert seconds(ask) == {"1": 30, "2": 30}
    assert len(ask("SELECT * FROM section_videos")) == 2


@pytest.mark.usefixtures("three_sections")
@pytest.mark.parametrize("section", [2, "02"])
def test_a_section_is_made_anew_without_the_others(
    section: int | str, ask: Ask, insert: Insert, invoke: Invoke
) -> None:
    summarized(invoke)
    watch_more(insert, 1, 2)
    answer = summarized(invoke, section_id=section)
    assert (answer["section_id"], answer["sections"], answer["rows_read"]) == ("2", 1, 4)
    assert seconds(ask) == {"1": 30, "2": 50, "spring": 30}


@pytest.mark.usefixtures("three_sections", "pauses")
def test_a_run_that_is_killed_leaves_whole_sections(
    ask: Ask,
    insert: Insert,
    invoke: Invoke,
    clickhouse: ClickHouseServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before and after each query that it sends: the connection is lost for good."""
    monkeypatch.setattr(summarize, "CHUNK_ROWS", 1)
    sent: list[str] = []
    clickhouse.hook = lambda point, sql: sent.append(sql) if point == "query" else None
    summarized(invoke)
    expected = {"1": 30, "2": 30, "spring": 30}
    assert seconds(ask) == expected
    assert len(sent) == 2 + 3 * 3
    watch_more(insert, 1, 2, "spring")
    # `spring` comes first: the number of a section whose name is text is 0.
    for step in range(len(sent)):
        left = step

        def lost(point: str, _: str) -> None:
            nonlocal left
            if point == "query":
                if left <= 0:
                    raise ConnectionAbortedError
                left -= 1

        clickhouse.hook = lost
        if step < 5:
            with pytest.raises(XapiEtlError):
                invoke({"mode": "summarize"})
        else:
            answer = summarized(invoke)
            assert (answer["success"], answer["complete"]) == (False, False)
        clickhouse.hook = lambda *_: None
        done = [name for n, name in enumerate(("spring", "1", "2")) if step >= 4 + 3 * n]
        assert seconds(ask) == expected | dict.fromkeys(done, 50), step
    assert summarized(invoke)["complete"]
    assert seconds(ask) == {"1": 50, "2": 50, "spring": 50}


def meanwhile(clickhouse: ClickHouseServer, pattern: str, act: Callable[[], object]) -> None:
    """Call `act` in another thread, once, before a query in which the pattern is found."""

    def hook(point: str, sql: str) -> None:
        if point == "query" and pattern in sql:
            clickhouse.hook = lambda *_: None
            acting = Thread(target=act)
            acting.start()
            acting.join(30)

    clickhouse.hook = hook


@pytest.mark.usefixtures("three_sections")
def test_of_two_runs_at_once_the_one_that_looked_later_counts(
    ask: Ask, insert: Insert, invoke: Invoke, clickhouse: ClickHouseServer, watching: Settings
) -> None:
    """One run is held up between its look at the clock and its insert. What it stores last is of an
    earlier time, and it would have seen less.
    """
    watch_more(insert, 1)

    def run_the_other() -> None:
        summarize_elsewhere(watching)
        ask("ALTER TABLE video_events DELETE WHERE user_id = 'bob' SETTINGS mutations_sync = 2")

    meanwhile(clickhouse, "INSERT INTO", run_the_other)
    assert summarized(invoke)["success"]
    assert seconds(ask) == {"1": 50, "2": 30, "spring": 30}
    assert len(ask("SELECT * FROM section_videos")) == 3


@pytest.mark.usefixtures("three_sections")
def test_nobody_who_is_forgotten_meanwhile_is_counted(
    ask: Ask,
    insert: Insert,
    invoke: Invoke,
    clickhouse: ClickHouseServer,
    watching: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between two chunks: the one that is stored and the one that follows count the learner."""
    be_quick(monkeypatch)
    monkeypatch.setattr(summarize, "CHUNK_ROWS", 1)
    watch_more(insert, "spring", 2)

    # The first chunk is `spring`, the second is section 1.
    meanwhile(clickhouse, "(1, '1')", lambda: forget_bob(watching))
    assert summarized(invoke)["sections"] == 3
    # All summaries until then are removed.
    assert seconds(ask) == {"1": 30, "2": 30}
    assert ask("SELECT sum(opened) FROM section_summaries WHERE section = 'spring'") == [[0]]
    summarized(invoke)
    assert seconds(ask) == {"1": 30, "2": 30, "spring": 30}


@pytest.mark.usefixtures("three_sections")
def test_a_run_that_is_out_of_time_says_where_to_go_on(
    ask: Ask, invoke: Invoke, clickhouse: ClickHouseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summarize, "CHUNK_ROWS", 1)
    clock = Clock()

    def jump(point: str, sql: str) -> None:
        if point == "query" and "arrayJoin" in sql:
            clock.now += 50

    clickhouse.hook = jump
    first = invoke({"mode": "summarize"}, clock=clock)
    assert (first["success"], first["complete"], first["sections"]) == (True, False, 1)
    assert first["stop_reason"] == "out_of_time"
    assert seconds(ask) == {"spring": 30}
    clickhouse.hook = lambda *_: None
    second = summarized(invoke, continuation_token=first["continuation_token"])
    assert (second["complete"], second["sections"], second["rows_read"]) == (True, 2, 4)
    assert seconds(ask) == {"1": 30, "2": 30, "spring": 30}

    def jump_at_once(point: str, _: str) -> None:
        if point == "query":
            clock.now += 50

    clickhouse.hook = jump_at_once
    with pytest.raises(NothingDone, match="time ran out"):
        invoke({"mode": "summarize"}, clock=clock)


@pytest.mark.ci
@pytest.mark.slow
@pytest.mark.usefixtures("three_sections")
def test_a_section_that_takes_longer_than_what_is_left_says_where_to_go_on(
    ask: Ask, invoke: Invoke, clickhouse: ClickHouseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summarize, "CHUNK_ROWS", 1)

    def slow(point: str, sql: str) -> None:
        if point == "query" and "INSERT INTO" in sql and "(1, '1')" in sql:
            time.sleep(12)

    clickhouse.hook = slow
    answer = summarized(lambda payload: invoke(payload, seconds_left=9))
    assert seconds(ask) == {"spring": 30}
    assert (answer["success"], answer["failures"]) == (True, [])
    assert answer["stop_reason"] == "out_of_time"


@pytest.fixture
def cut(clickhouse: ClickHouseServer) -> Iterator[ClickHouseServer]:
    """A server whose profile a test sets, so that it cuts results in silence."""
    yield clickhouse
    clickhouse.profile = {}


@pytest.mark.usefixtures("three_sections")
@pytest.mark.parametrize(
    "profile",
    [
        {"max_result_rows": "1", "result_overflow_mode": "break", "max_block_size": "1"},
        {"max_rows_to_group_by": "1", "group_by_overflow_mode": "any"},
        {"max_rows_to_read": "1", "read_overflow_mode": "break", "max_block_size": "1"},
        {"limit": "1"},
    ],
)
def test_no_summary_is_made_of_a_part(
    profile: dict[str, str], ask: Ask, invoke: Invoke, cut: ClickHouseServer
) -> None:
    cut.profile = profile
    with pytest.raises(XapiEtlError):
        invoke({"mode": "summarize"})
    cut.profile = {}
    assert seconds(ask) == {}


@pytest.mark.usefixtures("three_sections")
def test_no_month_is_left_out(
    ask: Ask, cut: ClickHouseServer, capsys: pytest.CaptureFixture[str]
) -> None:
    ask("INSERT INTO video_events (timestamp, event_id) VALUES ('2023-01-01 00:00:00', 'a')")
    cut.profile = {"limit": "1"}
    assert main(["drop-months", "--before", "2025-01", "--dry-run"]) == 1
    assert "the user's profile has results cut in silence (limit" in capsys.readouterr().err


@pytest.mark.usefixtures("three_sections", "pauses")
def test_a_section_that_is_too_large_fails_and_the_others_are_worked_out(
    ask: Ask, invoke: Invoke, clickhouse: ClickHouseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summarize, "CHUNK_ROWS", 1)
    monkeypatch.setattr(summarize, "LARGE_ROWS", 2)
    refuse(clickhouse, 241, r"\(1, '1'\)", text="Memory limit (total) exceeded")
    answer = summarized(invoke)
    assert (answer["success"], answer["complete"]) == (False, True)
    assert [one["key"] for one in answer["failures"]] == ["section 1"]
    assert "MEMORY_LIMIT_EXCEEDED" in answer["failures"][0]["error"]
    assert answer["warnings"][0] == (
        "section spring has 2 rows: ClickHouse needs about 0.5 GB for each million of them"
    )
    assert len(answer["warnings"]) == 3
    assert seconds(ask) == {"2": 30, "spring": 30}


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ({"section": 1}, "unknown parameters 'section': use section_id, continuation_token"),
        ({"section_id": True}, "section_id is True"),
        ({"section_id": [1]}, "section_id is a list"),
        ({"continuation_token": "x"}, "continuation_token is that of another request"),
        ({"continuation_token": "1/1", "section_id": 1}, "continuation_token is that of another"),
        ({"continuation_token": "9" * 5000 + "/x"}, "continuation_token is that of another"),
    ],
)
def test_a_payload_that_can_never_work_is_refused(
    payload: dict[str, Any], said: str, invoke: Invoke
) -> None:
    answer = invoke({"mode": "summarize", **payload})
    assert answer.status == 400
    assert said in answer["error"]


@pytest.mark.usefixtures("three_sections")
@pytest.mark.parametrize(
    ("token", "left"), [(f"{2**64 - 1}/x", 0), (f"{2**64}/x", 0), ("0/zz'\\", 2)]
)
def test_a_token_may_have_any_number_and_quotes(token: str, left: int, invoke: Invoke) -> None:
    answer = summarized(invoke, continuation_token=token)
    assert (answer["sections"], answer["complete"]) == (left, True)


@pytest.mark.usefixtures("three_sections")
def test_the_command_tells_how_far_it_is_and_names_a_section_that_is_not_there(
    ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["summarize"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["sections"] == 3
    assert "6 of 6 rows" in said.err
    assert seconds(ask) == {"1": 30, "2": 30, "spring": 30}
    assert main(["summarize", "--section", "sprung"]) == 1
    said = capsys.readouterr()
    assert "no object of section 'sprung' was loaded" in said.out


@pytest.mark.usefixtures("three_sections")
def test_the_health_check_warns_of_questions_that_memory_may_not_hold(
    invoke: Invoke, watching: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = connections(watching).clickhouse.query
    monkeypatch.setattr(checks, "MANY_ROWS", 7)
    assert checks.unsummarized(ask, watching.clickhouse_database) is None
    monkeypatch.setattr(checks, "MANY_ROWS", 6)
    warning = invoke({"health_check": True})["clickhouse"]["warning"]
    assert "video_events has 6 rows" in warning
    assert "ask section_videos" in warning
    summarized(invoke)
    assert checks.unsummarized(ask, watching.clickhouse_database) is None


@pytest.mark.usefixtures("three_sections")
def test_the_dashboard_and_the_page_show_the_platform(
    clickhouse: ClickHouseServer, watching: Settings, insert: Insert, invoke: Invoke
) -> None:
    watch_more(insert, 1)
    summarized(invoke)
    database = watching.clickhouse_database
    shown = Loaded(clickhouse, database).show(OPERATORS, "What was watched, over all sections")
    assert [numbers[:5] for numbers in shown] == [
        ["1", 1, 2, 2, pytest.approx(50 / 60)],
        ["2", 1, 1, 1, 0.5],
        ["spring", 1, 1, 1, 0.5],
    ]
    # Of 60 seconds, 30 and 20.
    assert [share for *_, share, _ in shown] == [pytest.approx(25 / 60), 0.5, 0.5]
    page = (ROOT / "docs/tables.md").read_text()
    most, least = re.findall(r"```sql\n(SELECT[^`]*section_videos[^`]*)```", page)
    ask = connections(watching).clickhouse.query
    assert ask(most.replace("xapi_analytics", database))[0][:5] == ("1", "", 2, 2, 1)
    found = ask(least.replace("xapi_analytics", database))
    assert found[0][:3] == ("1", 1, pytest.approx(25 / 60))
    assert [one[3] for one in found] == [pytest.approx(25 / 60), 0.5, 0.5]


@pytest.mark.usefixtures("three_sections")
def test_what_was_being_worked_out_while_a_learner_was_forgotten_is_not_shown(
    ask: Ask, insert: Insert, invoke: Invoke, watching: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows are inserted last of all, and still count the learner."""
    be_quick(monkeypatch)
    watch_more(insert, 2)
    summarized(invoke)
    ask("CREATE TABLE late AS section_summaries")
    ask("INSERT INTO late SELECT * FROM section_summaries")
    for sweeps in (False, True):
        clickhouse = ClickHouse(watching)
        if sweeps:
            # A backup was restored.
            watch_more(insert, 2)
            assert sweep(clickhouse)["rows_removed"] == 2
        else:
            assert forget([Learner("bob")], clickhouse)["rows_removed"] == 2
        clickhouse.disconnect()
        ask("INSERT INTO section_summaries SELECT * FROM late")
        assert seconds(ask) == {}
    summarized(invoke)
    assert seconds(ask) == {"1": 30, "2": 30, "spring": 30}
