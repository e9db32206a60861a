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
    ours: dict[str, list[tuple[Failure, Receipt]]] = {}
    for one in failed:
        if (receipt := one.message.receipt) and (url := _queue_of(receipt, run)):
            ours.setdefault(url, []).append((one, receipt))
    dead = _bury([pair for pairs in ours.values() for pair in pairs], run, until)
    for url, pairs in ours.items():
        again = [
            (receipt, _pause_seconds(one, receipt))
            for one, receipt in pairs
            if one.message.id not in dead
        ]
        sqs.give_back(url, again, until)
    return dead


def _pause_seconds(failure: Failure, receipt: Receipt) -> int:
    # What gets on needs only more time; an upload that is missing needs the longer pauses.
    receives = 1 if failure.progress and not failure.poison else receipt.receives
    return sqs.pause_seconds(receives, busy=failure.busy)


def _bury(failed: Sequence[tuple[Failure, Receipt]], run: Run, until: Deadline) -> set[str]:
    poison = [(o, r) for o, r in failed if o.poison and r.receives >= POISON_RECEIVES]
    letters = [(_letter_body(one, receipt), one.reason) for one, receipt in poison]
    sent = sqs.send_letters(run.settings.dead_letter_queue_url, letters, until)
    dead = {poison[n][0].message.id: poison[n][0].reason for n in sorted(sent)}
    if dead:
        shown = [
            {"message": name, "reason": reason[:SHOWN_CHARACTERS]}
            for name, reason in islice(dead.items(), SHOWN_FAILURES)
        ]
        logger.error("sent to the dead-letter queue", extra={"dead_letters": shown})
    return set(dead)


def _letter_body(failure: Failure, receipt: Receipt) -> str:
    """The message as it was; of a backfill's, only the objects that are not done."""
    message = failure.message
    if message.backfill is None or message.error:
        return receipt.body
    return messages.body(failure.left, message.backfill)


def _queue_of(receipt: Receipt, run: Run) -> str:
    """The URL of the message's queue, if SQS is to be told about the message; else ''."""
    settings = run.settings
    if run.wanted.dry_run or not settings.dead_letter_queue_url:
        return ""
    name = receipt.queue_arn.rpartition(":")[2]
    urls = (settings.queue_url, settings.backfill_queue_url)
    return next((url for url in urls if url and url.rstrip("/").rpartition("/")[2] == name), "")
