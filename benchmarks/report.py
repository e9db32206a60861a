"""The results as people read them: the generated parts of the pages."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from math import ceil
from os import cpu_count
from pathlib import Path
from statistics import median

from benchmarks.costs import GB_SECOND, Way
from benchmarks.rounds import Result, Times
from benchmarks.worker import ROOT
from docs.reference import with_tables

PERFORMANCE, SCALING = ROOT / "docs/performance.md", ROOT / "docs/scaling.md"
COMMAND = "make bench BENCH=--write"
SIZES_MB = (512, 1024, 1769)
TEN = 100_000
"""Bundles of ten statements that have a million."""

Results = Mapping[str, Result]
_COLUMNS = ("what", "unit", "this loader", "compared with", "which takes", "ratio", "aim", "")
_RULES = {"l": "---", "r": "---:"}


def markdown(names: Sequence[str], aligned: str, rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown. `aligned` has an l or r for each column, and its last letter stands for
    all columns after it too.
    """
    rules = [_RULES[side] for side in aligned.ljust(len(names), aligned[-1])]
    lines = [f"| {' | '.join(cells)} |\n" for cells in (names, *rows)]
    return "".join([lines[0], f"|{'|'.join(rules)}|\n", *lines[1:]])


def write(page: Path, parts: Mapping[str, str], command: str) -> None:
    """Put the parts that a command makes into a page."""
    made = with_tables(page.read_text(encoding="utf-8"), dict(parts), command)
    page.write_text(made, encoding="utf-8")


def performance(found: Mapping[str, Sequence[Times]], results: Sequence[Result]) -> dict[str, str]:
    """The parts of docs/performance.md."""
    by_key = {result.row.key: result for result in results}
    return {
        "measured-on": machine(),
        "uploads": uploads(found),
        "measurements": table(results),
        "breakdown": _breakdown(by_key),
        "costs": _costs(by_key, next(iter(found.values()))),
    }


def uploads(found: Mapping[str, Sequence[Times]]) -> str:
    """How long uploads take until a reader sees the rows and until the function answers, beside
    what they wait for round trips.
    """
    rows, untils = [], ("row", "answer")
    for about, taken in found.items():
        row = [about, str(len(taken))]
        for until in untils:
            took = sorted(times[until] for times in taken)
            quantiles = (took[ceil(share * len(took)) - 1] for share in (0.5, 0.99))
            # The least: a reader may look when the function has gone on.
            least = min(times[f"{until}, least"] for times in taken)
            row += [f"{seconds * 1e3:,.0f} ms" for seconds in (least, *quantiles)]
        rows.append(row)
    names = [f"{until}: {name}" for until in untils for name in ("round trips", "p50", "p99")]
    return markdown(["function", "uploads", *names], "lr", rows)


def table(results: Sequence[Result]) -> str:
    """The results that have something to say of themselves. Less is better; a ratio is this
    loader's figure by the other's.
    """
    return markdown(_COLUMNS, "llrlrrrl", _rows(results))


def _rows(results: Sequence[Result]) -> Iterator[tuple[str, ...]]:
    """The cells of each row; what is measured is named once."""
    before = ""
    for result in results:
        if about := result.row.about:
            yield ("" if about == before else about, *_cells(result))
            before = about


def _cells(result: Result) -> tuple[str, ...]:
    row = result.row
    ratio = f"× {_figure(row.most_ratio)}" if row.most_ratio is not None else ""
    return (
        row.unit,
        _figure(result.ours),
        row.against,
        _figure(result.yardstick),
        _figure(result.ratio),
        ", ".join(filter(None, (_figure(row.most), ratio))),
        {None: "", True: "met", False: "missed"}[result.meets_its_aim],
    )


def _figure(value: float | None) -> str:
    """Three digits, which is more than the noise allows."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def machine() -> str:
    """When, on what, and with which versions it was measured."""
    found = re.search("model name\\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    return (
        f"Measured on {datetime.now(UTC):%Y-%m-%d}: {cpu_count()} processors"
        f" ({found[1] if found else platform.machine()}), Python {platform.python_version()},"
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
        "all": took["loader"],
    }
    # What is left between two measurements may be a little less than nothing.
    shown = {about: max(part, 0.0) for about, part in parts.items()}
    rows = [(about, f"{part:.2f}", f"{part / took['loader']:.0%}") for about, part in shown.items()]
    return markdown(("stage", "µs of processor a statement", "share"), "lrr", rows)


def _costs(results: Results, events: Sequence[Times]) -> str:
    processor, seconds = (median(times[name] for times in events) for name in ("cpu", "answer"))
    ways = (
        Way(
            "history, in large objects",
            results["large-plain"].ours,
            results["large-clickhouse"].ours,
        ),
        Way(
            "history, in bundles of 10",
            results["small-10-clickhouse"].ours / 1e3 * TEN,
            results["latency"].ours / 1e3 * TEN,
        ),
        Way(
            "events: an invocation for each bundle of 10",
            processor * TEN,
            waiting=(seconds - processor) * TEN,
            requests=TEN,
        ),
    )
    rows = []
    for way in ways:
        rows.append([f"{way.about}: time", *(_clock(way.seconds(m)) for m in SIZES_MB)])
        rows += [
            [f"cost, {arch}", *(f"${way.dollars(m, arch):.4f}" for m in SIZES_MB)]
            for arch in GB_SECOND
        ]
    return markdown(("a million statements", *(f"{m:,} MB" for m in SIZES_MB)), "lr", rows)


def _clock(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:,.0f} min"
