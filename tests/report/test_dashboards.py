"""The dashboards: every query runs and shows the right numbers."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jinja2
import pytest

from local.clickhouse_server import ClickHouseServer
from tests.support import grafana
from tests.support.dirty import (
    ALL,
    HOME_PAGE,
    HOSTILE,
    NO_BUNDLE,
    OTHER_PAGE,
    SECOND_URL,
    TITLE,
    URL,
    Dirty,
)
from tests.support.grafana import DASHBOARDS, FOLDER, INSTRUCTORS, OPERATORS, panels
from tests.support.reader import answers
from tests.support.watched import Watched, row
from xapi_etl_processor.base.config import Settings

ROOT = Path(__file__).parents[2]
SAVED = {path.name: path.read_text() for path in sorted((FOLDER / "queries").glob("*.sql"))}

MARCH = grafana.Range(datetime(2024, 3, 1, tzinfo=UTC), datetime(2024, 3, 31, tzinfo=UTC))
NOW = datetime.now(UTC)
TODAY = grafana.Range(NOW - timedelta(days=1), NOW + timedelta(days=1))


def queries(name: str) -> dict[str, str]:
    """All queries of a dashboard, by the title of their panel or the name of their variable."""
    variables = [v for v in DASHBOARDS[name]["templating"]["list"] if v["type"] == "query"]
    return {
        **{variable["name"]: variable["query"]["rawSql"] for variable in variables},
        **{panel["title"]: panel["targets"][0]["rawSql"] for panel in panels(name)},
    }


@dataclass
class Loaded:
    """A database, and what the dashboards show of it."""

    server: ClickHouseServer
    database: str

    def run(self, sql: str) -> list[list[Any]]:
        """The rows that a query gives, as it is sent."""
        return answers(self.server, self.database, sql)

    def show(
        self,
        name: str,
        title: str,
        chosen: grafana.Range = MARCH,
        section: str = "2001",
        video: str = URL,
    ) -> list[list[Any]]:
        """What a panel or a variable of a dashboard shows."""
        variables = {"section": section, "video": video}
        return self.run(grafana.sent(queries(name)[title], variables, chosen))

    def columns(self, name: str, title: str) -> dict[str, str]:
        """Names and types of the columns of a panel's query."""
        sql = grafana.sent(queries(name)[title], {"section": "2001", "video": URL}, MARCH)
        return {column: kind for column, kind, *_ in self.run(f"DESCRIBE ({sql})")}


def is_nothing(rows: list[list[Any]]) -> bool:
    """Whether an answer has no rows, or only zeros."""
    return not any(value for row in rows for value in row)


@pytest.fixture(scope="module")
def loaded(dirty: Dirty) -> Loaded:
    return Loaded(dirty.server, dirty.database)


MINUTES = pytest.approx
"""Minutes are seconds divided by 60."""


@pytest.mark.slow
def test_instructors_see_the_numbers_of_their_section(loaded: Loaded) -> None:
    """By the table in tests/support/dirty.py, 140 (the examples), 10 and 60 seconds of the first
    video are watched, and 60 and 30 of the second. 20 seconds are played again.
    """

    def shown(title: str, chosen: grafana.Range = MARCH) -> list[list[Any]]:
        return loaded.show(INSTRUCTORS, title, chosen)

    assert shown("section") == [[HOSTILE.strip()], ["1"], ["2001"]]
    assert shown("video") == [[URL, URL], [SECOND_URL, TITLE]]
    assert shown("This section") == [[8, 8, 2, MINUTES(300 / 60), MINUTES(320 / 60), 1]]
    assert shown("How current this is") == [["2024-03-02 09:00:00.000", 24, 0]]
    first, second = "2024-03-01", "2024-03-02"
    share, watched, played = pytest.approx(0.35), MINUTES(210 / 60), MINUTES(230 / 60)
    assert shown("Videos, the most watched first") == [
        [URL, 6, 6, 6, 0, watched, played, share, 100, first, second, URL],
        [TITLE, 2, 2, 2, 1, 1.5, 1.5, 0.75, 60, first, second, SECOND_URL],
    ]
    assert shown("This video") == [[6, 6, 6, 0, share, watched, played, MINUTES(20 / 60), 100]]
    buckets = shown("How many are still there, and what they play again")
    assert [bucket[0] for bucket in buckets] == list(range(100))
    # The first two viewers play 10 to 20 twice; two leave at 10, and one comes to 85 by a seek.
    assert [buckets[n][1:] for n in (5, 15, 35, 50, 75, 82, 99)] == [
        [6, 0, 6], [4, 2, 6], [2, 0, 2], [0, 0, 0], [1, 0, 1], [2, 0, 2], [0, 0, 0]
    ]  # fmt: skip
    assert shown("Where they stopped for good") == [[20, 2, 0], [70, 2, 0], [85, 1, 0], [95, 1, 0]]
    assert shown("From where to where they jumped") == [[10, 70, 2, 2]]
    midnight = " 00:00:00"
    assert shown("Viewers by day") == [[first + midnight, 7, 7, 7], [second + midnight, 1, 1, 1]]
    by_day = "Time watched and played by day"
    minutes = [MINUTES(240 / 60), MINUTES(260 / 60)]
    assert shown(by_day) == [[first + midnight, *minutes], [second + midnight, 1, 1]]
    later = grafana.Range(datetime(2024, 3, 2, 15, tzinfo=UTC), MARCH.end)
    assert shown(by_day, later) == [[second + midnight, 1, 1]]


