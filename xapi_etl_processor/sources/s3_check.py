"""Checks that a bucket can be listed and read."""

from __future__ import annotations

from xapi_etl_processor.deadlines import FOREVER, Deadline, call_with_deadline
from xapi_etl_processor.errors import DeadlinePassed, S3Late
from xapi_etl_processor.sources.objects import S3Object
from xapi_etl_processor.sources.s3_errors import ignoring, translated
from xapi_etl_processor.sources.s3_requests import first_part
from xapi_etl_processor.sources.stores import Stores

_MISSING_OBJECT = "health-check/is-not-there.jsonl"
_CHECKED_KEYS = 100
"""How many keys the health check lists to find a bundle. Our limit; it is one request."""

_ARCHIVES = ("GLACIER", "DEEP_ARCHIVE")
"""S3's storage classes whose objects cannot be read before they are restored."""


def check_bucket(stores: Stores, bucket: str, prefix: str, deadline: Deadline = FOREVER) -> None:
    """Raises S3Error unless the bucket exists, and the prefix may be listed and read.

    If there is a bundle among the first keys, one byte of it is read, as loading reads it: only
    reading decrypts.
    """
    uri = f"s3://{bucket}/{prefix}"

    def check() -> None:
        with translated(uri):
            found = stores.boto3.list_objects_v2(
                Bucket=bucket, Prefix=prefix, MaxKeys=_CHECKED_KEYS
            )
        with ignoring("404"), translated(uri):
            stores.boto3.head_object(Bucket=bucket, Key=f"{prefix}{_MISSING_OBJECT}")
        for item in found.get("Contents", ()):
            obj = S3Object(bucket, item["Key"])
            if obj.is_bundle and item["Size"] and item.get("StorageClass") not in _ARCHIVES:
                # It may have been archived by S3 itself, or deleted since it was listed.
                with ignoring("InvalidObjectState", "NoSuchKey"):
                    first_part(stores, obj, 1)
                break

    try:
        call_with_deadline(deadline, check)
    except DeadlinePassed:
        raise S3Late(f"{uri} cannot be checked, S3 did not answer in time") from None
