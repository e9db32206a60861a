"""Bundles encrypted with a key of one's own: what is said when the key may not be used."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.conftest import Bucket, Invoke
from tests.faults.http_proxy import Answer, Request, S3Proxy
from tests.support.samples import notification, video
from xapi_etl_processor.base.errors import EventFailed

if TYPE_CHECKING:
    from mypy_boto3_s3.literals import StorageClassType

CHECK = {"health_check": True}
KEY = "section/1/video/2024-01-01T12-00-00Z_1.jsonl"
KMS_KEY = "arn:aws:kms:us-east-1:123456789012:key/0d9f3b52-7c1e-4f6a-9a55-2f0c1b7d8e34"
# What S3 says without kms:Decrypt, as awslabs/mountpoint-s3 expects it in its tests of real S3.
DENIED = (
    "User: arn:aws:sts::123456789012:assumed-role/loader/dev-xapi-etl-processor is not authorized"
    f" to perform: kms:Decrypt on resource: {KMS_KEY} because no identity-based policy allows the"
    " kms:Decrypt action"
)
WHAT_TO_DO = "allow kms:Decrypt on its key, by naming the key in the stack's KmsKeyArns"


def reads(request: Request) -> bool:
    """Whether a request asks for the content of an object."""
    return request.method == "GET" and "list-type" not in request.path


def refusing(answer: Answer) -> Callable[[Request], Answer | None]:
    """S3 lists and describes encrypted objects without the key, and reads none of them."""
    return lambda request: answer if reads(request) else None


@pytest.mark.fault(18, 71, caught_by="an error that says what to do")
@pytest.mark.fault(18, 71, caught_by="health check")
def test_the_health_check_and_a_failed_object_name_the_key_that_may_not_be_used(
    bucket: Bucket, store: S3Proxy, invoke: Invoke
) -> None:
    bucket.put(KEY, video(1))
    store.rule = refusing(Answer("AccessDenied", 403, DENIED))
    answer = invoke(CHECK)
    assert (answer.status, answer["s3"]["ok"]) == (503, False)
    assert answer["s3"]["error"].startswith(f"s3://{bucket.name}/{KEY} cannot be decrypted: ")
    with pytest.raises(EventFailed) as failed:
        invoke(notification(bucket.name, KEY))
    for said in (answer["s3"]["error"], str(failed.value)):
        assert WHAT_TO_DO in said
        assert f"(AccessDenied: {DENIED})" in said


@pytest.mark.slow
@pytest.mark.fault(18, 71, caught_by="an error that says what to do")
def test_other_refusals_are_not_taken_for_a_missing_right_to_decrypt_and_some_do_no_harm(
    bucket: Bucket, store: S3Proxy, invoke: Invoke
) -> None:
    bucket.put(KEY, video(1))
    for code, message, said in (
        ("AccessDenied", "Access Denied", "allow s3:GetObject and s3:ListBucket"),
        ("KMS.DisabledException", f"{KMS_KEY} is disabled.", "its KMS key is there and enabled"),
        ("Odd", "x" * 5000, "cannot be read"),
    ):
        store.rule = refusing(Answer(code, 403, message))
        error = invoke(CHECK)["s3"]["error"]
        assert said in error
        # A message of more than 500 characters is cut.
        assert error.endswith(f"({code}: {message[:500]})")
        assert "KmsKeyArns" not in error
    # A bundle may have been archived or deleted since it was listed.
    for code in ("InvalidObjectState", "NoSuchKey"):
        store.requests.clear()
        store.rule = refusing(Answer(code, 403))
        assert invoke(CHECK)["s3"]["ok"], code
        assert len([request for request in store.requests if reads(request)]) == 1


def test_the_health_check_reads_one_byte_of_the_first_bundle_that_has_one(
    bucket: Bucket, store: S3Proxy, invoke: Invoke
) -> None:
    bucket.put("section/", body=b"")
    bucket.put("section/0/video/2024-01-01T12-00-00Z_empty.jsonl", body=b"")
    bucket.put("section/1/readme.txt", body=b"not a bundle")
    bucket.put(KEY, video(1))
    bucket.put("section/2/video/2024-01-01T12-00-00Z_2.jsonl", video(2))
    found = invoke(CHECK)["s3"]
    assert found == {"ok": True, "bucket": bucket.name, "warning": None, "error": None}
    (read,) = [request for request in store.requests if reads(request)]
    assert read.path.endswith(f"/{KEY}")
    assert read.range == "bytes=0-0"
    assert len(store.requests) == 3


def test_archived_bundles_are_not_read_by_the_health_check(
    bucket: Bucket, store: S3Proxy, invoke: Invoke
) -> None:
    classes: tuple[StorageClassType, ...] = ("GLACIER", "DEEP_ARCHIVE", "GLACIER_IR")
    for number, storage in enumerate(classes):
        bucket.client.put_object(
            Bucket=bucket.name,
            Key=f"section/1/video/{number}.jsonl",
            Body=json.dumps(video(1)).encode(),
            StorageClass=storage,
        )
    assert invoke(CHECK)["s3"]["ok"]
    # Glacier Instant Retrieval is read like any other object.
    assert [r.path[-7:] for r in store.requests if reads(r)] == ["2.jsonl"]
