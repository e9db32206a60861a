"""A proxy that ends an answer of an HTTP service early, as a NAT gateway that restarts does."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.faults.tcp_proxy import close_end


@dataclass
class CutAnswers:
    """Passes requests on; the next `times` answers to those that hold the text `to` are closed
    after `after` bytes. `fired` counts the answers that were longer, and so were cut.
    """

    upstream: tuple[str, int]
    to: bytes = b""
    after: int = 0
    times: int = 0
    fired: int = 0
    _listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))

    @property
    def url(self) -> str:
        """The address that the client is given."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def serve(self) -> None:
        """Serve until `close`."""
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self.upstream)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            one = _Passing(self, client, server)
            for run in (one.requests, one.answers):
                threading.Thread(target=run, daemon=True).start()

    def close(self) -> None:
        """Accept nothing more."""
        close_end(self._listener)


@dataclass
class _Passing:
    """One connection of a client."""

    proxy: CutAnswers
    client: socket.socket
    server: socket.socket
    left: int | None = None
    """Bytes that may still pass of an answer that is cut."""

    def requests(self) -> None:
        with suppress(OSError):
            while piece := self.client.recv(1 << 16):
                if self.proxy.times and self.proxy.to in piece:
                    self.proxy.times -= 1
                    self.left = self.proxy.after
                self.server.sendall(piece)
        self._end()

    def answers(self) -> None:
        with suppress(OSError):
            while piece := self.server.recv(1 << 16):
                if self.left is None:
                    self.client.sendall(piece)
                    continue
                self.client.sendall(piece[: self.left])
                if len(piece) > self.left:
                    self.proxy.fired += 1
                    break
                self.left -= len(piece)
        self._end()

    def _end(self) -> None:
        close_end(self.client)
        close_end(self.server)


@contextmanager
def cut_answers(upstream: str) -> Iterator[CutAnswers]:
    """A proxy in front of a service's URL, while the block runs."""
    address = urlsplit(upstream)
    proxy = CutAnswers((str(address.hostname), int(address.port or 80)))
    threading.Thread(target=proxy.serve, daemon=True).start()
    try:
        yield proxy
    finally:
        proxy.close()
