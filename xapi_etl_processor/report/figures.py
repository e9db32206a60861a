"""Reads what the report shows of a section, from the views of docs/watching.md."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import partial
from typing import Any

from xapi_etl_processor.base.errors import ClickHouseError, ClickHouseRefused
from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.report.learners import Learner, Roster, with_roster

BUCKETS = 100
"""Into how many equal parts `video_retention` cuts a video."""

MOST_DAYS = 60
"""Of more days than this, sessions are counted by week. Our limit: what a chart can show."""

Count = int | None
"""A number of people or of what they did; None if it is hidden, since the group is small."""

_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True)
class Days:
    """Of which days a report is, both included, and in which time zone days begin."""

    since: date | None = None
    until: date | None = None
    zone: str = "UTC"

    @property
    def are_all(self) -> bool:
        """Whether no day is left out."""
        return self.since is self.until is None


ALL_DAYS = Days()


@dataclass(frozen=True)
class Place:
    """A hundredth of a video: who played it, who did so more than once, how often it was played."""

    viewers: Count
    rewatchers: Count
    plays: Count


@dataclass(frozen=True)
class Stop:
    """A hundredth of a video in which viewers stopped for good, and how many had completed it."""

    bucket: int
    viewers: int
    completed: int


@dataclass(frozen=True)
class Seek:
    """Jumps from one hundredth of a video to another; seconds are where the two begin."""

    from_second: float
    to_second: float
    seeks: int
    viewers: int


@dataclass(frozen=True)
class Period:
    """A day, or the week that begins on it, in which sessions began."""

    day: date
    viewers: Count
    sessions: Count
    opened: Count = None


@dataclass(frozen=True)
class Video:
    """A video of the section. Minutes and shares are None if hidden or, a share, not known.

    Viewers are those who played it; `opened` counts all who came to it.
    """

    url: str
    title: str
    seconds: float
    viewers: Count
    sessions: Count
    finished: Count
    minutes_watched: float | None
    minutes_played: float | None
    average_share: float | None
    opened: Count = None
    places: tuple[Place, ...] = ()
    stops: tuple[Stop, ...] = ()
    seeks: tuple[Seek, ...] = ()
    periods: tuple[Period, ...] = ()

    @property
    def name(self) -> str:
        """Its title, or its address if no statement has one."""
        return self.title or self.url

    def second(self, bucket: int) -> float:
        """Where a bucket begins, in seconds."""
        return bucket * self.seconds / BUCKETS


@dataclass(frozen=True)
class Producer:
    """How far the stretches that a producer sends and those derived from its statements differ."""

    home_page: str
    platform: str
    sessions: int
    disagreement: float


@dataclass(frozen=True)
class Section:
    """All that the report of a section shows. Videos are sorted by minutes watched.

    `finished` counts who finished a video; `newest` is the time of the last statement.
    """

    name: str
    days: Days
    newest: datetime | None
    statements: Count
    without_time: Count
    viewers: Count
    weekly: bool
    videos: tuple[Video, ...]
    periods: tuple[Period, ...] = ()
    producers: tuple[Producer, ...] = ()
    learners: tuple[Learner, ...] = field(default=(), repr=False)
    opened: Count = None
    finished: Count = None


def sections(clickhouse: ClickHouse, days: Days) -> list[str]:
    """The sections that have video statements, by number and then by name."""
    ask = _asking(clickhouse, "", days)
    sql = "SELECT DISTINCT section_id, section FROM {db}.video_events ORDER BY section_id, section"
    return [name for _, name in ask(sql)]


def read_section(
    clickhouse: ClickHouse,
    name: str,
    days: Days = ALL_DAYS,
    *,
    with_learners: bool = False,
    roster: Roster | None = None,
) -> Section:
    """What the views say of a section, of the statements of these days.

    Learners are read only if asked for, since that names people; with a roster, also those who
    never came. Raises ClickHouseUnavailable, or ClickHouseRefused if a view or a right is missing.
    """
    db = clickhouse.database
    views = {view: f"{db}.{view}" for view in (_VIEWERS, *_OF_VIEWERS)}
    ask = partial(_asking(clickhouse, name, days), **views)
    read = partial(_read, name=name, days=days, with_learners=with_learners, roster=roster)
    try:
        with _viewers_held(ask, db) as held:
            return read(held)
    except ClickHouseRefused:
        # The user may not make such a table, or it was lost with its connection.
        return read(ask)


def _read(
    ask: _Ask, *, name: str, days: Days, with_learners: bool, roster: Roster | None
) -> Section:
    zone = f"'{days.zone}'"
    statements, without_time, newest, span, first, last = ask(_STATEMENTS, zone=zone)[0]
    weekly = span > MOST_DAYS
    periods: dict[str | None, list[Period]] = defaultdict(list)
    viewers = opened = finished = 0
    day_of = "session.1" if days.zone == "UTC" else _DAY_IN_ZONE.format(zone=zone)
    for kind, url, day, people, all_people, count, at_end in ask(
        _PERIODS, to_period=f"{day_of} - (toDayOfWeek({day_of}) - 1)" if weekly else day_of
    ):
        if kind == _TOTAL:
            viewers, opened, finished = people, all_people, at_end
        elif day != _EPOCH and first <= day <= last:  # else a session without a usable time
            periods[url if kind == _OF_VIDEO else None].append(
                Period(day, people, count, all_people)
            )
    places = _by_video(ask(_PLACES), Place)
    stops = _by_video(ask(_STOPS), Stop)
    seeks = _by_video(ask(_SEEKS), Seek)
    videos = tuple(
        Video(url, *figures, *(tuple(parts[url]) for parts in (places, stops, seeks, periods)))
        for url, *figures in ask(_VIDEOS)
    )
    return Section(
        name,
        days,
        newest if statements > without_time else None,
        statements,
        without_time,
        viewers,
        weekly,
        videos,
        tuple(periods[None]),
        tuple(Producer(*row) for row in ask(_PRODUCERS)),
        with_roster(ask(_LEARNERS, zone=zone), roster) if with_learners else (),
        opened,
        finished,
    )


_Rows = list[tuple[Any, ...]]
_Ask = Callable[..., _Rows]

# section_id leads the key: without it, some versions of ClickHouse read all sections.
_HERE = "WHERE section_id IN (0, toUInt64OrZero(%(section)s)) AND section = %(section)s"

# A clock that says 1904 or 2099 must not stretch an axis over a century. So a time counts only from
# 2010 on (the first version of xAPI is from 2011), and up to a day after the last bundle. The day
# of a bundle stands in its name; if it does not, the day on which its rows were stored counts.
_STATEMENTS = f"""
WITH (
    SELECT (toDate32('2010-01-01'), max(ifNull(written, toDate32(inserted_at))) + 1)
    FROM (
        SELECT inserted_at, toDate32OrNull(
            extract(source_file, '([0-9]{{{{4}}}}-[0-9][0-9]-[0-9][0-9])T')
        ) AS written
        FROM {{db}}.video_statements {_HERE}
    )
) AS around
SELECT count(), countIf(NOT has_time), toTimeZone(maxIf(timestamp, has_time), {{zone}}),
    dateDiff('day', minIf(timestamp, has_time), maxIf(timestamp, has_time), {{zone}}),
    any(around.1), any(around.2)
