"""ClickHouse's port for HTTP, on the current engine: it answers queries and drops inserted rows.

Only tools that others wrote need it: the loader speaks the native protocol.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from chdb.state.sqlitelike import Connection

_INSERT = re.compile(rb"\s*INSERT\s", re.IGNORECASE)
_FORMAT = re.compile(r"\sFORMAT\s+(\w+)\s*;?\s*$", re.IGNORECASE)


class _Server(ThreadingHTTPServer):
    def __init__(self, engine: Connection) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self._engine = engine
        self._lock = threading.Lock()

    def query(self, database: str, sql: str, given_format: str) -> bytes:
        """The answer in the query's own format, or else in the given one; raises RuntimeError."""
        found = _FORMAT.search(sql)
        with self._lock:
            self._engine.query(f"USE {database}")
            answer = self._engine.query(_FORMAT.sub("", sql), found[1] if found else given_format)
        return bytes(answer.bytes())


class _Handler(BaseHTTPRequestHandler):
    """Answers a query that is in the address or in the body."""

    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self._body())

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, body: bytes) -> None:
        asked = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        query = asked.get("query", "").encode() or body
        # Clients pack nothing but rows.
        if "Content-Encoding" in self.headers or _INSERT.match(query):
            self._send(200, b"")
            return
        given_format = self.headers.get("X-ClickHouse-Format") or "TSV"
        try:
            answer = self.server.query(
                asked.get("database", "default"), query.decode(), given_format
            )
        except RuntimeError as error:
            self._send(500, str(error).encode())
        else:
            self._send(200, answer)

    def _send(self, status: int, answer: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.send_header("X-ClickHouse-Timezone", "UTC")
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@contextmanager
def serving(*statements: str) -> Iterator[int]:
    """Serve an empty engine on a free port, after running some statements; gives the port."""
    engine = Connection(":memory:")
    try:
        for sql in statements:
            engine.query(sql)
        with _Server(engine) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield server.server_port
            server.shutdown()
    finally:
        engine.close()
