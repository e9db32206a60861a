"""Bulk mode: process the history that a request covers, and say where to continue."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from itertools import islice
from typing import Any

from xapi_etl_processor.audit.replace import load
from xapi_etl_processor.common import PAGE_OBJECTS, to_skip
from xapi_etl_processor.errors import ClickHouseError, Defect, NothingDone, S3Error, S3Late
from xapi_etl_processor.modes.answer import Summary
from xapi_etl_processor.modes.bulk_request import BulkRequest
from xapi_etl_processor.run import TIME_RAN_OUT, Outcome, Run, Status, Stop, StopReason, stopped
from xapi_etl_processor.sources import s3_listing
from xapi_etl_processor.sources.objects import S3Object
from xapi_etl_processor.storage.ledger import identity

SHOWN_FILES = 10
"""Keys that a dry run shows, of objects that would be processed. Our limit."""


def run_bulk(
    request: BulkRequest, run: Run, on_outcome: Callable[[Outcome], None] = lambda _: None
) -> dict[str, Any]:
    """Process, or in a dry run count, what the request covers; returns the answer's body.

    Raises S3Error if the bucket cannot be listed, and NothingDone if there was no time, or no
    ClickHouse, for a single object.
    """
    summary = Summary()
    objects = Covered(request, run)
    files: list[str] = []
    bytes_found = 0
    after = request.after
    stop: Stop | None = None
    stopped_at = request.prefix
    with closing(_dry_run(objects, run) if request.dry_run else load(objects, run)) as outcomes:
        for outcome in outcomes:
            on_outcome(outcome)
            key = outcome.obj.key
            key_before = objects.key_before.pop(key)
            if stop is None:
                if outcome.stop:
                    stop, stopped_at, after = outcome.stop, key, key_before
                else:
                    after = key
            if outcome.status is not Status.WAITING:
                summary.add(outcome)
                bytes_found += outcome.obj.size or 0
                files += [key] * (outcome.status is Status.FOUND)
                del files[SHOWN_FILES:]
    if objects.key_before:
        missing = next(iter(objects.key_before))
        raise Defect(f"bulk: no outcome for {missing}: report this as a defect")
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
    body["complete"] = stop is None
    body["continuation_token"] = request.token_after(after) if stop else None
    if request.dry_run:
        body["files"] = files
        body["bytes_found"] = bytes_found
    return body


class Covered:
    """The objects that a request covers, in key order, as far as time and S3 allow.

    `reached` is the last key that was passed on or passed over. `key_before` has, for each object
    that was passed on and has no outcome yet, the key before it. `stop` says what ended the listing
    early. `ignored` counts the objects that would be covered if they were bundles. Iterating raises
    S3Error if the listing cannot even begin.
    """

    def __init__(self, request: BulkRequest, run: Run) -> None:
        self.reached = request.after
        self.key_before: dict[str, str] = {}
        self.stop: Stop | None = None
        self.ignored = 0
        self._request = request
        self._run = run

    def __iter__(self) -> Iterator[S3Object]:
        request, run = self._request, self._run
        listed = s3_listing.listing(
            run.connections.s3, request.bucket, request.prefix, request.after, run.read_until
        )
        try:
            for obj in listed:
                if run.out_of_time:
                    self.stop = TIME_RAN_OUT
                    return
                if request.covers(obj):
                    self.key_before[obj.key] = self.reached
                    yield obj
                elif request.passes_over(obj):
                    self.ignored += 1
                self.reached = obj.key
        except S3Late:
            self.stop = TIME_RAN_OUT
        except S3Error as error:
            if self.reached == request.after:
                raise
            self.stop = Stop(StopReason.LISTING_FAILED, str(error))


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
