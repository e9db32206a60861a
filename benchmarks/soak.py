"""Hold a load, double it, and let it drain: what are the delays, and is each statement there once?

Bundles are uploaded to moto, whose notifications go to a queue with the template's settings. Two
pollers hand batches to the real handler, in processes that stay warm, and a reader asks ClickHouse
again and again which bundles it has. The load is 70% of the most at which delays do not grow, which
is tried out first. Beside it is what the simulation gives for the same load.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from unittest.mock import patch

import boto3

from benchmarks.data import EACH, statement_ids
from benchmarks.load import (
    BATCH,
    BUCKET,
    WINDOW,
    Invocation,
    PolledQueue,
    Reader,
    Upload,
    busy_seconds,
    megabytes,
    upload,
)
from benchmarks.report import SCALING, machine, markdown, write
from benchmarks.scenario import DAY, HOUR, Coefficients, Setup, coefficients, rounds
from benchmarks.simulation import Result, simulate
from local import process
from local.aws import environment, loader_environment
from tests.faults.child import processor_seconds
from tests.faults.drill_plan import PlannedBundle, Verdict, judged
from tests.faults.drill_servers import DATABASE, Server, one_server
from tests.faults.killable import working
from tests.support.real_server import PASSWORD, RealServer
from tests.support.simulated_queue import SimulatedQueue
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.migrations.migrate import migrate

COMMAND = 'make bench BENCH="--soak --write"'
ENGINES = ("current", "2018")
FUNCTIONS, CLICKHOUSE = "functions", "ClickHouse"
POLLERS = 2
FIRST_RATE, TRY_SECONDS = 20.0, 20.0
SHARE = 0.7
"""Of the highest rate at which delays do not grow."""

SURGE, SURGE_SECONDS = 2.0, 180.0
GROWS = 1.0
"""Delays grow if half of the bundles take so many seconds longer in the second half of a try."""

LOOK_SECONDS, SAMPLE_SECONDS = 0.4, 10.0
PATIENCE = 1800.0
"""Seconds until everything is stored. Our limit."""


class Sample(NamedTuple):
    """What is looked at every ten seconds."""

    parts: int
    megabytes: float
    s3: float
    """Seconds to get the objects of a batch."""


class Phase(NamedTuple):
    """A time with the same load. Processors are by who uses them."""

    rate: float
    seconds: float
    uploads: list[Upload]
    samples: list[Sample]
    invocations: list[Invocation]
    processors: dict[str, float]

    @property
    def own(self) -> float:
        """Processors that functions and ClickHouse use."""
        return self.processors[FUNCTIONS] + self.processors[CLICKHOUSE]

    @property
    def left(self) -> float:
        """Processors that all others left for them."""
        return max(0.1, (os.cpu_count() or 1) - sum(self.processors.values()) + self.own)


class Found(NamedTuple):
    """What happened on an engine."""

    version: str
    bundles: int
    held: Phase
    surge: Phase
    seen: dict[str, float]
    again: int
    dead: int
    wrong: Verdict

    def delay(self, phase: Phase, share: float) -> float:
        """Seconds from the upload in which this share of the bundles was seen."""
        delays = sorted(self.seen[one.key] - one.due for one in phase.uploads)
        return delays[round(share * len(delays)) - 1]

    def quarters(self, phase: Phase, share: float) -> str:
        """The same for each quarter of a phase."""
        size = len(phase.uploads) // 4
        parts = (phase.uploads[start : start + size] for start in range(0, 4 * size, size))
        delays = (self.delay(phase._replace(uploads=part), share) for part in parts)
        return f"{', '.join(f'{delay:.1f}' for delay in delays)} s"

    @property
    def drained(self) -> float:
        """Seconds from the end of the surge until all was seen."""
        uploads = self.surge.uploads
        return max(self.seen[one.key] for one in uploads) - uploads[0].due - SURGE_SECONDS


def grows(delays: Sequence[float]) -> bool:
    """Whether delays, in the order of the uploads, grow from the second quarter to the last."""
    quarter = len(delays) // 4
    second, last = delays[quarter : 2 * quarter], delays[3 * quarter :]
    return statistics.median(last) - statistics.median(second) > GROWS


def highest(is_flat: Callable[[float], bool]) -> float:
    """The highest rate at which delays stay flat: doubled until they grow, then halved twice."""
    low, high = 0.0, FIRST_RATE
    while is_flat(high):
        low, high = high, 2 * high
    for _ in range(2):
        middle = (low + high) / 2
        low, high = (middle, high) if is_flat(middle) else (low, middle)
    return low


class Soak:
    """The whole stack while it runs. `processes` has the ids of whom to watch."""

    def __init__(self, queue: PolledQueue, reader: Reader, processes: dict[str, list[int]]) -> None:
        self.queue, self.reader = queue, reader
        self.uploads: list[Upload] = []
        self.uploader = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        own = {"uploader": [self.uploader.submit(os.getpid).result()]}
        self._processes = {**processes, **own, "pollers and reader": [os.getpid()]}

    def phase(self, rate: float, seconds: float, *, drain: bool) -> Phase:
        """Upload at this rate and, if asked, until everything is seen. Raises TimeoutError."""
        samples: list[Sample] = []
        already, started, used = len(self.queue.batches), time.monotonic(), self._used()
        uploading = self.uploader.submit(upload, len(self.uploads), rate, seconds)
        while not uploading.done() or (drain and not self._has_seen(uploading.result())):
            time.sleep(LOOK_SECONDS)
            self.reader.look()
            took = time.monotonic() - started
            if took > (len(samples) + 1) * SAMPLE_SECONDS and not uploading.done():
                samples.append(self._sample())
            if took > seconds + PATIENCE:
                raise TimeoutError(f"{rate:.0f} bundles a second: not all are stored")
        took = time.monotonic() - started
        processors = {name: (end - used[name]) / took for name, end in self._used().items()}
        self.uploads += uploading.result()
        invocations = self.queue.batches[already:]
        return Phase(rate, took, uploading.result(), samples, invocations, processors)

    def is_flat(self, rate: float) -> bool:
        """Whether delays do not grow at this rate."""
        phase = self.phase(rate, TRY_SECONDS, drain=True)
        flat = not grows([self.reader.seen[one.key] - one.due for one in phase.uploads])
        print(f"{rate:.0f} bundles a second: delays {'stay' if flat else 'grow'}", file=sys.stderr)
        return flat

    def _has_seen(self, new: list[Upload]) -> bool:
        return self.reader.seen.keys() >= {one.key for one in [*self.uploads, *new]}

    def _used(self) -> dict[str, float]:
        used = {name: sum(map(processor_seconds, ids)) for name, ids in self._processes.items()}
        return used | {"others": busy_seconds() - sum(used.values())}

    def _sample(self) -> Sample:
        most = max(map(megabytes, self._processes[FUNCTIONS]))
        last = list(self.reader.seen)[-BATCH:]
        return Sample(self.reader.parts(), most, self.reader.get_seconds(last))


@contextmanager
def engine(name: str, folder: Path) -> Iterator[Server | RealServer]:
    """A server of this name, with the tables."""
    if name == "current":
        with one_server(folder) as server:
            migrate(Settings.from_env(loader_environment(server.port, {}, BUCKET)))
            yield server
        return
    old = RealServer(folder)
    try:
        old.start()
        old.create_tables(DATABASE, "ReplacingMergeTree(VERSION)")
        yield old
    finally:
        old.kill()


def run(name: str, seconds: float, rate: float = 0.0) -> Found:
    """Hold the load for so long, at the highest rate unless it is given. Raises TimeoutError."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        moto, port = stack.enter_context(process.running("benchmarks.busy_queue", "0"))
        server = stack.enter_context(engine(name, folder))
        assert server.process
        variables = loader_environment(server.port, environment(port), BUCKET)
        variables["CLICKHOUSE_PASSWORD"] = PASSWORD if isinstance(server, RealServer) else ""
        stack.enter_context(patch.dict(os.environ, variables))
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        real = SimulatedQueue("soak")
        real.notify_of(BUCKET)
        urls = {"SQS_QUEUE_URL": real.url, "SQS_DEAD_LETTER_QUEUE_URL": real.dead_url}
        queue = PolledQueue(real=real)
        workers = stack.enter_context(working(queue, POLLERS, urls))
        processes = {
            "moto": [moto],
            FUNCTIONS: [worker.loader.pid for worker in workers],
            CLICKHOUSE: [server.process.pid],
        }
        reader = Reader(server.port, variables["CLICKHOUSE_PASSWORD"])
        soak = Soak(queue, reader, processes)
        stack.callback(soak.uploader.shutdown)
        soak.phase(FIRST_RATE, WINDOW, drain=True)
        rate = rate or SHARE * highest(soak.is_flat)
        held = soak.phase(rate, seconds, drain=False)
        surge = soak.phase(SURGE * rate, SURGE_SECONDS, drain=True)
        plan = [PlannedBundle(one.key, b"", statement_ids(one.number)) for one in soak.uploads]
        etags = {one.key: one.etag for one in soak.uploads}
        return Found(
            str(server.ask("SELECT version()")[0][0]),
            len(plan),
            held,
            surge,
            reader.seen,
            queue.again,
            len(real.dead_letters()),
            judged(server.ask, BUCKET, plan, etags),
        )


