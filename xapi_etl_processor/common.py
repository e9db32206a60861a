"""The pipeline that every mode shares: objects -> lines -> statements -> batches -> inserts.

Memory is bounded by one batch and the objects fetched ahead, never by an object. A batch fills
across objects, and an object counts as processed when the insert that holds its last row, the one
with its refused lines, and its ledger row have been acknowledged.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from itertools import islice
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from xapi_etl_processor import __version__
from xapi_etl_processor.clickhouse_client import ClickHouse, ClickHouseError
from xapi_etl_processor.config import ConfigurationError, Settings
from xapi_etl_processor.deadlines import FOREVER, Late
from xapi_etl_processor.sources import s3
from xapi_etl_processor.sources.objects import S3Object
from xapi_etl_processor.storage import ledger
from xapi_etl_processor.telemetry import defect
from xapi_etl_processor.xapi.columns import SENT, Chunk, Source
from xapi_etl_processor.xapi.lines import BrokenGzip, Unpacking, decompressed, split_lines
from xapi_etl_processor.xapi.statements import Counts, Parsed, RejectedLine, parse, to_columns

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

EVENTS = "video_events"

PAGE_OBJECTS = 500
"""Objects that one query asks the ledger for. Ours."""

BATCH_OBJECTS = 500
"""Objects that wait for one insert at the most: many without rows do not wait for rows. Ours."""

MIB = 1024**2

REJECTED_BYTES = 16 * 1024**2
"""Bytes of refused lines in one insert at the most. Ours."""

TIME_IS_UP = "the time was up"

RESERVE_SECONDS = 15
"""What is kept of an invocation's time for storing what was read. Ours."""

MANY_MONTHS = 98 * 28 * 86_400_000
"""Milliseconds that cannot touch more than a hundred months, ClickHouse's limit for one insert."""

_ABSENT = {column.name: column.absent for column in SENT}


@dataclass
class Connections:
    """The two services, as the process keeps them between invocations."""

    s3: S3Client
    clickhouse: ClickHouse


@lru_cache(maxsize=1)
def connections(settings: Settings) -> Connections:
    """The connections of these settings, made once; both connect when first used."""
    return Connections(
        s3.client(settings.s3_concurrency, settings.bucket_owner), ClickHouse(settings)
    )


@dataclass
class Run:
    """One invocation's way of working, whatever its mode.

    Between stop_at and deadline, in time.monotonic()'s seconds, what was read is stored.
    """

    settings: Settings
    connections: Connections
    mode: str
    force: bool = False
    dry_run: bool = False
    deadline: float = FOREVER
    run_id: str = field(default_factory=lambda: str(uuid4()))
    stop_at: float = field(init=False)

    def __post_init__(self) -> None:
        """Keep the last part of a short time, or of a long one RESERVE_SECONDS, for storing."""
        left = self.deadline - time.monotonic()
        self.stop_at = self.deadline - min(RESERVE_SECONDS, left / 3)

    @property
    def time_is_up(self) -> bool:
        """Whether no new work may begin."""
        return time.monotonic() >= self.stop_at


@dataclass
class Outcome:
    """What became of one object.

    status is "processed", "found" (in a dry run), "skipped" (the ledger knows it), "ignored" (it
    is no bundle), "failed" (it cannot be read), "unstored" (ClickHouse did not take it) or
    "waiting" (there was no time to begin or to end it). `code` is S3's, of a failure.
    """

    obj: S3Object
    status: str = "processed"
    error: str = ""
    code: str = ""
    counts: Counts = field(default_factory=Counts)

    @property
    def failed(self) -> bool:
        """Whether it must be delivered again."""
        return self.status in ("failed", "unstored", "waiting")

    def fail(self, error: object, status: str = "failed") -> None:
        """Note why, for people and for the answer."""
        self.status, self.error = status, str(error)


def process(objects: Iterable[S3Object], run: Run) -> Iterator[Outcome]:
    """Carry the objects' video statements into ClickHouse; an outcome for each, in their order.

    Ends early when the time is up or ClickHouse fails for good; the last outcomes are then
    "waiting" or "unstored", and what follows in `objects` has not been looked at. Processing any
    of them again loses and doubles nothing. Raises what iterating over `objects` raises.
    """
    batch = _Batch(run)
    source = iter(objects)
    while page := list(islice(source, PAGE_OBJECTS)):
        yield from _process_page(page, batch)
        if batch.stopped:
            break
    # Also when it was stopped: the last object of a page waits here, whatever became of it.
    yield from batch.flush()


