"""Statements of the Video Profile, and where each value of a row is looked for."""

import re
import time
from typing import Any

import pytest

from tests.support.rows import (
    ABSENT,
    CONCEPTS,
    NOON,
    OLI,
    PLACES,
    SOURCE,
    TYPES,
    VERBS,
    VIDEO,
    JsonObject,
    encoded,
    full,
    minimal,
    row_of,
    rows_of,
    with_values,
)
from tests.xapi.test_producers import PRODUCERS
from xapi_etl_processor.explain.line import explain_line
from xapi_etl_processor.xapi.columns import SENT, STEPS
from xapi_etl_processor.xapi.parse import parse

CMI5 = "https://w3id.org/xapi/cmi5/"
OPENEDX = "https://w3id.org/xapi/openedx/extension/"
TINCAN = "http://id.tincanapi.com/extension/"


def test_the_columns_and_types_match_an_independent_copy() -> None:
    assert {column.name: column.type for column in SENT} == TYPES


def test_what_a_column_needs_is_there_and_needs_no_other_column() -> None:
    needs = {c.name: c.fallback.needs if c.fallback else () for c in (*SENT, *STEPS)}
    assert [needs[name] for names in needs.values() for name in names if needs[name]] == []


# --- The ADL Video Profile ---


def test_a_full_statement_of_the_profile_becomes_its_row() -> None:
    assert row_of(full()) == ABSENT | {column: value for _, value, column in CONCEPTS} | {
        "event_id": "fd41c918-b88b-4b20-a0a5-a4c32391aaa0",
        "timestamp": NOON + 123,
        "timestamp_source": "statement",
        "user_id": "a-1",
        "home_page": "https://lms",
        "section_id": 9,
        "section": "9",
        "course_id": "https://lms/c/5",
        "parent_id": "https://lms/c/5",
        "registration": "ec531277-b57b-4c15-8d91-d292c5b2b8f7",
        "verb": "paused",
        "verb_id": VERBS + "paused",
        "video_url": "https://v/1",
        "video_title": "Méiose",
        "video_play_time": 12.0,
        "completion": True,
        "success": False,
        "duration": "PT1M30S",
        "source_file": "s3://bucket/section/9/video/x.jsonl",
        "source_etag": "etag-1",
        "source_line": 1,
    }


# --- The first usable value ---


def _oli(name: str) -> tuple[str, ...]:
    return ("context", "extensions", OLI + name)


def _anywhere(*iris: str) -> list[tuple[str, ...]]:
    return [(*place, "extensions", iri) for place in PLACES for iri in iris]


# For each column: its paths in order of precedence, then its value if none of them has one.
PATHS: dict[str, tuple[list[tuple[str, ...]], Any]] = {
    "user_id": (
        [("actor", "account", "name"), ("actor", "mbox"), ("actor", "mbox_sha1sum")]
        + [("actor", "openid")],
        "",
    ),
    "home_page": ([("actor", "account", "homePage"), _oli("host_name")], ""),
    "section_id": ([_oli("section_id")], 9),
    "page_id": ([_oli("page_id"), _oli("resource_id")], None),
    "attempt_guid": ([_oli("page_attempt_guid"), _oli("attempt_guid")], ""),
    "attempt_number": ([_oli("page_attempt_number"), _oli("attempt_number")], 0),
    "content_element_id": (
        [("result", "extensions", "content_element_id")]
        + [("result", "extensions", OLI + "content_element_id"), _oli("content_element_id")],
        "",
    ),
    "registration": ([("context", "registration"), ("registration",)], ""),
    "session_id": (
        [("context", "extensions", VIDEO + "session-id")]
        + [("result", "extensions", VIDEO + "session-id")]
        + [("context", "extensions", CMI5 + "context/extensions/sessionid"), _oli("session_id")]
        + [("context", "extensions", "https://player.example/x/session-id")],
        "",
    ),
    "video_play_time": (
        [("result", "extensions", prefix + "video_play_time") for prefix in ("", OLI, VIDEO)],
        None,
    ),
    "cc_enabled": (
        _anywhere(VIDEO + "cc-enabled", VIDEO + "cc-subtitle-enabled"),
        None,
    ),
    "video_time": (
        _anywhere(VIDEO + "time") + _anywhere(TINCAN + "starting-point", TINCAN + "ending-point"),
        None,
    ),
    "video_length": (_anywhere(VIDEO + "length") + _anywhere(TINCAN + "duration"), None),
    "speed": (_anywhere(VIDEO + "speed") + _anywhere(OPENEDX + "speed-to"), None),
    "speed_from": (_anywhere(OPENEDX + "speed-from"), None),
    "platform": ([("context", "platform")], ""),
    "enrollment_id": ([_oli("enrollment_id")], 0),
    "score_scaled": ([("result", "score", "scaled")], None),
}
# Every other extension of the Video Profile may stand in each of the three places.
for _iri, _, _name in CONCEPTS:
    PATHS.setdefault(_name, (_anywhere(_iri), ABSENT[_name]))
