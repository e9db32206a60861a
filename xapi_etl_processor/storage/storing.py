"""Stores batches one after the other, each while the next one fills."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from functools import partial

from xapi_etl_processor import notes
from xapi_etl_processor.deadlines import DaemonThreads
from xapi_etl_processor.errors import (
    ClickHouseError,
    ConfigurationError,
    LoadOvertaken,
    XapiEtlError,
)
from xapi_etl_processor.learners import FRESH_SECONDS, people
from xapi_etl_processor.run import Outcome, Run, Status, Stop, StopReason, stop_after
from xapi_etl_processor.sources.objects import S3Object
from xapi_etl_processor.storage import ledger
from xapi_etl_processor.storage.batch import Batch
from xapi_etl_processor.storage.tables import EVENTS
from xapi_etl_processor.telemetry import describe_defect

MANY_MONTHS_MS = 98 * 28 * 86_400_000
"""A span of milliseconds that touches at most a hundred months: ClickHouse's default limit of
partitions for one insert (max_partitions_per_insert_block)."""


LEFT_OUT_IDS = 50_000
"""Ids that one query looks for. Our choice: 2 MB of text."""


class Storing:
    """The batch that fills, and the one before it, whose rows may be on their way.

    `stop` is set when nothing more is to be read. While rows are on their way, in `thread`,
    ClickHouse is not to be asked anything: call `settle` first.
    """

    def __init__(self, run: Run, thread: DaemonThreads) -> None:
        self.run = run
        self.stop: Stop | None = None
        self.batch = Batch(run)
        self._thread = thread
        self._learners = run.connections.learners
        self._sent: Batch | None = None
        self._reply: Future[None] | None = None

    @property
    def insert_failure(self) -> Stop | None:
        """Why ClickHouse did not take a batch, if so; nothing more is stored after that."""
        stop = self.stop
        return stop if stop and stop.reason in (StopReason.INSERT_FAILED, StopReason.BUSY) else None

    @property
    def is_due(self) -> bool:
        """Whether to flush before more is added: the batch is full, or the one before it failed."""
        failed = self._reply is not None and self._reply.done() and self._reply.exception()
        return self.batch.is_full or bool(failed)

    def flush(self) -> Iterator[Outcome]:
        """Send the batch's rows, once those before it are stored; gives the outcomes of these."""
        yield from self.settle()
        sent, self.batch = self.batch, Batch(self.run)
        self._try(self._send, sent)
        self._sent = sent
        if not self._reply:
            yield from self.settle()

    def settle(self) -> Iterator[Outcome]:
        """Wait until rows on their way are stored; gives the outcomes of their objects."""
        if self._sent is None:
            return
        sent, self._sent = self._sent, None
        self._try(self._complete, sent)
        self._reply = None
        if failure := self.insert_failure:
            for outcome in sent.outcomes:
                if outcome.status in (Status.PROCESSED, Status.WAITING):
                    # An object that time ran out for has rows in the batch too, and the failure is
                    # what must be reported.
                    outcome.mark_unstored(failure)
        yield from sent.outcomes

    def finish(self) -> Iterator[Outcome]:
        """Store everything that was added; gives the outcomes that are left."""
        yield from self.flush()
        yield from self.settle()

    def _try(self, step: Callable[[Batch], None], batch: Batch) -> None:
        if self.insert_failure or self.run.dry_run:
            return
        try:
            step(batch)
        except XapiEtlError as error:
            self.stop = stop_after(error, StopReason.INSERT_FAILED)
        except Exception as error:  # noqa: BLE001  # outcomes of batches stored earlier must not be lost
            self.stop = Stop(StopReason.INSERT_FAILED, describe_defect(error))

    def _send(self, batch: Batch) -> None:
        if batch.rows or batch.rejected:
            self._learners.refresh(self.run.deadline, FRESH_SECONDS)
            self._learners.note_ids(self.run.deadline)
            self._check_overtaken(batch, stored=False)
        if batch.rows:
            timestamps = batch.columns.get("timestamp", [0])
            # ClickHouse would refuse an archive of ten years, which makes a part for each month.
            many = max(timestamps) - min(timestamps) > MANY_MONTHS_MS
            settings = {"max_partitions_per_insert_block": 0} if many else {}
            again = partial(self._before_again, batch)
            insert = self.run.connections.clickhouse.insert
            self._reply = self._thread.submit(
                insert, EVENTS, batch.columns, self.run.deadline, settings, again
            )

    def _complete(self, batch: Batch) -> None:
        clickhouse, deadline = self.run.connections.clickhouse, self.run.deadline
        try:
            if self._reply:
                self._reply.result()
            if batch.rejected:
                again = partial(self._before_again, batch)
                ledger.record_rejected(clickhouse, batch.rejected, deadline, again)
            if batch.voided:
                ledger.record_voided(clickhouse, batch.voided, deadline)
        except ClickHouseError:
            # Rows may be stored all the same.
            with suppress(ClickHouseError, ConfigurationError):
                self._look_again(batch)
            raise
        self._look_again(batch)
        self._look_for_left_out(batch)
        done = [(o.obj, o.counts) for o in batch.outcomes if o.status is Status.PROCESSED]
        if done:
            ledger.record_files(clickhouse, done, self.run.mode, self.run.run_id, deadline)

    def _look_again(self, batch: Batch, *, stored: bool = True) -> None:
        """Raises LoadOvertaken if the batch, which may be stored now, should not be."""
        if batch.rows or batch.rejected or any(o.counts.video for o in batch.outcomes):
            self._learners.refresh(self.run.deadline)
            self._check_overtaken(batch, stored=stored)

    def _before_again(self, batch: Batch, may_be_stored: bool) -> None:
        self._look_again(batch, stored=may_be_stored)

    def _look_for_left_out(self, batch: Batch) -> None:
        """Note it if rows that this batch leaves out were stored after their learner was forgotten.

        A load whose insert was held up ended before it could look again, and note it itself.
        """
        keys = tuple(batch.left_out)
        clickhouse, deadline = self.run.connections.clickhouse, self.run.deadline
        for first in range(0, len(keys), LEFT_OUT_IDS):
            part = keys[first : first + LEFT_OUT_IDS]
            stored = clickhouse.query(
                f"SELECT section_id, event_id, max(inserted_at) FROM {clickhouse.database}.{EVENTS}"
                # The section leads the table's key.
                " WHERE section_id IN %(sections)s AND event_id IN %(ids)s"
                " GROUP BY section_id, event_id",
                {
                    "sections": tuple({section for section, _ in part}),
                    "ids": tuple(event for _, event in part),
                },
                deadline,
            )
            if any(at > batch.left_out.get((section, event), at) for section, event, at in stored):
                notes.note_overtaken(clickhouse, [notes.SWEEP], deadline)
                return

    def _check_overtaken(self, batch: Batch, *, stored: bool) -> None:
        """Raises LoadOvertaken if the batch holds what may no longer be stored: rows of somebody
        who was forgotten or of a version that was replaced since it was read, or plain ids where
        ids have become pseudonyms.

        Whoever loads its objects again leaves that out. If the batch is stored already, the
        commands that put it right are noted.
        """
        clickhouse, deadline = self.run.connections.clickhouse, self.run.deadline
        found: dict[str, str] = {}
        if self._learners.ids_problem(deadline):
            found[notes.PSEUDONYMIZE] = "ids became pseudonyms"
        if self._learners.changes != batch.learners_seen and self._has_forgotten(batch):
            found[notes.SWEEP] = "a learner was forgotten"
        for obj in self._replaced(batch):
            found[notes.replace_command(obj)] = f"{obj.uri} was replaced by a later version"
        if not found:
            return
        if stored:
            notes.note_overtaken(clickhouse, list(found), deadline)
        reasons = " and ".join(found.values())
        raise LoadOvertaken(f"while objects were loaded, {reasons}: load the objects again")

    def _has_forgotten(self, batch: Batch) -> bool:
        # Who was forgotten is on the list by name and by pseudonym.
        forgotten = self._learners.forgotten(set(people(batch.columns, batch.rows)))
        kept = all(self._learners.may_keep(line.line) for _, line in batch.rejected if line.line)
        return bool(forgotten) or not kept

    def _replaced(self, batch: Batch) -> list[S3Object]:
        """The batch's objects that were replaced by later versions since this run began to read."""
        seen, now = self.run.notes_seen, self._learners.state
        if seen is None or now is None or now.replaced == seen.replaced:
            return []
        ended = {outcome.obj.uri: outcome.obj for outcome in batch.outcomes}
        objects = list((ended | batch.objects).values())
        clickhouse, deadline = self.run.connections.clickhouse, self.run.deadline
        return notes.replaced_since(clickhouse, objects, seen, deadline)
