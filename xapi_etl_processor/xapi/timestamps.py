"""Timestamps to milliseconds since 1970."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from operator import itemgetter
from typing import Annotated

import msgspec

from xapi_etl_processor.xapi.values import Kind, number

_MIN_MILLIS = -2_208_988_800_000
_MAX_MILLIS = 10_413_791_999_999
"""1900-01-01 and the last millisecond of 2299: the range of DateTime64(3) (ClickHouse's docs)."""

FIRST_SECONDS = 1e8
FIRST_MILLISECONDS = 1e11
"""A number from 10^8 is seconds, and from 10^11 milliseconds; both begin in March 1973. Smaller
ones are no time: 0 stands for "unknown", others are durations or counters. Our limits."""

FIRST_SECONDS_AS_TEXT = 1e9
"""The same for text: ten digits, from September 2001."""

_EPOCH = date(1970, 1, 1).toordinal()
_EPOCH_UTC = datetime(1970, 1, 1, tzinfo=UTC)
_DAY, _HOUR, _MINUTE, _SECOND = 86_400_000, 3_600_000, 60_000, 1000

_Aware = Annotated[datetime, msgspec.Meta(tz=True)]
_SEVENTH_DIGIT = itemgetter(slice(26, 27))
_DIGITS = "0123456789"

_ISO = re.compile(
    r"""
    (?P<year>\d{4})
    (?: -?(?P<ordinal>\d{3})
      | -?W(?P<week>\d\d)(?:-?(?P<weekday>[1-7]))?
      | (?P<dash>-?)(?P<month>\d\d)(?P=dash)(?P<day>\d\d) )
    (?: (?:T|\ +)
        (?P<hour>[01]\d|2[0-4])(?: :?(?P<minute>[0-5]\d)(?: :?(?P<second>[0-5]\d|60))? )?
        (?:[.,](?P<fraction>\d+))?
        \ * (?: Z | (?P<sign>[+−-])(?P<offset>(?:[01]\d|2[0-3])(?: :?[0-5]\d){0,2}) )? )?
    """,
    re.ASCII | re.VERBOSE,
)


def milliseconds(value: object) -> int | None:
    """Milliseconds since 1970 of a timestamp, truncated.

    Read are ISO 8601 with calendar, ordinal and week dates, extended or basic, with any fraction
    and any offset, without one as UTC (xAPI 1.0.3, part 2, section 4.5); 24:00; second 60, a leap
    second, as the last millisecond of its minute; and seconds or milliseconds since 1970, as a
    number or as text. None for anything else and outside 1900 to 2299, the range of DateTime64.
    """
    if not isinstance(value, str):
        found = _of_number(value)
    elif usual := all_milliseconds([value]):
        return usual[0]
    else:
        found = _of_unusual(value)
    return found if found is not None and _MIN_MILLIS <= found <= _MAX_MILLIS else None


def all_milliseconds(values: Sequence[str]) -> list[int] | None:
    """The milliseconds of texts that are all written as RFC 3339 says; None if one is not."""
    if not set(map(_SEVENTH_DIGIT, values)).isdisjoint(_DIGITS):
        # Msgspec rounds what comes after six digits of a second.
        values = [
            value[:26] + value[26:].lstrip(_DIGITS) if value[20:26].isdigit() else value
            for value in values
        ]
    try:
        instants = msgspec.convert(values, list[_Aware])
    except msgspec.ValidationError:
        return None
    found = list(map(since_epoch, instants))
    return found if min(found) >= _MIN_MILLIS and max(found) <= _MAX_MILLIS else None


def _of_unusual(value: str) -> int | None:
    trimmed = value.strip().upper()
    found = _ISO.fullmatch(trimmed)
    if found:
        return _of_iso(found.groupdict())
    # A text of nine digits is an id, or a day and an hour, rather than a time before 2001.
    return _of_number(trimmed) if (number(trimmed) or 0) >= FIRST_SECONDS_AS_TEXT else None


def _of_iso(part: dict[str, str | None]) -> int | None:
    try:
        day = _day(part)
    except (ValueError, OverflowError):
        return None
    hour, minute, second = (int(part[name] or 0) for name in ("hour", "minute", "second"))
    fraction = part["fraction"] or "0"
    unit = _SECOND if part["second"] else _MINUTE if part["minute"] else _HOUR
    if hour == 24 and (minute or second or fraction.strip("0")):
        return None
    within = hour * _HOUR + minute * _MINUTE + second * _SECOND
    if second == 60:
        within -= 1
    else:
        # Nine digits are more than a millisecond of an hour needs.
        within += int(fraction[:9].ljust(9, "0")) * unit // 10**9
    return (day - _EPOCH) * _DAY + within - _offset(part["sign"], part["offset"])


def _day(part: dict[str, str | None]) -> int:
    """The number of the day, from any form of date; raises ValueError or OverflowError."""
    year = int(part["year"] or 0)
    if part["ordinal"]:
        day = date(year, 1, 1) + timedelta(int(part["ordinal"]) - 1)
        if day.year != year:
            raise ValueError("no such day of the year")
    elif part["week"]:
        day = date.fromisocalendar(year, int(part["week"]), int(part["weekday"] or 1))
    else:
        day = date(year, int(part["month"] or 0), int(part["day"] or 0))
    return day.toordinal()


def _offset(sign: str | None, digits: str | None) -> int:
    """The offset from UTC in milliseconds."""
    numbers = (digits or "").replace(":", "")
    hours, minutes, seconds = (int(numbers[at : at + 2] or 0) for at in (0, 2, 4))
    offset = hours * _HOUR + minutes * _MINUTE + seconds * _SECOND
    return offset if sign == "+" else -offset


def _of_number(value: object) -> int | None:
    found = number(value)
    if found is None or found < FIRST_SECONDS:
        return None
    return int(found if found >= FIRST_MILLISECONDS else round(found * 1e6) // 1000)


def since_epoch(instant: datetime) -> int:
    """Milliseconds since 1970 of an aware datetime, truncated."""
    since = instant - _EPOCH_UTC
    return (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000


def instant(millis: int) -> datetime:
    """The aware datetime, in UTC, of milliseconds since 1970."""
    return _EPOCH_UTC + timedelta(milliseconds=millis)


INSTANT = Kind(milliseconds, wanted="a time, as ISO 8601 or since 1970", at_once=all_milliseconds)
