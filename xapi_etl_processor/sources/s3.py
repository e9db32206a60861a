"""Reads objects of S3: many small ones, or the parts of a large one, at the same time.

No wait lasts beyond its deadline, whatever S3 does. The requests run on an event loop that turns
only while the caller takes the next bytes; obstore goes on in between, in threads of its own.
"""

from __future__ import annotations

import asyncio
from asyncio import AbstractEventLoop, Task
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import TypeVar

from xapi_etl_processor.deadlines import FOREVER, Deadline
from xapi_etl_processor.errors import S3Late
from xapi_etl_processor.sources.objects import S3Object
from xapi_etl_processor.sources.s3_requests import Part, first_part, head, next_part
from xapi_etl_processor.sources.stores import Stores
from xapi_etl_processor.xapi.lines import MIB

SMALL_BYTES = MIB
"""Objects up to this size are fetched ahead, whole; larger ones in parts. Our choice."""

PART_BYTES = 2 * MIB
"""How much of a larger object one request asks for. Our choice."""

PARTS_AHEAD = 4
"""How many parts of a large object are requested before they are needed. Our choice: S3 begins to
answer after some 30 ms, and sends a part within 30 ms."""

_TURN_BYTES = MIB // 4
"""How much of a large object is used before the loop turns again. Our choice: less than arrives in
the time, so that no part waits for its turn."""

_Result = TypeVar("_Result")


def describe(
    stores: Stores, objects: Sequence[S3Object], concurrency: int, deadline: Deadline = FOREVER
) -> list[S3Object]:
    """The objects, each with its current etag and size if its source did not give an etag.

    An object for which the request fails stays as it is: reading it will say why.
    """
    if all(obj.etag for obj in objects):
        return list(objects)
    with _event_loop() as loop:
        gate = asyncio.Semaphore(concurrency)
        asked = [loop.create_task(_described(stores, obj, gate)) for obj in objects]
        _turn(loop, asked, deadline)
        return [
            task.result() if task.done() else obj for task, obj in zip(asked, objects, strict=True)
        ]


async def _described(stores: Stores, obj: S3Object, gate: asyncio.Semaphore) -> S3Object:
    if obj.etag:
        return obj
    async with gate:
        try:
            return _as_it_is(obj, await head(stores, obj))
        except Exception:  # noqa: BLE001  # reading it will say why
            return obj


def _as_it_is(obj: S3Object, found: Part) -> S3Object:
    return replace(obj, etag=found.etag, size=found.size, modified=found.modified)


def bodies(
    stores: Stores, objects: Iterable[S3Object], concurrency: int, deadline: Deadline = FOREVER
) -> Generator[tuple[S3Object, Iterator[bytes]], None, None]:
    """Each object as it is now, with its body in chunks, in order.

    Up to `concurrency` small objects, of at most SMALL_BYTES each, are fetched at the same time.
    A body is to be read before the next object is taken; it raises S3Error if the object cannot be
    read to its end in time. Close the iterator to cancel the requests that still wait for S3.
    """
    waiting: deque[tuple[S3Object, Task[Part] | None]] = deque()
    source = iter(objects)
    with _event_loop() as loop:

        def begin(obj: S3Object) -> Task[Part]:
            return loop.create_task(first_part(stores, obj, SMALL_BYTES))

        while True:
            for obj in islice(source, concurrency - len(waiting)):
                small = obj.size is not None and obj.size <= SMALL_BYTES
                waiting.append((obj, begin(obj) if small else None))
            if not waiting:
                return
            obj, task = waiting.popleft()
            try:
                found = _result(loop, task or begin(obj), deadline, obj.uri)
            except Exception as error:  # noqa: BLE001  # raised when this body is read
                yield obj, _raising(error)
            else:
                current = _as_it_is(obj, found)
                body: Iterator[bytes] = iter((found.data,))
                if len(found.data) < found.size:
                    body = _in_parts(loop, stores, current, found.data, deadline)
                yield current, body


def _raising(error: Exception) -> Iterator[bytes]:
    raise error
    yield b""


def _in_parts(
    loop: AbstractEventLoop, stores: Stores, obj: S3Object, first: bytes, deadline: Deadline
) -> Iterator[bytes]:
    """The first bytes, and then the rest in parts, some of which are requested ahead."""
    size = obj.size or 0
    starts = iter(range(len(first), size, PART_BYTES))
    coming: deque[Task[bytes]] = deque()
    part = first
    try:
        while True:
            for start in islice(starts, PARTS_AHEAD - len(coming)):
                end = min(start + PART_BYTES, size)
                coming.append(loop.create_task(next_part(stores, obj, start, end)))
            for start in range(0, len(part), _TURN_BYTES):
                _go_on(loop)
                yield part[start : start + _TURN_BYTES]
            if not coming:
                return
            part = _result(loop, coming.popleft(), deadline, obj.uri)
    finally:
        for task in coming:
            task.cancel()


def _result(loop: AbstractEventLoop, task: Task[_Result], deadline: Deadline, what: str) -> _Result:
    """What the task gives or raises; raises S3Late if that takes too long."""
    _turn(loop, (task,), deadline)
    if not task.done():
        raise S3Late(f"{what} was not read in time, S3 is slow: try again")
    return task.result()


def _turn(loop: AbstractEventLoop, tasks: Sequence[Task[_Result]], deadline: Deadline) -> None:
    """Let all requests go on until these are done, at most until the deadline.

    Those that were made since the last turn begin, also if these are done already.
    """
    if deadline.has_passed:
        return
    _go_on(loop)
    if left := [task for task in tasks if not task.done()]:
        loop.run_until_complete(asyncio.wait(left, timeout=deadline.timeout))


def _go_on(loop: AbstractEventLoop) -> None:
    """Let requests go on whose answers have come, without waiting."""
    loop.call_soon(loop.stop)
    loop.run_forever()


@contextmanager
def _event_loop() -> Iterator[AbstractEventLoop]:
    """An event loop; what still runs on it at the end is cancelled."""
    loop = asyncio.new_event_loop()
    try:
        yield loop
    finally:
        if left := asyncio.all_tasks(loop):
            for task in left:
                task.cancel()
            # Their errors are taken, so that nothing is logged of what nobody needs any more.
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.close()
