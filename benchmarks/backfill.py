"""A real backfill through a queue, while new bundles arrive: is each statement there once?

Workers with the real handler take messages of many S3 records from a queue in memory; others load
new bundles of the same sections. Some workers are killed on the way. Then every row is compared
with what was written.

example: python -m benchmarks.backfill --bundles 1000 10000 --workers 2 --kill 2
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from clickhouse_driver import Client
from rich.console import Console
from rich.table import Table

from benchmarks import markdown, scaling, static_s3
from benchmarks.coefficients import coefficients
from benchmarks.memory_queue import MemoryQueue
from benchmarks.numbered import EACH, LIVE, SUM_OF_DIGESTS, History
from benchmarks.pollers import Poller, polling, wait_until
from benchmarks.processor_time import busy_seconds, newest_child, processor_seconds
from benchmarks.scenario import DAY, Setup
from benchmarks.simulation import simulate
from benchmarks.static_s3 import NginxFailed
from docs.reference import with_tables
from local import process
from local.aws import environment, loader_environment
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.migrations.migrate import migrate
from xapi_etl_processor.queues.messages import MESSAGE_OBJECTS

BUCKET = "bundles"
DATABASE = "xapi_analytics"
LIVE_POLLERS = 2
LIVE_BATCH, LIVE_WINDOW = 100, 1.0
"""As in the stack, except for the window: its 5 seconds would hide everything else."""

COMMAND = "make backfill"

PATIENCE = 3600
"""Seconds for one run. Our limit."""

_errors = Console(stderr=True)


@dataclass(frozen=True)
class Plan:
    """One run. With no bundles of history, live ones arrive for `alone` seconds."""

    bundles: int
    workers: int = 2
    kill: float = 2.0
    """Workers that are killed for each 10,000 bundles."""
    live: float = 5.0
    """Bundles a second that are uploaded meanwhile."""
    records: int = MESSAGE_OBJECTS
    """Records in a message of the backfill."""
    repeated: int = 20
    """One of so many messages is delivered twice for no reason, as SQS may do."""
    visibility: float = 3.0
    """Seconds until what a killed worker had is delivered again."""
    alone: float = 20.0

    @property
    def kills(self) -> int:
        """How many workers are killed."""
        return int(self.bundles * self.kill / 10_000)


class Wrong(NamedTuple):
    """What readers of the table see that they should not. All must be 0."""

    lost: int = 0
    """Statements that are missing."""
    doubled: int = 0
    """Statements that are seen more than once."""
    changed: int = 0
    """Bundles whose statements are not those that were written."""
    unexpected: int = 0
    """Bundles that nobody wrote."""
    unfinished: int = 0
    """Bundles without exactly one row in the ledger."""


class Found(NamedTuple):
    """What happened in a run. Times are in seconds; delays are from upload to row."""

    plan: Plan
    seconds: float
    processor: float
    """Seconds of processor, of all workers and of ClickHouse."""
    left: float
    """Processors that the other work on the machine left for them."""
    messages: int
    invocations: int
    killed: int
    again: int
    durations: list[float]
    live: int
    delays: list[float]
    rows: int
    wrong: Wrong

    @property
    def statements(self) -> int:
        """How many statements were written."""
        return (self.plan.bundles + self.live) * EACH


def run(plan: Plan) -> Found:
    """Load the history of a plan, and what arrives meanwhile. Raises NginxFailed, and TimeoutError
    if it takes more than an hour.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        history = History(folder / "objects" / BUCKET, plan.bundles)
        (folder / "objects" / BUCKET).mkdir(parents=True)
        for number in (*range(plan.bundles), LIVE):
            history.write(number)
        with static_s3.serving(folder / "objects") as s3, process.clickhouse(folder / "db") as port:
            variables = loader_environment(port, environment(s3), BUCKET)
            migrate(Settings.from_env(variables))
            return _run(plan, history, variables, (newest_child(), port))


