"""What becomes of the messages of an SQS batch that failed: tried again, or dead letters.

SQS's count of deliveries cannot tell poison from an outage: the queue allows many, and poison
becomes a dead letter here.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from xapi_etl_processor.base.deadlines import Deadline
from xapi_etl_processor.base.telemetry import logger
from xapi_etl_processor.modes.answer import SHOWN_CHARACTERS, SHOWN_FAILURES
from xapi_etl_processor.queues import messages, sqs
from xapi_etl_processor.queues.payloads import Message, Receipt
from xapi_etl_processor.run import Run
from xapi_etl_processor.s3.objects import S3Object

POISON_RECEIVES = 5
"""The delivery at which poison becomes a dead letter: with `sqs.PAUSE_MINUTES`, a quarter of an
hour after the first, in which an upload may end or a deletion be undone. Our choice."""

RESERVE_SECONDS = 5
"""The part of an invocation's time that is kept for SQS: one attempt at one call. Our choice."""

REPORT_SECONDS = 1
"""What SQS leaves of that time, to report what happened. Our limit."""


class Failure(NamedTuple):
    """A message that failed, why, whether it is poison, which of its objects are not done, whether
    others were processed now, and whether ClickHouse was too busy for it.
    """

    message: Message
    reason: str
    poison: bool
    left: tuple[S3Object, ...] = ()
    progress: bool = False
    busy: bool = False


class _Received(NamedTuple):
    """A failed message that SQS is to be told about."""

    failure: Failure
    receipt: Receipt
    url: str

    @property
    def is_dead(self) -> bool:
        return self.failure.poison and self.receipt.receives >= POISON_RECEIVES


def is_suspect(message: Message, run: Run) -> bool:
    """Whether the message may be poison that is not found because ClickHouse is away."""
    # At every fifth delivery only: looking costs time that processing may need.
    if message.receipt is None or not _queue_of(message.receipt, run):
        return False
    return message.receipt.receives % POISON_RECEIVES == 0


def settle(failed: Sequence[Failure], run: Run, end: Deadline) -> set[str]:
    """Send poison to the dead-letter queue, and give the others back to their queues; returns the
    ids of the dead letters that SQS has acknowledged.
    """
    until = end.earlier(REPORT_SECONDS, share=1 / 2)
    ours = [
        _Received(one, one.message.receipt, url)
        for one in failed
        if one.message.receipt and (url := _queue_of(one.message.receipt, run))
    ]
    dead = _bury([one for one in ours if one.is_dead], run, until)
    for url in dict.fromkeys(one.url for one in ours):
        again = [
            (one.receipt, _pause_seconds(one))
            for one in ours
            if one.url == url and one.failure.message.id not in dead
        ]
        sqs.give_back(url, again, until)
    return dead


def _pause_seconds(one: _Received) -> int:
    failure = one.failure
    # What gets on needs only more time; an upload that is missing needs the longer pauses.
    receives = 1 if failure.progress and not failure.poison else one.receipt.receives
    return sqs.pause_seconds(receives, busy=failure.busy)


def _bury(poison: Sequence[_Received], run: Run, until: Deadline) -> set[str]:
    letters = [(_letter_body(one), one.failure.reason) for one in poison]
    sent = sqs.send_letters(run.settings.dead_letter_queue_url, letters, until)
    dead = {poison[n].failure.message.id: poison[n].failure.reason for n in sorted(sent)}
    if dead:
        shown = [
            {"message": name, "reason": reason[:SHOWN_CHARACTERS]}
            for name, reason in islice(dead.items(), SHOWN_FAILURES)
        ]
        logger.error("sent to the dead-letter queue", extra={"dead_letters": shown})
    return set(dead)


def _letter_body(one: _Received) -> str:
    """The message as it was; of a backfill's, only the objects that are not done."""
    message = one.failure.message
    if message.backfill is None or message.error:
        return one.receipt.body
    return messages.body(one.failure.left, message.backfill)


def _queue_of(receipt: Receipt, run: Run) -> str:
    """The URL of the message's queue, if SQS is to be told about the message; else ''."""
    settings = run.settings
    if run.wanted.dry_run or not settings.dead_letter_queue_url:
        return ""
    name = receipt.queue_arn.rpartition(":")[2]
    urls = (settings.queue_url, settings.backfill_queue_url)
    return next((url for url in urls if url and url.rstrip("/").rpartition("/")[2] == name), "")
