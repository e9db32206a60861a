"""Columns to which no path leads: made of the line, its object, or other columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from xapi_etl_processor.xapi.chunk import Chunk, Rows
from xapi_etl_processor.xapi.values import any_json, seconds_covered, section
from xapi_etl_processor.xapi.values import text as as_text


class Fallback(NamedTuple):
    """Supplies the rows for which no path has a value.

    `supply(chunk, rows, **columns)` gives one value for each of the rows. The columns that it
    `needs` are passed to it by name, finished and as long as the chunk, wherever they stand in the
    table.
    """

    supply: Callable[..., Sequence[Any]]
    needs: tuple[str, ...] = ()


def from_source(name: str) -> Fallback:
    """What the object itself supplies, for every row."""
    return Fallback(lambda chunk, rows: [getattr(chunk.source, name)] * len(rows))


def line_numbers(chunk: Chunk, rows: Rows) -> list[int]:
    """Lines in the object, from 1."""
    return [chunk.numbers[row] for row in rows]


def line_uuids(chunk: Chunk, rows: Rows) -> list[str]:
    """UUIDs made of the first 16 bytes of the trimmed lines' SHA-256."""
    digests = [chunk.digests[row].hex() for row in rows]
    return [f"{d[:8]}-{d[8:12]}-{d[12:16]}-{d[16:20]}-{d[20:32]}" for d in digests]


def timestamps(
    chunk: Chunk,
    _rows: Rows,
    stated_at: Sequence[int | None],
    stored_at: Sequence[int | None],
) -> Sequence[int | None]:
    """When each statement happened, else was stored, else the time in the object's key, else 0.

    Never LastModified, which changes when the object is written anew.
    """
    if None not in stated_at:
        return stated_at
    otherwise = chunk.source.key_timestamp_ms or 0
    times = zip(stated_at, stored_at, strict=True)
    return [
        stated if stated is not None else stored if stored is not None else otherwise
        for stated, stored in times
    ]


def timestamp_sources(
    chunk: Chunk,
    rows: Rows,
    stated_at: Sequence[int | None],
    stored_at: Sequence[int | None],
) -> list[str]:
    """Which of those supplied the timestamp: statement, stored, key or none."""
    if None not in stated_at:
        return ["statement"] * len(rows)
    otherwise = "none" if chunk.source.key_timestamp_ms is None else "key"
    times = zip(stated_at, stored_at, strict=True)
    return [
        "statement" if stated is not None else "stored" if stored is not None else otherwise
        for stated, stored in times
    ]


def key_sections(chunk: Chunk, rows: Rows) -> list[str | None]:
    """The section that the object's key names."""
    return [section(chunk.source.section)] * len(rows)


def section_numbers(_chunk: Chunk, _rows: Rows, section: Sequence[str]) -> list[int]:
    """Sections that are numbers, as numbers; 0 for the others."""
    numbers = {text: int(text) if text.isascii() and text.isdigit() else 0 for text in set(section)}
    return [numbers[text] for text in section]


def sessions_of_any_vocabulary(chunk: Chunk, rows: Rows) -> list[str | None]:
    """The first context extension whose IRI ends in /session-id, which no path can express."""
    lines = [chunk.lines[row] for row in rows]
    # One search of all lines is forty times as fast as one of each, and most bundles have none.
    if b"session-id" not in b"".join(lines):
        return [None] * len(rows)
    return [_any_session(line) if b"session-id" in line else None for line in lines]


def _any_session(line: bytes) -> str | None:
    try:
        context = any_json(line).get("context")
    except (ValueError, RecursionError):
        return None  # The typed decode skipped a part of the line that cannot be read.
    extensions = context.get("extensions") if isinstance(context, dict) else None
    if isinstance(extensions, dict):
        for iri, value in extensions.items():
            if iri.endswith("/session-id") and (session := as_text(value)):
                return session
    return None


def play_times(
    _chunk: Chunk, rows: Rows, video_played_segments: Sequence[str]
) -> list[float | None]:
    """The seconds that the stretches played cover, each once."""
    return [seconds_covered(video_played_segments[row]) for row in rows]
