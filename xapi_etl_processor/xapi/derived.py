"""Columns to which no path leads: made of the line, its object, or other columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from xapi_etl_processor.xapi.chunk import Chunk, Rows
from xapi_etl_processor.xapi.column import Fallback
from xapi_etl_processor.xapi.identity import line_id
from xapi_etl_processor.xapi.loose_json import any_json, with_dots
from xapi_etl_processor.xapi.paths import CMI5, Member
from xapi_etl_processor.xapi.segments import seconds_covered
from xapi_etl_processor.xapi.values import number, section, text

_Found = TypeVar("_Found")

CMI5_PROGRESS = CMI5 + "result/extensions/progress"
_CMI5_PROGRESS = b"/xapi/cmi5/result/extensions/progress"
"""What a line with it holds, also where the dots of keys are escaped."""

SKIPS = ("skipped", "seeked")
"""Verbs of a seek, in Tin Can's vocabulary and the Video Profile's."""


def from_source(name: str, origin: str) -> Fallback:
    """What the object itself supplies, for every row."""
    return Fallback(
        lambda chunk, rows: [getattr(chunk.source, name)] * len(rows), origin, complete=True
    )


def line_numbers(chunk: Chunk, rows: Rows) -> list[int]:
    """Lines in the object, from 1."""
    return [chunk.numbers[row] for row in rows]


def line_uuids(chunk: Chunk, rows: Rows) -> list[str]:
    """Ids made of the lines."""
    return [line_id(chunk.lines[row]) for row in rows]


def lone_members(chunk: Chunk, rows: Rows) -> list[str]:
    """Who is the one member of a Group that is not identified itself; '' if there is none."""
    return [_who(_lone_member(chunk.statements[row].actor)) or "" for row in rows]


def home_pages(chunk: Chunk, rows: Rows, host_name: Sequence[str]) -> list[str]:
    """The home page of such a member's account, else the OLI host_name, else ''."""
    members = [_lone_member(chunk.statements[row].actor) for row in rows]
    return [
        (member and text(member.account.name) and text(member.account.homePage)) or host_name[row]
        for row, member in zip(rows, members, strict=True)
    ]


def _lone_member(actor: Any) -> Member | None:
    if actor.member is None or len(actor.member) != 1 or _who(actor):
        return None
    (member,) = actor.member
    return member  # type: ignore[no-any-return]  # structs are built at run time


def _who(party: Any) -> str | None:
    """The identifier of an agent or a Group, as the paths of `user_id` find it."""
    if party is None:
        return None
    ids = (party.account.name, party.mbox, party.mbox_sha1sum, party.openid)
    return next(filter(None, map(text, ids)), None)


def all_ids(actor: Any) -> Iterator[tuple[str, str]]:
    """Every identifier of an actor, and of a Group's members, with the home page of an account."""
    for party in filter(None, (actor, *(actor.member or ()))):
        yield text(party.account.name) or "", text(party.account.homePage) or ""
        for found in (party.mbox, party.mbox_sha1sum, party.openid):
            yield text(found) or "", ""


def timestamps(
    chunk: Chunk, _rows: Rows, stated_at: Sequence[int | None], stored_at: Sequence[int | None]
) -> Sequence[int | None]:
    """When each statement happened, else was stored, else the time in the object's key, else 0."""
    # Never LastModified, which changes when the object is written anew.
    if None not in stated_at:
        return stated_at
    otherwise = chunk.source.key_timestamp_ms or 0
    times = zip(stated_at, stored_at, strict=True)
    return [
        stated if stated is not None else stored if stored is not None else otherwise
        for stated, stored in times
    ]


def timestamp_sources(
    chunk: Chunk, rows: Rows, stated_at: Sequence[int | None], stored_at: Sequence[int | None]
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


def key_sections(chunk: Chunk, rows: Rows) -> list[str]:
    """The section that the object's key names, '' if it names none."""
    return [section(chunk.source.section) or ""] * len(rows)


def section_numbers(_chunk: Chunk, _rows: Rows, section: Sequence[str]) -> list[int]:
    """Sections that are numbers, as numbers; 0 for the others."""
    numbers = {text: int(text) if text.isascii() and text.isdigit() else 0 for text in set(section)}
    return [numbers[text] for text in section]


def sessions_of_any_vocabulary(chunk: Chunk, rows: Rows) -> list[str | None]:
    """The first context extension whose IRI ends in /session-id, which no path can express."""
    return _of_lines_with(b"session-id", _any_session, chunk, rows)


def cmi5_progress(chunk: Chunk, rows: Rows) -> list[float | None]:
    """The share that cmi5 sends as whole percent (cmi5 "Quartz", section 9.5.5.1)."""
    return _of_lines_with(_CMI5_PROGRESS, _progress_in, chunk, rows)


def _of_lines_with(
    part: bytes, find: Callable[[bytes], _Found | None], chunk: Chunk, rows: Rows
) -> list[_Found | None]:
    """What `find` finds in the lines that have this part; None for the others."""
    lines = [chunk.lines[row] for row in rows]
    # Most bundles have none. One search of all lines is faster than one of each, and one from the
    # end takes half as long as one from the start.
    if b"".join(lines).rfind(part) < 0:
        return [None] * len(rows)
    return [find(line) if part in line else None for line in lines]


def _progress_in(line: bytes) -> float | None:
    percent = number(_extensions(line, "result").get(CMI5_PROGRESS))
    return percent / 100 if percent is not None and 0 <= percent <= 100 else None


def _any_session(line: bytes) -> str | None:
    extensions = _extensions(line, "context").items()
    sessions = (text(value) for iri, value in extensions if iri.endswith("/session-id"))
    return next(filter(None, sessions), None)


def _extensions(line: bytes, place: str) -> dict[str, Any]:
    try:
        found = any_json(with_dots(line)).get(place)
    except (ValueError, RecursionError):
        return {}  # The typed decode skipped a part of the line that cannot be read.
    extensions = found.get("extensions") if isinstance(found, dict) else None
    return extensions if isinstance(extensions, dict) else {}


def play_times(
    _chunk: Chunk, rows: Rows, video_played_segments: Sequence[str]
) -> list[float | None]:
    """The seconds that the stretches played cover, each once."""
    return [seconds_covered(video_played_segments[row]) for row in rows]


def skips(
    _chunk: Chunk, rows: Rows, verb: Sequence[str], **points: Sequence[float | None]
) -> list[float | None]:
    """Tin Can's starting-point or ending-point, where the verb says that it is that of a seek."""
    ((_, point),) = points.items()
    return [point[row] if verb[row] in SKIPS else None for row in rows]
