"""A TCP proxy in front of a local server: it can cut, mute, hold or swallow connections, cut
answers, and be as slow as a network.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from queue import SimpleQueue

PIECE = 16 * 1024


@dataclass
class Fault:
    """What happens to the next `times` connections; later ones are passed on unchanged.

    cut_after: both ends are closed once the client has sent this many bytes. mute_after: from then
    on the client receives nothing more, while the server still receives everything. Both count
    from the end of `since` in what the client sends. damage_after: the byte of the reply after
    this many is changed. hold: seconds between accepting the connection and passing anything on.
    swallow: nothing is passed on, in either direction, and nothing is closed. `seen` counts the
    connections that have the fault, `fired` those on which it took effect.
    """

    cut_after: int | None = None
    mute_after: int | None = None
    damage_after: int | None = None
    hold: float = 0
    swallow: bool = False
    since: bytes = b""
    times: int = 1
    seen: int = 0
    fired: int = 0


@dataclass
class CutAnswers:
    """The next `times` answers to what holds the text `to` end after `after` bytes, as when a NAT
    gateway restarts. `fired` counts those that were longer, and so were cut.
    """

    to: bytes = b""
    after: int = 0
    times: int = 0
    fired: int = 0


@dataclass
class _Connection:
    """A client's connection, and the one to the server that serves it."""

    client: socket.socket
    server: socket.socket
    fault: Fault
    muted: bool = False
    answered: bool = True
    left: int | None = None
    """Bytes that may still pass of an answer that is cut."""


@dataclass
class TcpProxy:
    """Passes connections on to a port; `sent` keeps what the clients sent.

    With `tls`, it speaks TLS with the clients, and none with the port behind it.
    `before` is called with each piece that a client sent, before it is passed on. `turn` counts
    the messages of clients, which are exchanges with the server: a piece that follows an answer
    begins another one. `connections` counts those that clients made.
    `delay` is how many seconds a round trip takes, of connections made from then on: each piece
    arrives half of it later, and the first one another round trip later, for connecting.
    """

    upstream: int
    tls: ssl.SSLContext | None = None
    before: Callable[[bytes], object] = lambda _: None
    turn: int = 0
    connections: int = 0
    delay: float = 0
    fault: Fault = field(default_factory=lambda: Fault(times=0))
    answers: CutAnswers = field(default_factory=CutAnswers)
    sent: bytearray = field(default_factory=bytearray)
    ended: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._clients: list[socket.socket] = []
        self._frozen: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """The address for clients of HTTP."""
        return f"http://127.0.0.1:{self.port}"

    def freeze(self) -> None:
        """Pass nothing more on in open connections, but keep them open, like a NAT that forgot."""
        self._frozen = self._clients[:]

    def hang_up(self) -> None:
        """Close what is open to clients, as a server that restarts."""
        while self._clients:
            close_end(self._clients.pop())

    def send_reply(self, reply: bytes) -> None:
        """Send this to the clients as if the server had; the server itself must be silent."""
        for client in self._clients:
            with suppress(OSError):
                client.sendall(reply)

    def close(self) -> None:
        """Close all connections."""
        self.ended.set()
        for each in (self._listener, *self._open):
            close_end(each)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            fault = Fault()
            if self.fault.seen < self.fault.times:
                self.fault.seen += 1
                fault = self.fault
            serve = self._serve_tls if self.tls else self._serve
            threading.Thread(target=serve, args=(client, fault), daemon=True).start()

    def _serve_tls(self, client: socket.socket, fault: Fault) -> None:
        assert self.tls
        try:
            client = self.tls.wrap_socket(client, server_side=True)
        except OSError:
            client.close()  # It did not accept the certificate, or did not use TLS.
        else:
            self._serve(client, fault)

    def _serve(self, client: socket.socket, fault: Fault) -> None:
        self._open.append(client)
        self._clients.append(client)
        if fault.swallow:
            fault.fired += 1
            self.ended.wait()
            return
        if fault.hold:
            fault.fired += 1
            self.ended.wait(fault.hold)
        self.ended.wait(self.delay)
        try:
            server = socket.create_connection(("127.0.0.1", self.upstream))
        except OSError:
            close_end(client)  # The server is down.
            return
        for each in (client, server):
            # As the driver and the server do: else a piece may wait 40 ms for an acknowledgement.
            with suppress(OSError):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._open.append(server)
        one = _Connection(client, server, fault)
        threading.Thread(target=self._replies, args=(one,), daemon=True).start()
        received, send = bytearray(), self._sender(server)
        with suppress(OSError):
            while piece := client.recv(PIECE):
                if client in self._frozen:
                    continue
                if self.answers.times and self.answers.to in piece:
                    self.answers.times -= 1
                    one.left = self.answers.after
                received += piece
                start = received.find(fault.since)
                counted = len(received) - start - len(fault.since) if start >= 0 else -1
                if fault.mute_after is not None and counted >= fault.mute_after:
                    fault.fired += not one.muted
                    one.muted = True
                if fault.cut_after is not None and counted >= fault.cut_after:
                    fault.fired += 1
                    send(piece[: len(piece) - (counted - fault.cut_after)])
                    break
                self.sent += piece
                self._count(one)
                self.before(piece)
                send(piece)
        send(b"")
        close_end(client)

    def _sender(self, to: socket.socket) -> Callable[[bytes], object]:
        """What sends a piece, or closes after an empty one; with a delay, pieces are on their way
        at the same time.
        """

        def send(piece: bytes) -> None:
            if piece:
                to.sendall(piece)
            else:
                close_end(to)

        if not self.delay:
            return send
        half, on_their_way = self.delay / 2, SimpleQueue[tuple[float, bytes]]()

        def deliver() -> None:
            piece = b"first"
            with suppress(OSError):
                while piece:
                    due, piece = on_their_way.get()
                    self.ended.wait(due - time.monotonic())
                    send(piece)

        threading.Thread(target=deliver, daemon=True).start()
        return lambda piece: on_their_way.put((time.monotonic() + half, piece))

    def _count(self, one: _Connection) -> None:
        self.turn += one.answered
        one.answered = False

    def _replies(self, one: _Connection) -> None:
        passed, fault, send = 0, one.fault, self._sender(one.client)
        with suppress(OSError):
            while piece := one.server.recv(PIECE):
                if fault.damage_after is not None and 0 <= fault.damage_after - passed < len(piece):
                    fault.fired += 1
                    at = fault.damage_after - passed
                    piece = piece[:at] + bytes([piece[at] ^ 1]) + piece[at + 1 :]
                passed += len(piece)
                one.answered = True
                if one.left is not None:
                    if len(piece) > one.left:
                        self.answers.fired += 1
                        send(piece[: one.left])
                        break
                    one.left -= len(piece)
                if not one.muted and one.client not in self._frozen:
                    send(piece)
        send(b"")


def close_end(end: socket.socket) -> None:
    """Close an end of a connection, so that a thread that waits for it stops waiting."""
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()


@contextmanager
def tcp_proxy(upstream: int, tls: ssl.SSLContext | None = None) -> Iterator[TcpProxy]:
    """A proxy in front of the port, while the block runs."""
    proxy = TcpProxy(upstream, tls)
    try:
        yield proxy
    finally:
        proxy.close()
