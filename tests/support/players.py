"""Simulated players of videos, whose truth is known: what each viewer watched, and what the player
said of it.

A viewer plays, pauses, jumps, changes the speed and closes the tab, by a random generator with a
fixed seed. What is sent, in which order and how exactly, is the player's.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.support.watched import MIDNIGHT, URL, Row, Watched

LENGTH = 600
"""Seconds that the video lasts."""

Piece = tuple[float, float]


@dataclass(frozen=True)
class Player:
    """How a player reports. `stretches`: all, last, none, or open (as Torus's YouTube player).

    `jump`: what a jump while playing sends, in this order; nothing if jumps are not reported.
    `digits`: of a second, in timestamps. `keeps_tab`: whether viewers never close it while playing.
    """

    name: str
    stretches: str = "none"
    jump: tuple[str, ...] = ("paused", "seeked", "played")
    digits: int = 3
    keeps_tab: bool = True
    speeds: tuple[float, ...] = (1.0,)
    tells_speed: bool = False
    clock_jumps: bool = False
    half: bool = False
    repeats: bool = False
    voids: bool = False
    one_session: bool = False
    without_key: bool = False

    @property
    def reports_jumps(self) -> bool:
        """Whether it sends seeks."""
        return "seeked" in self.jump


PLAYERS = (
    Player("sends all stretches", "all"),
    Player("sends the last stretch", "last"),
    Player("sends all, in whole seconds", "all", digits=0),
    Player("Torus: open at the end, completed without a key", "open", without_key=True),
    Player("Video.js", keeps_tab=False),
    Player("Video.js, microseconds", digits=6),
    Player("Video.js, whole seconds", digits=0, keeps_tab=False),
    Player("YouTube: play before seek", jump=("paused", "played", "seeked")),
    Player("YouTube, whole seconds", jump=("paused", "played", "seeked"), digits=0),
    Player("Open edX: seek before play", jump=("seeked", "played"), digits=6),
    Player("Open edX, whole seconds", jump=("seeked", "played"), digits=0, keeps_tab=False),
    Player("one session for all visits", jump=("seeked", "played"), keeps_tab=False,
           one_session=True),
    Player("fast, and tells the speed", speeds=(1.0, 1.5, 2.0), tells_speed=True),
    Player("fast, and does not tell", speeds=(1.0, 1.25, 1.5, 2.0)),
    Player("a clock that jumps", clock_jumps=True),
    Player("half of the fields missing", half=True),
    Player("repeats with another timestamp", repeats=True),
    Player("some voided", voids=True),
    Player("jumps not reported", jump=()),
    Player("jumps not reported, whole seconds", jump=(), digits=0),
    Player("jumps by play alone", jump=("played",)),
    Player("jumps by pause and play", jump=("paused", "played"), digits=0),
)  # fmt: skip


@dataclass
class Told:
    """What a player sent, and what its viewers watched, by viewer."""

    rows: list[Row] = field(default_factory=list)
    voided: list[str] = field(default_factory=list)
    watched: dict[str, list[Piece]] = field(default_factory=dict)
    shown: dict[str, list[Piece]] = field(default_factory=dict)
    """What was watched up to the last statement of a session. Nothing shows the rest."""

    def seconds(self, viewer: str) -> float:
        """Seconds that a viewer watched, each once."""
        return covered(self.watched[viewer])

    def seconds_shown(self, viewer: str) -> float:
        """The same for what the statements can show."""
        return covered(self.shown[viewer])


def covered(pieces: list[Piece]) -> float:
    """Seconds that pieces cover, each once."""
    total, reached = 0.0, 0.0
    for start, end in sorted(pieces):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


class _Visit:
    """A viewer's visit: time passes, the video plays, and the player sends."""

    def __init__(
        self, player: Player, told: Told, viewer: str, session: str, at: float, dice: random.Random
    ) -> None:
        self.player, self.told, self.viewer, self.session = player, told, viewer, session
        self.dice, self.at, self.off = dice, at, 0.0
        self.position, self.begun, self.playing = 0.0, 0.0, False
        self.pieces: list[Piece] = []
        self.speed = dice.choice(player.speeds)
        self.unshown: list[Piece] = []

    def send(self, verb: str, **more: Any) -> None:
        player = self.player
        self.at += self.dice.choice((0.0, 0.0005, 0.002))
        scale = 10**player.digits
        row: Row = {
            "event_id": str(self.dice.getrandbits(128)),
            "timestamp": int((MIDNIGHT + self.at + self.off) * scale) / scale,
            "timestamp_source": "statement",
            "user_id": self.viewer,
            "home_page": "https://lms.example.edu",
            "session_id": "" if player.without_key else self.session,
            "registration": self.session if player.without_key and verb != "completed" else "",
            "verb": verb,
            "video_url": URL,
            "video_length": LENGTH,
            **more,
        }
        if player.tells_speed:
            row["speed"] = self.speed
        if player.half:
            for name in ("video_time", "video_seek_from", "video_seek_to"):
                if name in row and self.dice.random() < 0.5:
                    del row[name]
        going = [(self.begun, self.position)] if self.playing and self.position > self.begun else []
        sent = {
            "all": self.pieces + going,
            "last": (self.pieces + going)[-1:],
            "open": self.pieces if verb in ("paused", "completed") else [],
            "none": [],
        }[player.stretches]
        if sent:
            pairs = [f"{start:.3f}[.]{end:.3f}" for start, end in sent]
            if player.stretches == "open" and verb == "completed":
                pairs[-1] = f"{sent[-1][0]:.3f}[.]"
            row["video_played_segments"] = "[,]".join(pairs)
        self.told.rows.append(row)
        self.told.shown[self.viewer] += self.unshown
        self.unshown = []

    def play(self, seconds: float) -> None:
        """Let this many seconds pass."""
        if not self.playing:
            self.playing, self.begun = True, self.position
            self.send("played", video_time=round(self.position, 3))
        media = min(seconds * self.speed, LENGTH - self.position)
        if media <= 0:
            return
        piece = (self.position, self.position + media)
        self.told.watched[self.viewer].append(piece)
        self.unshown.append(piece)
        self.position += media
        self.at += media / self.speed

    def stop(self) -> None:
        if self.playing and self.position > self.begun:
            self.pieces.append((self.begun, self.position))
        self.playing = False

    def pause(self) -> None:
        self.stop()
        self.send("paused", video_time=round(self.position, 3))
        self.at += self.dice.uniform(1, 120)

    def say(self) -> None:
        """A statement that changes nothing, such as a new volume."""
        self.send("interacted", video_time=round(self.position, 3))

    def jump(self) -> None:
        start, was_playing = round(self.position, 3), self.playing
        self.stop()
        if self.dice.random() < 0.6:
            to = min(self.position + self.dice.choice((10, 10, 30, 90, 200)), LENGTH - 5)
        else:
            to = self.dice.uniform(0, LENGTH - 5)
        if was_playing and self.player.jump:
            moves = {
                "paused": lambda: self.send("paused", video_time=start),
                "seeked": lambda: self.send(
                    "seeked", video_seek_from=start, video_seek_to=round(to, 3)
                ),
                "played": lambda: self.send("played", video_time=round(to, 3)),
            }
            for verb in self.player.jump:
                if verb == "played":
                    self.position, self.playing, self.begun = to, True, to
                moves[verb]()
        elif self.player.reports_jumps:
            self.send("seeked", video_seek_from=start, video_seek_to=round(to, 3))
        self.position, self.begun, self.playing = to, to, was_playing

    def change_speed(self) -> None:
        if len(self.player.speeds) > 1:
            if self.player.tells_speed:
                self.say()
            self.speed = self.dice.choice(self.player.speeds)
            if self.player.tells_speed:
                self.say()

    def shift_clock(self) -> None:
        if self.player.clock_jumps:
            self.off += self.dice.choice((-3600, -40, -2, 2, 40, 3600))

    def end(self) -> None:
        """The last statement, unless the tab is closed while the video plays."""
        at_end = self.position >= LENGTH - 0.001
        if self.playing and (self.player.keeps_tab or at_end or self.dice.random() < 0.6):
            self.stop()
            verb = "completed" if at_end or self.player.stretches == "open" else "paused"
            self.send(verb, video_time=round(self.position, 3))


def simulate(player: Player, viewers: int) -> Told:
    """What this many viewers watched, and what the player sent about it, in order of time."""
    dice = random.Random(f"{player.name} 0")
    told = Told()
    for number in range(viewers):
        viewer = f"viewer-{number}"
        told.watched[viewer], told.shown[viewer] = [], []
        at = dice.uniform(0, 80_000)
        for visit_number in range(dice.randint(1, 3)):
            session = f"{viewer}-{0 if player.one_session else visit_number}"
            visit = _Visit(player, told, viewer, session, at, dice)
            visit.position = dice.choice((0.0, visit.position, dice.uniform(0, LENGTH / 2)))
            acts: tuple[Callable[[], None], ...] = (
                visit.pause, visit.jump, visit.jump, visit.say, visit.change_speed,
                visit.shift_clock,
            )  # fmt: skip
            for _ in range(dice.randint(2, 9)):
                visit.play(dice.expovariate(1 / 60))
                dice.choice(acts)()
            visit.play(dice.expovariate(1 / 60))
            visit.end()
            at = visit.at + dice.choice((60, 1200, 30_000))
    told.rows.sort(key=lambda row: row["timestamp"])
    if player.repeats:
        again = [row for row in told.rows if dice.random() < 0.2]
        told.rows += [{**r, "timestamp": r["timestamp"] + dice.uniform(0.02, 5)} for r in again]
        told.rows.sort(key=lambda row: row["timestamp"])
    if player.voids:
        for row in [row for row in told.rows if dice.random() < 0.1]:
            wrong = {**row, "event_id": str(dice.getrandbits(128)), "video_time": LENGTH - 1}
            told.rows.insert(told.rows.index(row) + 1, wrong)
            told.voided.append(wrong["event_id"])
    return told


def tell(here: Watched, player: Player, viewers: int) -> Told:
    """Put what a player sent of this many viewers into a section, cut into objects."""
    told = simulate(player, viewers)
    for rows in in_objects(told.rows, random.Random(1)):
        here.insert(*rows)
    here.void(*told.voided)
    return told


def in_objects(rows: list[Row], dice: random.Random) -> Iterator[list[Row]]:
    """The rows as lines of objects that are cut anywhere, in any order."""
    cuts = sorted(dice.sample(range(1, len(rows)), min(len(rows) // 60, len(rows) - 1)))
    objects = []
    for start, end in zip([0, *cuts], [*cuts, len(rows)], strict=True):
        name = f"s3://bundles/section/1/video/{dice.getrandbits(64):x}.jsonl"
        objects.append(
            [
                {**row, "source_file": name, "source_line": line}
                for line, row in enumerate(rows[start:end], 1)
            ]
        )
    dice.shuffle(objects)
    yield from objects
