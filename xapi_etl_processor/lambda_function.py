"""handler(event, context): which mode, which objects, what answer."""

from __future__ import annotations

import gc
import json
import os
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from xapi_etl_processor.clickhouse_client import ClickHouseError
from xapi_etl_processor.common import Run, connections
from xapi_etl_processor.config import LOG_LEVELS, ConfigurationError, Settings
from xapi_etl_processor.deadlines import FOREVER
from xapi_etl_processor.modes import bulk, health
from xapi_etl_processor.modes.answer import SHOWN_CHARACTERS
from xapi_etl_processor.modes.bulk import BadRequest, NothingDone, flag
from xapi_etl_processor.modes.event import run_event
from xapi_etl_processor.sources.payloads import UnknownPayload, read
from xapi_etl_processor.sources.s3 import NEVER, S3Error
from xapi_etl_processor.telemetry import defect, emit, logger, shown

ACCEPTED = (
    'health check {"health_check": true}; bulk {"mode": "bulk"} with any of '
    + ", ".join(bulk.PARAMETERS)
    + '; event {"bucket": ..., "key": ...}, or an S3 notification, bare or by SQS, SNS or'
    " EventBridge"
)

_DIRECT = {"bucket", "key", "mode", "dry_run", "force_reprocess"}
_OURS = (ClickHouseError, ConfigurationError, NothingDone, S3Error)

# What the imports made stays for the life of the process: the collector need not walk it again.
gc.freeze()


class EventFailed(Exception):
    """Objects of an event were not processed: Lambda delivers it again, then dead-letters it."""


class Defect(Exception):
    """Something that this code does not expect; the text says of what kind, and in which lines."""


def handler(event: Any, context: Any = None) -> dict[str, Any]:
    """Answer a health check, a bulk request or an S3 event.

    Answers {"statusCode", "body"}, or {"batchItemFailures"} for an SQS batch; 400 for what can
    never work. Raises EventFailed, NothingDone, S3Error, ClickHouseError, ConfigurationError or
    Defect where delivering the same event again can help, or must end in the dead-letter queue.
    """
    mode = mode_of(event)
    environment = os.environ.get("ENVIRONMENT") or Settings.environment
    _begin_log(mode, environment, context)
    try:
        reply = _MODES[mode](event, context)
    except Exception as error:  # noqa: BLE001  # it is raised, by a name that may be logged
        # Another's text, and that of what an error of ours came from, may hold what must not be
        # logged; and Lambda logs what is raised.
        named = error if isinstance(error, _OURS) else Defect(defect(error))
        logger.error(f"{mode} failed", extra={"error": str(named)})
        emit({}, mode, environment, success=False)
        raise named from None
    logger.append_keys(section_id=reply.body.get("section_id"))
    log = logger.info if reply.success else logger.error
    summary = {name: value for name, value in reply.body.items() if name != "files"}
    log(f"{mode} ended", extra={"summary": summary})
    emit(reply.body, mode, environment, reply.success)
    if reply.error:
        raise reply.error
    return reply.answer


class _Reply(NamedTuple):
    """What is answered, or raised instead, and what is logged and measured."""

    answer: dict[str, Any]
    body: dict[str, Any]
    success: bool
    error: Exception | None = None


def mode_of(event: Any) -> str:
    """One of "health_check", "bulk" and "event"; what is none of them is a bad event."""
    if not isinstance(event, Mapping):
        return "event"
    if event.get("health_check") is True:
        return "health_check"
    if event.get("mode") == "bulk":
        return "bulk"
    names_object = "key" in event or "Records" in event or "detail" in event
    if not names_object and any(name in event for name in bulk.PARAMETERS):
        return "bulk"
    return "event"


def _health(_event: Any, context: Any) -> _Reply:
    try:
        settings = Settings.from_env(os.environ)
        body = health.check(settings, connections(settings), _deadline(context))
    except ConfigurationError as error:
        body = health.unconfigured(error, os.environ.get("ENVIRONMENT") or Settings.environment)
    return _response(200 if body["healthy"] else 503, body, success=body["healthy"])


def _bulk(event: Any, context: Any) -> _Reply:
    settings = Settings.from_env(os.environ)
    try:
        request = bulk.read_request(event, settings)
        run = _run("bulk", settings, context, request.force, request.dry_run)
        body = bulk.run_bulk(request, run)
    except BadRequest as error:
        return _bad_request("bulk", error)
    except S3Error as error:
        if error.code in NEVER:
            return _bad_request("bulk", error)
        raise
    return _response(200, body, success=body["success"])


def _objects(event: Any, context: Any) -> _Reply:
    try:
        delivery = read(event)
        if delivery.direct:
            _check_direct(event)
        dry_run, force = flag(event, "dry_run"), flag(event, "force_reprocess")
    except (UnknownPayload, BadRequest) as error:
        return _bad_request("event", f"{error}. Accepted: {ACCEPTED}")
    settings = Settings.from_env(os.environ)
    run = _run("event", settings, context, force, dry_run)
    body, failed, hopeless = run_event(delivery, run)
    if delivery.from_sqs:
        items = [{"itemIdentifier": name} for name in failed]
        return _Reply({"batchItemFailures": items}, body, not failed)
    if delivery.direct and hopeless:
        return _bad_request("event", body["failures"][0]["error"])
    failure = EventFailed(
        f"{body['files_failed']} of {body['files_found']} objects failed: "
        + "; ".join(failure["error"] for failure in body["failures"])
    )
    return _response(200, body, success=not failed, error=failure if failed else None)


_MODES = {"health_check": _health, "bulk": _bulk, "event": _objects}


def _run(mode: str, settings: Settings, context: Any, force: bool, dry_run: bool) -> Run:
    return Run(
        settings,
        connections(settings),
        mode,
        force=force,
        dry_run=dry_run,
        deadline=_deadline(context),
    )


def _deadline(context: Any) -> float:
    """When Lambda ends the invocation, in time.monotonic()'s seconds."""
    if context is None:
        return FOREVER
    return time.monotonic() + float(context.get_remaining_time_in_millis()) / 1000


def _check_direct(event: Mapping[str, Any]) -> None:
    """Raises BadRequest for a misspelt parameter: a dry run that writes would be the price."""
    if unknown := sorted(map(repr, event.keys() - _DIRECT)):
        raise BadRequest(f"unknown parameters {', '.join(unknown)}")
    if event.get("mode", "event") != "event":
        raise BadRequest(f"mode is {shown(event['mode'])}: with a bucket and a key it is event")


def _bad_request(mode: str, error: object) -> _Reply:
    # What was sent is in it, and may be megabytes.
    body = {"success": False, "processing_mode": mode, "error": str(error)[:SHOWN_CHARACTERS]}
    return _response(400, body, success=False)


def _response(
    status: int, body: dict[str, Any], *, success: bool, error: Exception | None = None
) -> _Reply:
    answer = {"statusCode": status, "body": json.dumps(body)}
    return _Reply(answer, body, success, error)


def _begin_log(mode: str, environment: str, context: Any) -> None:
    level = os.environ.get("LOG_LEVEL", "").strip().upper()
    # A wrong one is the settings' to refuse, and is to be logged.
    logger.setLevel(level if level in LOG_LEVELS else "INFO")
    logger.clear_state()
    logger.append_keys(
        processing_mode=mode,
        environment=environment,
        request_id=getattr(context, "aws_request_id", None),
    )
