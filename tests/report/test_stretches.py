"""Stretches in the forms that players send: what the views and `explain` make of them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.watched import LENGTH, Watched, row
from xapi_etl_processor.xapi.segments import judged


def unread(*stretch: Any, completed: bool) -> list[str]:
    """Why stretches count for nothing: each reason once."""
    reasons = (one.unread for one in judged(*stretch, completed=completed))
    return [reason for reason in dict.fromkeys(reasons) if reason]


READ = [
    ("0-30", 30),
    ("0;30", 30),
    (" 0 - 30,5 ", 30.5),
    ("0-10,20-30", 20),
    ("0-10[,]20-30.5", 20.5),
    ("0:00[.]0:30", 30),
    ("0:05-0:30", 25),
    ("0,5[.]30,25", 29.75),
    ("0[.]30000", 30),
    ("0[.]5000[,]20000[.]30000", 15),
    ("0[.]10[,]10[.]", 40),
    ("0[.]0[,]10[.]10", 0),
    ("1e1[.]2e1[,]30[.]30", 10),
    ("0[.]70", LENGTH),
    ("10\t[.]20", 10),
    ("0-30\n", 30),
    ("0[.]\n", 40),
    ("0[.]0:30\t", 30),
    ("0[.]20[,]\r\n20[.]30\r\n", 30),
    ("9[.]12.3456", 3.346),  # in milliseconds
]
UNREAD = [
    ("30[.]10", 0, ["reversed"]),
    ("0[.]10[,]30[.]20", 10, ["reversed"]),
    ("0[.][,]10[.]20", 10, ["open"]),
    ("50[.]", 0, ["open"]),
    ("0[.]10[,]0[.]1500", 10, ["past the length"]),
    ("0;30;40;50", 0, ["not understood"]),
    ("0 to 30", 0, ["not understood"]),
    ("-3[.]2[,]50[.]inf[,]1[.]2[.]3", 0, ["not understood"]),
    ("x[.]5[,]9[.]3", 0, ["not understood", "reversed"]),
    ("x[.]30000[,]0[.]150", 0, ["not understood", "past the length"]),
    ("0[.]1e999[,]0[.]30000", 30, ["not understood"]),
]


def test_stretches_are_read_if_they_can_mean_one_thing_else_counted_with_a_reason(
    watched: Watched,
) -> None:
    """The video lasts 60 seconds, and the statement is at 40. Each has a producer of its own."""
    cases: dict[str, tuple[float, list[str]]] = {sent: (found, []) for sent, found in READ} | {
        sent: (found, reasons) for sent, found, reasons in UNREAD
    }
    watched.insert(
        *(
            row(0, "paused", video_time=40, video_played_segments=sent, home_page=sent)
            for sent in cases
        )
    )
    found = dict(watched.view("viewer_progress", "home_page, round(minutes_watched * 60, 4)"))
    assert found == {sent: seconds for sent, (seconds, _) in cases.items()}
    assert watched.view("unread_stretches", "home_page, reason, statements, sent") == sorted(
        [sent, reason, 1, sent] for sent, (_, reasons) in cases.items() for reason in reasons
    )
    for sent, (_, reasons) in cases.items():
        assert unread(sent, 40, LENGTH, completed=False) == reasons, sent


def test_an_open_last_stretch_ends_where_its_statement_is_or_completed_at_the_length(
    watched: Watched,
) -> None:
    cases = [
        ("completed", 60, 60),
        ("completed", 0, 60),
        ("completed", None, 60),
        ("paused", 45, 45),
        ("paused", 5, 20),
        ("paused", None, 20),
    ]
    sent = "0[.]20[,]20[.]"
    for number, (verb, position, seconds) in enumerate(cases):
        told = {"video_time": position, "video_played_segments": sent, "user_id": f"{number}"}
        watched.insert(row(0, verb, **told))
        is_open = [] if seconds > 20 else ["open"]
        assert unread(sent, position, LENGTH, completed=verb == "completed") == is_open
    found = watched.view("viewer_progress", "user_id, round(minutes_watched * 60)")
    assert found == [[f"{number}", seconds] for number, (_, _, seconds) in enumerate(cases)]


def test_a_stretch_beyond_2_to_the_32_milliseconds_does_not_wrap(watched: Watched) -> None:
    """The length is in milliseconds too. Of the seconds 60 to 70, those below the limit count."""
    sent = {"video_length": 1e7, "video_played_segments": "4294960[.]4294970"}
    watched.insert(row(0, "paused", **sent))
    found = watched.view("viewer_progress", "minutes_watched * 60, minutes_played * 60")
    assert found == [[pytest.approx(7), pytest.approx(7)]]


def test_a_seek_closes_the_open_stretch_where_it_began(watched: Watched) -> None:
    ends = {"video_seek_from": 30, "video_seek_to": 50}
    watched.insert(row(0, "seeked", video_played_segments="0[.]", **ends))
    assert watched.view("viewer_progress", "round(minutes_watched * 60)") == [[30]]


def test_without_a_length_no_stretch_is_past_it() -> None:
    assert unread("0[.]1500", None, None, completed=False) == []
    assert unread("", None, None, completed=True) == []
