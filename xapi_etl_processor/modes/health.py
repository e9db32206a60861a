"""Health check: can the function read the bucket, write the tables, and deduplicate?"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from xapi_etl_processor import __version__
from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.clickhouse_errors import MIGRATE
from xapi_etl_processor.config import Settings
from xapi_etl_processor.deadlines import FOREVER, Deadline
from xapi_etl_processor.errors import (
    ClickHouseError,
    ClickHouseRefused,
    ConfigurationError,
    S3Error,
)
from xapi_etl_processor.run import Connections
from xapi_etl_processor.sources import s3
from xapi_etl_processor.sources.access import NO_BUCKET
from xapi_etl_processor.storage.tables import EVENTS, TYPES, VIEWS

SERVICE_SECONDS = 8
"""How long ClickHouse, and then S3, may take to answer a health check. Our limit."""

UNNEEDED_RIGHTS = ("DROP TABLE", "TRUNCATE", "ALTER DELETE", "ALTER UPDATE", "ALTER COLUMN")
"""Rights that the function never uses, and that could destroy what is stored."""

_Ask = Callable[..., list[tuple[Any, ...]]]
_PLAIN_WINDOW = "non_replicated_deduplication_window"


def check(
    settings: Settings, connections: Connections, deadline: Deadline = FOREVER
) -> dict[str, Any]:
    """The answer's body. Asks each service, writes nothing, and holds no secret."""
    clickhouse = _check_clickhouse(connections.clickhouse, _service_deadline(deadline))
    bucket = _check_s3(settings, connections, _service_deadline(deadline))
    return {
        "healthy": clickhouse["ok"] and bucket["ok"],
        "processing_mode": "health_check",
        "version": __version__,
        "environment": settings.environment,
        "clickhouse": clickhouse,
        "s3": bucket,
    }


def unconfigured(error: ConfigurationError, environment: str) -> dict[str, Any]:
    """The answer's body when the settings are invalid."""
    nothing = {"ok": False, "error": str(error)}
    return {
        "healthy": False,
        "processing_mode": "health_check",
        "version": __version__,
        "environment": environment,
        "clickhouse": {
            **nothing,
            "version": None,
            "latency_ms": None,
            "schema": None,
            "deduplication": None,
            "warning": None,
        },
        "s3": {**nothing, "bucket": None},
    }


def _service_deadline(deadline: Deadline) -> Deadline:
    """The deadline of the next service; a third of the time is kept for the rest."""
    return deadline.within(min(SERVICE_SECONDS, deadline.seconds_left * 2 / 3))


def _check_clickhouse(clickhouse: ClickHouse, deadline: Deadline) -> dict[str, Any]:
    found: dict[str, Any] = {
        "ok": False,
        "version": None,
        "latency_ms": None,
        "schema": None,
        "deduplication": None,
        "warning": None,
        "error": None,
    }

    def ask(sql: str, params: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        return clickhouse.query(sql, params, deadline)

    try:
        ask("SELECT 1")
        started = time.monotonic()
        found["version"] = ask("SELECT version()")[0][0]
        found["latency_ms"] = round((time.monotonic() - started) * 1000, 1)
        found["schema"], found["error"] = _schema(ask, clickhouse.database)
        if found["schema"] == "current":
            found["deduplication"], found["error"] = _deduplication(ask, clickhouse.database)
            for table, columns in TYPES.items():
                clickhouse.check_insert(table, columns, deadline)
            found["warning"] = _unneeded_rights(ask, clickhouse.database)
    except (ClickHouseError, ConfigurationError) as error:
        found["error"] = str(error)
    found["ok"] = found["error"] is None
    return found


def _schema(ask: _Ask, database: str) -> tuple[str, str | None]:
    """One of "current", "missing" and "behind", by comparing columns; and what is wrong."""
    rows = ask(
        "SELECT table, name, type FROM system.columns WHERE database = %(database)s",
        {"database": database},
    )
    found: dict[str, dict[str, str]] = {}
    for table, name, kind in rows:
        found.setdefault(table, {})[name] = kind
    needed = TYPES | VIEWS
    missing = [table for table in needed if table not in found]
    if missing:
        status = "missing" if EVENTS in missing else "behind"
        what = f"{database} lacks {', '.join(missing)}, or its user may not see it"
        return status, f"{what}: {MIGRATE}, and grant what docs/operations.md lists"
    differing = [
        f"{table}.{name} is {found[table].get(name, 'not there')}, not {kind}"
        for table, columns in needed.items()
        for name, kind in columns.items()
        if found[table].get(name) != kind
    ]
    if differing:
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        return "behind", f"{'; '.join(differing[:3])}{more}: {MIGRATE}"
    return "current", None


def _deduplication(ask: _Ask, database: str) -> tuple[str, str | None]:
    """The deduplication window, as the server reports it; and what is wrong."""
    knows_token = ask(
        "SELECT count() FROM system.settings WHERE name = 'insert_deduplication_token'"
    )[0][0]
    if not knows_token:
        return "none", "this ClickHouse has no insert_deduplication_token: use 22.2 or later"
    rows = ask(
        "SELECT name, engine_full FROM system.tables"
        " WHERE database = %(database)s AND name IN %(names)s",
        {"database": database, "names": tuple(TYPES)},
    )
    windows = [_window(engine) for _, engine in rows]
    if len(rows) < len(TYPES) or not all(windows):
        without = [name for name, engine in rows if not _window(engine)]
        return "none", f"{', '.join(without)} has no deduplication window: {MIGRATE}"
    return f"window of {min(windows)} inserts", None


def _unneeded_rights(ask: _Ask, database: str) -> str | None:
    """A warning about rights that could destroy data; None from servers that cannot be asked."""

    def has(right: str) -> bool:
        return any(ask(f"CHECK GRANT {right} ON {database}.{table}") == [(1,)] for table in TYPES)

    try:
        unneeded = [right for right in UNNEEDED_RIGHTS if has(right)]
    except ClickHouseRefused:  # Older servers do not know CHECK GRANT.
        return None
    if not unneeded:
        return None
    return (
        f"the user has rights it does not need: {', '.join(unneeded)}; GRANT SELECT, INSERT is"
        " enough"
    )


def _window(engine: str) -> int:
    """How many inserts a table remembers; Replicated and Shared tables have a default."""
    replicated = engine.startswith(("Replicated", "Shared"))
    setting = "replicated_deduplication_window" if replicated else _PLAIN_WINDOW
    found = re.search(rf"\b{setting}\s*=\s*([0-9]+)", engine)
    if found:
        return int(found[1])
    return 10_000 if replicated else 0


def _check_s3(settings: Settings, connections: Connections, deadline: Deadline) -> dict[str, Any]:
    error = None
    if not settings.bucket:
        error = NO_BUCKET
    else:
        try:
            s3.check_bucket(connections.s3, settings.bucket, settings.prefix, deadline)
        except S3Error as problem:
            error = str(problem)
    return {"ok": error is None, "bucket": settings.bucket or None, "error": error}
