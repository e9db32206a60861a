"""Thin over clickhouse-driver: connect, insert a batch, query. The only way to ClickHouse."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Any, TypeVar

# Else the driver, at every cold start, writes down all days from 1900 to 2299.
os.environ.setdefault("CLICKHOUSE_DRIVER_LASY_DATE_LUT", "lazy")

from clickhouse_driver import Client, errors  # reads its setting when imported

from xapi_etl_processor.clickhouse_errors import SPEAKING, WRONG_LOGIN, refusal
from xapi_etl_processor.config import ConfigurationError, Settings
from xapi_etl_processor.deadlines import FOREVER, Late, by, wake
from xapi_etl_processor.telemetry import logger

CONNECT_SECONDS = 5
"""To reach the server, and to hear from an idle connection whether it still lives. Ours."""

REPLY_SECONDS = 60
"""The longest silence while a query runs; the driver's own default is 300 s. Ours."""

KEPT_SECONDS = 2
"""What waiting for a reply leaves of an invocation's time, for saying what happened. Ours."""

ATTEMPTS = 4
"""How often one query or insert is tried. Ours."""

MAX_QUERY_BYTES = 16 * 1024**2
"""Room for a list of long keys in a query; the server's own default is 256 KiB. Ours."""

_QUERY = "query"
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_Answer = TypeVar("_Answer")


class ClickHouseError(Exception):
    """ClickHouse did not do what it was asked; the text names the server and what to do."""


class ClickHouseUnavailable(ClickHouseError):
    """It could work later: no connection, overload, timeout."""


class OutcomeUnknown(ClickHouseUnavailable):
    """There was no reply, or one that does not tell: it may have been done, or not."""


class ClickHouseRefused(ClickHouseError):
    """It cannot work until somebody changes something: login, schema, rights, a value."""


