"""What explain says of one line: what loading makes of it, and what no column uses."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings

from tests.support.rows import (
    ADL,
    OLI,
    PROFILE,
    SOURCE,
    VIDEO,
    VIDEO_TYPE,
    encoded,
    full,
    minimal,
    rows_of,
    with_more,
    with_values,
)
from tests.support.samples import voiding
from tests.xapi.test_fuzz import LINES
from xapi_etl_processor.explain.line import Explanation, Fate, explain_line
from xapi_etl_processor.xapi.columns import SENT
from xapi_etl_processor.xapi.lines import MAX_LINE_BYTES
from xapi_etl_processor.xapi.parse import parse

RESULT = ("result", "extensions")
CONTEXT = ("context", "extensions")
TINCAN = "http://id.tincanapi.com/extension/"


def explained(statement: Any, number: int = 1) -> Explanation:
    line = statement if isinstance(statement, bytes) else encoded(statement)
    return explain_line(line, number, SOURCE, MAX_LINE_BYTES)


def unused(statement: Any) -> dict[str, str]:
    """Why what is in no column is in none, by the last step of its path."""
    return {one.path[-1]: one.reason for one in explained(statement).unused}


def origins(statement: Any) -> dict[str, str]:
    return {name: cell.origin for name, cell in explained(statement).cells.items()}


def agrees_with_loading(lines: list[bytes]) -> None:
    parsed = parse(lines, 1, SOURCE)
    found = [explained(line, number) for number, line in enumerate(lines, 1)]
    videos = [one for one in found if one.fate is Fate.VIDEO]
    rows = rows_of(parsed)
    assert [one.number for one in videos] == [row["source_line"] for row in rows]
    for one, row in zip(videos, rows, strict=True):
        assert repr({name: cell.value for name, cell in one.cells.items()}) == repr(
            {column.name: row[column.name] for column in SENT}
        )
    assert [(one.number, one.rule) for one in found if one.fate is Fate.REJECTED] == [
        (number, reason) for number, reason, _ in parsed.rejected
    ]
    fates = [sum(one.fate is fate for one in found) for fate in Fate]
    counts = parsed.counts
    assert fates == [counts.video, counts.other, counts.blank, counts.rejected]
    voided = {one.number: one.voided_id for one in parsed.voided}
    assert {one.number: one.voids for one in found if one.voids} == voided


def test_it_agrees_with_loading_about_lines_of_every_kind() -> None:
    statements = [full(), minimal(verb={"id": ADL + "passed"}), minimal(), voiding(1)]
    agrees_with_loading([*map(encoded, statements), b"", b"  \r", b"[]", b"no JSON"])


@pytest.mark.slow
@settings(max_examples=50)
@given(LINES)
@example(with_more(b'"x":"\\ud800"'))
@example(with_more(b'"x":1' + b"0" * 5000))
def test_it_agrees_with_loading_about_any_line(line: bytes) -> None:
    agrees_with_loading([line])


def test_a_full_statement_has_nothing_of_a_column_in_what_is_unused() -> None:
    assert unused(full()) == {
        "version": "no column reads it",
        "name": "no column reads it",
        "display": "no column reads it",
        "mbox": "actor.account.name comes first",
        "stored": "timestamp comes first",
    }
    session = with_values(minimal(), ((*CONTEXT, "https://p.example/session-id"), "s-1"))
    assert explained(session).cells["session_id"].value == "s-1"
    assert unused(session) == {}
    # What decides whether it is a video.
    category = {"contextActivities": {"category": [{"id": PROFILE}]}}
    thing = {"id": "v", "objectType": "Activity", "definition": {"type": VIDEO_TYPE}}
    assert unused(minimal(context=category, object=thing)) == {}


def test_each_value_says_where_it_comes_from() -> None:
    assert (
        origins(minimal()).items()
        >= {
            "event_id": "a UUID of the line",
            "timestamp": "the time in the object's key, else 1970-01-01",
            "section": "the object's key",
            "section_id": "the column section",
            "source_line": "the line's number",
            "video_title": "nothing in the statement",
        }.items()
    )
    host, time = (*CONTEXT, OLI + "host_name"), (*CONTEXT, VIDEO + "time")
    at_noon = {"timestamp": "2024-01-01T12:00:00Z", "stored": "2024-01-02T12:00:00Z"}
    for statement, column, origin in (
        (with_values(minimal(), (time, 3.5)), "video_time", ".".join(time)),
        (with_values(minimal(), (host, "proton.oli.cmu.edu")), "home_page", ".".join(host)),
        (
            with_values(minimal(), ((*RESULT, VIDEO + "played-segments"), "0[.]9")),
            "video_play_time",
            "the column video_played_segments",
        ),
        (minimal(**at_noon), "timestamp", "timestamp"),
        (minimal(**at_noon), "timestamp_source", "what timestamp was made of"),
        (minimal(**at_noon | {"timestamp": "today"}), "timestamp", "stored"),
    ):
        assert origins(statement)[column] == origin, (statement, column)


def test_a_step_is_the_origin_of_a_column_or_unused() -> None:
    start = (*CONTEXT, TINCAN + "starting-point")
    skipped = with_values(minimal(verb={"id": "http://x/skipped"}), (start, "PT2M"))
    skipped["object"] = {"id": "v", "definition": {"type": VIDEO_TYPE}}
    found = explained(skipped)
    assert found.cells["video_seek_from"] == (120.0, ".".join(start))
    assert found.unused == []
    member = {"account": {"name": "a-1", "homePage": "https://lms"}}
    host = (*CONTEXT, OLI + "host_name")
    statement = with_values(minimal(actor={"member": [member]}), (host, "proton.oli.cmu.edu"))
    found = explained(statement)
    assert found.cells["home_page"] == ("https://lms", "the only member of the group")
    assert unused(statement) == {host[-1]: "home_page needs nothing of it"}


def test_the_member_of_a_group_is_used_only_if_the_group_has_no_id() -> None:
    member = {"mbox": "mailto:a@example.org"}
    assert unused(minimal(actor={"objectType": "Group", "member": [member]})) == {
        "objectType": "no column reads it"
    }
    with_id = minimal(actor={"mbox": "mailto:group@example.org", "member": [member]})
    assert unused(with_id) == {"member": "only the one member of a group without an id is read"}


PROGRESS = "it is not a share from 0 to 1, or from 0 to 100 percent"


@pytest.mark.parametrize(
    ("name", "value", "reason", "column"),
    [
        ("quality", "hd", "it is not a number of lines, such as 720 or 720p", "quality"),
        ("progress", 101, PROGRESS, "video_progress"),
        ("length", 0, "it is not a length above 0 seconds", "video_length"),
        ("time", {"s": 1}, "an object cannot stand here", "video_time"),
        ("time", [1], "an array cannot stand here", "video_time"),
        ("speed", "fast", "it is not a speed, such as 1.5 or 1.5x", "speed"),
        ("full-screen", "maybe", "it is not true or false", "full_screen"),
        ("volume", "", "it is empty", ""),
        ("mood", "good", "no column reads it", ""),
    ],
)
def test_a_value_that_is_in_no_column_has_its_reason(
    name: str, value: Any, reason: str, column: str
) -> None:
    path = (*RESULT, VIDEO + name)
    (found,) = explained(with_values(minimal(), (path, value))).unused
    assert found.is_extension
    assert found == (path, value, reason, column)


def test_every_conversion_says_what_it_wants() -> None:
    wanted = {column.kind.wanted for column in SENT if column.paths and column.type != "String"}
    assert "" not in wanted
    assert {
        column.name for column in SENT if column.fallback and not column.fallback.origin
    } == set()


@pytest.mark.parametrize(
    ("statement", "rule"),
    [
        (minimal(), "its verb is one of the Video Profile's"),
        (full(), "the type of its object is a video"),
        (
            minimal(
                verb={"id": ADL + "completed"},
                context={"contextActivities": {"category": [{"id": PROFILE}]}},
            ),
            "a category names the Video Profile",
        ),
        (
            with_values(minimal(verb={"id": ADL + "experienced"}), ((*RESULT, VIDEO + "time"), 1)),
            "its verb is experienced, and it has an extension of the Video Profile",
        ),
        (
            minimal(object={"id": "v", "objectType": "Agent"}),
            "its object is a person, a group or a statement",
        ),
        (
            minimal(object={"id": "v", "definition": {"type": "https://x/Audio"}}),
            "the type of its object is audio",
        ),
        (
            minimal(context={"contextActivities": {"category": [{"id": PROFILE[:-5] + "audio"}]}}),
            "a category names the Audio Profile",
        ),
    ],
)
def test_the_rule_that_decided_is_named(statement: Any, rule: str) -> None:
    assert explained(statement).rule == rule
