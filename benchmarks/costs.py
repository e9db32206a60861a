"""What a million statements cost on Lambda, worked out from processor time.

Lambda gives processor in proportion to memory: 1,769 MB are one of its processors, which is taken
to be as fast as one of the machine that measured. Prices: https://aws.amazon.com/lambda/pricing/,
us-east-1, without the free part.
"""

from __future__ import annotations

from typing import NamedTuple

ONE_PROCESSOR_MB = 1769
SIZES_MB = (512, 1024, 1769)
# List prices of us-east-1 in US dollars, without the free parts:
# https://aws.amazon.com/lambda/pricing/, https://aws.amazon.com/sqs/pricing/ and
# https://aws.amazon.com/s3/pricing/
GB_SECOND = {"x86_64": 0.000_016_666_7, "arm64": 0.000_013_333_4}
INVOCATION = 0.20 / 1e6
SQS_REQUEST = 0.40 / 1e6
S3_GET = 0.0004 / 1e3
"""Dollars for a GB of memory for a second."""

MILLION = 1_000_000


class Way(NamedTuple):
    """A way to load statements; all seconds are for a million of them.

    `alongside` is the shortest time that reading takes, during which the processor works too, and
    `waiting` what it waits besides.
    """

    about: str
    processor: float
    alongside: float = 0.0
    waiting: float = 0.0
    requests: float = 0.0

    def seconds(self, megabytes: int) -> float:
        """How long a million statements take."""
        slower = max(1.0, ONE_PROCESSOR_MB / megabytes)
        return max(self.processor * slower, self.alongside) + self.waiting

    def dollars(self, megabytes: int, architecture: str) -> float:
        """What a million statements cost."""
        gigabyte_seconds = self.seconds(megabytes) * megabytes / 1024
        return gigabyte_seconds * GB_SECOND[architecture] + self.requests * INVOCATION
