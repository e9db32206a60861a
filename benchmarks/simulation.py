"""A model of what happens between upload and row, in steps of time: pure, and always the same.

Bundles arrive in a queue. Pollers gather batches and invoke the function; a second queue carries
history. ClickHouse takes inserts as its processors and its merges allow.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np

from benchmarks import scenario
from benchmarks.scenario import DAY, HOUR, Coefficients, Cost, Setup, invocation
from xapi_etl_processor.queues.sqs import pause_seconds

GIVE_UP_DAYS = 3
"""Days after an outage until a queue that does not drain is given up. Our limit."""

_SPREAD = (0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
"""Points in a batch's window at which bundles arrive, to tell their delays apart."""


@dataclass
class Result:
    """What happened. Delays are in seconds from upload to row; rates are by the second."""

    setup: Setup
    delays: list[tuple[float, float]] = field(default_factory=list)
    """Delay and number of bundles."""
    deepest: float = 0.0
    in_flight: float = 0.0
    most_functions: float = 0.0
    most_inserts: float = 0.0
    most_parts: float = 0.0
    most_load: float = 0.0
    """Share of ClickHouse's processors."""
    inserts: float = 0.0
    invocations: float = 0.0
    function_seconds: float = 0.0
    processor_seconds: float = 0.0
    """Of the functions' processors, at full speed, and of ClickHouse's."""
    sqs_requests: float = 0.0
    bundles: float = 0.0
    """Bundles that were stored, of the queue and of the backfill."""
    drained: float | None = None
    """Hours after an outage or a surge until all that arrived before its end is stored."""
    history_hours: float | None = None
    seconds: float = 0.0
    """What was simulated."""

    def delay(self, share: float) -> float:
        """The delay that this share of the bundles does not exceed."""
        ordered = sorted(self.delays)
        left = share * sum(number for _, number in ordered)
        for delay, number in ordered:
            left -= number
            if left <= 1e-9:
                return delay
        return ordered[-1][0] if ordered else 0.0


def _steepness(peak: float) -> float:
    """How steep a day's hill, exp(k cos), must be for its peak to be this multiple of its mean."""
    low, high = 0.0, 50.0
    for _ in range(40):
        middle = (low + high) / 2
        too_flat = math.exp(middle) / np.i0(middle) < peak
        low, high = (middle, high) if too_flat else (low, middle)
    return low


class _Cohort(NamedTuple):
    """Messages that were sent in the same step, and how often they were delivered."""

    sent: float
    number: float
    receives: int = 0


@dataclass
class _Partition:
    """The parts of the partition that is written to."""

    owed: float = 0.0
    """Seconds of processor that merges need, until its parts are as few as they get."""
    each: float = 1.0
    """What a new part adds to that."""
    settled: float = 0.0
    """Parts that are there even if merges keep up."""
    rows: float = 0.0

    @property
    def parts(self) -> float:
        return self.settled + self.owed / self.each

    @property
    def insert_delay(self) -> float:
        """Seconds that ClickHouse delays an insert."""
        over = (self.parts - scenario.PARTS_DELAY) / (scenario.PARTS_THROW - scenario.PARTS_DELAY)
        return max(0.01, min(1.0, over) * scenario.MOST_PART_DELAY) if over > 0 else 0.0

    @property
    def refuses(self) -> bool:
        return self.parts >= scenario.PARTS_THROW


@dataclass
class _Pollers:
    """How many batches Lambda processes at once."""

    most: int
    now: float = 0.0

    def __post_init__(self) -> None:
        self.most = min(self.most, scenario.MOST_POLLERS)
        self.now = min(scenario.FIRST_POLLERS, self.most)

    def adapt(self, step: float, used: float, *, waiting: bool) -> None:
        """Add some while messages wait, and take some away if few are used. How fast they go is our
        guess: AWS only says that they do.
        """
        change = scenario.MORE_POLLERS * step
        wanted = self.now + change if waiting else max(1.5 * used, self.now - change / 10)
        self.now = max(min(scenario.FIRST_POLLERS, self.most), min(self.most, wanted))


class _Demand(NamedTuple):
    """What one of the queues could have done in a step."""

    bundles: float = 0.0
    batch: float = 1.0
    gather: float = 0.0
    cost: Cost = Cost(0, 0, 0, 0, 0, 0)

    @property
    def batches(self) -> float:
        return self.bundles / self.batch

    def processors(self, *, shared: bool) -> float:
        """Seconds of ClickHouse's processors, or of the machine's."""
        cost = self.cost
        own = cost.processor if shared else 0.0
        return self.batches * (cost.server + cost.merging + own)


