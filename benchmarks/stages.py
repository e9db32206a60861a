"""Where the time of a statement goes: the public stages, one after the other, without S3."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from xapi_etl_processor.xapi.chunk import Source
from xapi_etl_processor.xapi.decode import decode
from xapi_etl_processor.xapi.lines import READ_BYTES, decompressed, split_lines
from xapi_etl_processor.xapi.parse import parse
from xapi_etl_processor.xapi.transpose import to_columns
from xapi_etl_processor.xapi.video import verdict

_Result = TypeVar("_Result")


def measure(path: Path) -> dict[str, float]:
    """Seconds of processor that each stage takes for all lines of the file.

    `parse` is decode, verdict, hash and what is between them.
    """
    used: defaultdict[str, float] = defaultdict(float)

    def timed(stage: str, call: Callable[..., _Result], *arguments: Any) -> _Result:
        started = time.process_time()
        result = call(*arguments)
        used[stage] += time.process_time() - started
        return result

    body = path.read_bytes()
    pieces = [body[start : start + READ_BYTES] for start in range(0, len(body), READ_BYTES)]
    source = Source("s3://bucket/key", "etag", "2001", 0, 0)
    parts = iter(split_lines(decompressed(pieces)))
    while lines := timed("split", next, parts, None):
        statements = timed("decode", _each, decode, lines)
        timed("verdict", _each, verdict, statements)
        timed("hash", _each, _digest, lines)
        del statements
        parsed = timed("parse", parse, lines, 1, source)
        timed("columns", to_columns, parsed.chunk)
    return dict(used)


def _each(call: Callable[[Any], Any], items: list[Any]) -> list[Any]:
    return list(map(call, items))


def _digest(line: bytes) -> bytes:
    return sha256(line).digest()
