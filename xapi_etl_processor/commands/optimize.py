"""The command optimize: merge the parts of months, after a large backfill."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.commands.answers import FAILED, OK, print_json, say
from xapi_etl_processor.commands.bars import bar
from xapi_etl_processor.config import Settings
from xapi_etl_processor.errors import ClickHouseError
from xapi_etl_processor.run import connections
from xapi_etl_processor.storage import merging
from xapi_etl_processor.storage.tables import EVENTS

_ABOUT = """\
Merge the parts of months into one part each. After a large backfill, views and queries with FINAL
then read faster; docs/operations.md says when that is worth it. Nothing needs it: ClickHouse merges
by itself, and rows count once in either case.

It sends OPTIMIZE TABLE ... PARTITION ID ... FINAL, which reads and writes the whole month, however
large its parts are, and removes rows that are repeats. Months that are one part already are left
alone. It needs the privilege OPTIMIZE, and free space for the month a second time (1.1 times).
Ctrl-C only ends the waiting: the server goes on.
"""
_EXAMPLES = """\
examples:
  python -m xapi_etl_processor optimize --month 2024-01..2024-06 --dry-run
  python -m xapi_etl_processor optimize --month 2024-01 --month 2024-02

Prints JSON: parts, rows and bytes of each month before and after. `repeats_removed` is null if rows
were loaded meanwhile. Exit code 0: all is merged; 1: something failed, or there is not enough
space; 2: the request or the configuration is wrong.
"""


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    optimize = commands.add_parser(
        "optimize",
        help="merge the parts of months, after a large backfill",
        description=_ABOUT,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    optimize.add_argument(
        "--month",
        action="append",
        required=True,
        dest="months",
        metavar="MONTH",
        help="such as 2024-01, or 2024-01..2024-06; may be repeated",
    )
    optimize.add_argument("--table", default=EVENTS, help="(default: %(default)s)")
    optimize.add_argument(
        "--dry-run", action="store_true", help="show what would be merged, and merge nothing"
    )
    optimize.set_defaults(command=_optimize)


def _optimize(options: argparse.Namespace) -> int:
    months = merging.months_of(options.months)
    clickhouse = connections(Settings.from_env(os.environ)).clickhouse
    table = options.table
    merging.check_table(clickhouse, table)
    before = merging.parts(clickhouse, table, months)
    free = merging.free_bytes(clickhouse, table)
    answer: dict[str, Any] = {
        "table": f"{clickhouse.database}.{table}",
        "dry_run": options.dry_run,
        "free_bytes": free,
        "months": [{"month": month, "before": merging.totals(before[month])} for month in months],
        "error": None,
    }
    if free is None:
        say("the free space cannot be seen: GRANT SELECT ON system.disks, system.storage_policies")
    answer["error"] = _too_large(before, free)
    if not options.dry_run and not answer["error"]:
        answer["error"] = _merge_all(clickhouse, table, before, answer["months"])
    print_json(answer)
    if answer["error"]:
        say(answer["error"])
    return FAILED if answer["error"] else OK


def _too_large(months: dict[str, list[merging.Part]], free: int | None) -> str | None:
    """Why the first month that does not fit cannot be merged."""
    for month, parts in months.items():
        needed = merging.needed_bytes(parts)
        if free is not None and needed > free:
            return (
                f"{month} needs {needed:,} bytes of free space, and {free:,} are free: make room."
                " If months were merged just now, their old parts go after eight minutes"
            )
    return None


def _merge_all(
    clickhouse: ClickHouse,
    table: str,
    before: dict[str, list[merging.Part]],
    answers: list[dict[str, Any]],
) -> str | None:
    """Merge one month after the other, and note in its answer what that changed; returns what
    failed, if something did.
    """
    for answer in answers:
        month = answer["month"]
        parts = before[month]
        started = time.monotonic()
        try:
            if len(parts) > 1:
                if lacking := _too_large({month: parts}, merging.free_bytes(clickhouse, table)):
                    return lacking
                with _progress(month, len(parts)) as on_progress:
                    merging.merge(clickhouse, table, month, on_progress)
            after = merging.parts(clickhouse, table, [month])[month]
        except ClickHouseError as error:
            return f"{month}: {error}"
        except KeyboardInterrupt:
            return (
                f"{month}: stopped waiting; the server goes on merging, see system.merges."
                " SYSTEM STOP MERGES would end it"
            )
        answer["after"] = merging.totals(after)
        answer["repeats_removed"] = merging.removed(parts, after)
        answer["seconds"] = round(time.monotonic() - started, 1)
    return None


@contextmanager
def _progress(month: str, parts: int) -> Iterator[Callable[[merging.Running], None]]:
    """A progress bar on standard error; gives a function to call with what the server says."""
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[about]}", style="dim"),
        TimeElapsedColumn(),
    )
    with bar(*columns) as shown:
        task = shown.add_task(month, total=1.0, about=f"{parts:,} parts")

        def on_progress(running: merging.Running) -> None:
            about = f"{running.parts:,} parts, {running.bytes / 1e6:,.0f} MB"
            shown.update(task, completed=running.share, about=about)

        yield on_progress
