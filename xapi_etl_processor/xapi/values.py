"""JSON values to values of one ClickHouse type, leniently; None for what cannot be used."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any, NamedTuple

from xapi_etl_processor.xapi.paths import Activity

MAX_SECTION_CHARACTERS = 256
"""The longest section that is text. Our limit: a column of few different values keeps each of them
in memory, and a key has at most 1,024 bytes."""

_INFINITE = float("inf")
_WHOLE = re.compile(r"\s*[+-]?[0-9]{1,20}(\.0*)?\s*", re.ASCII)
_DECIMAL = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?\s*", re.ASCII)
_ENGLISH = re.compile(r"\s*en(\s*$|[-_])", re.IGNORECASE)
_PLAIN_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?", re.ASCII)


class Kind(NamedTuple):
    """How values are converted.

    `convert` turns one JSON value other than null into what ClickHouse stores, or None; `at_once`
    does so for a column of texts, if it can. A column whose values all have a type of `exact`, and
    but for None pass `fits`, is stored without conversion. If values usually `repeat` within a
    bundle, each different one is converted once. `wanted` describes what can be converted.

    If the exact type is str or float, `convert` must turn a whole number into one, unless `fits`
    refuses it.
    """

    convert: Callable[[Any], Any]
    exact: frozenset[type] = frozenset()
    fits: Callable[[Sequence[Any]], bool] | None = None
    repeat: bool = False
    wanted: str = "text"
    at_once: Callable[[Sequence[str]], Sequence[Any] | None] | None = None


def text(value: object) -> str | None:
    """Text as it is; a number or a boolean as JSON writes it."""
    if isinstance(value, str):
        return value or None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float) and abs(value) < _INFINITE:
        return str(value)
    return None


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


def all_within(least: float, most: float) -> Callable[[Sequence[float]], bool]:
    """Whether all values of a column lie between two, which count too."""
    return lambda values: min(values) >= least and max(values) <= most


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

    wanted = f"a whole number from 0 to 2^{bits} - 1"
    return Kind(convert, frozenset({int}), all_within(0, limit - 1), wanted=wanted)


def boolean(value: object) -> bool | None:
    """True or false, also as 0 and 1 and as text."""
    if isinstance(value, str):
        return {"true": True, "false": False, "1": True, "0": False}.get(value.strip().lower())
    if value in (0, 1):
        return bool(value)
    return None


def last_segment(iri: str) -> str:
    """The short name of a verb or type: what follows the last `/` or `#` of its IRI."""
    return iri.rstrip("/#").replace("#", "/").rpartition("/")[2]


def title(names: dict[str, str] | str) -> str | None:
    """One text of a language map: en-US, en, another English, else the first; a text as it is."""
    if not isinstance(names, dict):
        return names or None
    found = names.get("en-US") or names.get("en")
    if not found:
        # Tags are compared without case (RFC 5646, 2.1.1).
        english = (n for tag, n in names.items() if n and _ENGLISH.match(tag))
        found = next(english, None) or next(filter(None, names.values()), None)
    return found


def score(value: object) -> float | None:
    """A score from -1 to 1 (xAPI 1.0.3, part 2, section 2.4.5.1)."""
    found = number(value)
    return found if found is not None and -1 <= found <= 1 else None


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
    """A section as text: a whole number from 1 to 2^64 - 1 in decimal, or a name, trimmed; None for
    other numbers, and for what is longer than MAX_SECTION_CHARACTERS.
    """
    whole = UINT64.convert(value)
    if whole:
        return str(whole)
    if whole == 0 or not isinstance(value, str):
        return None
    trimmed = value.strip()
    # "1e3" is a name: nobody writes a section's number like that.
    if not trimmed or len(trimmed) > MAX_SECTION_CHARACTERS or _PLAIN_NUMBER.fullmatch(trimmed):
        return None
    return trimmed


TEXT = Kind(text, frozenset({str}), repeat=True)
NUMBER = Kind(number, frozenset({float}), repeat=True, wanted="a number")
UINT32 = _unsigned(32)
UINT64 = _unsigned(64)
BOOLEAN = Kind(boolean, frozenset({bool}), wanted="true or false")
VERB_NAME = Kind(last_segment, repeat=True)
TITLE = Kind(title)
COURSE = Kind(course_id, wanted="a list with a course in it")
FIRST_ID = Kind(first_id, wanted="a list with an id in it")
SCORE = Kind(score, frozenset({float}), all_within(-1, 1), wanted="a number from -1 to 1")
SECTION = Kind(
    section,
    repeat=True,
    wanted=f"a number above 0, or a name of up to {MAX_SECTION_CHARACTERS} characters",
)
