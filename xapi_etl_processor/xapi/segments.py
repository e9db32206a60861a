"""Stretches played, in the Video Profile's notation, and the seconds that they cover."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xapi_etl_processor.xapi.loose_json import any_json
from xapi_etl_processor.xapi.values import Kind, number, text

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


def follows_profile(played: str) -> bool:
    """Whether each stretch is `from[.]to` in seconds, forwards; the last one may be open."""
    *earlier, last = played.split("[,]")
    pairs = earlier if last.endswith("[.]") else [*earlier, last]
    return all(seconds_covered(pair) is not None for pair in pairs)


SEGMENTS = Kind(segments, frozenset({str}), _all_in_notation, wanted="from[.]to[,]from[.]to")
