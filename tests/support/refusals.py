"""What happens when some queries reach the server: anything, or a refusal."""

from __future__ import annotations

import re
from collections.abc import Callable

from local.clickhouse_server import ClickHouseServer


def watch(
    server: ClickHouseServer,
    point: str,
    pattern: str = "",
    act: Callable[[], object] = lambda: None,
) -> list[str]:
    """Do this whenever a query in which the pattern is found gets to this point; gives those
    queries.
    """
    seen: list[str] = []

    def hook(at: str, sql: str) -> None:
        if at == point and re.search(pattern, sql):
            seen.append(sql)
            act()

    server.hook = hook
    return seen


def cut(server: ClickHouseServer, point: str, pattern: str = "", times: int = 1000) -> list[str]:
    """Let the server cut the connection there, the first `times` times; gives all those queries."""

    def drop() -> None:
        if len(reached) <= times:
            raise ConnectionAbortedError

    reached = watch(server, point, pattern, drop)
    return reached


def refuse(
    server: ClickHouseServer,
    code: int,
    pattern: str = "",
    *,
    at: str = "query",
    text: str = "Not enough privileges",
) -> list[str]:
    """Let the server refuse each query in which the pattern is found; gives what it refused."""

    def raises() -> None:
        raise RuntimeError(f"Code: {code}. DB::Exception: {text}")

    return watch(server, at, pattern, raises)
