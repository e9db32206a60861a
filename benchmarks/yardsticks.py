"""What the loader is measured beside: ClickHouse's own importer, boto3, and a loader as most
people write it first.

The importer fills the main columns of a table that drops rows, so that only reading, decoding and
converting are counted. Of two ways to say it in SQL, each use has the cheaper: one large file is
read into typed tuples, and many small objects into texts, of which JSONExtract takes the parts.
"""

from __future__ import annotations

import json
import os
import time
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from clickhouse_driver import Client

from benchmarks.rounds import timed
from xapi_etl_processor.xapi.columns import COLUMNS

_VIDEO = "https://w3id.org/xapi/video/extensions/"
_OLI = "http://oli.cmu.edu/extensions/"
_IDLE_SECONDS = 0.5
_STRUCTURE = f"""
    id String, registration String, timestamp String,
    actor Tuple(account Tuple(name String, homePage String)),
    verb Tuple(id String),
    object Tuple(id String, definition Tuple(name Tuple(`en-US` String))),
    result Tuple(extensions Tuple(
        `{_VIDEO}time` Nullable(Float64), `{_VIDEO}progress` Nullable(Float64),
        `{_VIDEO}played-segments` String)),
    context Tuple(extensions Tuple(
        `{_OLI}section_id` UInt64, `{_OLI}project_id` UInt64, `{_OLI}publication_id` UInt64,
        `{_OLI}resource_id` Nullable(UInt64), `{_OLI}page_attempt_guid` String,
        `{_OLI}page_attempt_number` UInt32, `{_OLI}content_element_id` String,
        `{_VIDEO}length` Nullable(Float64)))
"""
_TEXTS = """
    id String, registration String, timestamp String, actor String, verb String, object String,
    result String, context String
"""
_PARTS = {
    "user_id": ("String", "actor", "account", "name"),
    "home_page": ("String", "actor", "account", "homePage"),
    "section_id": ("UInt64", "context", "extensions", f"{_OLI}section_id"),
    "project_id": ("UInt64", "context", "extensions", f"{_OLI}project_id"),
    "publication_id": ("UInt64", "context", "extensions", f"{_OLI}publication_id"),
    "page_id": ("Nullable(UInt64)", "context", "extensions", f"{_OLI}resource_id"),
    "attempt_guid": ("String", "context", "extensions", f"{_OLI}page_attempt_guid"),
    "attempt_number": ("UInt32", "context", "extensions", f"{_OLI}page_attempt_number"),
    "content_element_id": ("String", "context", "extensions", f"{_OLI}content_element_id"),
    "verb_id": ("String", "verb", "id"),
    "video_url": ("String", "object", "id"),
    "video_title": ("String", "object", "definition", "name", "en-US"),
    "video_time": ("Nullable(Float64)", "result", "extensions", f"{_VIDEO}time"),
    "video_length": ("Nullable(Float64)", "context", "extensions", f"{_VIDEO}length"),
    "video_progress": ("Nullable(Float64)", "result", "extensions", f"{_VIDEO}progress"),
    "video_played_segments": ("String", "result", "extensions", f"{_VIDEO}played-segments"),
}
"""The type and place of what stands in a part of a statement."""

_WHOLE = {
    "event_id": "if(id != '', lower(id), toString(generateUUIDv4()))",
    "timestamp": "parseDateTime64BestEffort(sent, 3, 'UTC')",
    "registration": "registration",
    "verb": "splitByChar('/', verb_id_)[-1]",
    "source_file": "_path",
    "source_line": "toUInt32(rowNumberInAllBlocks())",
}
_TYPED = {
    "input_format_skip_unknown_fields": 1,
    "input_format_json_ignore_unknown_keys_in_named_tuple": 1,
    "input_format_json_defaults_for_missing_elements_in_named_tuple": 1,
    "input_format_json_read_numbers_as_strings": 1,
}
_AS_TEXT = {
    "input_format_skip_unknown_fields": 1,
    "input_format_json_read_objects_as_strings": 1,
}
_ONE_THREAD = {
    "max_threads": 1,
    "max_insert_threads": 1,
    "max_parsing_threads": 1,
    "input_format_parallel_parsing": 0,
}
_ROWS = 20_000
"""Rows of an INSERT of the plain loader."""


def import_file(path: str) -> dict[str, float]:
    """ClickHouse imports a file on one thread."""
    columns = {
        name: ".".join(f"`{part}`" for part in place) for name, (_, *place) in _PARTS.items()
    }
    return _import(f"file('{path}', JSONEachRow, '{_STRUCTURE}')", columns, _TYPED | _ONE_THREAD)


