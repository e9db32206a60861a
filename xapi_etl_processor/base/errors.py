"""Every error that this package raises on purpose, and whose fault it is.

Their texts may be logged and answered: each says what failed, on which object, and what to do, and
none holds a secret or a part of a statement.
"""

from __future__ import annotations


class XapiEtlError(Exception):
    """Base class of the errors below."""

    poison = False
    """Whether the fault lies in the message or its object, or is a bug: then the message becomes a
    dead letter soon. Where a service or the configuration is at fault, it waits."""


class ConfigurationError(XapiEtlError):
    """An environment variable, or the secret it names, is missing or invalid; the text names it."""


class BadRequest(XapiEtlError):
    """The request itself is wrong. It is answered with status 400, since no retry can help."""


class UnknownPayload(BadRequest):
    """The payload, or the message, names no S3 object in any known form."""

    poison = True


class EventFailed(XapiEtlError):
    """Parts of an event failed. Raised so that Lambda retries it and then dead-letters it."""


class NothingDone(XapiEtlError):
    """A bulk request found objects and could process none of them."""


class RemoteFailed(XapiEtlError):
    """The stack's function or queue could not be reached, or the function has failed."""


class Defect(XapiEtlError):
    """A bug: the text gives the exception's type and the lines of code, and nothing of the data."""

    poison = True


class DeadlinePassed(XapiEtlError):
    """A call did not finish before its deadline."""


class S3Error(XapiEtlError):
    """S3 could not be reached, or failed while it answered; `code` is its own name of the error."""

    code = ""


class S3Late(S3Error):
    """S3 did not answer before the deadline."""


class S3Missing(S3Error):
    """There is no such object."""

    poison = True


class S3Unusable(S3Error):
    """The object cannot be processed as it is: archived, or larger than the limit."""

    poison = True


class S3NotAllowed(S3Error, BadRequest):
    """The settings do not allow it to be read, or it is a directory bucket, which has no order."""

    poison = True


class S3Unordered(S3Error, BadRequest):
    """The store does not list keys in order, so that a listing would miss some of them."""


class S3NoSuchBucket(S3Error, BadRequest):
    """There is no such bucket."""


class S3InvalidName(S3Error, BadRequest):
    """No S3 bucket or key can have this name."""

    poison = True


class LoadOvertaken(XapiEtlError):
    """Something was forbidden between reading statements and storing them."""


class ClickHouseError(XapiEtlError):
    """ClickHouse did not do what it was asked to do; the text names the server."""


class ClickHouseUnavailable(ClickHouseError):
    """No connection, overload, or a timeout before anything was done."""


class ClickHouseBusy(ClickHouseUnavailable):
    """The server has too much to do: too many parts or queries, or no memory left. Nothing was
    done, and waiting helps.
    """


class ClickHouseWaking(ClickHouseUnavailable):
    """The server accepted the connection and has not greeted yet, as a sleeping one does."""


class OutcomeUnknown(ClickHouseUnavailable):
    """It may or may not have been done, and doing it again is safe."""


class ClickHouseRefused(ClickHouseError):
    """Somebody must change something first: the login, the schema, a privilege, or a value."""


class ClickHouseDenied(ClickHouseRefused):
    """The user lacks a privilege (code 497, ACCESS_DENIED)."""


def naming(uri: str, error: object) -> str:
    """An error's text, with the object that it is about."""
    return str(error) if uri in str(error) else f"{uri}: {error}"