def _process_page(page: list[S3Object], batch: _Batch) -> Iterator[Outcome]:
    run = batch.run
    if run.time_is_up:
        yield from batch.flush()
        yield from (Outcome(obj, "waiting", TIME_IS_UP) for obj in page)
        batch.stopped = TIME_IS_UP
        return
    try:
        page, known = _look_up(page, run)
    except ClickHouseError as error:
        batch.stopped = str(error)
        yield from batch.flush()
        yield from (Outcome(obj, "unstored", str(error)) for obj in page)
        return
    fresh = [obj for obj in page if ledger.identity(obj) not in known]
    bodies = s3.bodies(run.connections.s3, fresh, run.settings.s3_concurrency, run.stop_at)
    for position, obj in enumerate(page):
        if run.time_is_up:
            batch.stopped = batch.stopped or TIME_IS_UP
        if batch.stopped:
            yield from batch.flush()
            yield from (Outcome(left, "waiting", batch.stopped) for left in page[position:])
            return
        if ledger.identity(obj) in known:
            batch.outcomes.append(Outcome(obj, "skipped"))
        else:
            yield from _process_one(*next(bodies), batch)
        if batch.is_full:
            yield from batch.flush()


def _look_up(page: list[S3Object], run: Run) -> tuple[list[S3Object], set[ledger.Identity]]:
    """The objects with their etags, and which of them the ledger knows."""
    page = s3.describe(run.connections.s3, page, run.settings.s3_concurrency, run.stop_at)
    if run.force:
        return page, set()
    return page, ledger.already_processed(run.connections.clickhouse, page, run.deadline)


def _process_one(obj: S3Object, body: Iterator[bytes], batch: _Batch) -> Iterator[Outcome]:
    """Read one object into the batch; yields the outcomes of what is flushed on the way."""
    outcome = Outcome(obj)
    settings = batch.run.settings
    source, max_line = _source(obj), settings.max_line_mb * MIB
    try:
        _check_size(obj, settings)
        limits = Unpacking(settings.max_unpacked_mb * MIB, settings.max_unpacked_ratio)
        # A line without an end is many chunks, and small ones of gzip are many more.
        chunks = _while_there_is_time(decompressed(body, limits), batch.run)
        for lines in split_lines(chunks, max_line):
            parsed = parse(lines, outcome.counts.lines + 1, source, max_line)
            outcome.counts.add(parsed.counts)
            batch.add(obj, parsed)
            if batch.is_full:
                yield from batch.flush()
            if batch.unstored:
                outcome.fail(batch.unstored, "unstored")
                break
    except Late:
        _out_of_time(outcome)
    except (s3.S3Error, BrokenGzip) as error:
        outcome.code = getattr(error, "code", "")
        outcome.fail(error if obj.uri in str(error) else f"{obj.uri}: {error}")
        if outcome.code == s3.LATE:
            _out_of_time(outcome)
    except Exception as error:  # noqa: BLE001  # others came with it, and are not to share its fate
        outcome.fail(f"{obj.uri}: {defect(error)}")
    if not outcome.failed:
        _check_counts(outcome)
    batch.outcomes.append(outcome)


def _while_there_is_time(chunks: Iterable[bytes], run: Run) -> Iterator[bytes]:
    for chunk in chunks:
        if run.time_is_up:
            raise Late
        yield chunk


def _out_of_time(outcome: Outcome) -> None:
    if outcome.counts.lines:
        reached = f"{outcome.obj.uri}: the time was up at line {outcome.counts.lines}"
        outcome.fail(f"{reached}: give the function more, or use the CLI", "waiting")
    else:
        outcome.fail(TIME_IS_UP, "waiting")


def _check_size(obj: S3Object, settings: Settings) -> None:
    if obj.size is not None and obj.size > settings.max_object_mb * MIB:
        raise s3.S3Error(
            f"{obj.uri} has {obj.size} bytes, more than {settings.max_object_mb} MiB: split it, or"
            " raise MAX_OBJECT_MB"
        )


def _check_counts(outcome: Outcome) -> None:
    """Fail an object that would be a silent success: nothing in it was what it should be."""
    counts, uri = outcome.counts, outcome.obj.uri
    if not counts.add_up:
        outcome.fail(f"{uri}: lines do not add up, {counts}: report this as a defect")
    elif counts.rejected and not counts.video + counts.other:
        outcome.fail(
            f"{uri}: of its {counts.rejected} lines none is a statement: see them in"
            " rejected_statements; it is no bundle, or its writer is broken"
        )


