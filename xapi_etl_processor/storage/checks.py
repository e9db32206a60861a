"""Questions about the tables and the rights of the user; the answers say what is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from xapi_etl_processor.base.clickhouse_errors import MIGRATE
from xapi_etl_processor.base.errors import (
    ClickHouseDenied,
    ClickHouseRefused,
    ClickHouseUnavailable,
)
from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.storage.tables import (
    EVENTS,
    OUTER_VIEWS,
    STATEMENTS,
    SUMMARIES,
    TYPES,
    VIEWS,
)

Ask = Callable[..., list[tuple[Any, ...]]]
"""Sends one query with its parameters; returns its rows. Raises ClickHouseError."""

_DESTRUCTIVE = (
    *("ALL", "ALL PRIVILEGES", "ALTER", "ALTER COLUMN", "ALTER DELETE", "ALTER DROP COLUMN"),
    *("ALTER TABLE", "ALTER UPDATE", "DROP", "DROP DATABASE", "DROP TABLE", "TRUNCATE"),
)
"""Rights that the function never uses, and that could destroy what is stored."""

_GRANT = "GRANT SELECT ON system.clusters; GRANT SELECT ON system.replicas"
"""What a user may read only with a grant, unless the server allows all of `system` to everybody
(`select_from_system_db_requires_grant`)."""

_EXAMPLES = r"test\_%"
"""The names of the clusters in ClickHouse's own example configuration."""

MANY_ROWS = 10_000_000
"""Rows from which on a question over all sections may need more memory than ClickHouse has: 5 GB
(docs/scaling.md). Our choice."""

Engines = dict[str, str]
"""Table or view -> its engine, as `system.tables` shows it."""


def schema(ask: Ask, database: str) -> tuple[str, str | None]:
    """One of "current", "missing" and "behind", by comparing columns; and what is wrong."""
    rows = ask(
        "SELECT table, name, type FROM system.columns WHERE database = %(database)s",
        {"database": database},
    )
    found: dict[str, dict[str, str]] = {}
    for table, name, kind in rows:
        found.setdefault(table, {})[name] = kind
    needed = TYPES | {STATEMENTS: TYPES[EVENTS]}
    missing = [table for table in needed if table not in found]
    if missing:
        status = "missing" if EVENTS in missing else "behind"
        what = f"{database} lacks {', '.join(missing)}, or its user may not see it"
        return status, f"{what}: {MIGRATE}, and grant what docs/operations.md lists"
    differing = [
        f"{table}.{name} is {found[table].get(name, 'not there')}, not {kind}"
        for table, columns in needed.items()
        for name, kind in columns.items()
        if found[table].get(name) != kind
    ]
    if differing:
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        return "behind", f"{'; '.join(differing[:3])}{more}: {MIGRATE}"
    return "current", None


def engines(ask: Ask, database: str) -> Engines:
    """The engines of our tables and views, as far as the user may see them."""
    rows = ask(
        "SELECT name, engine FROM system.tables"
        " WHERE database = %(database)s AND name IN %(names)s",
        {"database": database, "names": (*TYPES, *VIEWS)},
    )
    return dict(rows)


def replication(ask: Ask, found: Engines, wanted: str) -> tuple[str | None, str | None]:
    """An error and a warning, if the server belongs to a cluster of replicas: the `wanted` one of
    the settings or, without one, any in which it is not alone.
    """
    try:
        rows = ask(
            "SELECT cluster, max(replicas) FROM"
            " (SELECT cluster, shard_num, count() AS replicas, max(is_local) AS here"
            " FROM system.clusters GROUP BY cluster, shard_num)"
            " WHERE here = 1 AND (cluster = %(wanted)s OR cluster NOT LIKE %(examples)s)"
            " GROUP BY cluster ORDER BY cluster",
            {"wanted": wanted, "examples": _EXAMPLES},
        )
    except ClickHouseRefused:
        hidden = f"whether the server belongs to a cluster cannot be seen: {_GRANT}"
        return (hidden, None) if wanted else (None, hidden)
    sizes: dict[str, int] = dict(rows)
    if wanted and wanted not in sizes:
        unknown = f"this server belongs to no cluster {wanted!r}: correct CLICKHOUSE_CLUSTER"
        return f"{unknown}, or see system.clusters", None
    cluster = wanted or next((name for name, size in sizes.items() if size > 1), None)
    # Shared engines are ClickHouse Cloud's, and replicated too.
    replicated = ("Replicated", "Shared")
    alone = [t for t in TYPES if t in found and not found[t].startswith(replicated)]
    if cluster is None or not alone:
        return None, None
    apart = (
        f"{', '.join(alone)} is not replicated, but this server is one of {sizes[cluster]} replicas"
        f" of the cluster {cluster!r}, and each would hold other rows: see docs/clickhouse.md"
    )
    return apart, None


