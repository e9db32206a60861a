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
from rich.padding import Padding
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

_MOST_BYTES = 1_000
"""Bytes of a rejected line that are shown. Our limit."""


def visible(text: str) -> str:
    """A text in which characters that steer a terminal are written as escapes."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def show_line(console: Console, one: Explanation, shape: str, withheld: str) -> None:
    """Print what one line becomes; `withheld` is why a rejected one is not shown, '' if it is."""
    console.print(Text(f"Line {one.number}: {one.fate}", style="bold"), soft_wrap=True)
    console.print(Text(f"Why: {visible(one.rule)}"), soft_wrap=True)
    if one.voids:
        console.print(Text(f"It voids the statement {visible(one.voids)}."), soft_wrap=True)
    if one.fate is Fate.REJECTED:
        _show_rejected(console, one, shape, withheld)
    if one.fate is not Fate.VIDEO:
        return
    present = {name: cell for name, cell in one.cells.items() if cell.origin != NOT_SENT}
    rows = [(name, _shown(name, cell), cell.origin) for name, cell in present.items()]
    _table(console, "Its row", ("column", "value", "from"), rows)
    if absent := [name for name in one.cells if name not in present]:
        console.print(Text("Absent: " + ", ".join(absent)))
    unused = [(dotted(u.path), _value(u.value), u.reason) for u in one.unused]
    _table(console, "In the statement, and not used", ("where", "value", "why"), unused)
    _legend(console, [origin for _, _, origin in rows] + [path for path, _, _ in unused])


def _show_rejected(console: Console, one: Explanation, shape: str, withheld: str) -> None:
    if hint := shape or one.hint:
        console.print(Text(hint), soft_wrap=True)
    if withheld:
        console.print(Text(f"The line is not shown: {withheld}"), soft_wrap=True)
        return
    more = len(one.line) - _MOST_BYTES
    rest = f", without its other {more:,} bytes" if more > 0 else ""
    console.print(Text(f"\nThe line{rest}", style="bold"))
    console.print(
        Text(visible(one.line[:_MOST_BYTES].decode(errors="backslashreplace"))), soft_wrap=True
    )


def show_summary(console: Console, summary: Summary, shape: str, one_line: str) -> None:
    """Print what many lines become, and `one_line`, the command that shows one of them. If the file
    has another `shape`, that is why lines were rejected.
    """
    fates = ", ".join(f"{summary.fates[fate]:,} {fate}" for fate in Fate)
    total = summary.fates.total()
    console.print(Text(f"{counted(total, 'line')}: {fates}", style="bold"))
    if total == summary.fates[Fate.BLANK]:
        what = "It has only blank lines" if total else "It is empty"
        console.print(Text(f"{what}: loading it succeeds, and stores nothing."))
        return
    if summary.fails:
        console.print(Text("Loading it fails: none of its lines is a statement."))
    if summary.rejected and shape:
        console.print(Text(shape), soft_wrap=True)
    _counted(console, "Verbs of video statements", "verb", summary.verbs)
    _counted(console, "Object types of video statements", "type", summary.types)
    if not (shape and summary.fails):
        _groups(console, "Rejected", summary.rejected)
    _groups(console, "Other statements", summary.other)
    refused: dict[tuple[str, ...], Group] = {
        (f"{of}, from {path}", why): one for (of, path, why), one in summary.refused.items()
    }
    _groups(console, "Values that cannot be used", refused)
    _groups(console, "Extensions that no column uses", summary.unused_extensions)
    paths = [path for _, path, _ in summary.refused] + [p for p, _ in summary.unused_extensions]
    _legend(console, paths)
    problems = [*summary.refused.values(), *summary.rejected.values(), *summary.other.values()]
    number = min((group.first_lines[0] for group in problems), default=1)
    command = f"{visible(one_line)} --line {number}"
    console.print(Text(f"\nTo see one line: {command}"), soft_wrap=True)


def _counted(console: Console, title: str, name: str, counts: Counter[str]) -> None:
    rows = [(key, f"{count:,}") for key, count in counts.most_common()]
    _table(console, title, (name, "lines"), rows)


def _groups(console: Console, title: str, groups: dict[tuple[str, ...], Group]) -> None:
    """The groups, the largest first: what they are, how many lines, which, and the first value."""
    if groups:
        console.print(Text(f"\n{title}", style="bold"))
    for key, group in sorted(groups.items(), key=lambda item: -item[1].lines):
        first = ", ".join(map(str, group.first_lines))
        more = " ..." if group.lines > len(group.first_lines) else ""
        found = (
            f"in {group.lines:,} lines: {first}{more}" if group.lines > 1 else f"in line {first}"
        )
        example = "" if group.value is None else f"; first: {_value(group.value)}"
        for indent, text in zip((1, 3, 3), (*key, found + example), strict=False):
            shown = Text(visible(_shortened(text)))
            console.print(Padding(shown, (0, 0, 0, indent), expand=False))


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
        justify: Literal["left", "right"] = "right" if name == "lines" else "left"
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
