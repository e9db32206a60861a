"""Bytes to lines: chunks, gzip, line ends, limits."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from itertools import chain

MIB = 1024**2

READ_BYTES = MIB
"""How much is read from S3 at a time. Our choice."""

CHUNK_BYTES = 128 * 1024
"""How much is split, decoded and turned into columns at a time. Our choice: with more, the data
leaves the processor's cache and everything takes twice as long."""

MAX_LINE_BYTES = 16 * MIB
"""The longest line, without its line end. Our limit."""

_GZIP_MAGIC = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"

FREE_BYTES = 64 * MIB
"""What gzip may unpack to at any ratio, since small objects do no harm. Our limit."""

MAX_UNPACKED_RATIO = 200
"""Bytes that one byte of gzip may unpack to, on average, beyond FREE_BYTES. Our limit: bundles have
up to 30 (docs/performance.md), and a bomb 1,000."""

MAX_UNPACKED_BYTES = 10 * 1024 * MIB
"""What gzip may unpack to. Our limit: more is read in no invocation."""


class BrokenGzip(Exception):
    """The object starts as gzip, but is damaged, cut short, or unpacks to more than the limits."""


def decompressed(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The bytes, unpacked if they start with gzip's magic number; in chunks of up to CHUNK_BYTES.

    All members of a multi-member file are read, and zero padding after the last one is allowed (RFC
    1952, and `gzip -d`). Raises BrokenGzip for a short or damaged stream, and before it passes on
    more than the limits allow.
    """
    source = iter(chunks)
    head = _head(source, len(_GZIP_MAGIC))
    pieces = _pieces(chain((head,), source))
    return _gunzip(pieces) if head.startswith(_GZIP_MAGIC) else pieces


def _gunzip(chunks: Iterable[bytes]) -> Iterator[bytes]:
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
                    _check_size(unpacked, packed)
                    yield output
                    if member.eof:
                        break
                    # Zlib may still hold output after the last input; an empty input asks for it.
                    output = member.decompress(member.unconsumed_tail, CHUNK_BYTES)
            except zlib.error as error:
                raise BrokenGzip(f"gzip stream is damaged ({error}): upload it again") from error
            data = b""
            if member.eof:
                data = member.unused_data
                member = zlib.decompressobj(wbits=31)
                begun = False
    if begun:
        raise BrokenGzip("gzip stream is cut short: upload it again")


def _check_size(unpacked: int, packed: int) -> None:
    if unpacked > MAX_UNPACKED_BYTES:
        raise BrokenGzip(
            f"gzip unpacks to more than {MAX_UNPACKED_BYTES // MIB} MiB: split the object"
        )
    if unpacked > max(FREE_BYTES, packed * MAX_UNPACKED_RATIO):
        raise BrokenGzip(
            f"gzip unpacks to more than {MAX_UNPACKED_RATIO} times its size: check what it is; if"
            " it is a bundle, upload it unpacked"
        )


def _pieces(chunks: Iterable[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        for start in range(0, len(chunk), CHUNK_BYTES):
            yield chunk[start : start + CHUNK_BYTES]


def split_lines(
    chunks: Iterable[bytes], max_line_bytes: int = MAX_LINE_BYTES
) -> Iterator[list[bytes]]:
    r"""Lists of lines without their `\n`, in order; one list for each chunk that ends a line.

    Only `\n` ends a line: a lone `\r` and Unicode's separators stay inside it, and the `\r` of
    `\r\n` is left at its end. A byte order mark before the first line is dropped. The last line
    needs no `\n`; an empty rest after the last `\n` is not a line. A line longer than
    max_line_bytes is cut to max_line_bytes + 2 bytes, which is enough to see that it is too long,
    with or without a `\r`.
    """
    limit = max_line_bytes + 2
    parts: list[bytes] = []
    held = 0
    source = iter(chunks)
    start = _head(source, len(_BOM)).removeprefix(_BOM)
    for chunk in chain((start,), source):
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


def _head(source: Iterator[bytes], least: int) -> bytes:
    """The first chunks, as many as together have at least so many bytes."""
    head = b""
    while len(head) < least and (chunk := next(source, None)) is not None:
        head += chunk
    return head
