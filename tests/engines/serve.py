"""Serve a wheel's engine as local/clickhouse_server.py serves the newest.

    python -m tests.engines.serve --wheel FOLDER [--set NAME=VALUE] [options of the server]

`Connection` stands in for what the server takes from the newest wheel. A wheel is asked through one
session for all clients, since some break one session when another is closed. Those of before 25.5
keep nothing from one query to the next, and break off after a few: each query has a process of its
own there. Nothing is streamed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, NamedTuple
from unittest.mock import MagicMock

from clickhouse_driver.bufferedreader import BufferedReader
from clickhouse_driver.context import Context
from clickhouse_driver.streams.native import BlockInputStream


class _Bytes(BufferedReader):  # type: ignore[misc]  # the driver has no types
    """Reads from bytes what the driver reads from a socket."""

    def __init__(self, data: bytes) -> None:
        super().__init__(len(data))
        self.buffer = bytearray(data)
        self.current_buffer_size = len(data)

    def read_into_buffer(self) -> None:
        raise EOFError


class _NoRevision(NamedTuple):
    """A server without a revision: blocks come without what the protocol adds to them."""

    used_revision: int = 0

    def get_timezone(self) -> str:
        """Of all columns without one of their own."""
        return "UTC"


_DEFAULT = "DATABASE IF NOT EXISTS `default` ENGINE = Atomic"
_SYSTEM = (
    "TABLE IF NOT EXISTS system.processes (query String, elapsed Float64) ENGINE = Memory",
    "TABLE IF NOT EXISTS system.mutations (database String, table String, is_done UInt8,"
    " latest_fail_reason String) ENGINE = Memory",
    "TABLE IF NOT EXISTS system.replicas (database String, table String, total_replicas UInt8,"
    " active_replicas UInt8, is_readonly UInt8) ENGINE = Memory",
    "TABLE IF NOT EXISTS system.clusters (cluster String, shard_num UInt32, is_local UInt8)"
    " ENGINE = Memory",
)
"""What the wheel of 23.10 lacks; empty, as in a server where nothing else runs."""

_COMMENTS = re.compile(r"\A(?:\s+|--[^\n]*\n)+")
_DESCRIBED = re.compile(r"DESCRIBE TABLE \((.*)\n\)", re.DOTALL)
_CHANGES = re.compile(r"CREATE|ALTER|DROP|EXCHANGE|RENAME|TRUNCATE|INSERT|OPTIMIZE|SYSTEM", re.I)


class Block(NamedTuple):
    """A block of rows as the engine gave it, and its columns' names and types."""

    native: bytes
    columns: list[tuple[str, str]]


def blocks(native: bytes) -> Iterator[Block]:
    """Native output, one block after the other."""
    context = Context()
    context.server_info = _NoRevision()
    context.client_settings = {"use_numpy": False, "strings_as_bytes": True}
    context.settings = {}
    reader = _Bytes(native)
    stream = BlockInputStream(reader, context)
    start = 0
    while start < len(native):
        columns = stream.read().columns_with_types
        yield Block(native[start : reader.position], columns)
        start = reader.position


Ask = Callable[[str, dict[str, str], str, str], bytes]
"""Answers a query: the database, settings by name, SQL, and the format of the answer."""


def _before(database: str, settings: dict[str, str]) -> str:
    """What is put before a query that brings its database and settings."""
    values = "".join(f"SET {name} = {value}; " for name, value in settings.items())
    return f"USE `{database}`; {values}\n"


def one_session(sqlitelike: ModuleType, path: str) -> Ask:
    """Ask through one session, for all clients."""
    session = sqlitelike.Connection(path)

    def ask(database: str, settings: dict[str, str], sql: str, output: str) -> bytes:
        try:
            found = session.query(_before(database, settings) + sql, output)
        finally:
            for name in settings:
                session.query(f"SET {name} = DEFAULT", "TSV")
        return bytes(found.bytes() or b"") if found else b""

    return ask


def process_for_each(wheel: Path, path: str) -> Ask:
    """Ask by a process for each query. It must be called before the process has threads."""
    ours, theirs = multiprocessing.Pipe()
    if not os.fork():
        ours.close()
        _answer_by_processes(wheel, path, theirs)
        os._exit(0)
    theirs.close()

    def ask(database: str, settings: dict[str, str], sql: str, output: str) -> bytes:
        # What goes on in the background ends with the process.
        ours.send((_before(database, {**settings, "mutations_sync": "2"}) + sql, output))
        data, error = ours.recv()
        if error:
            raise RuntimeError(error)
        return bytes(data)

    return ask


