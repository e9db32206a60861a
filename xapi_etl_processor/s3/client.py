"""Connections to S3: obstore reads objects, in a tenth of boto3's processor time, and boto3 does
what obstore cannot.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any

from obstore.exceptions import BaseError
from obstore.store import S3Store

from xapi_etl_processor.base import aws
from xapi_etl_processor.base.errors import S3Error
from xapi_etl_processor.s3.objects import S3Object

if TYPE_CHECKING:
    from boto3 import Session
    from mypy_boto3_s3 import S3Client
    from obstore.store import ClientConfig

CONNECT_SECONDS = 5
"""How long connecting to S3 may take. Our limit."""

READ_SECONDS = 10
"""The longest silence of S3, also between two packets of a body. Our limit; boto3's own is 60 s,
as long as many a function's timeout."""

REQUEST_SECONDS = 300
"""How long one request and its body may take in all. Our limit: 1 MiB at 3.5 kB a second."""

CREDENTIALS_SECONDS = 60
"""How long a profile's credentials are used before boto3 is asked for them again, which renews
those that have less than ten minutes left. Our limit."""

ATTEMPTS = 4
"""How often one request is tried. Our limit."""

_BOTO3_ONLY = (
    "AWS_USE_FIPS_ENDPOINT",
    "AWS_USE_DUALSTACK_ENDPOINT",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
)
"""Variables that change the endpoint; boto3 knows how."""

_CONFIG_FILE = "~/.aws/config"
"""boto3's default of AWS_CONFIG_FILE."""

_BUCKET = re.compile("[A-Za-z0-9._-]+")

CONCURRENCY = 32
"""Small objects that are fetched at the same time. Our choice: with more, a function with one
processor is not faster (docs/performance.md)."""

_OTHER_DOMAINS = ("cn-", "us-iso", "eu-iso")
"""Regions whose endpoints are not under amazonaws.com."""


@dataclass
class Stores:
    """Connections to S3, made when they are first used; all is found as boto3 finds it.

    With an `owner`, an AWS account, buckets of every other account are refused. `concurrency` is
    how many small objects are fetched at the same time.
    """

    owner: str = ""
    concurrency: int = CONCURRENCY
    _by_bucket: dict[str, S3Store] = field(default_factory=dict)
    _lock: RLock = field(default_factory=RLock)

    @property
    def boto3(self) -> S3Client:
        """The client of boto3."""
        # Since Python 3.12 a cached_property has no lock, and boto3 cannot make clients in several
        # threads at once.
        with self._lock:
            return self._client

    @cached_property
    def _client(self) -> S3Client:
        client: S3Client = aws.client(
            "s3",
            CONNECT_SECONDS,
            READ_SECONDS,
            ATTEMPTS,
            session=self._session,
            connections=self.concurrency + 2,
        )
        if self.owner:

            def add_owner(params: dict[str, Any], **_: Any) -> None:
                params["ExpectedBucketOwner"] = self.owner

            client.meta.events.register("before-parameter-build.s3", add_owner)
        return client

    @cached_property
    def _session(self) -> Session:
        # It takes 0.3 s to import boto3 and make a client: who only reads objects need not wait.
        from boto3 import Session

        return Session()

    def store(self, bucket: str, not_this: S3Store | None = None) -> S3Store:
        """The store for a bucket; one for its own region if S3 refused `not_this`. Raises boto3's
        error if the bucket is not the owner's.
        """
        known = self._by_bucket.get(bucket)
        if known is not None and known is not not_this:
            return known
        with self._lock:
            if self._by_bucket.get(bucket) is not_this:
                region = None
                # obstore cannot state the owner in its requests: it would not sign the header.
                if self.owner or not_this:
                    # An S3 of one's own may not name a region.
                    region = self.boto3.head_bucket(Bucket=bucket).get("BucketRegion")
                config, certificates = from_environment(bucket), os.environ.get("AWS_CA_BUNDLE")
                if config is None:
                    from botocore.session import get_session

                    config = self._from_boto3(region)
                    # The environment or the profile names the file.
                    certificates = get_session().get_config_variable("ca_bundle")
                config["region"] = region or config["region"]
                self._by_bucket[bucket] = _made(bucket, config, certificates)
            return self._by_bucket[bucket]

    def _from_boto3(self, region: str | None) -> dict[str, Any]:
        from botocore.exceptions import NoCredentialsError
        from obstore.auth.boto3 import Boto3CredentialProvider

        if self._session.get_credentials() is None:
            raise NoCredentialsError
        # Each region has an endpoint of its own.
        client = self._session.client("s3", region_name=region) if region else self.boto3
        return {
            "region": client.meta.region_name,
            # boto3 names this host, which does not exist, and asks the right one.
            "endpoint": client.meta.endpoint_url.replace("s3-fips.aws-global", "s3-fips.us-east-1"),
            "virtual_hosted_style_request": False,
            "credential_provider": Boto3CredentialProvider(
                self._session, ttl=timedelta(seconds=CREDENTIALS_SECONDS)
            ),
        }


