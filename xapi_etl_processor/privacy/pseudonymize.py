"""Rewrite what was stored before LEARNER_IDS was pseudonyms."""

from __future__ import annotations

from secrets import token_hex
from typing import Any

from xapi_etl_processor.base.errors import ClickHouseUnavailable, ConfigurationError
from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.privacy.forget import ROUNDS, wait_for_loads
from xapi_etl_processor.privacy.learner import (
    AT_ONCE,
    IS_PSEUDONYM,
    check_key,
    hashed,
    hashed_column,
    tables_with_learners,
)
from xapi_etl_processor.storage import notes
from xapi_etl_processor.storage.learners import Learners, pseudonym_key
from xapi_etl_processor.storage.mutations import remove_notes, rewrite
from xapi_etl_processor.storage.tables import EVENTS, NOTES, REJECTED
from xapi_etl_processor.xapi.learners import key_id, pseudonym

_PLAIN = f"user_id != '' AND NOT {IS_PSEUDONYM}"


def pseudonymize(clickhouse: ClickHouse, *, dry_run: bool = False) -> dict[str, Any]:
    """Replace each user id that is stored by its pseudonym, and drop the lines of rejected lines.

    First it is noted, so that no load that begins from now on stores other ids; then loads that
    have begun are waited for. Safe to repeat. Raises ConfigurationError unless LEARNER_IDS is
    pseudonyms, with the key that was always used, and ClickHouseUnavailable if loads do not end.
    """
    settings = clickhouse.settings
    if settings.learner_ids != "pseudonyms":
        raise ConfigurationError(
            "LEARNER_IDS is not pseudonyms: set it for the function first, or it would store plain"
            " ids again; then here"
        )
    key = pseudonym_key(settings)
    check_key(clickhouse)
    Learners(clickhouse).check()
    if dry_run:
        return {**_rewrite(clickhouse, key, dry_run=True), "dry_run": True}
    replicas = notes.on_all_replicas(clickhouse, NOTES)
    notes.note_learner_ids(clickhouse, key_id(key), settings=replicas)
    done = {"user_ids": 0, "rejected_lines": 0}
    for _ in range(ROUNDS):
        noted = notes.overtaken(clickhouse).get(notes.PSEUDONYMIZE)
        wait_for_loads(clickhouse)
        more = _rewrite(clickhouse, key, dry_run=False)
        done = {name: count + more[name] for name, count in done.items()}
        if notes.overtaken(clickhouse).get(notes.PSEUDONYMIZE) == noted:
            remove_notes(clickhouse, notes.PSEUDONYMIZE, noted)
            return {**done, "dry_run": False}
    raise ClickHouseUnavailable(
        "ids are stored as they are again and again: something writes to"
        f" {clickhouse.database}.{EVENTS} that is older than this version, or many loads run at"
        " once: stop them, then pseudonymize again"
    )


def _rewrite(clickhouse: ClickHouse, key: bytes, *, dry_run: bool) -> dict[str, int]:
    rewritten = 0
    for table in tables_with_learners(clickhouse):
        where = f"{clickhouse.database}.{table} WHERE {_PLAIN}"
        plain = [user for (user,) in clickhouse.query(f"SELECT DISTINCT user_id FROM {where}")]
        rewritten += len(plain)
        for start in range(0, 0 if dry_run else len(plain), AT_ONCE):
            users = plain[start : start + AT_ONCE]
            salt = token_hex(16)
            column = hashed_column("user_id")
            rewrite(
                clickhouse,
                table,
                f"user_id = transform({column}, %(users)s, %(pseudonyms)s, user_id)",
                f"{column} IN %(users)s",
                {
                    "salt": salt,
                    "users": [hashed(user, salt) for user in users],
                    "pseudonyms": [pseudonym(user, key) for user in users],
                },
            )
    [(lines,)] = clickhouse.query(
        f"SELECT countIf(line != '') FROM {clickhouse.database}.{REJECTED}"
    )
    if lines and not dry_run:
        rewrite(clickhouse, REJECTED, "line = ''", "line != ''", {})
    return {"user_ids": rewritten, "rejected_lines": lines}
