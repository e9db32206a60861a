"""The results as people read them: the table, and the generated parts of docs/performance.md."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from os import cpu_count
from pathlib import Path

from rich.table import Table

from benchmarks import markdown
from benchmarks.costs import GB_SECOND, MILLION, SIZES_MB, Way
from benchmarks.rounds import Result
from benchmarks.setting import ROOT
from docs.reference import with_tables

PAGE = ROOT / "docs/performance.md"
COMMAND = "make bench BENCH=--write"

Results = Mapping[str, Result]
_COLUMNS = ("what", "unit", "this loader", "compared with", "which takes", "ratio", "aim", "")


def table(results: Sequence[Result]) -> Table:
    """The results that have something to say of themselves, for a terminal."""
    shown = Table(
        *_COLUMNS, title="Less is better. A ratio is this loader's figure by the other's."
    )
    for name in ("this loader", "which takes", "ratio", "aim"):
        shown.columns[_COLUMNS.index(name)].justify = "right"
    for cells in _rows(results):
        shown.add_row(*cells)
    return shown


def _rows(results: Sequence[Result]) -> Iterator[tuple[str, ...]]:
    """The cells of each row; what is measured is named once."""
    before = ""
    for result in results:
        if about := result.row.about:
            yield ("" if about == before else about, *_cells(result))
            before = about


def _cells(result: Result) -> tuple[str, ...]:
    row = result.row
    aims = (
        f"{_figure(row.most)}" if row.most is not None else "",
        f"× {_figure(row.most_ratio)}" if row.most_ratio is not None else "",
    )
    return (
        row.unit,
        _figure(result.ours),
        row.against,
        _figure(result.yardstick),
        _figure(result.ratio),
        ", ".join(filter(None, aims)),
        {None: "", True: "met", False: "missed"}[result.meets_its_aim],
    )


def _figure(value: float | None) -> str:
    """Three digits, which is more than the noise allows."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def write(results: Sequence[Result]) -> None:
    """Put the generated parts into the page."""
    by_key = {result.row.key: result for result in results}
    parts = {
        "measured-on": machine(),
        "measurements": markdown.table(_COLUMNS, "llrlrrrl", _rows(results)),
        "breakdown": _breakdown(by_key),
        "costs": _costs(by_key),
    }
    page = with_tables(PAGE.read_text(encoding="utf-8"), parts, COMMAND)
    PAGE.write_text(page, encoding="utf-8")


def machine() -> str:
    """When, on what, and with which versions it was measured."""
    info = Path("/proc/cpuinfo")
    models = [
        line.partition(":")[2].strip()
        for line in (info.read_text().splitlines() if info.exists() else ())
        if line.startswith("model name")
    ]
    return (
        f"Measured on {datetime.now(UTC):%Y-%m-%d}: {cpu_count()} processors"
        f" ({models[0] if models else platform.machine()}), Python {platform.python_version()},"
        f" chDB {version('chdb-core')}.\n"
    )


def _breakdown(results: Results) -> str:
    """The stages in the order in which a statement passes them, in µs."""
    took = {key.removeprefix("stage-"): found.ours for key, found in results.items()}
    parts = {
        "S3: get the body, and what is between the stages": took["dry"]
        - (took["split"] + took["parse"] + took["columns"]),
        "split into lines": took["split"],
        "decode into a struct": took["decode"],
        "is it about a video?": took["verdict"],
        "hash the line": took["hash"],
        "the rest of parsing: trim, count, collect": took["parse"]
        - (took["decode"] + took["verdict"] + took["hash"]),
        "columns: convert and transpose": took["columns"],
        "append to the batch, write it in ClickHouse's format, compress, send": took["loader"]
        - took["dry"],
    }
    total = took["loader"]
    # What is left between two measurements may be a little less than nothing.
    shown = {about: max(part, 0.0) for about, part in parts.items()}
    rows = [(about, f"{part:.2f}", f"{part / total:.0%}") for about, part in shown.items()]
    names = ("stage", "µs of processor a statement", "share")
    return markdown.table(names, "lrr", [*rows, ("all", f"{total:.2f}", "100%")])


def _costs(results: Results) -> str:
    large, event = results["large-plain"], results["event"]
    assert event.yardstick is not None
    ways = (
        Way("history, in large objects", large.ours, results["large-wall-cpu"].ours),
        Way(
            "history, in bundles of 10",
            results["small-10-clickhouse"].ours / 1e3 * MILLION / 10,
            results["latency"].ours / 1e3 * MILLION / 10,
        ),
        Way(
            "events: an invocation for each bundle of 10",
            event.yardstick / 1e3 * MILLION / 10,
            waiting=(event.ours - event.yardstick) / 1e3 * MILLION / 10,
            requests=MILLION / 10,
        ),
    )
    rows = []
    for way in ways:
        rows.append([f"{way.about}: time", *(_clock(way.seconds(m)) for m in SIZES_MB)])
        rows += [
            [f"cost, {arch}", *(f"${way.dollars(m, arch):.4f}" for m in SIZES_MB)]
            for arch in GB_SECOND
        ]
    names = ["a million statements", *(f"{size:,} MB" for size in SIZES_MB)]
    return markdown.table(names, "lr", rows)


def _clock(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:,.0f} min"
