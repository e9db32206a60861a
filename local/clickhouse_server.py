"""The current ClickHouse engine (chDB) behind the native protocol, on a loopback port.

    python -m local.clickhouse_server [--data DIR] [--read-only]    serve until Ctrl-C

It stands in for a server, as moto does for AWS. The engine that stores, deduplicates and answers
is ClickHouse's own; the handshake, login and packets are ours. For a laptop and for tests only. It
has no port for HTTP, and takes blocks of rows only from clients that compress them.
"""

from __future__ import annotations

import argparse
import re
import socket
import socketserver
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from chdb.state.sqlitelike import Connection

from local import DATA
from local.lifetime import POLL_SECONDS, StopRequest
from local.native_protocol import ProtocolError, Query, Wire

PORT = 9000
USER = "default"

_INSERT = re.compile(
    r"""\s*INSERT\s+INTO\s+(?:TABLE\s+)?(?P<table>[\w.`"]+)\s*(?:\((?P<columns>[^)]*)\))?\s*"""
    r"(?:VALUES|FORMAT\s+\w+)\s*;?\s*",
    re.IGNORECASE,
)
_COMMENT = re.compile(r"/\*.*?\*/|--[^\n]*", re.DOTALL)
_FORMAT = re.compile(r"\s+FORMAT\s+\w+\s*$", re.IGNORECASE)
_READS = re.compile(
    r"(SELECT|WITH|FROM|SHOW|DESC|DESCRIBE|EXPLAIN|EXISTS|USE|SET)\b", re.IGNORECASE
)
_CODE = re.compile(r".*?Code: (\d+)\. DB::Exception: (?!Code: )", re.DOTALL)
_SYNTAX_ERROR = 62
_NO_SUCH_COLUMN = 16
_READONLY = 164
_LOGIN_FAILED = 516
_REFUSED = (
    "This ClickHouse is read-only: `make run` rebuilds the demo each time. To load data of your"
    " own, use `make local`. (READONLY)"
)


class FolderUnusable(Exception):
    """The data folder cannot be used; the message says why."""


class FolderInUse(FolderUnusable):
    """The engine cannot open the data folder, most likely because another process serves it."""


Hook = Callable[[str, str], None]
"""Called with a point ("query", "block", "insert", "stored") and the SQL. Raising
ConnectionAbortedError there drops the connection: before, inside and after an insert."""


class ClickHouseServer(socketserver.ThreadingTCPServer):
    """Serves one data folder on 127.0.0.1; port 0 takes a free one. Raises FolderUnusable.

    If it is read-only, queries that could change data are refused with code 164, READONLY. If it
    drops rows, inserts are acknowledged and not stored, so that benchmarks do not wait for a disk.
    """

    allow_reuse_address = True

    def __init__(
        self,
        data: Path | str = ":memory:",
        port: int = 0,
        user: str = USER,
        password: str = "",
        hook: Hook = lambda *_: None,
        *,
        read_only: bool = False,
        drops_rows: bool = False,
    ) -> None:
        if isinstance(data, Path):
            try:
                data.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise FolderUnusable(
                    f"{data} cannot be used as a data folder: {error.strerror}"
                ) from error
        self.path = str(data)
        self.login = (user, password)
        self.hook = hook
        self.read_only = read_only
        # What each session begins with. 2: no changes to data, but clients may still set settings.
        self.profile = {"readonly": "2"} if read_only else {}
        self.drops_rows = drops_rows
        # Held open, so that the engine outlives every client.
        self.engine = _open(self.path)
        self.engine_version = _version(self.engine)
        self.sessions: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), _Session)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.server_address[1])

    def start(self) -> ClickHouseServer:
        """Serve in a thread of this process."""
        threading.Thread(target=self.serve_forever, args=(POLL_SECONDS,), daemon=True).start()
        return self

    def stop(self) -> None:
        """Cut every session, then close the engine, which would crash with sessions open."""
        self.shutdown()
        for session in list(self.sessions):
            with suppress(OSError):
                session.shutdown(socket.SHUT_RDWR)
        self.server_close()
        self.engine.close()


