"""THE column table: what a video statement becomes, written once.

From it come the decoder's structs, the INSERT's column list and the data dictionary in
docs/tables.md, and the migrated table is compared with it. CONTRIBUTING.md says how to add a
column.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from xapi_etl_processor.xapi import derived
from xapi_etl_processor.xapi.derived import Fallback, from_source
from xapi_etl_processor.xapi.timestamps import INSTANT
from xapi_etl_processor.xapi.values import (
    BOOLEAN,
    COURSE,
    FIRST_ID,
    LOWER_TEXT,
    NUMBER,
    SECTION,
    SPEED,
    TEXT,
    TITLE,
    UINT32,
    UINT64,
    VERB_NAME,
    Activity,
    Kind,
)

Path = tuple[str, ...]
"""The JSON keys that lead from the statement to a value."""

VIDEO = "https://w3id.org/xapi/video/extensions/"
OLI = "http://oli.cmu.edu/extensions/"

RESULT: Path = ("result", "extensions")
CONTEXT: Path = ("context", "extensions")
DEFINITION: Path = ("object", "definition", "extensions")
ACTIVITIES: Path = ("context", "contextActivities")

VERB_ID: Path = ("verb", "id")
OBJECT_TYPE: Path = ("object", "definition", "type")
CATEGORY: Path = (*ACTIVITIES, "category")
TITLE_MAP: Path = ("object", "definition", "name")

Activities = tuple[Activity, ...] | None
LanguageMap = dict[str, str] | None

LEAF_TYPES: dict[Path, Any] = {
    VERB_ID: str,
    TITLE_MAP: LanguageMap,
    CATEGORY: Activities,
    (*ACTIVITIES, "parent"): Activities,
    (*ACTIVITIES, "grouping"): Activities,
}
"""The types at the ends of paths that are not scalars."""


class Column(NamedTuple):
    """One column: the paths at which its value is looked for, in order, and what it becomes.

    A column with a `default` is filled by ClickHouse and never sent.
    """

    name: str
    type: str
    comment: str
    kind: Kind = TEXT
    paths: tuple[Path, ...] = ()
    fallback: Fallback | None = None
    default: str = ""

    @property
    def absent(self) -> Any:
        """What stands for "absent": NULL, or the type's own zero."""
        if self.type.startswith("Nullable"):
            return None
        return "" if "String" in self.type else 0


def _oli(*names: str) -> tuple[Path, ...]:
    return tuple((*CONTEXT, OLI + name) for name in names)


def _video(*names: str) -> tuple[Path, ...]:
    """The paths of Video Profile extensions: in the result, the context, or the object."""
    places = (RESULT, CONTEXT, DEFINITION)
    return tuple((*place, VIDEO + name) for place in places for name in names)


def _profile(name: str, inner: str, kind: Kind, comment: str, *extensions: str) -> Column:
    return Column(name, f"Nullable({inner})", comment, kind, _video(*extensions))


