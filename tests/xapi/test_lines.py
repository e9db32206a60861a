"""Chunks of bytes to lines: unpacking gzip, splitting at newlines, bounded memory."""

import gzip
import tracemalloc
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from xapi_etl_processor.xapi.lines import (
    MAX_LINE_BYTES,
    BrokenGzip,
    decompressed,
    split_lines,
)

BOM = b"\xef\xbb\xbf"

# Bytes that matter to a splitter are far more frequent here than among random bytes.
_special = st.sampled_from([b"\n", b"\r\n", b"\r", BOM, b"\xef", b"\xbb", b"\xe2\x80\xa8", b"{}"])
_bodies = st.lists(_special | st.binary(max_size=6), max_size=20).map(b"".join)
_cuts = st.lists(st.integers(0, 200), max_size=12)


def lines_of(*chunks: bytes, limit: int = MAX_LINE_BYTES) -> list[bytes]:
    return [line for lines in split_lines(chunks, limit) for line in lines]


def unzipped(*chunks: bytes) -> bytes:
    return b"".join(decompressed(chunks))


def in_pieces(body: bytes, size: int) -> list[bytes]:
    return [body[at : at + size] for at in range(0, len(body), size)]


def cut(body: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(c, len(body)) for c in cuts), len(body)]
    return [body[begin:end] for begin, end in pairwise(edges)]


def expected_lines(body: bytes, limit: int) -> list[bytes]:
    """The definition, one byte at a time: independent of how the module finds lines."""
    lines: list[bytes] = []
    current = bytearray()
    for byte in body.removeprefix(BOM):
        if byte == ord("\n"):
            lines.append(bytes(current))
            current.clear()
        else:
            current.append(byte)
    if current:
        lines.append(bytes(current))
    return [line[: limit + 2] for line in lines]


@pytest.mark.slow
@pytest.mark.fault(50, caught_by="lines end at \\n only")
@given(_bodies, _cuts, st.sampled_from([1, 2, 5, 1000]))
@example(BOM + b"a\n", [1, 2, 3], 1000)
@example(b"abcdefgh\nab", [1, 2, 3, 4, 5, 9, 10], 2)
def test_lines_do_not_depend_on_how_the_body_is_chunked(
    body: bytes, cuts: list[int], limit: int
) -> None:
    assert lines_of(*cut(body, cuts), limit=limit) == expected_lines(body, limit)


@pytest.mark.fault(50, 51, caught_by="lines end at \\n only")
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", []),
        (b"a\n", [b"a"]),
        (b"a\r\nb\r\n", [b"a\r", b"b\r"]),
        (b"a\rb\nc", [b"a\rb", b"c"]),
        (b"\n\n a \n\n", [b"", b"", b" a ", b""]),
        ("a\u2028b\u2029c\u0085d\n".encode(), ["a\u2028b\u2029c\u0085d".encode()]),
        (b"a\x0bb\x0cc\x1cd\n", [b"a\x0bb\x0cc\x1cd"]),
        (BOM + b"a\n", [b"a"]),
        (BOM + BOM + b"a\n", [BOM + b"a"]),
        (b"a\n" + BOM + b"b\n", [b"a", BOM + b"b"]),
    ],
)
def test_only_a_newline_ends_a_line(body: bytes, expected: list[bytes]) -> None:
    assert lines_of(body) == expected


@pytest.mark.fault(54, caught_by="line length limit")
def test_an_endless_line_takes_bounded_memory() -> None:
    limit, chunk = 1024**2, 64 * 1024
    tracemalloc.start()
    try:
        (line,) = lines_of(*(b"x" * chunk for _ in range(10)), limit=limit)
        tracemalloc.reset_peak()

        def endless() -> Iterator[bytes]:
            for _ in range(64 * 1024**2 // chunk):
                yield b"x" * chunk

        groups = list(split_lines(endless(), limit))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert line == b"x" * 10 * chunk
    assert [[len(line) for line in lines] for lines in groups] == [[limit + 2]]
    assert peak < 4 * limit


@pytest.mark.fault(55, caught_by="all members are read")
@pytest.mark.fault(52, caught_by="byte order mark dropped")
def test_consecutive_members_are_one_text_and_a_byte_order_mark_is_dropped() -> None:
    first, second = gzip.compress(BOM + b'{"a":1}\n{"b"'), gzip.compress(b":2}\n")
    assert lines_of(*decompressed([first + second])) == [b'{"a":1}', b'{"b":2}']


_WHOLE = gzip.compress(b'{"id":1}\n' * 50, mtime=0)


@pytest.mark.fault(55, caught_by="gzip trailer")
def test_gzip_that_was_cut_short_is_broken() -> None:
    for before in (b"", _WHOLE):
        for kept in range(2, len(_WHOLE)):
            with pytest.raises(BrokenGzip, match="cut short: upload it again"):
                unzipped(before + _WHOLE[:kept])


@pytest.mark.fault(55, caught_by="trailing bytes are checked; checksum")
@pytest.mark.parametrize("chunk_bytes", [1, 10_000])
def test_gzip_may_be_followed_by_zeros_and_is_broken_by_junk_or_a_damaged_byte(
    chunk_bytes: int,
) -> None:
    assert unzipped(*in_pieces(_WHOLE + b"\0" * 700, chunk_bytes)) == b'{"id":1}\n' * 50
    junk = (b"j", b"\x1f", b"\x1f\x8b", b"junk after the end", b"\0\0junk")
    # The last eight bytes are the checksum and the length: a wrong one is damage too.
    damaged = [
        _WHOLE[:at] + bytes([_WHOLE[at] ^ 0xFF]) + _WHOLE[at + 1 :]
        for at in (len(_WHOLE) // 2, len(_WHOLE) - 8, len(_WHOLE) - 1)
    ]
    for broken in (*(_WHOLE + one for one in junk), *damaged):
        with pytest.raises(BrokenGzip):
            unzipped(*in_pieces(broken, chunk_bytes))