FROM (
    SELECT timestamp, timestamp_source NOT IN ('key', 'none')
        AND toDate32(timestamp) BETWEEN around.1 AND around.2 AS has_time
    FROM {{db}}.video_statements {_HERE}
)
"""

_VIEWERS = "video_viewers"
_OF_VIEWERS = (
    "video_engagement",
    "video_retention",
    "video_dropoff",
    "video_seeks",
    "viewer_progress",
)
"""What the report reads of views that are made of `video_viewers` alone."""

_HELD = "viewers_of_report"

# 1970-01-01 stands for a session without a usable time.
_DAY_IN_ZONE = (
    """if(session.1 = '1970-01-01', session.1, toDate32(toTimeZone(session.5, {zone})))"""
)

_VIDEOS = f"""
SELECT video_url, title, video_length, played, sessions, completions, minutes_watched,
    minutes_played, average_share, opened
FROM {{video_engagement}} {_HERE}
ORDER BY minutes_watched DESC, played DESC, opened DESC, video_url
"""

_PLACES = f"""
SELECT video_url, viewers, rewatchers, plays FROM {{video_retention}} {_HERE}
ORDER BY video_url, bucket
"""

_STOPS = f"""
SELECT video_url, bucket, viewers, completed FROM {{video_dropoff}} {_HERE}
ORDER BY video_url, bucket
"""

_SEEKS = f"""
SELECT video_url, from_second, to_second, seeks, viewers FROM {{video_seeks}} {_HERE}
ORDER BY video_url, seeks DESC, from_second, to_second
"""

# What grouping() gives: the section, a period of it, a period of a video.
_TOTAL, _OF_SECTION, _OF_VIDEO = 3, 2, 0
_PERIODS = f"""
SELECT grouping(video_url, day) AS kind, video_url, {{to_period}} AS day,
    uniqExactIf((home_page, user_id), session.4), uniqExact(home_page, user_id), count(),
    uniqExactIf((home_page, user_id), is_completed)
