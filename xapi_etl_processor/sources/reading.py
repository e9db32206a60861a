"""Reads objects where they are: in S3, or on this machine's disk."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing

from xapi_etl_processor.deadlines import FOREVER, Deadline
from xapi_etl_processor.sources import files, s3
from xapi_etl_processor.sources.files import LocalFile
from xapi_etl_processor.sources.objects import S3Object
from xapi_etl_processor.sources.stores import Stores


def object_at(uri: str) -> S3Object:
    """The object or file that a row's `source_file` names."""
    if uri.startswith("file://"):
        return object_in("", uri.removeprefix("file://"))
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return object_in(bucket, key)


def object_in(bucket: str, key: str) -> S3Object:
    """The object, or the file, that the ledger has under this bucket and key."""
    return S3Object(bucket, key) if bucket else LocalFile("", key)


def describe(
    stores: Stores, objects: Sequence[S3Object], deadline: Deadline = FOREVER
) -> list[S3Object]:
    """The objects, each as it is now; see `s3.describe` and `files.describe`."""
    in_s3 = [obj for obj in objects if not isinstance(obj, LocalFile)]
    described = iter(s3.describe(stores, in_s3, deadline))
    return [
        files.describe(obj) if isinstance(obj, LocalFile) else next(described) for obj in objects
    ]


def bodies(
    stores: Stores, objects: Sequence[S3Object], deadline: Deadline = FOREVER
) -> Generator[tuple[S3Object, Iterator[bytes]], None, None]:
    """Each object as it is now, with its body in chunks, in order; see `s3.bodies`."""
    in_s3 = (obj for obj in objects if not isinstance(obj, LocalFile))
    with closing(s3.bodies(stores, in_s3, deadline)) as fetched:
        for obj in objects:
            yield (obj, files.body(obj)) if isinstance(obj, LocalFile) else next(fetched)
