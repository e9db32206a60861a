"""The results as people read them: the generated parts of the pages."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from math import ceil
from os import cpu_count
from pathlib import Path

from benchmarks.rounds import Result, Times
from benchmarks.worker import ROOT
from docs.reference import with_tables

PERFORMANCE, SCALING = ROOT / "docs/performance.md", ROOT / "docs/scaling.md"
COMMAND = "make bench BENCH=--write"
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
    return {
        "measured-on": machine(),
        "uploads": uploads(found),
        "measurements": table(results),
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
    return (
        f"Measured on {datetime.now(UTC):%Y-%m-%d}, on {cpu_count()} processors, with Python"
        f" {platform.python_version()} and chDB {version('chdb-core')}.\n"
    )
