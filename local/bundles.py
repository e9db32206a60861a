"""Generates realistic bundles: viewers who play, pause, seek and finish videos, other statements
among them, and the faults that real bundles have. The same seed gives the same bytes.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

_VIDEO = "https://w3id.org/xapi/video/extensions/"
_OLI = "http://oli.cmu.edu/extensions/"
_ADL = "http://adlnet.gov/expapi/verbs/"
_PLAYER_VERBS = "https://w3id.org/xapi/video/verbs/"
_VIDEO_TYPE = "https://w3id.org/xapi/video/activity-type/video"
# Title, seconds, where many leave, a chapter that many play again, how far anybody goes; places as
# parts of the length.
_VIDEOS = (
    ("Chemical bonds", 197.0, 0.0, (0.4, 0.5), 1.0),
    ("Cell division", 782.0, 0.07, (0.31, 0.38), 1.0),
    ("Supply and demand", 431.5, 0.0, (0.55, 0.64), 1.0),
    ("La conjugaison française", 268.0, 0.0, (0.2, 0.3), 1.0),
    ("Newton's second law", 126.4, 0.0, (0.0, 0.0), 1.0),
    ("Photosynthèse", 864.2, 0.12, (0.0, 0.0), 0.8),
    ("Confidence intervals", 612.3, 0.0, (0.7, 0.76), 1.0),
    ("細胞分裂", 344.0, 0.25, (0.0, 0.0), 1.0),
)
_WEIGHTS = (5, 4, 4, 3, 3)
"""How often the videos of a section are begun, in their order."""


@dataclass
class Bundle:
    """One object to upload, and how many lines of each kind it holds."""

    key: str
    lines: list[bytes] = field(default_factory=list)
    video: int = 0
    other: int = 0
    blank: int = 0
    rejected: int = 0
    video_lines: set[bytes] = field(default_factory=set)

    @property
    def section_id(self) -> int:
        """The section in its key."""
        return int(self.key.split("/")[1])

    @property
    def body(self) -> bytes:
        """The bytes of the object."""
        joined = b"".join(line + b"\n" for line in self.lines)
        return gzip.compress(joined, mtime=0) if self.key.endswith(".gz") else joined

    def add(self, kind: str, line: bytes) -> None:
        """Append a line, and count it as kind."""
        self.lines.append(line)
        setattr(self, kind, getattr(self, kind) + 1)
        if kind == "video":
            self.video_lines.add(line)


@dataclass(frozen=True)
class _Video:
    url: str
    title: str
    seconds: float
    leave_at: float
    chapter: tuple[float, float]
    furthest: float
    page: int


@dataclass(frozen=True)
class _Viewing:
    """One viewer watching one video in one player."""

    rng: random.Random
    section: int
    viewer: int
    video: _Video
    session: str


def generate(
    sections: tuple[int, ...] = (2001, 2002, 2003),
    days: int = 14,
    bundles_per_day: int = 6,
    seed: int = 1,
    start: datetime = datetime(2024, 1, 1, 8, tzinfo=UTC),
) -> Iterator[Bundle]:
    """The bundles of several days.

    Most hold the statements of a few viewers. A few lines are blank, cut short, not JSON or not a
    statement. A few statements are repeated or come from another player. A few bundles are gzip.
    """
    rng = random.Random(seed)  # noqa: S311  # repeatable, not secret
    videos = [
        _Video(
            f"https://www.youtube.com/watch?v=v{rng.getrandbits(40):010x}",
            *about,
            rng.randrange(70_000, 80_000),
        )
        for about in _VIDEOS
    ]
    for day in range(days):
        for section in sections:
            for _ in range(bundles_per_day):
                when = start + timedelta(days=day, seconds=rng.randrange(36_000))
                category = rng.choice(
                    ("video", "video", "video", "page_viewed", "attempt_evaluated")
                )
                yield _bundle(rng, section, category, when, videos)


def _bundle(
    rng: random.Random, section: int, category: str, when: datetime, videos: list[_Video]
) -> Bundle:
    stamp = when.isoformat(timespec="microseconds").replace("+00:00", "Z").replace(":", "-")
    ending = ".jsonl.gz" if rng.random() < 0.05 else ".jsonl"
    key = f"section/{section}/{category}/{stamp}_{UUID(int=rng.getrandbits(128))}{ending}"
    bundle = Bundle(key)
    for _ in range(rng.randrange(3, 9)):
        viewer = rng.randrange(1, 40)
        if category == "video":
            session = str(UUID(int=rng.getrandbits(128), version=4))
            (number,) = rng.choices(range(len(_WEIGHTS)), _WEIGHTS)
            video = videos[(section + number) % len(videos)]
            viewing = _Viewing(rng, section, viewer, video, session)
            for statement in _session(viewing, when):
                bundle.add("video", _line(statement))
        bundle.add("other", _line(_other(rng, section, viewer, when, category)))
    if category == "video" and rng.random() < 0.2:
        bundle.add("video", next(line for line in bundle.lines if b"/video/" in line))
    if rng.random() < 0.1:
        bundle.add("blank", rng.choice((b"", b"  ", b"\r")))
    if rng.random() < 0.15:
        bundle.add("rejected", rng.choice(_BAD_LINES))
    return bundle


_BAD_LINES = (
    b'{"actor": {"mbox": "mailto:cut@example.org"}, "verb": {"id": "https://w3id.org/xap',
    b"Traceback (most recent call last):",
    b'{"verb": {"id": "https://w3id.org/xapi/video/verbs/played"}, "object": {"id": "x"}}',
    b'["a list", "is no statement"]',
    b'{"actor": {"name": "\xff\xfe"}}',
)


def _line(statement: dict[str, Any]) -> bytes:
    return json.dumps(statement, ensure_ascii=False, separators=(",", ":")).encode()


def _session(viewing: _Viewing, when: datetime) -> Iterator[dict[str, Any]]:
    """Plays a video's pieces, with pauses and seeks between them, and completes it at its end."""
    rng, seconds = viewing.rng, viewing.video.seconds
    make = _profile_statement if rng.random() < 0.1 else _torus_statement
    at, clock = 0.0, when
    segments: list[str] = []
    for start, end in _pieces(rng, viewing.video):
        if start != at:
            yield make(viewing, clock, "seeked", {"time-from": at, "time-to": start})
        yield make(viewing, clock, "played", {"time": start})
        segments.append(f"{start:g}[.]{end:g}")
        at = end
        clock += timedelta(seconds=end - start)
        progress = round(min(1.0, at / seconds), 3)
        result = {"played-segments": "[,]".join(segments), "progress": progress, "time": at}
        if at >= seconds:
            yield make(viewing, clock, "completed", result)
            return
        yield make(viewing, clock, "paused", result)
        clock += timedelta(seconds=rng.randrange(2, 90))


