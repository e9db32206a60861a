"""Handwritten statements, and the rows that lines become, for the tests of the mapping."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

from xapi_etl_processor.xapi.chunk import Source
from xapi_etl_processor.xapi.parse import Parsed, parse
from xapi_etl_processor.xapi.transpose import to_columns

VIDEO = "https://w3id.org/xapi/video/extensions/"
VERBS = "https://w3id.org/xapi/video/verbs/"
VIDEO_TYPE = "https://w3id.org/xapi/video/activity-type/video"
PROFILE = "https://w3id.org/xapi/video"
ADL = "http://adlnet.gov/expapi/verbs/"
OLI = "http://oli.cmu.edu/extensions/"
NOON = (19_723 * 24 + 12) * 3_600_000  # 2024-01-01T12:00:00Z: 19,723 days after 1970
SOURCE = Source("s3://bucket/section/9/video/x.jsonl", "etag-1", "9", 1_700_000_000_000, 0)

# An independent copy of the columns, by type, so that an error in the code's own table is found.
BY_TYPE = {
    "String": "event_id user_id attempt_guid content_element_id course_id registration session_id"
    " video_url video_title video_played_segments platform parent_id source_file source_etag",
    "LowCardinality(String)": "timestamp_source section home_page verb verb_id",
    "DateTime64(3, 'UTC')": "timestamp",
    "UInt64": "section_id project_id publication_id enrollment_id row_version",
    "UInt32": "attempt_number source_line",
    "Nullable(UInt64)": "page_id",
    "Nullable(Float64)": "video_time video_length video_progress video_play_time video_seek_from"
    " video_seek_to completion_threshold speed speed_from volume quality frame_rate score_scaled",
    "Nullable(String)": "cc_language screen_size playback_size track user_agent duration",
    "Nullable(Bool)": "full_screen cc_enabled completion success",
}
TYPES = {name: kind for kind, names in BY_TYPE.items() for name in names.split()}
ABSENT: dict[str, Any] = {
    name: None if "Nullable" in kind else "" if "String" in kind else 0
    for name, kind in TYPES.items()
}

JsonObject = dict[str, Any]


def encoded(statement: Any) -> bytes:
    return json.dumps(statement, ensure_ascii=False).encode()


def rows_of(parsed: Parsed) -> list[JsonObject]:
    if not parsed.chunk.statements:
        return []
    columns = to_columns(parsed.chunk)
    count = parsed.counts.video
    assert {len(values) for values in columns.values()} <= {count}
    return [ABSENT | {name: columns[name][row] for name in columns} for row in range(count)]


def row_of(statement: Any, source: Source = SOURCE) -> JsonObject:
    line = statement if isinstance(statement, bytes) else encoded(statement)
    parsed = parse([line], 1, source)
    assert not parsed.rejected
    (row,) = rows_of(parsed)
    return row


def minimal(**more: Any) -> JsonObject:
    return {"actor": {}, "verb": {"id": VERBS + "played"}, "object": {"id": "v"}} | more


def with_values(statement: JsonObject, *pairs: tuple[tuple[str, ...], Any]) -> JsonObject:
    changed = copy.deepcopy(statement)
    for path, value in pairs:
        node = changed
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = value
    return changed


# Every extension concept of the Video Profile 1.0.3, a value that its schema allows, its column.
CONCEPTS: list[tuple[str, Any, str]] = [
    (VIDEO + "completion-threshold", 0.95, "completion_threshold"),
    (VIDEO + "cc-subtitle-enabled", True, "cc_enabled"),
    (VIDEO + "cc-subtitle-lang", "pt-BR", "cc_language"),
    (VIDEO + "frame-rate", 29.97, "frame_rate"),
    (VIDEO + "full-screen", False, "full_screen"),
    (VIDEO + "length", 600.123, "video_length"),
    (VIDEO + "quality", 720.0, "quality"),
    (VIDEO + "session-id", "7e2d2a40-1f4e-4bd2-9f3c-1c0b8f7f3a10", "session_id"),
    (VIDEO + "screen-size", "1920x1080", "screen_size"),
    (VIDEO + "speed", 1.5, "speed"),
    (VIDEO + "track", "Director's comments", "track"),
    (VIDEO + "user-agent", "Mozilla/5.0 (X11)", "user_agent"),
    (VIDEO + "volume", 0.0, "volume"),
    (VIDEO + "video-playback-size", "640x360", "playback_size"),
    (VIDEO + "played-segments", "0.000[.]12.000", "video_played_segments"),
    (VIDEO + "progress", 0.02, "video_progress"),
    (VIDEO + "time", 12.345, "video_time"),
    (VIDEO + "time-from", 200.0, "video_seek_from"),
    (VIDEO + "time-to", 0.0, "video_seek_to"),
]
PLACES = [("result",), ("context",), ("object", "definition")]


def full() -> JsonObject:
    """A statement with every field that a column is read from, at the first of its paths."""
    course = {
        "id": "https://lms/c/5",
        "definition": {"type": "http://adlnet.gov/expapi/activities/course"},
    }
    return with_values(
        {
            "id": "FD41C918-B88B-4B20-A0A5-A4C32391AAA0",
            "version": "1.0.3",
            "actor": {"mbox": "mailto:a@example.org", "name": "A"}
            | {"account": {"name": "a-1", "homePage": "https://lms"}},
            "verb": {"id": VERBS + "paused", "display": {"de": "pausierte"}},
            "object": {"id": "https://v/1", "definition": {"name": {"fr": "Méiose"}}},
            "timestamp": "2024-01-01T13:00:00.123456+01:00",
            "stored": "2024-01-02T00:00:00Z",
            "result": {"completion": True, "success": False, "duration": "PT1M30S"},
        },
        (("object", "definition", "type"), VIDEO_TYPE),
        (("context", "registration"), "ec531277-b57b-4c15-8d91-d292c5b2b8f7"),
        (("context", "contextActivities"), {"category": [{"id": PROFILE}], "parent": [course]}),
        *((("context", "extensions", iri), value) for iri, value, _ in CONCEPTS[:14]),
        *((("result", "extensions", iri), value) for iri, value, _ in CONCEPTS[14:]),
    )


def paths_of(node: JsonObject, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in node.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from paths_of(value, (*above, key))


FOREIGN_SESSION = b'"context":{"extensions":{"https://player.example/session-id":"s"}}'
MINIMAL = encoded(minimal())


def with_more(more: bytes) -> bytes:
    """The minimal statement's text with more fields, valid or not, at its end."""
    return MINIMAL.removesuffix(b"}") + b"," + more + b"}"
