"""Which of the two clients reads an object, and with whose endpoint, region and credentials."""

from __future__ import annotations

import os
import sys
from functools import partial
from itertools import product
from pathlib import Path
from subprocess import run

import pytest

from tests.conftest import Bucket
from tests.faults.http_proxy import Answer, Rule, S3Proxy
from tests.support.samples import video
from xapi_etl_processor.base.errors import S3Error, S3Missing
from xapi_etl_processor.s3 import client, listing
from xapi_etl_processor.s3 import fetch as s3
from xapi_etl_processor.s3.client import Stores, is_for_obstore
from xapi_etl_processor.s3.listing import Scope
from xapi_etl_processor.s3.objects import S3Object

KEYS = ("a.jsonl", "a/b.jsonl", "a b+c%20é~*'(1).jsonl", "a%2Fb.jsonl", ".a/..b/c...jsonl")
ODD_KEYS = (
    *("a//b.jsonl", "/a.jsonl", "a/./b.jsonl", "a/../b.jsonl", "a/b.jsonl/", "//", "a\tb.jsonl"),
    "a\u00a0b.jsonl",
)


def read(own: Stores, *objects: S3Object) -> list[tuple[S3Object, bytes]]:
    """Each object as it was read, with its body."""
    return [(found, b"".join(body)) for found, body in s3.bodies(own, objects)]


@pytest.fixture
def small(bucket: Bucket) -> S3Object:
    """An object of four bytes."""
    return S3Object(bucket.name, bucket.put("a.jsonl", body=b"body"))


def check_small(small: S3Object, own: Stores | None = None) -> None:
    """The four bytes can be read."""
    assert [body for _, body in read(own or Stores(), small)] == [b"body"]


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
    assert [obj for obj, _ in found] == s3.describe(own, named)
    assert {obj.key for obj in listing.listing(own, Scope(bucket.name))} == set(bodies)
    assert [obj.key for obj in named if not is_for_obstore(obj)] == [
        key for key in keys if key in ODD_KEYS
    ]
    with pytest.raises(S3Error, match="no//such does not exist"):
        read(own, S3Object(bucket.name, "no//such"))
    # Keys that contain pieces of S3's error messages.
    for text in ("<Code>NoSuchBucket</Code>", "Debug source:", "kind: Connect"):
        with pytest.raises(S3Missing, match="NoSuchKey"):
            read(own, S3Object(bucket.name, f"a{text}.jsonl"))


BOTH = ("a.jsonl", "a//b.jsonl")
"""A key that obstore reads, and one that boto3 reads."""


def test_an_object_of_another_size_than_was_listed_is_read_as_it_is_now(
    bucket: Bucket, aws_environment: dict[str, str]
) -> None:
    own, sizes = Stores(), (0, 10, 3 * s3.SMALL_BYTES)
    for key, now in product(BOTH, sizes):
        body = os.urandom(now)
        bucket.put(key, body=body)
        for then in (None, *sizes):
            ((obj, found),) = read(own, S3Object(bucket.name, key, "etag of then", then))
            assert (found == body, obj.size) == (True, now), (key, then, now)


def to_later_parts(answer: Answer) -> Rule:
    """A rule that gives this answer to requests for all parts of an object but the first."""
    return lambda r: answer if r.range and not r.range.startswith("bytes=0-") else None


@pytest.mark.fault(20, caught_by="range check")
def test_parts_of_two_versions_are_not_mixed_and_all_bytes_are_not_taken_for_a_part(
    bucket: Bucket, store: S3Proxy
) -> None:
    first, then = b"1" * (s3.SMALL_BYTES + 1), b"2" * (s3.SMALL_BYTES + 1)
    for key in BOTH:
        bucket.put(key, body=first)
        store.rule = to_later_parts(Answer(whole=True))
        with pytest.raises(S3Error, match=f"{key} could not be read"):
            read(Stores(), S3Object(bucket.name, key))
        store.rule = to_later_parts(Answer(do=partial(bucket.put, key, body=then)))
        with pytest.raises(S3Error, match="was replaced while it was read"):
            read(Stores(), S3Object(bucket.name, key))


def test_a_large_body_is_not_awaited_where_a_small_one_was_listed(
    bucket: Bucket, store: S3Proxy
) -> None:
    """S3 falls silent in the body of the whole, which could have gigabytes by now."""
    body = os.urandom(s3.SMALL_BYTES + 1)
    bucket.put("a.jsonl", body=body)
    store.rule = lambda r: None if r.range or r.method == "HEAD" else Answer(stall=0)
    assert [found for _, found in read(Stores(), S3Object(bucket.name, "a.jsonl", "x", 10))] == [
        body
    ]