def _pieces(rng: random.Random, video: _Video) -> Iterator[tuple[float, float]]:
    """The stretches, in seconds, that a viewer plays until they leave or the video ends.

    A third leave early where the video invites it, half of the others go as far as anybody does.
    Of those who come to the end of its chapter, two of five go back and play it again.
    """
    if video.leave_at and rng.random() < 0.35:
        until = video.leave_at + rng.uniform(-0.015, 0.015)
    elif rng.random() < 0.5:
        until = video.furthest * (1 if video.furthest == 1 else rng.uniform(0.9, 1))
    else:
        until = rng.uniform(0.02, video.furthest)
    begin, end = video.chapter
    pieces = [(0.0, until)]
    if end and until > end and rng.random() < 0.4:
        pieces = [(0.0, end), (begin, until)]
    for start, stop in pieces:
        pauses = [rng.uniform(start, stop)] if rng.random() < 0.5 else []
        for piece in pairwise([start, *pauses, stop]):
            yield _seconds(video, piece[0]), _seconds(video, piece[1])


def _seconds(video: _Video, part: float) -> float:
    return round(part * video.seconds, 3)


def _torus_statement(
    viewing: _Viewing, when: datetime, verb: str, result: dict[str, Any]
) -> dict[str, Any]:
    """A statement as the learning platform sends it: no id, the registration at the top level."""
    section, viewer, video = viewing.section, viewing.viewer, viewing.video
    element = f"{video.page}{video.page % 97}"
    context = {
        _OLI + "page_attempt_number": 1,
        _OLI + "page_attempt_guid": str(UUID(int=section * 10**9 + viewer * 10**5 + video.page)),
        _OLI + "section_id": section,
        _OLI + "project_id": 1001,
        _OLI + "publication_id": 3001,
        _OLI + ("page_id" if verb == "completed" else "resource_id"): video.page,
        _OLI + "content_element_id": element,
    }
    if verb != "seeked":
        context[_VIDEO + "length"] = video.seconds
    if verb == "completed":
        context[_VIDEO + "completion-threshold"] = "1.0"
    return {
        "actor": {
            "account": {
                "homePage": "https://proton.oli.cmu.edu",
                # The platform sends both numbers and text.
                "name": 4000 + viewer if viewer % 2 else str(4000 + viewer),
            },
            "objectType": "Agent",
        },
        "verb": {"id": _PLAYER_VERBS + verb, "display": {"en-US": verb}},
        "object": {
            "id": video.url,
            "definition": {"name": {"en-US": video.title}, "type": _VIDEO_TYPE},
            "objectType": "Activity",
        },
        "result": {"extensions": {_VIDEO + name: value for name, value in result.items()}},
        "context": {
            "contextActivities": {"category": [{"id": "https://w3id.org/xapi/video"}]},
            "extensions": context,
        },
        "timestamp": _instant(viewing.rng, when),
        "registration": f"{section}-{video.page}-{element}",
    }


