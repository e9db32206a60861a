"""What S3's errors mean, and what to do: the exceptions of obstore and boto3 as ours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape

from obstore.exceptions import BaseError, PermissionDeniedError, PreconditionError

from xapi_etl_processor.base.errors import (
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
_NO_BUCKET = "cannot be read, its bucket does not exist: check the bucket's name"
_REPLACED = "was replaced while it was read: the new content is read at the next attempt"
_ERRORS: dict[str, tuple[type[S3Error], str]] = {
    "NoSuchKey": (S3Missing, _MISSING),
    "404": (S3Missing, _MISSING),
    "NoSuchBucket": (S3NoSuchBucket, _NO_BUCKET),
    "AccessDenied": (S3Error, _DENIED),
    "403": (S3Error, _DENIED),
    "InvalidObjectState": (S3Unusable, "is archived: restore it from Glacier first"),
    "PreconditionFailed": (S3Error, _REPLACED),
}
"""What S3's error codes mean, and what to do."""

_KMS_DENIED = (
    "cannot be decrypted: allow kms:Decrypt on its key, by naming the key in the stack's"
    " KmsKeyArns; the key's own policy must allow it too"
)
_KMS = "cannot be decrypted: check that its KMS key is there and enabled"
_MESSAGE_CHARACTERS = 500
"""How much of S3's own message an error repeats. Our limit; the longest known have about 350."""

_OTHER_REGION = (
    "Received redirect without LOCATION",
    "<Code>PermanentRedirect<",
    "<Code>AuthorizationHeaderMalformed<",
)
"""What obstore says when a bucket is in another region than the one it asked."""

_BAD_HEAD = re.compile("performing HEAD .* 400 Bad Request")
"""The same after HEAD: S3 answers 400 without a text, so the code is not there."""

_OBSTORE_CODES: dict[type[Exception], str] = {
    FileNotFoundError: "404",
    PermissionDeniedError: "403",
    PreconditionError: "PreconditionFailed",
}
"""S3's code for those of obstore's exceptions that can come without one, as after HEAD."""

_CODE = re.compile("<Code>([^<]*)</Code>")
_MESSAGE = re.compile("<Message>([^<]*)</Message>")
_DEBUG = "Debug source:"
_CONNECT = "kind: Connect"
_PROVIDER = re.compile("External AWS credential provider: (.*)")
_REASON = re.compile(r'(?:message|error): "([^"]+)"|InvalidCertificate\(\s*(\w+)')


@contextmanager
def ignoring(*codes: str) -> Iterator[None]:
    """Ends the block quietly at one of these error codes of S3."""
    try:
        yield
    except S3Error as error:
        if error.code not in codes:
            raise


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Raises obstore's and boto3's errors as S3Error, with the object's name and what to do."""
    try:
        yield
    except S3Error:
        raise
    except (BaseError, OSError) as error:
        raise _of_obstore(what, error) from error
    except Exception as error:
        # boto3 is imported only if it is used.
        if not type(error).__module__.startswith(("botocore.", "urllib3.")):
            raise
        raise _of_boto3(what, error) from error
    except BaseException as error:
        # What Rust calls a panic is no Exception, and would end more than this request.
        if type(error).__name__ != "PanicException":
            raise
        raise _not_to_the_end(what, error) from error


def is_of_other_region(error: Exception) -> bool:
    """Whether obstore's error says that the bucket is in another region."""
    said = str(error)
    return isinstance(error, BaseError) and (
        any(text in said for text in _OTHER_REGION) or bool(_BAD_HEAD.search(said))
    )


def _of_obstore(what: str, error: Exception) -> S3Error:
    text, key = str(error), what.removeprefix("s3://").partition("/")[2]
    # A key may look like an answer of S3. What repeats it unchanged stands before the answer.
    said, _, details = (text.partition(key or what)[2] or text).partition(_DEBUG)
    code, message = _CODE.search(said), _MESSAGE.search(said)
    if code or type(error) in _OBSTORE_CODES:
        found = code[1] if code else _OBSTORE_CODES[type(error)]
        return _with_code(what, found, unescape(message[1]) if message else "")
    if refused := _PROVIDER.search(said):
        return _without_credentials(what, refused[1])
    if _CONNECT in details:
        reason = _REASON.search(details)
        return _out_of_reach(what, (reason[1] or reason[2]) if reason else "no connection")
    return _not_to_the_end(what, error)


def _of_boto3(what: str, error: Exception) -> S3Error:
    from botocore import exceptions

    if isinstance(error, exceptions.ClientError):
        answer = error.response.get("Error", {})
        return _with_code(what, answer.get("Code", ""), answer.get("Message", ""))
    if isinstance(error, exceptions.ParamValidationError):
        return S3InvalidName(f"{what} is not a valid S3 name: check bucket and key")
    if isinstance(error, exceptions.EndpointConnectionError):
        return _out_of_reach(what, str(error))
    on_the_way = exceptions.ConnectionError | exceptions.HTTPClientError
    if isinstance(error, on_the_way | exceptions.IncompleteReadError | exceptions.ChecksumError):
        return _not_to_the_end(what, error)
    # What else botocore says is about credentials and profiles. urllib3's errors are of a body.
    if isinstance(error, exceptions.BotoCoreError):
        return _without_credentials(what, str(error).partition("\n")[0])
    return _not_to_the_end(what, error)


def _without_credentials(what: str, reason: str) -> S3Error:
    return S3Error(f"{what} cannot be requested: {reason}: set or renew AWS credentials")


def _out_of_reach(what: str, reason: str) -> S3Error:
    return S3Error(f"{what} cannot be requested, S3 is out of reach: {reason}")


def _not_to_the_end(what: str, error: BaseException) -> S3Error:
    return S3Error(f"{what} could not be read to its end ({type(error).__name__}): try again")


def _with_code(what: str, code: str, message: str) -> S3Error:
    """The error with S3's code and its own message, which names what is denied to whom."""
    kind, text = _ERRORS.get(code, (S3Error, "cannot be read"))
    # S3 answers AccessDenied for the key too; only the message says which of the two it was:
    # "User: ROLE is not authorized to perform: kms:Decrypt on resource: KEY because ..."
    # (awslabs/mountpoint-s3 has it in its tests against real S3).
    if text == _DENIED and "kms:" in message:
        text = _KMS_DENIED
    elif code.startswith("KMS."):
        text = _KMS
    source = f"{code}: {message[:_MESSAGE_CHARACTERS]}" if message else code
    error = kind(f"{what} {text} ({source})")
    error.code = code
    return error
