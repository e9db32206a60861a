"""Hold a load, double it, and let it drain: what are the delays, and is each statement there once?

Bundles are uploaded to moto, whose notifications go to a queue with the template's settings. Two
pollers hand batches to the real handler, in processes that stay warm. A reader asks ClickHouse five
times a second which bundles it has. The load is 70% of the most at which delays do not grow, which
is tried out first. Each figure is shown beside the simulation's.
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

from benchmarks.backfill import busy_seconds
from benchmarks.data import EACH, statement_ids
from benchmarks.load import BATCH, BUCKET, WINDOW, Invocation, Poller, Reader, Upload, upload
from benchmarks.report import SCALING, machine, markdown, write
from benchmarks.scenario import DAY, HOUR, Coefficients, Setup, coefficients, rounds
from benchmarks.simulation import Result, simulate
from local import process
from local.aws import environment, loader_environment
from tests.faults.child import processor_seconds
from tests.faults.drill_plan import PlannedBundle, Verdict, judged
from tests.faults.drill_servers import DATABASE, Server, one_server
from tests.support.real_server import PASSWORD, RealServer
from tests.support.simulated_queue import SimulatedQueue
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.migrations.migrate import migrate

COMMAND = "make bench BENCH='--soak --write'"
ENGINES = ("current", "2018")
FUNCTIONS, CLICKHOUSE = "functions", "ClickHouse"
POLLERS = 2
FIRST_RATE = 20.0
TRY_SECONDS = 20.0
SHARE = 0.7
"""Of the highest rate at which delays do not grow."""
SURGE = 2.0
SURGE_SECONDS = 180.0
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
    def left(self) -> float:
        """Processors that all others left for the functions and ClickHouse."""
        others = sum(self.processors.values()) - self.own
        return max(0.1, (os.cpu_count() or 1) - others)

    @property
    def own(self) -> float:
        """Processors that functions and ClickHouse use."""
        return self.processors[FUNCTIONS] + self.processors[CLICKHOUSE]


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
        """Seconds from the upload until this share of the bundles was seen."""
        return quantile([self.seen[one.key] - one.due for one in phase.uploads], share)

    @property
    def drained(self) -> float:
        """Seconds from the end of the surge until all was seen."""
        last = max(self.seen[one.key] for one in self.surge.uploads)
        return last - (self.surge.uploads[0].due + SURGE_SECONDS)

    @property
    def deepest(self) -> int:
        """The most bundles that were due and not seen."""
        uploads = [*self.held.uploads, *self.surge.uploads]
        changes = [(one.due, 1) for one in uploads]
        changes += [(self.seen[one.key], -1) for one in uploads]
        most = now = 0
        for _, change in sorted(changes):
            now += change
            most = max(most, now)
        return most


def quantile(values: Sequence[float], share: float) -> float:
    """The value that this share of them does not exceed."""
    return sorted(values)[max(0, round(share * len(values)) - 1)]


def grows(delays: Sequence[float]) -> bool:
    """Whether delays, in the order of the uploads, grow in the second half."""
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
    """The whole stack while it runs, with the ids of the processes of moto and ClickHouse."""

    def __init__(
        self, pollers: list[Poller], reader: Reader, uploader: ProcessPoolExecutor, **others: int
    ) -> None:
        self.pollers, self.reader, self.uploader = pollers, reader, uploader
        self.uploads: list[Upload] = []
        self._processes = {
            **{name: [process] for name, process in others.items()},
            FUNCTIONS: [poller.function.pid for poller in pollers],
            "uploader": [uploader.submit(os.getpid).result()],
            "pollers and reader": [os.getpid()],
        }

    def phase(self, rate: float, seconds: float, *, drain: bool) -> Phase:
        """Upload at this rate and, if asked, until everything is seen. Raises TimeoutError."""
        already = [len(poller.invocations) for poller in self.pollers]
        samples: list[Sample] = []
        started, used = time.monotonic(), self._used()
        future = self.uploader.submit(upload, len(self.uploads), rate, seconds)
        missing: set[str] | None = None
        while not future.done() or (drain and missing != set()):
            self.reader.look()
            now = time.monotonic()
            if now > started + (len(samples) + 1) * SAMPLE_SECONDS and not future.done():
                samples.append(self._sample())
            if future.done():
                missing = {one.key for one in [*self.uploads, *future.result()]}
                missing -= self.reader.seen.keys()
            if now > started + seconds + PATIENCE:
                raise TimeoutError(f"{rate:.0f} bundles a second: not all are stored")
            time.sleep(LOOK_SECONDS)
        took = time.monotonic() - started
        processors = {name: (end - used[name]) / took for name, end in self._used().items()}
        self.uploads += future.result()
        pairs = zip(self.pollers, already, strict=True)
        invocations = [one for poller, first in pairs for one in poller.invocations[first:]]
        return Phase(rate, took, future.result(), samples, invocations, processors)

    def is_flat(self, rate: float) -> bool:
        """Whether delays do not grow at this rate."""
        phase = self.phase(rate, TRY_SECONDS, drain=True)
        flat = not grows([self.reader.seen[one.key] - one.due for one in phase.uploads])
        print(f"{rate:.0f} bundles a second: delays {'stay' if flat else 'grow'}", file=sys.stderr)
        return flat

    def _used(self) -> dict[str, float]:
        used = {name: sum(map(processor_seconds, ids)) for name, ids in self._processes.items()}
        return used | {"others": busy_seconds() - sum(used.values())}

    def _sample(self) -> Sample:
        some = list(self.reader.seen)[-BATCH:]
        most = max(poller.megabytes for poller in self.pollers)
        return Sample(self.reader.parts(), most, self.reader.get_seconds(some))


@contextmanager
def engine(name: str, folder: Path) -> Iterator[Server | RealServer]:
    """A server of this name with the tables. The other variables are set already."""
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
        password = PASSWORD if isinstance(server, RealServer) else ""
        variables = loader_environment(server.port, environment(port), BUCKET)
        variables["CLICKHOUSE_PASSWORD"] = password
        stack.enter_context(patch.dict(os.environ, variables))
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        queue = SimulatedQueue("soak")
        queue.notify_of(BUCKET)
        own = {"SQS_QUEUE_URL": queue.url, "SQS_DEAD_LETTER_QUEUE_URL": queue.dead_url}
        pollers = [Poller(queue, own) for _ in range(POLLERS)]
        for poller in pollers:
            stack.callback(poller.close)
            poller.start()
        reader = Reader(server.port, password)
        spawn = get_context("spawn")
        uploader = stack.enter_context(ProcessPoolExecutor(1, mp_context=spawn))
        soak = Soak(pollers, reader, uploader, moto=moto, **{CLICKHOUSE: server.process.pid})
        soak.phase(FIRST_RATE, WINDOW, drain=True)
        rate = rate or SHARE * highest(soak.is_flat)
        held = soak.phase(rate, seconds, drain=False)
        surge = soak.phase(SURGE * rate, SURGE_SECONDS, drain=True)
        plan = [PlannedBundle(one.key, b"", statement_ids(one.number)) for one in soak.uploads]
        return Found(
            str(server.ask("SELECT version()")[0][0]),
            len(plan),
            held,
            surge,
            reader.seen,
            sum(poller.again for poller in pollers),
            len(queue.dead_letters()),
            judged(server.ask, BUCKET, plan, {one.key: one.etag for one in soak.uploads}),
        )


class Predicted(NamedTuple):
    """What the simulation gives: the held load alone, and with the surge."""

    held: Result
    surge: Result


def predicted(found: Found) -> Predicted:
    """The same load, simulated on one machine, with S3 and SQS as slow as moto was."""
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
    return Predicted(simulate(setup, _known(held)), simulate(later, _known(found.surge)))


def _known(phase: Phase) -> Coefficients:
    sqs = sum(one.sqs for one in phase.invocations)
    return coefficients()._replace(
        request_ms=statistics.median(one.s3 for one in phase.samples) * 1e3 / rounds(BATCH),
        receive_ms=sqs * 1e4 / sum(one.bundles for one in phase.invocations),
    )


def _beside(real: float, made: float, shown: str) -> tuple[str, str]:
    """A figure, and the simulation's with how far off it is."""
    return shown.format(real), f"{shown.format(made)} ({made / real - 1:+.0%})"


