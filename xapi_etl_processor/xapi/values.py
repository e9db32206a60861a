"""JSON values to values of one ClickHouse type, leniently; None for what cannot be used."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from math import isfinite
from typing import Any, NamedTuple

import msgspec

Scalar = str | int | float | bool | None
"""What a path may lead to: anything in JSON but an object or an array."""


class Definition(msgspec.Struct, frozen=True, gc=False):
    """The part that is read of the definition of an activity in a list."""

    type: Scalar = None


class Activity(msgspec.Struct, frozen=True, gc=False):
    """An element of `contextActivities`."""

    id: Scalar = None
    definition: Definition = Definition()


_any_json = msgspec.json.Decoder(float_hook=float).decode


def any_json(line: bytes) -> Any:
    """JSON of any shape. A number too large for a float is infinity, and costs only its field.

    Raises ValueError for invalid JSON, and RecursionError for JSON that is nested too deeply.
    """
    try:
        return _any_json(line)
    except msgspec.ValidationError:
        # An integer has more digits than Python converts (sys.int_info). The standard library
        # lets us convert integers ourselves.
        found = json.loads(line, parse_int=_integer, parse_constant=_no_constant)
        # It accepts lone surrogates, which cannot be stored; encoding them raises ValueError.
        json.dumps(found, ensure_ascii=False).encode()
        return found


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) < 640 else float("inf")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_INFINITE = float("inf")
_WHOLE = re.compile(r"\s*[+-]?[0-9]{1,20}(\.0*)?\s*", re.ASCII)
_DECIMAL = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?\s*", re.ASCII)


class Kind(NamedTuple):
    """How values are converted.

    `convert` takes one JSON value other than null, and gives what ClickHouse stores, or None. A
    column whose values all have a type of `exact`, and pass `fits`, is stored as it is. Most
    columns of most bundles do, and so cost nothing extra.
    """

    convert: Callable[[Any], Any]
    exact: frozenset[type] = frozenset()
    fits: Callable[[Sequence[Any]], bool] = bool  # true: a column is never empty


def text(value: object) -> str | None:
    """Text as it is; a number or a boolean as JSON writes it."""
    if isinstance(value, str):
        return value or None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float) and abs(value) < _INFINITE:
        return str(value)
    return None


def lower_text(value: object) -> str | None:
    """`text` in lower case, in which UUIDs are compared."""
    found = text(value)
    return found and found.lower()


def number(value: object) -> float | None:
    """A finite float, from a number or from decimal text, but not from True or False."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and not _DECIMAL.fullmatch(value):
        return None
    try:
        found = float(value)  # type: ignore[arg-type]  # a TypeError is caught
    except (TypeError, OverflowError):
        return None
    return found if isfinite(found) else None


def _unsigned(bits: int) -> Kind:
    limit = 2**bits

    def convert(value: object) -> int | None:
        """A whole number of 0 to 2^bits - 1, from a number or from text, `2001.0` included."""
        if isinstance(value, bool):
            return None
        if isinstance(value, str) and _WHOLE.fullmatch(value):
            value = int(value.partition(".")[0])
        elif isinstance(value, float) and value.is_integer():
            value = int(value)
        return value if isinstance(value, int) and 0 <= value < limit else None

    return Kind(convert, frozenset({int}), lambda values: _within(values, limit))


def _within(values: Sequence[int | None], limit: int) -> bool:
    present = values if None not in values else [value for value in values if value is not None]
    return not present or (min(present) >= 0 and max(present) < limit)  # type: ignore[type-var, operator]


def boolean(value: object) -> bool | None:
    """True or false, also as 0 and 1 and as text."""
    if isinstance(value, str):
        return {"true": True, "false": False, "1": True, "0": False}.get(value.strip().lower())
    if value in (0, 1):
        return bool(value)
    return None


def last_segment(iri: str) -> str:
    """The short name of a verb or type: what follows the last `/` or `#` of its IRI."""
    # Real IRIs are shorter. Caching longer ones would fill the memory of a warm container.
    return _last_segment(iri) if len(iri) <= 512 else _last_segment.__wrapped__(iri)


@lru_cache(maxsize=4096)
def _last_segment(iri: str) -> str:
    return re.split(r"[/#]", iri.rstrip("/#"))[-1]


def title(names: dict[str, str]) -> str | None:
    """One text of a language map: en-US, en, else the first."""
    return names.get("en-US") or names.get("en") or next(filter(None, names.values()), None)


def course_id(activities: tuple[Activity, ...]) -> str | None:
    """The id of the first activity whose type is a course, in whichever vocabulary."""
    for activity in activities:
        kind = activity.definition.type
        if isinstance(kind, str) and last_segment(kind).lower() == "course":
            return text(activity.id)
    return None


def first_id(activities: tuple[Activity, ...]) -> str | None:
    """The id of the first activity that has one."""
    return next(filter(None, (text(activity.id) for activity in activities)), None)


def section(value: object) -> str | None:
    """A section as text: a whole number from 1 to 2^64 - 1 in decimal, another text trimmed.

    None for other numbers.
    """
    number = UINT64.convert(value)
    if number is not None:
        return str(number) if number else None
    if not isinstance(value, str) or _DECIMAL.fullmatch(value):
        return None
    return value.strip() or None


def speed(value: object) -> float | None:
    """A factor, from a number or text such as `1.5x`."""
    if isinstance(value, str):
        value = value.strip().lower().removesuffix("x")
    return number(value)


def seconds_covered(segments: str) -> float | None:
    """Seconds covered by `from[.]to[,]from[.]to...`, counting each second once (ADL Video Profile,
    `played-segments`).

    Pairs without an end and pairs that run backwards are left out; None if no pair remains.
    """
    if not segments:
        return None
    pairs = []
    for pair in segments.split("[,]"):
        start, _, stop = pair.partition("[.]")
        try:
            begin, end = float(start), float(stop)
        except ValueError:
            continue
        # Python also converts "nan", "inf" and "1_000". No comparison with NaN is true.
        if 0 <= end - begin < _INFINITE and "_" not in pair:
            pairs.append((begin, end))
    if not pairs:
        return None
    covered = 0.0
    reached = -_INFINITE
    for begin, end in sorted(pairs):
        # Not max(): this runs for most statements.
        unseen = begin if begin > reached else reached
        if end > unseen:
            covered += end - unseen
            reached = end
    # The profile's precision is a thousandth; digits beyond are noise of subtracting floats.
    return round(covered, 3) if covered < _INFINITE else None


TEXT = Kind(text, frozenset({str}))
LOWER_TEXT = Kind(lower_text)
NUMBER = Kind(number, frozenset({float}))
UINT32 = _unsigned(32)
UINT64 = _unsigned(64)
BOOLEAN = Kind(boolean, frozenset({bool}))
VERB_NAME = Kind(last_segment)
TITLE = Kind(title)
COURSE = Kind(course_id)
FIRST_ID = Kind(first_id)
SECTION = Kind(section)
SPEED = Kind(speed, frozenset({float}))