def test_operators_see_what_was_loaded_and_what_was_not(loaded: Loaded) -> None:
    """Seven loads of objects in the last day: all of tests/support/dirty.py but OLD."""

    def shown(title: str) -> list[list[Any]]:
        return loaded.show(OPERATORS, title, TODAY)

    assert shown("Loaded") == [[7, 35, 28, 2, 2, 3, 0, 0]]
    # In two hours, if the test ran when one ended.
    for title, uploads, bulk in (
        ("Video statements loaded in an hour", 27, 1),
        ("Objects loaded in an hour", 6, 1),
    ):
        hours = shown(title)
        assert [sum(hour[n] for hour in hours) for n in (1, 2)] == [uploads, bulk], title
    rejected = shown("Rejected lines by reason and producer")
    no_json = "not JSON: invalid character"
    assert [row[:4] for row in rejected] == [
        [no_json, "", 2, 1],
        [no_json, HOME_PAGE, 2, 2],
        ["not UTF-8", HOME_PAGE, 1, 1],
    ]
    assert rejected[2][5].endswith(f"{ALL} line 24")
    ((unloaded, lines, reason, _),) = shown("Objects with rejected lines that were not loaded")
    assert unloaded.endswith(NO_BUNDLE)
    assert [lines, reason] == [2, no_json]
    assert shown("Each statement once") == [[26, 2, 1, 23]]
    untimed = shown("Statements without a timestamp of their own")
    assert [row[:3] for row in untimed] == [
        ["key", HOME_PAGE, 1],
        ["none", "https://example.org", 1],
    ]
    # The first two examples have both kinds of stretches: 40 and 30 seconds, by either.
    title = next(
        title for title in queries(OPERATORS) if title.startswith("Stretches that players")
    )
    assert shown(title) == [[HOME_PAGE, "", 2, 70, 70, 0]]
    assert [row[0] for row in shown("Migrations")] == [7, 6, 5, 4, 3, 2, 1]
    assert shown("Migrations")[2][1].startswith("Learners who were forgotten")


@pytest.mark.slow
def test_the_time_to_load_is_from_last_modified_to_the_ledger_and_only_lost_lines_are_missing(
    clickhouse: ClickHouseServer, watching: Settings
) -> None:
    here = Loaded(clickhouse, watching.clickhouse_database)
    midnight = int(datetime(2024, 3, 5, tzinfo=UTC).timestamp())
    ledger, events = f"{here.database}.processed_files", f"{here.database}.video_events"
    clickhouse.engine.query(f"SYSTEM STOP MERGES {ledger}")
    for key, mode, seconds in (
        ("a", "event", 30), ("b", "event", 60), ("c", "event", 91), ("d", "bulk", 900)
    ):  # fmt: skip
        clickhouse.engine.query(
            f"INSERT INTO {ledger} (bucket, key, etag, mode, processed_at)"
            f" VALUES ('bundles', '{key}', 'e', '{mode}', {midnight + seconds})"
        )
        clickhouse.engine.query(
            f"INSERT INTO {events} (event_id, source_file, source_etag, row_version, inserted_at)"
            f" VALUES ('{key}', 's3://bundles/{key}', 'e', {midnight * 1000}, {midnight + seconds})"
        )
    for key in "bc":
        # A row of an earlier load of the same object, not merged yet.
        clickhouse.engine.query(
            f"INSERT INTO {ledger} (bucket, key, etag, mode, processed_at)"
            f" VALUES ('bundles', '{key}', 'e', 'event', {midnight + 10})"
        )
    assert here.show(OPERATORS, "From upload to load") == [["2024-03-05 00:00:00", 60, 91, 91]]
    for key, forgotten in (("e", 3), ("f", 2)):
        clickhouse.engine.query(
            f"INSERT INTO {ledger} (bucket, key, etag, lines, video, other,"
            " blank, rejected, forgotten, processed_at)"
            f" VALUES ('bundles', '{key}', 'e', 13, 1, 2, 3, 4, {forgotten}, now())"
        )
    assert here.show(OPERATORS, "Loaded", TODAY) == [[2, 26, 2, 4, 6, 8, 5, 1]]


