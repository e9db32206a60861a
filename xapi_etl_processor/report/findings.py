"""Finds places of a video to look at: where many viewers stop for good, or play again.

Only what is unlikely to be chance is a finding, and none says why viewers did it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from itertools import accumulate

from xapi_etl_processor.report.figures import BUCKETS, Count, Video

LEAST_VIEWERS = 20
"""With fewer viewers, nothing is marked. Our limit."""

LEAST_GROUP = 5
"""Fewer viewers than this are no finding, however unlikely. Our limit."""

MOST_FINDINGS = 3
"""How many places of each kind are marked in a video. Our limit."""

CHANCE = 0.05
"""In how many videos, at most, chance alone may mark a place, where viewers stop (or play again)
everywhere alike. Our limit."""

_FIRST_SECONDS = 60
"""Where stops begin no later than this, and in the first tenth, all from the start are counted."""

_WINDOW = BUCKETS // 20
"""How many buckets of a video are looked at together for stops, which scatter."""

_END = BUCKETS * 95 // 100
"""From this bucket on, to stop is to have finished."""

RULE = (
    f"A place is marked if the video has at least {LEAST_VIEWERS} viewers, at least {LEAST_GROUP}"
    " of them stopped there (within a twentieth of the video) or played it again, and so many"
    f" would do so by chance in fewer than {CHANCE:.0%} of videos in which viewers stop, or play"
    " again, everywhere alike. Stops of viewers who have completed the video, and stops in its last"
    f" twentieth, are not counted. At most {MOST_FINDINGS} of each are marked. A marked place is"
    " one to look at. It does not say why viewers did this."
)


@dataclass(frozen=True)
class Finding:
    """A place, in seconds of the video, and what it is: "stop" or "replay"."""

    kind: str
    from_second: float
    to_second: float
    sentence: str


def find(video: Video, hide_below: int = 0) -> list[Finding]:
    """The places of a video that stand out, in its order, and not of fewer than `hide_below`."""
    if video.viewers is None or video.viewers < max(LEAST_VIEWERS, hide_below):
        return []
    least = max(LEAST_GROUP, hide_below)
    return sorted(
        (*_stops(video, least), *_replays(video, least)), key=lambda finding: finding.from_second
    )


def chance_of(count: int, of: int, rate: float) -> float:
    """How likely at least `count` of `of` people do what each does at this rate (binomial)."""
    if count <= 0:
        return 1.0
    if count > of or rate <= 0:
        return 0.0
    if rate >= 1:
        return 1.0
    term = math.exp(
        math.lgamma(of + 1)
        - math.lgamma(count + 1)
        - math.lgamma(of - count + 1)
        + count * math.log(rate)
        + (of - count) * math.log1p(-rate)
    )
    total = 0.0
    for people in range(count, of + 1):
        total += term
        term *= (of - people) / (people + 1) * rate / (1 - rate)
        if term < total * 1e-9:
            break
    return min(total, 1.0)


def clock(seconds: float) -> str:
    """A place in a video: 2:05, or 1:02:05."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def _stops(video: Video, least: int) -> list[Finding]:
    """Windows in which too many stop: the least likely first, then those that do not overlap it."""
    leaving = [0] * BUCKETS
    last_here = [0] * BUCKETS
    for stop in video.stops:
        leaving[stop.bucket] = stop.viewers - stop.completed
        last_here[stop.bucket] = stop.viewers
    # Who is still there at a place may stop there.
    still_there = list(accumulate(reversed(last_here)))[::-1]
    rate = sum(leaving[:_END]) / max(sum(still_there[:_END]), 1)
    rate_of_window = 1 - (1 - rate) ** _WINDOW
    windows = [
        (chance_of(people, still_there[first], rate_of_window), first, people)
        for first in range(_END - _WINDOW + 1)
        if (people := sum(leaving[first : first + _WINDOW])) >= least
    ]
    found: dict[int, Finding] = {}
    for chance, first, in_window in sorted(windows):
        if chance * (_END - _WINDOW + 1) >= CHANCE or len(found) == MOST_FINDINGS:
            break
        if any(abs(first - other) < _WINDOW for other in found):
            continue
        with_stops = [at for at in range(first, first + _WINDOW) if leaving[at]]
        begin, end = video.second(with_stops[0]), video.second(with_stops[-1] + 1)
        people, where = in_window, f"between {clock(begin)} and {clock(end)}"
        if begin <= min(_FIRST_SECONDS, video.seconds / 10):
            begin, where = 0.0, f"before {clock(end)}"
            people = sum(leaving[: with_stops[-1] + 1])
        sentence = f"{people} of {video.viewers} viewers stop for good {where}."
        found[first] = Finding("stop", begin, end, sentence)
    return list(found.values())


def _replays(video: Video, least: int) -> list[Finding]:
    again = [place.rewatchers for place in video.places]
    viewers = [place.viewers or 0 for place in video.places]
    known = [(a, v) for a, v in zip(again, viewers, strict=True) if a is not None]
    rate = sum(a for a, _ in known) / max(sum(v for _, v in known), 1)
    found = []
    for first, last, top in _unlikely(again, viewers, rate, least)[:MOST_FINDINGS]:
        usual = rate * viewers[top]
        on_average = f"{usual:.0f}" if usual >= 1 else "fewer than one"
        begin, end = video.second(first), video.second(last + 1)
        sentence = (
            f"{again[top]} of {viewers[top]} viewers play {clock(begin)} to {clock(end)} more than"
            f" once. On average over the video, {on_average} would."
        )
        found.append(Finding("replay", begin, end, sentence))
    return found


def _unlikely(
    counts: list[Count], groups: list[int], rate: float, least: int
) -> list[tuple[int, int, int]]:
    """First, last and highest bucket of each run of counts too large for chance; highest first."""
    marked = [
        bucket
        for bucket, (count, of) in enumerate(zip(counts, groups, strict=True))
        if count is not None
        and count >= least
        and chance_of(count, of, rate) * len(counts) < CHANCE
    ]
    runs: dict[int, list[int]] = defaultdict(list)
    for position, bucket in enumerate(marked):
        runs[bucket - position].append(bucket)
    found = [(run[0], run[-1], max(run, key=lambda at: counts[at] or 0)) for run in runs.values()]
    return sorted(found, key=lambda run: -(counts[run[2]] or 0))