@pytest.mark.parametrize(
    "answer",
    [
        Answer("PermanentRedirect", 301),
        Answer("AuthorizationHeaderMalformed", 400, "the region 'us-east-1' is wrong"),
    ],
    ids=lambda answer: answer.code,
)
def test_a_bucket_in_another_region_is_asked_for_its_region_once(
    small: S3Object, store: S3Proxy, answer: Answer
) -> None:
    """S3 checks that a signature names its region."""
    here = S3Object(small.bucket, small.key, "x", 4)
    store.rule = lambda r: (
        answer
        if "a.jsonl" in r.path and "/eu-west-1/s3/" not in r.authorization
        else Answer(headers={"x-amz-bucket-region": "eu-west-1"})
    )
    own = Stores()
    (described,) = s3.describe(Stores(), [small])
    assert described.size == 4
    store.requests.clear()
    assert [body for _, body in read(own, here, here)] == [b"body"] * 2
    assert len(store.asked("HEAD", small.bucket)) == 1
    store.requests.clear()
    check_small(here, own)
    assert [request.method for request in store.requests] == ["GET"]


PROFILE = "[profile own]\nregion = ap-south-1\nendpoint_url = {}\n"


def with_profile(folder: Path, monkeypatch: pytest.MonkeyPatch, config: str) -> None:
    """Nothing but this configuration says what AWS is to be used with."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    (folder / "config").write_text(config)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(folder / "config"))
    monkeypatch.setenv("AWS_PROFILE", "own")


def test_the_configuration_file_is_followed_as_boto3_follows_it(
    small: S3Object, store: S3Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its endpoint counts also where the credentials come from elsewhere.
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "config").write_text(f"[default]\nendpoint_url = {store.url}\n")
    with monkeypatch.context() as patch:
        for name in ("AWS_ENDPOINT_URL", "AWS_CONFIG_FILE"):
            patch.delenv(name)
        patch.setenv("HOME", str(tmp_path))
        check_small(small)
    assert store.requests
    store.requests.clear()
    keys = "aws_access_key_id = OWNKEY\naws_secret_access_key = secret\n"
    with_profile(tmp_path, monkeypatch, PROFILE.format(store.url) + keys)
    check_small(small)
    assert store.requests
    assert all("OWNKEY/" in r.authorization for r in store.requests)
    assert all("/ap-south-1/s3/" in r.authorization for r in store.requests)


def short_lived(folder: Path, store: S3Proxy, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """A profile whose keys KEY1, KEY2 and so on are about to expire, until a login ends."""
    (folder / "keys.py").write_text(f"""
import datetime, json, pathlib, sys
soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=1)
given = pathlib.Path({str(folder / "given")!r})
number = int(given.read_text()) + 1 if given.exists() else 1
given.write_text(str(number))
if number > {times}:
    sys.exit("log in again")
print(json.dumps({{"Version": 1, "AccessKeyId": f"KEY{{number}}", "SecretAccessKey": "secret",
    "SessionToken": "token", "Expiration": soon.isoformat()}}))
