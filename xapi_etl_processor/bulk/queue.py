"""A bulk request through the queue: its objects become messages that invoke the function."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from xapi_etl_processor.base.errors import BadRequest
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
"""How many objects are held and sorted by month, so that each message has objects of one month.
Bounds the memory. Our choice."""

INVOCATION_SECONDS = 0.1
"""Seconds that an invocation takes besides its work: docs/performance.md has 87 ms for one with a
single small bundle, if S3 takes 30 ms to answer."""


@dataclass
class Sent:
    """What was sent, or would be, and how long `concurrency` invocations at a time take for it."""

    concurrency: int
    objects: int = 0
    size: int = 0
    messages: int = 0
    seconds: float = 0.0
    longest: float = 0.0

    def add(self, message: Outgoing) -> None:
        """Count a message."""
        seconds = message.seconds + INVOCATION_SECONDS
        self.messages += 1
        self.seconds += seconds
        self.longest = max(self.longest, seconds)

    @property
    def minutes(self) -> float:
        """How long the queue takes for the messages."""
        return max(self.seconds / self.concurrency, self.longest) / 60

    def body(self) -> dict[str, Any]:
        """The part of a bulk answer that says what is sent."""
        return {
            "engine": "queue",
            "files_sent": self.objects,
            "bytes_sent": self.size,
            "messages": self.messages,
            "estimated_minutes": round(self.minutes, 1),
        }


def send(objects: Iterable[S3Object], run: Run, sent: Sent) -> Generator[Outcome, None, None]:
    """Send what the ledger does not know, or in a dry run only count it; gives outcomes in order.

    An object is SENT once SQS has acknowledged its message. From the first on for which it did not,
    all are WAITING, and the rest of `objects` has not been looked at. Raises BadRequest if there is
    no queue.
    """
    if not run.settings.backfill_queue_url:
        raise BadRequest(
            'engine is "queue", but BACKFILL_QUEUE_URL is not set: it is the output'
            " BackfillQueueUrl of the stack, and the stack's function has it once the stack is"
            " deployed from the current cloudformation.yaml"
        )
    found = looked_up(objects, run, Status.WAITING)
    stop: Stop | None = None
    while not stop and (held := list(islice(found, HELD_OBJECTS))):
        waiting = [one.obj for one in held if one.status is Status.WAITING and not one.stop]
        # The month of the first object comes first, so that what is sent first is done first.
        months = {month: n for n, month in enumerate(dict.fromkeys(obj.month for obj in waiting))}
        waiting.sort(key=lambda obj: months[obj.month])
        made = list(messages(waiting, Backfill(run.wanted.force, run.wanted.replace)))
        taken, stop = (made, None) if run.wanted.dry_run else _deliver(made, run)
        for message in taken:
            sent.add(message)
        stop = stop or held[-1].stop
        yield from _outcomes(held, {obj for message in taken for obj in message.objects}, stop, run)


def _deliver(made: list[Outgoing], run: Run) -> tuple[list[Outgoing], Stop | None]:
    """Send the messages; returns those that SQS acknowledged, and why it did not all."""
    url = run.settings.backfill_queue_url
    until = run.deadline.earlier(ANSWER_SECONDS, share=1 / 2)
    taken, problem = sqs.send(url, [message.body for message in made], until)
    acknowledged = [message for n, message in enumerate(made) if n in taken]
    if len(acknowledged) == len(made):
        return made, None
    if until.has_passed:
        return acknowledged, TIME_RAN_OUT
    return acknowledged, Stop(
        StopReason.SENDING_FAILED,
        f"{url} did not take {len(made) - len(taken)} of {len(made)} messages, {problem}: check"
        " that BACKFILL_QUEUE_URL is the stack's output BackfillQueueUrl, and that whoever sends"
        " may do sqs:SendMessage; then continue with the token",
    )


def _outcomes(
    held: list[Outcome], taken: set[S3Object], stop: Stop | None, run: Run
) -> Iterator[Outcome]:
    """The outcomes; those from the first one on that was not taken are sent again later."""
    begun = True
    for outcome in held:
        begun = begun and (outcome.status is Status.SKIPPED or outcome.obj in taken)
        if not begun:
            outcome.mark_stopped(Status.WAITING, outcome.stop or stop or TIME_RAN_OUT)
        elif outcome.status is Status.WAITING:
            outcome.status = Status.FOUND if run.wanted.dry_run else Status.SENT
        yield outcome