def _answer_by_processes(wheel: Path, path: str, pipe: Pipe) -> None:
    """Load the library once, then answer each query in a copy of this process."""
    sys.path.insert(0, str(wheel / "chdb"))
    library = import_module("_chdb")
    while True:
        try:
            sql, output = pipe.recv()
        except EOFError:
            return
        # It would send what was set with the next query, without quotes.
        Path(path, "set_statements").unlink(missing_ok=True)
        child = os.fork()
        if not child:
            found = library.query(sql, output, path=path)
            pipe.send((found.bytes() or b"", found.error_message()))
            os._exit(0)
        if status := os.waitpid(child, 0)[1]:
            pipe.send((b"", f"the engine ended with status {status}: {sql[:500]}"))


class _Answer(NamedTuple):
    data: bytes

    def bytes(self) -> bytes:
        """What the engine answered."""
        return self.data


class Connection:
    """One client's session at an engine that keeps none: each query brings what it has set."""

    lock = threading.RLock()
    ask: ClassVar[Ask]
    always: ClassVar[dict[str, str]] = {}
    """Settings of each session."""

    def __init__(self, path: str) -> None:
        self._database = "default"
        self._settings = dict(self.always)
        self._described: tuple[str, list[Block]] = ("", [])

    def query(self, sql: str, output: str = "TSV") -> _Answer:
        """The answer to a query; USE and SET are remembered for the ones that follow."""
        word, _, rest = sql.partition(" ")
        if described := _DESCRIBED.fullmatch(sql):
            return self._describe(sql, described[1])
        if word == "USE":
            self._database = rest.strip("` ;")
        elif word == "SET":
            name, _, value = rest.partition(" = ")
            if value == "DEFAULT":
                self._settings.pop(name, None)
            else:
                self._settings[name] = value
        else:
            return _Answer(self._ask(sql, output))
        return _Answer(b"")

    def send_query(self, sql: str, output: str) -> Iterator[_Answer]:
        """The answer in its blocks."""
        asked, answered = self._described
        for block in answered if asked == sql else blocks(self._ask(sql, output)):
            yield _Answer(block.native)

    def _describe(self, sql: str, inner: str) -> _Answer:
        """What a query's columns are: it comes next, so its answer is kept."""
        self._described = inner, list(blocks(self._ask(inner, "Native")))
        if not self._described[1]:
            return _Answer(self._ask(sql, "TSV"))
        columns = self._described[1][0].columns
        return _Answer("".join(f"{name}\t{kind}\n" for name, kind in columns).encode())

    def close(self) -> None:
        """Nothing: the engine is everybody's."""

    def _ask(self, sql: str, output: str) -> bytes:
        # Some wheels break off if what has no rows is to be answered in blocks.
        if _CHANGES.match(_COMMENTS.sub("", sql)):
            output = "TSV"
        with self.lock:
            return type(self).ask(self._database, self._settings, sql, output)


def main() -> int:
    """Put the wheel in the place of the newest, then serve."""
    parser = argparse.ArgumentParser(prog="python -m tests.engines.serve")
    parser.add_argument("--wheel", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--set", default="", help="a setting of each session")
    parser.add_argument("--process-for-each", action="store_true", help="query")
    options, rest = parser.parse_known_args()
    if options.wheel and not options.process_for_each:
        sys.path.insert(0, str(options.wheel))
        # Some wheels import it, and use it only for answers in its format.
        sys.modules["pyarrow"] = MagicMock()
    if options.process_for_each:
        Connection.ask = staticmethod(process_for_each(options.wheel, options.data))
        sqlitelike: Any = ModuleType("chdb.state.sqlitelike")
        sys.modules["chdb.state.sqlitelike"] = sqlitelike
    else:
        sqlitelike = import_module("chdb.state.sqlitelike")
        Connection.ask = staticmethod(one_session(sqlitelike, options.data))
    sqlitelike.Connection = Connection
    name, _, value = options.set.partition("=")
    Connection.always = {name: value} if name else {}
    for missing in (_DEFAULT, *(_SYSTEM if options.process_for_each else ())):
        Connection.ask("system", {}, f"CREATE {missing}", "TSV")
    from local import clickhouse_server

    sys.argv[1:] = ["--data", options.data, *rest]
    return clickhouse_server.main()


if __name__ == "__main__":
    sys.exit(main())
