"""A bulk request through the queue: its objects become messages that invoke the function."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from itertools import islice

from xapi_etl_processor.common import PAGE_OBJECTS, to_skip
from xapi_etl_processor.config import Settings
from xapi_etl_processor.errors import BadRequest, ClickHouseError
from xapi_etl_processor.modes.estimate import Estimate
from xapi_etl_processor.run import TIME_RAN_OUT, Outcome, Run, Status, Stop, StopReason, stopped
from xapi_etl_processor.sources import messages, queue
from xapi_etl_processor.sources.messages import Outgoing
from xapi_etl_processor.sources.objects import S3Object
from xapi_etl_processor.sources.payloads import Backfill
from xapi_etl_processor.storage.ledger import identity

ANSWER_SECONDS = 1
"""What sending leaves of the time, to answer. Our limit."""

_Held = deque[Outcome]
"""What became of objects, in their order; those whose messages are not sent yet are WAITING."""


def check_queue(settings: Settings) -> None:
    """Raises BadRequest if there is no queue to send to."""
    if not settings.backfill_queue_url:
        raise BadRequest(
            'engine is "queue", but BACKFILL_QUEUE_URL is not set: it is the output'
            " BackfillQueueUrl of the stack, and the stack's function has it once the stack is"
            " deployed from the current cloudformation.yaml"
        )


def send(
    objects: Iterable[S3Object], run: Run, estimate: Estimate
) -> Generator[Outcome, None, None]:
    """Send what the ledger does not know to the backfill queue; gives an outcome for each object,
    in order, and counts what is sent. A dry run sends nothing, and counts what would be sent.

    An object is SENT once SQS has acknowledged its message. After the first message that SQS does
    not acknowledge, all outcomes are WAITING, and the rest of `objects` has not been looked at.
    Sending an object again doubles nothing.
    """
    held: _Held = deque()
    wanted = Backfill(run.force, run.replace)
    source = messages.messages(_unknown(objects, run, held, estimate), wanted)
    while batch := list(islice(source, queue.CALL_MESSAGES)):
        sent, stop = (batch, None) if run.dry_run else _deliver(batch, run)
        for message in sent:
            estimate.add(message)
        status = Status.FOUND if run.dry_run else Status.SENT
        yield from _done(held, sum(len(message.objects) for message in sent), status)
        if stop:
            for outcome in held:
                if outcome.status is Status.WAITING and not outcome.stop:
                    outcome.mark_stopped(Status.WAITING, stop)
            break
    yield from held


def _unknown(
    objects: Iterable[S3Object], run: Run, held: _Held, estimate: Estimate
) -> Iterator[S3Object]:
    """The objects that the ledger does not know. All of a page are held before one is given."""
    source = iter(objects)
    while page := list(islice(source, PAGE_OBJECTS)):
        estimate.listed += len(page)
        try:
            known = to_skip(page, run)
        except ClickHouseError as error:
            stop = Stop(StopReason.LEDGER_FAILED, str(error))
            held.extend(stopped(obj, Status.WAITING, stop) for obj in page)
            return
        statuses = (Status.SKIPPED if identity(obj) in known else Status.WAITING for obj in page)
        held.extend(map(Outcome, page, statuses))
        yield from (obj for obj in page if identity(obj) not in known)


def _deliver(batch: list[Outgoing], run: Run) -> tuple[list[Outgoing], Stop | None]:
    """Send the messages; gives those before the first that SQS has not acknowledged, and why it has
    not. Later ones that it has are sent again when the request is continued.
    """
    url = run.settings.backfill_queue_url
    until = run.deadline.earlier(ANSWER_SECONDS, share=1 / 2)
    taken, problem = queue.send(url, [message.body for message in batch], until)
    first = next((n for n in range(len(batch)) if n not in taken), None)
    if first is None:
        return batch, None
    if until.has_passed:
        return batch[:first], TIME_RAN_OUT
    return batch[:first], Stop(
        StopReason.SENDING_FAILED,
        f"{url} did not take {len(batch) - len(taken)} of {len(batch)} messages, {problem}: check"
        " that BACKFILL_QUEUE_URL is the stack's output BackfillQueueUrl, and that whoever sends"
        " may do sqs:SendMessage; then continue with the token, or repeat the request",
    )


def _done(held: _Held, sent: int, status: Status) -> Iterator[Outcome]:
    """The held outcomes up to that many sent objects, which get the status."""
    while sent:
        outcome = held.popleft()
        if outcome.status is Status.WAITING:
            outcome.status = status
            sent -= 1
        yield outcome
