"""One batch: columns that fill across objects, and the objects that wait for them to be stored."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from hashlib import sha256
from itertools import compress
from typing import Any

from xapi_etl_processor import __version__
from xapi_etl_processor.errors import LearnerForgotten, XapiEtlError
from xapi_etl_processor.learners import FRESH_SECONDS, people
from xapi_etl_processor.run import Outcome, Run, Status, Stop, StopReason
from xapi_etl_processor.sources.objects import S3Object
from xapi_etl_processor.storage import ledger
from xapi_etl_processor.storage.tables import EVENTS
from xapi_etl_processor.telemetry import describe_defect
from xapi_etl_processor.xapi.chunk import Chunk
from xapi_etl_processor.xapi.columns import ABSENT
from xapi_etl_processor.xapi.lines import MIB
from xapi_etl_processor.xapi.parse import Parsed, RejectedLine
from xapi_etl_processor.xapi.transpose import to_columns
from xapi_etl_processor.xapi.voiding import Voided

MAX_OBJECTS = 500
"""Objects that wait for one insert; without a limit, objects without rows could wait without end.
Our limit."""

MAX_NOTED_BYTES = 16 * MIB
"""Bytes of rejected lines, and of ids that are voided, in one batch. Our limit."""

OWN_TIMESTAMP = "statement"
"""The timestamp_source of a statement that has a timestamp of its own."""

MANY_MONTHS_MS = 98 * 28 * 86_400_000
"""A span of milliseconds that touches at most a hundred months: ClickHouse's default limit of
partitions for one insert (max_partitions_per_insert_block)."""


Columns = dict[str, Sequence[Any]]
"""Values by the column's name."""


