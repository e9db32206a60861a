"""Bytes to lines: chunks, gzip, line ends, limits. Pure: knows no S3 and no JSON."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple

READ_BYTES = 1024**2
"""How much is asked of S3 at a time. Ours."""

CHUNK_BYTES = 128 * 1024
"""How much is split, decoded and made columns of at a time: what becomes of it must fit into a
processor's cache, or everything takes twice as long. Ours."""

MAX_LINE_BYTES = 16 * 1024**2
"""The longest line that is looked at, without its end, where no other limit is given. Ours."""

_GZIP_MAGIC = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"


FREE_BYTES = 64 * 1024**2
"""What gzip may hold at any ratio: small and well packed is no harm. Ours."""


class BrokenGzip(Exception):
    """The object starts as gzip, but does not decompress to its end, or not within the limits."""


class Unpacking(NamedTuple):
    """How much may come out of gzip: bytes in all, and, beyond FREE_BYTES, for each byte of it."""

    max_bytes: int
    max_ratio: int


ANY = Unpacking(2**63, 2**63)
"""No limit."""


def decompressed(chunks: Iterable[bytes], limits: Unpacking = ANY) -> Iterator[bytes]:
    """The same bytes, or what they hold where they start with gzip's magic number.

    The content decides, not the object's name. All members of a multi-member file are read, zero
    padding after the last one is allowed (RFC 1952, and what `gzip -d` does), and every chunk is
    at most CHUNK_BYTES long. Raises BrokenGzip for a short or damaged stream, and before more than
    the limits allow is held or passed on: a megabyte can hold a gigabyte of zeros.
    """
    source = iter(chunks)
    head = b""
    for chunk in source:
        head += chunk
        if len(head) >= len(_GZIP_MAGIC):
            break
    pieces = _pieces(chain((head,), source))
    return _gunzip(pieces, limits) if head.startswith(_GZIP_MAGIC) else pieces


def _gunzip(chunks: Iterable[bytes], limits: Unpacking) -> Iterator[bytes]:
    member = zlib.decompressobj(wbits=31)
    begun = False
    packed = unpacked = 0
    for chunk in chunks:
        data = chunk
        packed += len(chunk)
        while data:
            if not begun:
                data = data.lstrip(b"\0")
                if not data:
                    break
            begun = True
            try:
                output = member.decompress(data, CHUNK_BYTES)
                while output:
                    unpacked += len(output)
                    _check_size(unpacked, packed, limits)
                    yield output
                    if member.eof:
                        break
                    # Zlib may hold more output than it has input left for: an empty input asks.
                    output = member.decompress(member.unconsumed_tail, CHUNK_BYTES)
            except zlib.error as error:
                raise BrokenGzip(f"gzip stream is damaged ({error}): upload it again") from error
            data = b""
            if member.eof:
                data = member.unused_data
                member = zlib.decompressobj(wbits=31)
                begun = False
    if begun:
        raise BrokenGzip("gzip stream ends before its end: the upload was cut short, repeat it")


def _check_size(unpacked: int, packed: int, limits: Unpacking) -> None:
    if unpacked > limits.max_bytes:
        raise BrokenGzip(
            f"gzip holds more than {limits.max_bytes // 1024**2} MiB: split the object, or raise"
            " MAX_UNPACKED_MB"
        )
    if unpacked > max(FREE_BYTES, packed * limits.max_ratio):
        raise BrokenGzip(
            f"gzip holds more than {limits.max_ratio} times its size: check what it is, or raise"
            " MAX_UNPACKED_RATIO"
        )


def _pieces(chunks: Iterable[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        for start in range(0, len(chunk), CHUNK_BYTES):
            yield chunk[start : start + CHUNK_BYTES]


def split_lines(
    chunks: Iterable[bytes], max_line_bytes: int = MAX_LINE_BYTES
) -> Iterator[list[bytes]]:
    r"""Lists of lines without their `\n`, in order; one list for each chunk that ends a line.

    Only `\n` ends a line: a lone `\r` and the Unicode separators stay inside it, and the `\r` of
    `\r\n` is left to whoever strips. A byte order mark before the first line is dropped. The last
    line needs no end; nothing after a last `\n` is no line. A line of over max_line_bytes comes as
    its first max_line_bytes + 2 bytes, however long it is: enough to tell it, with or without a
    `\r`, from one that is just not too long.
    """
    limit = max_line_bytes + 2
    parts: list[bytes] = []
    held = 0
    for chunk in _without_bom(chunks):
        first, *rest = chunk.split(b"\n")
        if held < limit:
            parts.append(first[: limit - held])
            held += len(parts[-1])
        if not rest:
            continue
        lines = [b"".join(parts), *rest]
        parts = [lines.pop()[:limit]]
        held = len(parts[0])
        if len(chunk) > limit:
            lines = [line[:limit] for line in lines]
        yield lines
    if held:
        yield [b"".join(parts)]


def _without_bom(chunks: Iterable[bytes]) -> Iterator[bytes]:
    source = iter(chunks)
    head = b""
    for chunk in source:
        head += chunk
        if len(head) >= len(_BOM) or not _BOM.startswith(head):
            break
    yield head.removeprefix(_BOM)
    yield from source
