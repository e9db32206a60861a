"""Simulated players, whose truth is known: how near the views come to it, whatever they send."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from local.clickhouse_server import ClickHouseServer
from tests.support.players import LENGTH, PLAYERS, Player, Told, covered, in_objects, simulate, tell
from tests.support.watched import Watched

VIEWERS = 12

TELLING = [
    player
    for player in PLAYERS
    if player.reports_jumps
    and not (player.clock_jumps or player.half)
    and (len(player.speeds) == 1 or player.tells_speed)
]
"""Players that send what is needed: only a closed tab hides something."""


@dataclass
class Answers:
    """What simulated players told, and the seconds that each viewer watched, by the views."""

    told: dict[str, Told]
    seconds: dict[str, dict[str, float]]


@pytest.fixture(scope="module")
def answers(clickhouse: ClickHouseServer, watched_database: str) -> Answers:
    """All players in one query, since planning it takes longer than running it."""
    told, sections = {}, {}
    for player in PLAYERS:
        watched = Watched(clickhouse, watched_database)
        told[player.name] = tell(watched, player, VIEWERS)
        sections[watched.section] = player.name
    seconds: dict[str, dict[str, float]] = {name: {} for name in told}
    for section, viewer, found in watched.of_sections(
        sections, "viewer_progress", "section_id, user_id, minutes_watched * 60"
    ):
        seconds[sections[section]][viewer] = found
    return Answers(told, seconds)


@pytest.mark.slow
@pytest.mark.parametrize("player", PLAYERS, ids=lambda player: player.name)
def test_no_more_is_watched_than_was_watched(answers: Answers, player: Player) -> None:
    """For each viewer by at most 2% and 2 s, if jumps are reported; else 5% in sum."""
    told, seconds = answers.told[player.name], answers.seconds[player.name]
    if player.reports_jumps:
        too_high = {
            viewer: (found, told.seconds(viewer))
            for viewer, found in seconds.items()
            if found > told.seconds(viewer) * 1.02 + 2
        }
        assert too_high == {}
    assert 0 < sum(seconds.values()) <= 1.05 * sum(map(told.seconds, told.watched))


@pytest.mark.slow
@pytest.mark.parametrize("player", TELLING, ids=lambda player: player.name)
def test_no_less_is_watched_than_statements_show(answers: Answers, player: Player) -> None:
    told, seconds = answers.told[player.name], answers.seconds[player.name]
    assert {viewer: seconds.get(viewer, 0) for viewer in told.shown} == {
        viewer: pytest.approx(told.seconds_shown(viewer), abs=2.5) for viewer in told.shown
    }


def test_a_simulation_is_the_same_each_time_and_within_the_video() -> None:
    told = simulate(PLAYERS[0], 3)
    assert told == simulate(PLAYERS[0], 3)
    assert told != simulate(PLAYERS[0], 3, seed=1)
    pieces = [piece for pieces in told.watched.values() for piece in pieces]
    assert all(0 <= start < end <= LENGTH for start, end in pieces)
    assert covered([(0, 10), (5, 20), (30, 31)]) == 21


def test_objects_hold_all_lines_in_their_order() -> None:
    told = simulate(PLAYERS[4], 5)
    objects = list(in_objects(told.rows, random.Random(2)))
    assert sum(map(len, objects)) == len(told.rows)
    assert all(
        [row["source_line"] for row in rows] == list(range(1, len(rows) + 1)) for rows in objects
    )
