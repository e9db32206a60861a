"""How explanations are shown: as tables."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from textwrap import wrap
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from xapi_etl_processor.base.telemetry import counted
from xapi_etl_processor.explain.line import NOT_SENT, Cell, Explanation, Fate
from xapi_etl_processor.explain.summary import Group, Summary
from xapi_etl_processor.explain.used import dotted
from xapi_etl_processor.xapi.paths import OLI, OPENEDX, TINCAN, VIDEO
from xapi_etl_processor.xapi.timestamps import instant

_SHORT = {
    f"{name}:": f"extensions.{iri}"
    for name, iri in (("video", VIDEO), ("oli", OLI), ("openedx", OPENEDX), ("tincan", TINCAN))
}
"""What stands for the beginning of an extension in a table: most are longer than a column."""

_BETWEEN = 3
"""Characters between two columns, and beside the first."""

_MOST_CHARACTERS = 300
"""Characters of a value in a table. Our limit."""


def visible(text: str) -> str:
    """A text in which characters that steer a terminal are written as escapes."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def show_line(console: Console, one: Explanation) -> None:
    """Print what one line becomes."""
    console.print(Text(f"Line {one.number}: {one.fate}", style="bold"), soft_wrap=True)
    console.print(Text(f"Why: {visible(one.rule)}"), soft_wrap=True)
    if one.voids:
        console.print(Text(f"It voids the statement {visible(one.voids)}."), soft_wrap=True)
    if one.fate is not Fate.VIDEO:
        return
    present = {name: cell for name, cell in one.cells.items() if cell.origin != NOT_SENT}
    rows = [(name, _shown(name, cell), cell.origin) for name, cell in present.items()]
    _table(console, "Its row", ("column", "value", "from"), rows)
    if absent := [name for name in one.cells if name not in present]:
        console.print(Text("Absent: " + ", ".join(absent)))
    unused = [(dotted(u.path), _value(u.value), u.reason) for u in one.unused]
    _table(console, "In the statement, and in no column", ("where", "value", "why"), unused)
    _legend(console, [origin for _, _, origin in rows] + [path for path, _, _ in unused])


def show_summary(console: Console, summary: Summary, one_line: str) -> None:
    """Print what many lines become, and `one_line`, the command that shows one of them."""
    fates = ", ".join(f"{summary.fates[fate]:,} {fate}" for fate in Fate)
    console.print(Text(f"{counted(summary.fates.total(), 'line')}: {fates}", style="bold"))
    if summary.fails:
        console.print(Text("Loading it fails: none of its lines is a statement."))
    _counted(console, "Verbs of video statements", "verb", summary.verbs)
    _counted(console, "Object types of video statements", "type", summary.types)
    _groups(console, "Rejected", ("why",), summary.rejected)
    _groups(console, "Other statements", ("why", "first verb"), summary.other)
    names = ("where", "why", "first value")
    _groups(console, "Values that their column cannot use", ("column", *names), summary.refused)
    _groups(console, "Extensions that no column uses", names, summary.unused_extensions)
    paths = [path for _, path, _ in summary.refused] + [p for p, _ in summary.unused_extensions]
    _legend(console, paths)
    problems = [*summary.refused.values(), *summary.rejected.values(), *summary.other.values()]
    number = min((group.first_line for group in problems), default=1)
    console.print(Text(f"To see one line: {visible(one_line)} --line {number}"), soft_wrap=True)


def _counted(console: Console, title: str, name: str, counts: Counter[str]) -> None:
    rows = [(key, f"{count:,}") for key, count in counts.most_common()]
    _table(console, title, (name, "lines"), rows)


def _groups(
    console: Console, title: str, names: Sequence[str], groups: dict[tuple[str, ...], Group]
) -> None:
    """The groups, the largest first; the last name is that of the first value, if there is one."""
    rows = []
    for key, group in sorted(groups.items(), key=lambda item: -item[1].lines):
        values = () if group.value is None else (_value(group.value),)
        rows.append((*key, *values, f"{group.lines:,}", str(group.first_line)))
    _table(console, title, (*names, "lines", "first"), rows)


def _table(
    console: Console, title: str, names: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    if not rows:
        return
    console.print()
    cells = [[visible(_shortened(text)) for text in row] for row in rows]
    columns = list(zip(names, *cells, strict=True))
    # No word is ever broken, so that it can be copied.
    least = [max(cell_len(word) for text in column for word in text.split()) for column in columns]
    more = [max(map(cell_len, column)) - n for column, n in zip(columns, least, strict=True)]
    spare = console.width - sum(least) - _BETWEEN * len(names)
    if spare < 0:
        _print_in_lines(console, title, names, cells)
        return
    table = Table(
        box=SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left", title_style="bold"
    )
    share = min(1, spare / max(sum(more), 1))
    for name, width, wanted in zip(names, least, more, strict=True):
        is_number = name in {"lines", "first"}
        justify: Literal["left", "right"] = "right" if is_number else "left"
        table.add_column(name, justify=justify, width=width + int(wanted * share))
    for row in cells:
        table.add_row(*map(Text, row))
    console.print(table)


def _print_in_lines(
    console: Console, title: str, names: Sequence[str], cells: list[list[str]]
) -> None:
    """Print a table that is wider than the screen as a paragraph for each row."""
    console.print(Text(title, style="bold"))
    for first, *others in cells:
        named = (f"{name}:\xa0{text}" for name, text in zip(names[1:], others, strict=True))
        lines = wrap(
            "   ".join([first, *named]),
            console.width - 1,
            initial_indent=" ",
            subsequent_indent="   ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        console.print(Text("\n".join(lines).replace("\xa0", " ")), soft_wrap=True)


def _legend(console: Console, texts: Iterable[str]) -> None:
    seen = [short for short, long in _SHORT.items() if any(long in text for text in texts)]
    for short in seen:
        console.print(Text(f"{short} stands for {_SHORT[short]}", style="dim"), soft_wrap=True)


def _shortened(text: str) -> str:
    for short, long in _SHORT.items():
        text = text.replace(long, short)
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}..."


def _shown(name: str, cell: Cell) -> str:
    if name == "timestamp":
        return instant(cell.value).isoformat(" ", "milliseconds")
    return _value(cell.value)


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
