"""What errors of ClickHouse and of its driver mean: its codes, in one table, and our errors."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from clickhouse_driver import errors

from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.errors import (
    ClickHouseBusy,
    ClickHouseDenied,
    ClickHouseError,
    ClickHouseRefused,
    ClickHouseUnavailable,
    ClickHouseWaking,
    DeadlinePassed,
    OutcomeUnknown,
)

QUERY = "query"
"""What is being done, where an error may show all of it."""

Verdict = Literal["retry", "busy", "uncertain", "fatal"]
"""retry: nothing was done, and it can work later. busy: the same, but an insert waits for minutes.
uncertain: it may have been done, and doing it again is safe. fatal: somebody must change something
first."""


class Meaning(NamedTuple):
    """ClickHouse's name of an error, what follows from it, and what a person should do."""

    name: str
    verdict: Verdict
    remedy: str


_WAIT = "it is retried; there is nothing to do"
_FEWER_WRITERS = "if it happens often, lower MaximumConcurrency"
_REPLICAS = "if it lasts, check that the replicas are up"
_KEEPER = "if it lasts, check that Keeper is up"
_SPACE = "free or add disk space; nothing that was acknowledged is lost"
_FULL = f"the server cannot write: {_SPACE}"
_CHANGED = "the table was changed: compare it with docs/tables.md"
_VERSION = "use ClickHouse 23.10 or later"
_READONLY = "use a profile without `readonly`, or with `readonly = 2` if the user only reads"
_LOGIN = "check CLICKHOUSE_USERNAME and the password"
MIGRATE = "run `python -m xapi_etl_processor migrate`"

ACCESS_DENIED = 497
UNKNOWN_TABLE = 60

CODES = {
    16: Meaning("NO_SUCH_COLUMN_IN_TABLE", "fatal", f"a column is missing: {MIGRATE}"),
    36: Meaning("BAD_ARGUMENTS", "fatal", _VERSION),
    46: Meaning("UNKNOWN_FUNCTION", "fatal", _VERSION),
    47: Meaning("UNKNOWN_IDENTIFIER", "fatal", f"a column is missing: {MIGRATE}"),
    50: Meaning("UNKNOWN_TYPE", "fatal", _VERSION),
    53: Meaning("TYPE_MISMATCH", "fatal", _CHANGED),
    UNKNOWN_TABLE: Meaning("UNKNOWN_TABLE", "fatal", f"a table is missing: {MIGRATE}"),
    62: Meaning("SYNTAX_ERROR", "fatal", _VERSION),
    75: Meaning("CANNOT_WRITE_TO_FILE_DESCRIPTOR", "uncertain", _FULL),
    81: Meaning("UNKNOWN_DATABASE", "fatal", f"the database is missing: {MIGRATE}"),
    115: Meaning("UNKNOWN_SETTING", "fatal", _VERSION),
    159: Meaning("TIMEOUT_EXCEEDED", "uncertain", _WAIT),
    164: Meaning("READONLY", "fatal", _READONLY),
    192: Meaning("UNKNOWN_USER", "fatal", _LOGIN),
    193: Meaning("WRONG_PASSWORD", "fatal", _LOGIN),
    194: Meaning("REQUIRED_PASSWORD", "fatal", _LOGIN),
    202: Meaning("TOO_MANY_SIMULTANEOUS_QUERIES", "busy", _FEWER_WRITERS),
    203: Meaning("NO_FREE_CONNECTION", "retry", _WAIT),
    209: Meaning("SOCKET_TIMEOUT", "uncertain", _WAIT),
    210: Meaning("NETWORK_ERROR", "uncertain", _WAIT),
    225: Meaning("NO_ZOOKEEPER", "retry", _KEEPER),
    236: Meaning("ABORTED", "uncertain", _WAIT),
    241: Meaning("MEMORY_LIMIT_EXCEEDED", "busy", _FEWER_WRITERS),
    242: Meaning("TABLE_IS_READ_ONLY", "retry", _KEEPER),
    243: Meaning("NOT_ENOUGH_SPACE", "retry", f"the server's disk is full: {_SPACE}"),
    244: Meaning("UNEXPECTED_ZOOKEEPER_ERROR", "uncertain", _KEEPER),
    285: Meaning("TOO_FEW_LIVE_REPLICAS", "retry", _REPLICAS),
    286: Meaning("UNSATISFIED_QUORUM_FOR_PREVIOUS_WRITE", "retry", _REPLICAS),
    319: Meaning("UNKNOWN_STATUS_OF_INSERT", "uncertain", _WAIT),
    359: Meaning(
        "TABLE_SIZE_EXCEEDS_MAX_DROP_SIZE_LIMIT",
        "fatal",
        "the month is too large to be dropped: raise the server's max_partition_size_to_drop",
    ),
    394: Meaning("QUERY_WAS_CANCELLED", "uncertain", _WAIT),
    425: Meaning("SYSTEM_ERROR", "uncertain", _WAIT),
    439: Meaning("CANNOT_SCHEDULE_TASK", "busy", _FEWER_WRITERS),
    469: Meaning("VIOLATED_CONSTRAINT", "fatal", _CHANGED),
    ACCESS_DENIED: Meaning(
        "ACCESS_DENIED", "fatal", "grant the rights listed in docs/operations.md"
    ),
    499: Meaning("S3_ERROR", "uncertain", "if it lasts, check the server's own object storage"),
    516: Meaning("AUTHENTICATION_FAILED", "fatal", _LOGIN),
    745: Meaning("SERVER_OVERLOADED", "busy", _FEWER_WRITERS),
    999: Meaning("KEEPER_EXCEPTION", "uncertain", _WAIT),
}
"""By code, as in ClickHouse's ErrorCodes.cpp. A code that is not here is uncertain."""

