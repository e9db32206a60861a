"""Writes the report's numbers as CSV files, for a spreadsheet."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from dataclasses import astuple
from pathlib import Path
from typing import Any

from xapi_etl_processor.report.figures import Period, Section, Video

_Rows = Iterable[tuple[Any, ...]]


def write_tables(section: Section, folder: Path) -> list[Path]:
    """Write a file each for videos, places, stops, seeks, periods and learners; their paths.

    Hidden and unknown numbers are empty fields. Raises OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return [_write(folder / f"{name}.csv", rows) for name, rows in _tables(section).items()]


def _tables(section: Section) -> dict[str, list[tuple[Any, ...]]]:
    def of_each(names: str, rows: Callable[[Video], _Rows]) -> list[tuple[Any, ...]]:
        found = ((video.url, *row) for video in section.videos for row in rows(video))
        return [("video_url", *names.split()), *found]

    tables = {
        "videos": of_each(
            "title video_length viewers sessions completions minutes_watched minutes_played"
            " average_share",
            lambda v: [
                (
                    *(v.title, v.seconds, v.viewers, v.sessions, v.completions),
                    *(v.minutes_watched, v.minutes_played, v.average_share),
                )
            ],
        ),
        "retention": of_each(
            "from_second to_second viewers rewatchers plays",
            lambda v: (
                (v.second(at), v.second(at + 1), place.viewers, place.rewatchers, place.plays)
                for at, place in enumerate(v.places)
            ),
        ),
        "stops": of_each(
            "from_second to_second viewers completed",
            lambda v: (
                (v.second(stop.bucket), v.second(stop.bucket + 1), stop.viewers, stop.completed)
                for stop in v.stops
            ),
        ),
        "seeks": of_each("from_second to_second seeks viewers", lambda v: map(astuple, v.seeks)),
        "sessions": of_each(
            f"{'week' if section.weekly else 'day'} sessions viewers",
            lambda v: _sessions(v.periods),
        ),
    }
    tables["sessions"][1:1] = [("", *row) for row in _sessions(section.periods)]
    if section.learners:
        tables["not_watched"] = of_each(
            "home_page user_id", lambda v: map(astuple, v.not_watched_by)
        )
    return tables


def _sessions(periods: Iterable[Period]) -> _Rows:
    return ((period.day, period.sessions, period.viewers) for period in periods)


def _write(path: Path, rows: _Rows) -> Path:
    # Excel reads UTF-8 only with a byte order mark.
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows([_cell(value) for value in row] for row in rows)
    return path


def _cell(value: Any) -> Any:
    """A value of which no spreadsheet makes a formula (OWASP, "CSV Injection")."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return value
