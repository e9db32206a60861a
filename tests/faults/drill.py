"""Kill loaders and ClickHouse at random moments; nothing may be lost or doubled.

    python -m tests.faults.drill --client-kills 200 --server-kills 200 [--seed 7] [--replicas]

Live deliveries, repeated ones and backfills overlap in several processes until everything is
acknowledged. The seed decides bundles, deliveries and kills, so that a drill can be repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3

from local import process
from local.aws import loader_environment
from tests.faults import child
from tests.faults.drill_plan import Kill, PlannedBundle, Verdict, bundle, deliveries, judge, kills
from tests.faults.drill_servers import DATABASE, Target, one_server, replicas
from tests.support.event_source_mapping import failed_messages
from tests.support.samples import sqs

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

BUCKET = "drill"
WORKERS = 3
WAVE = 6
PATIENCE = 300
"""Seconds for the remaining work after the last kill."""


@dataclass
class Figures:
    """What happened in a drill."""

    client_kills: int = 0
    server_kills: int = 0
    deliveries: int = 0
    invocations: int = 0
    repeated: int = 0
    bundles: int = 0
    statements: int = 0
    rows: int = 0
    seconds: float = 0


@dataclass
class Queue:
    """Messages and backfills that are not done; what fails or is killed is delivered again."""

    figures: Figures
    waiting: deque[tuple[str, Any]] = field(default_factory=deque)
    in_progress: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)

    def send(self, payloads: list[Any]) -> None:
        """Add them at the end, each with its own id."""
        with self.changed:
            for payload in payloads:
                self.waiting.append((f"m{self.figures.deliveries}", payload))
                self.figures.deliveries += 1
            self.changed.notify_all()

    def receive(self) -> list[tuple[str, Any]]:
        """Up to five messages, or one backfill; nothing if none arrives for 0.2 seconds."""
        with self.changed:
            self.changed.wait_for(lambda: self.waiting, 0.2)
            taken: list[tuple[str, Any]] = []
            while self.waiting and len(taken) < 5:
                if "mode" in self.waiting[0][1] and taken:
                    break
                taken.append(self.waiting.popleft())
                if "mode" in taken[-1][1]:
                    break
            self.in_progress += bool(taken)
            return taken

    def settle(self, left: list[tuple[str, Any]]) -> None:
        """End one receive; what is left of it is delivered again."""
        with self.changed:
            self.waiting.extend(left)
            self.figures.repeated += len(left)
            self.in_progress -= 1
            self.changed.notify_all()

    @property
    def is_done(self) -> bool:
        """Whether everything was acknowledged."""
        with self.changed:
            return not self.waiting and not self.in_progress


class Worker(threading.Thread):
    """Passes what the queue has to a loader in its own process, by Lambda's rules."""

    def __init__(self, queue: Queue) -> None:
        super().__init__(daemon=True)
        self.queue = queue
        self.ended = False
        self.busy = threading.Event()
        self.loader = self._loader()
        self.start()

    def _loader(self) -> subprocess.Popen[bytes]:
        return child.waiting({"BATCH_ROWS": "100"}, subprocess.DEVNULL)

    def run(self) -> None:
        while not self.ended:
            if received := self.queue.receive():
                self.queue.settle(self._work(received))
        self.loader.kill()
        self.loader.communicate()

    def _work(self, received: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
        """The messages left after one invocation: all of them if the loader was killed."""
        (name, payload), *_ = received
        is_bulk = "mode" in payload
        line = self._ask(payload if is_bulk else sqs(**dict(received)))
        self.queue.figures.invocations += 1
        if not line:
            self.loader.communicate()
            self.loader = self._loader()
            return received
        answer = json.loads(line)
        if is_bulk:
            body = json.loads(answer.get("body", "{}"))
            if "raised" in answer or not body["success"]:
                return received
            token = body["continuation_token"]
            return [(name, {"mode": "bulk", "continuation_token": token})] if token else []
        response = (
            {"FunctionError": "Unhandled"} if "raised" in answer else {"Payload": BytesIO(line)}
        )
        failed = failed_messages([name for name, _ in received], response, reports=True)
        return [(name, body) for name, body in received if name in failed]

    def _ask(self, payload: Any) -> bytes:
        """The answer as a line; empty if the loader was killed."""
        self.busy.set()
        try:
            return child.ask(self.loader, payload)
        finally:
            self.busy.clear()


@dataclass
class Drill:
    """One drill while it runs."""

    seed: int
    server: Target
    s3: S3Client
    figures: Figures = field(default_factory=Figures)
    bundles: list[PlannedBundle] = field(default_factory=list)

    def run(self, schedule: list[Kill]) -> Verdict:
        """Kill as planned, wait until everything is acknowledged, and judge the result."""
        started = time.monotonic()
        queue = Queue(self.figures)
        workers = [Worker(queue) for _ in range(WORKERS)]
        try:
            for kill in schedule:
                self._feed(queue)
                time.sleep(kill.delay)  # Random, as planned.
                self._kill(kill, queue, workers)
            self._feed(queue)
            end = time.monotonic() + PATIENCE
            while not queue.is_done:
                assert time.monotonic() < end, f"not done: {list(queue.waiting)[:3]}"
                time.sleep(0.1)  # Polls a condition, up to a limit.
        finally:
            for worker in workers:
                worker.ended = True
            for worker in workers:
                worker.join(60)
        self.figures.seconds = round(time.monotonic() - started, 1)
        return self._verdict()

    def _feed(self, queue: Queue) -> None:
        """Add a wave of bundles if little is left to do."""
        if len(queue.waiting) >= 2 * WORKERS:
            return
        wave = len(self.bundles) // WAVE
        new = [bundle(self.seed, wave * WAVE + n) for n in range(WAVE)]
        for made in new:
            self.s3.put_object(Bucket=BUCKET, Key=made.key, Body=made.body)
        self.bundles += new
        keys = [made.key for made in new]
        queue.send(deliveries(self.seed, wave, BUCKET, keys, [b.key for b in self.bundles]))

    def _kill(self, kill: Kill, queue: Queue, workers: list[Worker]) -> None:
        end = time.monotonic() + 60
        while not (busy := [worker for worker in workers if worker.busy.is_set()]):
            assert time.monotonic() < end, "no loader is working"
            self._feed(queue)
            time.sleep(0.01)  # Polls a condition, up to a limit.
        if kill.victim == "server":
            self.server.kill()
            self.server.start()
            self.figures.server_kills += 1
            return
        busy[int(kill.choice * len(busy))].loader.send_signal(signal.SIGKILL)
        self.figures.client_kills += 1

    def _verdict(self) -> Verdict:
        ask, uri = self.server.ask, f"s3://{BUCKET}/"
        self.figures.bundles = len(self.bundles)
        self.figures.statements = len({s for made in self.bundles for s in made.video})
        ((self.figures.rows,),) = ask(f"SELECT count() FROM {DATABASE}.video_events")
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        etags = {o["Key"]: o["ETag"].strip('"') for page in pages for o in page["Contents"]}
        rows = Counter(i for (i,) in ask(f"SELECT event_id FROM {DATABASE}.video_events FINAL"))
        rejected = Counter(
            (file.removeprefix(uri), line)
            for file, line in ask(
                f"SELECT source_file, source_line FROM {DATABASE}.rejected_statements FINAL"
            )
        )
        ledger = {
            (key, etag): tuple(counts)
            for key, etag, *counts in ask(
                "SELECT key, etag, lines, video, other, blank, rejected"
                f" FROM {DATABASE}.processed_files FINAL"
            )
        }
        return judge(self.bundles, etags, rows, rejected, ledger)


def drill(
    seed: int, client_kills: int, server_kills: int, *, replicated: bool = False
) -> tuple[Verdict, Figures]:
    """Run a whole drill, with its own S3 and ClickHouse: one server, or two replicas."""
    before = dict(os.environ)
    with (
        tempfile.TemporaryDirectory() as name,
        process.s3() as variables,
        replicas(Path(name), seed) if replicated else one_server(Path(name)) as server,
    ):
        try:
            os.environ.update(loader_environment(server.port, variables, BUCKET))
            server.create_tables()
            s3 = boto3.client("s3")
            s3.create_bucket(Bucket=BUCKET)
            done = Drill(seed, server, s3)
            verdict = done.run(kills(seed, client_kills, server_kills))
            s3.close()
            return verdict, done.figures
        finally:
            os.environ.clear()
            os.environ.update(before)


def main() -> int:
    """Run a drill, and print what happened and what is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.drill", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--client-kills", type=int, default=200, help="(%(default)s)")
    parser.add_argument("--server-kills", type=int, default=200, help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="(random)")
    parser.add_argument(
        "--replicas", action="store_true", help="kill one of two old servers that are replicas"
    )
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    verdict, figures = drill(
        options.seed, options.client_kills, options.server_kills, replicated=options.replicas
    )
    for name, value in {**vars(figures), **verdict._asdict()}.items():
        print(f"{name.replace('_', ' '):16} {value}")
    if any(verdict):
        print(f"DATA IS WRONG; repeat with: --seed {options.seed}")
    return int(any(verdict))


if __name__ == "__main__":
    sys.exit(main())
