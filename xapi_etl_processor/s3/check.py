"""Checks that a bucket can be listed and read, and notifies the queue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xapi_etl_processor.base.deadlines import FOREVER, Deadline, call_with_deadline
from xapi_etl_processor.base.errors import DeadlinePassed, S3Late
from xapi_etl_processor.base.telemetry import logger
from xapi_etl_processor.s3.client import Stores
from xapi_etl_processor.s3.errors import ignoring, translated
from xapi_etl_processor.s3.objects import BUNDLE_ENDINGS, S3Object
from xapi_etl_processor.s3.request import first_part

_MISSING_OBJECT = "health-check/is-not-there.jsonl"
_CHECKED_KEYS = 100
"""How many keys the health check lists to find a bundle. Our limit; it is one request."""

_UPLOADS = {
    f"s3:ObjectCreated:{kind}" for kind in ("Put", "Post", "Copy", "CompleteMultipartUpload")
}
"""S3's events that are uploads ("Supported event types")."""

_ARCHIVES = ("GLACIER", "DEEP_ARCHIVE")
"""S3's storage classes whose objects cannot be read before they are restored."""


def check_bucket(stores: Stores, bucket: str, prefix: str, deadline: Deadline = FOREVER) -> None:
    """Raises S3Error unless the bucket exists, and the prefix may be listed and read; of a bundle
    among the first keys, one byte is read, since only reading decrypts.
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


def missing_notification(
    stores: Stores, bucket: str, prefix: str, queue: str, deadline: Deadline = FOREVER
) -> str | None:
    """A warning if the bucket does not notify the queue, given by its name, of every new bundle;
    None if that cannot be known, or a topic or EventBridge passes notifications on.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        found = call_with_deadline(
            deadline, lambda: stores.boto3.get_bucket_notification_configuration(Bucket=bucket)
        )
    except (BotoCoreError, ClientError, OSError, DeadlinePassed) as error:
        logger.info(
            "notifications of the bucket are not known", extra={"error": type(error).__name__}
        )
        return None
    if "EventBridgeConfiguration" in found or "TopicConfigurations" in found:
        return None
    queues = found.get("QueueConfigurations", ())
    ours = [one for one in queues if one["QueueArn"].rpartition(":")[2] == queue]
    unannounced = [
        ending for ending in BUNDLE_ENDINGS if not any(_covers(one, prefix, ending) for one in ours)
    ]
    if not unannounced:
        return None
    return (
        f"s3://{bucket}/{prefix} does not notify the queue {queue} of new objects that end in"
        f" {' or '.join(unannounced)}: run ./deploy.sh --connect again, and look what changed the"
        " bucket's notifications"
    )


def _covers(notification: Mapping[str, Any], prefix: str, ending: str) -> bool:
    events = set(notification["Events"])
    if "s3:ObjectCreated:*" not in events and not events >= _UPLOADS:
        return False
    rules = notification.get("Filter", {}).get("Key", {}).get("FilterRules", ())
    filters = {rule["Name"].lower(): rule["Value"] for rule in rules}
    start, end = filters.get("prefix", ""), filters.get("suffix", "")
    return prefix.startswith(start) and ending.endswith(end)
