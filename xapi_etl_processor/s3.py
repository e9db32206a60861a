"""Thin over boto3: list, describe and stream objects; small ones fetched ahead in threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
)

from .lines import READ_BYTES
from .objects import S3Object

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

SMALL_BYTES = 2 * 1024**2
"""Objects up to this size are fetched ahead, whole; larger ones are streamed. Ours."""

BAD_NAME = "BadName"
"""Code of an S3Error about a bucket or key that cannot exist."""

NEVER = ("NoSuchBucket", BAD_NAME)
"""Codes of errors that no retry mends."""

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
}
_NO_OBJECT = "health-check/is-not-there.jsonl"


class S3Error(Exception):
    """S3 did not give what was asked for; the text names the object and what to do."""

    def __init__(self, text: str, code: str = "") -> None:
        super().__init__(text)
        self.code = code


def client(concurrency: int = 16) -> S3Client:
    """An S3 client; boto3 reads its own environment for endpoint, region and credentials."""
    return boto3.client(
        "s3",
        config=Config(
            connect_timeout=5,
            # Between two packets of a body; boto3's own is 60 s, as long as many a function has.
            read_timeout=10,
            retries={"mode": "standard", "total_max_attempts": 4},
            max_pool_connections=concurrency + 2,
        ),
    )


def describe(s3: S3Client, objects: Sequence[S3Object], concurrency: int) -> list[S3Object]:
    """The objects with the etag and size that they have now, where their source did not tell.

    One that cannot be asked for stays as it is: reading it will tell why.
    """
    if all(o.etag for o in objects):
        return list(objects)
    with ThreadPoolExecutor(concurrency) as pool:
        return list(pool.map(lambda o: o if o.etag else _head(s3, o), objects))


def _head(s3: S3Client, obj: S3Object) -> S3Object:
    try:
        return _described(obj, s3.head_object(Bucket=obj.bucket, Key=obj.key))
    except (ClientError, BotoCoreError):
        return obj


def _described(obj: S3Object, answer: Any) -> S3Object:
    return replace(
        obj,
        etag=answer["ETag"].strip('"'),
        size=answer["ContentLength"],
        modified=answer["LastModified"],
    )


def listing(s3: S3Client, bucket: str, prefix: str, after: str = "") -> Iterator[S3Object]:
    """Every object under the prefix, in key order, from behind the key `after`; raises S3Error."""
    pages = s3.get_paginator("list_objects_v2").paginate(
        Bucket=bucket, Prefix=prefix, StartAfter=after
    )
    with _named(f"s3://{bucket}/{prefix}"):
        for page in pages:
            for found in page.get("Contents", ()):
                yield S3Object(
                    bucket,
                    found["Key"],
                    found["ETag"].strip('"'),
                    found["Size"],
                    found["LastModified"],
                )


def check_bucket(s3: S3Client, bucket: str, prefix: str) -> None:
    """Raises S3Error unless the bucket exists, and under the prefix may be listed and read."""
    with _named(f"s3://{bucket}/{prefix}"):
        s3.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)
        try:
            s3.head_object(Bucket=bucket, Key=f"{prefix}{_NO_OBJECT}")
        except ClientError as error:
            if error.response["Error"]["Code"] != "404":
                raise


def bodies(
    s3: S3Client, objects: Iterable[S3Object], concurrency: int
) -> Iterator[tuple[S3Object, Iterator[bytes]]]:
    """Each object as it is now, with its body in chunks, in order.

    Up to `concurrency` small objects are on their way at once, at most SMALL_BYTES each. The body
    raises S3Error where the object cannot be read, or not to its end.
    """
    waiting: deque[tuple[S3Object, Future[tuple[S3Object, bytes | None]] | None]] = deque()
    source = iter(objects)
    with ThreadPoolExecutor(concurrency) as pool:
        try:
            while True:
                for obj in islice(source, concurrency - len(waiting)):
                    small = obj.size is not None and obj.size <= SMALL_BYTES
                    waiting.append((obj, pool.submit(_fetch, s3, obj) if small else None))
                if not waiting:
                    return
                obj, future = waiting.popleft()
                yield _opened(s3, obj, future)
        finally:
            for _, future in waiting:
                if future:
                    future.cancel()


def _opened(
    s3: S3Client, obj: S3Object, future: Future[tuple[S3Object, bytes | None]] | None
) -> tuple[S3Object, Iterator[bytes]]:
    try:
        if future is not None:
            obj, body = future.result()
            if body is not None:
                return obj, iter((body,))
        return _stream(s3, obj)
    except S3Error as error:
        return obj, _raising(error)


def _raising(error: S3Error) -> Iterator[bytes]:
    raise error
    yield b""


def _fetch(s3: S3Client, obj: S3Object) -> tuple[S3Object, bytes | None]:
    """The object and its whole body; no body where the object has grown past SMALL_BYTES."""
    with _named(obj.uri):
        answer = s3.get_object(Bucket=obj.bucket, Key=obj.key)
        if answer["ContentLength"] > SMALL_BYTES:
            answer["Body"].close()
            return obj, None
        # StreamingBody.read() compares the length with Content-Length; its raw stream does not.
        return _described(obj, answer), answer["Body"].read()


def _stream(s3: S3Client, obj: S3Object) -> tuple[S3Object, Iterator[bytes]]:
    with _named(obj.uri):
        answer = s3.get_object(Bucket=obj.bucket, Key=obj.key)
    return _described(obj, answer), _chunks(answer["Body"], obj.uri)


def _chunks(body: Any, uri: str) -> Iterator[bytes]:
    try:
        with _named(uri):
            yield from body.iter_chunks(READ_BYTES)
    finally:
        body.close()


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
    except (BotoCoreError, OSError) as error:
        raise S3Error(
            f"{what} could not be read to its end ({type(error).__name__}): try again"
        ) from error
