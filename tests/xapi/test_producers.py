"""Statements in the shape of many players and platforms, and what becomes of each.

Made by hand: names, ids and videos are invented.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.rows import (
    ABSENT,
    ADL,
    NOON,
    OLI,
    PROFILE,
    VERBS,
    VIDEO,
    VIDEO_TYPE,
    encoded,
    rows_of,
)
from xapi_etl_processor.xapi.chunk import Source
from xapi_etl_processor.xapi.parse import parse

JsonObject = dict[str, Any]

ID = "0b0c0d0e-1111-4222-8333-444455556666"
SESSION = "5d2f4a64-9f0e-4f6e-8c1d-0a6f2c9b7e11"
TINCAN = "http://id.tincanapi.com/extension/"
STREAMS = "http://activitystrea.ms/schema/1.0/"
COURSE = {
    "id": "https://lms.example/course/7",
    "definition": {"type": "http://adlnet.gov/expapi/activities/course"},
}
CMI5_COURSE = {
    "id": "https://lms.example/CR001",
    "definition": {"type": "https://w3id.org/xapi/cmi5/activitytype/course"},
}
SOURCE = Source("s3://bucket/section/7/video/x.jsonl", "etag", "7", NOON + 1, 0)


def statement(verb: str, kind: str | None, title: Any = None, **more: Any) -> JsonObject:
    """A statement with the fields that nearly every producer sends."""
    definition = {"type": kind, "name": title}
    return {
        "id": ID,
        "actor": {"mbox": "mailto:viewer@example.org", "objectType": "Agent"},
        "verb": {"id": verb},
        "object": {
            "id": "https://v.example/1",
            "objectType": "Activity",
            "definition": {name: value for name, value in definition.items() if value is not None},
        },
        "timestamp": "2024-01-01T12:00:00.000Z",
        "version": "1.0.3",
    } | more


def context(*activities: str, **more: Any) -> JsonObject:
    """A context with these categories."""
    return {"contextActivities": {"category": [{"id": name} for name in activities]}} | more


def profile(**values: Any) -> JsonObject:
    """Extensions of the Video Profile."""
    return {VIDEO + name.replace("_", "-"): value for name, value in values.items()}


def row(verb: str, **columns: Any) -> JsonObject:
    """The row that a statement becomes, with what nearly all have."""
    return (
        ABSENT
        | {
            "event_id": ID,
            "timestamp": NOON,
            "timestamp_source": "statement",
            "user_id": "mailto:viewer@example.org",
            "section_id": 7,
            "section": "7",
            "verb": verb.rstrip("/").rpartition("/")[2],
            "verb_id": verb,
            "video_url": "https://v.example/1",
            "source_file": SOURCE.file,
            "source_etag": SOURCE.etag,
            "source_line": 1,
        }
        | columns
    )


VIDEOS: dict[str, tuple[JsonObject, JsonObject]] = {
    "Open edX, speed changed": (
        statement(
            ADL + "interacted",
            VIDEO_TYPE,
            timestamp="2024-01-01T12:00:00.000000+00:00",
            actor={"account": {"homePage": "https://lms.example", "name": "u-1"}},
            result={
                "extensions": {
                    "https://w3id.org/xapi/openedx/extension/speed-from": "1.0x",
                    "https://w3id.org/xapi/openedx/extension/speed-to": "1.25x",
                }
            },
            context={
                "contextActivities": {"parent": [COURSE]},
                "extensions": {
                    "https://w3id.org/xapi/openedx/extensions/session-id": SESSION,
                    VIDEO + "length": 195.0,
                },
            },
        ),
        row(
            ADL + "interacted",
            user_id="u-1",
            home_page="https://lms.example",
            course_id=COURSE["id"],
            parent_id=COURSE["id"],
            session_id=SESSION,
            video_length=195.0,
            speed=1.25,
            speed_from=1.0,
        ),
    ),
    "Video.js, everything as text": (
        statement(
            ADL + "initialized",
            VIDEO_TYPE,
            {"en-US": "Reefs"},
            context=context(
                PROFILE,
                registration=SESSION,
                extensions=profile(
                    completion_threshold="1.0",
                    length=46.613333,
                    quality="960x400",
                    speed="1x",
                    frame_rate="23.98",
                    cc_enabled=False,
                    volume=1,
                    cc_subtitle_lang="",
                    full_screen=False,
                    session_id=SESSION,
                    screen_size="2560x1440",
                    video_playback_size="640x264",
                ),
            ),
        ),
        row(
            ADL + "initialized",
            video_title="Reefs",
            registration=SESSION,
            session_id=SESSION,
            completion_threshold=1.0,
            video_length=46.613333,
            quality=400.0,
            speed=1.0,
            frame_rate=23.98,
            cc_enabled=False,
            volume=1.0,
            full_screen=False,
            screen_size="2560x1440",
            playback_size="640x264",
        ),
    ),
    "Tin Can's video recipe, watched": (
        statement(
            STREAMS + "watch",
            None,
            object={
                "id": "https://v.example/1",
                "definition": {
                    "type": STREAMS + "video",
                    "extensions": {TINCAN + "duration": "PT6M"},
                },
            },
            context={
                "contextActivities": {"grouping": COURSE},
                "extensions": {TINCAN + "starting-point": "PT2M"},
            },
        ),
        row(
            STREAMS + "watch",
            course_id=COURSE["id"],
            video_time=120.0,
            video_length=360.0,
        ),
    ),
    "An LRS that stores milliseconds, and a portal with the cross-experience type": (
        statement(
            "https://w3id.org/xapi/acrossx/verbs/watched",
            "https://w3id.org/xapi/acrossx/activities/video",
            {"ar-SA": "مقدمة", "en-US": "Introduction"},
            timestamp="1704110400000",
            context={
                "platform": "MGMT-003",
                "contextActivities": {"parent": [CMI5_COURSE]},
            },
            result={"completion": True, "duration": "PT00H10M22S"},
        ),
        row(
            "https://w3id.org/xapi/acrossx/verbs/watched",
            video_title="Introduction",
            course_id="https://lms.example/CR001",
            parent_id="https://lms.example/CR001",
            platform="MGMT-003",
            completion=True,
            duration="PT00H10M22S",
        ),
    ),
    "A cmi5 player: the profile among its categories, and a score": (
        statement(
            ADL + "completed",
            "http://adlnet.gov/expapi/activities/lesson",
            context=context(
                "https://w3id.org/xapi/cmi5/context/categories/cmi5",
                PROFILE + "/v1.0.3",
                registration=SESSION,
            ),
            result={"score": {"scaled": 0.9}, "success": True, "extensions": profile(time="PT46S")},
        ),
        row(
            ADL + "completed",
            registration=SESSION,
            score_scaled=0.9,
            success=True,
            video_time=46.0,
        ),
    ),
}

OTHERS: dict[str, JsonObject] = {
    "H5P, an interactive video's question": statement(
        ADL + "answered",
        "http://adlnet.gov/expapi/activities/cmi.interaction",
        context=context(
            "http://h5p.org/libraries/H5P.InteractiveVideo-1.22",
            extensions={TINCAN + "ending-point": "PT21S"},
        ),
    ),
    "ADL's Audio Profile, with the video verbs": statement(
        VERBS + "played",
        "https://w3id.org/xapi/audio/activity-type/audio",
        context=context("https://w3id.org/xapi/audio"),
        result={"extensions": profile(time=3)},
    ),
    "A voided statement": statement(
        ADL + "voided", None, object={"objectType": "StatementRef", "id": SESSION}
    ),
}


def parsed(sent: JsonObject) -> tuple[str, list[JsonObject]]:
    found = parse([encoded(sent)], 1, SOURCE)
    kinds = ("video", "other", "blank", "rejected")
    (kind,) = (name for name in kinds if getattr(found.counts, name))
    return kind, rows_of(found)


@pytest.mark.parametrize("producer", VIDEOS)
def test_a_producers_video_statement_becomes_its_row(producer: str) -> None:
    sent, expected = VIDEOS[producer]
    assert parsed(sent) == ("video", [expected])


@pytest.mark.parametrize("producer", OTHERS)
def test_a_producers_other_statement_is_counted_and_not_stored(producer: str) -> None:
    assert parsed(OTHERS[producer]) == ("other", [])


# --- Groups ---

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
    sent = statement(
        VERBS + "played", None, actor=actor, context={"extensions": {OLI + "host_name": "host"}}
    )
    kind, (found,) = parsed(sent)
    assert (kind, found["user_id"], found["home_page"]) == ("video", user_id, home_page)