def test_the_time_range_is_for_the_panels_that_say_so(loaded: Loaded) -> None:
    long_ago = grafana.Range(datetime(1999, 1, 1, tzinfo=UTC), datetime(1999, 2, 1, tzinfo=UTC))
    for name, dashboard in DASHBOARDS.items():
        chosen = False
        for panel in dashboard["panels"]:
            if panel["type"] == "row":
                chosen = panel["title"].endswith("in the chosen time range")
            elif chosen:
                assert is_nothing(loaded.show(name, panel["title"], long_ago)), panel["title"]
            else:
                assert "$__" not in json.dumps(panel.get("targets")), panel["title"]


@pytest.mark.slow
def test_a_hostile_name_changes_no_query(loaded: Loaded) -> None:
    """ClickHouse reads backslashes in a text as escapes, so that doubling quotes is not enough."""
    assert loaded.show(INSTRUCTORS, "This section", section=HOSTILE.strip())[0][:2] == [1, 1]
    assert loaded.show(INSTRUCTORS, "This video", video=SECOND_URL)[0][0] == 2
    # Whichever of the quotes is taken for the end of the text, everything is found.
    hostile = "\\' OR 1 = 1 -- ' OR 1 = 1 -- "
    for name in (INSTRUCTORS, OPERATORS):
        for title, sql in queries(name).items():
            if "${" in sql:
                assert is_nothing(loaded.show(name, title, section=hostile, video=hostile)), title


@pytest.mark.slow
def test_instructors_queries_read_one_section_by_the_tables_key(loaded: Loaded) -> None:
    for title in queries(INSTRUCTORS).keys() - {"section"}:
        sql = grafana.sent(queries(INSTRUCTORS)[title], {"section": "2001", "video": URL}, MARCH)
        plan = "\n".join(line for (line,) in loaded.run(f"EXPLAIN indexes = 1, pretty = 0 {sql}"))
        assert plan.count(".video_events)") == plan.count("(section_id in [2001, 2001])") == 1, (
            title
        )


# Which column needs which definition of docs/watching.md.
DEFINITIONS = {
    "Average share watched": "Watched",
    "Completions": "Completed",
    "Length": "Length",
    "Opened": "Opened",
    "Played": "Played",
    "Plays": "Played with repeats",
    "Rewatch": "First watch",
    "Sessions": "Session",
    "Stopped": "Stopped at",
    "Stopped after completing it": "Completed",
    "Time played": "Played with repeats",
    "Time watched": "Watched",
    "Videos": "Video",
    "Viewers": "Viewer",
    "Viewers who played it again": "Viewer",
}
WITHOUT = {"Address", "First day", "From", "Last day", "Last statement", "Second", "Seeks",
    "Statements", "To", "Video", "Without a usable time", "time"}  # fmt: skip


@pytest.mark.slow
def test_each_panel_has_the_columns_it_names_and_their_definitions(loaded: Loaded) -> None:
    page = (ROOT / "docs/watching.md").read_text()
    definitions = {
        word: " ".join(text.split())
        for text, word in re.findall(r"^(\*\*([^*\n]+)\*\*.*?)\n\n", page, re.MULTILINE | re.DOTALL)
    }
    for name in (INSTRUCTORS, OPERATORS):
        for panel in panels(name):
            title = panel["title"]
            columns = loaded.columns(name, title)
            matchers = [override["matcher"] for override in panel["fieldConfig"]["overrides"]]
            assert {m["id"] for m in matchers} <= {"byName"}, title
            assert {m["options"] for m in matchers} <= columns.keys(), title
            links = re.findall(r"__data\.fields\.(\w+)", json.dumps(panel))
            assert set(links) <= columns.keys(), title
            if panel["type"] == "trend":
                assert panel["options"]["xField"] == next(iter(columns)), title
            if panel["type"] == "timeseries":
                assert next(iter(columns.items())) == ("time", "DateTime('UTC')"), title
            if panel["type"] in {"timeseries", "trend"}:
                assert all(re.match("U?Int|Float", t) for t in list(columns.values())[1:]), title
            if name == INSTRUCTORS:
                for column in columns.keys() - WITHOUT:
                    assert definitions[DEFINITIONS[column]] in panel["description"], (title, column)


