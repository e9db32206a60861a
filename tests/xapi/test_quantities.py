"""Seconds, lengths, shares, speeds and lines of resolution, in the spellings of many players."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.rows import OLI, VIDEO, VIDEO_TYPE, minimal, row_of, with_values

OPENEDX = "https://w3id.org/xapi/openedx/extension/"
TINCAN = "http://id.tincanapi.com/extension/"


def stored(extension: str, value: Any, column: str, place: str = "result") -> Any:
    return row_of(with_values(minimal(), ((place, "extensions", extension), value)))[column]


@pytest.mark.parametrize(
    ("sent", "seconds"),
    [
        (61.25, 61.25),
        (0, 0.0),
        (" 61 ", 61.0),
        ("PT3M15S", 195.0),
        ("PT0S", 0.0),
        ("PT12,5S", 12.5),
        ("pt1h1m1s", 3661.0),
        (" PT90M ", 5400.0),
        ("PT1.5M", 90.0),
        ("P1W", 604_800.0),
        ("P0Y0M0DT0H0M46.613S", 46.613),
        ("PT1M0.1S", 60.1),
        ("3:15", 195.0),
        ("1:01:01.5", 3661.5),
        ("P1Y", None),  # years and months have no fixed length
        ("P1MT1S", None),
        ("P", None),
        ("-PT3S", None),
        ("1:75", None),
        ("", None),
        (True, None),
        ([3], None),
        ("PT" + "9" * 400 + "S", None),
    ],
)
def test_seconds_are_numbers_or_iso_8601_durations_or_clock_times(
    sent: Any, seconds: float | None
) -> None:
    for name, column in (
        *(("time", "video_time"), ("time-from", "video_seek_from"), ("time-to", "video_seek_to")),
        *(("length", "video_length"),),
    ):
        expected = None if column == "video_length" and seconds == 0 else seconds
        assert stored(VIDEO + name, sent, column) == expected
    assert stored(OLI + "video_play_time", sent, "video_play_time") == seconds


def test_a_length_of_0_is_unknown_and_yields_to_the_next_place() -> None:
    sent, next_place = (("result", "extensions", VIDEO + "length"), ("context", "extensions"))
    for unknown in (0, 0.0, "0", "PT0S", -1, "-5"):
        assert stored(VIDEO + "length", unknown, "video_length") is None, unknown
        both = ((sent, unknown), ((*next_place, VIDEO + "length"), 195))
        assert row_of(with_values(minimal(), *both))["video_length"] == 195.0, unknown


# 1 is the share, not one percent. 1.004 comes of a length that was rounded to whole seconds.
SHARES = [
    *((0, 0.0), (0.112, 0.112), (1, 1.0), (1.004, 1.0), (1.25, 0.0125), (50, 0.5), (100, 1.0)),
    *(("50%", 0.5), (" 50 % ", 0.5), ("0.5%", 0.005), ("1%", 0.01)),
    *((100.5, None), ("101%", None), ("-1%", None), ("half", None), (True, None)),
]
SPEEDS = [
    *(("1x", 1.0), ("1.5x", 1.5), ("1.5X", 1.5), ("1.25 x", 1.25), ("x2", 2.0), ("2×", 2.0)),
    *(("1", 1.0), (1.5, 1.5), (2, 2.0), ("1,5x", 1.5), (".5x", 0.5), ("0", 0.0), ("-1x", -1.0)),
    *(("fast", None), ("x", None), ("", None), ("1.5xx2", None), (True, None)),
]
LINES = [
    *((720, 720.0), ("720", 720.0), ("720p", 720.0), ("720P", 720.0), ("1080i", 1080.0)),
    *(("1280x720", 720.0), ("960x400", 400.0), ("1920 × 1080", 1080.0), ("hd720", 720.0)),
    *(("HD 1080", 1080.0), ("1080p60", 1080.0), ("Auto (480p)", 480.0), ("2160p 4K", 2160.0)),
    *(("auto", None), ("large", None), ("2500 kbps", None), ("hd", None), (True, None)),
]


@pytest.mark.parametrize(
    ("extension", "place", "column", "values"),
    [
        (VIDEO + "progress", "result", "video_progress", SHARES),
        (VIDEO + "speed", "result", "speed", SPEEDS),
        (VIDEO + "speed", "context", "speed", SPEEDS),
        (OPENEDX + "speed-to", "result", "speed", SPEEDS),
        (OPENEDX + "speed-from", "context", "speed_from", SPEEDS),
        (VIDEO + "quality", "context", "quality", LINES),
    ],
)
def test_shares_speeds_and_lines_of_resolution_are_numbers(
    extension: str, place: str, column: str, values: list[tuple[Any, float | None]]
) -> None:
    assert [(sent, stored(extension, sent, column, place)) for sent, _ in values] == values


@pytest.mark.parametrize("verb", ["http://id.tincanapi.com/verb/skipped", "x:/seeked"])
def test_tin_cans_points_are_those_of_a_seek_where_the_verb_says_so(verb: str) -> None:
    points = {TINCAN + "starting-point": "PT10S", TINCAN + "ending-point": "PT50S"}
    kind = {"id": "v", "definition": {"type": VIDEO_TYPE}}
    skipped = minimal(verb={"id": verb}, object=kind, context={"extensions": points})
    row = row_of(skipped)
    assert (row["video_seek_from"], row["video_seek_to"]) == (10.0, 50.0)
    watched = row_of(skipped | {"verb": {"id": "http://activitystrea.ms/schema/1.0/watch"}})
    assert (watched["video_seek_from"], watched["video_seek_to"]) == (None, None)
    profile = with_values(skipped, (("result", "extensions", VIDEO + "time-to"), 49))
    assert row_of(profile)["video_seek_to"] == 49.0


def test_a_scaled_score_is_from_minus_1_to_1() -> None:
    for sent, score in (
        *((0.85, 0.85), ("0.85", 0.85), (1, 1.0), (-1, -1.0)),
        *((85, None), (-1.5, None), (None, None)),
    ):
        found = row_of(minimal(result={"score": {"scaled": sent, "raw": 7}}))
        assert found["score_scaled"] == score, sent