def unreadable_view(ask: Ask, database: str, found: Engines, version: str) -> str | None:
    """A warning about the first view that the server refuses to read, as some versions do, or did
    not plan in time. No rows are read.
    """
    for view in OUTER_VIEWS:
        try:
            if view in found:
                ask(f"SELECT * FROM {database}.{view} LIMIT 0")
        except ClickHouseDenied:
            continue
        except ClickHouseRefused as error:
            return f"ClickHouse {version} does not read the view {view}: {MIGRATE} ({error})"
        except ClickHouseUnavailable as error:
            # A busy server takes seconds to plan them. Loading needs none of them.
            return f"whether the view {view} can be read is not known: {error}"
    return None


def unsummarized(ask: Ask, database: str) -> str | None:
    """A warning if a question over all sections may need more memory than ClickHouse has, and
    `summarize` has not run; None if the user may not see the summaries.
    """
    sizes: dict[str, Any] = dict(
        ask(
            "SELECT name, total_rows FROM system.tables"
            " WHERE database = %(database)s AND name IN %(names)s",
            {"database": database, "names": (EVENTS, SUMMARIES)},
        )
    )
    rows = sizes.get(EVENTS) or 0
    if rows < MANY_ROWS or sizes.get(SUMMARIES) or SUMMARIES not in sizes:
        return None
    return (
        f"{EVENTS} has {rows:,} rows: a view of what was watched may need more memory than"
        " ClickHouse has, if it is asked for all sections: run `summarize` every night, and ask"
        " section_videos"
    )


def cut_results(ask: Ask) -> str | None:
    """What is wrong if the user's profile cuts results in silence: a list of forgotten learners
    would lack some.
    """
    found = ask(
        "SELECT name, value FROM system.settings WHERE changed AND"
        " (name LIKE '%%overflow_mode%%' AND value != 'throw'"
        # ClickHouse applies these to the query itself, and then shows 0.
        " OR name IN ('limit', 'offset')) ORDER BY name",
        {},
    )
    if not found:
        return None
    named = ", ".join(f"{name} = {value}" for name, value in found)
    return f"the user's profile has results cut in silence ({named}): take that out of it"


def check_whole_results(clickhouse: ClickHouse) -> None:
    """Raises ClickHouseRefused as `cut_results` says."""
    if problem := cut_results(clickhouse.query):
        raise ClickHouseRefused(problem)


def missing_replicas(ask: Ask, database: str) -> str | None:
    """A warning about replicas that do not answer; None if all do, or there are none to see."""
    try:
        rows = ask(
            "SELECT table, active_replicas, total_replicas FROM system.replicas"
            " WHERE database = %(database)s"
            " AND (active_replicas < total_replicas OR is_readonly = 1) ORDER BY table",
            {"database": database},
        )
    except ClickHouseRefused:
        return None  # `replication` names the grant.
    if not rows:
        return None
    table, active, total = rows[0]
    return (
        f"{table} has {active} of {total} replicas: what is inserted now is copied to the others"
        " when they are back; check that they and Keeper are up"
    )


def unneeded_rights(ask: Ask, database: str) -> str | None:
    """A warning about rights that could destroy data; None from servers that do not tell."""
    try:
        # FINAL: with the rights that come from roles. Versions up to 24.8 do not know it.
        grants = ask("SHOW GRANTS FINAL")
    except ClickHouseRefused:
        try:
            grants = ask("SHOW GRANTS")
        except ClickHouseRefused:
            return None
    has = {right for (grant,) in grants for right in _rights(grant, database)}
    if not (unneeded := [right for right in _DESTRUCTIVE if right in has]):
        return None
    named = ", ".join(unneeded)
    return f"the user has rights it does not need: {named}; GRANT SELECT, INSERT is enough"


def _rights(grant: str, database: str) -> Sequence[str]:
    """What a line of SHOW GRANTS allows on one of our tables."""
    found = re.match(r"GRANT (.+?) ON (\S+)\.(\S+) TO ", grant)
    if not found:
        return ()
    rights, of_database, table = found[1], found[2].strip("`"), found[3].strip("`")
    if of_database not in ("*", database) or table not in ("*", *TYPES):
        return ()
    return re.sub(r"\([^)]*\)", "", rights).split(", ")
