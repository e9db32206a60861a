"""The loader as people write it: json.loads for each line, a tuple for each row, one INSERT."""

from __future__ import annotations

import json
import os
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from clickhouse_driver import Client

_ROWS = 20_000
_VIDEO = "https://w3id.org/xapi/video/extensions/"
_OLI = "http://oli.cmu.edu/extensions/"
_COLUMNS = (
    "event_id, timestamp, user_id, home_page, section_id, project_id, publication_id, page_id,"
    " attempt_guid, attempt_number, content_element_id, registration, verb_id, verb, video_url,"
    " video_title, video_time, video_length, video_progress, video_played_segments, source_file,"
    " source_line"
)


def load_file(path: str) -> None:
    """Insert the statements of a file, in batches of the loader's size."""
    with Path(path).open("rb") as file:
        rows = []
        for number, line in enumerate(file, 1):
            rows.append(_row(json.loads(line), path, number))
            if len(rows) == _ROWS:
                _insert(rows)
                rows = []
        if rows:
            _insert(rows)


def _row(statement: dict[str, Any], path: str, number: int) -> tuple[Any, ...]:
    account = statement["actor"].get("account", {})
    context = statement.get("context", {}).get("extensions", {})
    result = statement.get("result", {}).get("extensions", {})
    verb = statement["verb"]["id"]
    activity = statement["object"]
    name = activity.get("definition", {}).get("name", {})
    return (
        statement.get("id", ""),
        datetime.fromisoformat(statement["timestamp"]),
        str(account.get("name", "")),
        account.get("homePage", ""),
        int(context.get(_OLI + "section_id", 0)),
        int(context.get(_OLI + "project_id", 0)),
        int(context.get(_OLI + "publication_id", 0)),
        context.get(_OLI + "resource_id"),
        str(context.get(_OLI + "page_attempt_guid", "")),
        context.get(_OLI + "page_attempt_number", 0),
        str(context.get(_OLI + "content_element_id", "")),
        statement.get("registration", ""),
        verb,
        verb.rpartition("/")[2],
        activity["id"],
        name.get("en-US", ""),
        result.get(_VIDEO + "time"),
        context.get(_VIDEO + "length"),
        result.get(_VIDEO + "progress"),
        result.get(_VIDEO + "played-segments", ""),
        path,
        number,
    )


def _insert(rows: list[tuple[Any, ...]]) -> None:
    database = os.environ.get("CLICKHOUSE_DATABASE", "xapi_analytics")
    _client().execute(f"INSERT INTO {database}.video_events ({_COLUMNS}) VALUES", rows)


@cache
def _client() -> Client:
    return Client(
        os.environ["CLICKHOUSE_HOST"],
        port=int(os.environ["CLICKHOUSE_PORT"]),
        compression="lz4",
        settings={"insert_block_size": _ROWS},
    )
