"""Whether this version is slower than the committed one: ratios beside those of ratios.json.

Only ratios within a run are compared, never seconds: machines differ.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.rounds import Result

FILE = Path(__file__).with_name("ratios.json")
TOLERANCE = 1.3
"""A ratio that is that many times the committed one is a fault."""

AGAIN = 2
"""How often a case that seems slower is measured again, before it is believed."""


def committed() -> dict[str, float]:
    """The ratios of ratios.json, by the row's key."""
    found: dict[str, float] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def write(results: Sequence[Result]) -> None:
    """Make these results the ones to compare with."""
    ratios = {
        found.row.key: round(found.ratio, 4)
        for found in results
        if found.ratio is not None and found.row.compared
    }
    FILE.write_text(json.dumps(ratios, indent=2) + "\n", encoding="utf-8")


def slower(results: Sequence[Result], before: dict[str, float]) -> list[str]:
    """The keys of results whose ratio is too much above the one before."""
    return [
        found.row.key
        for found in results
        if found.ratio is not None
        and found.row.compared
        and found.row.key in before
        and found.ratio > TOLERANCE * before[found.row.key]
    ]


def confirmed(
    results: list[Result], measure: Callable[[], list[Result]], before: dict[str, float]
) -> list[Result]:
    """The results of a group; of ratios that seem slower, the best of up to AGAIN more tries."""
    for _ in range(AGAIN):
        keys = slower(results, before)
        if not keys:
            break
        better = {found.row.key: found for found in measure()}
        results = [
            min(found, better[found.row.key], key=_ratio) if found.row.key in keys else found
            for found in results
        ]
    return results


def show(results: Sequence[Result], before: dict[str, float], console: Console) -> None:
    """Print each ratio beside the committed one."""
    too_slow = slower(results, before)
    for found in results:
        if found.ratio is None or not found.row.compared:
            continue
        key = found.row.key
        was = f"{before[key]:.3g}" if key in before else "not measured"
        verdict = f"more than {TOLERANCE} times as much" if key in too_slow else ""
        console.print(f"{key:24}{found.ratio:>8.3g}  committed: {was:>8}  {verdict}".rstrip())


def _ratio(found: Result) -> float:
    assert found.ratio is not None
    return found.ratio
