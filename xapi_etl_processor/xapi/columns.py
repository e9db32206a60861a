"""THE column table: what a video statement becomes, written once. CONTRIBUTING.md says how to add
a column.
"""

from __future__ import annotations

from xapi_etl_processor.xapi import derived
from xapi_etl_processor.xapi.column import Column, Fallback
from xapi_etl_processor.xapi.derived import from_source
from xapi_etl_processor.xapi.identity import STATEMENT_ID
from xapi_etl_processor.xapi.paths import (
    CMI5,
    CONTEXT,
    GROUPING,
    OLI,
    OPENEDX,
    PARENT,
    RESULT,
    TINCAN,
    TITLES,
    VERB_ID,
    VIDEO,
    Path,
    anywhere,
    in_context,
)
from xapi_etl_processor.xapi.quantities import LENGTH, QUALITY, SECONDS, SHARE, SPEED
from xapi_etl_processor.xapi.segments import SEGMENTS
from xapi_etl_processor.xapi.timestamps import INSTANT
from xapi_etl_processor.xapi.values import (
    BOOLEAN,
    COURSE,
    FIRST_ID,
    NUMBER,
    SCORE,
    SECTION,
    TEXT,
    TITLE,
    UINT32,
    UINT64,
    VERB_NAME,
    Kind,
)


def _oli(*names: str) -> tuple[Path, ...]:
    return in_context(OLI, *names)


def _profile(name: str, inner: str, kind: Kind, comment: str, *extensions: str) -> Column:
    """A column that is NULL without any of the Video Profile's extensions."""
    return Column(name, f"Nullable({inner})", comment, kind, anywhere(VIDEO, *extensions))


def _in_result(name: str, inner: str, kind: Kind, comment: str, *path: str) -> Column:
    return Column(name, f"Nullable({inner})", comment, kind, (("result", *(path or (name,))),))


