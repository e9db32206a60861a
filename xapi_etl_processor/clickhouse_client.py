"""A thin layer over clickhouse-driver, and the only way to ClickHouse: connect, insert, query."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from selectors import EVENT_READ, DefaultSelector
from types import MappingProxyType
from typing import Any, TypeVar
from uuid import uuid4

from clickhouse_driver import Client, errors

from xapi_etl_processor.base import secrets
from xapi_etl_processor.base.attempts import CONNECT_SECONDS, Attempts
from xapi_etl_processor.base.clickhouse_errors import LOGIN_REFUSED, QUERY, NoGreeting, translated
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.deadlines import FOREVER, Deadline, call_with_deadline, interrupt
from xapi_etl_processor.base.errors import DeadlinePassed
from xapi_etl_processor.base.telemetry import logger

REPLY_SECONDS = 60
"""The longest silence while a query runs. Our limit; the driver's own is 300 s."""

WAKE_SECONDS = 120
"""How long a new connection waits for the greeting, within the time left: a sleeping ClickHouse
Cloud service holds it until it is awake, after a minute or two. Our limit."""

IDLE_SECONDS = 60
"""How long a connection may be idle and then be used without a ping. Our limit: NAT gateways forget
one after 350 s, and Lambda may freeze the process for hours between two invocations."""

UNACKNOWLEDGED_SECONDS = 10
"""How long TCP may wait for what was sent to be acknowledged, where it can be told. Our limit."""

REPORT_SECONDS = 2
"""What waiting for a reply leaves of an invocation's time, to report what happened. Our limit."""

DEFAULT_QUERY_BYTES = 256 * 1024
"""The longest query that ClickHouse parses unless a setting says otherwise (max_query_size)."""

MAX_QUERY_BYTES = 16 * 1024**2
"""Room for a list of long keys in a query. Our limit."""

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_Result = TypeVar("_Result")


