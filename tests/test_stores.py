"""Which of the two clients reads an object, and with whose endpoint, region and credentials."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from subprocess import run

import pytest

from tests.conftest import Bucket
from tests.faults.http_proxy import Answer, S3Proxy
from tests.samples import video
from xapi_etl_processor.errors import S3Error
from xapi_etl_processor.sources import s3, s3_listing, stores
from xapi_etl_processor.sources.objects import S3Object
from xapi_etl_processor.sources.stores import Stores, is_for_obstore

KEYS = ("a.jsonl", "a/b.jsonl", "a b+c%20é~*'(1).jsonl", "a%2Fb.jsonl", ".a/..b/c...jsonl")
ODD_KEYS = (
    *("a//b.jsonl", "/a.jsonl", "a/./b.jsonl", "a/../b.jsonl", "a/b.jsonl/", "//", "a\tb.jsonl"),
    "a\u00a0b.jsonl",
)


def read(own: Stores, *objects: S3Object) -> list[tuple[S3Object, bytes]]:
    """Each object as it was read, with its body."""
    return [(found, b"".join(body)) for found, body in s3.bodies(own, objects, 4)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "keys"),
    [
        (None, (*ODD_KEYS, *KEYS)),
        (20, (*ODD_KEYS, *KEYS)),
        (s3.SMALL_BYTES + s3.PART_BYTES + 1, ("a//b.jsonl", "a b+c%20é~*'(1).jsonl")),
    ],
    ids=["unknown", "small", "large"],
)
def test_an_object_is_read_whatever_its_key(
    bucket: Bucket, aws_environment: dict[str, str], size: int | None, keys: tuple[str, ...]
) -> None:
    """obstore drops slashes at a key's ends, and refuses empty and relative parts."""
    bodies = {key: key.encode().ljust(size or 20, b".") for key in keys}
    for key, body in bodies.items():
        bucket.put(key, body=body)
    own = Stores()
    named = [S3Object(bucket.name, key, size=size and len(bodies[key])) for key in bodies]
    found = read(own, *named)
    assert {obj.key: body for obj, body in found} == bodies
    assert [obj for obj, _ in found] == s3.describe(own, named, 4)
    assert {obj.key for obj in s3_listing.listing(own, bucket.name, "")} == set(bodies)
    assert [obj.key for obj in named if not is_for_obstore(obj)] == [
        key for key in keys if key in ODD_KEYS
    ]
    with pytest.raises(S3Error, match="no//such does not exist"):
        read(own, S3Object(bucket.name, "no//such"))


@pytest.mark.parametrize("key", ["a.jsonl", "a//b.jsonl"])
@pytest.mark.parametrize("now", [0, 10, 3 * s3.SMALL_BYTES])
@pytest.mark.parametrize("then", [None, 0, 10, 3 * s3.SMALL_BYTES])
def test_an_object_of_another_size_than_was_listed_is_read_as_it_is_now(
    bucket: Bucket, aws_environment: dict[str, str], key: str, then: int | None, now: int
) -> None:
    body = os.urandom(now)
    bucket.put(key, body=body)
    ((obj, found),) = read(Stores(), S3Object(bucket.name, key, "etag of then", then))
    assert (found == body, obj.size) == (True, now)


@pytest.mark.parametrize(
    "answer",
    [
        Answer("PermanentRedirect", 301),
        Answer("AuthorizationHeaderMalformed", 400, "the region 'us-east-1' is wrong"),
    ],
    ids=lambda answer: answer.code,
)
def test_a_bucket_in_another_region_is_asked_for_its_region_once(
    bucket: Bucket, store: S3Proxy, answer: Answer
) -> None:
    """S3 checks that a signature names its region."""
    bucket.put("a.jsonl", body=b"body")
    here = S3Object(bucket.name, "a.jsonl", "x", 4)

    store.rule = lambda r: (
        answer
        if r.method == "GET" and "/eu-west-1/s3/" not in r.authorization
        else Answer(headers={"x-amz-bucket-region": "eu-west-1"})
    )
    own = Stores()
    assert [body for _, body in read(own, here, here)] == [b"body"] * 2
    assert len(store.asked("HEAD", bucket.name)) == 1
    store.requests.clear()
    assert [body for _, body in read(own, here)] == [b"body"]
    assert [request.method for request in store.requests] == ["GET"]


def test_a_profile_is_followed_as_boto3_follows_it(
    bucket: Bucket, store: S3Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put("a.jsonl", body=b"body")
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    (tmp_path / "config").write_text(
        f"[profile own]\nregion = ap-south-1\nendpoint_url = {store.url}\n"
        "aws_access_key_id = OWNKEY\naws_secret_access_key = secret\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "own")
    assert [body for _, body in read(Stores(), S3Object(bucket.name, "a.jsonl"))] == [b"body"]
    assert store.requests
    assert all("OWNKEY/" in r.authorization for r in store.requests)
    assert all("/ap-south-1/s3/" in r.authorization for r in store.requests)


def test_without_credentials_the_error_says_what_to_set(
    bucket: Bucket, store: S3Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(S3Error, match="a.jsonl cannot be requested: .*: set AWS credentials"):
        read(Stores(), S3Object(bucket.name, "a.jsonl"))


LAMBDA = {
    "AWS_REGION": "eu-west-1",
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_SESSION_TOKEN": "token",
}


@pytest.mark.parametrize(
    ("variables", "bucket", "endpoint", "has_own_name"),
    [
        ({}, "bundles", None, True),
        # A certificate for *.s3.amazonaws.com does not cover a name with a dot.
        ({}, "my.bundles", None, False),
        ({"AWS_ENDPOINT_URL": "http://a"}, "bundles", "http://a", False),
        (
            {"AWS_ENDPOINT_URL": "http://a", "AWS_ENDPOINT_URL_S3": "http://b"},
            *("bundles", "http://b", False),
        ),
    ],
)
def test_in_lambda_the_environment_says_all(
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    bucket: str,
    endpoint: str | None,
    has_own_name: bool,
) -> None:
    monkeypatch.setattr(os, "environ", LAMBDA | variables)
    found = stores.from_environment(bucket)
    assert found == {
        "region": "eu-west-1",
        "access_key_id": "key",
        "secret_access_key": "secret",
        "session_token": "token",
        "virtual_hosted_style_request": has_own_name,
        **({"endpoint": endpoint} if endpoint else {}),
    }


@pytest.mark.parametrize(
    "variables",
    [
        {"AWS_ACCESS_KEY_ID": ""},
        {"AWS_REGION": ""},
        {"AWS_REGION": "cn-north-1"},
        {"AWS_USE_FIPS_ENDPOINT": "true"},
        {"AWS_USE_DUALSTACK_ENDPOINT": "true"},
    ],
    ids=str,
)
def test_boto3_is_asked_for_what_the_environment_does_not_say(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    monkeypatch.setattr(os, "environ", LAMBDA | variables)
    assert stores.from_environment("bundles") is None


@pytest.mark.slow
def test_an_event_does_not_import_boto3(bucket: Bucket, store: S3Proxy) -> None:
    """Importing it and making a client takes longer than all else in a cold start."""
    bucket.put("section/1/a.jsonl", video(1))
    code = f"""
import sys
from xapi_etl_processor.lambda_function import handler
answer = handler({{"bucket": {bucket.name!r}, "key": "section/1/a.jsonl"}})
assert '"video_events_processed": 1' in answer["body"], answer
assert "boto3" not in sys.modules and "botocore.session" not in sys.modules
"""
    run([sys.executable, "-c", code], check=True, env={**os.environ, "LOG_LEVEL": "CRITICAL"})
