"""What becomes of the messages of an SQS batch that failed: tried again, or dead letters.

SQS counts every delivery, also those during an outage, so its count alone cannot tell poison from
bad times: the queue allows many deliveries, and poison becomes a dead letter here.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from xapi_etl_processor.deadlines import Deadline
from xapi_etl_processor.modes.answer import SHOWN_CHARACTERS, SHOWN_FAILURES
from xapi_etl_processor.run import Run
from xapi_etl_processor.sources import queue
from xapi_etl_processor.sources.payloads import Message, Receipt
from xapi_etl_processor.sources.queue import Letter
from xapi_etl_processor.telemetry import logger

POISON_RECEIVES = 5
"""The delivery at which poison becomes a dead letter: with `queue.PAUSE_MINUTES`, a quarter of an
hour after the first, in which an upload may end or a deletion be undone. Our choice."""

RESERVE_SECONDS = 5
"""The part of an invocation's time that is kept for SQS: one attempt at one call. Our choice."""

REPORT_SECONDS = 1
"""What SQS leaves of that time, to report what happened. Our limit."""


class Failure(NamedTuple):
    """A message that failed, why, whether it is poison (see errors.py), and whether ClickHouse was
    too busy for it.
    """

    message: Message
    reason: str
    poison: bool
    busy: bool


def is_suspect(message: Message, run: Run) -> bool:
    """Whether the message may be poison that is not found because ClickHouse is away.

    At every fifth delivery only, since looking costs time that processing may need.
    """
    receipt = _receipt(message, run)
    return receipt is not None and receipt.receives % POISON_RECEIVES == 0


def settle(failed: Sequence[Failure], run: Run, end: Deadline) -> set[str]:
    """Send poison to the dead-letter queue, and give the others back to theirs.

    Returns the ids of the dead letters: SQS has acknowledged them, so they need not be delivered
    again. What it does not take is delivered again after the queue's own visibility timeout.
    """
    until = end.earlier(REPORT_SECONDS, share=1 / 2)
    ours = [(one, receipt) for one in failed if (receipt := _receipt(one.message, run))]
    poison = [(o, r) for o, r in ours if o.poison and r.receives >= POISON_RECEIVES]
    letters = [Letter(receipt, one.reason) for one, receipt in poison]
    sent = queue.send_letters(run.settings.dead_letter_queue_url, letters, until)
    dead = {poison[n][0].message.id: poison[n][0].reason for n in sorted(sent)}
    if dead:
        shown = [
            {"message": name, "reason": reason[:SHOWN_CHARACTERS]}
            for name, reason in islice(dead.items(), SHOWN_FAILURES)
        ]
        logger.error("sent to the dead-letter queue", extra={"dead_letters": shown})
    again = [
        (receipt, queue.pause_seconds(receipt.receives, busy=one.busy))
        for one, receipt in ours
        if one.message.id not in dead
    ]
    queue.give_back(run.settings.queue_url, again, until)
    return set(dead)


def _receipt(message: Message, run: Run) -> Receipt | None:
    """The message's receipt, if SQS is to be told about it: not in a dry run, not without the URLs
    of both queues, and not for a message of another queue that invokes the function too.
    """
    settings, receipt = run.settings, message.receipt
    if run.dry_run or receipt is None:
        return None
    if not settings.queue_url or not settings.dead_letter_queue_url:
        return None
    name = settings.queue_url.rstrip("/").rpartition("/")[2]
    return receipt if name == receipt.queue_arn.rpartition(":")[2] else None
