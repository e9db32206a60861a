"""Event mode: the objects that were uploaded, and which of their messages failed."""

from __future__ import annotations

import time
from itertools import islice
from typing import Any, NamedTuple

from xapi_etl_processor.common import Outcome, Run, process
from xapi_etl_processor.modes.answer import SHOWN_FAILURES, Summary
from xapi_etl_processor.sources.objects import S3Object
from xapi_etl_processor.sources.payloads import Delivery
from xapi_etl_processor.sources.s3 import NEVER, NOT_OURS
from xapi_etl_processor.telemetry import logger

SHOWN_OBJECTS = 100
"""Objects that an answer names, with what became of each. Ours."""


class EventResult(NamedTuple):
    """The answer's body, the ids of the messages that must come again, and whether none of what
    failed can ever work.
    """

    body: dict[str, Any]
    failed_messages: list[str]
    hopeless: bool


def run_event(delivery: Delivery, run: Run) -> EventResult:
    """Process every object that the delivery names, each once.

    An object that was named by a notification, and is no bundle, is skipped: the notification's
    filter is wider than it need be. One that was named by hand is read whatever its key ends in.
    One that the settings do not allow to be read fails.
    """
    started = time.monotonic()
    named = delivery.objects
    outcomes = {o: _expected(o, delivery.direct, run) for o in named}
    readable = [o for o in named if outcomes[o].status == "waiting"]
    if ignored := [o.uri for o in named if outcomes[o].status == "ignored"]:
        logger.warning("not bundles, not read", extra={"objects": ignored[:SHOWN_FAILURES]})
    # Outcomes come in the order of the objects, but describe them as they were when read.
    for obj, outcome in zip(readable, process(readable, run), strict=False):
        outcomes[obj] = outcome
    summary = Summary()
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
    body = summary.body("event", _section(named), run.dry_run, started)
    body["s3_bucket"] = named[0].bucket if named else None
    body["s3_key"] = named[0].key if named else None
    if len(named) > 1:
        body["files"] = [
            {"s3_bucket": o.bucket, "s3_key": o.key, "status": outcome.status}
            for o, outcome in islice(outcomes.items(), SHOWN_OBJECTS)
        ]
    failures = [outcome for outcome in outcomes.values() if outcome.failed]
    hopeless = bool(failures) and all(outcome.code in NEVER for outcome in failures)
    return EventResult(body, failed, hopeless)


def _expected(obj: S3Object, direct: bool, run: Run) -> Outcome:
    """What becomes of an object if nothing is done about it."""
    if refusal := run.settings.refusal(obj.bucket, obj.key):
        return Outcome(obj, "failed", refusal, NOT_OURS)
    if direct or obj.is_bundle:
        return Outcome(obj, "waiting", "was not begun: those before it failed")
    return Outcome(obj, "ignored")


def _section(objects: list[S3Object]) -> int | None:
    """The section of all the objects, if it is one."""
    sections = {o.section_id for o in objects}
    return sections.pop() if len(sections) == 1 else None