def _source(obj: S3Object) -> Source:
    return Source(obj.uri, obj.etag, obj.section_id or 0, obj.instant or 0)


class _Batch:
    """Columns that fill across objects, and the objects that wait for them to be stored."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.outcomes: list[Outcome] = []
        self.stopped = ""
        self.unstored = ""
        self._clear()

    def _clear(self) -> None:
        self._columns: dict[str, list[Any]] = {}
        self._rows = 0
        self._bytes = 0
        self._hash = sha256(self._salt.encode())
        self._rejected: list[tuple[S3Object, RejectedLine]] = []
        self._rejected_bytes = 0

    @property
    def _salt(self) -> str:
        """A forced run stores again what a delete took away, so its tokens must be its own."""
        return f"{__version__}\0{self.run.run_id if self.run.force else ''}"

    @property
    def is_full(self) -> bool:
        """Whether it should be stored before more is added."""
        return (
            self._rows >= self.run.settings.batch_rows
            or self._bytes >= self.run.settings.batch_mb * MIB
            or len(self._rejected) >= self.run.settings.batch_rows
            or self._rejected_bytes >= REJECTED_BYTES
            or len(self.outcomes) >= BATCH_OBJECTS
        )

    def add(self, obj: S3Object, parsed: Parsed) -> None:
        """Take what some lines of an object became."""
        if self.run.dry_run:
            return
        for line in parsed.rejected:
            bounded = line._replace(line=line.line[: ledger.MAX_REJECTED_BYTES])
            self._rejected.append((obj, bounded))
            self._rejected_bytes += len(bounded.line)
        chunk = parsed.chunk
        if not chunk.statements:
            return
        before = self._rows
        try:
            self._append(to_columns(chunk), len(chunk.statements))
            self._identify(chunk)
        except Exception:
            # All columns of a batch are of one length, and its rows those of its token.
            for values in self._columns.values():
                del values[before:]
            self._rows = before
            raise
        self._bytes += sum(map(len, chunk.lines))

    def _append(self, columns: dict[str, Sequence[Any]], rows: int) -> None:
        """Add columns below those that are there; one that either side lacks is filled up."""
        for name, values in columns.items():
            if name not in self._columns:
                self._columns[name] = [_ABSENT[name]] * self._rows
            self._columns[name] += values
        for name in self._columns.keys() - columns.keys():
            self._columns[name] += [_ABSENT[name]] * rows
        self._rows += rows

    def _identify(self, chunk: Chunk) -> None:
        """Hash the rows into the batch's token: their lines' bytes, and all that joins a line to
        make a row. The same token with other rows would store nothing and say success.
        """
        self._hash.update(repr(chunk.source).encode())
        self._hash.update(array("Q", chunk.numbers).tobytes())
        self._hash.update(b"".join(chunk.digests))

    def flush(self) -> Iterator[Outcome]:
        """Store what is there; the outcomes of the objects that are complete with it."""
        if not self.unstored and not self.run.dry_run:
            try:
                self._store()
            except (ClickHouseError, ConfigurationError) as error:
                self.stopped = self.unstored = str(error)
            except Exception as error:  # noqa: BLE001  # what is stored is not to fail with the rest
                self.stopped = self.unstored = defect(error)
        if self.unstored:
            for outcome in self.outcomes:
                if outcome.status == "processed":
                    outcome.fail(self.unstored, "unstored")
        self._clear()
        outcomes, self.outcomes = self.outcomes, []
        yield from outcomes

    def _store(self) -> None:
        clickhouse, deadline = self.run.connections.clickhouse, self.run.deadline
        if self._rows:
            instants = self._columns.get("timestamp", [0])
            # A part for each month is what was asked for, of an archive of ten years too.
            many = max(instants) - min(instants) > MANY_MONTHS
            settings = {"max_partitions_per_insert_block": 0} if many else {}
            clickhouse.insert(EVENTS, self._columns, self._hash.hexdigest(), deadline, settings)
        if self._rejected:
            ledger.record_rejected(clickhouse, self._rejected, self._salt, deadline)
        done = [(o.obj, o.counts) for o in self.outcomes if o.status == "processed"]
        if done:
            ledger.record_files(clickhouse, done, self.run.mode, self.run.run_id, deadline)
