"""Thin over boto3: list, describe and stream objects; small ones fetched ahead in threads.

No wait lasts beyond a deadline, in time.monotonic()'s seconds, whatever S3 does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    FlexibleChecksumError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
)
from urllib3.exceptions import HTTPError  # boto3's own; it lets some of them through

from xapi_etl_processor.deadlines import FOREVER, Late, by, left, wake
from xapi_etl_processor.sources.objects import S3Object
from xapi_etl_processor.telemetry import logger
from xapi_etl_processor.xapi.lines import READ_BYTES

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

SMALL_BYTES = 2 * 1024**2
"""Objects up to this size are fetched ahead, whole; larger ones are streamed. Ours."""

BAD_NAME = "BadName"
"""Code of an S3Error about a bucket or key that cannot exist."""

NOT_OURS = "NotOurs"
"""Code of an error about an object that the settings do not allow to be read."""

NEVER = ("NoSuchBucket", BAD_NAME, NOT_OURS)
"""Codes of errors that no retry mends."""

LATE = "Late"
"""Code of an error about what S3 did not give in time."""

DAMAGED = "Damaged"
"""Code of an error about a body that is not what was stored."""

CONNECT_SECONDS = 5
"""To reach S3. Ours."""

READ_SECONDS = 10
"""The longest silence of S3, also between two packets of a body; boto3's own is 60 s, as long as
many a function has. Ours."""

ATTEMPTS = 4
"""How often one request is tried, and how often one body is begun. Ours."""

_MISSING = "does not exist: check the key; if it was deleted, restore it, or drop the message"
_DENIED = (
    "cannot be read, access denied: allow s3:GetObject and s3:ListBucket (without the latter a"
    " missing object looks like this too)"
)
_REMEDIES = {
    "NoSuchKey": _MISSING,
    "404": _MISSING,
    "NoSuchBucket": "cannot be read, its bucket does not exist: check the bucket's name",
    "AccessDenied": _DENIED,
    "403": _DENIED,
    "InvalidObjectState": "is archived: restore it from Glacier first",
    "PreconditionFailed": "was replaced while it was read: what it holds now is read next time",
}
_NO_OBJECT = "health-check/is-not-there.jsonl"
_Item = TypeVar("_Item")


class S3Error(Exception):
    """S3 did not give what was asked for; the text names the object and what to do."""

    def __init__(self, text: str, code: str = "") -> None:
        super().__init__(text)
        self.code = code


def client(concurrency: int = 16, owner: str = "") -> S3Client:
    """An S3 client; boto3 reads its own environment for endpoint, region and credentials.

    With an owner, an AWS account, S3 refuses (403) every bucket that is not that account's.
    """
    made = boto3.client(
        "s3",
        config=Config(
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
            max_pool_connections=concurrency + 2,
        ),
    )
    if owner:

        def name_owner(params: dict[str, Any], **_: Any) -> None:
            params["ExpectedBucketOwner"] = owner

        made.meta.events.register("before-parameter-build.s3", name_owner)
    return made


def describe(
    s3: S3Client, objects: Sequence[S3Object], concurrency: int, deadline: float = FOREVER
) -> list[S3Object]:
    """The objects with the etag and size that they have now, where their source did not tell.

    One that cannot be asked for stays as it is: reading it will tell why.
    """
    if all(o.etag for o in objects):
        return list(objects)
    with _threads(concurrency) as pool:
        asked = [(o, None if o.etag else pool.submit(_head, s3, o)) for o in objects]
        return [o if future is None else _answer(future, deadline, o) for o, future in asked]


def _head(s3: S3Client, obj: S3Object) -> S3Object:
    try:
        return _described(obj, s3.head_object(Bucket=obj.bucket, Key=obj.key))
    except Exception:  # noqa: BLE001  # reading it will tell
        return obj


def _answer(future: Future[S3Object], deadline: float, otherwise: S3Object) -> S3Object:
    try:
        return future.result(left(deadline))
    except TimeoutError:
        return otherwise


def _described(obj: S3Object, answer: Any) -> S3Object:
    return replace(
        obj,
        etag=answer["ETag"].strip('"'),
        size=answer["ContentLength"],
        modified=answer["LastModified"],
    )


def listing(
    s3: S3Client, bucket: str, prefix: str, after: str = "", deadline: float = FOREVER
) -> Iterator[S3Object]:
    """Every object under the prefix, in key order, from behind the key `after`; raises S3Error."""
    paginator = s3.get_paginator("list_objects_v2")
    pages = paginator.paginate(Bucket=bucket, Prefix=prefix, StartAfter=after)
    uri = f"s3://{bucket}/{prefix}"
    with _named(uri):
        for page in _in_time(iter(pages), deadline, uri):
            for found in page.get("Contents", ()):
                yield S3Object(
                    bucket,
                    found["Key"],
                    found["ETag"].strip('"'),
                    found["Size"],
                    found["LastModified"],
                )


def check_bucket(s3: S3Client, bucket: str, prefix: str, deadline: float = FOREVER) -> None:
    """Raises S3Error unless the bucket exists, and under the prefix may be listed and read."""

    def look() -> None:
        s3.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)
        try:
            s3.head_object(Bucket=bucket, Key=f"{prefix}{_NO_OBJECT}")
        except ClientError as error:
            if error.response["Error"]["Code"] != "404":
                raise

    uri = f"s3://{bucket}/{prefix}"
    with _named(uri):
        try:
            by(deadline, look)
        except Late:
            raise S3Error(f"{uri} cannot be asked for, S3 did not answer in time", LATE) from None


def bodies(
    s3: S3Client, objects: Iterable[S3Object], concurrency: int, deadline: float = FOREVER
) -> Iterator[tuple[S3Object, Iterator[bytes]]]:
    """Each object as it is now, with its body in chunks, in order.

    Up to `concurrency` small objects are on their way at once, at most SMALL_BYTES each. The body
    raises S3Error where the object cannot be read, or not to its end, or not in time.
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
                yield (future or pool.submit(_get, reading, obj)).result(left(deadline))
            except TimeoutError:
                yield obj, _raising(_late(obj.uri))
            except Exception as error:  # noqa: BLE001  # whoever reads this body is to see it
                yield obj, _raising(error)


