"""Summaries and forgotten learners: what is left of them when something comes in between."""

from __future__ import annotations

from threading import Event, Thread
from time import monotonic

import pytest

from local.clickhouse_server import ClickHouseServer
from tests.conftest import Ask, Invoke, forget_connections
from tests.modes.test_summarize import (
    Insert,
    forget_bob,
    insert,
    seconds,
    summarize_elsewhere,
    summarized,
    watch_more,
)
from tests.privacy.conftest import be_quick
from tests.support.watched import row
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.errors import XapiEtlError
from xapi_etl_processor.cli import main

pytestmark = pytest.mark.usefixtures("own_stream")
__all__ = ["insert"]


def summarize_then_drop_its_month(insert: Insert, invoke: Invoke) -> None:
    """A section is worked out, and then has no statements any more."""
    watch_more(insert, "spring")
    summarized(invoke)
    assert main(["drop-months", "--before", "2024-04", "--yes"]) == 0
    forget_connections()


@pytest.mark.usefixtures("pauses")
def test_an_interrupted_forget_is_finished_by_the_next_though_a_summary_was_made_meanwhile(
    ask: Ask,
    insert: Insert,
    invoke: Invoke,
    clickhouse: ClickHouseServer,
    watching: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    be_quick(monkeypatch)
    watch_more(insert, "spring")
    summarized(invoke)
    deleting: list[str] = []

    def hook(point: str, sql: str) -> None:
        if point != "query":
            return
        if deleting and "system.mutations" in sql:
            raise ConnectionAbortedError
        if "ALTER TABLE" in sql and ".video_events DELETE" in sql:
            deleting.append(sql)
            clickhouse.hook = lambda *_: None
            acting = Thread(target=summarize_elsewhere, args=(watching,))
            acting.start()
            acting.join(30)
            clickhouse.hook = hook

    clickhouse.hook = hook
    with pytest.raises(XapiEtlError):
        forget_bob(watching)
    clickhouse.hook = lambda *_: None
    assert deleting
    # The server goes on with it.
    end = monotonic() + 20
    while ask("SELECT count() FROM video_events") != [[0]]:
        assert monotonic() < end
        Event().wait(0.05)
    forget_bob(watching)
    assert ask("SELECT section, opened FROM section_summaries WHERE opened > 0") == []
    assert seconds(ask) == {}


def test_what_is_left_of_a_learner_in_summaries_of_dropped_months_is_removed(
    ask: Ask, insert: Insert, invoke: Invoke, watching: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    be_quick(monkeypatch)
    summarize_then_drop_its_month(insert, invoke)
    forget_bob(watching)
    assert seconds(ask) == {}


def test_the_numbers_of_a_video_that_only_the_learner_watched_do_not_stay_on_disk(
    ask: Ask, insert: Insert, invoke: Invoke, watching: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The video has no rows any more, so that no later summary replaces its numbers."""
    be_quick(monkeypatch)
    summarize_then_drop_its_month(insert, invoke)
    summarized(invoke)
    forget_bob(watching)
    summarized(invoke)
    ask("OPTIMIZE TABLE section_summaries FINAL")
    assert ask("SELECT section, video_url FROM section_summaries WHERE opened > 0") == []


def test_a_later_run_counts_though_the_clock_of_an_earlier_one_was_ahead(
    ask: Ask, insert: Insert, invoke: Invoke
) -> None:
    """Another server, or the same before its clock was set right, stored a summary."""
    watch_more(insert, "spring")
    summarized(invoke)
    ask(
        "INSERT INTO section_summaries SELECT * REPLACE"
        " (summarized_at + toIntervalMinute(5) AS summarized_at) FROM section_summaries"
    )
    insert(
        "spring",
        row(0, "played", video_time=0, user_id="ada", session_id="a"),
        row(30, "paused", video_time=30, user_id="ada", session_id="a"),
    )
    assert summarized(invoke)["success"]
    assert seconds(ask) == {"spring": 50}


def test_dry_runs_change_nothing(
    ask: Ask, insert: Insert, invoke: Invoke, watching: Settings
) -> None:
    watch_more(insert, "spring")
    summarized(invoke)
    assert main(["forget", "--user", "bob", "--dry-run"]) == 0
    forget_connections()
    assert main(["forget", "--sweep", "--dry-run"]) == 0
    forget_connections()
    assert seconds(ask) == {"spring": 20}
