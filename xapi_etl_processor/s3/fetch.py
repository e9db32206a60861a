"""Reads objects of S3 by a deadline: many small ones, or parts of a large one, at the same time."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import islice
from typing import TypeVar

from xapi_etl_processor.base.deadlines import FOREVER, DaemonThreads, Deadline
from xapi_etl_processor.base.errors import S3Late
from xapi_etl_processor.s3.client import Stores
from xapi_etl_processor.s3.objects import S3Object
from xapi_etl_processor.s3.request import Part, first_part, head, next_part
from xapi_etl_processor.xapi.lines import MIB

SMALL_BYTES = MIB
"""Objects up to this size are fetched ahead, whole; larger ones in parts. Our choice."""

PART_BYTES = MIB
"""How much of a larger object one request asks for. Our choice."""

PARTS_AHEAD = 4
"""How many parts of a large object are requested before they are needed. Our choice: S3 begins to
answer after some 30 ms, and sends a part in some 13 ms."""

LEAVING_SECONDS = 1
"""How long requests that nobody needs any more are waited for: if the process ends while obstore
returns from one, it is aborted. Our limit."""

_Result = TypeVar("_Result")


def describe(
    stores: Stores, objects: Sequence[S3Object], deadline: Deadline = FOREVER
) -> list[S3Object]:
    """The objects, each with an etag and a size, unless asking for them fails."""
    with _threads(stores.concurrency, deadline) as threads:
        asked = [(o, None if o.etag else threads.submit(head, stores, o)) for o in objects]
        return [_described(o, asking, deadline) if asking else o for o, asking in asked]


def _described(obj: S3Object, asking: Future[Part], deadline: Deadline) -> S3Object:
    with suppress(Exception):  # Reading it will say why.
        return _as_it_is(obj, asking.result(deadline.timeout))
    return obj


def _as_it_is(obj: S3Object, found: Part) -> S3Object:
    return replace(obj, etag=found.etag, size=found.size, modified=found.modified)


def bodies(
    stores: Stores, objects: Iterable[S3Object], deadline: Deadline = FOREVER
) -> Generator[tuple[S3Object, Iterator[bytes]], None, None]:
    """Each object as it is now, with its body in chunks, in order.

    A body is to be read before the next object is taken; it raises S3Error if the object cannot be
    read to its end in time. Close the iterator to begin no more requests.
    """
    waiting: deque[tuple[S3Object, Future[Part] | None]] = deque()
    source = iter(objects)
    with _threads(stores.concurrency, deadline) as threads:

        def begin(obj: S3Object) -> Future[Part]:
            return threads.submit(first_part, stores, obj, SMALL_BYTES)

        while True:
            for obj in islice(source, stores.concurrency - len(waiting)):
                small = obj.size is not None and obj.size <= SMALL_BYTES
                waiting.append((obj, begin(obj) if small else None))
            if not waiting:
                return
            obj, coming = waiting.popleft()
            try:
                found = _result(coming or begin(obj), deadline, obj.uri)
            except Exception as error:  # noqa: BLE001  # raised when this body is read
                yield obj, _raising(error)
            else:
                current = _as_it_is(obj, found)
                body: Iterator[bytes] = iter((found.data,))
                if len(found.data) < found.size:
                    body = _in_parts(stores, current, found.data, deadline)
                yield current, body


def _raising(error: Exception) -> Iterator[bytes]:
    raise error
    yield b""


def _in_parts(stores: Stores, obj: S3Object, first: bytes, deadline: Deadline) -> Iterator[bytes]:
    """The first bytes, and then the rest in parts, some of which are requested ahead."""
    size = obj.size or 0
    starts = iter(range(len(first), size, PART_BYTES))
    coming: deque[Future[bytes]] = deque()
    part = first
    with _threads(PARTS_AHEAD, deadline) as threads:
        while True:
            for start in islice(starts, PARTS_AHEAD - len(coming)):
                end = min(start + PART_BYTES, size)
                coming.append(threads.submit(next_part, stores, obj, start, end))
            yield part
            if not coming:
                return
            part = _result(coming.popleft(), deadline, obj.uri)


def _result(coming: Future[_Result], deadline: Deadline, what: str) -> _Result:
    """What the request gives or raises; raises S3Late if that takes too long."""
    try:
        return coming.result(deadline.timeout)
    except TimeoutError:
        raise S3Late(f"{what} was not read in time, S3 is slow: try again") from None


@contextmanager
def _threads(count: int, deadline: Deadline) -> Iterator[DaemonThreads]:
    threads = DaemonThreads(count)
    try:
        yield threads
    finally:
        threads.close(min(LEAVING_SECONDS, deadline.seconds_left))