class ClickHouse:
    """A connection for one thread at a time, made when it is first needed and when it was lost."""

    def __init__(self, settings: Settings) -> None:
        self.database = settings.clickhouse_database
        self.settings = settings
        self._client: Client | None = None
        self._used_at = 0.0
        self._decisive: dict[str, int] | None = None

    def query(
        self,
        sql: str,
        params: Mapping[str, Any] | None = None,
        deadline: Deadline = FOREVER,
        *,
        decisive: bool = False,
    ) -> list[tuple[Any, ...]]:
        """The rows of a SELECT, or none of an INSERT ... SELECT that is safe to repeat. Raises
        ClickHouseUnavailable or ClickHouseRefused.

        A decisive query, whose rows decide what is inserted, waits for a busy server as `insert`
        does. On ClickHouse Cloud it sees all rows that any replica has acknowledged.
        """
        # A user with `readonly = 1` may send no setting. Escaping doubles a text at most.
        long = len(sql) + 2 * len(ascii(params)) > DEFAULT_QUERY_BYTES
        settings = {"max_query_size": MAX_QUERY_BYTES} if long else {}
        if decisive:
            settings |= self._decisive_settings(deadline)

        def ask(client: Client) -> list[tuple[Any, ...]]:
            rows: list[tuple[Any, ...]] = client.execute(sql, params, settings=settings)
            return rows

        return self._attempt(ask, QUERY, deadline, patient=decisive)

    def _decisive_settings(self, deadline: Deadline) -> dict[str, int]:
        """Settings of decisive queries, worked out once. Only tables of Cloud, whose engines are
        called Shared..., get one: others would need insert_quorum too (docs/clickhouse.md).
        """
        if self._decisive is None:
            [(tables, shared)] = self._attempt(
                lambda client: client.execute(
                    "SELECT count(), countIf(engine LIKE 'Shared%%' AND 0 = (SELECT count()"
                    # Such a user may send no setting.
                    " FROM system.settings WHERE name = 'readonly' AND value = '1'))"
                    " FROM system.tables WHERE database = %(database)s",
                    {"database": self.database},
                ),
                QUERY,
                deadline,
                patient=True,
            )
            found = {"select_sequential_consistency": 1} if shared else {}
            if not tables:
                return found  # Nothing was migrated yet.
            self._decisive = found
        return self._decisive

    def alter(
        self, table: str, change: str, params: Mapping[str, Any], deadline: Deadline = FOREVER
    ) -> None:
        """Begin to change a table's rows; its replicas follow. `change` must be safe to repeat."""
        sql = f"ALTER TABLE {self.database}.{table} {change}"

        def send(client: Client) -> None:
            # The reply must not wait for the change: that can take longer than REPLY_SECONDS.
            settings = {"max_query_size": MAX_QUERY_BYTES, "mutations_sync": 0}
            client.execute(sql, params, settings=settings)

        self._attempt(send, f"ALTER TABLE {table}", deadline)

    def everywhere(self, table: str) -> str:
        """A system table to SELECT from: of all servers of CLICKHOUSE_CLUSTER, or of this one."""
        cluster = self.settings.clickhouse_cluster
        return f"clusterAllReplicas('{cluster}', {table})" if cluster else table

    def insert(
        self,
        table: str,
        columns: Mapping[str, list[Any]],
        deadline: Deadline = FOREVER,
        settings: Mapping[str, Any] = MappingProxyType({}),
        before_again: Callable[[bool], None] = lambda _: None,
    ) -> None:
        """Store the rows of columns, equally long lists, as one block: all or none of it.

        Returns when the server has acknowledged the rows. An attempt that failed, or whose reply
        was lost, is repeated; the rows may then be stored twice, and the table's key makes them
        one. `before_again` is called before each further attempt, with whether the rows may be
        stored already, and may raise to prevent it. A busy server is waited for, up to
        BUSY_SECONDS. Raises OutcomeUnknown if the last attempt's outcome is unknown, else
        ClickHouseUnavailable (its subclass ClickHouseBusy after such a wait) or ClickHouseRefused.
        """
        send = self._inserting(table, columns, list(columns.values()), settings)
        self._attempt(send, f"insert into {table}", deadline, before_again, patient=True)

    def check_insert(self, table: str, columns: Iterable[str], deadline: Deadline) -> None:
        """Raises what an insert into these columns would: sends one without rows, which the server
        checks like any other.
        """
        self._attempt(self._inserting(table, columns, []), f"insert into {table}", deadline)

    def _inserting(
        self,
        table: str,
        names: Iterable[str],
        block: list[list[Any]],
        settings: Mapping[str, Any] = MappingProxyType({}),
    ) -> Callable[[Client], None]:
        sql = f"INSERT INTO {self.database}.{table} ({', '.join(names)}) VALUES"

        def send(client: Client) -> None:
            # Whatever the user's profile says: answered when the rows are stored, and never taken
            # for a repeat, whose rows ClickHouse drops. A server that was killed may remember an
            # insert that it lost (docs/architecture.md, "Decisions").
            own = {"async_insert": 0, "insert_deduplication_token": uuid4().hex}
            client.execute(sql, block, columnar=True, settings={**own, **settings})

        return send

    def _attempt(
        self,
        call: Callable[[Client], _Result],
        doing: str,
        deadline: Deadline,
        before_again: Callable[[bool], None] = lambda _: None,
        *,
        patient: bool = False,
    ) -> _Result:
        attempts = Attempts(deadline, patient=patient)
        password_was_reread = False
        while True:
            try:
                return self._call_connected(call, deadline)
            except (errors.Error, EOFError, OSError, DeadlinePassed) as error:
                failure = translated(error, doing, self.settings)
                # If the connection still works, what is left in it belongs to no query.
                self.disconnect()
                if self._login_was_refused(error) and not password_was_reread:
                    # The secret may have been rotated since it was read.
                    password_was_reread = True
                    secrets.forget_password(self.settings)
                else:
                    attempts.pause_after(failure, error)
                    before_again(attempts.uncertain)

    def _call_connected(self, call: Callable[[Client], _Result], deadline: Deadline) -> _Result:
        """One attempt: connect if need be, and call."""
        client = self._opened(deadline)
        end = _attempt_deadline(deadline)
        if not self._was_used_lately(client):
            try:
                self._call(end.within(WAKE_SECONDS), client, self._connect)
            except DeadlinePassed as error:
                raise errors.SocketTimeoutError(str(error)) from error
        result = self._call(end, client, call)
        self._used_at = time.time()
        return result

    def _was_used_lately(self, client: Client) -> bool:
        """Whether the connection can be used without a ping: it was used in the last IDLE_SECONDS,
        and the server has not closed it.
        """
        connection = client.connection
        # A monotonic clock may stand still while Lambda freezes the process.
        if not connection.connected or not 0 <= time.time() - self._used_at < IDLE_SECONDS:
            return False
        with DefaultSelector() as closed:
            closed.register(connection.socket, EVENT_READ)
            return not closed.select(0)

    def _call(
        self, deadline: Deadline, client: Client, call: Callable[[Client], _Result]
    ) -> _Result:
        """The result by the deadline; else raises DeadlinePassed and gives up the connection."""
        try:
            return call_with_deadline(deadline, partial(call, client), client.disconnect)
        except DeadlinePassed as error:
            self._client = None
            connection = client.connection
            greeted = not connection.connected or connection.server_info is not None
            interrupt(connection.socket)
            raise (error if greeted else NoGreeting) from None

    def _login_was_refused(self, error: Exception) -> bool:
        return (
            isinstance(error, errors.ServerException)
            and error.code in LOGIN_REFUSED
            and bool(self.settings.clickhouse_password_secret_arn)
        )

    def disconnect(self) -> None:
        """Drop the connection; the next call makes a new one."""
        if self._client is not None:
            self._client.disconnect()
            self._client = None

    def _opened(self, deadline: Deadline) -> Client:
        """The client, created if need be; it connects later."""
        if self._client is None:
            settings = self.settings
            if not settings.clickhouse_secure and settings.clickhouse_host not in _LOOPBACK:
                logger.warning(
                    "password and statements go to ClickHouse unencrypted: set CLICKHOUSE_SECURE",
                    extra={"host": settings.clickhouse_host},
                )
            self._client = Client(
                settings.clickhouse_host,
                port=settings.clickhouse_port,
                # Every statement names the database instead, so that a missing one is reported
                # by name and can be created.
                database="",
                user=settings.clickhouse_username,
                password=secrets.password(settings, _attempt_deadline(deadline)),
                secure=settings.clickhouse_secure,
                verify=True,
                ca_certs=settings.clickhouse_ca_certs or None,
                compression="lz4",
                connect_timeout=CONNECT_SECONDS,
                sync_request_timeout=CONNECT_SECONDS,
                # `_attempt` bounds the wait for the greeting, and `_connect` that for answers.
                send_receive_timeout=None,
                client_name="xapi-etl-processor",
                # `_connect` reconnects. The driver must not: an abandoned call would start over.
                disable_reconnect=True,
                # However long the lists are, they are sent as one block.
                settings={"insert_block_size": 2**31},
                settings_is_important=True,
            )
            # The driver would send a ping before each query: `_connect` does, where it is needed.
            connection = self._client.connection
            connection.force_connect = connection.check_query_execution
        return self._client

    @staticmethod
    def _connect(client: Client) -> None:
        """Check that the connection is alive, or make a new one."""
        connection = client.connection
        if not (connection.connected and connection.ping()):
            connection.connect()
        connection.socket.settimeout(REPLY_SECONDS)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            # What a NAT swallows is not acknowledged; a server that thinks for long acknowledges.
            connection.socket.setsockopt(
                socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_SECONDS * 1000
            )


def _attempt_deadline(deadline: Deadline) -> Deadline:
    """When an attempt that begins now is given up."""
    return deadline.earlier(REPORT_SECONDS, share=1 / 2)