class Batch:
    """Collects what objects' lines became, and stores it when it is full.

    `outcomes` are those of objects that are complete once the next flush succeeds. `stop` is set
    when nothing more is to be read.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self._learners = run.connections.learners
        self.outcomes: list[Outcome] = []
        self.stop: Stop | None = None
        self._clear()

    def _clear(self) -> None:
        self._columns: dict[str, list[Any]] = {}
        self._rows = 0
        self._bytes = 0
        self._hash = sha256(self._salt.encode())
        self._rejected: list[tuple[S3Object, RejectedLine]] = []
        self._voided: list[tuple[S3Object, Voided]] = []
        self._noted_bytes = 0
        self._forgotten_list = self._learners.changes

    @property
    def _salt(self) -> str:
        """Makes tokens differ between versions, and between forced runs: a forced run stores again
        what a delete removed, which the token of an earlier run would prevent.
        """
        return f"{__version__}\0{self.run.run_id if self.run.force else ''}"

    @property
    def insert_failure(self) -> Stop | None:
        """Why ClickHouse did not take a batch, if so; nothing more is stored after that."""
        failed = self.stop is not None and self.stop.reason is StopReason.INSERT_FAILED
        return self.stop if failed else None

    @property
    def is_full(self) -> bool:
        """Whether it should be stored before more is added."""
        return (
            self._rows >= self.run.settings.batch_rows
            or self._bytes >= self.run.settings.batch_mb * MIB
            or max(len(self._rejected), len(self._voided)) >= self.run.settings.batch_rows
            or self._noted_bytes >= MAX_NOTED_BYTES
            or len(self.outcomes) >= MAX_OBJECTS
        )

    def add(self, obj: S3Object, parsed: Parsed) -> int:
        """Add what some lines of an object became; in a dry run, only look at it.

        Statements of forgotten learners are moved from `video` to `forgotten` in the counts, and
        left out. Returns how many of the other video statements have a timestamp that is not their
        own. If it raises, no row of theirs is added.
        """
        chunk = parsed.chunk
        columns = self._without_forgotten(parsed, to_columns(chunk))
        sources = columns.get("timestamp_source", ())
        replaced = len(sources) - sources.count(OWN_TIMESTAMP)
        if not self.run.dry_run:
            self._note(obj, parsed)
            self._add_rows(chunk, columns)
        return replaced

    def _without_forgotten(self, parsed: Parsed, columns: Columns) -> Columns:
        """The columns without forgotten learners, and with user ids as they are stored."""
        viewers = people(columns, len(parsed.chunk.statements)) if self._learners.anybody else []
        if forgotten := self._learners.forgotten(set(viewers)):
            rows = [viewer not in forgotten for viewer in viewers]
            parsed.chunk.keep(rows)
            parsed.counts.forgotten = len(rows) - sum(rows)
            parsed.counts.video -= parsed.counts.forgotten
            columns = {name: list(compress(values, rows)) for name, values in columns.items()}
        if self._learners.pseudonymous and "user_id" in columns:
            columns["user_id"] = self._learners.pseudonyms(columns["user_id"])
        return columns

    def _note(self, obj: S3Object, parsed: Parsed) -> None:
        for line in parsed.rejected:
            bounded = line._replace(line=line.line[: ledger.MAX_REJECTED_BYTES])
            # A name may be cut off at the bound.
            if not self._learners.may_keep(line.line[: 2 * ledger.MAX_REJECTED_BYTES]):
                bounded = line._replace(line=b"")
            self._rejected.append((obj, bounded))
            self._noted_bytes += len(bounded.line)
        for found in parsed.voided:
            self._voided.append((obj, found))
            self._noted_bytes += len(found.voided_id) + len(found.event_id)

    def _add_rows(self, chunk: Chunk, columns: Columns) -> None:
        """Add rows to the batch and to its token: all of them or, if it raises, none."""
        if not chunk.statements:
            return
        before = self._rows
        try:
            self._append(columns, len(chunk.statements))
            self._add_to_token(chunk)
        except Exception:
            # All columns must stay equally long, and the token must be that of their rows.
            for values in self._columns.values():
                del values[before:]
            self._rows = before
            raise
        self._bytes += sum(map(len, chunk.lines))

    def _append(self, columns: Columns, rows: int) -> None:
        """Add rows; a column that they or the batch lack is filled up with "absent"."""
        for name, values in columns.items():
            held = self._columns.get(name)
            if held is None:
                held = self._columns[name] = [ABSENT[name]] * self._rows
            held.extend(values)
        for name in self._columns.keys() - columns.keys():
            self._columns[name] += [ABSENT[name]] * rows
        self._rows += rows

    def _add_to_token(self, chunk: Chunk) -> None:
        """Hash the rows into the batch's token: the lines, and all else that rows are made of.

        If other rows had the same token, ClickHouse would drop them and still report success.
        """
        self._hash.update(repr(tuple(chunk.source)).encode())
        self._hash.update(array("Q", chunk.numbers).tobytes())
        self._hash.update(b"".join(chunk.digests))

    def flush(self) -> Iterator[Outcome]:
        """Store the batch; gives the outcomes of the objects that are complete with it."""
        if not self.insert_failure and not self.run.dry_run:
            try:
                self._store()
            except XapiEtlError as error:
                self.stop = Stop(StopReason.INSERT_FAILED, str(error))
            except Exception as error:  # noqa: BLE001  # outcomes of batches stored earlier must not be lost
                self.stop = Stop(StopReason.INSERT_FAILED, describe_defect(error))
        if failure := self.insert_failure:
            for outcome in self.outcomes:
                if outcome.status in (Status.PROCESSED, Status.WAITING):
                    # An object that time ran out for has rows in the batch too, and the failure is
                    # what must be reported.
                    outcome.mark_stopped(Status.UNSTORED, failure)
        self._clear()
        outcomes, self.outcomes = self.outcomes, []
        yield from outcomes

    def _store(self) -> None:
        clickhouse, deadline = self.run.connections.clickhouse, self.run.deadline
        of_learners = bool(self._rows or self._rejected)
        if of_learners:
            self._learners.refresh(deadline, FRESH_SECONDS)
            self._check_forgotten(stored=False)
        if self._rows:
            timestamps = self._columns.get("timestamp", [0])
            # ClickHouse would refuse an archive of ten years, which makes a part for each month.
            many = max(timestamps) - min(timestamps) > MANY_MONTHS_MS
            settings = {"max_partitions_per_insert_block": 0} if many else {}
            clickhouse.insert(EVENTS, self._columns, self._hash.hexdigest(), deadline, settings)
        if self._rejected:
            ledger.record_rejected(clickhouse, self._rejected, self._salt, deadline)
        if self._voided:
            ledger.record_voided(clickhouse, self._voided, self._salt, deadline)
        if of_learners:
            self._learners.refresh(deadline)
            self._check_forgotten(stored=True)
        done = [(o.obj, o.counts) for o in self.outcomes if o.status is Status.PROCESSED]
        if done:
            ledger.record_files(clickhouse, done, self.run.mode, self.run.run_id, deadline)

    def _check_forgotten(self, *, stored: bool) -> None:
        """Raises LearnerForgotten if the batch has somebody who was forgotten since it was begun.

        Whoever loads its objects again leaves them out. If the batch is stored already, that is
        noted: their rows are there again (`forget --sweep` removes them).
        """
        if self._learners.changes == self._forgotten_list:
            return
        # Who was forgotten is on the list by name and by pseudonym.
        forgotten = self._learners.forgotten(set(people(self._columns, self._rows)))
        kept = all(self._learners.may_keep(line.line) for _, line in self._rejected if line.line)
        if kept and not forgotten:
            return
        if stored:
            ledger.record_forgotten_again(
                self.run.connections.clickhouse, self.run.run_id, self.run.deadline
            )
        raise LearnerForgotten(
            "a learner was forgotten while their statements were loaded: load the objects again,"
            " which leaves those out"
        )