COLUMNS: tuple[Column, ...] = (
    Column(
        "event_id",
        "String",
        "Identity of the statement: its id, a UUID in its canonical form; else a UUID of the line",
        LOWER_TEXT,
        (("id",),),
        Fallback(derived.line_uuids),
    ),
    Column(
        "timestamp",
        "DateTime64(3, 'UTC')",
        "When it happened; else stored, the time in the object's key, 1970-01-01",
        fallback=Fallback(derived.timestamps, needs=("stated_at", "stored_at")),
    ),
    Column(
        "timestamp_source",
        "LowCardinality(String)",
        "Where timestamp comes from: statement, stored, key, or none",
        fallback=Fallback(derived.timestamp_sources, needs=("stated_at", "stored_at")),
    ),
    Column(
        "user_id",
        "String",
        "Who: account name, mbox, mbox_sha1sum or openid of the actor",
        paths=(
            ("actor", "account", "name"),
            ("actor", "mbox"),
            ("actor", "mbox_sha1sum"),
            ("actor", "openid"),
        ),
    ),
    Column(
        "home_page",
        "LowCardinality(String)",
        "Home page of the actor's account, else the OLI host_name",
        paths=(("actor", "account", "homePage"), *_oli("host_name")),
    ),
    Column(
        "section_id",
        "UInt64",
        "Course section, from the statement, else from the object's key; 0 is none or no number",
        fallback=Fallback(derived.section_numbers, needs=("section",)),
    ),
    Column(
        "section",
        "LowCardinality(String)",
        "The same as text, also where it is no number",
        SECTION,
        _oli("section_id"),
        Fallback(derived.key_sections),
    ),
    Column("project_id", "UInt64", "OLI project; 0 is none", UINT64, _oli("project_id")),
    Column(
        "publication_id", "UInt64", "OLI publication; 0 is none", UINT64, _oli("publication_id")
    ),
    Column(
        "page_id",
        "Nullable(UInt64)",
        "OLI page that holds the video",
        UINT64,
        _oli("page_id", "resource_id"),
    ),
    Column(
        "attempt_guid",
        "String",
        "OLI attempt at the page",
        paths=_oli("page_attempt_guid", "attempt_guid"),
    ),
    Column(
        "attempt_number",
        "UInt32",
        "Number of that attempt, from 1; 0 is none",
        UINT32,
        _oli("page_attempt_number", "attempt_number"),
    ),
    Column(
        "content_element_id",
        "String",
        "Element of the page that holds the video",
        paths=(
            (*RESULT, "content_element_id"),
            (*RESULT, OLI + "content_element_id"),
            *_oli("content_element_id"),
        ),
    ),
    Column(
        "course_id",
        "String",
        "Id of the parent or grouping activity that is a course",
        COURSE,
        ((*ACTIVITIES, "parent"), (*ACTIVITIES, "grouping")),
    ),
    Column(
        "registration",
        "String",
        "Registration, in the context or (OLI) at the top",
        paths=(("context", "registration"), ("registration",)),
    ),
    Column(
        "session_id",
        "String",
        "Session of the player, or of the platform",
        paths=((*CONTEXT, VIDEO + "session-id"), *_oli("session_id")),
        fallback=Fallback(derived.sessions_of_any_vocabulary),
    ),
    Column(
        "verb",
        "LowCardinality(String)",
        "Last segment of the verb's IRI: played, paused, seeked, completed, ...",
        VERB_NAME,
        (VERB_ID,),
    ),
    Column("verb_id", "LowCardinality(String)", "The verb's IRI, exactly", paths=(VERB_ID,)),
    Column("video_url", "String", "Id of the object: the video's IRI", paths=(("object", "id"),)),
    Column(
        "video_title",
        "String",
        "Name of the video: en-US, en, any en-*, else the first",
        TITLE,
        (TITLE_MAP,),
    ),
    _profile("video_time", "Float64", NUMBER, "Seconds into the video", "time"),
    _profile("video_length", "Float64", NUMBER, "Seconds that the video lasts", "length"),
    _profile(
        "video_progress", "Float64", NUMBER, "Share of the video consumed, 0 to 1", "progress"
    ),
    Column(
        "video_played_segments",
        "String",
        "Stretches played, from[.]to[,]from[.]to... in seconds",
        paths=_video("played-segments"),
    ),
    Column(
        "video_play_time",
        "Nullable(Float64)",
        "Seconds played as sent, else the seconds that the stretches cover, each once",
        NUMBER,
        tuple((*RESULT, prefix + "video_play_time") for prefix in ("", OLI, VIDEO)),
        Fallback(derived.play_times, needs=("video_played_segments",)),
    ),
    _profile("video_seek_from", "Float64", NUMBER, "Seconds: where a seek began", "time-from"),
    _profile("video_seek_to", "Float64", NUMBER, "Seconds: where a seek ended", "time-to"),
    _profile(
        "completion_threshold",
        "Float64",
        NUMBER,
        "Share of the video that counts as completed; NULL means 1 (Video Profile)",
        "completion-threshold",
    ),
    _profile("speed", "Float64", SPEED, "Playback speed as a factor, such as 1.5", "speed"),
    _profile("speed_from", "Float64", SPEED, "Playback speed before it was changed"),
    _profile("volume", "Float64", NUMBER, "Loudness", "volume"),
    _profile("quality", "Float64", NUMBER, "Lines of resolution, such as 720", "quality"),
    _profile("full_screen", "Bool", BOOLEAN, "Played in full screen", "full-screen"),
    _profile(
        "cc_enabled",
        "Bool",
        BOOLEAN,
        "Captions shown",
        # The profile's concepts use the second name; its templates, and players, the first.
        "cc-enabled",
        "cc-subtitle-enabled",
    ),
    _profile("cc_language", "String", TEXT, "Language of the captions", "cc-subtitle-lang"),
    _profile("screen_size", "String", TEXT, "Screen, width x height", "screen-size"),
    _profile("playback_size", "String", TEXT, "Player, width x height", "video-playback-size"),
    _profile("frame_rate", "Float64", NUMBER, "Frames per second", "frame-rate"),
    _profile("track", "String", TEXT, "Audio track", "track"),
    _profile("user_agent", "String", TEXT, "The browser, in its own words", "user-agent"),
    Column(
        "completion",
        "Nullable(Bool)",
        "Completed, by the statement's result",
        BOOLEAN,
        (("result", "completion"),),
    ),
    Column(
        "success",
        "Nullable(Bool)",
        "Successful, by the statement's result",
        BOOLEAN,
        (("result", "success"),),
    ),
    Column(
        "duration",
        "Nullable(String)",
        "Duration, by the statement's result, as ISO 8601 (PT1M30S)",
        paths=(("result", "duration"),),
    ),
    Column(
        "platform",
        "String",
        "Platform on which it happened, by the context",
        paths=(("context", "platform"),),
    ),
    Column(
        "parent_id",
        "String",
        "Id of the first parent activity",
        FIRST_ID,
        ((*ACTIVITIES, "parent"),),
    ),
    Column("enrollment_id", "UInt64", "OLI enrollment; 0 is none", UINT64, _oli("enrollment_id")),
    Column(
        "score_scaled",
        "Nullable(Float64)",
        "Score from -1 to 1, by the statement's result",
        NUMBER,
        (("result", "score", "scaled"),),
    ),
    Column(
        "source_file",
        "String",
        "The object that the statement came in: s3://bucket/key",
        fallback=from_source("file"),
    ),
    Column("source_etag", "String", "That object's ETag", fallback=from_source("etag")),
    Column(
        "source_line",
        "UInt32",
        "Line in that object, from 1",
        fallback=Fallback(derived.line_numbers),
    ),
    Column(
        "row_version",
        "UInt64",
        "When the object was modified, in ms since 1970; of two rows of one statement, the larger"
        " counts",
        fallback=from_source("modified_ms"),
    ),
    Column(
        "inserted_at",
        "DateTime64(3, 'UTC')",
        "When the row was inserted",
        default="now64(3)",
    ),
)

STEPS: tuple[Column, ...] = (
    Column("stated_at", "Nullable(Int64)", "", INSTANT, (("timestamp",),)),
    Column("stored_at", "Nullable(Int64)", "", INSTANT, (("stored",),)),
)
"""What several columns are made of; never stored."""

SENT: tuple[Column, ...] = tuple(column for column in COLUMNS if not column.default)
"""The columns that an INSERT names."""

ABSENT = {column.name: column.absent for column in (*STEPS, *SENT)}
"""What stands for "absent", by column."""
