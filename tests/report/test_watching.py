"""What was watched: the views, and their examples. test_players.py has simulated viewers."""

from __future__ import annotations

import pytest

from tests.conftest import Template
from tests.support.dirty import HOME_PAGE, OTHER_PAGE, TITLE, Dirty
from tests.support.watched import LENGTH, MIDNIGHT, Row, Watched, row


def test_the_examples_of_the_page_and_a_namesake_are_counted_as_it_says(dirty: Dirty) -> None:
    columns = "round(minutes_watched * 60), round(minutes_played * 60), reached"
    assert dirty.ask(
        f"SELECT home_page, user_id, video_length, {columns}, is_completed FROM viewer_progress"
        " WHERE section_id = 2001 AND startsWith(user_id, 'viewer-') ORDER BY ALL"
    ) == [
        [HOME_PAGE, "viewer-0", 100, 40, 50, 40, False],
        [HOME_PAGE, "viewer-1", 100, 30, 40, 30, False],
        [HOME_PAGE, "viewer-2", 100, 45, 45, 95, False],
        [HOME_PAGE, "viewer-3", 100, 25, 25, 85, False],
        [OTHER_PAGE, "viewer-3", 100, 10, 10, 70, False],
    ]


def test_repeats_voided_and_replaced_statements_do_not_count(dirty: Dirty) -> None:
    """What the voided Fay watched, or the older title, would change these numbers."""
    columns = "title, opened, sessions, completions, first_day, last_day"
    assert dirty.ask(
        f"SELECT {columns} FROM video_engagement WHERE section_id = 2001 ORDER BY opened"
    ) == [
        [TITLE, 2, 2, 1, "2024-03-01", "2024-03-02"],
        ["", 6, 6, 0, "2024-03-01", "2024-03-02"],
    ]
    assert dirty.ask("SELECT from_second, to_second, seeks, viewers FROM video_seeks") == [
        [10, 70, 2, 2]
    ]
    assert dirty.ask(
        "SELECT day, opened, sessions, statements FROM section_daily WHERE section_id = 2001"
        " ORDER BY day"
    ) == [["2024-03-01", 7, 7, 23], ["2024-03-02", 1, 1, 1]]


def test_stretches_are_cut_at_the_length(watched: Watched) -> None:
    watched.insert(row(0, "paused", video_played_segments="50[.]70[,]80[.]90", video_time=90))
    found = watched.view("viewer_progress", "round(minutes_watched * 60), reached, stopped_at")
    assert found == [[10, LENGTH, LENGTH]]


def test_the_length_is_the_one_that_most_statements_send(watched: Watched) -> None:
    watched.insert(
        row(0, "played", video_length=61), row(1, "paused"), row(2, "paused", user_id="bob")
    )
    assert watched.view("viewer_progress", "user_id, video_length") == [
        ["ada", LENGTH],
        ["bob", LENGTH],
    ]
    watched.insert(row(3, "played", video_length=61))
    assert watched.view("viewer_progress", "user_id, video_length") == [["ada", 61], ["bob", 61]]


@pytest.mark.parametrize("length", [596.5232, 30.526667])
def test_all_of_a_video_is_watched_whatever_decimals_its_length_has(
    watched: Watched, length: float
) -> None:
    """Browsers give a length in microseconds; stretches have three decimals."""
    sent = {"video_length": length, "video_played_segments": f"0[.]{length}"}
    watched.insert(row(0, "paused", **sent))
    assert watched.view("viewer_progress", "share_watched, is_completed") == [[1, True]]


def test_without_a_length_there_is_no_share_and_nothing_is_complete_by_it(watched: Watched) -> None:
    sent = {"video_length": None, "video_played_segments": "0[.]10"}
    watched.insert(row(0, "paused", **sent))
    assert watched.view("viewer_progress", "share_watched, is_completed, video_length") == [
        [None, False, 10]
    ]
    assert watched.view("video_retention", "count(), sum(viewers)") == [[100, 100]]


def test_completed_is_what_a_statement_says_else_the_share_needed(watched: Watched) -> None:
    cases: list[tuple[Row, bool]] = [
        ({"video_played_segments": "0[.]59"}, False),
        ({"video_played_segments": "0[.]30[,]30[.]60"}, True),
        ({"video_played_segments": "0[.]30", "completion_threshold": 0.5}, True),
        ({"video_played_segments": "0[.]29", "completion_threshold": 0.5}, False),
        ({"verb": "completed"}, True),
        ({"completion": True}, True),
        ({"completion": False}, False),
    ]
    for number, (more, _) in enumerate(cases):
        watched.insert({**row(0, "paused", user_id=str(number)), **more})
    assert watched.view("viewer_progress", "user_id, is_completed") == [
        [str(number), completed] for number, (_, completed) in enumerate(cases)
    ]


def test_statements_without_a_time_of_their_own_are_not_put_in_order(watched: Watched) -> None:
    by_key = {"timestamp_source": "key"}
    watched.insert(
        row(0, "played", video_time=0, **by_key), row(0, "paused", video_time=30, **by_key)
    )
    assert watched.view("viewer_progress", "minutes_watched, reached") == [[0, 30]]
    unknown = {"timestamp_source": "none", "user_id": "bob"}
    watched.insert(row(-MIDNIGHT, "played", video_time=0, **unknown))
    assert watched.view("section_daily", "toString(day), opened") == [["2024-03-01", 1]]


