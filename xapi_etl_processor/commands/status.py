"""Show what was loaded and when, what was rejected, and what waits. Lists the bucket and reads the
tables; writes nothing.

Examples:
  python -m xapi_etl_processor status
  python -m xapi_etl_processor status --section 2001 --json

Exit code 0: all could be asked; 1: something could not, and is named; 2: the configuration is
wrong.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from xapi_etl_processor.audit.status import NEWEST_OBJECTS, Status, status
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.telemetry import counted
from xapi_etl_processor.commands.options import add_command, run_here
from xapi_etl_processor.commands.output import FAILED, OK, print_json, say
from xapi_etl_processor.storage.sections import unknown

if TYPE_CHECKING:
    from rich.console import Console


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    summary = "show how fresh and how complete the tables are"
    show = add_command(commands, "status", _status, summary, __doc__)
    show.add_argument("--section", default="", metavar="ID", help="one section only")
    show.add_argument("--json", action="store_true", help="print JSON")


def _status(options: argparse.Namespace) -> int:
    run = run_here("status")
    found = status(run.settings, run.connections, options.section)
    if options.json:
        print_json({**found.facts, "failed": found.failed, "not_set": found.not_set})
    else:
        _print(found, run.settings)
    if not found.failed and (warning := unknown(run.connections.clickhouse, options.section)):
        say(warning)
    return FAILED if found.failed else OK


def _print(found: Status, settings: Settings) -> None:
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    console.print(f"{settings.clickhouse_database} on {settings.clickhouse_host}")
    told: set[str] = set()
    for name, (title, show) in _PARTS.items():
        console.print()
        console.print(title, style="bold")
        if facts := found.facts.get(name):
            show(facts, console)
        elif name in found.facts:
            console.print("  none")
        elif name in found.not_set:
            console.print(f"  not asked: set {found.not_set[name]}")
        else:
            why = found.failed[name]
            # One error of a server that is away would otherwise fill the page.
            console.print(f"  could not be asked: {'see above' if why in told else why}")
            told.add(why)


def _freshness(facts: dict[str, Any], console: Console) -> None:
    if not facts["objects"]:
        console.print("  no bundles in S3")
        return
    newest, loaded = facts["newest"], facts["newest_loaded"]
    console.print(f"  {counted(facts['objects'], 'bundle')} in S3")
    for name, obj in (("newest", newest), ("newest loaded", loaded)):
        if obj:
            console.print(f"  {name:<14} {obj['modified'][:19]} UTC")
            # A name is never broken by us, so that it can be copied.
            console.print(f"    {obj['key']}", soft_wrap=True)
    if loaded:
        console.print(f"  {'lag':<14} {counted(facts['lag_seconds'], 'second')}")
    if facts["not_loaded"]:
        among = f" of the newest {facts['looked_up']:,}"
        console.print(f"  {facts['not_loaded']:,}{among} not loaded; verify names them")
    elif facts["objects"] > NEWEST_OBJECTS:
        console.print(f"  the newest {facts['looked_up']:,} are loaded; verify compares all")


def _table(*names: str) -> Callable[[list[dict[str, Any]], Console], None]:
    """Shows rows as a table; numbers on the right."""

    def show(rows: list[dict[str, Any]], console: Console) -> None:
        from rich.table import Table

        table = Table(box=None, padding=(0, 0, 0, 2))
        for name in names:
            number = isinstance(rows[0][name], int)
            table.add_column(name, justify="right" if number else "left", overflow="fold")
        for row in rows:
            cells = (row[name] for name in names)
            table.add_row(*(f"{v:,}" if isinstance(v, int) else str(v) for v in cells))
        console.print(table)

    return show


def _counts(facts: dict[str, int], console: Console) -> None:
    for name, count in facts.items():
        console.print(f"  {count:>14,}  {name.replace('_', ' ')}")


def _rejected(rows: list[dict[str, Any]], console: Console) -> None:
    for row in rows:
        console.print(f"  {row['lines']:>14,}  {row['reason']}")
        console.print(f"    {row['example']}", soft_wrap=True)


def _restamped(facts: dict[str, Any], console: Console) -> None:
    of = f"of one in {facts['of_each']:,} ids, " if facts["of_each"] > 1 else ""
    console.print(f"  {facts['ids']:>14,}  {of}such as")
    console.print(f"    {facts['example']}", soft_wrap=True)


_PARTS: dict[str, tuple[str, Callable[[Any, Console], None]]] = {
    "freshness": ("Freshness", _freshness),
    "days": ("Loaded, by day (UTC)", _table("day", "objects", "video", "other", "rejected")),
    "rejected": ("Rejected lines that still count", _rejected),
    "timestamps": ("Statements without a timestamp of their own, and what they have", _counts),
    "repeats": ("Repeats", _counts),
    "restamped": ("Ids with several timestamps, each of them a statement", _restamped),
    "months": ("video_events, by month", _table("month", "parts", "rows", "bytes")),
    "queue": ("Queue", _counts),
    "backfill": ("Backfill queue", _counts),
    "dead_letters": ("Dead letters", _counts),
}
