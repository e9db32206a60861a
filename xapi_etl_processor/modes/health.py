"""Health check: can the function read the bucket and write the tables?"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from xapi_etl_processor import __version__
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.deadlines import FOREVER, Deadline
from xapi_etl_processor.base.errors import (
    ClickHouseError,
    ClickHouseWaking,
    ConfigurationError,
    S3Error,
)
from xapi_etl_processor.clickhouse_client import WAKE_SECONDS, ClickHouse
from xapi_etl_processor.run import Connections
from xapi_etl_processor.s3 import check as s3_check
from xapi_etl_processor.s3.access import NO_BUCKET
from xapi_etl_processor.storage import checks, notes
from xapi_etl_processor.storage.learners import Learners
from xapi_etl_processor.storage.tables import TYPES

SERVICE_SECONDS = 8
"""How long ClickHouse, once it is awake, and then S3, may take for a health check. Our limit."""

LOCAL = "local"
"""The environment of `make local` and the demo, whose only user has every right, which nothing can
take away."""

_CLICKHOUSE_FIELDS = ("ok", "version", "latency_ms", "schema", "warning", "error")


def check(
    settings: Settings, connections: Connections, deadline: Deadline = FOREVER
) -> dict[str, Any]:
    """The answer's body. Asks each service, writes nothing, and holds no secret."""
    clickhouse = _check_clickhouse(settings, connections.clickhouse, deadline)
    bucket = _check_s3(settings, connections, _service_deadline(deadline))
    return _body(settings.environment, clickhouse, bucket)


def unconfigured(error: ConfigurationError, environment: str) -> dict[str, Any]:
    """The answer's body when the settings are invalid."""
    nothing = {"ok": False, "error": str(error)}
    clickhouse = {**dict.fromkeys(_CLICKHOUSE_FIELDS), **nothing}
    return _body(environment, clickhouse, {**nothing, "bucket": None, "warning": None})


def _body(environment: str, clickhouse: dict[str, Any], bucket: dict[str, Any]) -> dict[str, Any]:
    return {
        "healthy": clickhouse["ok"] and bucket["ok"],
        "processing_mode": "health_check",
        "version": __version__,
        "environment": environment,
        "clickhouse": clickhouse,
        "s3": bucket,
    }


def _service_deadline(deadline: Deadline) -> Deadline:
    # A third of the time is kept for the rest.
    return deadline.within(min(SERVICE_SECONDS, deadline.seconds_left * 2 / 3))


def _check_clickhouse(
    settings: Settings, clickhouse: ClickHouse, deadline: Deadline
) -> dict[str, Any]:
    found: dict[str, Any] = dict.fromkeys(_CLICKHOUSE_FIELDS)
    warnings: list[str | None] = []
    try:
        answering = _wake(clickhouse, deadline)

        def ask(sql: str, params: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
            return clickhouse.query(sql, params, answering)

        started = time.monotonic()
        found["version"] = ask("SELECT version()")[0][0]
        found["latency_ms"] = round((time.monotonic() - started) * 1000, 1)
        found["schema"], found["error"] = checks.schema(ask, clickhouse.database)
        if found["schema"] == "current":
            for table, columns in TYPES.items():
                clickhouse.check_insert(table, columns, answering)
            if settings.environment != LOCAL:
                warnings.append(checks.unneeded_rights(ask, clickhouse.database))
            warnings.append(checks.missing_replicas(ask, clickhouse.database))
            Learners(clickhouse).check(answering)
            warnings.append(_to_put_right(notes.overtaken(clickhouse, answering)))
            warnings.append(checks.unsummarized(ask, clickhouse.database))
            engines = checks.engines(ask, clickhouse.database)
            error, warning = checks.replication(ask, engines, settings.clickhouse_cluster)
            found["error"] = error or checks.cut_results(ask)
            warnings.append(warning)
            warnings.append(
                checks.unreadable_view(ask, clickhouse.database, engines, found["version"])
            )
    except (ClickHouseError, ConfigurationError) as error:
        found["error"] = str(error)
    found["warning"] = "; ".join(filter(None, warnings)) or None
    return {**found, "ok": found["error"] is None}


def _to_put_right(commands: Mapping[str, Any]) -> str | None:
    if not commands:
        return None
    first, *others = commands
    more = f", and {len(others)} more commands (SELECT subject FROM load_notes)" if others else ""
    return (
        "a load stored rows of a learner, an object's version or plain ids while these were being"
        f" forgotten, replaced or made pseudonyms: run `python -m xapi_etl_processor {first}`{more}"
    )


def _wake(clickhouse: ClickHouse, deadline: Deadline) -> Deadline:
    """Connect; returns the deadline for all further questions. A server that sleeps gets
    WAKE_SECONDS, any other SERVICE_SECONDS.
    """
    try:
        clickhouse.query("SELECT 1", deadline=_service_deadline(deadline))
    except ClickHouseWaking:
        seconds = min(WAKE_SECONDS, deadline.seconds_left * 2 / 3)
        clickhouse.query("SELECT 1", deadline=deadline.within(seconds))
    return _service_deadline(deadline)


def _check_s3(settings: Settings, connections: Connections, deadline: Deadline) -> dict[str, Any]:
    error = None
    if not settings.bucket:
        error = NO_BUCKET
    else:
        try:
            s3_check.check_bucket(connections.s3, settings.bucket, settings.prefix, deadline)
        except S3Error as problem:
            error = str(problem)
    warning = None
    if settings.queue_url and not error:
        queue = settings.queue_url.rstrip("/").rpartition("/")[2]
        warning = s3_check.missing_notification(
            connections.s3, settings.bucket, settings.prefix, queue, deadline
        )
    return {
        "ok": error is None,
        "bucket": settings.bucket or None,
        "warning": warning,
        "error": error,
    }
