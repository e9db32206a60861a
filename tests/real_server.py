"""Debian's clickhouse-server as a separate process, which tests start, kill and restart."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from clickhouse_driver import Client, errors

BINARY = shutil.which("clickhouse-server")
PASSWORD = "real-server-secret"

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


class RealServer:
    """A server with a folder of its own, on a port that stays the same after a restart."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        (folder / "config.xml").write_text(_CONFIG.format(folder=folder, port=self.port))
        (folder / "users.xml").write_text(_USERS.format(password=PASSWORD))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        assert BINARY
        self.process = subprocess.Popen(
            [BINARY, f"--config-file={self.folder}/config.xml"],
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        end = time.monotonic() + 60
        while True:
            try:
                self.ask("SELECT 1")
            except (errors.Error, OSError, EOFError):
                assert time.monotonic() < end, (self.folder / "errors").read_text()
                assert self.process.poll() is None, (self.folder / "errors").read_text()
                time.sleep(0.05)
            else:
                return

    def kill(self) -> None:
        """End it as a crash would, without a shutdown."""
        if self.process:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def ask(self, sql: str) -> list[tuple[object, ...]]:
        """The rows of a query, over a new connection."""
        with Client("127.0.0.1", self.port, password=PASSWORD, connect_timeout=2) as client:
            rows: list[tuple[object, ...]] = client.execute(sql)
        return rows