def test_a_viewer_stopped_for_good_at_the_last_position_of_the_session_that_ended_last(
    watched: Watched,
) -> None:
    """Here two sessions overlap. The one that ends last neither began last nor got farthest."""
    watched.insert(row(0, "played", video_time=50), row(9, "interacted", user_id="bob"))
    shorter = row(3_000, "paused", video_time=58, session_id="u")
    watched.insert(shorter, row(5_000, "paused", video_time=6), row(5_001, "said"))
    assert watched.view("video_dropoff", "bucket, from_second, viewers, completed") == [
        [10, 6, 1, 0]
    ]
    seen = ", ".join(
        f"toUnixTimestamp({column}) - {MIDNIGHT}" for column in ("first_seen", "last_seen")
    )
    assert watched.view("viewer_progress", f"user_id, {seen}") == [["ada", 0, 5_001], ["bob", 9, 9]]


def test_a_video_is_called_by_the_last_title_that_was_sent(watched: Watched) -> None:
    """Within a session, over a viewer's sessions, and over viewers. No title changes nothing."""
    watched.insert(row(0, "played", video_title="first"), row(9, "paused", video_title="second"))
    assert watched.view("video_engagement", "title") == [["second"]]
    watched.insert(row(3, "played", session_id="a", video_title="meanwhile"))
    assert watched.view("video_engagement", "title") == [["second"]]
    watched.insert(row(20, "played", user_id="aaron", video_title="third"))
    watched.insert(row(30, "played", user_id="zoe"))
    assert watched.view("video_engagement", "title") == [["third"]]


@pytest.mark.parametrize(
    ("verb", "stops"),
    [
        *((verb, True) for verb in ("paused", "pause", "stopped", "suspended", "terminated")),
        *((verb, True) for verb in ("initialized",)),
        *((verb, False) for verb in ("played", "play", "resumed", "interacted")),
    ],
)
def test_play_goes_on_behind_a_statement_unless_its_verb_ends_it(
    watched: Watched, verb: str, stops: bool
) -> None:
    watched.insert(
        *(row(at, what, video_time=at) for at, what in ((0, "played"), (10, verb), (30, "said")))
    )
    assert watched.view("viewer_progress", "round(minutes_watched * 60)") == [[10 if stops else 30]]


def test_a_viewer_needs_the_largest_share_that_a_session_asked_for(watched: Watched) -> None:
    sent = {"video_played_segments": "0[.]30", "video_length": 60}
    watched.insert(row(0, "paused", **sent, completion_threshold=0.4))
    assert watched.view("viewer_progress", "is_completed") == [[True]]
    watched.insert(row(9, "paused", session_id="t", completion_threshold=0.9))
    assert watched.view("viewer_progress", "is_completed") == [[False]]


def test_players_whose_stretches_and_statements_disagree_are_shown(watched: Watched) -> None:
    watched.insert(row(0, "played", video_time=0))
    told = {"video_played_segments": "5[.]20", "platform": "LMS"}
    watched.insert(row(10, "paused", video_time=10, **told))
    watched.insert(row(20, "paused", video_time=10, session_id="without"))
    # In this session nothing was played between the statements.
    nothing = {"session_id": "nothing", "video_time": 7}
    watched.insert(row(30, "played", **nothing), row(30, "paused", **nothing))
    watched.insert(row(31, "paused", video_played_segments="7[.]9", **nothing))
    # Together they cover 0 to 20; 5 to 10 is in both.
    assert watched.view(
        "stretch_disagreement",
        "platform, sessions, seconds_sent, seconds_derived, seconds_in_one_only, disagreement",
    ) == [["LMS", 1, 15, 10, 15, 0.75]]


def test_actors_without_an_identifier_are_one_viewer(watched: Watched) -> None:
    nobody = {"user_id": "", "home_page": ""}
    watched.insert(
        row(0, "paused", session_id="a", video_played_segments="0[.]20", **nobody),
        row(9, "paused", session_id="b", video_played_segments="10[.]30", **nobody),
        row(9, "paused", video_played_segments="0[.]30"),
    )
    # 0 to 20 and 10 to 30 are 30 seconds; with those of the known viewer, a minute.
    engagement = "opened, sessions, minutes_watched"
    assert watched.view("video_engagement", engagement) == [[2, 3, 1.0]]
    assert watched.view("viewer_progress", "user_id, minutes_watched * 60") == [
        ["", 30.0],
        ["ada", 30.0],
    ]


@pytest.mark.slow
def test_a_section_is_read_by_the_tables_key(watched: Watched, template: Template) -> None:
    watched.insert(row(0, "played"))
    for sql in template.watching:
        view = sql.split(" (")[0].rpartition(".")[2]
        if view == "section_videos":
            continue  # It reads a table of its own.
        plan = str(
            watched.server.engine.query(
                f"EXPLAIN indexes = 1, pretty = 0 SELECT * FROM {watched.database}.{view}"
                f" WHERE section_id = {watched.section}"
            )
        )
        assert f"section_id in [{watched.section}, {watched.section}]" in plan, view
