"""Writes batches one after the other, each while the next one fills."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial

from xapi_etl_processor.base.deadlines import DaemonThreads
from xapi_etl_processor.base.errors import ClickHouseError, ConfigurationError, XapiEtlError
from xapi_etl_processor.base.telemetry import describe_defect
from xapi_etl_processor.outcome import (
    TIME_RAN_OUT,
    Outcome,
    Status,
    Stop,
    StopReason,
    stop_after,
)
from xapi_etl_processor.pipeline import overtaken
from xapi_etl_processor.pipeline.batch import Batch
from xapi_etl_processor.run import Run
from xapi_etl_processor.storage import ledger
from xapi_etl_processor.storage.learners import FRESH_SECONDS
from xapi_etl_processor.storage.tables import EVENTS

MANY_MONTHS_MS = 98 * 28 * 86_400_000
"""A span of milliseconds that touches at most a hundred months: ClickHouse's default limit of
partitions for one insert (max_partitions_per_insert_block)."""


class Writer:
    """The batch that fills, and the one before it, whose rows may be on their way: call `settle`
    before ClickHouse is asked anything. `stop` is set when nothing more is to be read.
    """

    def __init__(self, run: Run, thread: DaemonThreads) -> None:
        self.run = run
        self.stop: Stop | None = None
        self.batch = Batch(run)
        self._thread = thread
        self._sent: Batch | None = None
        self._reply: Future[None] | None = None

    @property
    def should_stop(self) -> bool:
        """Whether nothing more is to be read; sets `stop` if the time is up."""
        if self.run.out_of_time:
            self.stop = self.stop or TIME_RAN_OUT
        return self.stop is not None

    @property
    def insert_failure(self) -> Stop | None:
        """The reason an insert failed, or None; nothing more is stored after that."""
        stop = self.stop
        return stop if stop and stop.reason in (StopReason.INSERT_FAILED, StopReason.BUSY) else None

    @property
    def is_due(self) -> bool:
        """Whether to flush before more is added: the batch is full, or the one before it failed."""
        failed = self._reply is not None and self._reply.done() and self._reply.exception()
        return self.batch.is_full or bool(failed)

    def flush(self) -> Iterator[Outcome]:
        """Send the batch once the one before it is stored; gives the outcomes of that."""
        yield from self.settle()
        self._sent, self.batch = self.batch, Batch(self.run)
        with self._failure_noted():
            self._send(self._sent)
        if not self._reply:
            # Nothing is on its way, so that nothing has to be waited for.
            yield from self.settle()

    def settle(self) -> Iterator[Outcome]:
        """Wait until rows on their way are stored; gives the outcomes of their objects."""
        if self._sent is None:
            return
        batch, self._sent = self._sent, None
        with self._failure_noted():
            self._complete(batch)
        self._reply = None
        if self.insert_failure:
            _mark_unstored(batch, self.insert_failure)
        yield from batch.outcomes

    def finish(self) -> Iterator[Outcome]:
        """Store everything that was added; gives the outcomes that are left."""
        yield from self.flush()
        yield from self.settle()

    @contextmanager
    def _failure_noted(self) -> Iterator[None]:
        """A step of storing: what it raises becomes the reason to stop."""
        try:
            yield
        except XapiEtlError as error:
            self.stop = stop_after(error, StopReason.INSERT_FAILED)
        except Exception as error:  # noqa: BLE001  # outcomes of batches stored earlier must not be lost
            self.stop = Stop(StopReason.INSERT_FAILED, describe_defect(error))

    def _send(self, batch: Batch) -> None:
        """Begin to insert the rows, unless something forbids it."""
        if self.insert_failure or self.run.wanted.dry_run:
            return
        deadline = self.run.deadline
        if batch.rows or batch.rejected:
            learners = self.run.connections.learners
            learners.refresh(deadline, FRESH_SECONDS)
            learners.note_ids(deadline)
            overtaken.check(batch, stored=False)
        if batch.rows:
            self._reply = self._thread.submit(
                self.run.connections.clickhouse.insert,
                EVENTS,
                batch.columns,
                deadline,
                _settings(batch),
                partial(overtaken.look_again, batch),
            )

    def _complete(self, batch: Batch) -> None:
        """Store what belongs to the rows, once these are stored, and its objects in the ledger."""
        if self.insert_failure or self.run.wanted.dry_run:
            return
        clickhouse, deadline = self.run.connections.clickhouse, self.run.deadline
        try:
            if self._reply:
                self._reply.result()
            if batch.rejected:
                again = partial(overtaken.look_again, batch)
                ledger.record_rejected(clickhouse, batch.rejected, deadline, again)
            if batch.voided:
                ledger.record_voided(clickhouse, batch.voided, deadline)
        except ClickHouseError:
            # Rows may be stored all the same.
            with suppress(ClickHouseError, ConfigurationError):
                overtaken.look_again(batch)
            raise
        overtaken.look_again(batch)
        overtaken.look_for_left_out(batch)
        done = [(o.obj, o.counts) for o in batch.outcomes if o.status is Status.PROCESSED]
        if done:
            ledger.record_files(clickhouse, done, self.run.mode, self.run.run_id, deadline)


def _settings(batch: Batch) -> dict[str, int]:
    timestamps = batch.columns.get("timestamp", [0])
    # ClickHouse would refuse an archive of ten years, which makes a part for each month.
    many = max(timestamps) - min(timestamps) > MANY_MONTHS_MS
    return {"max_partitions_per_insert_block": 0} if many else {}


def _mark_unstored(batch: Batch, failure: Stop) -> None:
    for outcome in batch.outcomes:
        # An object that time ran out for has rows in the batch too, and the failure is what must be
        # reported.
        if outcome.status in (Status.PROCESSED, Status.WAITING):
            outcome.mark_unstored(failure)
