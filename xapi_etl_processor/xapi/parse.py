"""Lines to video statements, with a count of what became of each line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from xapi_etl_processor.xapi.chunk import Chunk, Source
from xapi_etl_processor.xapi.decode import Rejected, decode
from xapi_etl_processor.xapi.lines import MAX_LINE_BYTES
from xapi_etl_processor.xapi.values import text
from xapi_etl_processor.xapi.video import verdict
from xapi_etl_processor.xapi.voiding import Voided, voided

WHITESPACE = b" \t\r\n"
"""What may surround a JSON text (RFC 8259), and what lines are trimmed of."""


class RejectedLine(NamedTuple):
    """A line that is no statement: its number from 1, the reason, the trimmed line."""

    number: int
    reason: str
    line: bytes


@dataclass
class Counts:
    """What became of lines; `lines == video + other + blank + rejected + forgotten`, always."""

    lines: int = 0
    video: int = 0
    other: int = 0
    blank: int = 0
    rejected: int = 0
    forgotten: int = 0

    def add(self, more: Counts) -> None:
        """Add the counts of other lines."""
        for name, count in vars(more).items():
            setattr(self, name, getattr(self, name) + count)

    @property
    def add_up(self) -> bool:
        """Whether every line became exactly one thing."""
        became = self.video + self.other + self.blank + self.rejected + self.forgotten
        return self.lines == became


@dataclass
class Parsed:
    """What some lines of one object became."""

    counts: Counts
    chunk: Chunk
    rejected: list[RejectedLine] = field(default_factory=list)
    voided: list[Voided] = field(default_factory=list)


def parse(
    lines: list[bytes], first: int, source: Source, max_line_bytes: int = MAX_LINE_BYTES
) -> Parsed:
    """What consecutive lines became, of which the first has this number. No line raises."""
    chunk = Chunk(source)
    rejected: list[RejectedLine] = []
    voidings: list[Voided] = []
    blank = other = 0
    for number, raw in enumerate(lines, first):
        line = raw.strip(WHITESPACE)
        if not line and len(raw) <= max_line_bytes:
            blank += 1
            continue
        try:
            if len(raw) > max_line_bytes and len(raw.removesuffix(b"\r")) > max_line_bytes:
                raise Rejected(f"line is longer than {max_line_bytes} bytes")
            statement = decode(line)
            about_video = verdict(statement).video
            if about_video and not text(statement.object.id):
                # Else all such videos of a section would be one.
                raise Rejected("statement has no usable object.id")
        except Rejected as error:
            rejected.append(RejectedLine(number, str(error), line))
            continue
        if about_video:
            chunk.statements.append(statement)
            chunk.lines.append(line)
            chunk.numbers.append(number)
        else:
            other += 1
            if found := voided(statement, line, number, source):
                voidings.append(found)
    counts = Counts(len(lines), len(chunk.statements), other, blank, len(rejected))
    return Parsed(counts, chunk, rejected, voidings)
