"""Writes the report's pages: one HTML file each, which needs no network."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined

from xapi_etl_processor.report import charts
from xapi_etl_processor.report.definitions import DEFINITIONS, LIMITS
from xapi_etl_processor.report.figures import BUCKETS, Count, Period, Section, Video
from xapi_etl_processor.report.findings import LEAST_VIEWERS, RULE, Finding, clock

_SEEK_BINS = 20
_MOST_SEEKS = 5
_YOUTUBE = ("youtube.com", "youtube-nocookie.com", "youtu.be")

MARKS = {"stop": "many stop for good", "replay": "many play again"}
"""What a marked place is marked for."""

Findings = dict[str, list[Finding]]
"""The findings of each video, by its address."""


def section_page(section: Section, findings: Findings, hide_below: int = 0, title: str = "") -> str:
    """The report of a section: its totals, its videos ranked, and each video's charts."""
    known = [video.viewers for video in section.videos if video.viewers is not None]
    return _render(
        "section.html",
        section=section,
        title=title,
        names=names(section),
        absent=[learner.label for learner in section.learners if not learner.shares],
        findings=findings,
        least_viewers=max(LEAST_VIEWERS, hide_below),
        are_marked=max(known, default=0) >= LEAST_VIEWERS,
        hide_below=hide_below,
        totals=totals(section),
        charts=charts.specifications(),
        script=charts.script(),
        data=_data(section, findings),
        rule=RULE,
    )


def index_page(sections: Sequence[tuple[str, Section]], hide_below: int = 0) -> str:
    """A list of sections, each with the name of its file."""
    rows = [(file, section, totals(section)) for file, section in sections]
    return _render("index.html", rows=rows, hide_below=hide_below)


def totals(section: Section) -> dict[str, Any]:
    """A section's sums over its videos; None where one of them is hidden."""

    def total(values: list[Any]) -> Any:
        shown = [value for value in values if value is not None]
        return None if section.viewers is None or len(shown) < len(values) else sum(shown)

    days = [period.day for period in section.periods]
    summed = ("sessions", "minutes_watched", "minutes_played")
    return {
        **{name: total([getattr(video, name) for video in section.videos]) for name in summed},
        "first_day": min(days, default=None),
        "last_day": max(days, default=None),
    }


def names(section: Section) -> dict[str, str]:
    """What each video is called, by its address: with its address, if others have its title."""
    titles = Counter(video.name for video in section.videos)
    return {
        video.url: f"{video.name} ({video.url.split('://')[-1].removeprefix('www.')})"
        if titles[video.name] > 1
        else video.name
        for video in section.videos
    }


def address_at(url: str, second: float) -> str:
    """Where a player starts at this second, '' if its addresses cannot say it: YouTube's can."""
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").removeprefix("www.").removeprefix("m.")
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https") or host not in _YOUTUBE:
        return ""
    if host != "youtu.be" and parts.path != "/watch" and not parts.path.startswith("/embed/"):
        return ""
    name = "start" if parts.path.startswith("/embed/") else "t"
    query = [
        (key, value)
        for key, value in parse_qsl(parts.query, keep_blank_values=True)
        if key not in ("t", "start")
    ]
    at = urlencode([*query, (name, f"{int(second)}{'s' if parts.path == '/watch' else ''}")])
    return parts._replace(query=at, fragment="").geturl()