class ClickHouse:
    """A connection that is made when it is needed, and made again when it was lost.

    Not for use by several threads at once.
    """

    def __init__(self, settings: Settings) -> None:
        self.database = settings.clickhouse_database
        self._where = f"ClickHouse at {settings.clickhouse_host}:{settings.clickhouse_port}"
        self._settings = settings
        self._client: Client | None = None

    def query(
        self,
        sql: str,
        params: Mapping[str, Any] | None = None,
        deadline: float = FOREVER,
    ) -> list[tuple[Any, ...]]:
        """The rows of a SELECT; raises ClickHouseUnavailable or ClickHouseRefused."""

        def ask(client: Client) -> list[tuple[Any, ...]]:
            rows: list[tuple[Any, ...]] = client.execute(
                sql, params, settings={"max_query_size": MAX_QUERY_BYTES}
            )
            return rows

        return self._attempt(ask, _QUERY, deadline)

    def insert(
        self,
        table: str,
        columns: Mapping[str, list[Any]],
        token: str,
        deadline: float = FOREVER,
        settings: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Store the rows of columns, equally long lists, as one block: all or none of it.

        Returns when the server has acknowledged the rows. An attempt that failed, or whose reply
        was lost, is repeated with the same bytes and token, which the server stores once (within
        the table's deduplication window). Raises OutcomeUnknown where the last attempt's outcome
        is unknown, else ClickHouseUnavailable or ClickHouseRefused.
        """
        names = ", ".join(columns)
        sql = f"INSERT INTO {self.database}.{table} ({names}) VALUES"
        sent = {
            "async_insert": 0,
            "insert_deduplicate": 1,
            "insert_deduplication_token": token,
            **settings,
        }

        def store(client: Client) -> None:
            # The driver overwrites NULLs in the lists that it is given: a repeat needs its own.
            block = [list(column) for column in columns.values()]
            client.execute(sql, block, columnar=True, settings=sent)

        self._attempt(store, f"insert into {table}", deadline)

    def check_insert(self, table: str, columns: Iterable[str], deadline: float) -> None:
        """Raises what an insert into these columns would, for want of rights or a column.

        Sends an insert without rows, which the server checks like any other and stores nothing of.
        """
        sql = f"INSERT INTO {self.database}.{table} ({', '.join(columns)}) VALUES"
        self._attempt(lambda client: client.execute(sql, []), f"insert into {table}", deadline)

    def _attempt(self, call: Callable[[Client], _Answer], doing: str, deadline: float) -> _Answer:
        """Do it, up to ATTEMPTS times; not one of them lasts until the deadline."""
        renewed = False
        attempt = 0
        while True:
            attempt += 1
            try:
                client = self._opened(deadline)
                end = _end(deadline)
                try:
                    self._by(end, client, self._connect)
                except Late as error:
                    raise errors.SocketTimeoutError(str(error)) from error
                return self._by(end, client, call)
            except (errors.Error, EOFError, OSError, Late) as error:
                named = self._named(error, doing)
                # What is left on the line, if there still is one, belongs to no query.
                self.disconnect()
                if self._is_refused_login(error) and not renewed:
                    # The secret may have been rotated since it was read.
                    renewed = True
                    _secret.cache_clear()
                    continue
                pause = random.uniform(0.5, 1) * 2 ** (attempt - 1)  # noqa: S311  # jitter
                if (
                    attempt >= ATTEMPTS
                    or not isinstance(named, ClickHouseUnavailable)
                    or time.monotonic() + pause + CONNECT_SECONDS > deadline
                ):
                    raise named from error
                logger.warning("trying again", extra={"error": str(named), "seconds": pause})
                time.sleep(pause)

    def _by(self, end: float, client: Client, call: Callable[[Client], _Answer]) -> _Answer:
        """The answer by then; raises Late, and leaves the connection to the thread that has it."""
        try:
            return by(end, partial(call, client), client.disconnect)
        except Late:
            self._client = None
            wake(client.connection.socket)
            raise

    def _is_refused_login(self, error: Exception) -> bool:
        return (
            isinstance(error, errors.ServerException)
            and error.code in WRONG_LOGIN
            and bool(self._settings.clickhouse_password_secret_arn)
        )

    def disconnect(self) -> None:
        """Drop the connection; the next call makes a new one."""
        if self._client is not None:
            self._client.disconnect()
            self._client = None

    def _opened(self, deadline: float) -> Client:
        """The client, made if need be; not connected by that."""
        if self._client is None:
            settings = self._settings
            if not settings.clickhouse_secure and settings.clickhouse_host not in _LOOPBACK:
                said = "password and statements go to ClickHouse in clear: set CLICKHOUSE_SECURE"
                logger.warning(said, extra={"host": settings.clickhouse_host})
            self._client = Client(
                settings.clickhouse_host,
                port=settings.clickhouse_port,
                # Named in every statement instead: a missing one can then be reported and made.
                database="",
                user=settings.clickhouse_username,
                password=password(settings, _end(deadline)),
                secure=settings.clickhouse_secure,
                verify=True,
                ca_certs=settings.clickhouse_ca_certs or None,
                compression="lz4",
                connect_timeout=CONNECT_SECONDS,
                sync_request_timeout=CONNECT_SECONDS,
                send_receive_timeout=REPLY_SECONDS,
                client_name="xapi-etl-processor",
                # Ours does that: a call that nobody waits for any more is not to begin anew.
                disable_reconnect=True,
                # One list is one block, however long.
                settings={"insert_block_size": 2**31},
                settings_is_important=True,
            )
        return self._client

    @staticmethod
    def _connect(client: Client) -> None:
        """See that the connection lives, or make it anew."""
        connection = client.connection
        # A server that accepts and then says nothing is no server: its greeting is not waited for
        # as long as a query's answer.
        connection.send_receive_timeout = CONNECT_SECONDS
        if not (connection.connected and connection.ping()):
            connection.connect()
        connection.send_receive_timeout = REPLY_SECONDS
        connection.socket.settimeout(REPLY_SECONDS)

    def _named(self, error: Exception, doing: str) -> ClickHouseError:
        """One of our errors, with what was tried, where, and what to do."""
        if isinstance(error, errors.ServerException):
            code = error.code
            # The first line only: behind it come the server's stack trace and, for a value that
            # it could not read, the value.
            text = str(error.message).partition("\n")[0].partition("Stack trace")[0].strip()[:300]
            name, verdict, remedy = refusal(code, text)
            said = f"code {code} {name}".strip()
            # Others may quote a statement's value: a view's function, say, that it is nothing for.
            if doing == _QUERY or code in SPEAKING:
                said = f"{said}: {text}"
            if verdict == "fatal":
                return ClickHouseRefused(f"{self._where}: {doing} was refused: {said}: {remedy}")
            kind = OutcomeUnknown if verdict == "uncertain" else ClickHouseUnavailable
            return kind(f"{self._where}: {doing} failed: {said}: {remedy}")
        if isinstance(error, errors.NetworkError | errors.SocketTimeoutError):
            return ClickHouseUnavailable(
                f"{self._where}: no connection ({_reason(error)}): is the server up, the port the"
                " native one, and the network open?"
            )
        if isinstance(error, EOFError | OSError | Late | errors.UnexpectedPacketFromServerError):
            return OutcomeUnknown(
                f"{self._where}: the connection was lost during {doing} ({_reason(error)}): it may"
                " or may not have been done; doing it again is safe"
            )
        said = _reason(error) if doing == _QUERY else type(error).__name__
        return ClickHouseRefused(f"{self._where}: {doing} failed: {said}")


def _reason(error: Exception) -> str:
    text = str(error).partition("\n")[0][:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _end(deadline: float) -> float:
    """When an attempt that begins now is given up: some time is kept to say what happened."""
    return deadline - min(KEPT_SECONDS, (deadline - time.monotonic()) / 2)


def password(settings: Settings, deadline: float = FOREVER) -> str:
    """The password, from Secrets Manager where an ARN says so; raises ConfigurationError."""
    arn = settings.clickhouse_password_secret_arn
    if not arn:
        return settings.clickhouse_password
    try:
        return by(deadline, lambda: _secret(arn))
    except Late as error:
        raise _unreadable(arn) from error


def _unreadable(arn: str) -> ConfigurationError:
    return ConfigurationError(
        f"CLICKHOUSE_PASSWORD_SECRET_ARN: {arn} cannot be read: check the ARN, that the function"
        " may call secretsmanager:GetSecretValue on it, and that its network leads there"
    )


@lru_cache(maxsize=4)
def _secret(arn: str) -> str:
    """The password in a secret: its plain text, or `password` of the JSON object that it is."""
    # Imported here: most local runs, and every test without a secret, do without it.
    from aws_lambda_powertools.utilities.parameters import SecretsProvider
    from aws_lambda_powertools.utilities.parameters.exceptions import GetParameterError
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    patience = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=CONNECT_SECONDS,
        retries={"mode": "standard", "total_max_attempts": 2},
    )
    try:
        text = SecretsProvider(boto_config=patience).get(arn, force_fetch=True)
    except (GetParameterError, BotoCoreError) as error:
        raise _unreadable(arn) from error
    if not isinstance(text, str):
        raise ConfigurationError(f"CLICKHOUSE_PASSWORD_SECRET_ARN: {arn} holds no text")
    if not text.lstrip().startswith("{"):
        return text
    try:
        found = json.loads(text)["password"]
    except (ValueError, KeyError, RecursionError):
        found = None
    if not isinstance(found, str):
        raise ConfigurationError(
            f"CLICKHOUSE_PASSWORD_SECRET_ARN: {arn} is JSON without a text as its `password`"
        )
    return found
