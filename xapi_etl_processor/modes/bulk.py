"""Bulk mode: process the history that a request covers, and say where to continue."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from xapi_etl_processor.base.errors import ClickHouseError, Defect, NothingDone
from xapi_etl_processor.bulk.queue import Sent, send
from xapi_etl_processor.bulk.request import QUEUE, BulkRequest
from xapi_etl_processor.bulk.selection import Step, select
from xapi_etl_processor.common import load, looked_up
from xapi_etl_processor.modes.answer import Summary, ending
from xapi_etl_processor.outcome import Outcome, Status, Stop, StopReason
from xapi_etl_processor.run import Run
from xapi_etl_processor.s3.listing import Progress
from xapi_etl_processor.s3.objects import S3Object
from xapi_etl_processor.storage import months as stored_months

Answer = dict[str, Any]

SHOWN_FILES = 10
"""Keys that a dry run shows, of objects that would be processed. Our limit."""


class _Walk:
    """Hands out what a request covers, and takes the outcomes in the same order.

    Everything up to the key `after` is done; `stop` says why no more is, and `stopped_at` at
    which key.
    """

    def __init__(self, request: BulkRequest, steps: Iterable[Step]) -> None:
        self.after = request.after
        self.stop: Stop | None = None
        self.stopped_at = request.prefix
        self._steps = steps
        self._last: Step | None = None
        self._open: dict[str, Step] = {}

    def objects(self) -> Iterator[S3Object]:
        """The covered objects."""
        for step in self._steps:
            if step.obj is None:
                self._last = step
            else:
                self._open[step.obj.key] = step
                yield step.obj

    def settle(self, outcome: Outcome) -> None:
        """Take the outcome of the next object; after a stop, nothing more is done."""
        step = self._open.pop(outcome.obj.key)
        if self.stop:
            return
        self.after = step.before if outcome.stop else step.key
        if outcome.stop:
            self.stop, self.stopped_at = outcome.stop, outcome.obj.key

    def finish(self) -> None:
        """Pass over what follows the last object; raises Defect if an object has no outcome."""
        for key in self._open:
            raise Defect(f"bulk: no outcome for {key}: report this as a defect")
        if self._last and not self.stop:
            self.after, self.stop = self._last.key, self._last.stop


@dataclass
class _Sums:
    """What the outcomes add up to."""

    sent: Sent
    summary: Summary = field(default_factory=Summary)
    files: list[str] = field(default_factory=list)
    bytes_found: int = 0
    months: set[str] = field(default_factory=set)

    def add(self, outcome: Outcome) -> None:
        if outcome.status is Status.WAITING:
            return
        size = outcome.obj.size or 0
        self.summary.add(outcome)
        self.bytes_found += size
        if outcome.status in (Status.FOUND, Status.SENT, Status.PROCESSED):
            self.months.add(outcome.obj.month)
        if outcome.status is Status.FOUND and len(self.files) < SHOWN_FILES:
            self.files.append(outcome.obj.key)
        if outcome.status in (Status.FOUND, Status.SENT):
            self.sent.objects += 1
            self.sent.size += size


def run_bulk(
    request: BulkRequest,
    run: Run,
    on_outcome: Callable[[Outcome, str], None] = lambda *_: None,
) -> Answer:
    """Process, send to the queue, or only count what the request covers; returns the answer's body.

    Calls `on_outcome` with each outcome up to a stop, and the position up to which all is done.
    Raises S3Error if the bucket cannot be listed, BadRequest if there is no queue, and NothingDone
    if not a single object could be processed.
    """
    listed = Progress()
    walk = _Walk(request, select(request, run, listed))
    sums = _Sums(Sent(run.settings.backfill_concurrency))
    with closing(_begin(walk.objects(), request, run, sums.sent)) as outcomes:
        for outcome in outcomes:
            walk.settle(outcome)
            sums.add(outcome)
            if not walk.stop:
                on_outcome(outcome, walk.after)
    walk.finish()
    if walk.stop:
        _check_progress(request, walk.stop, walk, sums.summary)
    sums.summary.ignored = listed.ignored
    body = sums.summary.body(request.section_id, run)
    body |= {"s3_prefix": request.prefix, "list_calls": listed.calls}
    body |= ending(walk.stop, request.token_after(walk.after))
    if again := _dropped_before(sums.months, run):
        body["dropped_months"] = again
    if request.wanted.dry_run:
        body |= {"files": sums.files, "bytes_found": sums.bytes_found}
    if request.engine == QUEUE:
        body |= sums.sent.body()
    return body


def _begin(
    objects: Iterable[S3Object], request: BulkRequest, run: Run, sent: Sent
) -> Generator[Outcome, None, None]:
    if request.engine == QUEUE:
        return send(objects, run, sent)
    if request.wanted.dry_run:
        return looked_up(objects, run, Status.FOUND)
    return load(objects, run)


def _dropped_before(months: set[str], run: Run) -> list[str]:
    """Those of the months of loaded objects that were dropped once."""
    if not months:
        return []
    try:
        limit = max(stored_months.limits(run.connections.clickhouse, run.deadline), default="")
    except ClickHouseError:
        # The objects are loaded: failing here would have them loaded again.
        return []
    return sorted(month for month in months if stored_months.is_dropped(month, limit))


def _check_progress(request: BulkRequest, stop: Stop, walk: _Walk, summary: Summary) -> None:
    """Name what stopped the work, unless it is the time; raises NothingDone if nothing was done."""
    busy = stop.reason is StopReason.BUSY
    if walk.after == request.after:
        later = "; send the same request again in some minutes" if busy else ""
        raise NothingDone(f"bulk: no object could be processed: {stop.text}{later}")
    if busy or (stop.reason is not StopReason.OUT_OF_TIME and not summary.failures):
        later = "; continue in some minutes, with the continuation token" if busy else ""
        summary.fail(walk.stopped_at, f"{stop.text}{later}")
