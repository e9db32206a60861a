"""Simulated players, whose truth is known: how near the views come to it, whatever they send."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest

from local.clickhouse_server import ClickHouseServer
from tests.support.players import LENGTH, PLAYERS, Player, Told, tell
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

EXACT = [
    player
    for player in TELLING
    if player.stretches in ("last", "none")
    and player.keeps_tab
    and player.digits >= 3
    and not (player.repeats or player.voids)
]
"""Players whose statements leave nothing to guess. Of those that send all stretches, two that begin
at one second count as one.
"""

ASKED = {
    "viewer_progress": "user_id, minutes_watched * 60, minutes_played * 60, is_completed",
    "video_engagement": "opened, sessions, completions, minutes_watched * 60, minutes_played * 60",
    "video_retention": "bucket, viewers, rewatchers, plays",
    "video_seeks": "from_bucket, to_bucket, seeks",
    "section_daily": "toUInt32(day), sessions, statements",
}
"""Views, and what is compared with the truth."""


def near(seconds: float) -> Any:
    return pytest.approx(seconds, abs=0.5)


def bucket_of(second: float) -> int:
    return min(int(second * 100 / LENGTH), 99)


@dataclass
class Answers:
    """What simulated players told, and the rows of each view of ASKED about each player."""

    told: dict[str, Told]
    views: dict[str, dict[str, list[list[Any]]]]

    def seconds(self, player: Player) -> dict[str, float]:
        """The seconds that each viewer watched, by the views."""
        return {viewer: found for viewer, found, *_ in self.views[player.name]["viewer_progress"]}


@pytest.fixture(scope="module")
def answers(clickhouse: ClickHouseServer, watched_database: str) -> Answers:
    """All players in one query of each view, since planning it takes longer than running it."""
    told, sections = {}, {}
    for player in PLAYERS:
        watched = Watched(clickhouse, watched_database)
        told[player.name] = tell(watched, player, VIEWERS)
        sections[watched.section] = player.name
    views: dict[str, dict[str, list[list[Any]]]] = {
        name: {view: [] for view in ASKED} for name in told
    }
    for view, columns in ASKED.items():
        for section, *row in watched.of_sections(sections, view, f"section_id, {columns}"):
            views[sections[section]][view].append(row)
    return Answers(told, views)


@pytest.mark.slow
@pytest.mark.parametrize("player", PLAYERS, ids=lambda player: player.name)
def test_no_more_is_watched_than_was_watched(answers: Answers, player: Player) -> None:
    """For each viewer by at most 2% and 2 s, if jumps are reported; else 5% in sum."""
    told, seconds = answers.told[player.name], answers.seconds(player)
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
    told, seconds = answers.told[player.name], answers.seconds(player)
    assert {viewer: seconds.get(viewer, 0) for viewer in told.shown} == {
        viewer: pytest.approx(told.seconds_shown(viewer), abs=2.5) for viewer in told.shown
    }


@pytest.mark.slow
@pytest.mark.parametrize("player", EXACT, ids=lambda player: player.name)
def test_each_view_agrees_with_what_was_watched_and_sent(answers: Answers, player: Player) -> None:
    told, found = answers.told[player.name], answers.views[player.name]
    played = {viewer: sum(end - at for at, end in told.watched[viewer]) for viewer in told.watched}
    completed = {row["user_id"] for row in told.rows if row["verb"] == "completed"}
    completed |= {viewer for viewer in told.watched if told.seconds(viewer) > LENGTH - 0.01}
    assert found["viewer_progress"] == sorted(
        [viewer, near(told.seconds(viewer)), near(played[viewer]), viewer in completed]
        for viewer in told.watched
    )
    sessions = {row["session_id"] for row in told.rows}
    watched = sum(map(told.seconds, told.watched))
    assert found["video_engagement"] == [
        [VIEWERS, len(sessions), len(completed), near(watched), near(sum(played.values()))]
    ]
    middles = [(bucket + 0.5) * LENGTH / 100 for bucket in range(100)]
    plays = [
        [sum(at <= middle < end for at, end in pieces) for pieces in told.watched.values()]
        for middle in middles
    ]
    assert found["video_retention"] == [
        [bucket, sum(n > 0 for n in times), sum(n > 1 for n in times), sum(times)]
        for bucket, times in enumerate(plays)
    ]
    seeks = Counter(
        (bucket_of(row["video_seek_from"]), bucket_of(row["video_seek_to"]))
        for row in told.rows
        if row["verb"] == "seeked"
    )
    assert found["video_seeks"] == [[*ends, number] for ends, number in sorted(seeks.items())]
    first_days: dict[str, int] = {}
    for row in told.rows:
        first_days.setdefault(row["session_id"], int(row["timestamp"] // 86_400))
    statements = Counter(first_days[row["session_id"]] for row in told.rows)
    days = Counter(first_days.values())
    assert found["section_daily"] == [[day, days[day], statements[day]] for day in sorted(days)]
