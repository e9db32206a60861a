"""A real backfill through a queue, whose workers are killed: is each statement there once?

    python -m benchmarks.backfill --write        runs of up to 100,000 bundles, and the page
    python -m benchmarks.backfill 1000 5000      others

Workers with the real handler take messages of many S3 records from a queue in memory. Some are
killed on the way, as in the crash drill (tests/faults/drill.py). Then what readers see is compared
with what was written, and the time with what the simulation gives.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from benchmarks import data
from benchmarks.data import EACH
from benchmarks.report import SCALING, markdown, write
from benchmarks.scenario import DAY, HOUR, Setup, coefficients
from benchmarks.simulation import simulate
from local.aws import environment, loader_environment
from tests import static_s3
from tests.faults.child import processor_seconds
from tests.faults.drill_plan import PlannedBundle, Verdict, judged
from tests.faults.drill_servers import Server, one_server
from tests.faults.killable import Queue, Worker, wait_until, working
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.migrations.migrate import migrate
from xapi_etl_processor.queues.messages import MESSAGE_OBJECTS, messages
from xapi_etl_processor.queues.payloads import Backfill
from xapi_etl_processor.s3.objects import S3Object

COMMAND = "make backfill"
BUCKET = "bundles"
SIZES = (1000, 10_000, 100_000)
MONTHS = 6
WORKERS = 2
BUNDLES_A_KILL = 5_000
REPEATED = 20
"""One of so many messages is delivered twice for no reason, as SQS may do."""

PATIENCE = 3600
"""Seconds for one run. Our limit."""


class Found(NamedTuple):
    """What happened in a run. Times are in seconds."""

    bundles: int
    seconds: float
    processor: float
    """Seconds of processor, of all workers and of ClickHouse."""
    left: float
    """Processors that the other work on the machine left for them."""
    messages: int
    killed: int
    again: int
    wrong: Verdict


def run(bundles: int, kills: int) -> Found:
    """Load so many bundles. Raises NginxFailed, and TimeoutError if it takes more than an hour."""
    with TemporaryDirectory() as name:
        folder = Path(name) / "objects" / BUCKET
        # The last one is for warming up.
        written = [write_bundle(folder, number, bundles + 1) for number in range(bundles + 1)]
        with static_s3.serving(folder.parent) as s3, one_server(Path(name) / "db") as server:
            variables = loader_environment(server.port, environment(s3), BUCKET)
            migrate(Settings.from_env(variables))
            return _run(folder, written, server, variables, kills)


def _run(
    folder: Path,
    written: list[PlannedBundle],
    server: Server,
    variables: dict[str, str],
    kills: int,
) -> Found:
    queue, dice = Queue(), random.Random(len(written))  # noqa: S311  # no secret
    bodies, [warm_up] = message_bodies(folder, written[:-1]), message_bodies(folder, written[-1:])
    bodies += dice.sample(bodies, len(bodies) // REPEATED)
    with working(queue, WORKERS, variables, warm_up) as workers:

        def processor() -> float:
            own = sum(worker.processor for worker in workers)
            return own + processor_seconds(server.process.pid)

        started, used, busy = time.monotonic(), processor(), busy_seconds()
        queue.send(bodies)
        _kill_on_the_way(queue, workers, kills, dice)
        wait_until(lambda: not queue.left, PATIENCE, f"loading {len(written)} bundles")
        seconds, used = time.monotonic() - started, processor() - used
        # This process delivers, and is no part of what is simulated.
        others = max(0.0, busy_seconds() - busy - used) / seconds
    etags = {made.key: static_s3.etag(folder / made.key) for made in written}
    return Found(
        len(written) - 1,
        seconds,
        used,
        max(0.1, (os.cpu_count() or 1) - others),
        queue.sent,
        kills,
        queue.again,
        judged(server.ask, BUCKET, written, etags),
    )


def write_bundle(folder: Path, number: int, bundles: int) -> PlannedBundle:
    """The bundle with this number, of so many, after writing its object."""
    month = datetime(2024, 1 + number * MONTHS // bundles, 1, tzinfo=UTC)
    made = data.planned(number, month + timedelta(seconds=number % (28 * DAY)))
    (folder / made.key).parent.mkdir(parents=True, exist_ok=True)
    (folder / made.key).write_bytes(made.body)
    return replace(made, body=b"")


def message_bodies(folder: Path, bundles: Sequence[PlannedBundle]) -> list[str]:
    """The messages for these bundles, as a bulk request sends them."""
    paths = ((made.key, folder / made.key) for made in bundles)
    objects = (
        S3Object(BUCKET, key, static_s3.etag(path), path.stat().st_size) for key, path in paths
    )
    return [message.body for message in messages(objects, Backfill())]


def _kill_on_the_way(
    queue: Queue, workers: Sequence[Worker], kills: int, dice: random.Random
) -> None:
    """Kill busy workers at even intervals during the first three quarters of the work."""
    for number in range(kills):
        rest = queue.sent * (1 - 0.75 * (number + 0.5) / kills)
        wait_until(lambda: queue.left <= rest, PATIENCE, "a part of the backfill")  # noqa: B023
        time.sleep(dice.uniform(0, 0.2))  # Random, so that any moment of the work is hit.
        busy = [worker for worker in workers if worker.busy.is_set()] or list(workers)
        dice.choice(busy).kill()


def busy_seconds() -> float:
    """Seconds of processor of all processes of the machine, and what its host took from it."""
    first = Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()
    user, nice, system, _idle, _waits, *interrupts = map(int, first[1:9])
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


COLUMNS: dict[str, Callable[[Found], str]] = {
    "bundles": lambda found: f"{found.bundles:,}",
    "seconds": lambda found: f"{found.seconds:,.1f}",
    "ms a bundle": lambda found: f"{found.seconds * 1000 / found.bundles:.2f}",
    "simulated": lambda found: _simulated(found, 0),
    "processors": lambda found: f"{found.left:.1f}",
    "s of processor": lambda found: f"{found.processor:,.1f}",
    "simulated ": lambda found: _simulated(found, 1),
    "messages": lambda found: f"{found.messages:,}",
    "killed": lambda found: f"{found.killed:,}",
    "delivered again": lambda found: f"{found.again:,}",
    "statements": lambda found: f"{found.bundles * EACH:,}",
    "lost": lambda found: f"{found.wrong.lost:,}",
    "doubled": lambda found: f"{found.wrong.doubled:,}",
    "unexpected": lambda found: f"{found.wrong.unexpected:,}",
    "unfinished": lambda found: f"{found.wrong.ledger_wrong:,}",
}
"""What is shown of a run. "Unfinished" counts bundles without their row in the ledger."""


def _simulated(found: Found, which: int) -> str:
    """The simulated seconds, or seconds of processor, and how far off they are."""
    real, made = (
        (found.seconds, found.processor)[which],
        predicted(found.bundles, found.left)[which],
    )
    return f"{made:,.1f} ({made / real - 1:+.0%})"


def predicted(bundles: int, processors: float) -> tuple[float, float]:
    """Seconds, and seconds of processor, that the simulation gives a backfill on one machine. The
    workers share its processors with ClickHouse, and nobody waits for S3 or the queue.
    """
    known = coefficients()._replace(request_ms=1.0, receive_ms=0.0)
    setup = Setup(
        statements=0.0,
        each=EACH,
        processors=processors,
        shared=True,
        history=bundles * EACH,
        history_concurrency=WORKERS,
        records=MESSAGE_OBJECTS,
        hours=0.0,
        step=0.1,
    )
    result = simulate(setup, known)
    return (result.history_hours or 0.0) * HOUR, result.processor_seconds


def main() -> int:
    """Print what happened: exit code 1 if any statement or ledger row is wrong, or a run fails."""
    sizes = [int(word) for word in sys.argv[1:] if word.isdigit()]
    runs = []
    try:
        for bundles in sizes or SIZES:
            print(f"loading {bundles:,} bundles", file=sys.stderr)
            runs.append(run(bundles, bundles // BUNDLES_A_KILL))
    except (static_s3.NginxFailed, TimeoutError) as error:
        print(error, file=sys.stderr)
        return 1
    cells = [[cell(found) for cell in COLUMNS.values()] for found in runs]
    made = markdown(list(COLUMNS), "r", cells)
    print(made)
    if "--write" in sys.argv:
        write(SCALING, {"backfill": made}, COMMAND)
    if any(any(found.wrong) for found in runs):
        print("DATA IS WRONG: see lost, doubled, unexpected and unfinished", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