def _made(bucket: str, config: Mapping[str, Any], certificates: str | None) -> S3Store:
    endpoint = config.get("endpoint", "https://s3.amazonaws.com")
    # obstore would panic.
    if not re.match("https?://[^/]", endpoint, re.IGNORECASE):
        raise S3Error(
            f"s3://{bucket}/ cannot be requested: {endpoint} is no URL: check AWS_ENDPOINT_URL"
        )
    options: ClientConfig = {
        "allow_http": endpoint.lower().startswith("http:"),
        "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
        "read_timeout": timedelta(seconds=READ_SECONDS),
        "timeout": timedelta(seconds=REQUEST_SECONDS),
    }
    try:
        if certificates:
            options["root_certificate"] = Path(certificates).read_bytes()
        return S3Store(
            bucket,
            client_options=options,
            retry_config={
                "max_retries": ATTEMPTS - 1,
                "retry_timeout": timedelta(seconds=REQUEST_SECONDS),
                "backoff": {"max_backoff": timedelta(seconds=READ_SECONDS)},
            },
            # obstore reads these two from the environment, and boto3 does not.
            skip_signature=False,
            s3_express=False,
            **config,
        )
    except (BaseError, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise S3Error(
            f"s3://{bucket}/ cannot be requested: check AWS_CA_BUNDLE and the other variables that"
            f" begin with AWS_: {reason}"
        ) from error


def from_environment(bucket: str) -> dict[str, Any] | None:
    """What a store of this bucket needs; None unless the environment says it all, as in Lambda."""
    env = os.environ
    region = env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION")
    key, secret = env.get("AWS_ACCESS_KEY_ID"), env.get("AWS_SECRET_ACCESS_KEY")
    special = any(env.get(name) for name in _BOTO3_ONLY)
    file = env.get("AWS_CONFIG_FILE") or os.path.expanduser(_CONFIG_FILE)  # noqa: PTH111  # Path's own raises if there is no home
    # The file may name another endpoint. Lambda has none.
    special |= Path(file).is_file()
    # obstore would send an empty token, and that of AWS_TOKEN.
    special |= env.get("AWS_SESSION_TOKEN") == "" or "AWS_TOKEN" in env
    if not (region and key and secret) or special or region.startswith(_OTHER_DOMAINS):
        return None
    found = {"region": region, "access_key_id": key, "secret_access_key": secret}
    if token := env.get("AWS_SESSION_TOKEN"):
        found["session_token"] = token
    if endpoint := env.get("AWS_ENDPOINT_URL_S3") or env.get("AWS_ENDPOINT_URL"):
        found["endpoint"] = endpoint
    # As boto3 does: a server of one's own has no name for each bucket, and a certificate for
    # *.s3.amazonaws.com does not cover a name with a dot.
    return {**found, "virtual_hosted_style_request": not endpoint and "." not in bucket}


def is_for_obstore(obj: S3Object) -> bool:
    """Whether obstore would read this object and no other: it drops slashes at the ends of a key,
    and refuses empty and relative parts, control characters, and names that no bucket can have.
    """
    relative = any(part in ("", ".", "..") for part in obj.key.split("/"))
    return not relative and obj.key.isprintable() and bool(_BUCKET.fullmatch(obj.bucket))
