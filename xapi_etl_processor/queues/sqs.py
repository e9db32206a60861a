"""The calls to SQS. If one fails, the queue's own visibility timeout and redrive policy apply to
the messages that were received.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Any

from xapi_etl_processor.base import aws
from xapi_etl_processor.base.deadlines import Deadline, call_with_deadline
from xapi_etl_processor.base.errors import DeadlinePassed
from xapi_etl_processor.base.telemetry import logger
from xapi_etl_processor.queues.payloads import Receipt

PAUSE_MINUTES = (1, 2, 4, 8, 10)
"""Minutes until a message is delivered again after its first, second, ... delivery; the last one
for all that follow. Most failures are over within a minute; after an outage, a bundle waits for the
longest pause at most. Our choice."""

BUSY_MINUTES = 10
"""The shortest pause of a message that ClickHouse was too busy for. It may last half as long again,
so that not all messages come back at once. The invocation has waited already. Our choice."""

CONNECT_SECONDS, READ_SECONDS, ATTEMPTS = 2, 3, 2
"""Limits for one call. Ours, and short: a function in a VPC may have no way to SQS."""

CALL_MESSAGES = 10
"""Messages in one call. SQS's limit."""

CALL_BYTES = 256 * 1024
"""Bytes of messages in one call, unless a single message has more. Our limit; SQS's is 1 MiB."""

REASON_CHARACTERS = 1000
"""Characters of a dead letter's reason. Our limit."""

# What SQS does not allow in a message or an attribute (SendMessage, "Important").
_NOT_ALLOWED = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_Entry = dict[str, Any]

Taken = tuple[set[int], str]
"""The positions of the messages that SQS took, and why it did not take the others, or ''."""


def pause_seconds(receives: int, *, busy: bool = False) -> int:
    """Seconds until a message that was delivered so often, and for which ClickHouse may have been
    too busy, is delivered again.
    """
    if busy:
        return int(60 * BUSY_MINUTES * random.uniform(1, 1.5))  # noqa: S311  # spread, no secret
    return 60 * PAUSE_MINUTES[min(max(receives, 1), len(PAUSE_MINUTES)) - 1]


def give_back(url: str, pauses: Sequence[tuple[Receipt, int]], deadline: Deadline) -> None:
    """Have SQS deliver each message again after its pause, in seconds."""
    entries = [
        {"ReceiptHandle": one.handle, "VisibilityTimeout": seconds} for one, seconds in pauses
    ]
    _taken("change_message_visibility_batch", url, entries, deadline)


def send_letters(url: str, letters: Sequence[tuple[str, str]], deadline: Deadline) -> set[int]:
    """Send dead letters, each a body and the reason; returns the positions of those SQS took."""
    entries = []
    for body, why in letters:
        reason = _NOT_ALLOWED.sub("?", why)[:REASON_CHARACTERS] or "unknown"
        attributes = {"reason": {"DataType": "String", "StringValue": reason}}
        entries.append({"MessageBody": body, "MessageAttributes": attributes})
    return _taken("send_message_batch", url, entries, deadline)


def send(url: str, bodies: Sequence[str], deadline: Deadline) -> Taken:
    """Send new messages."""
    entries = [{"MessageBody": body} for body in bodies]
    return _attempt("send_message_batch", url, entries, deadline)


def depth(url: str) -> dict[str, int]:
    """How many messages a queue has, about: waiting, and in progress. Raises botocore's errors."""
    names = {
        "waiting": "ApproximateNumberOfMessages",
        # Messages that are tried again are invisible.
        "in_progress": "ApproximateNumberOfMessagesNotVisible",
    }
    wanted = list(names.values())
    attributes = client().get_queue_attributes(QueueUrl=url, AttributeNames=wanted)["Attributes"]
    return {name: int(attributes[asked]) for name, asked in names.items()}


def _taken(operation: str, url: str, entries: Sequence[_Entry], deadline: Deadline) -> set[int]:
    """The positions of the entries that SQS acknowledged; one warning says why not all."""
    taken, error = _attempt(operation, url, entries, deadline)
    if error:
        left = len(entries) - len(taken)
        logger.warning(
            "SQS did not take messages: its own timeout and redrive policy apply to them",
            extra={"call": operation, "queue": url, "messages": left, "error": error},
        )
    return taken


def _attempt(operation: str, url: str, entries: Sequence[_Entry], deadline: Deadline) -> Taken:
    from botocore.exceptions import BotoCoreError, ClientError

    taken: set[int] = set()
    reasons: set[str] = set()
    for part in _parts(entries):
        if deadline.has_passed:
            reasons.add("no time is left")
            break
        try:
            answer = call_with_deadline(deadline, partial(_call, operation, url, part))
        except ClientError as error:
            reasons.add(error.response.get("Error", {}).get("Code", type(error).__name__))
            continue
        except (BotoCoreError, OSError, DeadlinePassed) as error:
            # The next call would wait as long for nothing.
            reasons.add(f"{type(error).__name__}: is there a way to SQS from the function's VPC?")
            break
        taken.update(int(one["Id"]) for one in answer.get("Successful", ()))
        reasons.update(str(one.get("Code")) for one in answer.get("Failed", ()))
    return taken, "; ".join(sorted(reasons))


def _parts(entries: Iterable[_Entry]) -> Iterator[list[_Entry]]:
    """The entries, each with its position as its Id, in parts that fit into one call."""
    part: list[_Entry] = []
    size = 0
    for position, entry in enumerate(entries):
        body = entry.get("MessageBody", "").encode(errors="surrogatepass")
        more = len(body) + 4 * REASON_CHARACTERS
        if part and (len(part) == CALL_MESSAGES or size + more > CALL_BYTES):
            yield part
            part, size = [], 0
        part.append({"Id": str(position), **entry})
        size += more
    if part:
        yield part


def _call(operation: str, url: str, part: list[_Entry]) -> Any:
    return getattr(client(), operation)(QueueUrl=url, Entries=part)


@lru_cache(maxsize=1)
def client() -> Any:
    """The process's client for SQS, made at the first call, which takes 0.3 s."""
    return aws.client("sqs", CONNECT_SECONDS, READ_SECONDS, ATTEMPTS)
