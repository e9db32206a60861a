"""How long a backfill through the queue will take, and what AWS will charge for it."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

from xapi_etl_processor.queues.messages import Outgoing
from xapi_etl_processor.s3.fetch import PART_BYTES

INVOCATION_SECONDS = 0.1
"""Seconds that an invocation takes besides its work: docs/performance.md has 87 ms for one with a
single small bundle, if S3 takes 30 ms to answer."""

MEMORY_GB = 1
"""The stack's default memory. With another, it takes as long as the processor that Lambda gives for
it, and costs about the same."""

# List prices of us-east-1 in US dollars, without the free parts:
# https://aws.amazon.com/lambda/pricing/, https://aws.amazon.com/sqs/pricing/ and
# https://aws.amazon.com/s3/pricing/
GB_SECOND = 0.000_016_666_7
INVOCATION = 0.20 / 1e6
SQS_REQUEST = 0.40 / 1e6
S3_GET = 0.0004 / 1e3
S3_LIST = 0.005 / 1e3

SQS_CHUNK = 64 * 1024
"""Bytes of a message that SQS counts as one request."""


@dataclass
class Estimate:
    """Sums over the messages that were added. The minutes are those of `concurrency` invocations at
    a time.
    """

    concurrency: int
    list_calls: int = 0
    objects: int = 0
    size: int = 0
    messages: int = 0
    seconds: float = 0.0
    longest: float = 0.0
    gets: int = 0
    sqs_requests: int = 0

    def add(self, message: Outgoing) -> None:
        """Count a message."""
        sizes = [obj.size or 0 for obj in message.objects]
        self.messages += 1
        self.objects += len(sizes)
        self.size += sum(sizes)
        seconds = message.seconds + INVOCATION_SECONDS
        self.seconds += seconds
        self.longest = max(self.longest, seconds)
        self.gets += sum(max(1, ceil(size / PART_BYTES)) for size in sizes)
        # Sending and receiving count by chunk, deleting does not.
        self.sqs_requests += 2 * ceil(len(message.body) / SQS_CHUNK) + 1

    @property
    def minutes(self) -> float:
        """How long the queue takes for the messages."""
        return max(self.seconds / self.concurrency, self.longest) / 60

    @property
    def dollars(self) -> float:
        """What AWS charges: Lambda, SQS and S3."""
        return (
            self.seconds * MEMORY_GB * GB_SECOND
            + self.messages * INVOCATION
            + self.sqs_requests * SQS_REQUEST
            + self.gets * S3_GET
            + self.list_calls * S3_LIST
        )

    def body(self) -> dict[str, Any]:
        """The part of a bulk answer that says what is sent."""
        return {
            "engine": "queue",
            "files_sent": self.objects,
            "bytes_sent": self.size,
            "messages": self.messages,
            "estimated_minutes": round(self.minutes, 1),
            "estimated_dollars": round(self.dollars, 4),
        }