class _Session(socketserver.BaseRequestHandler):
    """One client."""

    server: ClickHouseServer
    request: socket.socket

    def handle(self) -> None:
        wire = Wire(self.request)
        self.server.sessions.add(self.request)
        try:
            if not self._log_in(wire):
                return
            engine = Connection(self.server.path)
            try:
                if self.database:
                    engine.query(f"USE `{self.database}`")
                for name, value in self.server.profile.items():
                    engine.query(f"SET {name} = {_quoted(value)}")
                while True:
                    self._answer(wire, engine, wire.read_query())
            finally:
                engine.close()
        except (EOFError, OSError):
            return  # The client left, or a test's hook dropped the connection.
        except ProtocolError as error:
            wire.write_exception(_SYNTAX_ERROR, str(error))
        except RuntimeError as error:
            wire.write_exception(*_code_and_text(error))
        finally:
            self.server.sessions.discard(self.request)

    def _log_in(self, wire: Wire) -> bool:
        hello = wire.read_hello()
        if (hello.user, hello.password) != self.server.login:
            wire.write_exception(
                _LOGIN_FAILED, f"{hello.user}: Authentication failed: password is incorrect"
            )
            return False
        self.database = hello.database
        wire.write_hello(self.server.engine_version)
        return True

    def _answer(self, wire: Wire, engine: Connection, query: Query) -> None:
        self.server.hook("query", query.sql)
        found = _INSERT.fullmatch(query.sql)
        try:
            if self.server.read_only and (found or not _READS.match(_bare(query.sql))):
                if not found:
                    # What is misspelled is told as such.
                    engine.query(f"EXPLAIN AST {query.sql}")
                raise ValueError(f"Code: {_READONLY}. DB::Exception: {_REFUSED}")
            for name, value in query.settings.items():
                engine.query(f"SET {name} = {_quoted(value)}")
            if found:
                self._insert(wire, engine, query, found)
            else:
                _select(wire, engine, query)
            for name in query.settings:
                engine.query(f"SET {name} = DEFAULT")
        except (RuntimeError, ValueError) as error:
            code, text = _code_and_text(error)
            wire.write_exception(code, _REFUSED if code == _READONLY else text)
            # The client may still be sending blocks of the failed insert: end the session.
            raise EOFError from error
        wire.write_end()

    def _insert(self, wire: Wire, engine: Connection, query: Query, found: re.Match[str]) -> None:
        table, header = _insert_header(engine, found)
        wire.write_block(header, query.compressed)
        into = f"{table} ({found['columns']})" if found["columns"] else table
        # Through a file: chDB's own streamed insert does not report errors after parsing, such as
        # too many parts, so inserts that were not stored would be acknowledged.
        with tempfile.NamedTemporaryFile(suffix=".native") as blocks:
            while (block := wire.read_block(query.compressed)) is not None:
                self.server.hook("block", query.sql)
                if not self.server.drops_rows:
                    blocks.write(block)
            self.server.hook("insert", query.sql)
            blocks.flush()
            if blocks.tell():
                engine.query(f"INSERT INTO {into} FROM INFILE '{blocks.name}' FORMAT Native")
        self.server.hook("stored", query.sql)


def _open(path: str) -> Connection:
    """The engine on a data folder; raises FolderInUse."""
    try:
        return Connection(path)
    except RuntimeError as error:
        raise FolderInUse(
            f"{path} cannot be opened: if it is being served, ask that server, or stop it"
        ) from error


def _select(wire: Wire, engine: Connection, query: Query) -> None:
    """Send a header block, as a server does, then the engine's Native output block by block."""
    sql = _FORMAT.sub("", query.sql.rstrip().rstrip(";"))
    bare = _bare(sql)
    if re.match(r"(SELECT|WITH|FROM)\b", bare, re.IGNORECASE):
        described = engine.query(f"DESCRIBE TABLE ({sql}\n)", "TSV").bytes().decode()
        wire.write_block(_header(described.splitlines()), query.compressed)
        for chunk in engine.send_query(sql, "Native"):
            wire.write_block(chunk.bytes(), query.compressed)
        return
    if _READS.match(bare):
        named = engine.query(sql, "TSVWithNamesAndTypes").bytes().decode().split("\n")
        if len(named) > 2:  # USE and SET answer nothing.
            columns = zip(named[0].split("\t"), named[1].split("\t"), strict=True)
            wire.write_block(_header(["\t".join(column) for column in columns]), query.compressed)
    if native := engine.query(sql, "Native").bytes():
        wire.write_block(native, query.compressed)


