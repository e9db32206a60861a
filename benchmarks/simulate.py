"""Simulate a day of uploads, an outage, a backfill: delays, functions, inserts, parts, cost.

The model is made of what single steps were measured to take (benchmarks/coefficients.json) and of
the rules of Lambda, SQS and ClickHouse. docs/scaling.md says what it found, and how far off it is.

    make simulate                                              write the page
    python -m benchmarks.simulate statements=3e7 each=25       print the table of another day
    python -m benchmarks.simulate history=1e9 history_concurrency=20    ... and of a backfill

The names are those of Setup in scenario.py.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from benchmarks import scenario
from benchmarks.report import SCALING, markdown, write
from benchmarks.scenario import DAY, HOUR, Coefficients, Setup, coefficients, invocation
from benchmarks.simulation import GIVE_UP_DAYS, Result, simulate

COMMAND = "make simulate"

# List prices of us-east-1 in US dollars, on x86_64, without the free parts:
# https://aws.amazon.com/lambda/pricing/, https://aws.amazon.com/sqs/pricing/ and
# https://aws.amazon.com/s3/pricing/
GB_SECOND = 0.000_016_666_7
INVOCATION = 0.20 / 1e6
SQS_REQUEST = 0.40 / 1e6
S3_GET = 0.0004 / 1e3

OUTAGE = (6.0, 18.0)

Ways = Mapping[str, Setup]
"""Ways to run a size of the page: name, and what is set."""

DAYS: dict[str, Ways] = {
    "1 million statements a day, in bundles of 10": {
        "the defaults": Setup(processors=4),
        "fewer, larger inserts": Setup(processors=4, window=30),
    },
    "100 million statements a day, in bundles of 10": {
        "the defaults": Setup(1e8),
        "recommended": Setup(1e8, batch_size=500, concurrency=20),
        "a bundle in each invocation": Setup(1e8, batch_size=1, window=0, concurrency=1000),
    },
}
BACKFILLS: dict[str, Ways] = {
    "100 million statements": {
        "the defaults": Setup(history=1e8, step=5),
        "recommended": Setup(history=1e8, step=5, history_concurrency=10, memory=1769),
    },
}


BATCHES = ((1, 0.0), (10, 1), (100, 1), (100, 5), (100, 30), (500, 60))
"""`BatchSize` and `BatchingWindow`."""

BUNDLES_A_MINUTE = (1, 100, 10_000)


class Limit(NamedTuple):
    """A limit, and the share of it that the busiest moment needs."""

    name: str
    share: float


def limits(setup: Setup, known: Coefficients) -> list[Limit]:
    """All limits, the nearest first."""
    rate = setup.bundles_a_second * setup.peak
    batch = min(setup.batch_size, 1 + rate * setup.window / scenario.FIRST_POLLERS)
    usual, full = invocation(setup, batch, known), invocation(setup, setup.batch_size, known)
    functions = rate / setup.batch_size * (full.seconds + setup.batch_size * known.receive_ms / 1e4)
    merging = rate / batch * usual.merging
    server = rate / batch * usual.server + merging
    found = [
        Limit("functions", functions / setup.concurrency),
        Limit("ClickHouse's processors", server / setup.processors),
        Limit("merges", merging / (setup.processors * scenario.MERGE_SHARE)),
    ]
    return sorted(found, key=lambda limit: -limit.share)


def dollars(result: Result) -> dict[str, float]:
    """What all of it cost, x86_64, without ClickHouse, logs, and the writers' own requests."""
    memory = result.function_seconds * result.setup.memory / 1024 * GB_SECOND
    # Pollers ask an empty queue every 20 seconds.
    idle = scenario.FIRST_POLLERS * result.seconds / 20
    return {
        "Lambda": memory + result.invocations * INVOCATION,
        "SQS": (result.sqs_requests + idle) * SQS_REQUEST,
        "S3": result.bundles * S3_GET,
    }


def day_rows(setup: Setup, known: Coefficients) -> dict[str, str]:
    """What a day is like, with and without an outage."""
    quiet = simulate(replace(setup, history=0), known)
    away = simulate(replace(setup, history=0, outage=OUTAGE, step=30), known)
    first = limits(setup, known)[0]
    days = quiet.seconds / DAY
    return {
        "settings": f"`BatchSize` {setup.batch_size}, `BatchingWindow` {setup.window:.0f},"
        f" `MaximumConcurrency` {setup.concurrency}, `MemorySize` {setup.memory}",
        "ClickHouse's processors, and how busy at most": (
            f"{setup.processors:.0f}, {min(1, quiet.most_load):.0%}"
        ),
        "bundles a second, mean and peak": (
            f"{_n(setup.bundles_a_second)}, {_n(setup.bundles_a_second * setup.peak)}"
        ),
        **_rates(quiet),
        "upload to row: half of the bundles within": _duration(quiet.delay(0.5)),
        "99% within": _duration(quiet.delay(0.99)),
        "ClickHouse away for 12 hours: messages waiting, at most": _n(away.deepest),
        "of them in flight, of 120,000": _n(away.in_flight),
        "until all is stored, after it is back": (
            f"not within {GIVE_UP_DAYS} days"
            if away.drained is None
            else _duration(away.drained * HOUR)
        ),
        "cost a day": _costs({name: cost / days for name, cost in dollars(quiet).items()}),
        "breaks first": f"{first.name}, at {_millions(setup.statements / first.share)} a day",
    }


