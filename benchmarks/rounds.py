"""Rounds of trials that alternate, the ratios of what they took, and whether these are worse than
the committed ones.

The machine's noise meets all trials of a group alike. A ratio is the median of the rounds' ratios,
and a figure that of the rounds' figures. Only ratios are compared: the seconds of machines differ.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Times = Mapping[str, float]
"""Figures by name, such as wall and cpu, in seconds."""

SCALES = {"ms": 1e3, "µs": 1e6, "MB": 1.0}
"""What seconds are multiplied by, by the first word of a row's unit."""

FILE = Path(__file__).with_name("ratios.json")
TOLERANCE = 1.3
"""A ratio that is that many times the committed one is a fault."""

AGAIN = 2
"""How often a case that seems slower is measured again, before it is believed."""


@dataclass(frozen=True)
class Row:
    """A line of the table: ours beside its yardstick, each a trial's figure, such as loader.cpu.
    `key` is its name in the file of ratios.

    `most` and `most_ratio` are the aims for our figure and for ours divided by the yardstick's.
    """

    key: str
    about: str
    unit: str
    ours: str
    yardstick: str = ""
    against: str = ""
    most: float | None = None
    most_ratio: float | None = None


@dataclass(frozen=True)
class Group:
    """Trials that alternate for some rounds, after others that do not count, and the rows that are
    made of them. Figures are shown `per` one of so many bundles or statements.
    """

    name: str
    trials: Mapping[str, Callable[[], Times]]
    rows: tuple[Row, ...]
    rounds: int
    per: int = 1
    warm_up: int = 1


@dataclass(frozen=True)
class Result:
    """A row with its figures."""

    row: Row
    ours: float
    yardstick: float | None = None
    ratio: float | None = None

    @property
    def meets_its_aim(self) -> bool | None:
        """Whether it is as good as was aimed at; None without an aim."""
        aims = [
            value <= most
            for value, most in ((self.ours, self.row.most), (self.ratio, self.row.most_ratio))
            if most is not None and value is not None
        ]
        return all(aims) if aims else None


def timed(call: Callable[[], Any]) -> dict[str, float]:
    """How long a call takes, and how much processor time all threads of this process use."""
    started, used = time.perf_counter(), time.process_time()
    call()
    return {"wall": time.perf_counter() - started, "cpu": time.process_time() - used}


def measured(group: Group) -> list[Result]:
    """The rows' figures."""
    names = list(group.trials)
    taken: list[dict[str, Times]] = []
    for number in range(group.warm_up + group.rounds):
        # Each goes first in turn: the first may find the caches of the one before.
        order = names[number % len(names) :] + names[: number % len(names)]
        taken.append({name: group.trials[name]() for name in order})
    return [_result(row, taken[group.warm_up :], group.per) for row in group.rows]


def _result(row: Row, taken: list[dict[str, Times]], per: int) -> Result:
    def figures(name: str) -> list[float]:
        trial, _, figure = name.partition(".")
        return [trials[trial][figure] * SCALES[row.unit[:2]] / per for trials in taken]

    ours = figures(row.ours)
    if not row.yardstick:
        return Result(row, statistics.median(ours))
    theirs = figures(row.yardstick)
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    return Result(row, *map(statistics.median, (ours, theirs, ratios)))


def ratios(results: Sequence[Result]) -> dict[str, float]:
    """The ratios by the row's key."""
    return {found.row.key: found.ratio for found in results if found.ratio is not None}


def committed() -> dict[str, float]:
    """The ratios of ratios.json."""
    found: dict[str, float] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def commit(results: Sequence[Result]) -> None:
    """Make these results, of a small run, the ones to compare with."""
    rounded = {key: round(ratio, 4) for key, ratio in ratios(results).items()}
    FILE.write_text(json.dumps(rounded, indent=2) + "\n", encoding="utf-8")


def slower(results: Sequence[Result], before: Mapping[str, float]) -> list[str]:
    """The keys of results whose ratio is too much above the one before."""
    found = ratios(results).items()
    return [key for key, ratio in found if ratio > TOLERANCE * before.get(key, float("inf"))]


def confirmed(
    results: list[Result], measure: Callable[[], list[Result]], before: Mapping[str, float]
) -> list[Result]:
    """The results of a group; of ratios that seem slower, the best of up to AGAIN more tries."""
    for _ in range(AGAIN):
        keys = slower(results, before)
        if not keys:
            break
        results = [
            min(pair, key=lambda found: found.ratio or 0) if pair[0].row.key in keys else pair[0]
            for pair in zip(results, measure(), strict=True)
        ]
    return results
