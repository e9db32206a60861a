"""Who is in a section: what each learner watched, and who of a roster never came."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from io import StringIO
from pathlib import Path
from typing import Any

from xapi_etl_processor.base.errors import BadRequest

Roster = Mapping[str, str]
"""User ids without `mailto:`, each with a name or ''."""

_MAIL = "mailto:"
_HEADINGS = ("user_id", "user id", "id")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Learner:
    """An account, which is unique within its home page, or somebody on the roster who has none.

    `shares` has each video that was opened, with the share watched, None if it is not known;
    `watched` those of which something was played.
    """

    home_page: str
    user_id: str
    name: str = ""
    played: int = 0
    finished: int = 0
    minutes: float = 0
    last_seen: date | None = None
    shares: Mapping[str, float | None] = field(default_factory=dict, compare=False)
    watched: frozenset[str] = field(default=frozenset(), compare=False)

    @property
    def label(self) -> str:
        """The name and the identifier, with the home page of an account."""
        who = self.user_id or "no identifier"
        if self.home_page:
            who = f"{who} ({self.home_page})"
        return f"{self.name}, {who}" if self.name else who


def read_roster(path: Path) -> Roster:
    """The people of a roster, without `mailto:`: lines of CSV with a user id and, if it is known, a
    name. Raises BadRequest if there are none or something cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BadRequest(
            f"{path} cannot be read ({error.strerror}): name a file of user ids"
        ) from error
    except UnicodeDecodeError as error:
        raise BadRequest(f"{path} is not UTF-8: save it as CSV in UTF-8") from error
    first = text.partition("\n")[0]
    mark = ";" if ";" in first and "," not in first else ","  # as some countries' spreadsheets do
    rows = csv.reader(StringIO(text), delimiter=mark, skipinitialspace=True, strict=True)
    try:
        cells = [[cell.strip() for cell in row] for row in rows]
    except csv.Error as error:
        raise BadRequest(f"{path} is not CSV: {error}, near line {rows.line_num}") from error
    people = {
        row[0].removeprefix(_MAIL): row[1] if len(row) > 1 else ""
        for row in cells
        if row and row[0]
    }
    if next(iter(people), "").lower() in _HEADINGS:
        people.pop(next(iter(people)))
    if not people:
        raise BadRequest(f"{path} has no user ids: write one a line")
    return people


def with_roster(
    rows: Iterable[tuple[Any, ...]], roster: Roster | None = None
) -> tuple[Learner, ...]:
    """All who opened a video, named as on the roster, and who is on it and never came."""
    names = roster or {}
    learners = []
    for home_page, user_id, played, finished, minutes, last, opened, shares, watched in rows:
        learners.append(
            Learner(
                home_page,
                user_id,
                names.get(user_id.removeprefix(_MAIL), ""),
                played,
                finished,
                minutes,
                last if last > date(1970, 1, 2) else None,
                dict(zip(opened, (None if part < 0 else part for part in shares), strict=True)),
                frozenset(watched),
            )
        )
    came = {learner.user_id.removeprefix(_MAIL) for learner in learners}
    absent = (Learner("", who, name) for who, name in names.items() if who not in came)
    return (*learners, *absent)


def progress(learners: Iterable[Learner], videos: Mapping[str, str]) -> str:
    """A line of CSV for each learner, with the share watched of each video.

    Videos are given by address, each with its name.
    """
    file = StringIO()
    # In lines that end as RFC 4180 has it, all line breaks within a cell are quoted.
    write = csv.writer(file).writerow
    known = ("user_id", "home_page", "name", "opened", "played", "finished")
    write([*known, "minutes_watched", "last_seen", *map(_as_text, videos.values())])
    for who in learners:
        shares = (who.shares.get(url, 0) for url in videos)
        write(
            [
                *(_as_text(text) for text in (who.user_id, who.home_page, who.name)),
                *(len(who.shares), who.played, who.finished),
                f"{who.minutes:.1f}",
                who.last_seen or "",
                *("" if part is None else f"{part:.3f}" for part in shares),
            ]
        )
    # Excel takes a file without a byte order mark for one of the system's code page.
    return f"\ufeff{file.getvalue()}"


def _as_text(text: str) -> str:
    # Spreadsheets take a text that begins so for a formula, and titles and ids are not ours.
    return f"'{text}" if text.startswith(_FORMULA) else text
