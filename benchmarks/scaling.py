"""How much the stack carries: what breaks first, costs, and the tables of docs/scaling.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from benchmarks import markdown
from benchmarks.coefficients import Coefficients
from benchmarks.costs import GB_SECOND, INVOCATION, S3_GET, SQS_REQUEST
from benchmarks.scenario import (
    DAY,
    FIRST_POLLERS,
    MERGE_SHARE,
    Setup,
    invocation,
)
from benchmarks.setting import ROOT
from benchmarks.simulation import GIVE_UP_DAYS, Result, simulate
from docs.reference import with_tables

PAGE = ROOT / "docs/scaling.md"
COMMAND = "make simulate"

S3_GETS = 5500
"""GETs a second that S3 promises for a prefix:
https://docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance.html."""

ACCOUNT_CONCURRENCY = 1000
"""Concurrent invocations in an account, unless AWS has raised it."""

OUTAGE = (6.0, 18.0)

SETTINGS = {
    "BatchSize": "batch_size",
    "BatchingWindow": "window",
    "MaximumConcurrency": "concurrency",
    "BackfillConcurrency": "history_concurrency",
    "MemorySize": "memory",
    "BatchRows": "batch_rows",
}
"""Parameters of the stack, and the fields of `Setup` that stand for them."""


class Size(NamedTuple):
    """A size of the page, and the ways to run it: name, and what is set."""

    title: str
    ways: dict[str, Setup]


DAYS = (
    Size(
        "1 million statements a day, in bundles of 10",
        {
            "the defaults": Setup(processors=4),
            "fewer, larger inserts": Setup(processors=4, window=30),
        },
    ),
    Size(
        "100 million statements a day, in bundles of 10",
        {
            "the defaults": Setup(1e8),
            "recommended": Setup(1e8, batch_size=500, concurrency=20),
            "a bundle in each invocation": Setup(1e8, batch_size=1, window=0, concurrency=1000),
        },
    ),
    Size(
        "10,000 million statements a day, in bundles of 100",
        {
            "the defaults": Setup(1e10, 100, processors=64),
            "recommended": Setup(
                1e10,
                100,
                processors=64,
                batch_size=500,
                concurrency=100,
                memory=1769,
                batch_rows=50_000,
            ),
            "in bundles of 1,000": Setup(
                1e10, 1000, processors=64, concurrency=100, memory=1769, batch_rows=50_000
            ),
        },
    ),
)

BACKFILLS = (
    Size(
        "100 million statements",
        {
            "the defaults": Setup(history=1e8, step=5),
            "recommended": Setup(history=1e8, step=5, history_concurrency=10, memory=1769),
        },
    ),
    Size(
        "10,000 million statements",
        {
            "the defaults": Setup(history=1e10, step=300, processors=64),
            "recommended": Setup(
                history=1e10, step=60, processors=64, history_concurrency=100, memory=1769
            ),
        },
    ),
)


class Limit(NamedTuple):
    """A limit, and the share of it that the busiest moment needs."""

    name: str
    share: float


def limits(setup: Setup, known: Coefficients) -> list[Limit]:
    """All limits, the nearest first."""
    rate = setup.bundles_a_second * setup.peak
    batch = min(setup.batch_size, 1 + rate * setup.window / FIRST_POLLERS)
    usual, full = invocation(setup, batch, known), invocation(setup, setup.batch_size, known)
    functions = rate / setup.batch_size * (full.seconds + setup.batch_size * known.receive_ms / 1e4)
    merging = rate / batch * usual.merging
    found = [
        Limit("functions", functions / setup.concurrency),
        Limit(
            "ClickHouse's processors", (rate / batch * usual.server + merging) / setup.processors
        ),
        Limit("merges", merging / (setup.processors * MERGE_SHARE)),
        Limit("GETs of one S3 prefix", rate / S3_GETS),
        Limit("concurrent invocations of the account", functions / ACCOUNT_CONCURRENCY),
    ]
    return sorted(found, key=lambda limit: -limit.share)


def dollars(result: Result) -> dict[str, float]:
    """What all of it cost, x86_64, without ClickHouse, logs, and the writers' own requests."""
    setup = result.setup
    memory = result.function_seconds * setup.memory / 1024 * GB_SECOND["x86_64"]
    # Pollers ask an empty queue every 20 seconds.
    idle = FIRST_POLLERS * result.seconds / 20
    return {
        "Lambda": memory + result.invocations * INVOCATION,
        "SQS": (result.sqs_requests + idle) * SQS_REQUEST,
        "S3": result.bundles * S3_GET,
    }


