"""Bulk mode: process the history that a request covers, and say where to continue."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

from xapi_etl_processor.base.errors import NothingDone
from xapi_etl_processor.bulk.estimate import Estimate
from xapi_etl_processor.bulk.queue import check_queue, send
from xapi_etl_processor.bulk.request import QUEUE, BulkRequest
from xapi_etl_processor.bulk.selection import Covered
from xapi_etl_processor.common import PAGE_OBJECTS, load, looked_up
from xapi_etl_processor.modes.answer import Summary, ending
from xapi_etl_processor.outcome import TIME_RAN_OUT, Outcome, Status, Stop, StopReason
from xapi_etl_processor.run import Run
from xapi_etl_processor.s3.objects import S3Object

Answer = dict[str, Any]

SHOWN_FILES = 10
"""Keys that a dry run shows, of objects that would be processed. Our limit."""


@dataclass
class _Sums:
    """What the outcomes add up to."""

    request: BulkRequest
    run: Run
    objects: Covered
    summary: Summary = field(default_factory=Summary)
    files: list[str] = field(default_factory=list)
    bytes_found: int = 0

    def __post_init__(self) -> None:
        self.estimate = Estimate(self.run.settings.backfill_concurrency)

    def add(self, outcome: Outcome) -> None:
        if outcome.status is Status.WAITING:
            return
        self.summary.add(outcome)
        self.bytes_found += outcome.obj.size or 0
        if outcome.status is Status.FOUND and len(self.files) < SHOWN_FILES:
            self.files.append(outcome.obj.key)

    def answer(self, stop: Stop | None, after: str) -> Answer:
        request = self.request
        self.summary.ignored = self.objects.ignored
        body = self.summary.body(request.section_id, self.run)
        body["s3_prefix"] = request.prefix
        body["list_calls"] = self.objects.list_calls
        body |= ending(stop, request.token_after(after))
        if request.dry_run:
            body["files"] = self.files
            body["bytes_found"] = self.bytes_found
        if request.engine == QUEUE:
            self.estimate.list_calls = self.objects.list_calls
            body |= self.estimate.body()
        return body


def run_bulk(
    request: BulkRequest,
    run: Run,
    on_outcome: Callable[[Outcome, Callable[[], Answer]], None] = lambda _outcome, _so_far: None,
) -> Answer:
    """Process, send to the queue, or in a dry run count, what the request covers; returns the
    answer's body.

    Calls `on_outcome` with each outcome before the first that is to be tried again, and with a
    function that gives the answer as it would be if the time ran out now.

    Raises S3Error if the bucket cannot be listed, BadRequest if there is no queue, and NothingDone
    if there was no time, no ClickHouse, or no answer of the queue, for a single object.
    """
    objects = Covered(request, run, by_month=request.engine == QUEUE)
    sums = _Sums(request, run, objects)
    after = request.after
    stop: Stop | None = None
    stopped_at = request.prefix
    with closing(_begin(objects, request, run, sums.estimate)) as outcomes:
        for outcome in outcomes:
            key = outcome.obj.key
            before, position = objects.positions.pop(key)
            if stop is None:
                if outcome.stop:
                    stop, stopped_at, after = outcome.stop, key, before
                else:
                    after = position
            sums.add(outcome)
            if stop is None:
                on_outcome(outcome, partial(sums.answer, TIME_RAN_OUT, after))
    objects.check_settled()
    if objects.stop and not stop:
        # Every object that was passed on is done, and so are the keys that were passed over.
        stop, after = objects.stop, objects.reached
    busy = stop is not None and stop.reason is StopReason.BUSY
    if stop and after == request.after:
        later = "; send the same request again in some minutes" if busy else ""
        raise NothingDone(f"bulk: no object could be processed: {stop.text}{later}")
    failures = sums.summary.failures
    if stop and (busy or (stop.reason is not StopReason.OUT_OF_TIME and not failures)):
        later = "; continue in some minutes, with the continuation token" if busy else ""
        sums.summary.fail(stopped_at, f"{stop.text}{later}")
    return sums.answer(stop, after)


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
    while page := looked_up(list(islice(source, PAGE_OBJECTS)), run, Status.FOUND):
        yield from page
        if page[0].stop:
            return
