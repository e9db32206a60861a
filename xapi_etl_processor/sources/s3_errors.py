"""What S3's errors mean, and what to do: boto3's exceptions as ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    FlexibleChecksumError,
    NoCredentialsError,
    ParamValidationError,
)
from urllib3.exceptions import HTTPError  # boto3 lets some of these through

from xapi_etl_processor.errors import (
    S3Damaged,
    S3Denied,
    S3Error,
    S3InvalidName,
    S3Missing,
    S3NoSuchBucket,
    S3Unusable,
)

_DENIED = (
    "cannot be read, access denied: allow s3:GetObject and s3:ListBucket (without the latter a"
    " missing object looks like this too)"
)
_MISSING = "does not exist: check the key; if it was deleted, restore it, or drop the message"
_ERRORS: dict[str, tuple[type[S3Error], str]] = {
    "NoSuchKey": (S3Missing, _MISSING),
    "404": (S3Missing, _MISSING),
    "NoSuchBucket": (
        S3NoSuchBucket,
        "cannot be read, its bucket does not exist: check the bucket's name",
    ),
    "AccessDenied": (S3Denied, _DENIED),
    "403": (S3Denied, _DENIED),
    "InvalidObjectState": (S3Unusable, "is archived: restore it from Glacier first"),
    "PreconditionFailed": (
        S3Error,
        "was replaced while it was read: the new content is read at the next attempt",
    ),
}
"""What S3's error codes mean, and what to do."""

_KMS_DENIED = (
    "cannot be decrypted: allow kms:Decrypt on its key, by naming the key in the stack's"
    " KmsKeyArns; the key's own policy must allow it too"
)
_KMS = "cannot be decrypted: check that its KMS key is there and enabled"
_MESSAGE_CHARACTERS = 500
"""How much of S3's own message an error repeats. Our limit; the longest known have about 350."""


@contextmanager
def ignoring(*codes: str) -> Iterator[None]:
    """Ends the block quietly at one of these error codes of S3."""
    try:
        yield
    except ClientError as error:
        if error.response["Error"]["Code"] not in codes:
            raise


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Raises boto3's errors as S3Error, with the object's name and what to do."""
    try:
        yield
    except ClientError as error:
        raise _translation(what, error) from error
    except ParamValidationError as error:
        raise S3InvalidName(f"{what} is not a valid S3 name: check bucket and key") from error
    except NoCredentialsError as error:
        raise S3Error(f"{what} cannot be requested: {error}: set AWS credentials") from error
    except EndpointConnectionError as error:
        raise S3Error(f"{what} cannot be requested, S3 is out of reach: {error}") from error
    except FlexibleChecksumError as error:
        raise S3Damaged(f"{what}: checksum mismatch: try again") from error
    except (BotoCoreError, HTTPError, OSError) as error:
        raise S3Error(
            f"{what} could not be read to its end ({type(error).__name__}): try again"
        ) from error


def _translation(what: str, error: ClientError) -> S3Error:
    """The error with S3's code and its own message, which names what is denied to whom."""
    said = error.response.get("Error", {})
    code, message = said.get("Code", ""), said.get("Message", "")
    kind, text = _ERRORS.get(code, (S3Error, "cannot be read"))
    # S3 answers AccessDenied for the key too; only the message says which of the two it was:
    # "User: ROLE is not authorized to perform: kms:Decrypt on resource: KEY because ..."
    # (awslabs/mountpoint-s3 has it in its tests against real S3).
    if kind is S3Denied and "kms:" in message:
        text = _KMS_DENIED
    elif code.startswith("KMS."):
        text = _KMS
    source = f"{code}: {message[:_MESSAGE_CHARACTERS]}" if message else code
    return kind(f"{what} {text} ({source})")