def _profile_statement(
    viewing: _Viewing, when: datetime, verb: str, result: dict[str, Any]
) -> dict[str, Any]:
    """A statement as another player sends it: the Video Profile alone, no OLI extensions."""
    rng, viewer, video = viewing.rng, viewing.viewer, viewing.video
    outcome: dict[str, Any] = {"extensions": {_VIDEO + k: v for k, v in result.items()}}
    if verb == "completed":
        outcome |= {"completion": True, "duration": f"PT{video.seconds:g}S"}
    return {
        "id": str(UUID(int=rng.getrandbits(128), version=4)).upper(),
        "version": "1.0.3",
        "actor": {"mbox": f"mailto:viewer{viewer}@example.org", "objectType": "Agent"},
        "verb": {"id": (_ADL if verb == "completed" else _PLAYER_VERBS) + verb},
        "object": {"id": video.url, "definition": {"type": _VIDEO_TYPE}},
        "result": outcome,
        "context": {
            "extensions": {
                _VIDEO + "session-id": viewing.session,
                _VIDEO + "length": video.seconds,
                _VIDEO + "full-screen": bool(viewer % 3),
                _VIDEO + "speed": "1x",
                _VIDEO + "volume": 0.8,
            }
        },
        "timestamp": when.isoformat(timespec="microseconds"),
    }


def _other(
    rng: random.Random, section: int, viewer: int, when: datetime, category: str
) -> dict[str, Any]:
    """A statement that is counted but not stored."""
    viewed = category != "attempt_evaluated"
    statement: dict[str, Any] = {
        "actor": {
            "account": {"homePage": "https://proton.oli.cmu.edu", "name": str(4000 + viewer)}
        },
        "verb": {"id": "http://id.tincanapi.com/verb/viewed" if viewed else _ADL + "completed"},
        "object": {
            "id": f"https://proton.oli.cmu.edu/page/{rng.randrange(100)}",
            "definition": {"type": _OLI + ("types/page" if viewed else "page_attempt")},
        },
        "context": {"extensions": {_OLI + "section_id": section}},
        "timestamp": _instant(rng, when),
    }
    if not viewed:
        score = rng.randrange(11)
        statement["result"] = {"score": {"raw": score, "max": 10, "scaled": score / 10}}
    return statement


def _instant(rng: random.Random, when: datetime) -> str:
    precision = rng.choice(("seconds", "milliseconds", "microseconds"))
    return when.isoformat(timespec=precision).replace("+00:00", "Z")