TOO_MANY_PARTS = 252
_MERGES = "merges lag behind: use fewer writers and larger batches; see docs/scaling.md"
MERGES_LAG = Meaning("TOO_MANY_PARTS", "busy", _MERGES)
TOO_MANY_PARTITIONS = Meaning("TOO_MANY_PARTS", "fatal", "raise max_partitions_per_insert_block")
MEMORY_LIMIT_EXCEEDED = 241
SYSTEM_TABLE = Meaning("UNKNOWN_TABLE", "fatal", f"a table of the server itself: {_VERSION}")
QUERY_MEMORY = Meaning(
    "MEMORY_LIMIT_EXCEEDED", "retry", "lower BATCH_ROWS, or raise the user's max_memory_usage"
)
_OF_THE_QUERY = re.compile(r"query memory limit|\(for query\)", re.IGNORECASE)
_OF_THE_SERVER = re.compile(r"\bsystem\.\w")
UNLISTED = Meaning("", "uncertain", "it is retried; if it lasts, see the server's log")

SAFE_TO_LOG = (16, 47, 60, 81, 115, 242, 252, 285, ACCESS_DENIED)
"""Codes whose text about an insert may be logged: it names tables, columns, rights and counts. The
text of other codes may quote a value."""

LOGIN_REFUSED = (192, 193, 194, 516)
"""After these the password is read again, once: it may have been rotated."""

_REPEATS = re.compile(r"\n|Stack trace|:? in scope |:? while processing ", re.IGNORECASE)
_KINDS = {"retry": ClickHouseUnavailable, "busy": ClickHouseBusy, "uncertain": OutcomeUnknown}
_NAME = re.compile(r"\(([A-Z][A-Z0-9_]{3,60})\)(?: \(version .*\))?\.?\s*\Z")


class NoGreeting(TimeoutError):
    """The deadline passed between connecting and the server's greeting."""


def name_in(message: str) -> str:
    """The name that servers since 21.3 put behind their message, in parentheses; else ''."""
    found = _NAME.search(message.partition("Stack trace")[0])
    return found[1] if found else ""