# What a test of its own is about.
_TESTED_APART = {"timestamp", "course_id"}


def test_every_place_of_every_value_has_a_test() -> None:
    """A place that only the generated pages know of could be lost, and nobody would notice."""
    read = [(column.name, path) for column in SENT for path in column.paths]
    several = {column.name for column in SENT if len(column.paths) > 1} - _TESTED_APART
    tested = {(name, path) for name, (paths, _) in PATHS.items() for path in paths}
    assert [place for place in read if place[0] in several and place not in tested] == []
    # Rows of these are compared whole, so a single place is tested if they have a value there.
    rows = [row_of(full()), *(known["row"] or {} for known in PRODUCERS.values())]
    seen = {name for row in rows for name, value in row.items() if value != ABSENT[name]}
    elsewhere = several | _TESTED_APART | seen | PATHS.keys()
    assert [name for name, _ in read if name not in elsewhere] == []


@pytest.mark.parametrize("column", PATHS)
def test_the_first_path_with_a_usable_value_counts(column: str) -> None:
    paths, without = PATHS[column]
    # Numbers that are shares too, since above 1 a progress is percent.
    values: list[Any] = [at / 16 for at in range(1, 1 + len(paths))]
    if "Int" in TYPES[column]:
        values = list(range(1, 1 + len(paths)))
    elif "String" in TYPES[column]:
        values = [f"value {at}" for at in values]
    elif "Bool" in TYPES[column]:
        values = [at % 2 == 0 for at in range(1, 1 + len(paths))]
    sent = list(zip(paths, values, strict=True))
    for present_from, expected in enumerate([*values, without]):
        for hidden_by in ("nothing", "", [1]):
            pairs = sent[present_from:]
            if hidden_by != "nothing":
                pairs += [(path, hidden_by) for path in paths[:present_from]]
            if column == "home_page":
                # An account without a name names nobody, and neither does its home page.
                pairs.append((("actor", "account", "name"), "somebody"))
            found = row_of(with_values(minimal(), *pairs))[column]
            assert found == expected, (present_from, hidden_by)


_HOME = {"homePage": "https://lms.example"}
_MEMBER = {"account": _HOME | {"name": "u-1"}, "mbox": "mailto:m@e.org"}


@pytest.mark.parametrize(
    ("actor", "user_id", "home_page"),
    [
        ({"objectType": "Group", "member": [_MEMBER]}, "u-1", "https://lms.example"),
        ({"objectType": "Group", "member": _MEMBER}, "u-1", "https://lms.example"),
        ({"member": [{"openid": "https://o.example/1"}]}, "https://o.example/1", "host"),
        ({"member": [{"mbox_sha1sum": "ab12"}]}, "ab12", "host"),
        ({"mbox": "mailto:team@e.org", "member": [_MEMBER]}, "mailto:team@e.org", "host"),
        ({"member": [_MEMBER, _MEMBER]}, "", "host"),
        ({"member": []}, "", "host"),
        ({"member": [{"name": "M"}]}, "", "host"),
        ({"member": ["M", _MEMBER]}, "u-1", "https://lms.example"),
        ({"member": "M"}, "", "host"),
        ({"name": "M"}, "", "host"),
        # Name and home page come from the same place.
        ({"account": _HOME, "member": [{"mbox": "mailto:m@e.org"}]}, "mailto:m@e.org", "host"),
        ({"account": _HOME, "mbox": "mailto:a@e.org"}, "mailto:a@e.org", "host"),
        ({"member": [{"account": _HOME, "mbox": "mailto:m@e.org"}]}, "mailto:m@e.org", "host"),
        ({"account": _HOME | {"name": "a"}, "mbox": "mailto:a@e.org"}, "a", "https://lms.example"),
        ({"account": _HOME | {"name": 0}}, "0", "https://lms.example"),
    ],
)
def test_a_viewer_has_the_id_and_home_page_of_one_place_and_a_group_its_own_or_its_one_members(
    actor: JsonObject, user_id: str, home_page: str
) -> None:
    found = row_of(minimal(actor=actor, context={"extensions": {OLI + "host_name": "host"}}))
    assert (found["user_id"], found["home_page"]) == (user_id, home_page)


def test_what_only_resembles_a_session_id_is_ignored() -> None:
    for path in (
        ("context", "extensions", "https://player.example/session-identity"),
        ("context", "extensions", "https://player.example/my-session-id"),
        ("context", "session-id"),
        ("result", "extensions", "https://player.example/session-id"),
    ):
        assert row_of(with_values(minimal(), (path, "s")))["session_id"] == "", path


