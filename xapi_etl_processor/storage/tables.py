"""Names and columns of tables and views, as the migrations in `schema/` make them."""

from __future__ import annotations

from xapi_etl_processor.storage import notes
from xapi_etl_processor.xapi.columns import COLUMNS

EVENTS = "video_events"
OLD_EVENTS = "video_events_old"
"""The table of version 0.1, with its rows, where it was not dropped yet; while 0002 is applied, the
table that is new until both are exchanged."""
FILES = "processed_files"
REJECTED = "rejected_statements"
VOIDED = "voided_statements"
FORGOTTEN = notes.FORGOTTEN
NOTES = notes.TABLE
SUMMARIES = "section_summaries"
"""Written by `summarize` alone: loading needs no right on it."""
STATEMENTS = "video_statements"
"""The view that people read with."""

SOURCE_FILE = "if(bucket = '', concat('file://', key), concat('s3://', bucket, '/', key))"
"""Of a row of FILES: what `source_file` holds in the other tables."""

TYPES: dict[str, dict[str, str]] = {
    EVENTS: {column.name: column.type for column in COLUMNS},
    FILES: {
        "bucket": "String",
        "key": "String",
        "etag": "String",
        "size": "UInt64",
        "lines": "UInt64",
        "video": "UInt64",
        "other": "UInt64",
        "blank": "UInt64",
        "rejected": "UInt64",
        "forgotten": "UInt64",
        "mode": "LowCardinality(String)",
        "run_id": "String",
        "processed_at": "DateTime64(3, 'UTC')",
    },
    REJECTED: {
        "source_file": "String",
        "source_etag": "String",
        "source_line": "UInt32",
        "reason": "LowCardinality(String)",
        "line": "String",
        "rejected_at": "DateTime64(3, 'UTC')",
    },
    VOIDED: {
        "voided_id": "String",
        "voided_by": "String",
        "voided_at": "DateTime64(3, 'UTC')",
        "source_file": "String",
        "source_etag": "String",
        "source_line": "UInt32",
        "inserted_at": "DateTime64(3, 'UTC')",
    },
    FORGOTTEN: {
        "learner": "String",
        "name": "String",
        "salt": "String",
        "key_id": "String",
        "again": "Bool",
        "forgotten_at": "DateTime64(3, 'UTC')",
    },
    NOTES: {
        "kind": "LowCardinality(String)",
        "subject": "String",
        "value": "String",
        "version": "UInt64",
        "noted_at": "DateTime64(3, 'UTC')",
    },
}
"""Table -> column -> ClickHouse type; the tables that the function writes."""

OUTER_VIEWS = (
    *("viewer_progress", "video_engagement", "video_retention", "video_dropoff", "video_seeks"),
    *("section_daily", "stretch_disagreement", "unread_stretches", "section_videos"),
)
"""The views of `views.sql` that no other is made of. Who can read them can read all."""

VIEWS = (
    STATEMENTS,
    *("statement_stretches", "video_visits", "video_sessions", "video_viewers"),
    *OUTER_VIEWS,
)
"""All views of `views.sql`."""
