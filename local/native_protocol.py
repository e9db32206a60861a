"""The server's side of ClickHouse's native protocol, as much of it as a client of 54429 speaks.

Reading and writing of numbers, text and compressed frames is clickhouse-driver's own.
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
"""From here on settings travel as text; nothing that came later is needed."""

_LZ4 = 0x82
_BLOCK_INFO = b"\x01\x00\x02\xff\xff\xff\xff\x00"
_EMPTY_BLOCK = b"\x00\x00"
_BUFFER_BYTES = 1024**2


class ProtocolError(Exception):
    """The client sent what this server does not speak."""


@dataclass(frozen=True)
class Hello:
    """Who knocks."""

    database: str
    user: str
    password: str


@dataclass(frozen=True)
class Query:
    """What a client asks, with its settings as text; its data, if any, follows in blocks."""

    sql: str
    settings: dict[str, str]
    compressed: bool


class Wire:
    """One connection: packets in, packets out."""

    def __init__(self, sock: socket.socket) -> None:
        self._in = BufferedSocketReader(sock, _BUFFER_BYTES)
        self._out = BufferedSocketWriter(sock, _BUFFER_BYTES)
        self._frames = CompressedBlockInputStream(self._in, SimpleNamespace())

    def read_hello(self) -> Hello:
        """The first packet; raises ProtocolError for another protocol, such as HTTP."""
        if read_varint(self._in) != ClientPacketTypes.HELLO:
            raise ProtocolError("the native protocol is spoken here, and begins with a Hello")
        read_binary_str(self._in)
        for _ in ("major", "minor", "revision"):
            read_varint(self._in)
        return Hello(*(read_binary_str(self._in) for _ in ("database", "user", "password")))

    def write_hello(self, version: tuple[int, int, int]) -> None:
        """Say who answers."""
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
        """The next query; pings are answered on the way. Raises EOFError when the client left."""
        while (kind := read_varint(self._in)) != ClientPacketTypes.QUERY:
            if kind == ClientPacketTypes.PING:
                write_varint(ServerPacketTypes.PONG, self._out)
                self._out.flush()
            elif kind != ClientPacketTypes.CANCEL:
                raise ProtocolError(f"packet {kind} is not spoken here")
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
            raise ProtocolError("external tables are not spoken here")
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
        """The next data block in Native format; None for the empty one that ends a sequence."""
        kind = read_varint(self._in)
        if kind != ClientPacketTypes.DATA:
            raise ProtocolError(f"data was expected, packet {kind} came")
        read_binary_str(self._in)  # table name
        if compressed:
            block: bytes = self._frames.read_block()[len(_BLOCK_INFO) :]
            return None if block == _EMPTY_BLOCK else block
        BlockInfo().read(self._in)
        if read_varint(self._in) or read_varint(self._in):
            raise ProtocolError("inserts are taken compressed only: connect with compression")
        return None

    def write_block(self, native: bytes, compressed: bool) -> None:
        """Send a block in Native format."""
        block = _BLOCK_INFO + (native or _EMPTY_BLOCK)
        write_varint(ServerPacketTypes.DATA, self._out)
        write_binary_str("", self._out)
        self._out.write(_frame(block) if compressed else block)
        self._out.flush()

    def write_end(self) -> None:
        """Acknowledge: everything that was asked is done."""
        write_varint(ServerPacketTypes.END_OF_STREAM, self._out)
        self._out.flush()

    def write_exception(self, code: int, text: str) -> None:
        """Refuse, as a server does."""
        write_varint(ServerPacketTypes.EXCEPTION, self._out)
        write_binary_int32(code, self._out)
        for part in ("DB::Exception", f"DB::Exception: {text}", ""):
            write_binary_str(part, self._out)
        write_binary_uint8(0, self._out)  # nothing nested
        self._out.flush()


class _Bytes(bytearray):
    """What clickhouse-driver's writers write to."""

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
