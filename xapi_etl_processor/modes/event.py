"""Event mode: the objects that were uploaded, and which of their messages failed."""

from __future__ import annotations

from contextlib import closing
from itertools import islice
from typing import Any, NamedTuple

from xapi_etl_processor.common import process
from xapi_etl_processor.errors import S3NotAllowed
from xapi_etl_processor.modes.answer import SHOWN_FAILURES, Summary
from xapi_etl_processor.run import Outcome, Run, Status
from xapi_etl_processor.sources.access import check_allowed
from xapi_etl_processor.sources.objects import S3Object
from xapi_etl_processor.sources.payloads import Delivery
from xapi_etl_processor.telemetry import logger

SHOWN_OBJECTS = 100
"""Objects that an answer names, with what became of each. Our limit."""


class EventResult(NamedTuple):
    """The answer's body, the ids of the messages that must be delivered again, and whether
    something failed and no retry can help any of it.
    """

    body: dict[str, Any]
    failed_messages: list[str]
    not_retryable: bool


def run_event(delivery: Delivery, run: Run) -> EventResult:
    """Process every object that the delivery names, each once.

    An object that a notification names and that is no bundle is skipped: a notification's filter
    may be wider than ours. One that a person names is read whatever its key ends in. One that the
    settings do not allow to be read fails.
    """
    summary = Summary()
    named = delivery.objects
    outcomes = {o: _expected(o, delivery.direct, run) for o in named}
    readable = [o for o in named if outcomes[o].status is Status.WAITING]
    if ignored := [o.uri for o in named if outcomes[o].status is Status.IGNORED]:
        logger.warning("ignored, not bundles", extra={"objects": ignored[:SHOWN_FAILURES]})
    with closing(process(readable, run)) as processed:
        # Outcomes come in the order of the objects, but hold them as they were when read.
        for obj, outcome in zip(readable, processed, strict=False):
            outcomes[obj] = outcome
    for outcome in outcomes.values():
        summary.add(outcome)
    failed = [
        message.id
        for message in delivery.messages
        if message.error or any(outcomes[o].failed for o in message.objects)
    ]
    for message in delivery.messages:
        if message.error:
            summary.fail(f"message {message.id}".strip(), message.error)
    body = summary.body(_section(named), run)
    body["s3_bucket"] = named[0].bucket if named else None
    body["s3_key"] = named[0].key if named else None
    if len(named) > 1:
        body["files"] = [
            {"s3_bucket": o.bucket, "s3_key": o.key, "status": outcome.status}
            for o, outcome in islice(outcomes.items(), SHOWN_OBJECTS)
        ]
    failures = [outcome for outcome in outcomes.values() if outcome.failed]
    not_retryable = bool(failures) and all(outcome.bad_request for outcome in failures)
    return EventResult(body, failed, not_retryable)


def _expected(obj: S3Object, direct: bool, run: Run) -> Outcome:
    """What becomes of an object that processing does not reach."""
    try:
        check_allowed(run.settings, obj.bucket, obj.key)
    except S3NotAllowed as error:
        return Outcome(obj, Status.FAILED, str(error), bad_request=True)
    if direct or obj.is_bundle:
        return Outcome(obj, Status.WAITING, "not begun, because processing stopped before it")
    return Outcome(obj, Status.IGNORED)


def _section(objects: list[S3Object]) -> int | str | None:
    """The section of all the objects, if they have one in common."""
    sections = {o.section_id for o in objects}
    return sections.pop() if len(sections) == 1 else None
