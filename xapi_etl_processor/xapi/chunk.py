"""Video statements on their way from lines to columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import Any, NamedTuple


class Source(NamedTuple):
    """The object that lines come from, and what it supplies where a statement is silent.

    `section` is '' and `modified_ms` 0 if that is unknown; times are in milliseconds since 1970.
    """

    file: str
    etag: str
    section: str
    key_timestamp_ms: int | None
    modified_ms: int


@dataclass
class Chunk:
    """Some video statements of one object, in order; the lists run in parallel: the decoded
    statement, its trimmed line, the line's number from 1.
    """

    source: Source
    statements: list[Any] = field(default_factory=list)
    lines: list[bytes] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)

    def keep(self, rows: Sequence[bool]) -> None:
        """Drop the statements for which `rows` is false."""
        self.statements = list(compress(self.statements, rows))
        self.lines = list(compress(self.lines, rows))
        self.numbers = list(compress(self.numbers, rows))


Rows = Sequence[int]
"""Positions in a chunk."""
