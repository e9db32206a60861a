"""Learners as people name them, and what finds their rows."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from typing import Any, NamedTuple

from xapi_etl_processor.base import secrets
from xapi_etl_processor.base.errors import BadRequest, ConfigurationError
from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.storage.checks import check_whole_results
from xapi_etl_processor.storage.learners import Learners
from xapi_etl_processor.storage.ledger import as_bytes
from xapi_etl_processor.storage.tables import EVENTS, OLD_EVENTS, REJECTED
from xapi_etl_processor.xapi.learners import (
    comparable,
    has_any_capitals,
    pseudonym,
    spellings,
    texts_in,
)

_COMPARABLE = (
    "if(match(user_id, '(?is)^(mailto:.*|[0-9a-f]{40}|[^ @]+@[^ @]+)$'), lower(user_id), user_id)"
)
"""`comparable`, in SQL."""

IS_PSEUDONYM = "match(user_id, '^hmac:[0-9a-f]{64}$')"
"""What is true for rows with a pseudonym, in SQL."""

AT_ONCE = 2000
"""Learners in one change: Keeper keeps it, and takes at most 1 MB."""

_FIELDS = {"user", "home_page", "mbox"}


class Learner(NamedTuple):
    """A user id as statements have it, and its home page; None stands for any home page."""

    user_id: str
    home_page: str | None = None


def by_mail(mbox: str) -> list[Learner]:
    """A learner by mail address, however statements give it."""
    return [Learner(spelling) for spelling in spellings(mbox)]


def read_file(path: Path) -> list[Learner]:
    """The learners of a CSV file with a column `user` or `mbox`, and perhaps `home_page`; raises
    BadRequest if it cannot be read, or a line names nobody.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            names = set(rows.fieldnames or ())
            if not names & {"user", "mbox"} or names - _FIELDS:
                raise BadRequest(
                    f"{path}: the first line must name the columns: user or mbox, and home_page if"
                    " it is needed"
                )
            found = [learner for row in rows for learner in _of_row(row, path, rows.line_num)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadRequest(f"{path} cannot be read: {error}") from error
    if not found:
        raise BadRequest(f"{path} names no learner")
    return found


def _of_row(row: dict[str, Any], path: Path, line: int) -> list[Learner]:
    # Spreadsheets leave blanks, and neither an address nor a URL has any; a name may.
    user, mbox = row.get("user") or "", (row.get("mbox") or "").strip()
    if not (user or mbox) or None in row:
        raise BadRequest(f"{path} line {line}: a user or an mbox is needed, and nothing else")
    home_page = (row.get("home_page") or "").strip() or None
    if home_page and not user:
        raise BadRequest(f"{path} line {line}: a home_page needs a user: an mbox has none")
    return [*([Learner(user, home_page)] if user else []), *(by_mail(mbox) if mbox else [])]


def stored_ids(learner: Learner, key: bytes) -> tuple[str, ...]:
    """The user ids under which rows of a learner may be stored: as it is, and as a pseudonym."""
    return (learner.user_id, pseudonym(learner.user_id, key)) if key else (learner.user_id,)


def conditions(
    learners: Sequence[Learner], clickhouse: ClickHouse
) -> Iterator[tuple[str, dict[str, Any]]]:
    """What is true for the learners' rows, and its parameters, for at most AT_ONCE of them each."""
    key = secrets.learner_key(clickhouse.settings)
    for start in range(0, len(learners), AT_ONCE):
        yield _condition(learners[start : start + AT_ONCE], key)


def _condition(learners: Sequence[Learner], key: bytes) -> tuple[str, dict[str, Any]]:
    any_capitals = any(has_any_capitals(learner.user_id) for learner in learners)
    column = hashed_column(_COMPARABLE if any_capitals else "user_id")
    salt = token_hex(16)
    anywhere, pages = [], []
    for learner in learners:
        for user_id in stored_ids(learner, key):
            found = hashed(comparable(user_id), salt)
            if learner.home_page is None:
                anywhere.append(found)
            else:
                pages.append((found, learner.home_page))
    parts = []
    if anywhere:
        parts.append(f"{column} IN %(anywhere)s")
    if pages:
        parts.append(f"({column}, toString(home_page)) IN %(pages)s")
    params = {"anywhere": tuple(anywhere), "pages": tuple(pages), "salt": salt}
    return f"({' OR '.join(parts)})", params


def hashed_column(column: str) -> str:
    """`hashed` in SQL, of a column, with the parameter `salt`."""
    return f"hex(SHA256(concat(%(salt)s, {column})))"


def hashed(user_id: str, salt: str) -> str:
    """What stands for a user id in queries: system.mutations and the query log keep their text."""
    return sha256((salt + user_id).encode()).hexdigest().upper()


def tables_with_learners(clickhouse: ClickHouse) -> list[str]:
    """The tables with a user id in each row."""
    rows = clickhouse.query(
        "SELECT name FROM system.tables WHERE database = %(database)s AND name IN %(names)s"
        " ORDER BY name",
        {"database": clickhouse.database, "names": (EVENTS, OLD_EVENTS)},
    )
    return [name for (name,) in rows]


def statements(learners: Sequence[Learner], clickhouse: ClickHouse) -> dict[tuple[str, str], int]:
    """How many statements the learners have, each counted once, by stored user id and home page."""
    found: Counter[tuple[str, str]] = Counter()
    for table in tables_with_learners(clickhouse):
        for where, params in conditions(learners, clickhouse):
            for user_id, page, rows in clickhouse.query(
                f"SELECT user_id, toString(home_page), count() FROM {clickhouse.database}.{table}"
                f" FINAL WHERE {where} GROUP BY 1, 2 ORDER BY 1, 2",
                params,
            ):
                found[user_id, page] += rows
    return dict(found)


def check_key(clickhouse: ClickHouse) -> Learners:
    """The list of forgotten learners, if the right key is set for it and for the stored rows.

    Raises ConfigurationError if it is not, and ClickHouseRefused as `check_whole_results` does: a
    learner's rows would seem not to be there.
    """
    check_whole_results(clickhouse)
    known = Learners(clickhouse)
    known.refresh()
    if secrets.learner_key(clickhouse.settings):
        return known
    for table in tables_with_learners(clickhouse):
        if clickhouse.query(
            f"SELECT 1 FROM {clickhouse.database}.{table} WHERE {IS_PSEUDONYM} LIMIT 1"
        ):
            raise ConfigurationError(
                f"LEARNER_KEY_SECRET_ARN is not set, and {table} has pseudonyms: set it as the"
                " function has it, or rows of the learner would not be found"
            )
    return known


class RejectedLine(NamedTuple):
    """A row of rejected_statements: its key, the reason and the line."""

    source_file: str
    source_etag: str
    source_line: int
    reason: str
    line: str


def rejected_lines(learners: Sequence[Learner], clickhouse: ClickHouse) -> Iterator[RejectedLine]:
    """The rejected lines that name one of the learners, each once, however many rows it has."""
    names = {comparable(learner.user_id) for learner in learners}
    found = set()
    needles = sorted(names)
    for start in range(0, len(needles), 100):
        # A line with a backslash may spell a name in another way, and so does UTF-16.
        rows = clickhouse.query(
            "SELECT source_file, source_etag, source_line, toString(reason), line"
            f" FROM {clickhouse.database}.{REJECTED}"
            " WHERE multiSearchAnyCaseInsensitive(line, %(needles)s)"
            " OR position(line, '\\\\') > 0 OR position(line, '\\0') > 0",
            {"needles": needles[start : start + 100]},
        )
        part = set(needles[start : start + 100])
        for row in rows:
            line = as_bytes(row[4])
            if row[:3] not in found and not part.isdisjoint(map(comparable, texts_in(line))):
                found.add(row[:3])
                yield RejectedLine._make((*row[:4], line.decode(errors="replace")))
