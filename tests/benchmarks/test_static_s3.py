"""The S3 of the benchmarks answers boto3 as S3 does."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from http.client import HTTPConnection
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from local.aws import environment
from tests import static_s3
from tests.faults.tcp_proxy import tcp_proxy

NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not NGINX and "REQUIRE_REAL_SERVER" not in os.environ, reason="NOT TESTED: no nginx"
    ),
]

BODY = b'{"a": 1}\n{"b": 2}\n'
KEYS = [f"section/{number % 7}/video/2024-01-01T00-00-00Z_{number}.jsonl" for number in range(2300)]


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("s3")
    for key in [*KEYS, "section/a & b/video/1.jsonl"]:
        path = folder / "bundles" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(BODY)
    with static_s3.serving(folder) as port:
        yield port


@pytest.fixture
def s3(port: int) -> Any:
    variables = environment(port)
    return boto3.client(
        "s3",
        endpoint_url=variables["AWS_ENDPOINT_URL"],
        region_name=variables["AWS_DEFAULT_REGION"],
        aws_access_key_id="local",
        aws_secret_access_key="local",
    )


def test_a_listing_has_every_key_once_and_in_order_over_several_pages(s3: Any) -> None:
    pages = list(s3.get_paginator("list_objects_v2").paginate(Bucket="bundles", Prefix="section/"))
    keys = [found["Key"] for page in pages for found in page["Contents"]]
    assert [len(page["Contents"]) for page in pages] == [1000, 1000, 301]
    assert keys == sorted([*KEYS, "section/a & b/video/1.jsonl"])


def test_an_object_is_the_one_that_was_listed(s3: Any) -> None:
    listed = s3.list_objects_v2(Bucket="bundles", Prefix="section/")["Contents"][0]
    name = {"Bucket": "bundles", "Key": listed["Key"]}
    for answer in (s3.head_object(**name), s3.get_object(**name)):
        assert answer["ETag"] == listed["ETag"]
        assert answer["LastModified"] == listed["LastModified"]
        assert answer["ContentLength"] == listed["Size"] == len(BODY)
    assert s3.get_object(**name)["Body"].read() == BODY
    assert abs((datetime.now(UTC) - listed["LastModified"]).total_seconds()) < 3600


def test_a_part_is_read_only_of_the_object_that_is_meant(s3: Any) -> None:
    name = {"Bucket": "bundles", "Key": KEYS[0]}
    etag = s3.head_object(**name)["ETag"]
    part = s3.get_object(**name, Range="bytes=9-", IfMatch=etag)
    assert part["Body"].read() == BODY[9:]
    assert part["ContentRange"] == f"bytes 9-{len(BODY) - 1}/{len(BODY)}"
    for condition, status in (({"IfMatch": '"other"'}, 412), ({"IfNoneMatch": etag}, 304)):
        with pytest.raises(ClientError) as raised:
            s3.get_object(**name, **condition)
        assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == status


def test_a_missing_key_and_a_folder_that_is_not_listed_are_errors(s3: Any) -> None:
    with pytest.raises(s3.exceptions.NoSuchKey):
        s3.get_object(Bucket="bundles", Key="section/1/video/missing.jsonl")
    with pytest.raises(ClientError, match="NotImplemented"):
        s3.list_objects_v2(Bucket="bundles", Prefix="section/1/")
    s3.head_bucket(Bucket="bundles")


def test_a_key_may_have_blanks_and_ampersands(s3: Any) -> None:
    found = s3.get_object(Bucket="bundles", Key="section/a & b/video/1.jsonl")
    assert found["Body"].read() == BODY


def test_a_proxy_that_waits_before_each_request_delays_them_side_by_side(port: int) -> None:
    """Sixteen connections with ten requests of 30 ms each take 0.3 s, not 4.8."""
    with tcp_proxy(port) as proxy:
        proxy.before = lambda _: time.sleep(0.03)

        def read(_: int) -> None:
            connection = HTTPConnection("127.0.0.1", proxy.port)
            for key in KEYS[:10]:
                connection.request("GET", f"/bundles/{key}")
                assert connection.getresponse().read() == BODY
            connection.close()

        started = time.perf_counter()
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(read, range(16)))
        seconds = time.perf_counter() - started
    assert 0.3 <= seconds < 4
