"""An HTTP proxy in front of S3: it can send errors, stall, cut bodies, or run code."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import urllib3

from local.lifetime import POLL_SECONDS

_HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive", "server", "date"}
_ERROR = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"


@dataclass
class Request:
    """A request to S3."""

    method: str
    path: str
    range: str = ""
    owner: str = ""
    authorization: str = ""


@dataclass
class Answer:
    """What the proxy does with a request.

    code, status, message: answer with this S3 error. cut: bytes of the body to send before closing
    the connection, after waiting for `until` if it is set; `was_cut` is set then. stall: bytes to
    send before falling silent. do: called before the request is passed on. headers: set these; None
    leaves one out. whole: ask S3 for the object without its range. body: answer with it, and status
    200, without asking S3.
    """

    code: str = ""
    status: int = 503
    message: str = "injected"
    cut: int | None = None
    stall: int | None = None
    do: Callable[[], object] = lambda: None
    headers: dict[str, str | None] = field(default_factory=dict)
    whole: bool = False
    body: bytes | None = None
    until: threading.Event | None = None
    was_cut: threading.Event = field(default_factory=threading.Event)


Rule = Callable[[Request], Answer | None]


def passing(_: Request) -> Answer | None:
    """No fault."""
    return None


class S3Proxy(ThreadingHTTPServer):
    """Passes requests on unless `rule` says otherwise; `requests` keeps them."""

    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = upstream
        self.pool = urllib3.PoolManager(retries=False)
        self.rule: Rule = passing
        self.requests: list[Request] = []
        self.connections = 0
        self.ended = threading.Event()

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections += 1
        super().process_request(request, client_address)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def asked(self, method: str, part: str = "") -> list[Request]:
        """The requests with this method and this text in their path."""
        return [r for r in self.requests if r.method == method and part in r.path]


class _Handler(BaseHTTPRequestHandler):
    server: S3Proxy
    protocol_version = "HTTP/1.1"
    # Else a body waits 40 ms for the acknowledgement of its headers.
    disable_nagle_algorithm = True

    def _serve(self) -> None:
        request = Request(
            self.command,
            self.path,
            self.headers.get("Range", ""),
            self.headers.get("x-amz-expected-bucket-owner", ""),
            self.headers.get("Authorization", ""),
        )
        self.server.requests.append(request)
        answer = self.server.rule(request) or Answer()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if answer.code:
            error = _ERROR.format(code=answer.code, message=answer.message).encode()
            self._send(answer.status, {}, error, Answer())
            return
        if answer.body is not None:
            self._send(200, {}, answer.body, Answer())
            return
        answer.do()
        passed = self.server.pool.request(
            self.command,
            self.server.upstream + self.path,
            body=body or None,
            headers={
                k: v for k, v in self.headers.items() if not (answer.whole and k.lower() == "range")
            },
            decode_content=False,
        )
        headers = {k: v for k, v in passed.headers.items() if k.lower() not in _HOP_BY_HOP}
        if self.command == "HEAD":
            headers["Content-Length"] = passed.headers.get("Content-Length", "0")
        changed = {name.lower() for name in answer.headers}
        kept = {k: v for k, v in headers.items() if k.lower() not in changed}
        sent = kept | {k: v for k, v in answer.headers.items() if v is not None}
        self._send(passed.status, sent, passed.data, answer)

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
        """Log nothing: the requests are kept."""


@contextmanager
def s3_proxy(upstream: str) -> Iterator[S3Proxy]:
    """A proxy in front of S3's address, while the block runs."""
    proxy = S3Proxy(upstream)
    threading.Thread(target=proxy.serve_forever, args=(POLL_SECONDS,), daemon=True).start()
    try:
        yield proxy
    finally:
        proxy.ended.set()
        proxy.shutdown()
        proxy.server_close()
        proxy.pool.clear()
