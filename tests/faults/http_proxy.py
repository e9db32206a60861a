"""An HTTP proxy before S3: it refuses, stalls, cuts bodies short and acts between two answers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import urllib3

_HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive", "server", "date"}
_ERROR = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>injected</Message></Error>"


@dataclass
class Request:
    """What S3 was asked for."""

    method: str
    path: str
    range: str = ""


@dataclass
class Answer:
    """What is done instead of passing on.

    code, status: S3's error. cut: bytes of the body that are sent before the line is cut; stall:
    bytes before nothing more comes; do: what happens before the request is passed on. A cut waits
    for `until`, and `was_cut` tells of it. change: what is made of the body.
    """

    code: str = ""
    status: int = 503
    cut: int | None = None
    stall: int | None = None
    do: Callable[[], object] = lambda: None
    change: Callable[[bytes], bytes] = bytes
    until: threading.Event | None = None
    was_cut: threading.Event = field(default_factory=threading.Event)


Rule = Callable[[Request], Answer | None]


def passing(_: Request) -> Answer | None:
    """No fault."""
    return None


class S3Proxy(ThreadingHTTPServer):
    """Passes requests on, as `rule` lets it; `requests` is what came."""

    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = upstream
        self.pool = urllib3.PoolManager(retries=False)
        self.rule: Rule = passing
        self.requests: list[Request] = []
        self.ended = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def asked(self, method: str, part: str = "") -> list[Request]:
        """The requests of a method, with a part of the path."""
        return [r for r in self.requests if r.method == method and part in r.path]


class _Handler(BaseHTTPRequestHandler):
    server: S3Proxy
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        request = Request(self.command, self.path, self.headers.get("Range", ""))
        self.server.requests.append(request)
        answer = self.server.rule(request) or Answer()
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if answer.code:
            self._send(answer.status, {}, _ERROR.format(code=answer.code).encode(), Answer())
            return
        answer.do()
        passed = self.server.pool.request(
            self.command,
            self.server.upstream + self.path,
            body=sent or None,
            headers=dict(self.headers),
            decode_content=False,
        )
        headers = {k: v for k, v in passed.headers.items() if k.lower() not in _HOP_BY_HOP}
        if self.command == "HEAD":
            headers["Content-Length"] = passed.headers.get("Content-Length", "0")
        self._send(passed.status, headers, answer.change(passed.data), answer)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve  # noqa: N815  # http.server's names

    def _send(self, status: int, headers: dict[str, str], body: bytes, answer: Answer) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if answer.cut is not None or answer.stall is not None:
            self.wfile.write(body[: answer.cut if answer.cut is not None else answer.stall])
            self.wfile.flush()
            if answer.stall is not None:
                self.server.ended.wait()
            if answer.until:
                answer.until.wait(60)
                self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            answer.was_cut.set()
            return
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Nothing: the requests are kept."""


@contextmanager
def s3_proxy(upstream: str) -> Iterator[S3Proxy]:
    """A proxy before S3's address, for as long as the block lasts."""
    proxy = S3Proxy(upstream)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        yield proxy
    finally:
        proxy.ended.set()
        proxy.shutdown()
        proxy.server_close()
        proxy.pool.clear()
