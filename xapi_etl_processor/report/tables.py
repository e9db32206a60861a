"""Writes the report's numbers as CSV files, for a spreadsheet."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from xapi_etl_processor.report.figures import Section

_Rows = Iterable[tuple[Any, ...]]


def write_tables(section: Section, folder: Path) -> list[Path]:
    """Write a file each for videos, places, stops, seeks, periods and learners; their paths.

    Hidden and unknown numbers are empty fields. Raises OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return [_write(folder / f"{name}.csv", rows) for name, rows in _tables(section).items()]


def _tables(section: Section) -> dict[str, list[tuple[Any, ...]]]:
    videos = section.videos
    tables: dict[str, list[tuple[Any, ...]]] = {
        "videos": [
            ("video_url", "title", "video_length", "viewers", "sessions", "completions",
             "minutes_watched", "minutes_played", "average_share"),
            *(
                (v.url, v.title, v.seconds, v.viewers, v.sessions, v.completions,
                 v.minutes_watched, v.minutes_played, v.average_share)
                for v in videos
            ),
        ],
        "retention": [
            ("video_url", "from_second", "to_second", "viewers", "rewatchers", "plays"),
            *(
                (v.url, v.second(at), v.second(at + 1),
                 place.viewers, place.rewatchers, place.plays)
                for v in videos
                for at, place in enumerate(v.places)
            ),
        ],
        "stops": [
            ("video_url", "from_second", "to_second", "viewers", "completed"),
            *(
                (v.url, v.second(stop.bucket), v.second(stop.bucket + 1),
                 stop.viewers, stop.completed)
                for v in videos
                for stop in v.stops
            ),
        ],
        "seeks": [
            ("video_url", "from_second", "to_second", "seeks", "viewers"),
            *(
                (v.url, seek.from_second, seek.to_second, seek.seeks, seek.viewers)
                for v in videos
                for seek in v.seeks
            ),
        ],
        "sessions": [
            ("video_url", "week" if section.weekly else "day", "sessions", "viewers"),
            *(("", period.day, period.sessions, period.viewers) for period in section.periods),
            *(
                (v.url, period.day, period.sessions, period.viewers)
                for v in videos
                for period in v.periods
            ),
        ],
    }  # fmt: skip
    if section.learners:
        tables["not_watched"] = [
            ("video_url", "home_page", "user_id"),
            *((v.url, who.home_page, who.user_id) for v in videos for who in v.not_watched_by),
        ]
    return tables


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
