"""Ask the local ClickHouse and print the answer as a table.

    python -m local.query [--data DIR] [--format csv] "SELECT 1"

Inside `make local` this asks the ClickHouse that runs there. Elsewhere it asks whoever serves the
data folder, the demo's unless another is named, or else reads the folder and cannot change it.
"""

from __future__ import annotations

import argparse
import csv
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from clickhouse_driver import Client, errors
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from local import DEMO, PORT_VARIABLE

_MOST_ROWS = 1000
_NUMBERS = ("Int", "UInt", "Float", "Decimal", "Nullable(Int", "Nullable(UInt", "Nullable(Float")


Rows = Iterator[Sequence[Any]]


class NoServer(Exception):
    """There is no ClickHouse to ask; the message says why."""


@contextmanager
def _server(data: Path | None) -> Iterator[int]:
    """The port to ask on: of `make local` if this is its shell, else of a server on the folder."""
    running = os.environ.get(PORT_VARIABLE)
    if running and not data:
        yield int(running)
        return
    from local.clickhouse_server import ClickHouseServer, FolderUnusable, port_note

    folder = data or DEMO
    if not folder.exists():
        raise NoServer(f"{folder} does not exist: make run first")
    if port := _served_on(port_note(folder)):
        yield port
        return
    try:
        server = ClickHouseServer(folder, read_only=True).start()
    except FolderUnusable as error:
        raise NoServer(str(error)) from error
    try:
        yield server.port
    finally:
        server.stop()


def _served_on(note: Path) -> int | None:
    """The port in a note, if something listens there: a server that was killed leaves its note."""
    try:
        port = int(note.read_text())
        with socket.create_connection(("127.0.0.1", port), 1):
            return port
    except (OSError, ValueError):
        return None


def _ask(port: int, sql: str, show: Callable[[list[tuple[str, str]], Rows], None]) -> None:
    """Show the names and types of the columns, and the rows."""
    with Client("127.0.0.1", port, connect_timeout=5) as client:
        answer = client.execute_iter(sql, with_column_types=True)
        show(list(next(answer, [])), answer)


def _csv(columns: list[tuple[str, str]], answer: Rows) -> None:
    """Print every row as CSV, below the columns' names; NULL is empty."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(name for name, _ in columns)
    writer.writerows(answer)


def _table(columns: list[tuple[str, str]], answer: Rows) -> None:
    """Print a table or, if it is wider than the screen, one field a line."""
    if not columns:
        print("Done.")
        return
    rows = list(islice(answer, _MOST_ROWS + 1))
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 10_000  # Whoever reads a file or a pipe has no screen to fit.
    shown = [[_text(value) for value in row] for row in rows[:_MOST_ROWS]]
    widths = [
        max(cell_len(text) for text in (name, *(row[index].plain for row in shown)))
        for index, (name, _) in enumerate(columns)
    ]
    if sum(widths) + 3 * len(widths) + 1 <= console.width:
        table = Table()
        for name, kind in columns:
            table.add_column(Text(name), justify="right" if kind.startswith(_NUMBERS) else "left")
        for row in shown:
            table.add_row(*row)
        console.print(table)
    else:
        indent = max(cell_len(name) for name, _ in columns) + 2
        for number, row in enumerate(shown, 1):
            console.print(Text(f"Row {number}", style="bold"))
            for (name, _), value in zip(columns, row, strict=True):
                console.print(Text(name.ljust(indent)) + value, soft_wrap=True)
    if len(rows) > _MOST_ROWS:
        console.print(f"Only the first {_MOST_ROWS:,} rows are shown.")


def _text(value: Any) -> Text:
    if value is None:
        return Text("NULL", style="dim")
    return Text(value.isoformat(" ") if isinstance(value, datetime) else str(value))


def main() -> int:
    """Answer one query: 0 answered, 1 it failed, 2 there was none."""
    parser = argparse.ArgumentParser(
        prog="python -m local.query", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--data", type=Path, help="data folder (.local/demo)")
    parser.add_argument("--format", choices=["table", "csv"], default="table")
    parser.add_argument("sql", help="the query")
    options = parser.parse_args()
    if not options.sql.strip():
        print('query: the query is empty: make query SQL="SELECT ..."', file=sys.stderr)
        return 2
    try:
        with _server(options.data) as port:
            _ask(port, options.sql, _csv if options.format == "csv" else _table)
    except NoServer as error:
        print(f"query: {error}", file=sys.stderr)
        return 1
    except errors.Error as error:
        reason = str(error).partition("Stack trace")[0].strip(" .\n").replace("\n", " ")
        print(f"query: {reason}", file=sys.stderr)
        return 1
    except (OSError, EOFError):
        print("query: ClickHouse does not answer: has `make local` ended?", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
