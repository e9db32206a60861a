"""What a soak is made of: uploads at a steady rate, a queue that is polled as Lambda does, and a
reader who notes when the rows of a bundle are there.
"""

from __future__ import annotations

import math
import os
import resource
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import obstore
from clickhouse_driver import Client

from benchmarks.data import planned
from tests.faults.drill_servers import DATABASE
from tests.faults.killable import Message, Queue
from xapi_etl_processor.s3.client import CONCURRENCY, Stores

BUCKET = "soak-bundles"
BATCH, WINDOW = 100, 5.0
"""The template's BatchSize and BatchingWindow."""

PAUSE_SECONDS = 0.1
"""A poller's pause after the queue had nothing, instead of a request that waits."""

INSERT_SECONDS = 10
"""No insert takes longer."""

AT_ONCE = 8
"""Uploads that are under way at the same time, at most."""


class Upload(NamedTuple):
    """A bundle that was uploaded, and when that was due."""

    number: int
    key: str
    etag: str
    due: float


def upload(first: int, rate: float, seconds: float) -> list[Upload]:
    """Upload so many bundles a second, with numbers from `first` on: each when it is due, however
    long the others take, unless AT_ONCE are under way.
    """
    store, started = Stores().store(BUCKET), time.monotonic()

    def put(number: int) -> Upload:
        due = started + (number - first) / rate
        time.sleep(max(0.0, due - time.monotonic()))
        made = planned(number, datetime.now(UTC))
        etag = str(obstore.put(store, made.key, made.body)["e_tag"]).strip('"')
        return Upload(number, made.key, etag, due)

    with ThreadPoolExecutor(AT_ONCE) as threads:
        return list(threads.map(put, range(first, first + round(rate * seconds))))


class Invocation(NamedTuple):
    """How many bundles a function had, and the seconds that it took, and that SQS took for them."""

    bundles: int
    seconds: float
    sqs: float


@dataclass
class PolledQueue(Queue):
    """A real queue for workers, each of which gathers batches as a poller of Lambda does."""

    real: Any = None
    """A queue of the stack (tests/support/simulated_queue.py)."""
    batches: list[Invocation] = field(default_factory=list)
    _begun: dict[str, tuple[float, float]] = field(default_factory=dict)
    """When the batch with this first message was there, and how long receiving it took."""

    def receive(self) -> list[Message]:
        """A batch; nothing if no message is there."""
        records: list[dict[str, Any]] = []
        receiving, end = 0.0, math.inf
        while len(records) < BATCH and time.monotonic() < end:
            started = time.monotonic()
            got = self.real.receive(BATCH - len(records))
            now = time.monotonic()
            records += got
            if len(records) < BATCH:
                time.sleep(PAUSE_SECONDS)
            if not records:
                return []
            receiving += now - started if got else 0.0
            end = min(end, now + WINDOW)
        taken = [Message(one["messageId"], one["body"], one) for one in records]
        self._begun[taken[0].id] = (time.monotonic(), receiving)
        return taken

    def settle(self, taken: list[Message], left: list[Message]) -> None:
        """Delete what is not left. The visibility timeout decides when the rest comes again."""
        ended = time.monotonic()
        begun, receiving = self._begun.pop(taken[0].id)
        done = [one for one in taken if one not in left]
        for start in range(0, len(done), 10):
            entries = [
                {"Id": str(number), "ReceiptHandle": one.record["receiptHandle"]}
                for number, one in enumerate(done[start : start + 10])
            ]
            self.real.sqs.delete_message_batch(QueueUrl=self.real.url, Entries=entries)
        sqs = receiving + time.monotonic() - ended
        self.again += len(left)
        self.batches.append(Invocation(len(taken), ended - begun, sqs))


def megabytes(process: int) -> float:
    """Memory of a process now."""
    pages = Path(f"/proc/{process}/statm").read_text(encoding="utf-8").split()[1]
    return int(pages) * resource.getpagesize() / 1e6


def busy_seconds() -> float:
    """Seconds of processor of all processes of the machine, and what its host took from it."""
    first = Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()
    user, nice, system, _idle, _waits, *interrupts = map(int, first[1:9])
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


class Reader:
    """Somebody who asks ClickHouse what is new."""

    def __init__(self, port: int, password: str) -> None:
        self.client = Client("127.0.0.1", port, password=password)
        self.seen: dict[str, float] = {}
        """When a bundle's rows were seen first, by its key."""
        self._threads = ThreadPoolExecutor(CONCURRENCY)
        self._looked = time.monotonic()

    def look(self) -> None:
        """Note the bundles that are new."""
        # A row's time is that of the beginning of its insert.
        since = math.ceil(time.monotonic() - self._looked) + INSERT_SECONDS
        self._looked = time.monotonic()
        rows = self.client.execute(
            f"SELECT DISTINCT source_file FROM {DATABASE}.video_events"
            f" WHERE inserted_at >= now() - {since} SETTINGS max_threads = 1"
        )
        now = time.monotonic()
        for (file,) in rows:
            self.seen.setdefault(file.removeprefix(f"s3://{BUCKET}/"), now)

    def parts(self) -> int:
        """Active parts of the fullest partition."""
        rows = self.client.execute(
            "SELECT count() AS parts FROM system.parts WHERE active AND table = 'video_events'"
            f" AND database = '{DATABASE}' GROUP BY partition ORDER BY parts DESC LIMIT 1"
        )
        return int(rows[0][0]) if rows else 0

    def get_seconds(self, keys: Sequence[str]) -> float:
        """How long S3 takes for these objects, as many at the same time as the loader fetches."""
        store, started = Stores().store(BUCKET), time.monotonic()
        list(self._threads.map(lambda key: obstore.get(store, key).bytes(), keys))
        return time.monotonic() - started
