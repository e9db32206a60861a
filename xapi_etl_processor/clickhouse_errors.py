"""What ClickHouse's error codes mean for whoever sent the query: THE table, and no other place."""

from __future__ import annotations

from typing import Literal, NamedTuple

Verdict = Literal["retry", "uncertain", "fatal"]
"""retry: nothing was done, it can work later. uncertain: it may have been done; the same rows with
the same token may be sent again. fatal: somebody must change something first."""


class Refusal(NamedTuple):
    """ClickHouse's name of an error, what follows from it, and what a person should do."""

    name: str
    verdict: Verdict
    remedy: str


_LATER = "nothing: it is tried again"
_MIGRATE = "run `python -m xapi_etl_processor migrate`"
_LOGIN = "check CLICKHOUSE_USERNAME and the password"

REFUSALS = {
    16: Refusal("NO_SUCH_COLUMN_IN_TABLE", "fatal", f"a column is missing: {_MIGRATE}"),
    36: Refusal("BAD_ARGUMENTS", "fatal", "use ClickHouse 22.2 or later"),
    47: Refusal("UNKNOWN_IDENTIFIER", "fatal", f"a column is missing: {_MIGRATE}"),
    50: Refusal("UNKNOWN_TYPE", "fatal", "use ClickHouse 22.2 or later"),
    53: Refusal("TYPE_MISMATCH", "fatal", "compare the table with the README: it was changed"),
    60: Refusal("UNKNOWN_TABLE", "fatal", f"a table is missing: {_MIGRATE}"),
    81: Refusal("UNKNOWN_DATABASE", "fatal", f"the database is missing: {_MIGRATE}"),
    115: Refusal("UNKNOWN_SETTING", "fatal", "use ClickHouse 22.2 or later"),
    159: Refusal("TIMEOUT_EXCEEDED", "uncertain", _LATER),
    164: Refusal("READONLY", "fatal", "give the user a profile without `readonly`"),
    192: Refusal("UNKNOWN_USER", "fatal", "check CLICKHOUSE_USERNAME"),
    193: Refusal("WRONG_PASSWORD", "fatal", "check the password"),
    194: Refusal("REQUIRED_PASSWORD", "fatal", "check the password"),
    202: Refusal("TOO_MANY_SIMULTANEOUS_QUERIES", "retry", "lower MaximumConcurrency, if often"),
    203: Refusal("NO_FREE_CONNECTION", "retry", _LATER),
    209: Refusal("SOCKET_TIMEOUT", "uncertain", _LATER),
    210: Refusal("NETWORK_ERROR", "uncertain", _LATER),
    225: Refusal("NO_ZOOKEEPER", "retry", "see that Keeper is up, if it lasts"),
    236: Refusal("ABORTED", "uncertain", _LATER),
    241: Refusal("MEMORY_LIMIT_EXCEEDED", "retry", "lower BATCH_ROWS, if often"),
    242: Refusal("TABLE_IS_READ_ONLY", "retry", "see that Keeper is up, if it lasts"),
    285: Refusal("TOO_FEW_LIVE_REPLICAS", "retry", "see that the replicas are up, if it lasts"),
    319: Refusal("UNKNOWN_STATUS_OF_INSERT", "uncertain", _LATER),
    394: Refusal("QUERY_WAS_CANCELLED", "uncertain", _LATER),
    425: Refusal("SYSTEM_ERROR", "uncertain", _LATER),
    497: Refusal("ACCESS_DENIED", "fatal", "grant what the README's deployment section lists"),
    516: Refusal("AUTHENTICATION_FAILED", "fatal", _LOGIN),
    999: Refusal("KEEPER_EXCEPTION", "uncertain", _LATER),
}
"""By code, of ClickHouse's ErrorCodes.cpp; one that is not here is fatal."""

SPEAKING = (16, 47, 60, 81, 115, 242, 252, 285, 497)
"""Of inserts, the codes whose text is passed on: it names tables, columns, rights and counts. That
of others may quote a value."""

TOO_MANY_PARTS = 252
_CROWDED = Refusal("TOO_MANY_PARTS", "retry", "raise BatchingWindow, if often")
_SCATTERED = Refusal("TOO_MANY_PARTS", "fatal", "raise max_partitions_per_insert_block")
_UNKNOWN = Refusal("", "fatal", "see the server's log")

WRONG_LOGIN = (192, 193, 194, 516)
"""After these the password is asked for again, once: it may have been rotated."""


def refusal(code: int, text: str) -> Refusal:
    """What an error means. One code has two meanings: merges that lag behind, which end, and one
    insert into too many partitions, which does not.
    """
    if code == TOO_MANY_PARTS:
        return _SCATTERED if "partitions for single" in text.lower() else _CROWDED
    return REFUSALS.get(code, _UNKNOWN)


def refusals_table() -> str:
    """The table, as Markdown."""
    known = {str(code): found for code, found in REFUSALS.items()}
    known["252, of parts"], known["252, of partitions"] = _CROWDED, _SCATTERED
    known["any other"] = _UNKNOWN
    rows = sorted(known.items(), key=lambda item: (item[0] == "any other", item[0]))
    return "| code | name | verdict | what to do |\n|---|---|---|---|\n" + "".join(
        f"| {code} | {found.name} | {found.verdict} | {found.remedy} |\n" for code, found in rows
    )
