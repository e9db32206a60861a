"""Progress bars of commands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn


def bar(*columns: ProgressColumn, transient: bool = True) -> Progress:
    """A progress bar on standard error, shown only if that is a terminal. A transient one is gone
    when it ends.
    """
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=transient, disable=not console.is_terminal)


@contextmanager
def counting() -> Iterator[Callable[[str, str], None]]:
    """A bar that counts objects; gives a function to call with each one's key and a note."""
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.completed:,} objects{task.fields[note]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[key]}", style="dim", markup=False),
    )
    with bar(*columns) as shown:
        task = shown.add_task("", total=None, note="", key="listing")

        def show(key: str, note: str) -> None:
            key = "".join(c if c.isprintable() else "?" for c in key[-60:])
            shown.update(task, advance=1, key=key, note=note)

        yield show
