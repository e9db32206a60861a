"""Clients of AWS's services, by boto3, whose answers are whole: boto3 takes one that is cut off in
its headers, or right behind them, for "no more objects" or "nothing failed".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boto3 import Session

_ONLY_STATUS = "HeadBucket"
"""Its status says all that we ask. S3 gives this answer no length, nor errors without a body."""

_WHOLE = {"etag": re.compile(r'[^"]+|.*".*"'), "last-modified": re.compile(r".*GMT")}
"""The headers of S3 that we use: of an answer to HEAD, nothing else shows where it ends."""


def client(
    service: str,
    connect_seconds: float,
    read_seconds: float,
    attempts: int,
    *,
    session: Session | None = None,
    connections: int = 10,
) -> Any:
    """A client with these limits, which keeps so many connections open.

    An answer whose headers do not say where it ends, or whose body has another length, is requested
    again; after `attempts` times in all, ConnectionClosedError is raised.
    """
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=connect_seconds,
        read_timeout=read_seconds,
        retries={"mode": "standard", "total_max_attempts": attempts},
        max_pool_connections=connections,
    )
    make: Any = (session or boto3).client
    made = make(service, config=config)
    made.meta.events.register_first("before-parse", _keep_from_parser)
    made.meta.events.register_first("needs-retry", partial(_repeat_if_cut, attempts))
    return made


def _keep_from_parser(operation_model: Any, response_dict: dict[str, Any], **_: Any) -> None:
    """Empty a cut answer, whose parts may not be parsable; `_repeat_if_cut` decides on it."""
    headers, body = response_dict["headers"], response_dict["body"]
    if not _is_whole(operation_model, response_dict["status_code"], headers, body):
        response_dict["headers"] = type(headers)()
        if isinstance(body, bytes):
            response_dict["body"] = b""


def _repeat_if_cut(
    total_attempts: int, response: Any, operation: Any, attempts: int, **_: Any
) -> float | None:
    """Seconds to wait before the next attempt, None if the answer is whole."""
    if response is None:
        return None
    http, parsed = response
    body = None if operation.has_streaming_output and http.status_code < 300 else http.content
    # S3 says in every page whether it is the last one.
    no_page = operation.name == "ListObjectsV2" and "IsTruncated" not in parsed
    whole = _is_whole(operation, http.status_code, http.headers, body)
    if whole and not (no_page and http.status_code == 200):
        return None
    if attempts < total_attempts:
        return float(min(2 ** (attempts - 1), 4))
    from botocore.exceptions import ConnectionClosedError

    raise ConnectionClosedError(endpoint_url=http.url)


def _is_whole(operation: Any, status: int, headers: Mapping[str, str], body: object) -> bool:
    """Whether an answer is whole, as far as its headers tell: a streamed body is not read here."""
    is_head = operation.http["method"] == "HEAD"
    if is_head and (status >= 300 or operation.name == _ONLY_STATUS):
        return True
    if any(name in headers and not form.fullmatch(headers[name]) for name, form in _WHOLE.items()):
        return False
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return True
    length = headers.get("content-length", "")
    if is_head or not isinstance(body, bytes):
        return length.isdecimal()
    return length.isdecimal() and int(length) == len(body)