def rows(found: Found) -> dict[str, tuple[str, str]]:
    """What is shown: measured, and simulated."""
    held, surge, made = found.held, found.surge, predicted(found)
    alone, later = made
    quarters = [held.samples[len(held.samples) * part // 4 - 1] for part in (1, 2, 3, 4)]
    parts = max(sample.parts for phase in (held, surge) for sample in phase.samples)
    cost = held.own * held.seconds / len(held.uploads) * 1e3
    invocations = len(held.invocations)
    bundles = sum(one.bundles for one in held.invocations) / invocations
    took = sum(one.seconds for one in held.invocations) / invocations
    return {
        "server": (found.version, ""),
        f"**held** for {_minutes(held.seconds)}: bundles a second": (f"{held.rate:.0f}", ""),
        "upload to row: half of the bundles within": _beside(
            found.delay(held, 0.5), alone.delay(0.5), "{:.1f} s"
        ),
        "99% within": _beside(found.delay(held, 0.99), alone.delay(0.99), "{:.1f} s"),
        "bundles in an invocation": _beside(bundles, alone.bundles / alone.invocations, "{:.0f}"),
        "an invocation takes": _beside(
            took, alone.function_seconds / alone.invocations, "{:.2f} s"
        ),
        "processor for a bundle": _beside(
            cost, alone.processor_seconds / alone.bundles * 1e3, "{:.1f} ms"
        ),
        "memory of a function after each quarter": (
            f"{', '.join(f'{one.megabytes:.0f}' for one in quarters)} MB",
            "",
        ),
        "active parts after each quarter": (", ".join(str(one.parts) for one in quarters), ""),
        "active parts, at most": _beside(parts, max(one.most_parts for one in made), "{:.0f}"),
        "processors in use": (_shares(held), ""),
        f"**doubled** for {_minutes(SURGE_SECONDS)}: bundles a second": (f"{surge.rate:.0f}", ""),
        "99% within ": (f"{found.delay(surge, 0.99):.0f} s", ""),
        "bundles not stored, at most": _beside(found.deepest, later.deepest, "{:,.0f}"),
        "**calm**: all is stored after": _beside(
            found.drained, (later.drained or 0.0) * HOUR, "{:.0f} s"
        ),
        "processors in use ": (_shares(surge), ""),
        "bundles in all, and statements": (
            f"{found.bundles:,}, {found.bundles * EACH:,}",
            "",
        ),
        "delivered again, dead letters": (f"{found.again}, {found.dead}", ""),
        "statements lost, doubled, unexpected": (", ".join(map(str, found.wrong[:3])), ""),
        "ledger rows that are wrong": (str(found.wrong.ledger_wrong), ""),
    }


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes"


def _shares(phase: Phase) -> str:
    used = sorted(phase.processors.items(), key=lambda one: -one[1])
    return ", ".join(f"{name} {share:.2f}" for name, share in used)


def table(runs: Sequence[Found]) -> str:
    """The runs beside each other."""
    columns = [rows(found) for found in runs]
    names = ["", *["measured", "simulated"] * len(runs)]
    cells = [[label, *(cell for one in columns for cell in one[label])] for label in columns[0]]
    return markdown(names, "lr", cells)


def main(engines: Sequence[str], minutes: float, *, to_page: bool) -> int:
    """Print what happened: exit code 1 if any statement or ledger row is wrong, or a run fails."""
    runs = []
    for name in engines:
        print(f"ClickHouse: {name}", file=sys.stderr)
        try:
            runs.append(run(name, minutes * 60))
        except TimeoutError as error:
            print(error, file=sys.stderr)
            return 1
        print(table(runs[-1:]), flush=True)
    if to_page:
        write(SCALING, {"soak-measured-on": machine(), "soak": table(runs)}, COMMAND)
    if any(any(found.wrong) for found in runs):
        print("DATA IS WRONG: see lost, doubled, unexpected and ledger", file=sys.stderr)
        return 1
    return 0
