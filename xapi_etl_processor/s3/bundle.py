"""What a bundle holds: its lines, and the statements parsed from them, within our limits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from xapi_etl_processor.base.deadlines import Deadline
from xapi_etl_processor.base.errors import DeadlinePassed, S3Unusable
from xapi_etl_processor.s3.objects import S3Object
from xapi_etl_processor.xapi.chunk import Source
from xapi_etl_processor.xapi.lines import MAX_LINE_BYTES, MIB, BrokenGzip, decompressed, split_lines
from xapi_etl_processor.xapi.parse import Parsed, parse

MAX_OBJECT_BYTES = 5 * 1024 * MIB
"""The largest object; a larger one fails without being read. Our limit: what a single upload may
have, and more than one invocation can load."""


def parsed_parts(obj: S3Object, body: Iterator[bytes], until: Deadline) -> Iterator[Parsed]:
    """What the object's lines became, some at a time, in order. Raises S3Error if they cannot be
    read to the end, and DeadlinePassed when the time is up.
    """
    source = source_of(obj)
    first = 1
    for lines in line_parts(obj, body, until):
        yield parse(lines, first, source, MAX_LINE_BYTES)
        first += len(lines)


def source_of(obj: S3Object) -> Source:
    """What an object says of itself, and supplies where its statements are silent."""
    return Source(obj.uri, obj.etag, obj.section, obj.key_timestamp_ms, obj.modified_ms or 0)


def line_parts(obj: S3Object, body: Iterator[bytes], until: Deadline) -> Iterator[list[bytes]]:
    """The object's lines, some at a time, in order; raises as `parsed_parts` does."""
    if obj.size is not None and obj.size > MAX_OBJECT_BYTES:
        raise S3Unusable(
            f"{obj.uri} has {obj.size} bytes, more than {MAX_OBJECT_BYTES // MIB} MiB: split it"
        )

    def in_time() -> Iterator[bytes]:
        # Checked for every chunk, since one line, or one byte of gzip, can be many chunks.
        for chunk in unpacked(obj.uri, body):
            if until.has_passed:
                raise DeadlinePassed
            yield chunk

    yield from split_lines(in_time(), MAX_LINE_BYTES)


def unpacked(name: str, body: Iterable[bytes]) -> Iterator[bytes]:
    """A body in chunks, unpacked if it is gzip; raises S3Unusable if it is broken or too large."""
    try:
        yield from decompressed(body)
    except BrokenGzip as error:
        raise S3Unusable(f"{name}: {error}") from error
