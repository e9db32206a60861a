"""What loading makes of many lines: a check list for whoever writes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from xapi_etl_processor.explain.line import Explanation, Fate

SHOWN_LINES = 3
"""Lines of a group whose numbers are shown. Our choice."""


@dataclass
class Group:
    """Lines that have one thing in common: how many, the first ones' numbers, and a value."""

    lines: int
    first_lines: list[int]
    value: Any = None


@dataclass
class Summary:
    """Counts over the lines of one object: `other` by the rule that decided, `rejected` by reason,
    `unused_extensions` by path and reason, values that cannot be used (`refused`) by column, path
    and reason.
    """

    fates: Counter[Fate] = field(default_factory=Counter)
    verbs: Counter[str] = field(default_factory=Counter)
    types: Counter[str] = field(default_factory=Counter)
    other: dict[tuple[str, ...], Group] = field(default_factory=dict)
    rejected: dict[tuple[str, ...], Group] = field(default_factory=dict)
    unused_extensions: dict[tuple[str, ...], Group] = field(default_factory=dict)
    refused: dict[tuple[str, ...], Group] = field(default_factory=dict)

    @property
    def fails(self) -> bool:
        """Whether loading fails: lines were rejected, and none is a statement."""
        statements = self.fates[Fate.VIDEO] + self.fates[Fate.OTHER]
        return self.fates[Fate.REJECTED] > 0 and statements == 0


def summarize(explanations: Iterable[Explanation]) -> Summary:
    """Count what became of the lines; verbs and object types are those of video statements."""
    summary = Summary()
    for one in explanations:
        summary.fates[one.fate] += 1
        if one.fate is Fate.REJECTED:
            _count(summary.rejected, (one.hint or one.rule,), one)
        elif one.fate is Fate.OTHER:
            _count(summary.other, (one.rule,), one, one.statement.verb.id)
        elif one.fate is Fate.VIDEO:
            summary.verbs[one.statement.verb.id] += 1
            summary.types[str(one.statement.object.definition.type or "none")] += 1
            for unused in one.unused:
                path = ".".join(unused.path)
                if unused.column:
                    _count(summary.refused, (unused.column, path, unused.reason), one, unused.value)
                elif unused.is_extension:
                    _count(summary.unused_extensions, (path, unused.reason), one, unused.value)
    return summary


def _count(
    groups: dict[tuple[str, ...], Group], name: tuple[str, ...], one: Explanation, value: Any = None
) -> None:
    group = groups.setdefault(name, Group(0, [], value))
    group.lines += 1
    if len(group.first_lines) < SHOWN_LINES:
        group.first_lines.append(one.number)
