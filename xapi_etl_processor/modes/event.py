"""Event mode: the objects that were uploaded, and which of their messages failed."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from itertools import islice
from typing import Any

from xapi_etl_processor.base.deadlines import FOREVER, Deadline
from xapi_etl_processor.base.errors import S3NotAllowed
from xapi_etl_processor.base.telemetry import logger
from xapi_etl_processor.common import examine, load
from xapi_etl_processor.modes import redelivery
from xapi_etl_processor.modes.answer import SHOWN_FAILURES, Summary
from xapi_etl_processor.outcome import Outcome, Status, StopReason
from xapi_etl_processor.queues.payloads import Delivery, Message
from xapi_etl_processor.run import Run, Wanted
from xapi_etl_processor.s3.access import check_object_allowed
from xapi_etl_processor.s3.objects import S3Object

SHOWN_OBJECTS = 100
"""Objects that an answer names, with what became of each. Our limit."""


def run_event(
    delivery: Delivery, run: Run, end: Deadline = FOREVER
) -> tuple[dict[str, Any], list[str], bool]:
    """Process every object that the delivery names, each once; then, by `end`, tell SQS what is to
    become of the messages that failed. What a notification names and is no bundle is ignored.

    Returns the answer's body, the ids of the messages that must be delivered again, and whether an
    object is named that can never be read.
    """
    summary = Summary()
    outcomes = _outcomes(delivery, run)
    for outcome in outcomes.values():
        summary.add(outcome)
    for message in delivery.messages:
        if message.error:
            summary.fail(f"message {message.id}".strip(), message.error)
    failed = [one for m in delivery.messages if (one := _failure(m, outcomes))]
    dead = redelivery.settle(failed, run, end)
    again = [one.message.id for one in failed if one.message.id not in dead]
    bad_request = any(outcome.bad_request for outcome in outcomes.values())
    body = _body(delivery, outcomes, summary, run)
    return {**body, "dead_letters": len(dead)}, again, bad_request


def _outcomes(delivery: Delivery, run: Run) -> dict[S3Object, Outcome]:
    """What becomes of each object, by the object as it was named."""
    outcomes = {obj: _expected(obj, delivery.direct, run) for obj in delivery.objects}
    if ignored := [o.uri for o, found in outcomes.items() if found.status is Status.IGNORED]:
        logger.warning("ignored, not bundles", extra={"objects": ignored[:SHOWN_FAILURES]})
    readable = [obj for obj, found in outcomes.items() if found.status is Status.WAITING]
    suspects = {o for m in delivery.messages if redelivery.is_suspect(m, run) for o in m.objects}
    # Of a message that is done in part, the first objects are done.
    poisoned = _poisoned([obj for obj in reversed(readable) if obj in suspects], run)
    for objects, same in _by_wishes(readable, delivery, run):
        with closing(load(objects, same)) as processed:
            # They come in the order of the objects, but hold them as they were when read.
            outcomes.update(zip(objects, processed, strict=False))
    return outcomes | {obj: found for obj, found in poisoned.items() if outcomes[obj].failed}


def _body(
    delivery: Delivery, outcomes: Mapping[S3Object, Outcome], summary: Summary, run: Run
) -> dict[str, Any]:
    named = delivery.objects
    body = summary.body(_section(named), run)
    if any(message.backfill and message.backfill.replace for message in delivery.messages):
        body["rows_removed"] = summary.rows_removed
    body["s3_bucket"] = named[0].bucket if named else None
    body["s3_key"] = named[0].key if named else None
    if len(named) > 1:
        body["files"] = [
            {"s3_bucket": o.bucket, "s3_key": o.key, "status": outcome.status}
            for o, outcome in islice(outcomes.items(), SHOWN_OBJECTS)
        ]
    return body


def _by_wishes(
    objects: list[S3Object], delivery: Delivery, run: Run
) -> list[tuple[list[S3Object], Run]]:
    """The objects that are processed alike, with their run; each gets what any message wants."""
    wishes = [(m, m.backfill, set(m.objects)) for m in delivery.messages if m.backfill]
    parts: dict[Wanted, list[S3Object]] = {}
    for obj in objects:
        wanted = run.wanted
        forced: list[int] = []
        for message, wish, named in wishes:
            if obj in named:
                wanted = wanted._replace(replace=wanted.replace or wish.replace)
                forced += [_forced_since(message)] if wish.force_reprocess else []
        if forced:
            # A message at its first delivery wants the object whatever another one has done.
            wanted = wanted._replace(force=True, forced_since=max(forced) if all(forced) else 0)
        parts.setdefault(wanted, []).append(obj)
    return [
        (part, run if wanted == run.wanted else replace(run, wanted=wanted))
        for wanted, part in parts.items()
    ]


def _forced_since(message: Message) -> int:
    """Since when an object counts as done by this message, in milliseconds since 1970; 0 at its
    first delivery, at which none does.
    """
    receipt = message.receipt
    return receipt.first_ms if receipt and receipt.receives > 1 else 0


def _poisoned(objects: list[S3Object], run: Run) -> dict[S3Object, Outcome]:
    """Those of the objects that no retry can help, found in half of the time, and without
    ClickHouse, which may be away.
    """
    half = run.deadline.earlier(run.deadline.seconds_left, share=1 / 2)
    with closing(examine(objects, replace(run, deadline=half))) as outcomes:
        return {o: found for o, found in zip(objects, outcomes, strict=True) if found.poison}


def _failure(message: Message, outcomes: Mapping[S3Object, Outcome]) -> redelivery.Failure | None:
    left = tuple(o for o in message.objects if outcomes[o].failed)
    if not message.error and not left:
        return None
    failed = [outcomes[o] for o in left]
    progress = any(outcomes[o].status is Status.PROCESSED for o in message.objects)
    reasons = [message.error] * bool(message.error) + [outcome.error for outcome in failed]
    poison = all(outcome.poison for outcome in failed)
    busy = any(outcome.stop and outcome.stop.reason is StopReason.BUSY for outcome in failed)
    return redelivery.Failure(message, "; ".join(reasons), poison, left, progress, busy)


def _expected(obj: S3Object, direct: bool, run: Run) -> Outcome:
    """What becomes of an object that processing does not reach."""
    try:
        check_object_allowed(run.settings, obj)
    except S3NotAllowed as error:
        return Outcome(obj, Status.FAILED, str(error), bad_request=True, poison=error.poison)
    if direct and obj.key.endswith("/"):
        folder = f"{obj.uri} is a folder: name an object in it, or send a bulk request for all"
        return Outcome(obj, Status.FAILED, folder, bad_request=True, poison=True)
    if direct or obj.is_bundle:
        return Outcome(obj, Status.WAITING, "not begun, because processing stopped before it")
    return Outcome(obj, Status.IGNORED)


def _section(objects: list[S3Object]) -> int | str | None:
    sections = {o.section_id for o in objects}
    return sections.pop() if len(sections) == 1 else None
