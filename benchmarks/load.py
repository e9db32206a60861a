"""What a soak is made of: uploads at a steady rate, pollers with their functions, and a reader who
notes when the rows of a bundle are there.
"""

from __future__ import annotations

import math
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import obstore
from clickhouse_driver import Client

from benchmarks.data import planned
from tests.faults import child
from tests.faults.drill_servers import DATABASE
from tests.support.event_source_mapping import failed_messages
from tests.support.simulated_queue import SimulatedQueue
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


class Poller(Thread):
    """One of Lambda's pollers: gathers batches for a function of its own, which stays warm, and
    deletes what it has done.
    """

    def __init__(self, queue: SimulatedQueue, variables: dict[str, str]) -> None:
        super().__init__(daemon=True)
        self.function = child.waiting(variables, subprocess.DEVNULL)
        self.ended = False
        self.invocations: list[Invocation] = []
        self.again = 0
        """Messages that were delivered again, or will be."""
        self._queue = queue

    def run(self) -> None:
        """Poll until `ended` is set."""
        while not self.ended:
            records, receiving = self._gather()
            if not records:
                continue
            started = time.monotonic()
            line = child.ask(self.function, {"Records": records})
            took = time.monotonic() - started
            started = time.monotonic()
            self._delete_done(records, line)
            sqs = receiving + time.monotonic() - started
            self.invocations.append(Invocation(len(records), took, sqs))

    def _gather(self) -> tuple[list[dict[str, Any]], float]:
        """A batch, and the seconds that receiving it took."""
        records: list[dict[str, Any]] = []
        receiving, end = 0.0, math.inf
        while len(records) < BATCH and time.monotonic() < end and not self.ended:
            started = time.monotonic()
            got = self._queue.receive(BATCH - len(records))
            now = time.monotonic()
            if got:
                receiving += now - started
                end = min(end, now + WINDOW)
            records += got
            if len(records) < BATCH:
                time.sleep(PAUSE_SECONDS)
        return records, receiving

    def _delete_done(self, records: list[dict[str, Any]], line: bytes) -> None:
        """Delete those that did not fail, given what the function returned."""
        ids = [record["messageId"] for record in records]
        died = not line or b'"raised"' in line
        failed = set(ids) if died else failed_messages(ids, line)
        self.again += len(failed)
        done = [record for record in records if record["messageId"] not in failed]
        for start in range(0, len(done), 10):
            entries = [
                {"Id": str(number), "ReceiptHandle": record["receiptHandle"]}
                for number, record in enumerate(done[start : start + 10])
            ]
            self._queue.sqs.delete_message_batch(QueueUrl=self._queue.url, Entries=entries)

    @property
    def megabytes(self) -> float:
        """Memory of the function's process now."""
        pages = Path(f"/proc/{self.function.pid}/statm").read_text(encoding="utf-8").split()[1]
        return int(pages) * 4096 / 1e6

    def close(self) -> None:
        """End the thread and the function."""
        self.ended = True
        if self.is_alive():
            self.join(60)
        self.function.kill()
        self.function.communicate()


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
