"""The S3 of the benchmarks answers boto3 as S3 does."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from local.aws import environment
from tests import static_s3

NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not NGINX and "REQUIRE_REAL_SERVER" not in os.environ, reason="NOT TESTED: no nginx"
    ),
]

BODY = b'{"a": 1}\n{"b": 2}\n'
KEYS = [f"section/{number % 7}/video/2024-01-01T00-00-00Z_{number}.jsonl" for number in range(1100)]
KEYS.append("section/a & b/video/1.jsonl")


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[Any]:
    for key in KEYS:
        path = tmp_path / "bundles" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(BODY)
    with static_s3.serving(tmp_path) as port:
        variables = environment(port)
        client = boto3.client(
            "s3",
            endpoint_url=variables["AWS_ENDPOINT_URL"],
            region_name=variables["AWS_DEFAULT_REGION"],
            aws_access_key_id="local",
            aws_secret_access_key="local",
        )
        yield client
        client.close()


def test_it_lists_and_reads_objects_and_parts_as_s3_does(s3: Any) -> None:
    pages = list(s3.get_paginator("list_objects_v2").paginate(Bucket="bundles", Prefix="section/"))
    found = [item for page in pages for item in page["Contents"]]
    assert [len(page["Contents"]) for page in pages] == [1000, 101]
    assert [item["Key"] for item in found] == sorted(KEYS)
    for listed in (found[0], found[-1]):
        name = {"Bucket": "bundles", "Key": listed["Key"]}
        got = s3.get_object(**name)
        assert got["Body"].read() == BODY
        for answer in (s3.head_object(**name), got):
            assert answer["ETag"] == listed["ETag"]
            assert answer["LastModified"] == listed["LastModified"]
            assert answer["ContentLength"] == listed["Size"] == len(BODY)
    assert abs((datetime.now(UTC) - listed["LastModified"]).total_seconds()) < 3600
    part = s3.get_object(**name, Range="bytes=9-", IfMatch=listed["ETag"])
    assert part["Body"].read() == BODY[9:]
    assert part["ContentRange"] == f"bytes 9-{len(BODY) - 1}/{len(BODY)}"
    for condition, status in (
        ({"IfMatch": '"other"'}, 412),
        ({"IfNoneMatch": listed["ETag"]}, 304),
    ):
        with pytest.raises(ClientError) as raised:
            s3.get_object(**name, **condition)
        assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    with pytest.raises(s3.exceptions.NoSuchKey):
        s3.get_object(Bucket="bundles", Key="section/1/video/missing.jsonl")
    with pytest.raises(ClientError, match="NotImplemented"):
        s3.list_objects_v2(Bucket="bundles", Prefix="section/1/")
    s3.head_bucket(Bucket="bundles")
