"""A thin layer over boto3: list, describe and stream objects, and fetch small ones ahead.

No wait lasts beyond its deadline, whatever S3 does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import boto3
from botocore.config import Config

from xapi_etl_processor.deadlines import FOREVER, Deadline, call_with_deadline, interrupt
from xapi_etl_processor.errors import DeadlinePassed, S3Damaged, S3Error, S3Late
from xapi_etl_processor.sources.objects import S3Object
from xapi_etl_processor.sources.s3_errors import ignoring, translated
from xapi_etl_processor.telemetry import logger
from xapi_etl_processor.xapi.lines import MIB, READ_BYTES

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

SMALL_BYTES = 2 * MIB
"""Objects up to this size are fetched ahead, whole; larger ones are streamed. Our choice."""

CONNECT_SECONDS = 5
"""How long connecting to S3 may take. Our limit."""

READ_SECONDS = 10
"""The longest silence of S3, also between two packets of a body. Our limit; boto3's own is 60 s,
as long as many a function's timeout."""

ATTEMPTS = 4
"""How often one request is tried, and how often one body is begun. Our limit."""

_MISSING_OBJECT = "health-check/is-not-there.jsonl"
_CHECKED_KEYS = 100
"""How many keys the health check lists to find a bundle. Our limit; it is one request."""

_ARCHIVES = ("GLACIER", "DEEP_ARCHIVE")
"""S3's storage classes whose objects cannot be read before they are restored."""
_Item = TypeVar("_Item")


def client(concurrency: int = 16, owner: str = "") -> S3Client:
    """An S3 client; boto3 finds endpoint, region and credentials itself.

    With an owner, an AWS account, S3 answers 403 for buckets of every other account.
    """
    client = boto3.client(
        "s3",
        config=Config(
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
            max_pool_connections=concurrency + 2,
        ),
    )
    if owner:

        def add_owner(params: dict[str, Any], **_: Any) -> None:
            params["ExpectedBucketOwner"] = owner

        client.meta.events.register("before-parameter-build.s3", add_owner)
    return client


def describe(
    s3: S3Client, objects: Sequence[S3Object], concurrency: int, deadline: Deadline = FOREVER
) -> list[S3Object]:
    """The objects, each with its current etag and size if its source did not give an etag.

    An object for which the request fails stays as it is: reading it will say why.
    """
    with _threads(concurrency) as pool:
        asked = [(o, None if o.etag else pool.submit(_head, s3, o)) for o in objects]
        return [o if future is None else _result(future, deadline, o) for o, future in asked]


def _head(s3: S3Client, obj: S3Object) -> S3Object:
    try:
        return _described(obj, s3.head_object(Bucket=obj.bucket, Key=obj.key))
    except Exception:  # noqa: BLE001  # reading it will say why
        return obj


def _result(future: Future[S3Object], deadline: Deadline, otherwise: S3Object) -> S3Object:
    try:
        return future.result(deadline.timeout)
    except TimeoutError:
        return otherwise


def _described(obj: S3Object, answer: Any) -> S3Object:
    return replace(
        obj,
        etag=answer["ETag"].strip('"'),
        size=answer["ContentLength"],
        modified=answer.get("LastModified"),
    )


def listing(
    s3: S3Client, bucket: str, prefix: str, after: str = "", deadline: Deadline = FOREVER
) -> Iterator[S3Object]:
    """Every object under the prefix whose key comes after `after`, in key order; raises S3Error."""
    paginator = s3.get_paginator("list_objects_v2")
    pages = paginator.paginate(Bucket=bucket, Prefix=prefix, StartAfter=after)
    uri = f"s3://{bucket}/{prefix}"
    with translated(uri):
        for page in _in_time(iter(pages), deadline, uri):
            for found in page.get("Contents", ()):
                yield S3Object(
                    bucket,
                    found["Key"],
                    found["ETag"].strip('"'),
                    found["Size"],
                    found["LastModified"],
                )


def check_bucket(s3: S3Client, bucket: str, prefix: str, deadline: Deadline = FOREVER) -> None:
    """Raises S3Error unless the bucket exists, and the prefix may be listed and read.

    If there is a bundle among the first keys, one byte of it is read: only reading decrypts.
    """
    uri = f"s3://{bucket}/{prefix}"

    def check() -> None:
        with translated(uri):
            found = s3.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=_CHECKED_KEYS)
            with ignoring("404"):
                s3.head_object(Bucket=bucket, Key=f"{prefix}{_MISSING_OBJECT}")
        for item in found.get("Contents", ()):
            obj = S3Object(bucket, item["Key"])
            if obj.is_bundle and item["Size"] and item.get("StorageClass") not in _ARCHIVES:
                _read_a_byte(s3, obj)
                break

    try:
        call_with_deadline(deadline, check)
    except DeadlinePassed:
        raise S3Late(f"{uri} cannot be checked, S3 did not answer in time") from None


