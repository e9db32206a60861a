"""Forget learners: no load stores their statements any more, and what is stored is removed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from secrets import token_hex
from typing import Any

from xapi_etl_processor.base import secrets
from xapi_etl_processor.base.errors import ClickHouseUnavailable
from xapi_etl_processor.clickhouse_client import REPLY_SECONDS, ClickHouse
from xapi_etl_processor.privacy.learner import (
    Learner,
    check_key,
    conditions,
    rejected_lines,
    statements,
    stored_ids,
    tables_with_learners,
)
from xapi_etl_processor.storage import notes, summaries
from xapi_etl_processor.storage.checks import check_whole_results
from xapi_etl_processor.storage.learners import FRESH_SECONDS, Learners, hash_key
from xapi_etl_processor.storage.ledger import as_bytes
from xapi_etl_processor.storage.mutations import remove, remove_notes, rewrite
from xapi_etl_processor.storage.tables import EVENTS, FORGOTTEN, REJECTED
from xapi_etl_processor.xapi.learners import fingerprint, key_id, name_hash

LOAD_SECONDS = 2 * REPLY_SECONDS
"""How long to wait for inserts that are running. Our limit: the loader gives up on an insert after
REPLY_SECONDS of silence."""

ROUNDS = 5
"""How many times rows that were stored in the meantime are removed. Our limit."""

_POLL_SECONDS = 0.2
_KEYS = 1000

LEFT_TO_DO = (
    "objects in S3 still hold the statements: find them with --list-objects, and delete the objects"
    " or their lines; loading them again stores nothing of the learner",
    "backups of ClickHouse, and copies that people made (reports, CSV files, other tables): delete"
    " them there too; after restoring a backup, run forget --sweep",
    "section_videos is empty until `summarize` runs again",
    "ClickHouse's query log, if it is kept for long, and the platform that writes the statements",
)
"""What this command cannot do."""


def count(learners: Sequence[Learner], clickhouse: ClickHouse) -> dict[str, Any]:
    """How much forgetting would remove, stored under which ids. Raises as `check_key` does."""
    check_key(clickhouse)
    found = statements(learners, clickhouse)
    return {
        "user_ids": sorted({user_id for user_id, _ in found}),
        "home_pages": _home_pages(found),
        "rows_removed": sum(found.values()),
        "rejected_lines_removed": sum(1 for _ in rejected_lines(learners, clickhouse)),
        "dry_run": True,
    }


def forget(learners: Sequence[Learner], clickhouse: ClickHouse) -> dict[str, Any]:
    """Forget learners; returns what was removed, and what is left for a person to do.

    First their hashes are kept, so that no load that begins from now on stores anything of them.
    Then loads that have begun are waited for, and what is stored is removed. Safe to repeat. Raises
    as `check_key` does, and ClickHouseUnavailable if loads do not end.
    """
    check_key(clickhouse)
    noted = notes.overtaken(clickhouse).get(notes.SWEEP)
    found = statements(learners, clickhouse)
    remember(learners, clickhouse)
    removed = {"rows_removed": 0, "rejected_lines_removed": 0}
    for _ in range(ROUNDS):
        wait_for_loads(clickhouse)
        removed["rows_removed"] += sum(statements(learners, clickhouse).values())
        _remove_rows(learners, clickhouse)
        lines = [line[:3] for line in rejected_lines(learners, clickhouse)]
        removed["rejected_lines_removed"] += _blank_lines(lines, clickhouse)
        again = notes.overtaken(clickhouse).get(notes.SWEEP)
        if again == noted:
            # It names nobody: what is printed may be kept.
            done = {"home_pages": _home_pages(found), **removed, "dry_run": False}
            return {**done, "left_to_do": list(LEFT_TO_DO)}
        noted = again
    raise ClickHouseUnavailable(
        "statements of the learners are stored again and again: something writes to"
        f" {clickhouse.database}.{EVENTS} that is older than this version, or many loads run at"
        " once: stop them, then forget them again"
    )


def _home_pages(found: Iterable[tuple[str, str]]) -> list[str]:
    return sorted({page for _, page in found})


def remember(learners: Sequence[Learner], clickhouse: ClickHouse) -> None:
    """Put learners on the list, on all replicas: a load may ask any of them."""
    secret = secrets.learner_key(clickhouse.settings)
    salt = _salt(clickhouse)
    key = hash_key(salt, secret)
    spelled = [
        (user_id, learner.home_page)
        for learner in learners
        for user_id in stored_ids(learner, secret)
    ]
    columns: dict[str, list[Any]] = {
        "learner": [fingerprint(user_id, page, key) for user_id, page in spelled],
        "name": [name_hash(user_id, key) for user_id, _ in spelled],
        "salt": [salt] * len(spelled),
        "key_id": [key_id(secret) if secret else ""] * len(spelled),
    }
    clickhouse.insert(FORGOTTEN, columns, settings=notes.on_all_replicas(clickhouse, FORGOTTEN))


def _salt(clickhouse: ClickHouse) -> str:
    """The salt that is in use; a new one for the first learner."""
    [(salt,)] = clickhouse.query(
        f"SELECT max(salt) FROM {clickhouse.database}.{FORGOTTEN} WHERE NOT again"
    )
    return str(salt) or token_hex(32)


def wait_for_loads(clickhouse: ClickHouse) -> None:
    """Wait for inserts whose batch may have been checked before now; raises ClickHouseUnavailable
    after LOAD_SECONDS.
    """
    time.sleep(FRESH_SECONDS)
    began = time.monotonic()
    where = clickhouse.everywhere("system.processes")
    while True:
        waited = time.monotonic() - began
        running = clickhouse.query(
            f"SELECT count() FROM {where} WHERE elapsed >= %(waited)s"
            " AND query ILIKE 'INSERT INTO%%' AND position(query, %(table)s) > 0",
            {"waited": waited, "table": f"{clickhouse.database}.{EVENTS} "},
        )
        if not running[0][0]:
            return
        if waited > LOAD_SECONDS:
            raise ClickHouseUnavailable(
                f"inserts into {clickhouse.database}.{EVENTS} have not ended for {LOAD_SECONDS}"
                " seconds: see system.processes, then run this again"
            )
        time.sleep(_POLL_SECONDS)


def _remove_rows(learners: Sequence[Learner], clickhouse: ClickHouse) -> None:
    for table in tables_with_learners(clickhouse):
        for where, params in conditions(learners, clickhouse):
            remove(clickhouse, table, where, params)
    # All: of whom no row is left, nobody knows the sections.
    summaries.remove_all(clickhouse)


def _blank_lines(keys: Sequence[tuple[Any, ...]], clickhouse: ClickHouse) -> int:
    """Remove the text of rejected lines. Reason and place stay, so that counts still add up."""
    for start in range(0, len(keys), _KEYS):
        rewrite(
            clickhouse,
            REJECTED,
            "line = ''",
            "(source_file, source_etag, source_line) IN %(keys)s",
            {"keys": tuple(keys[start : start + _KEYS])},
        )
    return len(keys)


def sweep(clickhouse: ClickHouse, *, dry_run: bool = False) -> dict[str, Any]:
    """Remove what is stored of everybody who was ever forgotten: after a backup was restored, or a
    load said that it stored their statements again.
    """
    check_whole_results(clickhouse)
    known = Learners(clickhouse)
    noted = notes.overtaken(clickhouse).get(notes.SWEEP)
    known.refresh()
    if not dry_run:
        wait_for_loads(clickhouse)
    people: set[tuple[str, str]] = set()
    for table in tables_with_learners(clickhouse):
        people.update(
            clickhouse.query(
                f"SELECT DISTINCT user_id, toString(home_page) FROM {clickhouse.database}.{table}"
            )
        )
    learners = [Learner(*person) for person in sorted(known.forgotten(people))]
    removed = sum(statements(learners, clickhouse).values())
    if not dry_run:
        _remove_rows(learners, clickhouse)
    rows = clickhouse.query(
        "SELECT source_file, source_etag, source_line, line"
        f" FROM {clickhouse.database}.{REJECTED} WHERE line != ''"
    )
    # A line can have several rows.
    lines = list({row[:3]: None for row in rows if known.names_forgotten(as_bytes(row[3]))})
    if not dry_run:
        _blank_lines(lines, clickhouse)
        remove_notes(clickhouse, notes.SWEEP, noted)
    return {"rows_removed": removed, "rejected_lines_removed": len(lines), "dry_run": dry_run}
