"""One batch: columns that fill across objects, and the objects that wait for them to be stored."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import compress
from typing import Any

from xapi_etl_processor.outcome import Outcome
from xapi_etl_processor.run import Run
from xapi_etl_processor.s3.objects import S3Object
from xapi_etl_processor.storage import ledger
from xapi_etl_processor.storage.learners import people
from xapi_etl_processor.xapi.chunk import Chunk
from xapi_etl_processor.xapi.columns import ABSENT
from xapi_etl_processor.xapi.lines import MIB
from xapi_etl_processor.xapi.parse import Parsed, RejectedLine
from xapi_etl_processor.xapi.transpose import to_columns
from xapi_etl_processor.xapi.voiding import Voided

BATCH_BYTES = 64 * MIB
"""Bytes of lines in one insert; bounds the memory where lines are long. Our limit."""

MAX_OBJECTS = 500
"""Objects that wait for one insert; without a limit, objects without rows could wait without end.
Our limit."""

MAX_NOTED_BYTES = 16 * MIB
"""Bytes of rejected lines, and of ids that are voided, in one batch. Our limit."""

OWN_TIMESTAMP = "statement"
"""The timestamp_source of a statement that has a timestamp of its own."""


Columns = dict[str, Sequence[Any]]
"""Values by the column's name."""


class Batch:
    """The rows of one insert while they are collected, and what else is stored with them.

    `outcomes` are those of the objects that are complete once it is stored, and `objects`, by URI,
    those that rows are of. `left_out` says of the statements of forgotten learners, by section and
    event id, when the learner was forgotten.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.outcomes: list[Outcome] = []
        self.columns: dict[str, list[Any]] = {}
        self.rows = 0
        self.objects: dict[str, S3Object] = {}
        self.rejected: list[tuple[S3Object, RejectedLine]] = []
        self.voided: list[tuple[S3Object, Voided]] = []
        self._learners = run.connections.learners
        self.learners_seen = self._learners.changes
        self.left_out: dict[tuple[int, str], datetime] = {}
        # One copy of each text, where most rows have one of few: a copy for each row would take a
        # third of the batch's memory.
        self._texts: dict[str, str] = {}
        self._repetitive: set[str] = set()
        self._bytes = 0
        self._noted_bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether it should be stored before more is added."""
        return (
            self.rows >= self.run.settings.batch_rows
            or self._bytes >= BATCH_BYTES
            or max(len(self.rejected), len(self.voided)) >= self.run.settings.batch_rows
            or self._noted_bytes >= MAX_NOTED_BYTES
            or len(self.outcomes) >= MAX_OBJECTS
        )

    def add(self, obj: S3Object, parsed: Parsed) -> int:
        """Add what some lines of an object became, but for forgotten learners: their statements
        count as `forgotten`. In a dry run, add nothing.

        Returns how many of the rows have a timestamp that is not their own. If it raises, none is
        added.
        """
        chunk = parsed.chunk
        columns = self._without_forgotten(parsed, to_columns(chunk))
        sources = columns.get("timestamp_source", ())
        replaced = len(sources) - sources.count(OWN_TIMESTAMP)
        if not self.run.wanted.dry_run:
            self._note(obj, parsed)
            self._add_rows(chunk, columns)
            if chunk.statements:
                self.objects[obj.uri] = obj
        return replaced

    def _without_forgotten(self, parsed: Parsed, columns: Columns) -> Columns:
        """The columns without forgotten learners, and with user ids as they are stored."""
        viewers = people(columns, len(parsed.chunk.statements)) if self._learners.anybody else []
        if forgotten := self._learners.forgotten(set(viewers)):
            rows = [viewer not in forgotten for viewer in viewers]
            sections = columns.get("section_id") or [0] * len(rows)
            left_out = zip(sections, columns["event_id"], viewers, strict=True)
            self.left_out |= {
                (section, event): forgotten[who]
                for section, event, who in left_out
                if who in forgotten
            }
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
            self.rejected.append((obj, bounded))
            self._noted_bytes += len(bounded.line)
        for found in parsed.voided:
            self.voided.append((obj, found))
            self._noted_bytes += len(found.voided_id) + len(found.event_id)

    def _add_rows(self, chunk: Chunk, columns: Columns) -> None:
        if not chunk.statements:
            return
        before = self.rows
        try:
            self._append(columns, len(chunk.statements))
        except Exception:
            # All columns must stay equally long.
            for values in self.columns.values():
                del values[before:]
            self.rows = before
            raise
        self._bytes += sum(map(len, chunk.lines))

    def _append(self, columns: Columns, rows: int) -> None:
        """Add rows; a column that they or the batch lack is filled up with "absent"."""
        for name, values in columns.items():
            held = self.columns.get(name)
            if held is None:
                held = self.columns[name] = [ABSENT[name]] * self.rows
                if type(values[0]) is str and 2 * len(set(values)) <= rows:
                    self._repetitive.add(name)
            held.extend(
                map(self._texts.setdefault, values, values) if name in self._repetitive else values
            )
        for name in self.columns.keys() - columns.keys():
            self.columns[name] += [ABSENT[name]] * rows
        self.rows += rows
