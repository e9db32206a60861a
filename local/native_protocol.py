"""The server's side of ClickHouse's native protocol, at revision 54429.

clickhouse-driver's own code reads and writes numbers, text and compressed frames.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from types import SimpleNamespace

import lz4.block
from clickhouse_cityhash.cityhash import CityHash128
from clickhouse_driver.block import BlockInfo
from clickhouse_driver.bufferedreader import BufferedSocketReader
from clickhouse_driver.bufferedwriter import BufferedSocketWriter
from clickhouse_driver.protocol import ClientPacketTypes, ServerPacketTypes
from clickhouse_driver.reader import read_binary_str, read_binary_uint8
from clickhouse_driver.streams.compressed import CompressedBlockInputStream
from clickhouse_driver.varint import read_varint, write_varint
from clickhouse_driver.writer import (
    write_binary_int32,
    write_binary_str,
    write_binary_uint8,
    write_binary_uint32,
    write_binary_uint128,
)

REVISION = 54_429
"""The first revision that sends settings as text. Later additions are not needed."""

_LZ4 = 0x82
_BLOCK_INFO = b"\x01\x00\x02\xff\xff\xff\xff\x00"
_EMPTY_BLOCK = b"\x00\x00"
_BUFFER_BYTES = 1024**2


class ProtocolError(Exception):
    """The client sent something that this server does not support."""


@dataclass(frozen=True)
class Hello:
    """A client's login."""

    database: str
    user: str
    password: str


@dataclass(frozen=True)
class Query:
    """A client's query, with its settings as text; data, if any, follows in blocks."""

    sql: str
    settings: dict[str, str]
    compressed: bool


class Wire:
    """One connection: packets in, packets out."""

    def __init__(self, sock: socket.socket) -> None:
        # An answer of several packets would otherwise wait 40 ms for the client to acknowledge the
        # first.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._in = BufferedSocketReader(sock, _BUFFER_BYTES)
        self._out = BufferedSocketWriter(sock, _BUFFER_BYTES)
        self._frames = CompressedBlockInputStream(self._in, SimpleNamespace())

    def read_hello(self) -> Hello:
        """The first packet; raises ProtocolError for another protocol, such as HTTP."""
        if read_varint(self._in) != ClientPacketTypes.HELLO:
            raise ProtocolError(
                "this port speaks ClickHouse's native protocol, which starts with a Hello packet"
            )
        read_binary_str(self._in)
        for _ in ("major", "minor", "revision"):
            read_varint(self._in)
        return Hello(*(read_binary_str(self._in) for _ in ("database", "user", "password")))

    def write_hello(self, version: tuple[int, int, int]) -> None:
        """Answer the login with the server's name, version and time zone."""
        major, minor, patch = version
        write_varint(ServerPacketTypes.HELLO, self._out)
        write_binary_str("ClickHouse", self._out)
        for number in (major, minor, REVISION):
            write_varint(number, self._out)
        write_binary_str("UTC", self._out)
        write_binary_str("local", self._out)
        write_varint(patch, self._out)
        self._out.flush()

    def read_query(self) -> Query:
        """The next query, after answering pings. Raises EOFError when the client has left."""
        while (kind := read_varint(self._in)) != ClientPacketTypes.QUERY:
            if kind == ClientPacketTypes.PING:
                write_varint(ServerPacketTypes.PONG, self._out)
                self._out.flush()
            elif kind != ClientPacketTypes.CANCEL:
                raise ProtocolError(f"packet type {kind} is not supported")
        read_binary_str(self._in)  # query id
        self._skip_client_info()
        settings: dict[str, str] = {}
        while name := read_binary_str(self._in):
            read_binary_uint8(self._in)  # flags
            settings[name] = read_binary_str(self._in)
        read_varint(self._in)  # stage
        compressed = bool(read_varint(self._in))
        query = Query(read_binary_str(self._in), settings, compressed)
        if self.read_block(compressed) is not None:
            raise ProtocolError("external tables are not supported")
        return query

    def _skip_client_info(self) -> None:
        if read_binary_uint8(self._in) == 0:
            return
        for _ in ("initial user", "initial query id", "initial address"):
            read_binary_str(self._in)
        read_binary_uint8(self._in)  # interface
        for _ in ("os user", "host", "client"):
            read_binary_str(self._in)
        for _ in ("major", "minor", "revision"):
            read_varint(self._in)
        read_binary_str(self._in)  # quota key
        read_varint(self._in)  # patch

    def read_block(self, compressed: bool) -> bytes | None:
        """The next data block in Native format; None for the empty block that ends the data."""
        kind = read_varint(self._in)
        if kind != ClientPacketTypes.DATA:
            raise ProtocolError(f"expected a data packet, got type {kind}")
        read_binary_str(self._in)  # table name
        if compressed:
            block: bytes = self._frames.read_block()[len(_BLOCK_INFO) :]
            return None if block == _EMPTY_BLOCK else block
        BlockInfo().read(self._in)
        if read_varint(self._in) or read_varint(self._in):
            raise ProtocolError(
                "blocks of rows must be compressed: connect with compression (of clickhouse-driver,"
                " Client(..., compression=True)), or write the rows into the INSERT"
            )
        return None

    def write_block(self, native: bytes, compressed: bool) -> None:
        """Send a block in Native format."""
        block = _BLOCK_INFO + (native or _EMPTY_BLOCK)
        write_varint(ServerPacketTypes.DATA, self._out)
        write_binary_str("", self._out)
        self._out.write(_frame(block) if compressed else block)
        self._out.flush()

    def write_end(self) -> None:
        """Tell the client that the query is done."""
        write_varint(ServerPacketTypes.END_OF_STREAM, self._out)
        self._out.flush()

    def write_exception(self, code: int, text: str) -> None:
        """Answer with an error, as a server does."""
        write_varint(ServerPacketTypes.EXCEPTION, self._out)
        write_binary_int32(code, self._out)
        for part in ("DB::Exception", f"DB::Exception: {text}", ""):
            write_binary_str(part, self._out)
        write_binary_uint8(0, self._out)  # nothing nested
        self._out.flush()


class _Bytes(bytearray):
    """A buffer that clickhouse-driver's writers can write to."""

    def write(self, data: bytes) -> None:
        self += data


def _frame(block: bytes) -> bytes:
    """A compressed frame: checksum, method, sizes, LZ4."""
    packed = lz4.block.compress(block, store_size=False)
    body = _Bytes()
    write_binary_uint8(_LZ4, body)
    write_binary_uint32(len(packed) + 9, body)
    write_binary_uint32(len(block), body)
    body.write(packed)
    frame = _Bytes()
    write_binary_uint128(CityHash128(bytes(body)), frame)
    frame.write(bytes(body))
    return bytes(frame)
