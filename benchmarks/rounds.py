"""Rounds of trials that alternate, and the ratios of what they took.

The machine's noise then meets all trials of a group alike. A ratio is the median of the rounds'
ratios, a figure the median of the rounds' figures.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Trials = Mapping[str, Callable[[], Mapping[str, float]]]
"""The trials by name. Each returns its figures by name, such as wall and cpu, in seconds."""


@dataclass(frozen=True)
class Figure:
    """One figure of a trial, as it is shown: divided, for example, by a number of statements."""

    trial: str
    name: str
    scale: float = 1.0


@dataclass(frozen=True)
class Row:
    """A line of the table: ours beside its yardstick. `key` is its name in the file of ratios.

    `most` and `most_ratio` are the aims for our figure and for ours divided by the yardstick's. A
    row that is not `compared` has a ratio that says more of the machine than of the code.
    """

    key: str
    about: str
    unit: str
    ours: Figure
    yardstick: Figure | None = None
    against: str = ""
    most: float | None = None
    most_ratio: float | None = None
    compared: bool = True


@dataclass(frozen=True)
class Group:
    """Trials that alternate for some rounds, after others that do not count, and the rows that are
    made of them.
    """

    name: str
    trials: Trials
    rows: tuple[Row, ...]
    rounds: int
    warm_up: int = 1


@dataclass(frozen=True)
class Result:
    """A row with its figures."""

    row: Row
    ours: float
    yardstick: float | None
    ratio: float | None

    @property
    def meets_its_aim(self) -> bool | None:
        """Whether it is as good as was aimed at; None without an aim."""
        aims = [
            value <= most
            for value, most in ((self.ours, self.row.most), (self.ratio, self.row.most_ratio))
            if most is not None and value is not None
        ]
        return all(aims) if aims else None


def measured(group: Group) -> list[Result]:
    """The rows' figures."""
    names = list(group.trials)
    taken: list[dict[str, Mapping[str, float]]] = []
    for number in range(group.warm_up + group.rounds):
        # Each goes first in turn: the first may find the caches of the one before.
        order = names[number % len(names) :] + names[: number % len(names)]
        taken.append({name: group.trials[name]() for name in order})
    return [result(row, taken[group.warm_up :]) for row in group.rows]


def result(row: Row, taken: list[dict[str, Mapping[str, float]]]) -> Result:
    """A row's figures from those of each round's trials."""
    ours = _figures(row.ours, taken)
    if row.yardstick is None:
        return Result(row, statistics.median(ours), None, None)
    theirs = _figures(row.yardstick, taken)
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    return Result(
        row, statistics.median(ours), statistics.median(theirs), statistics.median(ratios)
    )


def _figures(figure: Figure, taken: list[dict[str, Mapping[str, float]]]) -> list[float]:
    return [trials[figure.trial][figure.name] * figure.scale for trials in taken]
