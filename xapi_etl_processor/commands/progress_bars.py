"""Progress bars of commands."""

from __future__ import annotations

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
