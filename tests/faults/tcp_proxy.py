"""A TCP proxy before a server on this machine: it cuts, delays, mutes and swallows."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

PIECE = 16 * 1024


@dataclass
class Fault:
    """What is done to the next `times` connections; afterwards all pass untouched.

    cut_after: both ends are closed when the client has sent so many bytes. mute_after: from then
    on the client hears nothing more, while the server hears all. Both count from where the client
    sends `since`. delay: seconds before each piece of a reply. swallow: nothing is passed on, in
    either direction, and nothing is closed. `fired` counts the connections to which it was done.
    """

    cut_after: int | None = None
    mute_after: int | None = None
    delay: float = 0
    swallow: bool = False
    since: bytes = b""
    times: int = 1
    seen: int = 0
    fired: int = 0


@dataclass
class TcpProxy:
    """Passes connections on to a port; what the clients sent is kept in `sent`, to be looked at."""

    upstream: int
    fault: Fault = field(default_factory=lambda: Fault(times=0))
    sent: bytearray = field(default_factory=bytearray)
    ended: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._clients: list[socket.socket] = []
        self._hushed: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def hush(self) -> None:
        """From now on, what is open passes nothing on, and stays open: as a NAT that forgot it."""
        self._hushed = self._clients[:]

    def say(self, reply: bytes) -> None:
        """Send this to the clients, as if it came from the server; it must be saying nothing."""
        for client in self._clients:
            with suppress(OSError):
                client.sendall(reply)

    def close(self) -> None:
        """Close everything that is open."""
        self.ended.set()
        for each in (self._listener, *self._open):
            _close(each)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            fault = Fault()
            if self.fault.seen < self.fault.times:
                self.fault.seen += 1
                fault = self.fault
            threading.Thread(target=self._serve, args=(client, fault), daemon=True).start()

    def _serve(self, client: socket.socket, fault: Fault) -> None:
        self._open.append(client)
        self._clients.append(client)
        if fault.swallow:
            fault.fired += 1
            self.ended.wait()
            return
        server = socket.create_connection(("127.0.0.1", self.upstream))
        self._open.append(server)
        muted = threading.Event()
        back = threading.Thread(
            target=self._replies, args=(server, client, fault, muted), daemon=True
        )
        back.start()
        heard = bytearray()
        with suppress(OSError):
            while piece := client.recv(PIECE):
                if client in self._hushed:
                    continue
                heard += piece
                begun = heard.find(fault.since)
                counted = len(heard) - begun - len(fault.since) if begun >= 0 else -1
                if fault.mute_after is not None and counted >= fault.mute_after:
                    fault.fired += not muted.is_set()
                    muted.set()
                if fault.cut_after is not None and counted >= fault.cut_after:
                    fault.fired += 1
                    server.sendall(piece[: len(piece) - (counted - fault.cut_after)])
                    break
                self.sent += piece
                server.sendall(piece)
        _close(server)
        _close(client)

    def _replies(
        self, server: socket.socket, client: socket.socket, fault: Fault, muted: threading.Event
    ) -> None:
        with suppress(OSError):
            while piece := server.recv(PIECE):
                if fault.delay:
                    fault.fired = fault.seen
                    self.ended.wait(fault.delay)
                if not muted.is_set() and client not in self._hushed:
                    client.sendall(piece)
        _close(client)


def _close(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()


@contextmanager
def tcp_proxy(upstream: int) -> Iterator[TcpProxy]:
    """A proxy before the port, for as long as the block lasts."""
    proxy = TcpProxy(upstream)
    try:
        yield proxy
    finally:
        proxy.close()
