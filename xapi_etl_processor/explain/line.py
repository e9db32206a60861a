"""What loading makes of one line, and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from xapi_etl_processor.explain import shape
from xapi_etl_processor.explain.used import Unused, dotted, taken
from xapi_etl_processor.xapi.chunk import Chunk, Source
from xapi_etl_processor.xapi.columns import ABSENT, SENT
from xapi_etl_processor.xapi.decode import Rejected, decode
from xapi_etl_processor.xapi.derived import SKIPS
from xapi_etl_processor.xapi.identity import line_id, statement_id
from xapi_etl_processor.xapi.parse import WHITESPACE, parse
from xapi_etl_processor.xapi.segments import judged
from xapi_etl_processor.xapi.transpose import to_columns
from xapi_etl_processor.xapi.video import verdict

_SEGMENTS = "video_played_segments"
_UNREAD = {
    "not understood": "it is not from[.]to in seconds from 0",
    "open": "its end is not known",
    "reversed": "it ends before it begins",
    "past the length": "it ends past twice the video's length",
}

SLACK_SECONDS = 1.0
"""How far past a video's end a position may be without a word, since players round. Our choice."""

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
    in the statement and not used. `voids` is the id of the statement that it voids, or ''. Of a
    rejected line, the `line`, and a `hint` at what it is, or ''.
    """

    number: int
    fate: Fate
    rule: str
    statement: Any = None
    voids: str = ""
    cells: dict[str, Cell] = field(default_factory=dict)
    unused: list[Unused] = field(default_factory=list)
    line: bytes = b""
    hint: str = ""


def explain_line(raw: bytes, number: int, source: Source, max_line_bytes: int) -> Explanation:
    """What the functions that load make of a line, which has this number, from 1."""
    parsed = parse([raw], number, source, max_line_bytes)
    if parsed.counts.blank:
        return Explanation(number, Fate.BLANK, "it holds nothing but blanks")
    if parsed.rejected:
        _, reason, line = parsed.rejected[0]
        return Explanation(number, Fate.REJECTED, reason, line=line, hint=shape.of_line(line))
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
    for name, value, reason in _uncounted({name: cell.value for name, cell in cells.items()}):
        unused.append(Unused(paths.get(name, ()), value, reason, name))
    return cells, unused


def _uncounted(row: dict[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """Values of a row that the views of what was watched cannot use as they are: the column, the
    value, or the first such stretch, and why.
    """
    length = row["video_length"]
    cut = (
        f"it is past the video's end at {length:g} s, where the views cut it off" if length else ""
    )
    for name in ("video_time", "video_seek_from", "video_seek_to"):
        if (value := row[name]) is not None and value < 0:
            yield name, value, "it is before the video begins: the views take it for none"
        elif value and length and value > length + SLACK_SECONDS:
            yield name, value, cut
    position = row["video_seek_from" if row["verb"] in SKIPS else "video_time"]
    found = judged(row[_SEGMENTS], position, length, completed=row["verb"] == "completed")
    reasons: dict[str, str] = {}
    for one in found:
        if one.unread:
            why = f"no view can use this stretch: {one.unread} ({_UNREAD[one.unread]})"
            reasons.setdefault(why, one.sent)
        elif one.end and length and one.end > length + SLACK_SECONDS:
            reasons.setdefault(cut, one.sent)
    yield from ((_SEGMENTS, sent, why) for why, sent in reasons.items())


def has_id(raw: bytes, wanted: str) -> bool:
    """Whether a line is the statement with this `event_id`."""
    line = raw.strip(WHITESPACE)
    try:
        own = statement_id(decode(line).id) if line else ""
    except Rejected:
        return False
    return wanted == (own or line_id(line))