def predicted(found: Found) -> tuple[Result, Result]:
    """The held load, alone and with the surge, simulated on one machine, with S3 and SQS as slow
    as moto was.
    """
    held = found.held
    setup = Setup(
        held.rate * EACH * DAY,
        EACH,
        peak=1.0,
        batch_size=BATCH,
        window=WINDOW,
        concurrency=POLLERS,
        processors=held.left,
        shared=True,
        hours=held.seconds / HOUR,
    )
    surge = (setup.hours, setup.hours + SURGE_SECONDS / HOUR, SURGE)
    later = replace(setup, surge=surge, processors=found.surge.left)
    return simulate(setup, _known(held)), simulate(later, _known(found.surge))


def _known(phase: Phase) -> Coefficients:
    sqs, bundles = (sum(one[field] for one in phase.invocations) for field in (2, 0))
    return coefficients()._replace(
        request_ms=statistics.mean(one.s3 for one in phase.samples) * 1e3 / rounds(BATCH),
        receive_ms=sqs * 1e4 / bundles,
    )


def rows(found: Found) -> dict[str, tuple[str, str]]:
    """What is shown: measured, and simulated."""
    held, surge = found.held, found.surge
    made, later = predicted(found)
    quarters = [held.samples[len(held.samples) * part // 4 - 1] for part in (1, 2, 3, 4)]
    parts = max(sample.parts for phase in (held, surge) for sample in phase.samples)
    cost = held.own * held.seconds / len(held.uploads) * 1e3
    bundles, took = (statistics.mean(one[field] for one in held.invocations) for field in (0, 1))

    def both(shown: str, real: float, simulated: float) -> tuple[str, str]:
        return shown.format(real), f"{shown.format(simulated)} ({simulated / real - 1:+.0%})"

    return {
        "server": (found.version, ""),
        "**held**: bundles a second": (f"{held.rate:.0f}", ""),
        "minutes": (f"{held.seconds / 60:.2g}", ""),
        "half of the bundles stored within": both(
            "{:.1f} s", found.delay(held, 0.5), made.delay(0.5)
        ),
        "by quarters": (found.quarters(held, 0.5), ""),
        "99% within": both("{:.1f} s", found.delay(held, 0.99), made.delay(0.99)),
        "bundles in an invocation": both("{:.0f}", bundles, made.bundles / made.invocations),
        "an invocation": both("{:.2f} s", took, made.function_seconds / made.invocations),
        "processor for a bundle": both(
            "{:.1f} ms", cost, made.processor_seconds / made.bundles * 1e3
        ),
        "memory of a function, by quarters": (
            f"{', '.join(f'{one.megabytes:.0f}' for one in quarters)} MB",
            "",
        ),
        "active parts, by quarters": (", ".join(str(one.parts) for one in quarters), ""),
        "active parts, at most": both("{:.0f}", parts, later.most_parts),
        "processors used": (_shares(held), ""),
        "**twice that for three minutes**: bundles a second": (f"{surge.rate:.0f}", ""),
        "the last bundle stored within": both(
            "{:.0f} s", found.delay(surge, 1.0), later.delay(1.0)
        ),
        "**calm**: all stored after": both("{:.0f} s", found.drained, (later.drained or 0) * HOUR),
        "statements in all": (f"{found.bundles * EACH:,}", ""),
        "messages delivered again, dead letters": (f"{found.again}, {found.dead}", ""),
        "lost, doubled, unexpected": (", ".join(map(str, found.wrong[:3])), ""),
        "unfinished": (str(found.wrong.ledger_wrong), ""),
    }


def _shares(phase: Phase) -> str:
    used = sorted(phase.processors.items(), key=lambda one: -one[1])
    return ", ".join(f"{name} {share:.2f}" for name, share in used)


def table(runs: Sequence[Found]) -> str:
    """The runs beside each other."""
    columns = [rows(found) for found in runs]
    names = ["", *["measured", "simulated"] * len(runs)]
    cells = [[label, *(cell for one in columns for cell in one[label])] for label in columns[0]]
    return markdown(names, "l", cells)


def main(engines: Sequence[str], minutes: float, *, to_page: bool) -> int:
    """Print what happened: exit code 1 if any statement or ledger row is wrong."""
    runs = []
    for name in engines:
        print(f"ClickHouse: {name}", file=sys.stderr)
        runs.append(run(name, minutes * 60))
        print(table(runs[-1:]), flush=True)
    if to_page:
        write(SCALING, {"soak-measured-on": machine(), "soak": table(runs)}, COMMAND)
    if any(any(found.wrong) for found in runs):
        print("DATA IS WRONG: see lost, doubled, unexpected and unfinished", file=sys.stderr)
        return 1
    return 0