def simulate(setup: Setup, known: Coefficients) -> Result:
    """Run the model."""
    return _Simulation(setup, known).run()


class _Simulation:
    def __init__(self, setup: Setup, known: Coefficients) -> None:
        self.setup, self.known = setup, known
        self.result = Result(setup)
        self.dice = np.random.default_rng(1)
        self.waiting: deque[_Cohort] = deque()
        self.depth = 0.0
        self.returning: list[tuple[float, _Cohort]] = []
        self.away = 0.0
        self.pollers = _Pollers(setup.concurrency)
        self.workers = _Pollers(setup.history_concurrency)
        self.from_before = 0.0
        """Messages left that were sent before the end of the outage."""
        self.left = setup.history / setup.each
        self.records = scenario.history_bundles(setup, known) if setup.history else 1
        self.now_partition, self.old_partition = _Partition(), _Partition()
        self.steepness = _steepness(setup.peak)
        self.mean = float(np.i0(self.steepness))

    def run(self) -> Result:
        setup, result = self.setup, self.result
        step = setup.step
        now, end = 0.0, setup.hours * HOUR
        for one in filter(None, (setup.outage, setup.surge)):
            end = max(end, one[1] * HOUR)
        limit = end + 5 * 365 * DAY
        while now < limit and (now < end or self._has_work(now - end)):
            self._step(now, step)
            now += step
        result.seconds = now
        return result

    def _has_work(self, late: float) -> bool:
        """Whether to go on, so many seconds after the end."""
        waits = bool(self.setup.outage or self.setup.surge) and self.result.drained is None
        return self.left > 0 or (waits and late < GIVE_UP_DAYS * DAY)

    def _step(self, now: float, step: float) -> None:
        setup, result = self.setup, self.result
        self._arrive(now, step)
        away = setup.outage
        down = away is not None and away[0] <= now / HOUR < away[1]
        live = self._live_demand(step, down=down)
        old = _Demand() if down else self._history_demand(step)
        wanted = sum(one.processors(shared=setup.shared) for one in (live, old))
        load = 0.0 if down else wanted / (setup.processors * step)
        share = min(1.0, 1.0 / load) if load else 1.0
        live = live._replace(bundles=live.bundles * share)
        old = old._replace(bundles=min(old.bundles * share, self.left))
        failing = down or self.now_partition.refuses
        self._deliver(live, now, failing=failing)
        self.left = max(0.0, self.left - old.bundles)
        if setup.history and not self.left and result.history_hours is None:
            result.history_hours = (now + step) / HOUR
        if not down:
            self._merge(_Demand() if failing else live, old, step)
        self._count(live, old, step, failing=failing)
        used = live.batches * live.cost.seconds / step
        self.pollers.adapt(step, used, waiting=self.depth >= setup.batch_size)
        self.workers.adapt(step, 0.0, waiting=self.left > 0)
        functions = (live.batches * live.cost.seconds + old.batches * old.cost.seconds) / step
        result.deepest = max(result.deepest, self.depth + self.away)
        result.in_flight = max(result.in_flight, self.away)
        result.most_functions = max(result.most_functions, functions)
        result.most_load = max(result.most_load, load)
        if away and result.drained is None and now / HOUR >= away[1] and self.from_before < 1:
            result.drained = (now + step) / HOUR - away[1]
        surge = setup.surge
        if surge and live.bundles and now / HOUR >= surge[1] and self.depth < 1:
            result.drained = (now + live.gather + live.cost.seconds) / HOUR - surge[1]

    def _arrive(self, now: float, step: float) -> None:
        hour = now / HOUR
        factor = math.exp(self.steepness * math.cos((hour - 14) * math.pi / 12)) / self.mean
        if self.setup.surge:
            begin, end, times = self.setup.surge
            factor *= times if begin <= hour < end else hour < end
        number = int(self.dice.poisson(self.setup.bundles_a_second * factor * step))
        if number:
            self.waiting.append(_Cohort(now, number))
            self.depth += number
            self.result.sqs_requests += number
            if self.setup.outage and hour < self.setup.outage[1]:
                self.from_before += number
        while self.returning and self.returning[0][0] <= now:
            _, cohort = heappop(self.returning)
            self.away -= cohort.number
            self.waiting.append(cohort)
            self.depth += cohort.number

    def _live_demand(self, step: float, *, down: bool) -> _Demand:
        setup, pollers = self.setup, self.pollers.now
        if self.depth <= 0:
            return _Demand()
        arriving = self.depth / step
        batch, busy = 1.0, setup.window
        for _ in range(3):
            # What arrives while a poller's last batch is processed is there when it asks again.
            batch = min(setup.batch_size, 1 + arriving * busy / pollers)
            busy = setup.window + invocation(setup, batch, self.known).seconds
        full = batch >= setup.batch_size
        receiving = math.ceil(batch / scenario.RECEIVED) * self.known.receive_ms / 1e3
        gather = min(setup.window, (batch - 1) * pollers / arriving) if full else setup.window
        cost = invocation(setup, batch, self.known)
        if down:
            cost = cost._replace(seconds=self.known.outage_ms / 1e3)
        else:
            delay = self.now_partition.insert_delay * cost.parts
            cost = cost._replace(seconds=cost.seconds + delay)
        # A full batch may be gathered while another one is processed.
        busy = cost.seconds + (receiving if full else setup.window)
        most = max(pollers * step / busy, 1.0) * batch
        room = max(0.0, scenario.IN_FLIGHT - self.away)
        return _Demand(min(self.depth, most, room), batch, max(gather, receiving), cost)

    def _history_demand(self, step: float) -> _Demand:
        if self.left <= 0 or self.old_partition.refuses:
            return _Demand()
        cost = invocation(self.setup, self.records, self.known)
        delay = self.old_partition.insert_delay * cost.parts
        cost = cost._replace(seconds=cost.seconds + delay)
        busy = cost.seconds + self.known.receive_ms / 1e3
        possible = self.workers.now * step / busy * self.records
        return _Demand(min(self.left, possible), self.records, 0.0, cost)

    def _deliver(self, live: _Demand, now: float, *, failing: bool) -> None:
        """Take messages from the queue."""
        left = live.bundles
        outage = self.setup.outage
        while left > 1e-9 and self.waiting:
            cohort = self.waiting.popleft()
            taken = min(left, cohort.number)
            if taken < cohort.number:
                self.waiting.appendleft(cohort._replace(number=cohort.number - taken))
            left -= taken
            self.depth -= taken
            if failing:
                receives = cohort.receives + 1
                back = now + live.cost.seconds + pause_seconds(receives)
                heappush(self.returning, (back, _Cohort(cohort.sent, taken, receives)))
                self.away += taken
                continue
            waited = now - cohort.sent
            if outage and cohort.sent < outage[1] * HOUR:
                self.from_before = max(0.0, self.from_before - taken)
            self.result.delays += [
                (waited + live.gather * part + live.cost.seconds, taken / len(_SPREAD))
                for part in _SPREAD
            ]

    def _merge(self, live: _Demand, old: _Demand, step: float) -> None:
        """Add the merges that new parts need, and do as many as ClickHouse's processors allow."""
        partitions = (self.now_partition, self.old_partition)
        for partition, one in zip(partitions, (live, old), strict=True):
            if one.bundles:
                partition.owed += one.batches * one.cost.merging
                partition.each = one.cost.merging / one.cost.parts
                partition.rows += one.bundles * self.setup.each
                rows = one.batch * self.setup.each / one.cost.parts
                largest = min(partition.rows, scenario.LARGE_PART_ROWS)
                levels = max(1.0, math.log(largest / rows, scenario.MERGED_AT_ONCE))
                # On each level, parts wait until a merge is worth it.
                most = levels * scenario.PARTS_A_LEVEL
                partition.settled = min(partition.settled + one.batches * one.cost.parts, most)
        owed = sum(partition.owed for partition in partitions)
        done = min(1.0, self.setup.processors * scenario.MERGE_SHARE * step / owed) if owed else 1.0
        for partition in partitions:
            partition.owed *= 1 - done

    def _count(self, live: _Demand, old: _Demand, step: float, *, failing: bool) -> None:
        result = self.result
        inserts = 0.0
        for one in (live, old):
            result.invocations += one.batches
            result.function_seconds += one.batches * one.cost.seconds
            messages = one.batch if one is live else 1
            # One request receives up to ten messages, and one deletes them.
            result.sqs_requests += one.batches * 2 * math.ceil(messages / scenario.RECEIVED)
            if not (failing and one is live):
                inserts += one.batches * one.cost.inserts
                result.bundles += one.bundles
                result.processor_seconds += one.processors(shared=True)
        result.inserts += inserts
        result.most_inserts = max(result.most_inserts, inserts / step)
        result.most_parts = max(
            result.most_parts, self.now_partition.parts, self.old_partition.parts
        )
