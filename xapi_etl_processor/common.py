"""The heart of every mode: objects become inserts, and each an outcome. An object is processed
once all its inserts have been acknowledged, that of its ledger row last.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice

from xapi_etl_processor.base.deadlines import DaemonThreads
from xapi_etl_processor.base.errors import (
    BadRequest,
    ClickHouseError,
    ConfigurationError,
    DeadlinePassed,
    S3Late,
    XapiEtlError,
    naming,
)
from xapi_etl_processor.base.telemetry import counted, describe_defect
from xapi_etl_processor.outcome import (
    TIME_RAN_OUT,
    Outcome,
    Status,
    Stop,
    StopReason,
    stop_after,
    stopped,
)
from xapi_etl_processor.pipeline.earlier_versions import EarlierVersions
from xapi_etl_processor.pipeline.writer import Writer
from xapi_etl_processor.run import Run
from xapi_etl_processor.s3 import read
from xapi_etl_processor.s3.bundle import parsed_parts
from xapi_etl_processor.s3.objects import S3Object
from xapi_etl_processor.storage import ledger

PAGE_OBJECTS = 500
"""Objects that one query looks up in the ledger. Our choice."""


def load(objects: Iterable[S3Object], run: Run) -> Generator[Outcome, None, None]:
    """As `process`; with `replace`, what earlier versions of the objects left is removed too. An
    object of which that fails has failed, though it is stored.
    """
    if not run.wanted.replace or run.wanted.dry_run:
        yield from process(objects, run)
        return
    earlier_versions = EarlierVersions(run)
    source = iter(objects)
    while page := list(islice(source, PAGE_OBJECTS)):
        # Each page is stored whole before anything is removed: the ledger does not know an object
        # that is being loaded, whose rows may have been dropped in favor of those to be removed.
        with closing(process(page, run)) as processing:
            outcomes = list(processing)
        earlier_versions.remove(outcomes)
        yield from outcomes
        if any(outcome.stop for outcome in outcomes):
            return


def process(objects: Iterable[S3Object], run: Run) -> Generator[Outcome, None, None]:
    """Store the objects' video statements in ClickHouse; gives an outcome for each, in order.

    Ends early when the time runs out or ClickHouse fails for good: the last outcomes are then
    WAITING or UNSTORED, and the rest of `objects` has not been looked at. Raises what iterating
    over `objects` raises.
    """
    with _thread() as thread:
        writer = Writer(run, thread)
        source = iter(objects)
        while not writer.stop and (page := list(islice(source, PAGE_OBJECTS))):
            yield from _process_page(page, writer)
        # After a stop too: the last object of a page may still be in the batch.
        yield from writer.finish()


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


def _process_page(page: list[S3Object], writer: Writer) -> Iterator[Outcome]:
    """Read what the ledger does not know; gives the outcomes that are known by then."""
    run = writer.run
    yield from writer.settle()
    if writer.should_stop:
        yield from _left(page, writer)
        return
    try:
        page, known = _look_up(page, run)
    except (ClickHouseError, ConfigurationError) as error:
        yield from _not_looked_up(page, error, writer)
        return
    fresh = [obj for obj in page if ledger.identity(obj) not in known]
    with closing(read.bodies(run.connections.s3, fresh, run.read_until)) as bodies:
        for position, obj in enumerate(page):
            if writer.should_stop:
                yield from _left(page[position:], writer)
                return
            if ledger.identity(obj) in known:
                writer.batch.outcomes.append(Outcome(obj, Status.SKIPPED))
            else:
                yield from _process_one(*next(bodies), writer)
            if writer.is_due:
                yield from writer.flush()


def _left(objects: Iterable[S3Object], writer: Writer) -> Iterator[Outcome]:
    """Store what was read, and leave these objects, since there is a reason to stop."""
    yield from writer.finish()
    # Storing may have failed, which is another reason.
    stop = writer.stop or TIME_RAN_OUT
    yield from (stopped(obj, Status.WAITING, stop) for obj in objects)


def _not_looked_up(page: list[S3Object], error: Exception, writer: Writer) -> Iterator[Outcome]:
    # This comes first: after a stop for a busy ClickHouse, nothing more is stored.
    yield from writer.finish()
    writer.stop = stop = writer.stop or stop_after(error, StopReason.LEDGER_FAILED)
    for outcome in map(Outcome, page):
        outcome.mark_unstored(stop)
        yield outcome


def _look_up(page: list[S3Object], run: Run) -> tuple[list[S3Object], set[ledger.Identity]]:
    """The objects with their etags, and which of them the ledger knows."""
    page = read.describe(run.connections.s3, page, run.read_until)
    learners, began = run.connections.learners, time.monotonic()
    state = None
    if run.wanted.force:
        known = _to_skip(page, run)
        learners.refresh(run.deadline)
    else:
        known, state = ledger.look_up(run.connections.clickhouse, page, run.deadline)
    if any(ledger.identity(obj) not in known for obj in page):
        if state:
            learners.heed(state, began, run.deadline)
        learners.check_ids(run.deadline)
        # Whoever replaces an object after it was read here notes it later than this.
        run.notes_seen = run.notes_seen or run.connections.learners.state
    return page, known


def _to_skip(page: list[S3Object], run: Run) -> set[ledger.Identity]:
    """The objects that are in the ledger; if the run is forced, only those that it has processed
    itself in an earlier delivery. Raises ClickHouseError.
    """
    if run.wanted.force and not run.wanted.forced_since:
        return set()
    clickhouse = run.connections.clickhouse
    return ledger.already_processed(clickhouse, page, run.deadline, run.wanted.forced_since)


def looked_up(objects: Iterable[S3Object], run: Run, new: Status) -> Generator[Outcome, None, None]:
    """An outcome for each object: SKIPPED if it is in the ledger, else `new`. If that cannot be
    asked, the last ones are WAITING, with the reason.
    """
    source = iter(objects)
    while page := list(islice(source, PAGE_OBJECTS)):
        try:
            known = _to_skip(page, run)
        except ClickHouseError as error:
            stop = stop_after(error, StopReason.LEDGER_FAILED)
            yield from (stopped(obj, Status.WAITING, stop) for obj in page)
            return
        for obj in page:
            yield Outcome(obj, Status.SKIPPED if ledger.identity(obj) in known else new)


def _process_one(obj: S3Object, body: Iterator[bytes], writer: Writer) -> Iterator[Outcome]:
    """Read one object into batches; gives the outcomes of others that are stored meanwhile."""
    outcome = Outcome(obj)
    with _failures_noted(outcome):
        for parsed in parsed_parts(obj, body, writer.run.read_until):
            outcome.timestamps_replaced += writer.batch.add(obj, parsed)
            outcome.counts.add(parsed.counts)
            if writer.is_due:
                yield from writer.flush()
            if failure := writer.insert_failure:
                outcome.mark_unstored(failure)
                break
    writer.batch.outcomes.append(outcome)


def examine(objects: Sequence[S3Object], run: Run) -> Generator[Outcome, None, None]:
    """Read each object, as far as time allows, and ask ClickHouse nothing; an outcome for each."""
    stores = run.connections.s3
    described = read.describe(stores, objects, run.read_until)
    with closing(read.bodies(stores, described, run.read_until)) as bodies:
        for obj, body in bodies:
            outcome = Outcome(obj, Status.FOUND)
            with _failures_noted(outcome):
                for parsed in parsed_parts(obj, body, run.read_until):
                    outcome.counts.add(parsed.counts)
            yield outcome


@contextmanager
def _failures_noted(outcome: Outcome) -> Iterator[None]:
    """Read an object in this block: what it raises becomes its outcome."""
    uri = outcome.obj.uri
    try:
        yield
    except (DeadlinePassed, S3Late):
        outcome.mark_stopped(Status.WAITING, _out_of_time_in(outcome))
    except XapiEtlError as error:
        outcome.mark_failed(naming(uri, error), poison=error.poison)
        outcome.bad_request = isinstance(error, BadRequest)
    except Exception as error:  # noqa: BLE001  # a defect must not fail the objects beside it
        outcome.mark_failed(f"{uri}: {describe_defect(error)}")
    if not outcome.failed:
        _check_counts(outcome)


def _out_of_time_in(outcome: Outcome) -> Stop:
    if not outcome.counts.lines:
        return TIME_RAN_OUT
    return Stop(
        StopReason.OUT_OF_TIME,
        f"{outcome.obj.uri}: time ran out at line {outcome.counts.lines}: give the function more"
        " time, or process the object from the command line",
    )


def _check_counts(outcome: Outcome) -> None:
    """Fail an object that would otherwise be a silent success: none of its lines could be used."""
    counts, uri = outcome.counts, outcome.obj.uri
    if not counts.add_up:
        outcome.mark_failed(f"{uri}: lines do not add up, {counts}: report this as a defect")
    elif counts.rejected and not counts.video + counts.other + counts.forgotten:
        outcome.mark_failed(
            f"{uri}: none of its lines is a statement, {counted(counts.rejected, 'was', 'were')}"
            " rejected: it is no bundle, or its writer is broken; `explain` says what it is instead"
        )
