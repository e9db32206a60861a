"""Which buckets and folders may be read: otherwise, whoever may invoke the function could make it
read every object that its role can read.
"""

from __future__ import annotations

from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.errors import S3NotAllowed
from xapi_etl_processor.s3.objects import S3Object

NO_BUCKET = "S3_XAPI_BUCKET_NAME is not set: name the bucket of the bundles"


def check_object_allowed(settings: Settings, obj: S3Object) -> None:
    """Raises S3NotAllowed unless the object may be read."""
    # Only the command line names files.
    if not obj.is_file:
        check_allowed(settings, obj.bucket, obj.key)


def check_allowed(settings: Settings, bucket: str, key: str) -> None:
    """Raises S3NotAllowed unless this key, or every key with this prefix, may be read."""
    buckets = {settings.bucket, *settings.other_buckets} - {""}
    if not buckets:
        raise S3NotAllowed(NO_BUCKET)
    if bucket not in buckets:
        raise S3NotAllowed(
            f"s3://{bucket} is not a bucket of bundles: check its name, or allow it with"
            " S3_XAPI_BUCKET_NAME or S3_XAPI_OTHER_BUCKETS"
        )
    if not key.startswith(settings.prefix):
        raise S3NotAllowed(
            f"s3://{bucket}/{key} is not in the folder of the bundles, {settings.prefix}: check the"
            " key, or set S3_XAPI_PREFIX"
        )