FROM {{video_viewers}} AS v ARRAY JOIN v.sessions AS session {_HERE}
GROUP BY GROUPING SETS ((), (day), (video_url, day))
ORDER BY day
"""

_PRODUCERS = f"""
SELECT home_page, platform, sessions, disagreement FROM {{db}}.stretch_disagreement {_HERE}
ORDER BY sessions DESC, home_page, platform
"""

_LEARNERS = f"""
SELECT home_page, user_id, countIf(played), countIf(is_completed), sum(minutes_watched),
    toDate32(toTimeZone(max(last_seen), {{zone}})), groupArray(video_url),
    groupArray(ifNull(share_watched, -1)), groupArrayIf(video_url, minutes_watched > 0)
FROM {{viewer_progress}} {_HERE}
GROUP BY home_page, user_id
ORDER BY home_page, user_id
"""


def _asking(clickhouse: ClickHouse, section: str, days: Days) -> _Ask:
    only = ""
    if not days.are_all:
        # A filter of the table itself: no view has the time of a statement. Those without one are
        # of 1970-01-01.
        first = days.since or _EPOCH + timedelta(1)
        bounds = [f"timestamp >= toDateTime64(''{first}'', 3, ''{days.zone}'')"]
        if days.until:
            end = min(days.until, date.max - timedelta(1)) + timedelta(1)
            bounds.append(f"timestamp < toDateTime64(''{end}'', 3, ''{days.zone}'')")
        table = f"{clickhouse.database}.video_events"
        only = f" SETTINGS additional_table_filters = {{'{table}': '{' AND '.join(bounds)}'}}"

    def ask(sql: str, **parts: str) -> _Rows:
        text = sql.format(db=clickhouse.database, **parts)
        return clickhouse.query(text + only, {"section": section})

    return ask


@contextmanager
def _viewers_held(ask: _Ask, db: str) -> Iterator[_Ask]:
    """Ask with the section's viewers in a temporary table: working them out takes nearly all of the
    time. Raises ClickHouseRefused if there can be no such table.
    """
    ask(f"DROP TEMPORARY TABLE IF EXISTS {_HELD}")
    ask(f"CREATE TEMPORARY TABLE {_HELD} AS SELECT * FROM {db}.{_VIEWERS} {_HERE}")
    sources = {_VIEWERS: _HELD}
    selects = f"SELECT name, as_select FROM system.tables WHERE database = '{db}'"
    for view, select in ask(f"{selects} AND name IN {_OF_VIEWERS}"):
        held = re.sub(rf"FROM `?{re.escape(db)}`?\.{_VIEWERS}\b", f"FROM {_HELD}", select)
        sources[view] = f"({held.replace('%', '%%')})"
    try:
        yield partial(ask, **sources)
    finally:
        with suppress(ClickHouseError):  # else it goes with the connection
            ask(f"DROP TEMPORARY TABLE IF EXISTS {_HELD}")


def _by_video(rows: Iterable[tuple[Any, ...]], kind: type) -> dict[str, list[Any]]:
    found = defaultdict(list)
    for url, *values in rows:
        found[url].append(kind(*values))
    return found
