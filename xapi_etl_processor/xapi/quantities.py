"""Seconds, shares, speeds and lines of resolution, in the spellings that players use."""

from __future__ import annotations

import re

from xapi_etl_processor.xapi.values import Kind, all_within, number

ROUNDED_SHARE = 1.05
"""Up to here, a progress above 1 is a rounding of 1: players divide by a length in whole seconds.
Our limit; whoever sends percent sends 1.0 to 1.05 percent for an instant only."""

_DURATION = re.compile(
    r"P(?:[0.]+Y)?(?:[0.]+M)?(?:(?P<weeks>#)W)?(?:(?P<days>#)D)?"
    r"(?:T(?:(?P<hours>#)H)?(?:(?P<minutes>#)M)?(?:(?P<seconds>#)S)?)?".replace(
        "#", r"[0-9]{1,15}(?:[.,][0-9]*)?"
    ),
    re.ASCII | re.IGNORECASE,
)
_SECONDS = {"weeks": 604_800, "days": 86_400, "hours": 3600, "minutes": 60, "seconds": 1}
_CLOCK = re.compile(r"(?:([0-9]{1,4}):)?([0-9]{1,4}):([0-5]?[0-9](?:[.,][0-9]*)?)", re.ASCII)
_SPEED = re.compile(r"[x×]?\s*([+-]?(?:[0-9]+(?:[.,][0-9]*)?|[.,][0-9]+))\s*[x×]?", re.ASCII)
_SIZE = re.compile(r"[0-9]{1,5}\s*[x×*]\s*([0-9]{1,5})(?![0-9])", re.ASCII)
_LINES = re.compile(r"(?<![0-9.])([0-9]{2,5})\s*[pi](?![a-z])|hd\s*([0-9]{3,5})(?![0-9])", re.ASCII)


def seconds(value: object) -> float | None:
    """Seconds, from a number, decimal text, an ISO 8601 duration (PT3M15S) without years or months,
    whose length varies, or a clock (3:15).
    """
    found = number(value)
    if found is None and isinstance(value, str):
        trimmed = value.strip()
        return _of_duration(trimmed) if trimmed[:1] in "Pp" else _of_clock(trimmed)
    return found


def _of_duration(trimmed: str) -> float | None:
    found = _DURATION.fullmatch(trimmed)
    if not found:
        return None
    parts = {name: digits for name, digits in found.groupdict().items() if digits}
    if not parts:
        return None
    total = sum(float(digits.replace(",", ".")) * _SECONDS[name] for name, digits in parts.items())
    # Sums of decimals have noise behind the digits that were sent.
    return round(total, 6)


def _of_clock(trimmed: str) -> float | None:
    found = _CLOCK.fullmatch(trimmed)
    if not found:
        return None
    hours, minutes, rest = found.groups()
    return int(hours or 0) * 3600 + int(minutes) * 60 + float(rest.replace(",", "."))


def length(value: object) -> float | None:
    """Seconds that a video lasts. 0 is what players send before they know it."""
    found = seconds(value)
    return found if found and found > 0 else None


def share(value: object) -> float | None:
    """A share from 0 to 1: of a number up to ROUNDED_SHARE, or of percent (50, "50%")."""
    if isinstance(value, str) and (trimmed := value.strip()).endswith("%"):
        found = number(trimmed[:-1])
        return found / 100 if found is not None and 0 <= found <= 100 else None
    found = number(value)
    if found is None or not 0 <= found <= 100:
        return None
    if found <= 1:
        return found
    return found / 100 if found > ROUNDED_SHARE else 1.0


def speed(value: object) -> float | None:
    """A factor, from a number or from text such as `1.5x`."""
    if not isinstance(value, str):
        return number(value)
    found = _SPEED.fullmatch(value.strip().lower())
    return number(found[1].replace(",", ".")) if found else None


def quality(value: object) -> float | None:
    """Lines of resolution, from a number or from text: `720`, `720p`, `1280x720`, `hd720`."""
    found = number(value)
    if found is not None or not isinstance(value, str):
        return found
    words = value.lower()
    if size := _SIZE.search(words):
        return float(size[1])
    if lines := _LINES.search(words):
        return float(lines[1] or lines[2])
    return None


SECONDS = Kind(
    seconds, frozenset({float}), wanted="a time: seconds, PT1M30S without months, or 1:30"
)
LENGTH = Kind(
    length,
    frozenset({float}),
    lambda values: min(values) > 0,
    repeat=True,
    wanted="a length above 0 seconds",
)
SHARE = Kind(
    share,
    frozenset({float}),
    all_within(0, 1),
    wanted="a share from 0 to 1, or from 0 to 100 percent",
)
SPEED = Kind(speed, frozenset({float}), repeat=True, wanted="a speed, such as 1.5 or 1.5x")
QUALITY = Kind(
    quality, frozenset({float}), repeat=True, wanted="a number of lines, such as 720 or 720p"
)
