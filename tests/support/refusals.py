"""A server that refuses some queries."""

from __future__ import annotations

import re

from local.clickhouse_server import ClickHouseServer


def refuse(
    server: ClickHouseServer,
    code: int,
    pattern: str = "",
    *,
    at: str = "query",
    text: str = "Not enough privileges",
) -> list[str]:
    """Let the server refuse each query in which the pattern is found; gives what it refused."""
    refused: list[str] = []

    def hook(point: str, sql: str) -> None:
        if point == at and re.search(pattern, sql):
            refused.append(sql)
            raise RuntimeError(f"Code: {code}. DB::Exception: {text}")

    server.hook = hook
    return refused
