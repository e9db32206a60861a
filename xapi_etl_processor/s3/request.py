"""One request for an object of S3, by obstore or, where that cannot make it, by boto3."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import obstore

from xapi_etl_processor.base.errors import S3Error
from xapi_etl_processor.s3.client import Stores, is_for_obstore
from xapi_etl_processor.s3.errors import is_of_other_region, translated
from xapi_etl_processor.s3.objects import S3Object

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta
    from obstore.store import S3Store

_Answer = TypeVar("_Answer")


class Part(NamedTuple):
    """An object's etag, its size in bytes and time, and the bytes of it that were asked for."""

    etag: str
    size: int
    modified: datetime | None
    data: bytes


def head(stores: Stores, obj: S3Object) -> Part:
    """The object as it is now, without its bytes. Raises S3Error."""
    with translated(obj.uri):
        if not is_for_obstore(obj):
            answer = stores.boto3.head_object(Bucket=obj.bucket, Key=obj.key)
            return _part_by_boto3(answer, answer["ContentLength"], b"")
        meta = _in_its_region(stores, obj, lambda store: obstore.head(store, obj.key))
        return _part(meta, b"")


def first_part(stores: Stores, obj: S3Object, most: int) -> Part:
    """The object as it is now, with its first `most` bytes. Raises S3Error."""
    if obj.size is not None and obj.size <= most:
        found = _get(stores, obj, {}, most)
        # Else it was replaced by a larger one.
        if found.size <= most:
            return found
    try:
        return _get(stores, obj, {"range": (0, most)}, most)
    except S3Error as error:
        # No range fits an empty object (RFC 9110, 15.5.17).
        if error.code != "InvalidRange":
            raise
    return _get(stores, obj, {}, most)


def next_part(stores: Stores, obj: S3Object, start: int, end: int) -> bytes:
    """The bytes from `start` up to `end`. Raises S3Error, also if this version was replaced."""
    options: GetOptions = {"range": (start, end), "if_match": f'"{obj.etag}"'}
    found = _get(stores, obj, options, end - start)
    if len(found.data) != end - start:
        raise S3Error(f"{obj.uri} could not be read from byte {start} on: try again")
    return found.data


def _get(stores: Stores, obj: S3Object, options: GetOptions, most: int) -> Part:
    """What is asked for; without its bytes if they are more than `most`."""
    with translated(obj.uri):
        if not is_for_obstore(obj):
            return _get_by_boto3(stores, obj, options, most)
        answer = _in_its_region(stores, obj, lambda s: obstore.get(s, obj.key, options=options))
        if not answer.meta["e_tag"]:
            raise S3Error(f"{obj.uri} cannot be read: S3 does not name its version (no ETag)")
        start, end = answer.range
        return _part(answer.meta, bytes(answer.bytes()) if end - start <= most else b"")


def _in_its_region(stores: Stores, obj: S3Object, ask: Callable[[S3Store], _Answer]) -> _Answer:
    store = stores.store(obj.bucket)
    try:
        return ask(store)
    except Exception as error:
        if not is_of_other_region(error):
            raise
        return ask(stores.store(obj.bucket, not_this=store))


def _part(meta: ObjectMeta, data: bytes) -> Part:
    return Part((meta["e_tag"] or "").strip('"'), meta["size"], meta["last_modified"], data)


def _get_by_boto3(stores: Stores, obj: S3Object, options: GetOptions, most: int) -> Part:
    asked: dict[str, Any] = {}
    if span := options.get("range"):
        start, end = cast("tuple[int, int]", span)
        asked["Range"] = f"bytes={start}-{end - 1}"
    if etag := options.get("if_match"):
        asked["IfMatch"] = etag
    answer = stores.boto3.get_object(Bucket=obj.bucket, Key=obj.key, **asked)
    size = int(answer.get("ContentRange", "").rpartition("/")[2] or answer["ContentLength"])
    with answer["Body"] as body:
        return _part_by_boto3(answer, size, body.read() if answer["ContentLength"] <= most else b"")


def _part_by_boto3(answer: Any, size: int, data: bytes) -> Part:
    return Part(answer["ETag"].strip('"'), size, answer["LastModified"], data)
