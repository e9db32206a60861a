"""Stretches played, in the Video Profile's notation, and the seconds that they cover."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from xapi_etl_processor.xapi.loose_json import any_json
from xapi_etl_processor.xapi.values import Kind, number, text

_MOST_LENGTHS = 2
"""A stretch that ends after this many lengths of the video does not count. Our limit."""

_INFINITE = float("inf")


def segments(value: object) -> str | None:
    """`from[.]to[,]from[.]to...` in seconds (ADL Video Profile, `played-segments`).

    A JSON array, or a text that holds one, is written in this form, but for pairs without numbers.
    """
    if isinstance(value, str) and value.startswith("["):
        try:
            return segments(any_json(value.encode()))
        except (ValueError, RecursionError):
            return value
    if isinstance(value, list):
        return "[,]".join(filter(None, map(_pair, value))) or None
    return text(value)


def no_pairs(value: object) -> list[Any]:
    """What `segments` leaves out of a JSON array."""
    return [one for one in value if not _pair(one)] if isinstance(value, list) else []


def _pair(value: Any) -> str | None:
    if isinstance(value, str):
        return value if "[.]" in value else None
    if not isinstance(value, list) or not 1 <= len(value) <= 2:
        return None
    begin, end = [*value, None][:2]
    if number(begin) is None or (end is not None and number(end) is None):
        return None
    return "[.]".join("" if found is None else str(found).strip() for found in (begin, end))


def _all_in_notation(values: Sequence[str]) -> bool:
    """Whether no text begins like a JSON array."""
    return "\n[" not in "\n".join(("", *values))


def seconds_covered(played: str) -> float | None:
    """Seconds covered by `from[.]to[,]from[.]to...`, counting each second once. Pairs without an
    end and pairs that run backwards are left out; None if no pair remains.
    """
    if not played:
        return None
    pairs = []
    covered = 0.0
    reached = -_INFINITE
    ordered = True
    for pair in played.split("[,]"):
        begin, _, end = pair.partition("[.]")
        try:
            start, stop = float(begin), float(end)
        except ValueError:
            continue
        # Python also converts "nan", "inf" and "1_000". No comparison with NaN is true.
        if not 0 <= stop - start < _INFINITE or "_" in pair:
            continue
        pairs.append((start, stop))
        # Most players send pairs in order, without overlaps: their sum is all that is needed.
        ordered = ordered and start >= reached
        covered += stop - start
        reached = stop
    if not pairs:
        return None
    if not ordered:
        covered = _union(pairs)
    # The profile's precision is a thousandth; digits beyond are noise of subtracting floats.
    return round(covered, 3) if covered < _INFINITE else None


def _union(pairs: list[tuple[float, float]]) -> float:
    covered = 0.0
    reached = -_INFINITE
    for start, stop in sorted(pairs):
        unseen = max(start, reached)
        if stop > unseen:
            covered += stop - unseen
            reached = stop
    return covered


class Judged(NamedTuple):
    """A stretch as it was sent, the second at which it ends, if that is known, and why it counts
    for nothing in the views, '' if it counts.
    """

    sent: str
    end: float | None
    unread: str


def judged(
    played: str, position: float | None, length: float | None, *, completed: bool
) -> list[Judged]:
    """The stretches of a statement, in order.

    The view `statement_stretches` reads them by the same rules, which docs/watching.md lists.
    """
    sent = _in_notation(played).split("[,]") if played else []
    pairs = [pair.split("[.]") for pair in sent]
    ends = [[_seconds(end.strip()) for end in pair] for pair in pairs]
    known = length or 0.0
    read: list[tuple[float | None, float | None]] = []
    for nth, pair in enumerate(ends, 1):
        start, stop = pair if len(pair) == 2 else (None, None)
        is_open = len(pair) == 2 and not pairs[nth - 1][1].strip()
        if is_open and start is not None and nth == len(ends):
            if position is not None and position >= start:
                stop = position
            elif completed and known > start:
                stop = known
        read.append((None if stop is None and not is_open else start, stop))
    furthest = max((stop or 0.0 for start, stop in read if start is not None), default=0.0)
    parts = 1000 if 100 * known <= furthest <= 1000 * known and known else 1
    return [
        Judged(text, stop and stop / parts, _judged(start, stop, parts, known))
        for text, (start, stop) in zip(sent, read, strict=True)
    ]


def _judged(start: float | None, stop: float | None, parts: int, length: float) -> str:
    if start is None:
        return "not understood"
    if stop is None:
        return "open"
    if stop < start:
        return "reversed"
    return "past the length" if length and stop / parts > _MOST_LENGTHS * length else ""


_CLOCK = r"(?:[0-9]+:)?[0-9]+:[0-5]?[0-9](?:[.,][0-9]*)?"
_POINT = rf"(?:{_CLOCK}|[0-9]+(?:[.,][0-9]*)?)"
_TWO = re.compile(rf"\s*{_POINT}\s*[-;]\s*{_POINT}\s*", re.ASCII)
_PLAIN = rf"\s*{_POINT}\s*".replace(".,", ".")
_SEVERAL = re.compile(rf"{_PLAIN}-{_PLAIN}(?:(?:,|\[,\]){_PLAIN}-{_PLAIN})*", re.ASCII)


def _in_notation(played: str) -> str:
    """The stretches as the profile writes them, if they can mean only one thing."""
    if "[.]" in played:
        return played
    if _TWO.fullmatch(played):
        return re.sub("[-;]", "[.]", played, count=1)
    if _SEVERAL.fullmatch(played):
        return re.sub(r"\[,\]|,", "[,]", played).replace("-", "[.]")
    return played


def _seconds(end: str) -> float | None:
    """A position in seconds or as a clock; None if it is neither, or open."""
    if re.fullmatch(_CLOCK, end, re.ASCII):
        parts = reversed(end.replace(",", ".").split(":"))
        return sum(float(part) * 60.0**nth for nth, part in enumerate(parts))
    if not re.fullmatch("[0-9+.,eE][-0-9+.,eE]*", end):
        return None
    try:
        found = float(end.replace(",", ".", 1))
    except ValueError:
        return None
    return found if 0 <= found < _INFINITE else None


SEGMENTS = Kind(segments, frozenset({str}), _all_in_notation, wanted="from[.]to[,]from[.]to")
