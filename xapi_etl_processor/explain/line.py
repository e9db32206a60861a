"""What loading makes of one line, and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from xapi_etl_processor.explain.used import Unused, dotted, taken
from xapi_etl_processor.xapi.chunk import Chunk, Source
from xapi_etl_processor.xapi.columns import ABSENT, SENT
from xapi_etl_processor.xapi.decode import Rejected, decode
from xapi_etl_processor.xapi.derived import SKIPS
from xapi_etl_processor.xapi.identity import line_id, statement_id
from xapi_etl_processor.xapi.parse import WHITESPACE, parse
from xapi_etl_processor.xapi.segments import unread
from xapi_etl_processor.xapi.transpose import to_columns
from xapi_etl_processor.xapi.video import verdict

_SEGMENTS = "video_played_segments"

NOT_SENT = "nothing in the statement"
"""Where a value comes from that stands for "absent"."""


class Fate(StrEnum):
    """What a line becomes."""

    VIDEO = "video"
    OTHER = "other"
    BLANK = "blank"
    REJECTED = "rejected"


class Cell(NamedTuple):
    """A column's value, and where it came from: a path, or what it was made of."""

    value: Any
    origin: str


@dataclass
class Explanation:
    """What one line becomes, and the rule that decided; for a video statement its row, and what is
    in the statement and not in the row. `voids` is the id of the statement that it voids, or ''.
    """

    number: int
    fate: Fate
    rule: str
    statement: Any = None
    voids: str = ""
    cells: dict[str, Cell] = field(default_factory=dict)
    unused: list[Unused] = field(default_factory=list)


def explain_line(raw: bytes, number: int, source: Source, max_line_bytes: int) -> Explanation:
    """What the functions that load make of a line, which has this number, from 1."""
    parsed = parse([raw], number, source, max_line_bytes)
    if parsed.counts.blank:
        return Explanation(number, Fate.BLANK, "it holds nothing but blanks")
    if parsed.rejected:
        return Explanation(number, Fate.REJECTED, parsed.rejected[0].reason)
    if not parsed.counts.video:
        statement = decode(raw.strip(WHITESPACE))
        voids = parsed.voided[0].voided_id if parsed.voided else ""
        return Explanation(number, Fate.OTHER, verdict(statement).rule, statement, voids)
    (statement,) = parsed.chunk.statements
    cells, unused = _cells(parsed.chunk)
    rule = verdict(statement).rule
    return Explanation(number, Fate.VIDEO, rule, statement, cells=cells, unused=unused)


def _cells(chunk: Chunk) -> tuple[dict[str, Cell], list[Unused]]:
    columns = to_columns(chunk)
    paths, unused = taken(chunk, columns)
    cells = {}
    for column in SENT:
        if column.name not in columns:
            cells[column.name] = Cell(ABSENT[column.name], NOT_SENT)
            continue
        path = paths.get(column.name)
        made_of = column.fallback.origin if column.fallback else ""
        cells[column.name] = Cell(columns[column.name][0], dotted(path) if path else made_of)
    segments = cells[_SEGMENTS].value
    reasons = unread(
        segments,
        cells["video_seek_from" if cells["verb"].value in SKIPS else "video_time"].value,
        cells["video_length"].value,
        completed=cells["verb"].value == "completed",
    )
    return cells, unused + [
        Unused(
            paths.get(_SEGMENTS, ()),
            segments,
            f"stretches that the views cannot read: {reason}",
            _SEGMENTS,
        )
        for reason in reasons
    ]


def has_id(raw: bytes, wanted: str) -> bool:
    """Whether a line is the statement with this `event_id`."""
    line = raw.strip(WHITESPACE)
    try:
        own = statement_id(decode(line).id) if line else ""
    except Rejected:
        return False
    return wanted == (own or line_id(line))
