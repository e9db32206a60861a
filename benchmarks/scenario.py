"""What is simulated, and what a single invocation takes of the functions and of ClickHouse.

Rules of Lambda and SQS: https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-scaling.html and
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html;
of ClickHouse: its MergeTree settings parts_to_delay_insert and parts_to_throw_insert.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from xapi_etl_processor.queues.messages import MESSAGE_OBJECTS, MESSAGE_SECONDS
from xapi_etl_processor.s3.client import CONCURRENCY

DAY, HOUR = 86_400.0, 3_600.0

ONE_PROCESSOR_MB = 1769
"""Lambda gives processor in proportion to memory, and so much memory has one processor."""

FIRST_POLLERS = 5
"""Batches that Lambda processes at once before it adds pollers."""

MORE_POLLERS = 300 / 60
"""How many it adds in a second while messages wait."""

MOST_POLLERS = 1000
"""Batches of one queue at once, without a limit of one's own."""

IN_FLIGHT = 120_000
"""Messages of a queue that may be invisible at once. SQS then delivers no more."""

RECEIVED = 10
"""Messages in one answer of SQS."""

PARTS_DELAY, PARTS_THROW, MOST_PART_DELAY = 1000, 3000, 1.0
"""Parts in a partition from which inserts are delayed, up to so many seconds, and refused."""

MERGED_AT_ONCE = 10
"""About how many parts one merge joins. Assumed."""

PARTS_A_LEVEL = 3
"""Parts, at most, for each ten times as many rows, while merges keep up: measured by the soak."""

MERGE_SHARE = 0.5
"""Share of ClickHouse's processors that merges may have. Assumed."""

LARGE_PART_ROWS = 50e6
"""Rows of a part so large that it is hardly merged any more. Assumed."""


FILE = Path(__file__).with_name("coefficients.json")
"""What single steps take: name, value, unit, and how it was found."""


class Coefficients(NamedTuple):
    """Milliseconds and microseconds, of time or of one full processor."""

    invocation_cpu_ms: float
    object_cpu_ms: float
    statement_cpu_us: float
    insert_cpu_ms: float
    request_ms: float
    clickhouse_wait_ms: float
    row_wait_us: float
    server_insert_ms: float
    server_row_us: float
    merge_part_ms: float
    merge_row_us: float
    receive_ms: float
    outage_ms: float


def read() -> dict[str, dict[str, Any]]:
    """All that the file has, by name."""
    return dict(json.loads(FILE.read_text(encoding="utf-8")))


def coefficients() -> Coefficients:
    """The values in the file."""
    return Coefficients(**{name: found["value"] for name, found in read().items()})


@dataclass(frozen=True)
class Setup:
    """What is simulated; the defaults are the stack's. Times are in seconds."""

    statements: float = 1e6
    """Statements that arrive in a day."""
    each: int = 10
    """Statements in a bundle."""
    peak: float = 3.0
    """The busiest moment of the day, as a multiple of the mean."""
    batch_size: int = 100
    window: float = 5.0
    concurrency: int = 10
    memory: int = 1024
    batch_rows: int = 10_000
    processors: float = 8.0
    """Of ClickHouse."""
    shared: bool = False
    """Whether the functions use these processors too, as on one machine."""
    outage: tuple[float, float] | None = None
    """When ClickHouse is away: from and to, in hours."""
    surge: tuple[float, float, float] | None = None
    """From when to when, in hours, uploads are so many times as many; then there are no more."""
    history: float = 0.0
    """Statements of a backfill that begins at once."""
    history_concurrency: int = 5
    records: int = 0
    """Bundles in a message of the backfill; 0 stands for about ten seconds of work."""
    hours: float = 24.0
    """Hours to simulate, at least: it goes on until a backfill, and the queue after an outage or a
    surge, are done."""
    step: float = 10.0
    """Longer than an invocation takes."""

    @property
    def bundles_a_second(self) -> float:
        """The mean of the day."""
        return self.statements / self.each / DAY


class Cost(NamedTuple):
    """What an invocation takes: its seconds, and seconds of processor of ClickHouse."""

    seconds: float
    processor: float
    """Of the function, at one full processor."""
    server: float
    """ClickHouse's processor, without merges."""
    merging: float
    """ClickHouse's processor for the merges that its parts need."""
    inserts: float
    """Into the table of statements and into the ledger."""
    parts: float
    """New parts in the table of statements."""


def invocation(setup: Setup, bundles: float, known: Coefficients) -> Cost:
    """What an invocation for so many bundles takes."""
    rows = bundles * setup.each
    inserts = math.ceil(rows / setup.batch_rows)
    processor = (
        known.invocation_cpu_ms
        + bundles * known.object_cpu_ms
        + rows * known.statement_cpu_us / 1e3
        + (inserts - 1) * known.insert_cpu_ms
    ) / 1e3
    slower = 1.0 if setup.shared else max(1.0, ONE_PROCESSOR_MB / setup.memory)
    waits = (
        rounds(bundles) * known.request_ms
        + known.clickhouse_wait_ms
        + rows * known.row_wait_us / 1e3
    )
    server = inserts * known.server_insert_ms + rows * known.server_row_us / 1e3
    levels = max(1.0, math.log(LARGE_PART_ROWS / (rows / inserts), MERGED_AT_ONCE))
    merging = inserts * known.merge_part_ms + rows * levels * known.merge_row_us / 1e3
    return Cost(
        processor * slower + waits / 1e3,
        processor,
        server / 1e3,
        merging / 1e3,
        inserts + 1,
        inserts,
    )


def rounds(bundles: float) -> int:
    """How often an invocation for so many bundles waits for S3."""
    return 1 + math.ceil(bundles / CONCURRENCY)


def history_bundles(setup: Setup, known: Coefficients) -> int:
    """Bundles in a message of the backfill."""
    if setup.records:
        return setup.records
    fixed = invocation(setup, 1, known).seconds
    one = (invocation(setup, 101, known).seconds - fixed) / 100
    return max(1, min(MESSAGE_OBJECTS, int(MESSAGE_SECONDS / one)))
