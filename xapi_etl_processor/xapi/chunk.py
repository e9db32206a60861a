"""Video statements on their way from lines to columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Source(NamedTuple):
    """The object that lines come from, and what it supplies where a statement is silent.

    `section_id` is 0 if the key names none; `written_at_ms` is in milliseconds since 1970.
    """

    file: str
    etag: str
    section_id: int
    written_at_ms: int


@dataclass
class Chunk:
    """Some video statements of one object, in order.

    The lists run in parallel: the decoded statement, its trimmed line, the line's number from 1,
    and the line's SHA-256.
    """

    source: Source
    statements: list[Any] = field(default_factory=list)
    lines: list[bytes] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)


Rows = Sequence[int]
"""Positions in a chunk."""