def retention_sentence(video: Video) -> str:
    """How many viewers played the beginning, the middle and the end."""
    if not video.places:
        return "Nothing is known of which places were played."
    first, middle, last = (video.places[at].viewers for at in (0, BUCKETS // 2, -1))
    if None in (first, middle, last):
        return "Places with few viewers are hidden."
    return f"{first} viewers played the beginning, {middle} the middle and {last} the end."


def share(video: Video) -> str:
    """The average share of a video that its viewers watched, as text."""
    return "hidden" if video.viewers is None else _percent(video.average_share)


def no_finding(video: Video) -> str:
    """Why no place of a video is marked."""
    if video.viewers is None:
        return "Hidden: few viewers."
    if video.viewers < LEAST_VIEWERS:
        return f"Too few viewers to mark places: {video.viewers} of {LEAST_VIEWERS}."
    return "No place stands out."


def _render(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    # Titles and names come from statements: whatever markup they have is shown, not followed.
    environment = Environment(
        loader=PackageLoader("xapi_etl_processor.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Also for bytes: 500 videos have half a million numbers.
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "ensure_ascii": False}
    environment.filters |= {"number": _number, "minutes": _minutes, "percent": _percent}
    environment.filters["clock"] = clock
    environment.globals |= {"definitions": DEFINITIONS, "limits": LIMITS}
    environment.globals |= {"is_link": _is_link, "no_finding": no_finding, "share": share}
    environment.globals |= {"address_at": address_at, "mark": MARKS}
    return environment


def _data(section: Section, findings: Findings) -> dict[str, Any]:
    """What the page's script draws, as short as it can be: lists in the order of the videos."""
    return {
        "weekly": section.weekly,
        "periods": _drawn_periods(section.periods),
        "learners": [learner.label for learner in section.learners],
        "videos": [
            {
                "seconds": video.seconds,
                # In the order of the template.
                "figures": [
                    _number(video.opened),
                    _number(video.viewers),
                    _number(video.finished),
                    _number(video.sessions),
                    _minutes(video.minutes_watched),
                    _minutes(video.minutes_played),
                    share(video),
                    clock(video.seconds),
                ],
                "retention": retention_sentence(video),
                "viewers": [place.viewers for place in video.places],
                "again": [
                    None
                    if place.plays is None or place.viewers is None
                    else place.plays - place.viewers
                    for place in video.places
                ],
                "stops": _drawn_stops(video),
                "seeks": _drawn_seeks(video),
                "top_seeks": [
                    (clock(seek.from_second), clock(seek.to_second), seek.seeks, seek.viewers)
                    for seek in video.seeks[:_MOST_SEEKS]
                ],
                "marks": [
                    (finding.from_second, finding.to_second, MARKS[finding.kind])
                    for finding in findings[video.url]
                ],
                "periods": _drawn_periods(video.periods),
                "not_watched_by": [
                    number
                    for number, learner in enumerate(section.learners)
                    if video.url not in learner.watched
                ],
            }
            for video in section.videos
        ],
    }


def _drawn_periods(periods: Sequence[Period]) -> list[tuple[str, Count, Count]]:
    return [(f"{period.day}", period.sessions, period.viewers) for period in periods]


def _drawn_stops(video: Video) -> tuple[list[int], list[int]]:
    """Who stopped in each bucket: those who had not completed the video, and those who had."""
    others, completed = [0] * BUCKETS, [0] * BUCKETS
    for stop in video.stops:
        others[stop.bucket] = stop.viewers - stop.completed
        completed[stop.bucket] = stop.completed
    return others, completed


def _drawn_seeks(video: Video) -> list[tuple[int, int, int]]:
    """Seeks by twentieths of the video: which one, how many from there, how many to there."""
    counts: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    for seek in video.seeks:
        for end, second in enumerate((seek.from_second, seek.to_second)):
            counts[min(int(second / video.seconds * _SEEK_BINS), _SEEK_BINS - 1)][end] += seek.seeks
    return [(at, away, to) for at, (away, to) in sorted(counts.items())]


def _number(value: Count) -> str:
    return "hidden" if value is None else f"{value:,}"


def _minutes(value: float | None) -> str:
    if value is None:
        return "hidden"
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _percent(value: float | None) -> str:
    return "not known" if value is None or math.isnan(value) else f"{value:.0%}"


def _is_link(address: str) -> bool:
    try:
        return urlsplit(address).scheme in ("http", "https")
    except ValueError:
        return False
