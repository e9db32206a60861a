"""The dashboards: every query runs and shows the right numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import jinja2
import pytest

from local.clickhouse_server import ClickHouseServer
from tests.conftest import PASSWORD, USER, Bucket, Template, run_all
from tests.report.test_watching import statements_of
from tests.support import grafana
from tests.support.grafana import DASHBOARDS, FOLDER, INSTRUCTORS, OPERATORS, panels
from tests.support.samples import BAD_LINE, VIDEO, event_id, other, video
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.common import process
from xapi_etl_processor.outcome import Status
from xapi_etl_processor.run import Connections, Run, Wanted
from xapi_etl_processor.s3.client import Stores
from xapi_etl_processor.s3.objects import S3Object

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ROOT = Path(__file__).parents[2]
SAVED = {path.name: path.read_text() for path in sorted((FOLDER / "queries").glob("*.sql"))}

HOME_PAGE = "https://lms.example.edu"
URL, SECOND_URL = "https://example.org/video/1", "https://example.org/video/2?t='\\'"
HOSTILE = "it's \\' OR 1 = 1 -- "
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
    """A database with what `loaded` uploads, and what the dashboards show of it."""

    server: ClickHouseServer
    database: str

    def run(self, sql: str) -> list[list[Any]]:
        """The rows that a query gives, as it is sent."""
        self.server.engine.query(f"USE {self.database}")
        rows: list[list[Any]] = json.loads(self.server.engine.query(sql, "JSONCompact").bytes())[
            "data"
        ]
        return rows

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


def viewer(number: int, name: str, **more: Any) -> dict[str, Any]:
    """A statement of a viewer in section 2001."""
    return video(number, actor={"account": {"name": name, "homePage": HOME_PAGE}}, **more)


def watched_in_section_2001() -> Iterator[dict[str, Any]]:
    """The four examples of docs/watching.md, each by a viewer of its own; Eve, who completes
    another video; Fay, whose statement is voided."""
    examples = (
        "A player that repeats all its stretches",
        "A player that sends only its last stretch",
        "A player that sends none, and a tab that is closed",
        "A seek while playing",
    )
    for example, name in enumerate(examples):
        for number, statement in enumerate(statements_of(name)):
            actor = {"account": {"name": f"viewer-{example}", "homePage": HOME_PAGE}}
            yield {**statement, "id": event_id(100 * example + number), "actor": actor}
    yield viewer(
        900,
        "eve",
        verb={"id": "https://w3id.org/xapi/video/verbs/completed"},
        object={"id": SECOND_URL, "definition": {"name": {"en": "What's \\'new"}}},
        result={"extensions": {VIDEO + "length": 60, VIDEO + "played-segments": "0[.]60"}},
        timestamp="2024-03-02T09:00:00Z",
    )
    yield viewer(901, "fay", result={"extensions": {VIDEO + "played-segments": "0[.]90"}})
    yield {
        "actor": {"mbox": "mailto:admin@example.org"},
        "verb": {"id": "http://adlnet.gov/expapi/verbs/voided"},
        "object": {"objectType": "StatementRef", "id": event_id(901)},
    }


@pytest.fixture(scope="module")
def loaded(
    clickhouse: ClickHouseServer, platform: S3Client, template: Template
) -> Iterator[Loaded]:
    """Two sections by uploads, one with a hostile name, and the first once more. Then a bulk run,
    which meets one statement again, and an object without any, which is tried once more.

    The tests share it: they only read.
    """
    database = f"shown_{uuid4().hex[:12]}"
    run_all(clickhouse, [*template.creates, *template.watching], template.database, database)
    clickhouse.engine.query(
        f"CREATE TABLE {database}.schema_versions AS {template.database}.schema_versions"
    )
    clickhouse.engine.query(
        f"INSERT INTO {database}.schema_versions SELECT * FROM {template.database}.schema_versions"
    )
    # So that what is stored twice stays in two rows.
    for table in ("video_events", "processed_files", "rejected_statements"):
        clickhouse.engine.query(f"SYSTEM STOP MERGES {database}.{table}")
    bucket = Bucket(f"bundles-{uuid4().hex[:12]}", platform)
    platform.create_bucket(Bucket=bucket.name)
    settings = Settings.from_env(
        {
            "CLICKHOUSE_HOST": "127.0.0.1",
            "CLICKHOUSE_PORT": str(clickhouse.port),
            "CLICKHOUSE_DATABASE": database,
            "CLICKHOUSE_USERNAME": USER,
            "CLICKHOUSE_PASSWORD": PASSWORD,
            "S3_XAPI_BUCKET_NAME": bucket.name,
        }
    )
    connections = Connections(Stores(), ClickHouse(settings))

    def load(mode: str, *keys: str, force: bool = False) -> list[Status]:
        run = Run(settings, connections, mode, Wanted(force=force))
        outcomes = process([S3Object(bucket.name, key) for key in keys], run)
        return [outcome.status for outcome in outcomes]

    statements = list(watched_in_section_2001())
    untimed = video(902)
    untimed["context"] = {"extensions": {"http://oli.cmu.edu/extensions/section_id": HOSTILE}}
    del untimed["timestamp"]
    first = bucket.put("section/2001/video/a.jsonl", *statements, other(1), b"", BAD_LINE)
    again = bucket.put(
        "section/2001/video/c.jsonl", next(s for s in statements if s.get("id") == event_id(900))
    )
    without = bucket.put("section/2001/video/d.jsonl", BAD_LINE, BAD_LINE)
    done, failed = Status.PROCESSED, Status.FAILED
    assert load("event", first, bucket.put("section/1/video/b.jsonl", untimed)) == [done, done]
    assert load("event", first, force=True) == [done]
    assert load("bulk", again, without) == [done, failed]
    assert load("event", without, force=True) == [failed]
    connections.clickhouse.disconnect()
    yield Loaded(clickhouse, database)
    clickhouse.engine.query(f"DROP DATABASE {database}")


MINUTES = pytest.approx
"""Minutes are seconds divided by 60."""


@pytest.mark.slow
def test_instructors_see_the_numbers_of_their_section(loaded: Loaded) -> None:
    """Watched: 40 + 30 + 45 + 25 seconds in the examples, and Eve's 60; played: 50 + 40 + 45 + 25,
    and 60. What Fay watched is voided, and the other section is not theirs."""

    def shown(title: str, chosen: grafana.Range = MARCH) -> list[list[Any]]:
        return loaded.show(INSTRUCTORS, title, chosen)

    assert shown("section") == [[HOSTILE.strip()], ["2001"]]
    assert shown("video") == [[URL, URL], [SECOND_URL, "What's \\'new"]]
    assert shown("This section") == [[5, 2, MINUTES(200 / 60), MINUTES(220 / 60), 1]]
    assert shown("How current this is") == [["2024-03-02 09:00:00.000", 19, 0]]
    first, second = "2024-03-01", "2024-03-02"
    share, watched, played = pytest.approx(0.35), MINUTES(140 / 60), MINUTES(160 / 60)
    assert shown("Videos, the most watched first") == [
        [URL, 4, 4, 0, watched, played, share, 100, first, first, URL],
        ["What's \\'new", 1, 1, 1, 1, 1, 1, 60, second, second, SECOND_URL],
    ]
    assert shown("This video") == [[4, 4, 0, share, watched, played, MINUTES(20 / 60), 100]]
    buckets = shown("How many are still there, and what they play again")
    assert [bucket[0] for bucket in buckets] == list(range(100))
    # The first two viewers play 10 to 20 twice; the last leaves at 10, and comes to 85 by a seek.
    assert [buckets[n][1:] for n in (5, 15, 35, 50, 75, 82, 99)] == [
        [4, 0, 4], [3, 2, 5], [1, 0, 1], [0, 0, 0], [1, 0, 1], [2, 0, 2], [0, 0, 0]
    ]  # fmt: skip
    assert shown("Where they stopped for good") == [[20, 2, 0], [85, 1, 0], [95, 1, 0]]
    assert shown("From where to where they jumped") == [[10, 70, 1, 1]]
    midnight = " 00:00:00"
    assert shown("Viewers by day") == [[first + midnight, 4, 4], [second + midnight, 1, 1]]
    by_day = "Time watched and played by day"
    assert shown(by_day) == [[first + midnight, watched, played], [second + midnight, 1, 1]]
    later = grafana.Range(datetime(2024, 3, 2, 15, tzinfo=UTC), MARCH.end)
    assert shown(by_day, later) == [[second + midnight, 1, 1]]


@pytest.mark.slow
def test_operators_see_what_was_loaded_and_what_was_not(loaded: Loaded) -> None:
    """The first object has 20 video statements, the voiding one, another, a blank line and a
    rejected one; the second and the third have a video statement each."""

    def shown(title: str) -> list[list[Any]]:
        return loaded.show(OPERATORS, title, TODAY)

    assert shown("Loaded") == [[3, 26, 22, 2, 1, 1, 0, 0]]
    # In two hours, if the test ran when one ended.
    for title, uploads, bulk in (
        ("Video statements loaded in an hour", 21, 1),
        ("Objects loaded in an hour", 2, 1),
    ):
        hours = shown(title)
        assert [sum(hour[n] for hour in hours) for n in (1, 2)] == [uploads, bulk], title
    assert all(0 <= lag < 60 for hour in shown("From upload to load") for lag in hour[1:])
    rejected = shown("Rejected lines by reason and producer")
    assert [row[1:4] for row in rejected] == [["", 2, 1], [HOME_PAGE, 1, 1]]
    assert rejected[1][5].endswith("section/2001/video/a.jsonl line 24")
    ((unloaded, lines, reason, _),) = shown("Objects with rejected lines that were not loaded")
    assert unloaded.endswith("section/2001/video/d.jsonl")
    assert [lines, reason] == [2, rejected[0][0]]
    # 21 different ones, of which one is voided, and one came twice; 20 were loaded once more.
    assert shown("Each statement once") == [[20, 1, 1, 21]]
    ((source, producer, number, *_),) = shown("Statements without a timestamp of their own")
    assert [source, producer, number] == ["none", "https://example.org", 1]
    # The first two examples have both kinds of stretches: 40 and 30 seconds, by either.
    title = next(title for title in queries(OPERATORS) if title.startswith("Stretches"))
    assert shown(title) == [[HOME_PAGE, "", 2, 70, 70, 0]]
    assert [row[0] for row in shown("Migrations")] == [6, 5, 4, 3, 2, 1]
    assert shown("Migrations")[1][1].startswith("Learners who were forgotten")


@pytest.mark.slow
def test_only_lines_of_which_nothing_became_are_missing(
    clickhouse: ClickHouseServer, watching: Settings
) -> None:
    here = Loaded(clickhouse, watching.clickhouse_database)
    for key, forgotten in (("a", 3), ("b", 2)):
        clickhouse.engine.query(
            f"INSERT INTO {here.database}.processed_files (bucket, key, etag, lines, video, other,"
            " blank, rejected, forgotten, processed_at)"
            f" VALUES ('bundles', '{key}', 'e', 13, 1, 2, 3, 4, {forgotten}, now())"
        )
    assert here.show(OPERATORS, "Loaded", TODAY) == [[2, 26, 2, 4, 6, 8, 5, 1]]


@pytest.mark.slow
def test_the_time_from_upload_to_load_is_from_last_modified_to_the_ledger(
    clickhouse: ClickHouseServer, watching: Settings
) -> None:
    here = Loaded(clickhouse, watching.clickhouse_database)
    midnight = int(datetime(2024, 3, 5, tzinfo=UTC).timestamp())
    ledger, events = f"{here.database}.processed_files", f"{here.database}.video_events"
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
    assert here.show(OPERATORS, "From upload to load") == [["2024-03-05 00:00:00", 60, 91, 91]]


@pytest.mark.slow
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
    assert loaded.show(INSTRUCTORS, "This video", video=SECOND_URL)[0][0] == 1
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
        plan = "\n".join(line for (line,) in loaded.run(f"EXPLAIN indexes = 1 {sql}"))
        assert plan.count(".video_events)") == plan.count("(section_id in [2001, 2001])") == 1, (
            title
        )


# Which column needs which definition of docs/watching.md.
DEFINITIONS = {
    "Average share watched": "Watched",
    "Completions": "Completed",
    "Length": "Length",
    "Plays": "Played",
    "Rewatch": "First watch",
    "Sessions": "Session",
    "Stopped": "Stopped at",
    "Stopped after completing it": "Completed",
    "Time played": "Played",
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
def test_saved_queries_give_the_same_numbers(loaded: Loaded) -> None:
    def answer(name: str, section: str = "'2001'") -> list[list[Any]]:
        # Superset's templates are Jinja's; Metabase reads the same names between the braces.
        template = jinja2.Template(SAVED[f"{name}.sql"], undefined=jinja2.StrictUndefined)
        return loaded.run(template.render(section=section, video=f"'{URL}'"))

    def panel(title: str) -> list[list[Any]]:
        return loaded.show(INSTRUCTORS, title)

    assert answer("section") == [[5, 2, MINUTES(200 / 60), MINUTES(220 / 60), 1]]
    assert answer("section", "'no such'") == [[0, 0, 0, 0, 0]]
    assert answer("videos") == [
        [title, *numbers[:6], first, last, url]
        for title, *numbers, first, last, url in panel("Videos, the most watched first")
    ]
    assert answer("retention") == panel("How many are still there, and what they play again")
    assert answer("dropoff") == [[20, 2, 0], [85, 1, 0], [95, 1, 0]]
    assert answer("seeks") == [[10, 70, 1, 1]]
    assert [row[:3] for row in answer("by_day")] == [["2024-03-01", 4, 4], ["2024-03-02", 1, 1]]
    # Both days are in the week that began on Monday, 26 February.
    assert answer("by_week") == [["2024-02-26", 5, 5]]
    # 40, 30, 45 and 25 of 100 seconds.
    assert [row[1:4] for row in answer("less_than_half")] == [
        [f"viewer-{viewer}", URL, share]
        for viewer, share in ((3, 0.25), (1, 0.3), (0, 0.4), (2, 0.45))
    ]
    assert answer("trust") == [[HOME_PAGE, "", 2, 70, 70, 0]]
    assert [row[1:] for row in answer("loaded_by_day")] == [
        ["bulk", 1, 1, 1, 0, 0, 0, 0],
        ["event", 2, 25, 21, 2, 1, 1, 0],
    ]
    assert [row[1:3] for row in answer("rejected")] == [[3, 2]]


def test_each_saved_query_says_what_it_answers_and_is_in_the_list() -> None:
    page = (FOLDER / "README.md").read_text()
    assert len(SAVED) == 11
    for name, sql in SAVED.items():
        assert re.match(r"-- [A-Z](.*\n-- )*.*\.\n-- Show it as: (.*\n-- )*.*\.\nSELECT", sql), name
        assert set(re.findall(r"\{\{(.*?)\}\}", sql)) <= {"section", "video"}, name
        assert f"[{name}](queries/{name})" in page
