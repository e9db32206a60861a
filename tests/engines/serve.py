"""Serve a wheel's engine as local/clickhouse_server.py serves the newest.

    python -m tests.engines.serve --wheel FOLDER [options of the server]

The wheel is asked through one session for all clients, since some break one session when another is
closed. `Connection` makes of that what the server needs. Nothing is streamed.
"""

from __future__ import annotations

import argparse
import re
import sys
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, ClassVar, NamedTuple

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


_COMMENTS = re.compile(r"\A(?:\s+|--[^\n]*\n)+")
_CHANGES = re.compile(r"CREATE|ALTER|DROP|EXCHANGE|RENAME|TRUNCATE|INSERT|OPTIMIZE|SYSTEM", re.I)


def blocks(native: bytes) -> Iterator[bytes]:
    """Native output, one block after the other."""
    context = Context()
    context.server_info = _NoRevision()
    context.client_settings = {"use_numpy": False, "strings_as_bytes": True}
    context.settings = {}
    reader = _Bytes(native)
    stream = BlockInputStream(reader, context)
    start = 0
    while start < len(native):
        stream.read()
        yield native[start : reader.position]
        start = reader.position


class _Answer:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def bytes(self) -> bytes:
        """What the engine answered."""
        return self._data


class Connection:
    """One client's session at an engine that has only one: each query brings what it has set."""

    _lock = threading.RLock()
    _sessions: ClassVar[dict[str, Any]] = {}
    make: Callable[[str], Any]
    """Opens the wheel's session."""

    def __init__(self, path: str) -> None:
        with self._lock:
            if path not in self._sessions:
                made = self._sessions[path] = self.make(path)
                made.query("CREATE DATABASE IF NOT EXISTS `default` ENGINE = Atomic", "TSV")
        self._session = self._sessions[path]
        self._database = "default"
        self._settings: dict[str, str] = {}

    def query(self, sql: str, output: str = "TSV") -> _Answer:
        """The answer to a query; USE and SET are remembered for the ones that follow."""
        word, _, rest = sql.partition(" ")
        if word == "USE":
            self._query(sql, output)
            self._database = rest.strip("` ;")
        elif word == "SET":
            name, _, value = rest.partition(" = ")
            if value == "DEFAULT":
                self._settings.pop(name, None)
            else:
                self._settings[name] = value
                self._query("SELECT 1", output)  # Whether it takes the setting.
        else:
            return _Answer(self._query(sql, output))
        return _Answer(b"")

    def _query(self, sql: str, output: str) -> bytes:
        # Some wheels break off if what has no rows is to be answered in blocks.
        if _CHANGES.match(_COMMENTS.sub("", sql)):
            output = "TSV"
        values = ", ".join(f"{name} = {value}" for name, value in self._settings.items())
        defaults = "; ".join(f"SET {name} = DEFAULT" for name in self._settings)
        with self._lock:
            try:
                found = self._session.query(
                    f"USE `{self._database}`; {f'SET {values}; ' if values else ''}\n{sql}",
                    output,
                )
            finally:
                if defaults:
                    self._session.query(defaults, "TSV")
        data = found.bytes() if found is not None and hasattr(found, "bytes") else found
        return bytes(data or b"")

    def send_query(self, sql: str, output: str) -> Iterator[_Answer]:
        """The answer in its blocks."""
        return map(_Answer, blocks(self._query(sql, output)))

    def close(self) -> None:
        """Nothing: the session is everybody's."""


def main() -> int:
    """Make the wheel the process's chdb, then serve."""
    parser = argparse.ArgumentParser(prog="python -m tests.engines.serve")
    parser.add_argument("--wheel")
    options, rest = parser.parse_known_args()
    if options.wheel:
        sys.path.insert(0, options.wheel)
    sqlitelike: Any = import_module("chdb.state.sqlitelike")
    Connection.make = sqlitelike.Connection
    sqlitelike.Connection = Connection
    from local import clickhouse_server

    sys.argv[1:] = rest
    return clickhouse_server.main()


if __name__ == "__main__":
    sys.exit(main())
