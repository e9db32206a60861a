"""The rules of docs/watching.md for players that do not send all: order, clock, sessions, ids."""

from __future__ import annotations

import random
from itertools import permutations

import pytest

from tests.support.watched import EXAMPLES_OF_RULES, MIDNIGHT, Row, Watched, row, rows_of

SECONDS = "round(minutes_watched * 60, 3)"


def seconds(watched: Watched) -> list[list[float]]:
    return watched.view("viewer_progress", SECONDS)


def seconds_of_each(watched: Watched) -> list[float]:
    """Seconds watched, in the order of the viewers' names."""
    return [found for _, found in watched.view("viewer_progress", f"user_id, {SECONDS}")]


def tied() -> list[Row]:
    """A jump within one second: 45 of 60 seconds are played."""
    return [
        row(0, "played", video_time=0),
        row(30, "paused", video_time=30),
        row(30, "seeked", video_seek_from=30, video_seek_to=45),
        row(30, "played", video_time=45),
        row(45, "paused", video_time=60),
    ]


@pytest.mark.parametrize("example", EXAMPLES_OF_RULES)
def test_the_examples_of_the_page_are_counted_as_it_says(watched: Watched, example: str) -> None:
    rows, said = rows_of(example)
    watched.insert(*rows)
    assert seconds(watched) == [[said]]


def test_statements_of_one_second_keep_the_order_of_their_lines_whatever_their_ids(
    watched: Watched,
) -> None:
    dice = random.Random(0)
    for learner in range(6):
        rows = tied()
        ids = [one["event_id"] for one in rows]
        dice.shuffle(ids)
        watched.insert(
            *(
                {**one, "event_id": event_id, "user_id": f"{learner}", "source_line": line}
                for line, (one, event_id) in enumerate(zip(rows, ids, strict=True), 1)
            )
        )
    assert seconds(watched) == [[45]] * 6
    assert watched.view("viewer_progress", "stopped_at") == [[60]] * 6


def test_between_objects_the_order_needs_the_fewest_jumps(watched: Watched) -> None:
    for learner, order in enumerate(permutations(range(3))):
        objects = [f"s3://bundles/{(order[n] if n < 3 else n)}" for n in (3, 0, 1, 2, 4)]
        watched.insert(
            *(
                {**one, "source_file": file, "source_line": 1, "user_id": f"{learner}"}
                for one, file in zip(tied(), objects, strict=True)
            )
        )
    assert seconds(watched) == [[45]] * 6


CLOCKED: list[tuple[list[tuple[int, str, int | None]], float]] = [
    # As far as 2 x 1.1 and 2 seconds, if seeks are reported; else at the usual speed.
    ([(0, "played", 0), (20, "paused", 46), (21, "seeked", 0)], 46),
    ([(0, "played", 0), (20, "paused", 47), (21, "seeked", 0)], 20),
    ([(0, "played", 0), (10, "said", 10), (20, "said", 20), (30, "paused", 45)], 30),
    ([(0, "played", 0), (10, "said", 20), (20, "paused", 40)], 40),
    # Playback that starts anew after a closed tab.
    ([(0, "played", 0), (400, "played", 50)], 0),
    ([(0, "played", 0), (105, "played", 50)], 50),
    ([(0, "played", 0), (70 * 86_400, "played", 50)], 0),
    ([(0, "played", 0), (43_000, "paused", 50)], 50),
    ([(0, "played", 0), (44_000, "paused", 50)], 0),
    ([(0, "played", 0), (2, "played", 45), (12, "paused", 55), (13, "seeked", 0)], 10),
    # Without a position, the clock says where it was.
    ([(0, "played", 0), (30, "paused", None)], 30),
    ([(0, "played", 0), (30, "paused", 30), (40, "played", None), (50, "paused", 40)], 40),
    ([(0, "played", None), (30, "paused", 40)], 30),
    ([(0, "played", 0), (4000, "paused", None)], 0),
]
"""Statements (seconds since the session began, verb, position), and the seconds watched."""


def test_no_more_is_watched_than_the_clock_allows(watched: Watched) -> None:
    watched.insert(
        *(
            row(at, verb, video_time=place, user_id=f"{number:02}")
            for number, (statements, _) in enumerate(CLOCKED)
            for at, verb, place in statements
        )
    )
    assert seconds_of_each(watched) == [expected for _, expected in CLOCKED]


