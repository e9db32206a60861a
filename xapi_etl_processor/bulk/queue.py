"""A bulk request through the queue: its objects become messages that invoke the function."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from itertools import islice

from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.errors import BadRequest
from xapi_etl_processor.bulk.estimate import Estimate
from xapi_etl_processor.common import PAGE_OBJECTS, looked_up
from xapi_etl_processor.outcome import TIME_RAN_OUT, Outcome, Status, Stop, StopReason
from xapi_etl_processor.queues import sqs
from xapi_etl_processor.queues.messages import Outgoing, messages
from xapi_etl_processor.queues.payloads import Backfill
from xapi_etl_processor.run import Run
from xapi_etl_processor.s3.objects import S3Object

ANSWER_SECONDS = 1
"""Seconds of an invocation that are kept for the answer. Our limit."""

HELD_OBJECTS = 10 * PAGE_OBJECTS
"""How many outcomes may wait until a message is full; bounds the memory where nearly all objects
are in the ledger. Our choice."""


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
    wanted = Backfill(run.force, run.replace)
    status = Status.FOUND if run.dry_run else Status.SENT
    source = iter(objects)
    held: deque[Outcome] = deque()
    waiting: list[S3Object] = []
    stop: Stop | None = None
    while not stop:
        page = looked_up(list(islice(source, PAGE_OBJECTS)), run, Status.WAITING)
        held.extend(page)
        waiting += [one.obj for one in page if one.status is Status.WAITING and not one.stop]
        made = list(messages(waiting, wanted))
        is_last = not page or page[0].stop is not None
        # More objects may fit into the last message.
        keep = made and not is_last and len(held) < HELD_OBJECTS
        waiting = list(made.pop().objects) if keep else []
        sent, stop = (made, None) if run.dry_run else _deliver(made, run)
        for message in sent:
            estimate.add(message)
        yield from _done(held, sum(len(message.objects) for message in sent), status)
        if is_last:
            break
    for outcome in held:
        if stop and outcome.status is Status.WAITING and not outcome.stop:
            outcome.mark_stopped(Status.WAITING, stop)
    yield from held


def _deliver(made: list[Outgoing], run: Run) -> tuple[list[Outgoing], Stop | None]:
    """Send the messages; returns those before the first one that SQS did not acknowledge, and why
    it did not. Later ones that it did acknowledge are sent again when the request is continued.
    """
    url = run.settings.backfill_queue_url
    until = run.deadline.earlier(ANSWER_SECONDS, share=1 / 2)
    taken, problem = sqs.send(url, [message.body for message in made], until)
    first = next((n for n in range(len(made)) if n not in taken), None)
    if first is None:
        return made, None
    if until.has_passed:
        return made[:first], TIME_RAN_OUT
    return made[:first], Stop(
        StopReason.SENDING_FAILED,
        f"{url} did not take {len(made) - len(taken)} of {len(made)} messages, {problem}: check"
        " that BACKFILL_QUEUE_URL is the stack's output BackfillQueueUrl, and that whoever sends"
        " may do sqs:SendMessage; then continue with --resume or the token",
    )


def _done(held: deque[Outcome], sent: int, status: Status) -> Iterator[Outcome]:
    """The held outcomes up to the first object that is not sent; the first `sent` of those that
    were waiting get the status.
    """
    while held and (sent or held[0].status is Status.SKIPPED):
        outcome = held.popleft()
        if outcome.status is Status.WAITING:
            outcome.status = status
            sent -= 1
        yield outcome