def until_stored(result: Result) -> str:
    """How long after the outage the last bundle from before its end is stored."""
    if result.drained is None:
        return f"not within {GIVE_UP_DAYS} days"
    return duration(result.drained * 3600)


def settings_of(setup: Setup) -> str:
    """The settings other than the defaults, as the stack names them."""
    default = Setup()
    return ", ".join(
        f"`{name}` {getattr(setup, field):.0f}"
        for name, field in SETTINGS.items()
        if getattr(setup, field) != getattr(default, field)
    )


def day_rows(setup: Setup, known: Coefficients) -> dict[str, str]:
    """What a day is like, with and without an outage."""
    quiet = simulate(setup, known)
    away = simulate(replace(setup, outage=OUTAGE, step=30), known)
    first = limits(setup, known)[0]
    cost = dollars(quiet)
    days = quiet.seconds / DAY
    return {
        "settings": settings_of(setup),
        "ClickHouse's processors, and their highest load": (
            f"{setup.processors:.0f}, {min(1, quiet.most_load):.0%}"
        ),
        "bundles a second, mean and peak": (
            f"{_n(setup.bundles_a_second)}, {_n(setup.bundles_a_second * setup.peak)}"
        ),
        "most concurrent invocations": _n(quiet.most_functions),
        "most inserts a second": _n(quiet.most_inserts),
        "upload to row: median": duration(quiet.delay(0.5)),
        "upload to row: 99%": duration(quiet.delay(0.99)),
        "upload to row: slowest": duration(quiet.delay(1)),
        "12 hours without ClickHouse: in flight, of 120,000": _n(away.in_flight),
        "all stored, after it is back": until_stored(away),
        "cost a day": _costs({name: value / days for name, value in cost.items()}),
        "breaks first": f"{first.name}, at {_millions(setup.statements / first.share)} a day",
    }


def backfill_rows(setup: Setup, known: Coefficients) -> dict[str, str]:
    """What a backfill is like, while a million statements a day arrive."""
    hours = 1.0 if setup.history < 1e9 else 24.0
    result = simulate(replace(setup, hours=hours), known)
    only_live = simulate(replace(setup, history=0, hours=result.seconds / 3600), known)
    spent, without = dollars(result), dollars(only_live)
    return {
        "settings": settings_of(setup),
        "time": duration((result.history_hours or 0) * 3600),
        "most concurrent invocations": _n(result.most_functions),
        "most inserts a second": _n(result.most_inserts),
        "ClickHouse's processors, and their highest load": (
            f"{setup.processors:.0f}, {min(1, result.most_load):.0%}"
        ),
        "upload to row meanwhile: 99%": duration(result.delay(0.99)),
        "cost": _costs({name: spent[name] - without[name] for name in spent}),
    }


def day_table(size: Size, known: Coefficients) -> str:
    """A size of a day as the page shows it."""
    return _size(size, [day_rows(setup, known) for setup in size.ways.values()])


def backfill_table(size: Size, known: Coefficients) -> str:
    """A size of a backfill as the page shows it."""
    return _size(size, [backfill_rows(setup, known) for setup in size.ways.values()])


def tables(known: Coefficients) -> dict[str, str]:
    """The generated parts of the page."""
    return {
        "days": "\n".join(day_table(size, known) for size in DAYS),
        "backfills": "\n".join(backfill_table(size, known) for size in BACKFILLS),
    }


def page(known: Coefficients, text: str) -> str:
    """The page's text with its tables made anew."""
    return with_tables(text, tables(known), COMMAND)


def _size(size: Size, columns: Sequence[dict[str, str]]) -> str:
    rows = [(name, *(column[name] for column in columns)) for name in columns[0]]
    return f"### {size.title}\n\n{markdown.table(('', *size.ways), 'l', rows)}"


def _n(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _millions(value: float) -> str:
    return f"{float(f'{value / 1e6:.2g}'):,.0f} million"


def _costs(parts: dict[str, float]) -> str:
    shown = ", ".join(f"{name} ${_money(value)}" for name, value in parts.items())
    return f"${_money(sum(parts.values()))} ({shown})"


def _money(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def duration(seconds: float) -> str:
    """A time as people say it."""
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"
