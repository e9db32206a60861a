"""What the drill kills: a current ClickHouse, or two old ones that are replicas of each other."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clickhouse_driver import Client

from tests.faults.tcp_proxy import TcpProxy, tcp_proxy
from tests.support.real_server import KEYS, PASSWORD, REPLICATED, RealServer, answers, free_port
from tests.support.replicas import CLUSTER, pair, wait_for
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.migrations.migrate import migrate

DATABASE = "xapi_analytics"


class Server:
    """The local ClickHouse as a process that keeps its port and folder when it is restarted."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._folder = folder
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [sys.executable, "-m", "local.clickhouse_server", "--port", str(self.port)]
        self.process = subprocess.Popen(
            [*command, "--data", str(self._folder)], stdout=subprocess.DEVNULL
        )
        wait_for(lambda: answers(self.ask), 60)

    def kill(self) -> None:
        """Kill it, like a crash."""
        self.process.kill()
        self.process.wait()

    def create_tables(self) -> None:
        """Make the database and its tables, for the settings in the environment."""
        migrate(Settings.from_env(os.environ))

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a query, over a new connection."""
        with Client("127.0.0.1", self.port, connect_timeout=2) as client:
            rows: list[tuple[Any, ...]] = client.execute(sql)
        return rows


class Replicas:
    """Two replicas behind one port; a new connection reaches one that is alive.

    Questions are answered when both have the same rows.
    """

    def __init__(
        self, servers: tuple[RealServer, RealServer], address: TcpProxy, seed: int
    ) -> None:
        self.port = address.port
        self._servers = servers
        self._address = address
        self._random = random.Random(seed)
        self._dead = servers[0]

    def kill(self) -> None:
        """Kill one of them, like a crash; the other takes over."""
        self._dead, alive = self._random.sample(self._servers, 2)
        self._address.upstream = alive.port
        self._dead.kill()

    def start(self) -> None:
        """Start it again; it may also get connections."""
        self._dead.start()
        self._address.upstream = self._random.choice(self._servers).port

    def create_tables(self) -> None:
        """Make the replicated tables; the loaders find the password in the environment."""
        os.environ["CLICKHOUSE_PASSWORD"] = PASSWORD
        engine = REPLICATED.replace("DATABASE", DATABASE)
        self._servers[0].create_tables(DATABASE, engine, f"ON CLUSTER {CLUSTER}")

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a query, once both have the same rows in each table, by their keys."""
        wait_for(lambda: self._rows(0) == self._rows(1), 120)
        return self._servers[0].ask(sql)

    def _rows(self, which: int) -> list[object]:
        """Number and checksum of the rows of each table."""
        return [
            self._servers[which].ask(
                f"SELECT count(), groupBitXor(cityHash64({key})) FROM {DATABASE}.{table} FINAL"
            )
            for table, (key, _) in KEYS.items()
        ]


@contextmanager
def replicas(folder: Path, seed: int) -> Iterator[Replicas]:
    """Two running replicas in this folder, while the block runs."""
    with pair(folder) as servers, tcp_proxy(servers[0].port) as address:
        yield Replicas(servers, address, seed)


@contextmanager
def one_server(folder: Path) -> Iterator[Server]:
    """One running server with its data in this folder, while the block runs."""
    server = Server(folder)
    try:
        yield server
    finally:
        server.kill()
