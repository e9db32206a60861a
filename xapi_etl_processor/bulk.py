"""Which objects a backfill covers, and how it resumes."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from . import s3
from .common import PAGE_OBJECTS, Outcome, Run, process
from .ledger import already_processed, identity
from .objects import S3Object
from .summary import Summary
from .values import milliseconds, since_epoch

PARAMETERS = (
    "section_id",
    "start_date",
    "end_date",
    "s3_prefix",
    "dry_run",
    "force_reprocess",
    "continuation_token",
)
"""What makes a payload a bulk request, beside `mode`."""

_DEFAULT_PREFIX = "section/"
_KNOWN = {*PARAMETERS, "mode", "bucket"}


SHOWN_FILES = 10
"""Keys that a dry run shows. Ours."""


class NothingDone(Exception):
    """Objects were found, and none of them could be processed."""


class BadRequest(ValueError):
    """The payload can never work; the text says which part and what is expected."""


@dataclass(frozen=True)
class BulkRequest:
    """A bulk payload, checked. Instants are milliseconds since 1970, until is exclusive."""

    bucket: str
    prefix: str
    section_id: int | None
    since: int | None
    until: int | None
    dry_run: bool
    force: bool
    after: str
    scope: dict[str, Any]

    def covers(self, obj: S3Object) -> bool:
        """Whether the object is one that is asked for."""
        if not obj.is_bundle:
            return False
        if self.section_id is not None and obj.section_id != self.section_id:
            return False
        if self.since is None and self.until is None:
            return True
        instant = obj.milliseconds
        if instant is None and obj.modified is not None:
            instant = since_epoch(obj.modified)
        return (
            instant is not None
            and (self.since is None or instant >= self.since)
            and (self.until is None or instant < self.until)
        )

    def token_after(self, key: str) -> str:
        """A token with which the same request goes on behind the key."""
        text = json.dumps({**self.scope, "after": key})
        return base64.urlsafe_b64encode(text.encode()).decode()


def read_request(payload: Mapping[str, Any], default_bucket: str) -> BulkRequest:
    """The request in a payload; raises BadRequest naming the parameter.

    A continuation token brings the request that it continues; what stands beside it must agree.
    """
    unknown = sorted(map(str, payload.keys() - _KNOWN))
    if unknown:
        raise BadRequest(
            f"unknown parameters {', '.join(unknown)}: use {', '.join(sorted(_KNOWN))}"
        )
    given = {k: v for k, v in payload.items() if k != "mode" and v is not None and v is not False}
    after = ""
    if "continuation_token" in given:
        carried = _read_token(given.pop("continuation_token"))
        after = carried.pop("after")
        if differing := sorted(k for k in given if given[k] != carried.get(k)):
            raise BadRequest(
                f"continuation_token belongs to another request ({', '.join(differing)} differs):"
                " send the token alone, or the same parameters with it"
            )
        given = carried
    section_id = _section(given.get("section_id"))
    since = _day(given, "start_date")
    last_day = _day(given, "end_date")
    if since is not None and last_day is not None and since > last_day:
        raise BadRequest("start_date is after end_date: both are UTC days, both included")
    bucket = given.get("bucket", default_bucket)
    if not isinstance(bucket, str) or not bucket:
        raise BadRequest("no bucket: set S3_XAPI_BUCKET_NAME, or send `bucket` as text")
    return BulkRequest(
        bucket=bucket,
        prefix=_prefix(given.get("s3_prefix"), section_id),
        section_id=section_id,
        since=since,
        until=None if last_day is None else last_day + 86_400_000,
        dry_run=flag(given, "dry_run"),
        force=flag(given, "force_reprocess"),
        after=after,
        scope=given,
    )


def flag(payload: Mapping[str, Any], name: str) -> bool:
    """A boolean parameter, absent is False; raises BadRequest for anything but true and false."""
    value = payload.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise BadRequest(f"{name} is {value!r}: use true or false, without quotes")


def run_bulk(
    request: BulkRequest, run: Run, on_outcome: Callable[[Outcome], None] = lambda _: None
) -> dict[str, Any]:
    """Process, or in a dry run count, what the request covers; the answer's body.

    Raises S3Error where the bucket cannot be listed, and NothingDone where objects were found but
    there was no time, or no ClickHouse, for a single one.
    """
    started = time.monotonic()
    listed = s3.listing(run.connections.s3, request.bucket, request.prefix, request.after)
    objects = filter(request.covers, listed)
    work = _look(objects, run) if request.dry_run else process(objects, run)
    summary = Summary()
    files: list[str] = []
    bytes_found = 0
    after, stopped = request.after, ""
    for outcome in work:
        on_outcome(outcome)
        if outcome.status in ("waiting", "unstored"):
            stopped = stopped or outcome.error
        if not stopped:
            after = outcome.obj.key
        if outcome.status != "waiting":
            summary.add(outcome)
            files.append(outcome.obj.key)
            bytes_found += outcome.obj.size or 0
            del files[SHOWN_FILES:]
    if stopped and after == request.after:
        raise NothingDone(f"bulk: no object could be processed: {stopped}")
    body = summary.body("bulk", request.section_id, request.dry_run, started)
    body["complete"] = not stopped
    body["continuation_token"] = request.token_after(after) if stopped else None
    if request.dry_run:
        body["files"] = files
        body["bytes_found"] = bytes_found
    return body


def _look(objects: Iterator[S3Object], run: Run) -> Iterator[Outcome]:
    """What processing would begin with, without reading an object or writing anything."""
    while page := list(islice(objects, PAGE_OBJECTS)):
        if run.time_is_up:
            yield from (Outcome(obj, "waiting", "the time was up") for obj in page)
            return
        known = set() if run.force else already_processed(run.connections.clickhouse, page)
        for obj in page:
            yield Outcome(obj, "skipped" if identity(obj) in known else "found")


def _section(value: Any) -> int | None:
    if value is None:
        return None
    whole = isinstance(value, int | str) and re.fullmatch(r"[0-9]{1,19}", str(value), re.ASCII)
    if whole:
        return int(value)
    raise BadRequest(f"section_id is {value!r}: a whole number is needed")


def _day(given: Mapping[str, Any], name: str) -> int | None:
    """The first millisecond of a UTC day."""
    value = given.get(name)
    if value is None:
        return None
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value, re.ASCII):
        found = milliseconds(value)
        if found is not None:
            return found
    raise BadRequest(f"{name} is {value!r}: a UTC day such as 2024-01-31 is needed")


def _prefix(given: Any, section_id: int | None) -> str:
    """What to list: a folder, so that section/1 is not section/10 too."""
    if given is not None and not isinstance(given, str):
        raise BadRequest(f"s3_prefix is {given!r}: text is needed, such as section/2001/video/")
    prefix = _DEFAULT_PREFIX if given is None else given.lstrip("/")
    if prefix and not prefix.endswith("/"):
        prefix += "/"
    if section_id is not None and prefix == _DEFAULT_PREFIX:
        prefix += f"{section_id}/"
    return prefix


def _read_token(token: Any) -> dict[str, Any]:
    try:
        carried = json.loads(base64.urlsafe_b64decode(token))
        if isinstance(carried, dict) and isinstance(carried["after"], str):
            return carried
    except (TypeError, ValueError, KeyError):
        pass
    raise BadRequest("continuation_token is not one that this function gave: repeat without it")