@pytest.mark.slow
def test_who_only_opened_a_video_and_what_cannot_be_read_is_shown_apart(
    clickhouse: ClickHouseServer, watched: Watched
) -> None:
    watched.insert(
        row(0, "initialized", user_id="bob"),
        row(0, "paused", video_time=15, video_played_segments="0[.]15"),
        row(1, "interacted", event_id="an id", video_played_segments="15[.]9"),
    )
    here, section = Loaded(clickhouse, watched.database), str(watched.section)

    def panel(name: str, title: str) -> list[list[Any]]:
        return here.show(name, title, section=section, video=row(0, "")["video_url"])

    def saved(name: str) -> list[list[Any]]:
        return here.run(jinja2.Template(SAVED[name]).render(section=f"'{section}'"))

    assert panel(INSTRUCTORS, "This section")[0][:3] == [2, 1, 1]
    assert panel(INSTRUCTORS, "Videos, the most watched first")[0][1:3] == [2, 1]
    assert panel(INSTRUCTORS, "This video")[0][:2] == [2, 1]
    assert panel(INSTRUCTORS, "Viewers by day")[0][1:3] == [2, 1]
    assert saved("section.sql")[0][:3] == [2, 1, 1]
    assert saved("videos.sql")[0][1:3] == [2, 1]
    assert saved("by_day.sql")[0][1:3] == [2, 1]
    assert saved("by_week.sql")[0][1:3] == [2, 1]
    assert [who for _, who, *_ in saved("less_than_half.sql")] == ["ada"]
    unread = [["https://lms.example.edu", "", "reversed", 1, "an id", "15[.]9"]]
    assert panel(OPERATORS, "Stretches that cannot be read: section ${section}") == unread
    assert saved("unread.sql") == unread


@pytest.mark.ci
@pytest.mark.slow
def test_saved_queries_give_the_same_numbers(loaded: Loaded) -> None:
    def answer(name: str, section: str = "'2001'") -> list[list[Any]]:
        # Superset's templates are Jinja's; Metabase reads the same names between the braces.
        template = jinja2.Template(SAVED[f"{name}.sql"], undefined=jinja2.StrictUndefined)
        return loaded.run(template.render(section=section, video=f"'{URL}'"))

    def panel(title: str) -> list[list[Any]]:
        return loaded.show(INSTRUCTORS, title)

    assert answer("section") == [[8, 8, 2, MINUTES(300 / 60), MINUTES(320 / 60), 1]]
    assert answer("section", "'no such'") == [[0, 0, 0, 0, 0, 0]]
    assert answer("videos") == [
        [title, *numbers[:7], first, last, url]
        for title, *numbers, first, last, url in panel("Videos, the most watched first")
    ]
    assert answer("retention") == panel("How many are still there, and what they play again")
    assert answer("dropoff") == [[20, 2, 0], [70, 2, 0], [85, 1, 0], [95, 1, 0]]
    assert answer("seeks") == [[10, 70, 2, 2]]
    assert [row[:4] for row in answer("by_day")] == [
        ["2024-03-01", 7, 7, 7],
        ["2024-03-02", 1, 1, 1],
    ]
    # Both days are in the week that began on Monday, 26 February.
    assert answer("by_week") == [["2024-02-26", 8, 8, 8]]
    # 10, 25, 30, 40 and 45 of 100 seconds; half of the second video is not less than half.
    assert [row[:4] for row in answer("less_than_half")] == [
        [OTHER_PAGE, "viewer-3", URL, 0.1],
        *(
            [HOME_PAGE, f"viewer-{viewer}", URL, share]
            for viewer, share in ((3, 0.25), (1, 0.3), (0, 0.4), (2, 0.45))
        ),
    ]
    assert answer("unread") == []
    assert answer("trust") == [[HOME_PAGE, "", 2, 70, 70, 0]]
    # A hundred days ago, and today.
    assert [row[1:] for row in answer("loaded_by_day")] == [
        ["event", 1, 1, 1, 0, 0, 0, 0],
        ["bulk", 1, 1, 1, 0, 0, 0, 0],
        ["event", 6, 34, 27, 2, 2, 3, 0],
    ]
    reasons = answer("rejected")
    assert [row[1:3] for row in reasons] == [[4, 3], [1, 1]]
    ((newest,),) = loaded.run("SELECT max(rejected_at) FROM rejected_statements")
    assert newest in [row[3] for row in reasons]


def test_each_saved_query_says_what_it_answers_and_is_in_the_list() -> None:
    page = (FOLDER / "README.md").read_text()
    assert len(SAVED) == 12
    for name, sql in SAVED.items():
        assert re.match(r"-- [A-Z](.*\n-- )*.*\.\n-- Show it as: (.*\n-- )*.*\.\nSELECT", sql), name
        assert set(re.findall(r"\{\{(.*?)\}\}", sql)) <= {"section", "video"}, name
        assert f"[{name}](queries/{name})" in page
