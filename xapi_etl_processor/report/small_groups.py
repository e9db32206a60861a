"""Hides what could show a single person: the numbers of groups with few people."""

from __future__ import annotations

from dataclasses import replace

from xapi_etl_processor.report.figures import Count, Period, Place, Section, Video


def hide(section: Section, below: int) -> Section:
    """The section without numbers of fewer than `below` viewers; 0 and 1 hide nothing.

    Those of places, stops, seeks and periods go, all of a video or a section that few opened or
    played, and producers with few sessions. That nobody did something is shown.
    """
    if _few(section, below):
        section = replace(
            section,
            viewers=None,
            opened=None,
            finished=None,
            newest=None,
            statements=None,
            without_time=None,
            periods=(),
            producers=(),
        )
    return replace(
        section,
        opened=_opened(section, below),
        finished=_finished(section, below),
        videos=tuple(_video(video, below) for video in section.videos),
        periods=_periods(section.periods, below),
        # How many viewers a producer has is not read: at most as many as sessions.
        producers=tuple(one for one in section.producers if one.sessions >= below),
    )


def _video(video: Video, below: int) -> Video:
    if _few(video, below):
        return Video(video.url, video.title, video.seconds, *(None,) * 6)
    return replace(
        video,
        opened=_opened(video, below),
        finished=_finished(video, below),
        places=tuple(_place(place, below) for place in video.places),
        stops=tuple(
            stop
            for stop in video.stops
            if not _is_small(stop.viewers - stop.completed, below)
            and not _is_small(stop.completed, below)
        ),
        seeks=tuple(seek for seek in video.seeks if not _is_small(seek.viewers, below)),
        periods=_periods(video.periods, below),
    )


def _opened(of: Section | Video, below: int) -> Count:
    """How many opened it, unless few of them did not play it."""
    others = of.opened - of.viewers if of.opened is not None and of.viewers is not None else 0
    return None if _is_small(others, below) else of.opened


def _finished(of: Section | Video, below: int) -> Count:
    """How many finished it, unless few did, or few of those who opened or played it did not."""
    if not of.finished:
        return of.finished
    shown = (count for count in (_opened(of, below), of.viewers) if count is not None)
    groups = (of.finished, *(abs(count - of.finished) for count in shown))
    return None if any(_is_small(group, below) for group in groups) else of.finished


def _place(place: Place, below: int) -> Place:
    if _is_small(place.viewers, below):
        return Place(None, None, None)
    if _is_small(place.rewatchers, below):
        return Place(place.viewers, None, None)
    return place


def _periods(periods: tuple[Period, ...], below: int) -> tuple[Period, ...]:
    return tuple(
        Period(period.day, None, None) if _few(period, below) else period for period in periods
    )


def _few(came: Section | Video | Period, below: int) -> bool:
    return _is_small(came.viewers, below) or _is_small(came.opened, below)


def _is_small(count: Count, below: int) -> bool:
    return count is not None and 0 < count < below