def import_s3(url: str, threads: int = 0) -> dict[str, float]:
    """ClickHouse imports objects on that many threads; or, for 0, on one thread or on as many as it
    likes, whichever takes less of the processor.
    """
    columns = {
        name: f"JSONExtract({root}, {', '.join(map(repr, path))}, '{kind}')"
        for name, (kind, root, *path) in _PARTS.items()
    }
    source = f"s3('{url}', 'local', 'local', 'JSONEachRow', '{_TEXTS}')"
    tries: list[dict[str, int]] = [{"max_threads": threads}] if threads else [_ONE_THREAD, {}]
    runs = [_import(source, columns, _AS_TEXT | settings) for settings in tries]
    return min(runs, key=lambda run: run["cpu"])


def _import(source: str, parts: dict[str, str], settings: dict[str, int]) -> dict[str, float]:
    """Seconds, and seconds of processor above those of an idle engine."""
    engine, idle = _engine()
    columns = parts | _WHOLE
    sql = (
        f"INSERT INTO video_events ({', '.join(columns)})"
        f" SELECT {', '.join(f'{sql} AS {name}_' for name, sql in columns.items())}"
        f" FROM (SELECT * EXCEPT timestamp, timestamp AS sent, _path FROM {source})"
        f" SETTINGS {', '.join(f'{name} = {value}' for name, value in settings.items())}"
    )
    took = timed(lambda: engine.query(sql))
    return took | {"cpu": took["cpu"] - idle * took["wall"]}


@cache
def _engine() -> tuple[Any, float]:
    """An engine in this process with the table, and the processors that it uses while idle."""
    from chdb.state.sqlitelike import Connection

    engine = Connection(":memory:")
    columns = ", ".join(f"`{column.name}` {column.type}" for column in COLUMNS)
    engine.query(f"CREATE TABLE video_events ({columns}) ENGINE = Null")
    time.sleep(_IDLE_SECONDS)
    return engine, timed(lambda: time.sleep(_IDLE_SECONDS))["cpu"] / _IDLE_SECONDS


def get_objects(bucket: str, keys: list[str]) -> dict[str, float]:
    """Boto3 gets each object, one after the other, and nothing is done with it."""
    client = _boto3_client()
    return timed(lambda: [client.get_object(Bucket=bucket, Key=k)["Body"].read() for k in keys])


@cache
def _boto3_client() -> Any:
    import boto3

    return boto3.client("s3")


def plain_loader(path: str) -> dict[str, float]:
    """The loader as people write it: json.loads for each line, a tuple for each row, one INSERT."""

    def load() -> None:
        with Path(path).open("rb") as file:
            rows = []
            for number, line in enumerate(file, 1):
                rows.append(_row(json.loads(line), path, number))
                if len(rows) == _ROWS:
                    _insert(rows)
                    rows = []
            if rows:
                _insert(rows)

    return timed(load)


def _row(statement: dict[str, Any], path: str, number: int) -> tuple[Any, ...]:
    account = statement["actor"].get("account", {})
    context = statement.get("context", {}).get("extensions", {})
    result = statement.get("result", {}).get("extensions", {})
    verb = statement["verb"]["id"]
    activity = statement["object"]
    name = activity.get("definition", {}).get("name", {})
    return (
        str(account.get("name", "")),
        account.get("homePage", ""),
        int(context.get(_OLI + "section_id", 0)),
        int(context.get(_OLI + "project_id", 0)),
        int(context.get(_OLI + "publication_id", 0)),
        context.get(_OLI + "resource_id"),
        str(context.get(_OLI + "page_attempt_guid", "")),
        context.get(_OLI + "page_attempt_number", 0),
        str(context.get(_OLI + "content_element_id", "")),
        verb,
        activity["id"],
        name.get("en-US", ""),
        result.get(_VIDEO + "time"),
        context.get(_VIDEO + "length"),
        result.get(_VIDEO + "progress"),
        result.get(_VIDEO + "played-segments", ""),
        statement.get("id", ""),
        datetime.fromisoformat(statement["timestamp"]),
        statement.get("registration", ""),
        verb.rpartition("/")[2],
        path,
        number,
    )


def _insert(rows: list[tuple[Any, ...]]) -> None:
    database = os.environ.get("CLICKHOUSE_DATABASE", "xapi_analytics")
    columns = ", ".join([*_PARTS, *_WHOLE])
    _client().execute(f"INSERT INTO {database}.video_events ({columns}) VALUES", rows)


@cache
def _client() -> Client:
    return Client(
        os.environ["CLICKHOUSE_HOST"],
        port=int(os.environ["CLICKHOUSE_PORT"]),
        compression="lz4",
        settings={"insert_block_size": _ROWS},
    )