def _read_a_byte(s3: S3Client, obj: S3Object) -> None:
    # It may have been archived by S3 itself, or deleted since it was listed.
    with translated(obj.uri), ignoring("InvalidObjectState", "NoSuchKey"):
        s3.get_object(Bucket=obj.bucket, Key=obj.key, Range="bytes=0-0")["Body"].read()


def bodies(
    s3: S3Client, objects: Iterable[S3Object], concurrency: int, deadline: Deadline = FOREVER
) -> Generator[tuple[S3Object, Iterator[bytes]], None, None]:
    """Each object as it is now, with its body in chunks, in order.

    Up to `concurrency` small objects, of at most SMALL_BYTES each, are fetched at the same time.
    A body raises S3Error if the object cannot be read to its end in time. Close the iterator to
    let go of threads that still wait for S3.
    """
    waiting: deque[tuple[S3Object, Future[_Opened] | None]] = deque()
    source = iter(objects)
    reading = _Reading(s3, deadline)
    with _threads(concurrency) as pool, closing(reading):
        while True:
            for obj in islice(source, concurrency - len(waiting)):
                small = obj.size is not None and obj.size <= SMALL_BYTES
                waiting.append((obj, pool.submit(_get, reading, obj) if small else None))
            if not waiting:
                return
            obj, future = waiting.popleft()
            try:
                yield (future or pool.submit(_get, reading, obj)).result(deadline.timeout)
            except TimeoutError:
                yield obj, _raising(_late(obj.uri))
            except Exception as error:  # noqa: BLE001  # raised when this body is read
                yield obj, _raising(error)


_Opened = tuple[S3Object, Iterator[bytes]]


@dataclass
class _Reading:
    """The bodies that threads are reading, so that the threads can be interrupted at the end."""

    s3: S3Client
    deadline: Deadline
    bodies: set[Any] = field(default_factory=set)
    is_over: bool = False

    def close(self) -> None:
        """Interrupt the threads that still wait for a body; nobody needs it any more."""
        self.is_over = True
        for body in list(self.bodies):
            connection = getattr(getattr(body, "_raw_stream", None), "_connection", None)
            interrupt(getattr(connection, "sock", None))


def _raising(error: Exception) -> Iterator[bytes]:
    raise error
    yield b""


def _get(reading: _Reading, obj: S3Object) -> _Opened:
    """The object as it is now, with its body; a small body has been read already."""
    with translated(obj.uri):
        answer = reading.s3.get_object(Bucket=obj.bucket, Key=obj.key)
    try:
        obj = _described(obj, answer)
    except Exception:
        answer["Body"].close()
        raise
    chunks = _chunks(reading, obj, answer["Body"])
    if answer["ContentLength"] > SMALL_BYTES:
        return obj, _in_time(chunks, reading.deadline, obj.uri)
    return obj, iter(list(chunks))


def _chunks(reading: _Reading, obj: S3Object, body: Any) -> Iterator[bytes]:
    """The body to its last byte.

    If it breaks off or stalls, the rest is requested again, of the same version, at most ATTEMPTS
    times for each READ_BYTES.
    """
    read = attempts = 0
    while True:
        reading.bodies.add(body)
        try:
            if reading.is_over:
                raise _late(obj.uri)
            with translated(obj.uri):
                # This compares the length with Content-Length; reading the raw stream does not.
                for chunk in body.iter_chunks(READ_BYTES):
                    read += len(chunk)
                    if len(chunk) == READ_BYTES:
                        attempts = 0
                    yield chunk
                return
        except S3Error as error:
            attempts += 1
            if attempts == ATTEMPTS or reading.is_over or isinstance(error, S3Damaged):
                raise
            logger.warning(
                "reading the rest of an object", extra={"error": str(error), "byte": read}
            )
        finally:
            reading.bodies.discard(body)
            body.close()
        body = _rest(reading.s3, obj, read)


def _rest(s3: S3Client, obj: S3Object, start: int) -> Any:
    with translated(obj.uri):
        answer = s3.get_object(
            Bucket=obj.bucket, Key=obj.key, Range=f"bytes={start}-", IfMatch=f'"{obj.etag}"'
        )
        if not answer.get("ContentRange", "").startswith(f"bytes {start}-"):
            answer["Body"].close()
            raise S3Error(f"{obj.uri} could not be read from byte {start} on: try again")
        return answer["Body"]


def _in_time(items: Iterator[_Item], deadline: Deadline, what: str) -> Iterator[_Item]:
    """The same items, each fetched in a thread while the one before is used; raises S3Late."""
    with _threads(1) as thread:
        coming = thread.submit(next, items, None)
        while True:
            try:
                item = coming.result(deadline.timeout)
            except TimeoutError:
                raise _late(what) from None
            if item is None:
                return
            coming = thread.submit(next, items, None)
            yield item


def _late(what: str) -> S3Late:
    return S3Late(f"{what} was not read in time, S3 is slow: try again")


@contextmanager
def _threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that are not waited for at the end; results that are still to come are discarded."""
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
