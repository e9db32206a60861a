"""Simulate a day of uploads, a backfill, or an outage: delays, functions, inserts, parts, cost.

The model is made of what single steps were measured to take (benchmarks/coefficients.json) and of
the rules of Lambda, SQS and ClickHouse. docs/scaling.md says what it found, and how far off it is.

example: python -m benchmarks.simulate --statements 1e8 --max-concurrency 4 --outage 6-18
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from benchmarks import scaling
from benchmarks.coefficients import Coefficients, coefficients
from benchmarks.scaling import dollars, duration, limits
from benchmarks.scenario import Setup
from benchmarks.simulation import Result, simulate

if TYPE_CHECKING:
    from benchmarks.chart import Panel

_SHOWN_POINTS = 300
PICTURE = scaling.PAGE.with_suffix(".svg")


def main() -> int:
    """Simulate what the options describe, and print a table; or write the page."""
    about, _, example = __doc__.rpartition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.simulate",
        description=about,
        epilog=example,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = Setup()
    numbers = (
        ("statements", float, "that arrive in a day"),
        ("each", int, "statements in a bundle"),
        ("peak", float, "the load at the busiest moment, as a multiple of the day's mean: 1 to 20"),
        ("batch-size", int, "the stack's BatchSize"),
        ("window", float, "the stack's BatchingWindow, in seconds"),
        ("max-concurrency", int, "the stack's MaximumConcurrency"),
        ("memory", int, "the stack's MemorySize, in MB"),
        ("batch-rows", int, "the stack's BatchRows"),
        ("processors", float, "that ClickHouse has"),
        ("history", float, "statements of a backfill that begins at 0:00"),
        ("backfill-concurrency", int, "the stack's BackfillConcurrency"),
        ("hours", float, "to simulate, at least"),
        ("step", float, "seconds of a step"),
        ("seed", int, "of the random numbers"),
    )
    fields = {"max_concurrency": "concurrency", "backfill_concurrency": "history_concurrency"}
    for name, kind, text in numbers:
        field = fields.get(name.replace("-", "_"), name.replace("-", "_"))
        shown = getattr(default, field)
        parser.add_argument(
            f"--{name}",
            dest=field,
            type=kind,
            default=shown,
            metavar="N",
            help=f"{text} ({shown:g})",
        )
    parser.add_argument(
        "--insert-ms",
        type=float,
        metavar="N",
        help="milliseconds that an invocation waits for ClickHouse (as measured)",
    )
    parser.add_argument(
        "--outage", type=_span, metavar="FROM-TO", help="hours in which ClickHouse is away: 6-18"
    )
    parser.add_argument("--picture", type=Path, metavar="FILE.svg", help="draw the curves")
    parser.add_argument(
        "--write",
        action="store_true",
        help=f"write the tables and the picture of {scaling.PAGE.name}",
    )
    options = parser.parse_args()
    known = coefficients()
    if options.write:
        _write(known)
        return 0
    if options.insert_ms is not None:
        known = known._replace(clickhouse_wait_ms=options.insert_ms)
    setup = Setup(
        **{name: getattr(options, name) for name in vars(default) if hasattr(options, name)}
    )
    if problem := _problem(setup):
        parser.error(problem)
    result = simulate(setup, known)
    Console().print(_table(result, known))
    if options.picture:
        from benchmarks import chart

        chart.draw_curves(options.picture, _panels({"simulated": result}))
    return 0


def _span(text: str) -> tuple[float, float]:
    try:
        start, end = map(float, text.split("-"))
    except ValueError:
        start = end = 0.0
    if not 0 <= start < end:
        raise argparse.ArgumentTypeError(
            f"{text!r}: write two hours, the earlier one first, such as 6-18"
        )
    return start, end


def _problem(setup: Setup) -> str:
    """What is wrong with the numbers; '' if nothing is."""
    positive = ("each", "batch_size", "concurrency", "history_concurrency", "memory", "batch_rows")
    for name in (*positive, "processors", "hours", "step"):
        if not getattr(setup, name) > 0:
            return f"{name.replace('_', ' ')} must be above 0"
    if min(setup.statements, setup.history, setup.window) < 0:
        return "statements, history and window must not be below 0"
    if not 1 <= setup.peak <= 20:
        return "--peak must be from 1 to 20"
    if setup.batch_size > 10 and not setup.window:
        return "--batch-size above 10 needs a --window, as in Lambda"
    return ""


def _table(result: Result, known: Coefficients) -> Table:
    shown = Table(show_header=False)
    rows = {
        "bundles stored": f"{result.bundles:,.0f}",
        "messages waiting, at most": f"{result.deepest:,.0f}",
        "of them in flight": f"{result.in_flight:,.0f}",
        "upload to row: half within": duration(result.delay(0.5)),
        "99% within": duration(result.delay(0.99)),
        "all within": duration(result.delay(1)),
        "concurrent invocations, at most": f"{result.most_functions:,.1f}",
        "inserts a second, at most": f"{result.most_inserts:,.1f}",
        "new parts a second, at most": f"{result.most_new_parts:,.1f}",
        "parts in a partition, at most": f"{result.most_parts:,.0f}",
        "ClickHouse's processors busy, at most": f"{result.most_load:.0%}",
    }
    if result.setup.outage:
        rows["until all is stored, after the outage"] = scaling.until_stored(result)
    if result.setup.history:
        rows["backfill"] = (
            "never" if result.history_hours is None else duration(result.history_hours * 3600)
        )
    rows["cost"] = ", ".join(f"{name} ${cost:,.2f}" for name, cost in dollars(result).items())
    for limit in limits(result.setup, known)[:3]:
        rows[f"needed at the peak: {limit.name}"] = f"{limit.share:.0%} of the limit"
    for name, cell in rows.items():
        shown.add_row(name, cell)
    return shown


def _panels(results: dict[str, Result]) -> list[Panel]:
    # Drawing takes half a second to import.
    from benchmarks.chart import Panel

    def lines(field: str) -> dict[str, list[tuple[float, float]]]:
        return {
            name: [
                (point.hour, getattr(point, field))
                for point in result.points[:: max(1, len(result.points) // _SHOWN_POINTS)]
            ]
            for name, result in results.items()
        }

    return [
        Panel("Messages that wait", "hour", "", lines("waiting")),
        Panel("Seconds from upload to row", "hour", "", lines("delay")),
        Panel("Functions at once", "hour", "", lines("functions")),
        Panel("Parts in the partition", "hour", "", lines("parts")),
    ]


def _write(known: Coefficients) -> None:
    """Write the page's tables and its picture."""
    from benchmarks import chart
    from benchmarks.chart import Panel

    text = scaling.PAGE.read_text(encoding="utf-8")
    scaling.PAGE.write_text(scaling.page(known, text), encoding="utf-8")
    outage = simulate(Setup(1e8, outage=scaling.OUTAGE, hours=36), known)
    volumes = [10 ** (6 + step / 5) for step in range(21)]
    windows = {"the defaults": Setup(), "MaximumConcurrency 100": Setup(concurrency=100)}
    delays = {
        name: [
            (volume, max(0.1, simulate(replace(setup, statements=volume), known).delay(0.99)))
            for volume in volumes
        ]
        for name, setup in windows.items()
    }
    curve = _panels({"the defaults": outage})
    waiting, functions = curve[0], curve[2]
    chart.draw_curves(
        PICTURE,
        [
            Panel(
                "Seconds from upload to row (99%), by statements a day in bundles of 10",
                "statements a day",
                "",
                delays,
                logarithmic=True,
                x_scale="log",
            ),
            waiting._replace(title="100 million a day, ClickHouse away 6:00 to 18:00: messages"),
            functions._replace(title="... and functions at once"),
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
