"""Kill loaders and ClickHouse at random moments; nothing may be lost or doubled.

    python -m tests.faults.drill --client-kills 200 --server-kills 200 [--seed 7] [--replicas]

Live deliveries, repeated ones and backfills overlap in several processes until everything is
acknowledged. The seed decides bundles, deliveries and kills, so that a drill can be repeated.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import boto3

from local import process
from local.aws import loader_environment
from tests.faults.drill_plan import Kill, PlannedBundle, Verdict, bundle, deliveries, judged, kills
from tests.faults.drill_servers import DATABASE, Replicas, Server, one_server, replicas
from tests.faults.killable import Queue, Worker, wait_until, working

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
class Drill:
    """One drill while it runs."""

    seed: int
    server: Server | Replicas
    s3: S3Client
    figures: Figures = field(default_factory=Figures)
    bundles: list[PlannedBundle] = field(default_factory=list)

    def run(self, schedule: list[Kill]) -> Verdict:
        """Kill as planned, wait until everything is acknowledged, and judge the result."""
        figures, started = self.figures, time.monotonic()
        queue = Queue(most=5)
        with working(queue, WORKERS, {"BATCH_ROWS": "100"}) as workers:
            for kill in schedule:
                self._feed(queue)
                time.sleep(kill.delay)  # Random, as planned.
                self._kill(kill, queue, workers)
            self._feed(queue)
            wait_until(lambda: not queue.left, PATIENCE, "the rest")
        figures.seconds = round(time.monotonic() - started, 1)
        figures.deliveries, figures.repeated = queue.sent, queue.again
        figures.invocations, figures.bundles = queue.invocations, len(self.bundles)
        figures.statements = len({s for made in self.bundles for s in made.video})
        ((figures.rows,),) = self.server.ask(f"SELECT count() FROM {DATABASE}.video_events")
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        etags = {o["Key"]: o["ETag"].strip('"') for page in pages for o in page["Contents"]}
        return judged(self.server.ask, BUCKET, self.bundles, etags)

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
        def busy() -> list[Worker]:
            return [worker for worker in workers if worker.busy.is_set()]

        found = wait_until(busy, 60, "finding a loader that works", lambda: self._feed(queue))
        if kill.victim == "server":
            self.server.kill()
            self.server.start()
            self.figures.server_kills += 1
        else:
            found[int(kill.choice * len(found))].kill()
            self.figures.client_kills += 1


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