def test_a_speed_that_is_sent_is_how_fast_it_played(watched: Watched) -> None:
    for speed in (1, 1.5, 2.5, 0):
        watched.insert(
            row(0, "played", video_time=0, speed=speed, user_id=f"{speed}"),
            row(10, "said", video_time=10 * (speed or 1), speed=speed, user_id=f"{speed}"),
            row(20, "paused", video_time=60, speed=speed, user_id=f"{speed}"),
        )
    found = dict(watched.view("viewer_progress", f"user_id, {SECONDS}"))
    assert found == {"1": 20, "1.5": 30, "2.5": 50, "0": 20}


def test_half_a_seek_is_half_a_fact(watched: Watched) -> None:
    """The clock knows the other half: 10 seconds before, 15 behind it."""
    halves: list[Row] = [
        {"video_seek_from": 10, "video_seek_to": 30},
        {"video_seek_to": 30},
        {"video_time": 30},
        {"video_seek_from": 10},
        {},
    ]
    for number, ends in enumerate(halves):
        watched.insert(
            row(0, "played", video_time=0, user_id=f"{number}"),
            row(10, "seeked", user_id=f"{number}", **ends),
            row(25, "paused", video_time=45, user_id=f"{number}"),
        )
    assert seconds_of_each(watched) == [25] * len(halves)
    assert watched.view("video_seeks", "seeks, viewers") == [[1, 1]]


def named(at: int, verb: str, **keys: str) -> Row:
    return row(at, verb, video_time=0, **{"session_id": "", "registration": "", **keys})


def test_a_statement_that_names_no_session_joins_the_one_around_it(watched: Watched) -> None:
    cases = [
        (named(3_600, "completed"), 1),
        (named(3_700, "completed"), 2),
        (named(90_000, "completed", attempt_guid="a"), 1),
        (named(60, "completed", attempt_guid="b"), 2),
        (named(60, "completed", registration="other"), 2),
        (named(60, "completed", session_id="s"), 1),
    ]
    keys = {"registration": "r", "attempt_guid": "a"}
    for number, (last, _) in enumerate(cases):
        of_one = [named(0, "played", **keys), named(30, "paused", **keys), last]
        watched.insert(*({**one, "user_id": f"{number}"} for one in of_one))
    found = watched.view("viewer_progress", "user_id, sessions")
    assert found == [[f"{number}", sessions] for number, (_, sessions) in enumerate(cases)]


def test_an_id_counts_once_with_its_first_timestamp(watched: Watched) -> None:
    rows = [
        row(0, "played", video_time=0),
        row(10, "seeked", video_seek_from=10, video_seek_to=40),
        row(30, "paused", video_time=60),
    ]
    again = [{**one, "timestamp": one["timestamp"] + 7} for one in rows]
    watched.insert(*rows, *again)
    assert seconds(watched) == [[30]]
    assert watched.view("video_seeks", "seeks") == [[1]]
    assert watched.view("section_daily", "statements") == [[3]]
    assert watched.view("video_statements", "count()") == [[6]]


def test_of_an_id_in_two_sessions_the_first_in_time_counts(watched: Watched) -> None:
    """Repeated two hours later, a statement without a session would begin one of its own."""
    paused = row(30, "paused", video_time=30, session_id="")
    watched.insert(row(0, "played", video_time=0), paused)
    watched.insert({**paused, "timestamp": paused["timestamp"] + 7200})
    for number, sessions in enumerate(("ab", "ba")):
        begun = row(0, "played", user_id=f"bob {number}", video_time=0, session_id=sessions[0])
        watched.insert(begun, {**begun, **row(30, "paused", video_time=30), **{
            key: begun[key] for key in ("user_id", "session_id")
        }})  # fmt: skip
        watched.insert({**begun, "timestamp": begun["timestamp"] + 9, "session_id": sessions[1]})
    assert watched.view("viewer_progress", "user_id, round(minutes_watched * 60), sessions") == [
        ["ada", 30, 1], ["bob 0", 30, 1], ["bob 1", 30, 1]
    ]  # fmt: skip
    assert watched.view("section_daily", "statements") == [[6]]


