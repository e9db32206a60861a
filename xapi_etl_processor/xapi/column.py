"""What a row of the column table says: where a column's values come from, and what they become."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from xapi_etl_processor.xapi.paths import Path
from xapi_etl_processor.xapi.values import TEXT, Kind


class Fallback(NamedTuple):
    """Supplies the rows for which no path has a value.

    `supply(chunk, rows, **columns)` returns one value for each row, made of `origin`. The columns
    that it `needs`, which need none themselves, are finished first, with a value for each statement
    of the chunk. Chunks in which the column `where` is empty skip it. A `complete` one has a value
    for every row.
    """

    supply: Callable[..., Sequence[Any]]
    origin: str
    needs: tuple[str, ...] = ()
    where: str = ""
    complete: bool = False


class Column(NamedTuple):
    """One column: the paths at which its value is looked for, in order, and what it becomes.

    A column with a `default` is filled by ClickHouse and never sent.
    """

    name: str
    type: str
    comment: str
    kind: Kind = TEXT
    paths: tuple[Path, ...] = ()
    fallback: Fallback | None = None
    default: str = ""

    @property
    def absent(self) -> Any:
        """What stands for "absent": NULL, or the type's own zero."""
        if self.type.startswith("Nullable"):
            return None
        return "" if "String" in self.type else 0