def _bare(sql: str) -> str:
    """A query without comments, and without blanks and parentheses before its first word."""
    return _COMMENT.sub(" ", sql).lstrip(" \n\r\t(")


def _insert_header(engine: Connection, found: re.Match[str]) -> tuple[str, bytes]:
    """The table, and an empty block with the names and types of the columns to insert."""
    table = found["table"]
    described = engine.query(f"DESCRIBE TABLE {table}", "TSV").bytes().decode().splitlines()
    if not found["columns"]:
        return table, _header(described)
    lines = {line.split("\t")[0]: line for line in described}
    names = [name.strip(' `"\n') for name in found["columns"].split(",")]
    for name in names:
        if name not in lines:
            raise ValueError(
                f"Code: {_NO_SUCH_COLUMN}. DB::Exception: No such column {name} in table {table}."
            )
    return table, _header([lines[name] for name in names])


def _header(described: list[str]) -> bytes:
    """A block without rows, from lines that hold a name, a tab and a type."""
    block = bytes([*_varint(len(described)), 0])
    for line in described:
        name, kind, *_ = line.replace("\\'", "'").split("\t")
        block += _text(name) + _text(kind)
    return block


def _text(text: str) -> bytes:
    return _varint(len(text.encode())) + text.encode()


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _code_and_text(error: Exception) -> tuple[int, str]:
    """ClickHouse's own code and text, taken from an error of chDB."""
    text = str(error)
    found = _CODE.match(text)
    return (int(found[1]), text[found.end() :]) if found else (1001, text)


def _version(engine: Connection) -> tuple[int, int, int]:
    text = engine.query("SELECT version()", "TSV").bytes().decode()
    major, minor, patch, *_ = (int(part) for part in text.strip().split("."))
    return major, minor, patch


def port_note(data: Path) -> Path:
    """The file in a data folder that says on which port the folder is served."""
    return data / "served_on_port"


def main() -> int:
    """Serve a data folder until Ctrl-C, SIGTERM or, if asked, the end of standard input."""
    parser = argparse.ArgumentParser(
        prog="python -m local.clickhouse_server", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--data", type=Path, default=DATA, help="data folder (%(default)s)")
    parser.add_argument("--port", type=int, default=PORT, help="0 takes a free one (%(default)s)")
    parser.add_argument("--user", default=USER, help="(%(default)s)")
    parser.add_argument("--password", default="", help="(none)")
    parser.add_argument("--read-only", action="store_true", help="refuse to change anything")
    parser.add_argument(
        "--drop-rows", action="store_true", help="acknowledge inserts and store nothing"
    )
    parser.add_argument(
        "--stop-with-parent", action="store_true", help="stop when standard input ends"
    )
    options = parser.parse_args()
    stop = StopRequest(with_parent=options.stop_with_parent)
    try:
        if options.read_only and not options.data.exists():
            print(f"clickhouse: {options.data} does not exist: make run first", file=sys.stderr)
            return 1
        server = ClickHouseServer(
            options.data,
            options.port,
            options.user,
            options.password,
            read_only=options.read_only,
            drops_rows=options.drop_rows,
        )
    except FolderUnusable as error:
        print(f"clickhouse: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"clickhouse: port {options.port}: {error.strerror}: try --port 0", file=sys.stderr)
        return 1
    note = port_note(options.data)
    note.write_text(f"{server.port}\n")
    version = ".".join(map(str, server.engine_version))
    print(
        f"ClickHouse {version} (chDB) on 127.0.0.1:{server.port}, data in {options.data}"
        f"{', read-only' if options.read_only else ''}; Ctrl-C stops it",
        flush=True,
    )
    server.start()
    stop.wait()
    note.unlink(missing_ok=True)
    server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
