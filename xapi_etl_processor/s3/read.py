"""Reads objects where they are: in S3, or on this machine's disk."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing

from xapi_etl_processor.base.deadlines import FOREVER, Deadline
from xapi_etl_processor.s3 import fetch, local_files
from xapi_etl_processor.s3.client import Stores
from xapi_etl_processor.s3.objects import S3Object


def describe(
    stores: Stores, objects: Sequence[S3Object], deadline: Deadline = FOREVER
) -> list[S3Object]:
    """The objects, each as it is now; see `fetch.describe` and `local_files.describe`."""
    in_s3 = [obj for obj in objects if not obj.is_file]
    described = iter(fetch.describe(stores, in_s3, deadline))
    return [local_files.describe(obj) if obj.is_file else next(described) for obj in objects]


def bodies(
    stores: Stores, objects: Sequence[S3Object], deadline: Deadline = FOREVER
) -> Generator[tuple[S3Object, Iterator[bytes]], None, None]:
    """Each object as it is now, with its body in chunks, in order; see `fetch.bodies`."""
    in_s3 = (obj for obj in objects if not obj.is_file)
    with closing(fetch.bodies(stores, in_s3, deadline)) as fetched:
        for obj in objects:
            yield (obj, local_files.body(obj)) if obj.is_file else next(fetched)