def test_what_has_no_time_or_came_twice_is_no_first_day_and_no_second_example(
    watched: Watched,
) -> None:
    odd = row(0, "said", video_played_segments="30[.]10")
    watched.insert(odd, {**odd, "timestamp": odd["timestamp"] + 1})
    watched.insert({
        **row(0, "said", session_id="x"), "timestamp": 0, "timestamp_source": "none"
    })  # fmt: skip
    assert watched.view("unread_stretches", "reason, statements") == [["reversed", 1]]
    assert watched.view("video_engagement", "toString(first_day)") == [["2024-03-01"]]


def test_a_position_that_only_the_clock_tells_counts_without_a_length(watched: Watched) -> None:
    unknown: Row = {"video_length": None}
    watched.insert(
        row(0, "played", video_time=0, **unknown | {"video_url": "another"}),
        row(30, "paused", **unknown | {"video_url": "another"}),
        # Somebody who plays again after a while may have closed the tab.
        row(0, "played", user_id="bob", **unknown),
        row(500, "played", user_id="bob", video_time=550, **unknown),
        # A speed of 150 is in percent.
        row(0, "played", user_id="eve", video_time=0, speed=150, **unknown),
        row(4, "paused", user_id="eve", video_time=600, **unknown),
    )
    assert watched.view("viewer_progress", "user_id, round(minutes_watched * 60)") == [
        ["ada", 30], ["bob", 0], ["eve", 4]
    ]  # fmt: skip


def test_who_opened_a_video_and_who_played_it_are_apart(watched: Watched) -> None:
    watched.insert(
        row(0, "uploaded", user_id="teacher"),
        row(0, "initialized", user_id="looked"),
        row(1, "seeked", user_id="looked", video_seek_from=10, video_seek_to=30),
        row(0, "played", user_id="began", video_time=0),
        row(0, "paused", user_id="sent", video_played_segments="0[.]30"),
    )
    assert watched.view("video_engagement", "opened, played, average_share") == [[4, 2, 0.25]]
    assert watched.view("section_daily", "opened, played") == [[4, 2]]
    assert watched.view("viewer_progress", "user_id, played") == [
        ["began", 1], ["looked", 0], ["sent", 1], ["teacher", 0]
    ]  # fmt: skip
    assert watched.view("video_dropoff", "sum(viewers)") == [[2]]
    assert watched.view("video_seeks", "seeks") == []


def test_a_position_below_0_is_none(watched: Watched) -> None:
    """Players of live videos send such positions. Somebody who paused plays nothing."""
    watched.insert(
        row(0, "paused", video_time=-60, user_id="0"),
        row(60, "said", video_time=9, user_id="0"),
        row(0, "seeked", video_seek_from=10, video_seek_to=-60, user_id="1"),
        row(60, "said", video_time=9, user_id="1"),
        row(0, "played", video_time=-30, user_id="2"),
        row(30, "paused", video_time=-0.5, user_id="2"),
        # The clock says where it paused: at 30.
        row(0, "played", video_time=0, user_id="3"),
        row(30, "paused", video_time=-7, user_id="3"),
    )
    assert seconds_of_each(watched) == [0, 0, 0, 30]
    assert watched.view("viewer_progress", "user_id, stopped_at") == [
        ["0", 9], ["1", 9], ["2", None], ["3", 0]
    ]  # fmt: skip
    assert watched.view("video_retention", "count(), sum(plays)") == [[100, 50]]


def test_statements_whose_places_are_equal_are_all_kept(watched: Watched) -> None:
    """As those of two objects whose hashes end alike."""
    watched.insert(
        row(0, "played", video_time=0, source_file="a"),
        row(30, "said", video_time=30, source_file="b"),
        row(30, "paused", video_time=30, source_file="b"),
        row(30, "said", video_time=30, source_file="c"),
    )
    assert seconds(watched) == [[30]]
    columns = f"stopped_at, toUnixTimestamp(first_seen) - {MIDNIGHT}"
    assert watched.view("viewer_progress", columns) == [[30, 0]]
    assert watched.view("section_daily", "toString(day), statements") == [["2024-03-01", 4]]
