"""A database as version 0.1 left it: its schema, and rows as it wrote them."""

from __future__ import annotations

import json
from typing import Any

from local.clickhouse_server import ClickHouseServer
from tests.support import former_schema
from xapi_etl_processor.base.config import Settings


def create(settings: Settings) -> None:
    """Create an empty database with the schema of version 0.1."""
    former_schema.create(settings, upto=1)


def row(number: int, **more: Any) -> dict[str, Any]:
    """A row as version 0.1 made it of samples.video(number), in section 2001."""
    return {
        "event_id": f"00000000-0000-4000-8000-{number:012x}",
        "timestamp": "2024-01-01 12:00:00.000",
        "user_id": f"viewer-{number}",
        "home_page": "https://example.org",
        "section_id": 2001,
        "verb": "played",
        "video_url": "https://example.org/video/1",
        "video_time": number / 2,
        "speed": None,
        "source_file": "s3://bucket/section/2001/video/2024-01-01T12-00-00Z_1.jsonl",
        "source_etag": "etag-1",
        "source_line": 1,
        **more,
    }


def insert(clickhouse: ClickHouseServer, database: str, *rows: dict[str, Any]) -> None:
    """Store rows, all of them at the same moment unless they have an `inserted_at`."""
    names = dict.fromkeys(name for found in rows for name in found)
    lines = "\n".join(json.dumps(found) for found in rows)
    clickhouse.engine.query(
        f"INSERT INTO {database}.video_events ({', '.join(names)}) FORMAT JSONEachRow {lines}"
    )


def record(clickhouse: ClickHouseServer, database: str, bucket: str, key: str, etag: str) -> None:
    """Note in the ledger that an object was loaded."""
    clickhouse.engine.query(
        f"INSERT INTO {database}.processed_files (bucket, key, etag, mode, processed_at)"
        f" VALUES ('{bucket}', '{key}', '{etag}', 'event', now64(3) - 3600)"
    )
