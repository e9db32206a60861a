"""The pipeline that every mode shares: objects -> lines -> statements -> batches -> inserts.

Memory is bounded by two batches and what is fetched ahead, never by the size of an object. A batch
fills across objects, while the one before it is stored. An object counts as processed once all its
inserts have been acknowledged: the one with its last row, those with its rejected lines and with
the statements that it voids, and its ledger row.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice

from xapi_etl_processor.deadlines import DaemonThreads
from xapi_etl_processor.errors import (
    BadRequest,
    ClickHouseError,
    ConfigurationError,
    DeadlinePassed,
    S3Late,
    S3Unusable,
    XapiEtlError,
)
from xapi_etl_processor.run import (
    TIME_RAN_OUT,
    Outcome,
    Run,
    Status,
    Stop,
    StopReason,
    stop_after,
    stopped,
)
from xapi_etl_processor.sources import reading
from xapi_etl_processor.sources.objects import S3Object
from xapi_etl_processor.storage import ledger
from xapi_etl_processor.storage.storing import Storing
from xapi_etl_processor.telemetry import describe_defect
from xapi_etl_processor.xapi.chunk import Source
from xapi_etl_processor.xapi.lines import (
    MAX_LINE_BYTES,
    MIB,
    BrokenGzip,
    decompressed,
    split_lines,
)
from xapi_etl_processor.xapi.parse import Parsed, parse

MAX_OBJECT_BYTES = 5 * 1024 * MIB
"""The largest object; a larger one fails without being read. Our limit: what a single upload may
have, and more than one invocation can load."""

PAGE_OBJECTS = 500
"""Objects that one query looks up in the ledger. Our choice."""


def process(objects: Iterable[S3Object], run: Run) -> Generator[Outcome, None, None]:
    """Load the objects' video statements into ClickHouse; gives an outcome for each, in order.

    Ends early when the time runs out or ClickHouse fails for good: the last outcomes are then
    WAITING or UNSTORED, and the rest of `objects` has not been looked at. Processing any of them
    again loses and doubles nothing. Raises what iterating over `objects` raises.
    """
    with _thread() as thread:
        storing = Storing(run, thread)
        source = iter(objects)
        while page := list(islice(source, PAGE_OBJECTS)):
            yield from _process_page(page, storing)
            if storing.stop:
                break
        # After a stop too: the last object of a page may still be in the batch.
        yield from storing.finish()


@contextmanager
def _thread() -> Iterator[DaemonThreads]:
    """A thread for rows on their way; leaving the block waits for them, except after Ctrl-C."""
    thread = DaemonThreads(1)
    patience = None
    try:
        yield thread
    except KeyboardInterrupt:
        # ClickHouse may be silent for minutes, and the process ends now.
        patience = 0
        raise
    finally:
        thread.close(patience)


def _process_page(page: list[S3Object], storing: Storing) -> Iterator[Outcome]:
    run = storing.run
    yield from storing.settle()
    if run.out_of_time:
        storing.stop = storing.stop or TIME_RAN_OUT
    if storing.stop:
        yield from _left(page, storing)
        return
    try:
        page, known = _look_up(page, run)
    except (ClickHouseError, ConfigurationError) as error:
        # This comes first: after a stop for a busy ClickHouse, nothing more is stored.
        yield from storing.finish()
        storing.stop = stop = storing.stop or stop_after(error, StopReason.LEDGER_FAILED)
        for outcome in map(Outcome, page):
            outcome.mark_unstored(stop)
            yield outcome
        return
    fresh = [obj for obj in page if ledger.identity(obj) not in known]
    fetched = reading.bodies(run.connections.s3, fresh, run.read_until)
    with closing(fetched) as bodies:
        for position, obj in enumerate(page):
            if run.out_of_time:
                storing.stop = storing.stop or TIME_RAN_OUT
            if storing.stop:
                yield from _left(page[position:], storing)
                return
            if ledger.identity(obj) in known:
                storing.batch.outcomes.append(Outcome(obj, Status.SKIPPED))
            else:
                yield from _process_one(*next(bodies), storing)
            if storing.is_due:
                yield from storing.flush()


def _left(objects: Iterable[S3Object], storing: Storing) -> Iterator[Outcome]:
    """Store what was read, and leave these objects, since there is a reason to stop."""
    yield from storing.finish()
    # Storing may have failed, which is another reason.
    stop = storing.stop or TIME_RAN_OUT
    yield from (stopped(obj, Status.WAITING, stop) for obj in objects)


def _look_up(page: list[S3Object], run: Run) -> tuple[list[S3Object], set[ledger.Identity]]:
    """The objects with their etags, and which of them the ledger knows."""
    page = reading.describe(run.connections.s3, page, run.read_until)
    known = _to_skip(page, run)
    if any(ledger.identity(obj) not in known for obj in page):
        run.connections.learners.check(run.deadline)
        # Whoever replaces an object after it was read here notes it later than this.
        run.notes_seen = run.notes_seen or run.connections.learners.state
    return page, known


def _to_skip(page: list[S3Object], run: Run) -> set[ledger.Identity]:
    """The objects that are in the ledger; if the run is forced, only those that it has processed
    itself in an earlier delivery. Raises ClickHouseError.
    """
    if run.force and not run.forced_since:
        return set()
    clickhouse = run.connections.clickhouse
    return ledger.already_processed(clickhouse, page, run.deadline, run.forced_since)


def looked_up(page: list[S3Object], run: Run, new: Status) -> list[Outcome]:
    """An outcome for each object: SKIPPED if it is in the ledger, else `new`; if the ledger could
    not be asked, WAITING, with the reason.
    """
    try:
        known = _to_skip(page, run)
    except ClickHouseError as error:
        stop = stop_after(error, StopReason.LEDGER_FAILED)
        return [stopped(obj, Status.WAITING, stop) for obj in page]
    return [Outcome(obj, Status.SKIPPED if ledger.identity(obj) in known else new) for obj in page]


def _process_one(obj: S3Object, body: Iterator[bytes], storing: Storing) -> Iterator[Outcome]:
    """Read one object into batches; gives the outcomes of those that are stored meanwhile."""
    outcome = Outcome(obj)
    with _failures_noted(outcome):
        for parsed in parsed_parts(obj, body, storing.run):
            outcome.timestamps_replaced += storing.batch.add(obj, parsed)
            outcome.counts.add(parsed.counts)
            if storing.is_due:
                yield from storing.flush()
            if failure := storing.insert_failure:
                outcome.mark_unstored(failure)
                break
    storing.batch.outcomes.append(outcome)


@contextmanager
def _failures_noted(outcome: Outcome) -> Iterator[None]:
    """Read an object in this block: what it raises becomes its outcome."""
    uri = outcome.obj.uri
    try:
        yield
    except (DeadlinePassed, S3Late):
        outcome.mark_stopped(Status.WAITING, _out_of_time_in(outcome))
    except XapiEtlError as error:
        text = error if uri in str(error) else f"{uri}: {error}"
        outcome.mark_failed(text, poison=error.poison)
        outcome.bad_request = isinstance(error, BadRequest)
    except Exception as error:  # noqa: BLE001  # a defect must not fail the objects beside it
        outcome.mark_failed(f"{uri}: {describe_defect(error)}")
    if not outcome.failed:
        _check_counts(outcome)


def examine(objects: Sequence[S3Object], run: Run) -> Generator[Outcome, None, None]:
    """Read each object to its end, as far as time allows, and store nothing: the outcome says
    whether it can be read. ClickHouse is asked nothing.
    """
    stores = run.connections.s3
    described = reading.describe(stores, objects, run.read_until)
    with closing(reading.bodies(stores, described, run.read_until)) as bodies:
        for obj, body in bodies:
            outcome = Outcome(obj, Status.FOUND)
            with _failures_noted(outcome):
                for parsed in parsed_parts(obj, body, run):
                    outcome.counts.add(parsed.counts)
            yield outcome


def parsed_parts(obj: S3Object, body: Iterator[bytes], run: Run) -> Iterator[Parsed]:
    """What the object's lines became, some lines at a time, in order.

    Raises S3Error if the body cannot be read to its end, S3Unusable if it is broken gzip or larger
    than the limits, and DeadlinePassed when no new work may begin.
    """
    source = source_of(obj)
    first = 1
    for lines in line_parts(obj, body, run):
        yield parse(lines, first, source, MAX_LINE_BYTES)
        first += len(lines)


def source_of(obj: S3Object) -> Source:
    """What an object says of itself, and supplies where its statements are silent."""
    return Source(obj.uri, obj.etag, obj.section, obj.key_timestamp_ms, obj.modified_ms or 0)


def line_parts(obj: S3Object, body: Iterator[bytes], run: Run) -> Iterator[list[bytes]]:
    """The object's lines, some at a time, in order; raises as `parsed_parts` does."""
    _check_size(obj)
    # Checked for every chunk, since one line, or one byte of gzip, can be many chunks.
    chunks = _until_out_of_time(unpacked(obj.uri, body), run)
    yield from split_lines(chunks, MAX_LINE_BYTES)


