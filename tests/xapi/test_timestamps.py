"""When a statement happened: what is read as a timestamp, and what stands in for one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.rows import NOON, SOURCE, minimal, row_of
from xapi_etl_processor.xapi.chunk import Source

DAY = 86_400_000
MIDNIGHT = NOON - DAY // 2
STORED = "2001-01-01T00:00:00Z"


def read(timestamp: Any) -> tuple[int, str]:
    row = row_of(minimal(timestamp=timestamp, stored=STORED))
    return row["timestamp"], row["timestamp_source"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-01-01T12:00:00Z", NOON),
        ("2024-01-01T12:00:00.5Z", NOON + 500),
        ("2024-01-01T12:00:00.123456789Z", NOON + 123),
        ("2024-01-01T12:00:00.1239999999999999Z", NOON + 123),
        ("2024-01-01T12:00:00.123" + "9" * 5000 + "Z", NOON + 123),
        ("2024-01-01T12:30.5Z", NOON + 1_830_000),  # a decimal fraction of the minute
        ("2024-01-01T12:00:00,123Z", NOON + 123),
        ("2024-01-01T07:00:00.25-0500", NOON + 250),
        ("2024-01-01T17:45:00+05:45", NOON),
        ("2024-01-01T17:00:00+05", NOON),
        ("2024-01-01T08:00:00\u221204:00", NOON),  # the minus sign that ISO 8601 prefers
        ("2024-01-01T13:00:30.596+0100:30", NOON + 596),
        ("2024-01-01T12:00:00", NOON),
        ("2024-01-01T12Z", NOON),
        ("2024-01-01 12:00:00Z", NOON),
        ("2024-01-01 12:00:00 +00:00", NOON),
        ("2024-01-01t12:00:00z", NOON),
        ("2024-01-01", MIDNIGHT),
        ("20240101T120000Z", NOON),
        ("20240101", MIDNIGHT),
        ("1969-12-31T23:59:59.9999Z", -1),
        ("1900-01-01T00:00:00Z", -2_208_988_800_000),
        ("2299-12-31T23:59:59.999Z", 10_413_791_999_999),
        ("2299-03-21T21:07:43.959999Z", 10_389_157_663_959),  # a float of seconds rounds it
        # 24:00 is the beginning of the next day.
        ("2023-12-31T24:00:00Z", MIDNIGHT),
        ("2023-12-31T24:00:00." + "0" * 5000, MIDNIGHT),
        ("20231231T240000Z", MIDNIGHT),
        ("2023-12-31T24:00:00+01:00", MIDNIGHT - 3_600_000),
        # A leap second is the last millisecond of its minute. 31 December 2016 had one; 2017-01-01
        # is 17,167 days after 1970.
        ("2016-12-31T23:59:60Z", 17_167 * DAY - 1),
        ("2017-01-01T00:59:60+01:00", 17_167 * DAY - 1),
        ("20161231T235960Z", 17_167 * DAY - 1),
    ],
)
def test_a_timestamp_becomes_milliseconds_since_1970(text: str, expected: int) -> None:
    assert read(text) == (expected, "statement")


@pytest.mark.parametrize(
    ("text", "day"),
    [
        # 2024 is a leap year: day 60 is 29 February. Its 1 January is the Monday of week 1.
        ("2024-060", 59),
        ("2024-366", 365),
        ("2024-W01-1", 0),
        ("2024-W05-3", 30),
        ("2024-W05", 28),
        ("2024-w05-3", 30),
        # 2021 begins on a Friday, in the last week of 2020: 1,096 days before 2024.
        ("2020-W53-5", -1095),
    ],
)
@pytest.mark.parametrize("time", ["T12:00:00Z", "t13:00:00+01:00", " 12:00"])
def test_ordinal_and_week_dates_are_read(text: str, day: int, time: str) -> None:
    assert read(text + time) == (NOON + day * DAY, "statement")


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (1_704_110_400, NOON),
        (1_704_110_400.123, NOON + 123),
        (1_704_110_400_123, NOON + 123),
        (1_704_110_400_123.9, NOON + 123),
        (1_000_000_000, 1_000_000_000_000),  # the first as text: 2001-09-09T01:46:40Z
        (10_413_791_999, 10_413_791_999_000),  # the last second of 2299
        (100_000_000_000, 100_000_000_000),  # the first that is milliseconds: the same instant
        (10_413_791_999_999, 10_413_791_999_999),
    ],
)
@pytest.mark.parametrize("as_sent", [lambda number: number, str, " {} ".format])
def test_numbers_are_seconds_or_milliseconds_since_1970(
    number: float, expected: int, as_sent: Any
) -> None:
    assert read(as_sent(number)) == (expected, "statement")


def test_nine_digits_are_seconds_as_a_number_and_no_time_as_text() -> None:
    """As text they are an id, or a day and an hour; 10^8 s is 1973-03-03T09:46:40Z."""
    assert read(100_000_000) == (100_000_000_000, "statement")
    for text in ("100000000", "999999999", " 202401015 "):
        assert read(text)[1] != "statement"


def test_blanks_around_a_timestamp_do_no_harm() -> None:
    for blanks in (" {}", "{} ", "\t{}\n", "\r\n  {} ", "\u00a0{}"):
        for timestamp in ("2024-01-01T12:00:00Z", "2024-01-01t13:00:00+01:00"):
            assert read(blanks.format(timestamp)) == (NOON, "statement"), blanks


_UNREADABLE: list[Any] = [
    *(None, "", " ", "yesterday", {}, [], True, "T", "12:00:00Z"),
    *("2024-02-30T00:00:00Z", "2024-13-01T00:00:00Z", "2024-00-01T00:00:00Z", "0000-01-01"),
    *("2024-000", "2023-366", "2024-367", "2024-W00-1", "2024-W54-1", "2021-W53-1", "2024-W05-8"),
    *("9999-366", "9999-W53-7", "9999-12-31T24:00Z", "1" * 5000),
    *("2024-01-01T24:00:01Z", "2024-01-01T24:01Z", "2024-01-01T24:00:00.001Z"),
    *("2024-01-01T25:00:00Z", "2024-01-01T12:60:00Z", "2024-01-01T12:00:61Z"),
    *("2024-01-01T12:00:00+24:00", "2024-01-01T12:00:00+99:00", "2024-01-01T12:00:00+01:60"),
    *("2024-01-01T12:00:00ZZ", "2024-01-01T12:00:00.Z", "2024-01-01T12:00:00:123456Z"),
    *("2024-01-01T12:00:00WZ", "2024-01-0112:00:00Z", "2024-01-01x12:00:00Z", "2024-1-1"),
    "2024-01-01T12:00:00." + "x" * 5000,
    *("٢٠٢٤-01-01T12:00:00Z", "2024-01-01T12:00:٠٠Z"),
    *("1899-12-31T23:59:59Z", "2300-01-01T00:00:00Z", "0001-01-01T00:00:00+05:00"),
    *(0, 99_999_999, -1_704_110_400, 10_413_792_000, 10_413_792_000_000, 1e300, "0", "1e9999"),
]


@pytest.mark.parametrize("unreadable", _UNREADABLE)
def test_the_timestamp_falls_back_visibly_to_stored_then_to_the_key(unreadable: Any) -> None:
    assert read(unreadable) == (datetime.fromisoformat(STORED).timestamp() * 1000, "stored")
    row = row_of(minimal(timestamp=unreadable, stored=unreadable))
    assert (row["timestamp"], row["timestamp_source"]) == (SOURCE.key_timestamp_ms, "key")


def test_without_any_time_it_is_1970_which_may_also_be_sent_and_never_the_modification() -> None:
    source = Source("s3://bucket/key", "etag", "", None, 1_700_000_000_123)
    row = row_of(minimal(), source)
    assert (row["timestamp"], row["timestamp_source"]) == (0, "none")
    assert row["row_version"] == 1_700_000_000_123
    assert read("1970-01-01T00:00:00Z") == (0, "statement")
    row = row_of(minimal(), SOURCE._replace(key_timestamp_ms=0))
    assert (row["timestamp"], row["timestamp_source"]) == (0, "key")


_instants = st.datetimes(datetime(1900, 1, 2), datetime(2299, 12, 30))  # naive
_zones = st.timedeltas(timedelta(hours=-23, minutes=-59), timedelta(hours=23, minutes=59))


@given(_instants, _zones, st.sampled_from(["calendar", "basic", "ordinal", "week"]))
def test_every_form_of_a_date_is_the_same_instant(
    instant: datetime, offset: timedelta, form: str
) -> None:
    zone = timezone(timedelta(minutes=offset // timedelta(minutes=1)))
    local = instant.replace(tzinfo=zone)
    written = {
        "calendar": local.isoformat(),
        "basic": local.strftime("%Y%m%dT%H%M%S.%f%z"),
        "ordinal": f"{local:%Y-%jT%H:%M:%S.%f%z}",
        "week": f"{local:%G-W%V-%uT%H:%M:%S.%f%z}",
    }[form]
    expected = (local - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    assert read(written) == (expected, "statement")