def _run(plan: Plan, history: History, variables: dict[str, str], server: tuple[int, int]) -> Found:
    """`server` is ClickHouse's process and port."""
    old, new = MemoryQueue(plan.visibility), MemoryQueue(plan.visibility)
    first = history.notification(LIVE)
    dice = random.Random(plan.bundles)  # noqa: S311  # no secret
    messages = history.messages(plan.records)
    repeated = dice.sample(messages, len(messages) // plan.repeated)
    with (
        polling(new, LIVE_POLLERS, variables, first, size=LIVE_BATCH, window=LIVE_WINDOW) as (
            live_pollers,
            live_log,
        ),
        polling(old, plan.workers, variables, first) as (workers, log),
    ):

        def processor() -> float:
            pids = [server[0], *(one.process.pid for one in (*workers, *live_pollers))]
            return log.lost_processor + sum(map(processor_seconds, pids))

        with _uploading(history, new, plan.live) as uploaded:
            started, used, busy = time.monotonic(), processor(), busy_seconds()
            if messages:
                old.send([*messages, *repeated])
                _kill_on_the_way(old, workers, plan.kills, dice)
                wait_until(lambda: not len(old), PATIENCE, f"loading {plan.bundles} bundles")
            else:
                threading.Event().wait(plan.alone)
        wait_until(lambda: not len(new), PATIENCE, "loading what was uploaded last")
        used = processor() - used
        # This process uploads and delivers, and is no part of what is simulated.
        others = max(0.0, busy_seconds() - busy - used) / (time.monotonic() - started)
    live = next(uploaded) - LIVE - 1
    with Client("127.0.0.1", server[1]) as client:
        [(rows,)] = client.execute(f"SELECT count() FROM {DATABASE}.video_events")
        wrong = judge(client, history, [*range(plan.bundles), *range(LIVE, LIVE + 1 + live)])
    return Found(
        plan,
        (log.ended or time.monotonic()) - started,
        used,
        max(0.1, (os.cpu_count() or 1) - others),
        old.sent,
        len(log.durations),
        log.killed,
        log.again + live_log.again,
        log.durations,
        live,
        live_log.delays,
        rows,
        wrong,
    )


@contextmanager
def _uploading(history: History, queue: MemoryQueue, a_second: float) -> Iterator[Iterator[int]]:
    """Upload live bundles and notify the queue, while the block runs; gives their numbers, of which
    the next one is the first that was not uploaded.
    """
    numbers = count(LIVE + 1)
    ended = threading.Event()

    def upload() -> None:
        started = time.monotonic()
        for number in count(1):
            if ended.wait(max(0.0, started + number / a_second - time.monotonic())):
                return
            taken = next(numbers)
            history.write(taken)
            queue.send([history.notification(taken)])

    thread = threading.Thread(target=upload, daemon=True)
    if a_second:
        thread.start()
    try:
        yield numbers
    finally:
        ended.set()
        if a_second:
            thread.join()


def _kill_on_the_way(
    queue: MemoryQueue, workers: Sequence[Poller], kills: int, dice: random.Random
) -> None:
    """Kill busy workers at even intervals during the first three quarters of the work."""
    total = len(queue)
    for number in range(kills):
        rest = total * (1 - 0.75 * (number + 1) / kills)
        wait_until(lambda: len(queue) <= rest, PATIENCE, "a part of the backfill")  # noqa: B023
        wait_until(lambda: any(one.busy.is_set() for one in workers), PATIENCE, "any work")
        time.sleep(dice.uniform(0, 0.2))  # Random, so that any moment of the work is hit.
        busy = [one for one in workers if one.busy.is_set()] or list(workers)
        dice.choice(busy).kill()


def judge(client: Client, history: History, written: Sequence[int]) -> Wrong:
    """Compare what readers of the table see, bundle by bundle, with what was written."""
    uri = f"s3://{BUCKET}/"
    seen = {
        file.removeprefix(uri): (rows, ids, digests)
        for file, rows, ids, digests in client.execute(
            f"SELECT source_file, count(), uniqExact(event_id), {SUM_OF_DIGESTS}"
            f" FROM {DATABASE}.video_statements GROUP BY source_file"
        )
    }
    ledger = dict(
        client.execute(f"SELECT key, count() FROM {DATABASE}.processed_files FINAL GROUP BY key")
    )
    lost = doubled = changed = unfinished = 0
    for number in written:
        key = history.key(number)
        rows, ids, digests = seen.pop(key, (0, 0, 0))
        lost += EACH - ids
        doubled += rows - ids
        changed += digests != history.digest(number)
        unfinished += ledger.get(key, 0) != 1
    return Wrong(lost, doubled, changed, len(seen), unfinished)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of them does not exceed; 0 if there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


COLUMNS: dict[str, Callable[[Found], str]] = {
    "bundles": lambda found: f"{found.plan.bundles:,}",
    "seconds": lambda found: f"{found.seconds:,.1f}",
    "ms a bundle": lambda found: (
        f"{found.seconds * 1000 / found.plan.bundles:.2f}" if found.plan.bundles else ""
    ),
    "simulated": lambda found: _simulated(found, 0),
    "processors": lambda found: f"{found.left:.1f}",
    "s of processor": lambda found: f"{found.processor:,.1f}",
    "simulated ": lambda found: _simulated(found, 1),
    "messages": lambda found: f"{found.messages:,}",
    "killed": lambda found: f"{found.killed:,}",
    "delivered again": lambda found: f"{found.again:,}",
    "statements": lambda found: f"{found.statements:,}",
    "lost": lambda found: f"{found.wrong.lost:,}",
    "doubled": lambda found: f"{found.wrong.doubled:,}",
    "changed": lambda found: f"{found.wrong.changed + found.wrong.unexpected:,}",
    "unfinished": lambda found: f"{found.wrong.unfinished:,}",
    "live bundles": lambda found: f"{found.live:,}",
    "delay p50, s": lambda found: f"{statistics.median(found.delays or [0]):.2f}",
    "p99": lambda found: f"{percentile(found.delays, 0.99):.2f}",
    "max": lambda found: f"{max(found.delays, default=0):.2f}",
}
"""What is shown of a run. Readers see each statement once; "changed" counts bundles, and
"unfinished" those without exactly one row in the ledger."""


def _simulated(found: Found, which: int) -> str:
    """The simulated seconds, or seconds of processor, and how far off they are."""
    if not found.plan.bundles:
        return ""
    real, made = (found.seconds, found.processor)[which], predicted(found.plan, found.left)[which]
    return f"{made:,.1f} ({made / real - 1:+.0%})"


def predicted(plan: Plan, processors: float) -> tuple[float, float]:
    """Seconds, and seconds of processor, that the simulation gives a backfill on one machine. The
    workers share its processors with ClickHouse, and nobody waits for S3 or the queue.
    """
    known = coefficients()._replace(request_ms=1.0, receive_ms=0.0)
    setup = Setup(
        statements=plan.live * EACH * DAY,
        each=EACH,
        peak=1.0,
        batch_size=LIVE_BATCH,
        window=LIVE_WINDOW,
        concurrency=LIVE_POLLERS,
        processors=processors,
        shared=True,
        history=plan.bundles * EACH,
        history_concurrency=plan.workers,
        records=plan.records,
        hours=0.0,
        step=0.1,
    )
    result = simulate(setup, known)
    return (result.history_hours or 0.0) * 3600, result.processor_seconds


def table(runs: Sequence[Found]) -> Table:
    """The runs for a terminal."""
    shown = Table(*COLUMNS, title="Backfills through a queue, beside what is uploaded meanwhile")
    for column in shown.columns:
        column.justify = "right"
    for row in rows(runs):
        shown.add_row(*row)
    return shown


def rows(runs: Sequence[Found]) -> list[list[str]]:
    """The cells of each run."""
    return [[cell(found) for cell in COLUMNS.values()] for found in runs]


def main() -> int:
    """Run the plans, and print what happened: exit code 1 if any statement or ledger row is
    wrong, or a run fails.
    """
    about, _, example = __doc__.rpartition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.backfill",
        description=about,
        epilog=example,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--bundles",
        type=int,
        nargs="+",
        default=[1000, 10_000, 100_000],
        metavar="N",
        help=f"bundles of {EACH} statements, one run for each number (1000 10000 100000)",
    )
    parser.add_argument("--workers", type=int, default=2, help="of the backfill (%(default)s)")
    parser.add_argument(
        "--kill", type=float, default=2, help="workers to kill, for 10,000 bundles (%(default)s)"
    )
    parser.add_argument(
        "--live", type=float, default=5, help="bundles a second that arrive (%(default)s)"
    )
    parser.add_argument(
        "--write", action="store_true", help=f"write the table into {scaling.PAGE.name}"
    )
    options = parser.parse_args()
    if min(options.bundles) < 1 or options.workers < 1 or min(options.kill, options.live) < 0:
        parser.error("--bundles and --workers must be above 0, --kill and --live not below")
    runs = []
    try:
        for bundles in (0, *options.bundles):
            plan = Plan(bundles, options.workers, options.kill, options.live)
            with _errors.status(f"loading {bundles:,} bundles"):
                runs.append(run(plan))
    except (NginxFailed, TimeoutError) as error:
        print(error, file=sys.stderr)
        return 1
    Console(width=None if sys.stdout.isatty() else 200).print(table(runs))
    if options.write:
        text = scaling.PAGE.read_text(encoding="utf-8")
        scaling.PAGE.write_text(
            with_tables(
                text, {"backfill": markdown.table(list(COLUMNS), "r", rows(runs))}, COMMAND
            ),
            encoding="utf-8",
        )
    if any(any(found.wrong) for found in runs):
        print(
            "DATA IS WRONG: see the columns lost, doubled, changed and unfinished", file=sys.stderr
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
