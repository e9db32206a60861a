"""The yardstick: ClickHouse's own importer, which reads the same bytes by itself.

It fills the main columns of a table that drops rows, so that only reading, decoding and converting
are counted. Of two ways to say it in SQL, each use has the cheaper: one large file is read into
typed tuples, and many small objects into texts, of which JSONExtract takes the parts.
"""

from __future__ import annotations

import time

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


class Importer:
    """A ClickHouse engine in this process, with the table; its processor time when it idles."""

    def __init__(self) -> None:
        from chdb.state.sqlitelike import Connection

        self._engine = Connection(":memory:")
        columns = ", ".join(f"`{column.name}` {column.type}" for column in COLUMNS)
        self._engine.query(f"CREATE TABLE video_events ({columns}) ENGINE = Null")
        time.sleep(_IDLE_SECONDS)
        used = time.process_time()
        time.sleep(_IDLE_SECONDS)
        self._idle = (time.process_time() - used) / _IDLE_SECONDS

    def load_file(self, path: str) -> dict[str, float]:
        """Import a file on one thread; seconds, and seconds of processor above an idle engine."""
        columns = {
            name: ".".join(f"`{part}`" for part in place) for name, (_, *place) in _PARTS.items()
        }
        source = f"file('{path}', JSONEachRow, '{_STRUCTURE}')"
        return self._load(source, columns, _TYPED | _ONE_THREAD)

    def load_s3(self, url: str, threads: int = 0) -> dict[str, float]:
        """Import objects on that many threads; or, for 0, on one thread or on as many as the engine
        likes, whichever takes less of the processor.
        """
        columns = {
            name: f"JSONExtract({root}, {', '.join(map(repr, path))}, '{kind}')"
            for name, (kind, root, *path) in _PARTS.items()
        }
        source = f"s3('{url}', 'local', 'local', 'JSONEachRow', '{_TEXTS}')"
        tries: list[dict[str, int]] = [{"max_threads": threads}] if threads else [_ONE_THREAD, {}]
        runs = [self._load(source, columns, _AS_TEXT | settings) for settings in tries]
        return min(runs, key=lambda run: run["cpu"])

    def _load(
        self, source: str, parts: dict[str, str], settings: dict[str, int]
    ) -> dict[str, float]:
        columns = parts | _WHOLE
        sql = (
            f"INSERT INTO video_events ({', '.join(columns)})"
            f" SELECT {', '.join(f'{sql} AS {name}_' for name, sql in columns.items())}"
            f" FROM (SELECT * EXCEPT timestamp, timestamp AS sent, _path FROM {source})"
            f" SETTINGS {', '.join(f'{name} = {value}' for name, value in settings.items())}"
        )
        started, used = time.perf_counter(), time.process_time()
        self._engine.query(sql)
        seconds = time.perf_counter() - started
        return {"wall": seconds, "cpu": time.process_time() - used - self._idle * seconds}
