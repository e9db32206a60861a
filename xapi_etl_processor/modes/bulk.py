"""Bulk mode: process the history that a request covers, and say where to continue."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from itertools import islice
from typing import Any

from xapi_etl_processor.audit.replace import load
from xapi_etl_processor.common import PAGE_OBJECTS, to_skip
from xapi_etl_processor.errors import ClickHouseError, NothingDone
from xapi_etl_processor.modes.answer import Summary
from xapi_etl_processor.modes.bulk_request import QUEUE, BulkRequest
from xapi_etl_processor.modes.covered import Covered
from xapi_etl_processor.modes.estimate import Estimate
from xapi_etl_processor.modes.send import check_queue, send
from xapi_etl_processor.run import Outcome, Run, Status, Stop, StopReason, stopped
from xapi_etl_processor.sources.objects import S3Object
from xapi_etl_processor.storage.ledger import identity

SHOWN_FILES = 10
"""Keys that a dry run shows, of objects that would be processed. Our limit."""


def run_bulk(
    request: BulkRequest,
    run: Run,
    on_outcome: Callable[[Outcome, str], None] = lambda _outcome, _position: None,
) -> dict[str, Any]:
    """Process, send to the queue, or in a dry run count, what the request covers; returns the
    answer's body.

    Raises S3Error if the bucket cannot be listed, BadRequest if there is no queue, and NothingDone
    if there was no time, no ClickHouse, or no answer of the queue, for a single object.
    """
    summary = Summary()
    objects = Covered(request, run, by_month=request.engine == QUEUE)
    estimate = Estimate(run.settings.backfill_concurrency)
    files: list[str] = []
    bytes_found = 0
    after = request.after
    stop: Stop | None = None
    stopped_at = request.prefix
    with closing(_begin(objects, request, run, estimate)) as outcomes:
        for outcome in outcomes:
            key = outcome.obj.key
            before, position = objects.positions.pop(key)
            if stop is None:
                if outcome.stop:
                    stop, stopped_at, after = outcome.stop, key, before
                else:
                    after = position
            on_outcome(outcome, after)
            if outcome.status is not Status.WAITING:
                summary.add(outcome)
                bytes_found += outcome.obj.size or 0
                files += [key] * (outcome.status is Status.FOUND)
                del files[SHOWN_FILES:]
    objects.check_settled()
    if objects.stop and not stop:
        # Every object that was passed on is done, and so are the keys that were passed over.
        stop, after = objects.stop, objects.reached
    busy = stop is not None and stop.reason is StopReason.BUSY
    if stop and after == request.after:
        later = "; send the same request again in some minutes" if busy else ""
        raise NothingDone(f"bulk: no object could be processed: {stop.text}{later}")
    if stop and (busy or (stop.reason is not StopReason.OUT_OF_TIME and not summary.failures)):
        later = "; continue in some minutes, with the continuation token" if busy else ""
        summary.fail(stopped_at, f"{stop.text}{later}")
    summary.ignored = objects.ignored
    body = summary.body(request.section_id, run)
    body["s3_prefix"] = request.prefix
    body["list_calls"] = objects.list_calls
    body["complete"] = stop is None
    body["stopped"] = stop.text if stop else None
    body["continuation_token"] = request.token_after(after) if stop else None
    if request.dry_run:
        body["files"] = files
        body["bytes_found"] = bytes_found
    if request.engine == QUEUE:
        estimate.list_calls = objects.list_calls
        body |= estimate.body()
    return body


def _begin(
    objects: Iterable[S3Object], request: BulkRequest, run: Run, estimate: Estimate
) -> Generator[Outcome, None, None]:
    if request.engine == QUEUE:
        check_queue(run.settings)
        return send(objects, run, estimate)
    return _dry_run(objects, run) if request.dry_run else load(objects, run)


def _dry_run(objects: Iterable[S3Object], run: Run) -> Generator[Outcome, None, None]:
    """What would be processed, without reading an object or writing anything."""
    source = iter(objects)
    while page := list(islice(source, PAGE_OBJECTS)):
        try:
            known = to_skip(page, run)
        except ClickHouseError as error:
            stop = Stop(StopReason.LEDGER_FAILED, str(error))
            yield from (stopped(obj, Status.WAITING, stop) for obj in page)
            return
        for obj in page:
            yield Outcome(obj, Status.SKIPPED if identity(obj) in known else Status.FOUND)
