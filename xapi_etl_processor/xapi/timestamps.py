"""Timestamps to milliseconds since 1970."""

from __future__ import annotations

from datetime import UTC, datetime

from xapi_etl_processor.xapi.values import Kind

_MIN_MILLIS = -2_208_988_800_000
_MAX_MILLIS = 10_413_791_999_999
"""1900-01-01 and the last millisecond of 2299: the range of DateTime64(3) (ClickHouse's docs)."""


def milliseconds(value: object) -> int | None:
    """Milliseconds since 1970 of an ISO 8601 timestamp, truncated; without an offset it is UTC.

    None outside 1900 to 2299, the range of DateTime64.
    """
    if not isinstance(value, str):
        return None
    try:
        instant = datetime.fromisoformat(value)
    except ValueError:
        # Blanks are allowed as around numbers. RFC 3339 allows t and z; Python 3.11 does not.
        tidied = value.strip().upper()
        return milliseconds(tidied) if tidied != value else None
    try:
        found = since_epoch(instant if instant.tzinfo else instant.replace(tzinfo=UTC))
    except OverflowError:
        return None
    return found if _MIN_MILLIS <= found <= _MAX_MILLIS else None


def since_epoch(instant: datetime) -> int:
    """Milliseconds since 1970 of an aware datetime, truncated."""
    # A float holds microseconds exactly until 2255 and milliseconds always, and is twice as fast
    # as a timedelta.
    return round(instant.timestamp() * 1e6) // 1000


INSTANT = Kind(milliseconds)