""")
    command = f"credential_process = {sys.executable} {folder / 'keys.py'}\n"
    with_profile(folder, monkeypatch, PROFILE.format(store.url) + command)


@pytest.mark.slow
def test_credentials_are_renewed_before_they_end_and_named_if_they_cannot_be(
    bucket: Bucket, store: S3Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """boto3 renews those that have less than ten minutes left."""
    assert client.CREDENTIALS_SECONDS < 10 * 60
    monkeypatch.setattr(client, "CREDENTIALS_SECONDS", 0)
    short_lived(tmp_path, store, monkeypatch, times=9)
    own, small = Stores(), S3Object(bucket.name, bucket.put("a.jsonl", body=b"body"))
    for _ in range(2):
        check_small(small, own)
    assert len({request.authorization.partition("/")[0] for request in store.requests}) == 2
    for key in BOTH:
        bucket.put(key, body=b"body")
        # The helper gives one more key; then the login has ended.
        (tmp_path / "given").write_text("8")
        with pytest.raises(S3Error, match=f"{key} cannot be requested: .*log in again"):
            read(Stores(), S3Object(bucket.name, key))


def test_a_profile_that_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    role = "role_arn = arn:aws:iam::123456789012:role/r\nsource_profile = none"
    for config, reason in (
        ("", "profile .own. could not be found"),
        ("[broken", "Unable to parse config file"),
        ("[profile own]\naws_access_key_id = key", "Partial credentials"),
        (f"[profile own]\n{role}", "none"),
        # Without any credentials.
        ("[profile own]\nregion = eu-west-1", ""),
    ):
        with_profile(tmp_path, monkeypatch, f"{config}\n")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        with pytest.raises(S3Error, match=f"cannot be requested: .*{reason}.*: set or renew AWS"):
            read(Stores(), S3Object("bucket", "a.jsonl"))


def test_certificates_that_cannot_be_read_are_named_and_no_fault_of_the_object(
    bucket: Bucket, store: S3Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "bundle.pem"
    monkeypatch.setenv("AWS_CA_BUNDLE", str(path))
    for bundle in (None, b"", b"no certificate"):
        if bundle is not None:
            path.write_bytes(bundle)
        with pytest.raises(S3Error, match="cannot be requested: check AWS_CA_BUNDLE") as raised:
            read(Stores(), S3Object(bucket.name, "a.jsonl"))
        assert not raised.value.poison, bundle


def test_an_endpoint_that_is_no_url_is_named_and_one_may_be_spelled_in_other_ways(
    small: S3Object, store: S3Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    for endpoint in ("localhost:9000", "minio", "https://", "ftp://minio"):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        with pytest.raises(S3Error, match=f"{endpoint} is no URL: check AWS_ENDPOINT_URL"):
            read(Stores(), small)
    # A panic of obstore is no Exception: it would end the invocation.
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://local host")
    with pytest.raises(S3Error, match="a.jsonl could not be read to its end .PanicException"):
        read(Stores(), small)
    for endpoint in (f"{store.url}/", store.url.replace("http", "HTTP")):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        check_small(small)


def test_variables_that_boto3_does_not_read_change_nothing(
    small: S3Object, store: S3Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (
        ("AWS_SESSION_TOKEN", ""),
        ("AWS_TOKEN", "of another program"),
        ("AWS_SKIP_SIGNATURE", "true"),
        ("AWS_S3_EXPRESS", "true"),
    ):
        store.requests.clear()
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            check_small(small)
        sent = [request.authorization for request in store.requests]
        assert sent, name
        assert all("SignedHeaders" in one for one in sent), name
        assert not any("x-amz-security-token" in one for one in sent), name


def always(answer: Answer) -> Rule:
    return lambda _: answer


def test_a_bucket_in_another_region_is_asked_at_the_endpoint_of_that_region(
    small: S3Object, store: S3Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.rule = always(Answer(headers={"x-amz-bucket-region": None}))
    own = Stores(owner="123456789012")
    check_small(small, own)
    monkeypatch.setenv("AWS_REGION", "cn-north-1")
    for region, fips, endpoint in (
        ("eu-west-1", "", "https://s3.eu-west-1.amazonaws.com"),
        # https://aws.amazon.com/compliance/fips/
        ("eu-west-1", "true", "https://s3-fips.eu-west-1.amazonaws.com"),
        ("us-east-1", "true", "https://s3-fips.us-east-1.amazonaws.com"),
    ):
        own = Stores(owner="123456789012")
        store.rule = always(Answer(headers={"x-amz-bucket-region": region}))
        with monkeypatch.context() as patch:
            assert own.boto3  # made now, while it is that of the proxy
            patch.delenv("AWS_ENDPOINT_URL")
            patch.setenv("AWS_USE_FIPS_ENDPOINT", fips)
            made = own.store(small.bucket).config
        assert (made["region"], made["endpoint"]) == (region, endpoint)


LAMBDA = {
    "AWS_REGION": "eu-west-1",
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_SESSION_TOKEN": "token",
}


def test_in_lambda_the_environment_says_all_and_else_boto3_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    a, b = {"AWS_ENDPOINT_URL": "http://a"}, {"AWS_ENDPOINT_URL_S3": "http://b"}
    cases: tuple[tuple[dict[str, str], str, str | None, bool], ...] = (
        ({}, "bundles", None, True),
        # A certificate for *.s3.amazonaws.com does not cover a name with a dot.
        ({}, "my.bundles", None, False),
        (a, "bundles", "http://a", False),
        (a | b, "bundles", "http://b", False),
    )
    for variables, bucket, endpoint, has_own_name in cases:
        monkeypatch.setattr(os, "environ", LAMBDA | variables)
        assert client.from_environment(bucket) == {
            "region": "eu-west-1",
            "access_key_id": "key",
            "secret_access_key": "secret",
            "session_token": "token",
            "virtual_hosted_style_request": has_own_name,
            **({"endpoint": endpoint} if endpoint else {}),
        }
    for name, value in (
        ("AWS_ACCESS_KEY_ID", ""),
        ("AWS_REGION", ""),
        ("AWS_REGION", "cn-north-1"),
        ("AWS_USE_FIPS_ENDPOINT", "true"),
        ("AWS_USE_DUALSTACK_ENDPOINT", "true"),
    ):
        monkeypatch.setattr(os, "environ", LAMBDA | {name: value})
        assert client.from_environment("bundles") is None, (name, value)


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