COLUMNS: tuple[Column, ...] = (
    Column(
        "event_id",
        "String",
        "Identity of the statement: its id, a UUID in its canonical form; else a UUID of the line",
        STATEMENT_ID,
        (("id",),),
        Fallback(derived.line_uuids, "a UUID of the line", complete=True),
    ),
    Column(
        "timestamp",
        "DateTime64(3, 'UTC')",
        "When it happened; else stored, the time in the object's key, 1970-01-01",
        fallback=Fallback(
            derived.timestamps,
            "the time in the object's key, else 1970-01-01",
            needs=("stated_at", "stored_at"),
            complete=True,
        ),
    ),
    Column(
        "timestamp_source",
        "LowCardinality(String)",
        "Where timestamp comes from: statement, stored, key, or none",
        fallback=Fallback(
            derived.timestamp_sources,
            "what timestamp was made of",
            needs=("stated_at", "stored_at"),
            complete=True,
        ),
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
        fallback=Fallback(derived.lone_members, "the only member of the group", complete=True),
    ),
    Column(
        "home_page",
        "LowCardinality(String)",
        "Home page of the actor's account, else the OLI host_name",
        paths=(("actor", "account", "homePage"),),
        fallback=Fallback(
            derived.home_pages, "the only member of the group", needs=("host_name",), complete=True
        ),
    ),
    Column(
        "section_id",
        "UInt64",
        "Course section, from the statement, else from the object's key; 0 is none or no number",
        fallback=Fallback(
            derived.section_numbers, "the column section", needs=("section",), complete=True
        ),
    ),
    Column(
        "section",
        "LowCardinality(String)",
        "The same as text, also where it is no number",
        SECTION,
        _oli("section_id"),
        Fallback(derived.key_sections, "the object's key", complete=True),
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
        (PARENT, GROUPING),
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
        paths=(
            (*CONTEXT, VIDEO + "session-id"),
            (*RESULT, VIDEO + "session-id"),
            (*CONTEXT, CMI5 + "context/extensions/sessionid"),
            *_oli("session_id"),
        ),
        fallback=Fallback(
            derived.sessions_of_any_vocabulary, "a context extension whose IRI ends in /session-id"
        ),
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
        (TITLES,),
    ),
    Column(
        "video_time",
        "Nullable(Float64)",
        "Seconds into the video",
        SECONDS,
        (*anywhere(VIDEO, "time"), *anywhere(TINCAN, "starting-point", "ending-point")),
    ),
    Column(
        "video_length",
        "Nullable(Float64)",
        "Seconds that the video lasts",
        LENGTH,
        (*anywhere(VIDEO, "length"), *anywhere(TINCAN, "duration")),
    ),
    Column(
        "video_progress",
        "Nullable(Float64)",
        "Share of the video consumed, 0 to 1",
        SHARE,
        anywhere(VIDEO, "progress"),
        Fallback(derived.cmi5_progress, "cmi5's progress in percent"),
    ),
    Column(
        "video_played_segments",
        "String",
        "Stretches played, from[.]to[,]from[.]to... in seconds",
        SEGMENTS,
        anywhere(VIDEO, "played-segments"),
    ),
    Column(
        "video_play_time",
        "Nullable(Float64)",
        "Seconds played as sent, else the seconds that the stretches cover, each once",
        SECONDS,
        tuple((*RESULT, prefix + "video_play_time") for prefix in ("", OLI, VIDEO)),
        Fallback(
            derived.play_times,
            "the column video_played_segments",
            ("video_played_segments",),
            where="video_played_segments",
        ),
    ),
    Column(
        "video_seek_from",
        "Nullable(Float64)",
        "Seconds: where a seek began",
        SECONDS,
        anywhere(VIDEO, "time-from"),
        Fallback(
            derived.skips, "a skip's start", ("verb", "starting_point"), where="starting_point"
        ),
    ),
    Column(
        "video_seek_to",
        "Nullable(Float64)",
        "Seconds: where a seek ended",
        SECONDS,
        anywhere(VIDEO, "time-to"),
        Fallback(derived.skips, "a skip's end", ("verb", "ending_point"), where="ending_point"),
    ),
    _profile(
        "completion_threshold",
        "Float64",
        NUMBER,
        "Share of the video that counts as completed; NULL means 1 (Video Profile)",
        "completion-threshold",
    ),
    Column(
        "speed",
        "Nullable(Float64)",
        "Playback speed as a factor, such as 1.5",
        SPEED,
        (*anywhere(VIDEO, "speed"), *anywhere(OPENEDX, "speed-to")),
    ),
    Column(
        "speed_from",
        "Nullable(Float64)",
        "Playback speed before it was changed",
        SPEED,
        anywhere(OPENEDX, "speed-from"),
    ),
    _profile("volume", "Float64", NUMBER, "Loudness", "volume"),
    _profile("quality", "Float64", QUALITY, "Lines of resolution, such as 720", "quality"),
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
    _in_result("completion", "Bool", BOOLEAN, "Completed, by the statement's result"),
    _in_result("success", "Bool", BOOLEAN, "Successful, by the statement's result"),
    _in_result(
        "duration", "String", TEXT, "Duration, by the statement's result, as ISO 8601 (PT1M30S)"
    ),
    Column(
        "platform",
        "String",
        "Platform on which it happened, by the context",
        paths=(("context", "platform"),),
    ),
    Column("parent_id", "String", "Id of the first parent activity", FIRST_ID, (PARENT,)),
    Column("enrollment_id", "UInt64", "OLI enrollment; 0 is none", UINT64, _oli("enrollment_id")),
    _in_result(
        "score_scaled",
        "Float64",
        SCORE,
        "Score from -1 to 1, by the statement's result",
        *("score", "scaled"),
    ),
    Column(
        "source_file",
        "String",
        "The object that the statement came in: s3://bucket/key",
        fallback=from_source("file", "the object"),
    ),
    Column(
        "source_etag", "String", "That object's ETag", fallback=from_source("etag", "the object")
    ),
    Column(
        "source_line",
        "UInt32",
        "Line in that object, from 1",
        fallback=Fallback(derived.line_numbers, "the line's number", complete=True),
    ),
    Column(
        "row_version",
        "UInt64",
        "When the object was modified, in ms since 1970; of two rows of one statement, the larger"
        " counts",
        fallback=from_source("modified_ms", "when the object was modified"),
    ),
    Column("inserted_at", "DateTime64(3, 'UTC')", "When the row was inserted", default="now64(3)"),
)

STEPS: tuple[Column, ...] = (
    Column("stated_at", "Nullable(Int64)", "", INSTANT, (("timestamp",),)),
    Column("stored_at", "Nullable(Int64)", "", INSTANT, (("stored",),)),
    Column("host_name", "String", "", paths=_oli("host_name")),
    Column("starting_point", "Nullable(Float64)", "", SECONDS, anywhere(TINCAN, "starting-point")),
    Column("ending_point", "Nullable(Float64)", "", SECONDS, anywhere(TINCAN, "ending-point")),
)
"""What several columns are made of, or another source comes before; never stored."""

SENT: tuple[Column, ...] = tuple(column for column in COLUMNS if not column.default)
"""The columns that an INSERT names."""

ABSENT = {column.name: column.absent for column in (*STEPS, *SENT)}
"""What stands for "absent", by column."""
