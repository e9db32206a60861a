"""handler(event, context): which mode, which objects, what answer."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.deadlines import FOREVER, Deadline
from xapi_etl_processor.base.errors import (
    BadRequest,
    ConfigurationError,
    Defect,
    EventFailed,
    XapiEtlError,
)
from xapi_etl_processor.base.telemetry import describe_defect, emit, logger, set_log_level, shown
from xapi_etl_processor.bulk.request import PARAMETERS, flag, read_request
from xapi_etl_processor.modes import health, redelivery
from xapi_etl_processor.modes.answer import SHOWN_CHARACTERS
from xapi_etl_processor.modes.event import run_event
from xapi_etl_processor.queues.payloads import LOAD_FLAGS, Delivery, parse_payload
from xapi_etl_processor.run import Run, Wanted, connections

ACCEPTED = (
    'health check {"health_check": true}; bulk {"mode": "bulk"} with any of '
    + ", ".join(PARAMETERS)
    + '; {"mode": "summarize"}; event {"bucket": ..., "key": ...}, or an S3 notification, bare or'
    " by SQS, SNS or EventBridge"
)

_DIRECT = {"bucket", "key", "mode", *LOAD_FLAGS}

# Imported objects live as long as the process; the garbage collector need not visit them again.
gc.freeze()


def handler(event: Any, context: Any = None) -> dict[str, Any]:
    """Answer a health check, a bulk request or an S3 event: {"statusCode", "body"}, or
    {"batchItemFailures"} for an SQS batch; the status is 400 for a request that can never work.
    Raises an XapiEtlError if the same event should be delivered again, or become a dead letter.
    """
    mode = mode_of(event)
    environment = os.environ.get("ENVIRONMENT") or Settings.environment
    _begin_log(mode, environment, context)
    try:
        reply = _MODES[mode](event, context)
    except Exception as error:  # noqa: BLE001  # raised again below
        # Lambda logs what is raised. The text of a foreign exception, or of the cause of ours, may
        # hold personal data or a secret, so neither is passed on.
        raised = error if isinstance(error, XapiEtlError) else Defect(describe_defect(error))
        logger.error(f"{mode} failed", extra={"error": str(raised)})
        emit({}, mode, environment, success=False)
        raise raised from None
    logger.append_keys(section_id=reply.body.get("section_id"))
    log = logger.info if reply.success else logger.error
    summary = {name: value for name, value in reply.body.items() if name != "files"}
    log(f"{mode} ended", extra={"summary": summary})
    emit(reply.body, mode, environment, reply.success)
    if reply.error:
        raise reply.error
    return reply.answer


class _Reply(NamedTuple):
    """The answer, or the error to raise instead, and what is logged and measured."""

    answer: dict[str, Any]
    body: dict[str, Any]
    success: bool
    error: Exception | None = None


def mode_of(event: Any) -> str:
    """One of "health_check", "bulk", "summarize" and "event"; an unknown payload is an event."""
    if not isinstance(event, Mapping):
        return "event"
    if event.get("health_check") is True:
        return "health_check"
    if event.get("mode") in ("bulk", "summarize"):
        return str(event["mode"])
    names_object = "key" in event or "Records" in event or "detail" in event
    if not names_object and any(name in event for name in PARAMETERS):
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
    # Imported here, since it takes a tenth of a cold start, and uploads do not need it.
    from xapi_etl_processor.modes.bulk import run_bulk
    from xapi_etl_processor.modes.verify import run_verify

    settings = Settings.from_env(os.environ)
    try:
        request = read_request(event, settings)
        run = Run(settings, connections(settings), "bulk", request.wanted, _deadline(context))
        body = run_verify(request, run) if request.verify else run_bulk(request, run)
    except BadRequest as error:
        return _bad_request("bulk", error)
    return _response(200, body, success=body["success"])


def _summarize(event: Any, context: Any) -> _Reply:
    from xapi_etl_processor.modes.summarize import read_summary_request, run_summarize

    settings = Settings.from_env(os.environ)
    run = Run(settings, connections(settings), "summarize", deadline=_deadline(context))
    try:
        body = run_summarize(read_summary_request(event), run)
    except BadRequest as error:
        return _bad_request("summarize", error)
    # Nobody sends the token of a scheduled run, so what is left must show in the metric.
    return _response(200, body, success=body["success"] and body["complete"])


def _event(event: Any, context: Any) -> _Reply:
    try:
        delivery = parse_payload(event)
        if delivery.direct:
            _check_direct(event)
        wanted = Wanted(*(flag(name, event.get(name)) for name in LOAD_FLAGS))
        settings = Settings.from_env(os.environ)
        end = deadline = _deadline(context)
        if delivery.from_sqs:
            deadline = end.earlier(redelivery.RESERVE_SECONDS, share=1 / 6)
        run = Run(settings, connections(settings), "event", wanted, deadline)
    except BadRequest as error:
        return _bad_request("event", f"{error}. Accepted: {ACCEPTED}")
    body, failed, bad_request = run_event(delivery, run, end)
    if delivery.from_sqs:
        items = [{"itemIdentifier": name} for name in failed]
        return _Reply({"batchItemFailures": items}, body, success=body["success"])
    if delivery.direct and bad_request:
        return _bad_request("event", body["failures"][0]["error"])
    failure = EventFailed(_what_failed(delivery, body)) if failed else None
    return _response(200, body, success=not failed, error=failure)


def _what_failed(delivery: Delivery, body: Mapping[str, Any]) -> str:
    """One sentence for the log and the dead letter: how much failed, and why."""
    parts = []
    if body["files_failed"]:
        parts.append(f"{body['files_failed']} of {body['files_found']} objects failed")
    if any(message.error for message in delivery.messages):
        parts.append("records of the event name no S3 object")
    return f"{' and '.join(parts)}: " + "; ".join(f["error"] for f in body["failures"])


_MODES = {"health_check": _health, "bulk": _bulk, "summarize": _summarize, "event": _event}


def _deadline(context: Any) -> Deadline:
    """When Lambda ends the invocation; the clock is Lambda's own countdown, which ends at 0."""
    if context is None:
        return FOREVER
    return Deadline(0.0, lambda: -float(context.get_remaining_time_in_millis()) / 1000)


def _check_direct(event: Mapping[str, Any]) -> None:
    """Raises BadRequest for a misspelt parameter: a misspelt dry_run would otherwise write."""
    if unknown := sorted(map(repr, event.keys() - _DIRECT)):
        raise BadRequest(f"unknown parameters {', '.join(unknown)}")
    if event.get("mode", "event") != "event":
        raise BadRequest(f"mode is {shown(event['mode'])}: with a bucket and a key it is event")


def _bad_request(mode: str, error: object) -> _Reply:
    # The error may repeat what was sent, which may be megabytes.
    body = {"success": False, "processing_mode": mode, "error": str(error)[:SHOWN_CHARACTERS]}
    return _response(400, body, success=False)


def _response(
    status: int, body: dict[str, Any], *, success: bool, error: Exception | None = None
) -> _Reply:
    answer = {"statusCode": status, "body": json.dumps(body)}
    return _Reply(answer, body, success, error)


def _begin_log(mode: str, environment: str, context: Any) -> None:
    set_log_level(os.environ, default="INFO")
    logger.clear_state()
    logger.append_keys(
        processing_mode=mode,
        environment=environment,
        request_id=getattr(context, "aws_request_id", None),
    )
