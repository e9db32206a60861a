"""Two real ClickHouse servers that are replicas of each other, and the ZooKeeper between them.

Debian's `zookeeper` and `clickhouse-server` 18.16, each in a folder of its own.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.real_server import BINARY, PASSWORD, RealServer, free_port

CLUSTER = "pair"
_JAVA = shutil.which("java")
_ZOOKEEPER = Path("/usr/share/java/zookeeper.jar")
INSTALLED = BINARY and _JAVA and _ZOOKEEPER.exists()

# A server of 2018 does not start with a table in which more than half of the rows are of an insert
# that it was killed in.
_CONFIG = """
  <interserver_http_port>{fetch_port}</interserver_http_port>
  <interserver_http_host>127.0.0.1</interserver_http_host>
  <zookeeper>
    <node><host>127.0.0.1</host><port>{zookeeper}</port></node>
    <session_timeout_ms>2000</session_timeout_ms>
  </zookeeper>
  <macros><shard>1</shard><replica>{port}</replica></macros>
  <remote_servers><{cluster}><shard>
    <internal_replication>true</internal_replication>{replicas}
  </shard></{cluster}></remote_servers>
  <merge_tree><replicated_max_ratio_of_wrong_parts>1</replicated_max_ratio_of_wrong_parts></merge_tree>
  <distributed_ddl><path>/clickhouse/task_queue/ddl</path></distributed_ddl>
"""
_REPLICA = """
    <replica><host>127.0.0.1</host><port>{port}</port>
      <user>default</user><password>{password}</password></replica>"""


@contextmanager
def zookeeper(folder: Path) -> Iterator[int]:
    """A ZooKeeper that keeps its data in the folder; gives its port."""
    assert _JAVA
    port = free_port()
    command = [_JAVA, "-Xmx64m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
    command += ["-Dzookeeper.admin.enableServer=false", "-cp", str(_ZOOKEEPER)]
    command += ["org.apache.zookeeper.server.ZooKeeperServerMain", str(port), str(folder)]
    # Milliseconds of a tick: sessions of a server that was killed end after a few.
    command += ["500"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: _serves(port), 60)
        yield port
    finally:
        process.kill()
        process.wait()


@contextmanager
def pair(folder: Path) -> Iterator[tuple[RealServer, RealServer]]:
    """Two running servers of one cluster, which both know as CLUSTER."""
    (keeper := folder / "zookeeper").mkdir()
    with zookeeper(keeper) as zookeeper_port:
        ports = free_port(), free_port()
        replicas = "".join(_REPLICA.format(port=port, password=PASSWORD) for port in ports)
        servers = []
        for port in ports:
            (own := folder / str(port)).mkdir()
            more = _CONFIG.format(
                fetch_port=free_port(),
                zookeeper=zookeeper_port,
                port=port,
                cluster=CLUSTER,
                replicas=replicas,
            )
            servers.append(RealServer(own, port, more))
        try:
            for server in servers:
                server.start()
            yield servers[0], servers[1]
        finally:
            for server in servers:
                server.kill()


def wait_for(met: Callable[[], bool], seconds: float) -> None:
    """Wait until a condition is met; raises AssertionError after this many seconds."""
    end = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < end, "the condition was not met in time"
        time.sleep(0.05)


def _serves(port: int) -> bool:
    """Whether ZooKeeper says what state it is in: it accepts connections some time before that."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as probe:
        probe.sendall(b"srvr")
        return b"Mode: standalone" in probe.recv(4096)
    return False