_Opened = tuple[S3Object, Iterator[bytes]]


@dataclass
class _Reading:
    """What is being read, and let go of at the end: threads that wait for S3 would be left over."""

    s3: S3Client
    deadline: float
    bodies: set[Any] = field(default_factory=set)
    over: bool = False

    def close(self) -> None:
        """Wake whoever waits for a body; what would come is for nobody."""
        self.over = True
        for body in list(self.bodies):
            connection = getattr(getattr(body, "_raw_stream", None), "_connection", None)
            wake(getattr(connection, "sock", None))


def _raising(error: Exception) -> Iterator[bytes]:
    raise error
    yield b""


def _get(reading: _Reading, obj: S3Object) -> _Opened:
    """The object as it is now; its body read already, if that is small."""
    with _named(obj.uri):
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
    """The body to its last byte. Where it breaks off or stalls, what is left is asked for again,
    of the same version: ATTEMPTS times for each READ_BYTES of it.
    """
    read = begun = 0
    while True:
        reading.bodies.add(body)
        try:
            if reading.over:
                raise _late(obj.uri)
            with _named(obj.uri):
                # Compares the length with Content-Length; the raw stream below it does not.
                for chunk in body.iter_chunks(READ_BYTES):
                    read += len(chunk)
                    if len(chunk) == READ_BYTES:
                        begun = 0
                    yield chunk
                return
        except S3Error as error:
            begun += 1
            if begun == ATTEMPTS or reading.over or error.code == DAMAGED:
                raise
            if read == obj.size:
                return
            logger.warning("reading on", extra={"error": str(error), "byte": read})
        finally:
            reading.bodies.discard(body)
            body.close()
        body = _rest(reading.s3, obj, read)


def _rest(s3: S3Client, obj: S3Object, start: int) -> Any:
    with _named(obj.uri):
        answer = s3.get_object(
            Bucket=obj.bucket, Key=obj.key, Range=f"bytes={start}-", IfMatch=f'"{obj.etag}"'
        )
        if not answer.get("ContentRange", "").startswith(f"bytes {start}-"):
            answer["Body"].close()
            raise S3Error(f"{obj.uri} could not be read on from byte {start}: try again")
        return answer["Body"]


def _in_time(items: Iterator[_Item], deadline: float, what: str) -> Iterator[_Item]:
    """The same items, one got ahead in a thread; raises S3Error for one that is late."""
    with _threads(1) as thread:
        coming = thread.submit(next, items, None)
        while True:
            try:
                item = coming.result(left(deadline))
            except TimeoutError:
                raise _late(what) from None
            if item is None:
                return
            coming = thread.submit(next, items, None)
            yield item


def _late(what: str) -> S3Error:
    return S3Error(f"{what} was not read in time, S3 is slow: it is tried again", LATE)


@contextmanager
def _threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads, not waited for at the end: what they still do, they do for nobody."""
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _named(what: str) -> Iterator[None]:
    """Raises what boto3 raises as S3Error, with the object's name."""
    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        remedy = _REMEDIES.get(code, "cannot be read")
        raise S3Error(f"{what} {remedy} ({code})", code) from error
    except ParamValidationError as error:
        raise S3Error(f"{what} is no name that S3 knows: check bucket and key", BAD_NAME) from error
    except (NoCredentialsError, NoRegionError) as error:
        raise S3Error(f"{what} cannot be asked for: {error}: set what AWS needs") from error
    except EndpointConnectionError as error:
        raise S3Error(f"{what} cannot be asked for, S3 is out of reach: {error}") from error
    except FlexibleChecksumError as error:
        raise S3Error(
            f"{what} came otherwise than it was stored, by its checksum: it is read again", DAMAGED
        ) from error
    except (BotoCoreError, HTTPError, OSError) as error:
        raise S3Error(
            f"{what} could not be read to its end ({type(error).__name__}): try again"
        ) from error
