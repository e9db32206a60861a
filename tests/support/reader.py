"""Queries of an independent reader: which statements are there, and how often."""

from __future__ import annotations

import json
from typing import Any

from local.clickhouse_server import ClickHouseServer
from tests.support.samples import event_id

IDS = "SELECT event_id FROM video_events FINAL ORDER BY event_id"
ROWS = "SELECT count() FROM video_events"
"""Counts every stored row, also the repeats that FINAL hides."""
FORGET = "TRUNCATE TABLE processed_files"


def ids(numbers: range) -> list[list[str]]:
    """What IDS returns if the video statements with these numbers are there, once each."""
    return [[event_id(n)] for n in numbers]


def answers(server: ClickHouseServer, database: str, sql: str) -> list[list[Any]]:
    """The rows of a query in a database, from the engine itself."""
    server.engine.query(f"USE {database}")
    answer = server.engine.query(sql, "JSONCompactEachRow").bytes().decode()
    return [json.loads(line) for line in answer.splitlines()]
