"""Debian's clickhouse-server as a separate process, which tests start, kill and restart."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from clickhouse_driver import Client, errors

from xapi_etl_processor.storage import tables

BINARY = shutil.which("clickhouse-server")
PASSWORD = "real-server-secret"

_random = random.SystemRandom()
"""Not seeded: the processes that run tests at the same time would choose the same ports."""

_CONFIG = """<yandex>
  <logger><level>warning</level><log>{folder}/log</log><errorlog>{folder}/errors</errorlog></logger>
  <tcp_port>{port}</tcp_port>
  <listen_host>127.0.0.1</listen_host>
  <path>{folder}/data/</path>
  <tmp_path>{folder}/tmp/</tmp_path>
  <users_config>{folder}/users.xml</users_config>
  <default_profile>default</default_profile>
  <default_database>default</default_database>
  <mark_cache_size>100000000</mark_cache_size>
  {more}
</yandex>
"""
_USERS = """<yandex>
  <profiles><default/><reading><readonly>2</readonly></reading></profiles>
  <quotas><default/></quotas>
  <users><default>
    <password>{password}</password><profile>default</profile><quota>default</quota>
    <networks><ip>127.0.0.1</ip></networks>
  </default><reader>
    <password>{password}</password><profile>reading</profile><quota>default</quota>
    <networks><ip>127.0.0.1</ip></networks>
  </reader></users>
</yandex>
"""


def free_port() -> int:
    """A port on loopback that nothing listens on.

    It is below those that Linux gives to connections (32,768 and up): one of them could take the
    port while the server that had it is restarted.
    """
    while True:
        port = _random.randrange(15_000, 32_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


OLDER = {
    "DateTime64(3, 'UTC')": "Int64",
    "LowCardinality(String)": "String",
    "Nullable(Bool)": "Nullable(UInt8)",
    "Bool": "UInt8",
}
"""Our types, and those that a server of 2018 has instead."""

REPLICATED = (
    "ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/DATABASE/NAME', '{replica}', VERSION)"
)
"""The engine of a replicated table, for `create_tables`."""

KEYS = {
    tables.EVENTS: ("section_id, section, video_url, timestamp, event_id", "row_version"),
    tables.FILES: ("bucket, key, etag", "processed_at"),
    tables.REJECTED: ("source_file, source_line", "rejected_at"),
    tables.VOIDED: ("voided_id, voided_by", "inserted_at"),
    tables.FORGOTTEN: ("learner", "forgotten_at"),
    tables.NOTES: ("kind, subject", "noted_at"),
}
"""Table -> its sorting key and the column with its rows' version."""


def answers(ask: Callable[[str], object]) -> bool:
    """Whether a server answers a query."""
    try:
        ask("SELECT 1")
    except (errors.Error, OSError, EOFError):
        return False
    return True


def needs(installed: object, what: str) -> list[pytest.MarkDecorator]:
    """The marks of tests that need real servers: skipped, and said so, where they are missing."""
    return [
        pytest.mark.skipif(
            not installed and "REQUIRE_REAL_SERVER" not in os.environ, reason=f"NOT TESTED: {what}"
        ),
        # The driver warns about each setting that it leaves out, the server being too old for it.
        pytest.mark.filterwarnings("ignore"),
    ]


class RealServer:
    """A server with a folder of its own, on a port that stays the same after a restart.

    `more` is further configuration, as XML.
    """

    def __init__(self, folder: Path, port: int = 0, more: str = "") -> None:
        self.folder = folder
        self.port = port or free_port()
        config = _CONFIG.format(folder=folder, port=self.port, more=more)
        (folder / "config.xml").write_text(config)
        (folder / "users.xml").write_text(_USERS.format(password=PASSWORD))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers.

        On some machines, an outgoing connection may get the server's port. The server then starts
        again until that connection has ended.
        """
        end = time.monotonic() + 60
        self._run()
        while not answers(self.ask):
            assert time.monotonic() < end, self._log()
            time.sleep(0.05)
            if self.process and self.process.poll() is not None:
                assert "Address already in use" in self._log(), f"it ended: {self._log()}"
                self._run()

    def _run(self) -> None:
        assert BINARY
        (self.folder / "errors").unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [BINARY, f"--config-file={self.folder}/config.xml"],
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _log(self) -> str:
        """The last errors, without their stack traces."""
        log = (self.folder / "errors").read_text().splitlines()
        return "\n".join([line for line in log if "Exception" in line][-5:])

    def kill(self) -> None:
        """End it as a crash would, without a shutdown."""
        if self.process:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def create_tables(self, database: str, engine: str, on_cluster: str = "") -> None:
        """A database with our tables; in `engine`, NAME and VERSION stand for each table's own."""
        self.ask(f"CREATE DATABASE {database} {on_cluster}")
        for name, (key, version) in KEYS.items():
            types = {c: OLDER.get(kind, kind) for c, kind in tables.TYPES[name].items()}
            if name == tables.EVENTS:
                # The server fills it in each time, so that a repeat is another block.
                types["inserted_at"] = "DateTime DEFAULT now()"
            columns = ", ".join(f"{column} {kind}" for column, kind in types.items())
            self.ask(
                f"CREATE TABLE {database}.{name} {on_cluster} ({columns})"
                f" ENGINE = {engine.replace('NAME', name).replace('VERSION', version)}"
                f" ORDER BY ({key})"
            )

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a query, over a new connection."""
        with Client("127.0.0.1", self.port, password=PASSWORD, connect_timeout=2) as client:
            rows: list[tuple[Any, ...]] = client.execute(sql)
        return rows