def backfill_rows(setup: Setup, known: Coefficients) -> dict[str, str]:
    """What a backfill is like, while a million statements a day arrive."""
    result = simulate(replace(setup, hours=1.0 if setup.history < 1e9 else 24.0), known)
    only_live = simulate(replace(setup, history=0, hours=result.seconds / HOUR), known)
    without = dollars(only_live)
    return {
        "settings": f"`BackfillConcurrency` {setup.history_concurrency},"
        f" `MemorySize` {setup.memory}",
        "time": _duration((result.history_hours or 0) * HOUR),
        **_rates(result),
        "ClickHouse's processors, and how busy at most": (
            f"{setup.processors:.0f}, {min(1, result.most_load):.0%}"
        ),
        "what is uploaded now: 99% within": _duration(result.delay(0.99)),
        "cost": _costs({name: cost - without[name] for name, cost in dollars(result).items()}),
    }


def batch_table(known: Coefficients) -> str:
    """How late rows are, and what they cost, by size of batch and number of uploads, at no peak."""
    rows = [
        batch_row(rate, size, window, known)
        for rate in BUNDLES_A_MINUTE
        for size, window in BATCHES
    ]
    return markdown(list(rows[0]), "r", [list(row.values()) for row in rows])


def batch_row(rate: int, size: int, window: float, known: Coefficients) -> dict[str, str]:
    """What a month with so many bundles a minute is like, with batches of this size."""
    setup = Setup(rate * 10 * DAY / 60, peak=1, batch_size=size, window=window, step=60)
    result = simulate(setup, known)
    keeps_up = limits(setup, known)[0].share < 1
    minutes = result.seconds / 60
    return {
        "bundles a minute": f"{rate:,}",
        "`BatchSize`": str(size),
        "`BatchingWindow`": f"{window:.0f} s",
        "half within": _duration(result.delay(0.5)) if keeps_up else "falls behind",
        "99% within": _duration(result.delay(0.99)) if keeps_up else "",
        "a month": f"${_money(sum(dollars(result).values()) / minutes * 30 * DAY / 60)}",
        "inserts a minute": _n(result.inserts / minutes),
        "ClickHouse's processors": f"{result.processor_seconds / result.seconds:.3f}",
    }


def _rates(result: Result) -> dict[str, str]:
    return {
        "concurrent invocations, at most": _n(result.most_functions),
        "inserts a second, at most": _n(result.most_inserts),
        "parts in a partition, at most": f"{result.most_parts:,.0f} of {scenario.PARTS_DELAY:,}",
    }


def day_table(ways: Ways, known: Coefficients) -> str:
    """Ways to run a day, beside each other."""
    return _beside({name: day_rows(setup, known) for name, setup in ways.items()})


def backfill_table(ways: Ways, known: Coefficients) -> str:
    """Ways to run a backfill, beside each other."""
    return _beside({name: backfill_rows(setup, known) for name, setup in ways.items()})


def _beside(columns: Mapping[str, Mapping[str, str]]) -> str:
    names = next(iter(columns.values()))
    rows = [(name, *(column[name] for column in columns.values())) for name in names]
    return markdown(("", *columns), "l", rows)


def tables(known: Coefficients) -> dict[str, str]:
    """The generated parts of the page."""
    days = {title: day_table(ways, known) for title, ways in DAYS.items()}
    backfills = {title: backfill_table(ways, known) for title, ways in BACKFILLS.items()}
    return {
        "batches": batch_table(known),
        "days": "\n".join(f"### {title}\n\n{table}" for title, table in days.items()),
        "backfills": "\n".join(f"### {title}\n\n{table}" for title, table in backfills.items()),
    }


def _n(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _millions(value: float) -> str:
    return f"{float(f'{value / 1e6:.2g}'):,.0f} million"


def _costs(parts: dict[str, float]) -> str:
    shown = ", ".join(f"{name} ${_money(value)}" for name, value in parts.items())
    return f"${_money(sum(parts.values()))} ({shown})"


def _money(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 2 * HOUR:
        return f"{seconds / 60:.0f} min"
    hours = seconds / HOUR
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"


def main() -> None:
    """Write the page; or print what a day is like with the settings that are given."""
    known, given = coefficients(), sys.argv[1:]
    if given == ["--write"]:
        write(SCALING, tables(known), COMMAND)
        return
    kinds = {name: type(default) for name, default in vars(Setup()).items()}
    own = {name: kinds[name](value) for name, _, value in (word.partition("=") for word in given)}
    setup = Setup(**own)
    print(day_table({"a day": setup}, known))
    if setup.history:
        print(backfill_table({"a backfill": setup}, known))


if __name__ == "__main__":
    main()