def unpacked(name: str, body: Iterable[bytes]) -> Iterator[bytes]:
    """A body in chunks, unpacked if it is gzip; raises S3Unusable, with the name, if it is broken
    or unpacks to more than the limits.
    """
    try:
        yield from decompressed(body)
    except BrokenGzip as error:
        raise S3Unusable(f"{name}: {error}") from error


def _until_out_of_time(chunks: Iterable[bytes], run: Run) -> Iterator[bytes]:
    """The chunks; raises DeadlinePassed when no new work may begin."""
    for chunk in chunks:
        if run.out_of_time:
            raise DeadlinePassed
        yield chunk


def _out_of_time_in(outcome: Outcome) -> Stop:
    """The stop in the middle of an object, which a longer time may finish."""
    if not outcome.counts.lines:
        return TIME_RAN_OUT
    return Stop(
        StopReason.OUT_OF_TIME,
        f"{outcome.obj.uri}: time ran out at line {outcome.counts.lines}: give the function more"
        " time, or process the object from the command line",
    )


def _check_size(obj: S3Object) -> None:
    if obj.size is not None and obj.size > MAX_OBJECT_BYTES:
        raise S3Unusable(
            f"{obj.uri} has {obj.size} bytes, more than {MAX_OBJECT_BYTES // MIB} MiB: split it"
        )


def _check_counts(outcome: Outcome) -> None:
    """Fail an object that would otherwise be a silent success: none of its lines could be used."""
    counts, uri = outcome.counts, outcome.obj.uri
    if not counts.add_up:
        outcome.mark_failed(f"{uri}: lines do not add up, {counts}: report this as a defect")
    elif counts.rejected and not counts.video + counts.other + counts.forgotten:
        outcome.mark_failed(
            f"{uri}: none of its lines is a statement, {counts.rejected} were rejected: see"
            " rejected_statements; it is not a bundle, or its writer is broken"
        )
