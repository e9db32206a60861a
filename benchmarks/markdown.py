"""Tables of the pages that the benchmarks write."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_RULES = {"l": "---", "r": "---:"}


def table(names: Sequence[str], aligned: str, rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown. `aligned` has an l or r for each column, and its last letter stands for
    all columns after it too.
    """
    aligned = aligned.ljust(len(names), aligned[-1])
    rule = f"|{'|'.join(_RULES[side] for side in aligned)}|\n"
    return f"{_line(names)}{rule}{''.join(map(_line, rows))}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |\n"