def test_seconds_that_are_sent_come_before_those_of_the_segments() -> None:
    sent = (("result", "extensions", OLI + "video_play_time"), "7.5")
    segments = (("result", "extensions", VIDEO + "played-segments"), "0[.]10")
    assert row_of(with_values(minimal(), sent, segments))["video_play_time"] == 7.5


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ({"de": "Zelle", "en": "Cell", "en-US": "Cell (US)"}, "Cell (US)"),
        ({"de": "Zelle", "fr": "Cellule"}, "Zelle"),
        ({"de": 5, "fr": "Cellule"}, "Cellule"),
        ({"de": "Zelle", "en_AU": "Cell (AU)", "en-GB": "Cell (GB)"}, "Cell (AU)"),
        ({"de": "Zelle", "EN-us": "Cell (US)"}, "Cell (US)"),
        ({"de": "Zelle", "enm": "Celle"}, "Zelle"),
        ({"de": "Zelle", "en-GB": "", "en": None}, "Zelle"),
        ({"en-US": "", "ja": "細胞"}, "細胞"),
        ("Cell", "Cell"),
        (["Cell"], ""),
    ],
)
def test_the_title_is_english_else_the_first_or_a_plain_text(name: Any, title: str) -> None:
    statement = with_values(minimal(), (("object", "definition", "name"), name))
    assert row_of(statement)["video_title"] == title


@pytest.mark.parametrize(
    ("activities", "course"),
    [
        ({"parent": ["P"], "grouping": ["G"]}, "P"),
        ({"parent": ["no course"], "grouping": ["no course", "G"]}, "G"),
        ({"grouping": ["G", "H"]}, "G"),
        ({"parent": "P"}, "P"),
        ({"parent": ["no course"]}, ""),
        ({"parent": ["cmi5"]}, "cmi5"),
    ],
)
def test_the_course_is_a_parent_or_grouping_activity(activities: JsonObject, course: str) -> None:
    kinds = {
        "no course": "http://adlnet.gov/expapi/activities/module",
        "cmi5": CMI5 + "activitytype/course",
    }

    def activity(name: str) -> JsonObject:
        kind = kinds.get(name, "http://adlnet.gov/expapi/activities/course")
        return {"id": name, "definition": {"type": kind}}

    made = {
        place: activity(names) if isinstance(names, str) else [activity(name) for name in names]
        for place, names in activities.items()
    }
    statement = with_values(minimal(), (("context", "contextActivities"), made))
    assert row_of(statement)["course_id"] == course


@pytest.mark.parametrize(
    ("sent", "share"),
    [(0, 0.0), (1, 0.01), (50, 0.5), (100, 1.0), (-1, None), (101, None), ("half", None)],
)
def test_cmi5_sends_progress_in_whole_percent(sent: Any, share: float | None) -> None:
    cmi5 = ("result", "extensions", CMI5 + "result/extensions/progress")
    own = ("result", "extensions", VIDEO + "progress")
    assert row_of(with_values(minimal(), (cmi5, sent)))["video_progress"] == share
    assert row_of(with_values(minimal(), (cmi5, sent), (own, 0.75)))["video_progress"] == 0.75


def test_keys_with_escaped_dots_are_read_as_those_with_dots_and_values_stay() -> None:
    """As Learning Locker exports statements."""
    line = encoded(full())
    escaped = re.sub(rb'"[^"]*"(?=:)', lambda key: key[0].replace(b".", b"&46;"), line)
    assert escaped.count(b"&46;") == 19
    (expected,) = rows_of(parse([line], 1, SOURCE))
    (row,) = rows_of(parse([escaped], 1, SOURCE))
    assert row == expected
    path = ("result", "extensions", CMI5.replace(".", "&46;") + "result/extensions/progress")
    line = encoded(with_values(minimal(), (path, 50)))
    explanation = explain_line(line, 1, SOURCE, len(line))
    assert explanation.cells["video_progress"].value == 0.5
    assert explanation.unused == []
    titled = with_values(minimal(), (("object", "definition", "name"), {"en": "a&46;b"}))
    assert row_of(titled)["video_title"] == "a&46;b"


@pytest.mark.parametrize(
    "value", ["&46;" * 250_000, '\\"&46;' * 100_000], ids=["in a text", "behind quotes"]
)
def test_a_megabyte_of_what_looks_like_dots_takes_no_time(value: str) -> None:
    """Nor if the text is not closed."""
    started = time.process_time()
    whole = b'{"actor": {}, "verb": {"id": "' + value.encode() + b'"}, "object": {"id": "v"}}'
    for line in (whole, whole[:-25]):
        parse([line], 1, SOURCE)
    # It took minutes when each of them was a search to the end of the text.
    assert time.process_time() - started < 2