def meaning(code: int, text: str) -> Meaning:
    """What an error means. Three codes can mean two things, and only the text says which."""
    if code == TOO_MANY_PARTS:
        return TOO_MANY_PARTITIONS if "partitions for single" in text.lower() else MERGES_LAG
    if code == MEMORY_LIMIT_EXCEEDED and _OF_THE_QUERY.search(text):
        return QUERY_MEMORY
    if code == UNKNOWN_TABLE and _OF_THE_SERVER.search(text.partition("Maybe you meant")[0]):
        return SYSTEM_TABLE
    return CODES.get(code, UNLISTED)


def translated(error: Exception, doing: str, settings: Settings) -> ClickHouseError:
    """One of our errors for one of the driver's. `doing` is QUERY, or names an insert, whose values
    must not be shown.
    """
    where = f"ClickHouse at {settings.clickhouse_host}:{settings.clickhouse_port}"
    if isinstance(error, errors.ServerException):
        return _of_the_server(error, doing, where)
    if fault := misdirected(settings.clickhouse_port, error):
        return ClickHouseRefused(f"{where}: {fault} ({_reason(error)})")
    if isinstance(error, NoGreeting):
        return ClickHouseWaking(
            f"{where} is waking: it accepts connections and does not greet yet. A"
            " sleeping ClickHouse Cloud service takes a minute or two; if it lasts longer,"
            " check that this is its native port"
        )
    if isinstance(error, errors.NetworkError | errors.SocketTimeoutError):
        return ClickHouseUnavailable(
            f"{where}: no connection ({_reason(error)}): is the server up, is this its"
            " native port, and is the network open?"
        )
    if isinstance(
        error, EOFError | OSError | DeadlinePassed | errors.UnexpectedPacketFromServerError
    ):
        return OutcomeUnknown(
            f"{where}: the connection was lost during {doing} ({_reason(error)}): it may"
            " or may not have been done; doing it again is safe"
        )
    reason = _reason(error) if doing == QUERY else type(error).__name__
    return ClickHouseRefused(f"{where}: {doing} failed: {reason}")


def _of_the_server(error: errors.ServerException, doing: str, where: str) -> ClickHouseError:
    code = error.code
    # The first line only: the server's stack trace follows, and, for a value that it could
    # not read, the value. The query is repeated behind the others, with the ids in it.
    text = _REPEATS.split(str(error.message), maxsplit=1)[0].strip()[:300]
    name, verdict, remedy = meaning(code, text)
    reason = f"code {code} {name or name_in(str(error.message))}".strip()
    # Other texts may quote a value of a statement, for example from a view's function.
    if doing == QUERY or code in SAFE_TO_LOG:
        reason = f"{reason}: {text}"
    if verdict == "fatal":
        kind = ClickHouseDenied if code == ACCESS_DENIED else ClickHouseRefused
        return kind(f"{where}: {doing} was refused: {reason}: {remedy}")
    return _KINDS[verdict](f"{where}: {doing} failed: {reason}: {remedy}")


def _reason(error: Exception) -> str:
    text = str(error).partition("\n")[0][:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def misdirected(port: int, error: Exception) -> str | None:
    """What is wrong with the port or the certificate, if the text of the driver's error says so."""
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return (
            "its certificate is not trusted: if it is self-signed, or of an authority of your own,"
            " name a file with that certificate in CLICKHOUSE_CA_CERTS; else check the host's name"
        )
    if "WRONG_VERSION_NUMBER" in text:
        return (
            "the port does not speak TLS: use the native port with TLS, usually 9440, or unset"
            " CLICKHOUSE_SECURE"
        )
    if "expected Hello" in text:
        return (
            f"{port} does not speak ClickHouse's protocol: set CLICKHOUSE_PORT to the native port,"
            " usually 9000, or 9440 with CLICKHOUSE_SECURE"
        )
    return None
