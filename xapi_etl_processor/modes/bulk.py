"""Which objects a backfill covers, and how it resumes."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from xapi_etl_processor.clickhouse_client import ClickHouseError
from xapi_etl_processor.common import PAGE_OBJECTS, TIME_IS_UP, Outcome, Run, process
from xapi_etl_processor.config import Settings
from xapi_etl_processor.modes.answer import Summary
from xapi_etl_processor.sources import s3
from xapi_etl_processor.sources.objects import S3Object
from xapi_etl_processor.storage.ledger import Identity, already_processed, identity
from xapi_etl_processor.telemetry import shown
from xapi_etl_processor.xapi.values import milliseconds

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

_DAY = 86_400_000
_KNOWN = {*PARAMETERS, "mode", "bucket"}


SHOWN_FILES = 10
"""Keys that a dry run shows. Ours."""


class NothingDone(Exception):
    """Objects were found, and none of them could be processed."""


class BadRequest(ValueError):
    """The payload can never work; the text says which part and what is expected."""


@dataclass(frozen=True)
class BulkRequest:
    """A bulk payload, checked. Days are milliseconds since 1970 at their beginning, both included.

    `scope` is what was asked, as JSON, for the token that continues it behind the key `after`.
    """

    bucket: str
    prefix: str
    section_id: int | None
    first_day: int | None
    last_day: int | None
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
        if self.first_day is None and self.last_day is None:
            return True
        instant = obj.instant
        return (
            instant is not None
            and (self.first_day is None or instant >= self.first_day)
            and (self.last_day is None or instant < self.last_day + _DAY)
        )

    def token_after(self, key: str) -> str:
        """A token with which the same request goes on behind the key."""
        text = json.dumps({**self.scope, "after": key})
        return base64.urlsafe_b64encode(text.encode()).decode()


def read_request(payload: Mapping[str, Any], settings: Settings) -> BulkRequest:
    """The request in a payload; raises BadRequest naming the parameter.

    A continuation token brings the request that it continues; what stands beside it must agree.
    """
    unknown = sorted(map(repr, payload.keys() - _KNOWN))
    if unknown:
        raise BadRequest(
            f"unknown parameters {', '.join(unknown)}: use {', '.join(sorted(_KNOWN))}"
        )
    if payload.get("mode", "bulk") != "bulk":
        raise BadRequest(f"mode is {shown(payload['mode'])}: with these parameters it is bulk")
    asked = _checked({k: v for k, v in payload.items() if v is not None})
    after = ""
    if "continuation_token" in payload and payload["continuation_token"] is not None:
        carried, after = _read_token(payload["continuation_token"])
        whole = {"dry_run": False, "force_reprocess": False, **carried}
        differing = [name for name, value in asked.items() if value != whole.get(name)]
        if differing:
            raise BadRequest(
                f"continuation_token belongs to another request ({', '.join(differing)} differs):"
                " send the token alone, or the same parameters with it"
            )
        asked = carried
    bucket = asked.get("bucket", settings.bucket)
    prefix = _prefix(asked.get("s3_prefix"), settings.prefix, asked.get("section_id"))
    if refusal := settings.refusal(bucket, prefix):
        raise BadRequest(refusal)
    if after and not after.startswith(prefix):
        raise BadRequest(
            f"continuation_token goes on behind a key that is not in {prefix}: was S3_XAPI_PREFIX"
            " changed? Repeat the request without it"
        )
    request = BulkRequest(
        bucket=bucket,
        prefix=prefix,
        section_id=asked.get("section_id"),
        first_day=milliseconds(asked.get("start_date")),
        last_day=milliseconds(asked.get("end_date")),
        dry_run=asked.get("dry_run", False),
        force=asked.get("force_reprocess", False),
        after=after,
        scope=asked,
    )
    # As text, which is what ISO 8601 is good for.
    if asked.get("start_date", "") > asked.get("end_date", "9999"):
        raise BadRequest("start_date is after end_date: both are UTC days, both included")
    return request


def flag(payload: Mapping[str, Any], name: str) -> bool:
    """A boolean parameter, absent is False; raises BadRequest for anything but true and false."""
    value = payload.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise BadRequest(f"{name} is {shown(value)}: use true or false, without quotes")


def run_bulk(
    request: BulkRequest, run: Run, on_outcome: Callable[[Outcome], None] = lambda _: None
) -> dict[str, Any]:
    """Process, or in a dry run count, what the request covers; the answer's body.

    Raises S3Error where the bucket cannot be listed, and NothingDone where there was no time, or
    no ClickHouse, for a single object.
    """
    started = time.monotonic()
    objects = _Covered(request, run)
    work = _look(objects, run) if request.dry_run else process(objects, run)
    summary = Summary()
    files: list[str] = []
    bytes_found = 0
    after, stopped = request.after, ""
    for outcome in work:
        on_outcome(outcome)
        before = objects.before.pop(outcome.obj.key)
        if not stopped:
            if outcome.status in ("waiting", "unstored"):
                stopped, after = outcome.error, before
            else:
                after = outcome.obj.key
        if outcome.status != "waiting":
            summary.add(outcome)
            files.append(outcome.obj.key)
            bytes_found += outcome.obj.size or 0
            del files[SHOWN_FILES:]
    if objects.before:
        raise RuntimeError(f"bulk: no outcome for {next(iter(objects.before))}: report a defect")
    if objects.ended_by and not stopped:
        # Everything that was passed on is done, and so is what was passed over behind it.
        stopped, after = objects.ended_by, objects.reached
    if stopped and after == request.after:
        raise NothingDone(f"bulk: no object could be processed: {stopped}")
    if stopped and stopped != TIME_IS_UP and not summary.failures:
        summary.fail(after, stopped)
    body = summary.body("bulk", request.section_id, request.dry_run, started)
    body["s3_prefix"] = request.prefix
    body["complete"] = not stopped
    body["continuation_token"] = request.token_after(after) if stopped else None
    if request.dry_run:
        body["files"] = files
        body["bytes_found"] = bytes_found
    return body


class _Covered:
    """The objects that a request covers, in key order, as far as time and S3 allow.

    `reached` is the last key that was passed on or passed over, `before` the one before each that
    was passed on and not taken back; `ended_by` says what ended the listing early, if anything
    did. Raises S3Error where it cannot even begin.
    """

    def __init__(self, request: BulkRequest, run: Run) -> None:
        self.reached = request.after
        self.ended_by = ""
        self.before: dict[str, str] = {}
        self._request = request
        self._run = run

    def __iter__(self) -> Iterator[S3Object]:
        request, run = self._request, self._run
        listed = s3.listing(
            run.connections.s3, request.bucket, request.prefix, request.after, run.stop_at
        )
        try:
            for obj in listed:
                if run.time_is_up:
                    self.ended_by = TIME_IS_UP
                    return
                if request.covers(obj):
                    self.before[obj.key] = self.reached
                    yield obj
                self.reached = obj.key
        except s3.S3Error as error:
            late = error.code == s3.LATE
            if self.reached == request.after and not late:
                raise
            self.ended_by = TIME_IS_UP if late else str(error)


def _look(objects: Iterable[S3Object], run: Run) -> Iterator[Outcome]:
    """What processing would begin with, without reading an object or writing anything."""
    source = iter(objects)
    while page := list(islice(source, PAGE_OBJECTS)):
        known: set[Identity] = set()
        try:
            if not run.force:
                known = already_processed(run.connections.clickhouse, page, run.deadline)
        except ClickHouseError as error:
            yield from (Outcome(obj, "waiting", str(error)) for obj in page)
            return
        for obj in page:
            yield Outcome(obj, "skipped" if identity(obj) in known else "found")


def _checked(given: dict[str, Any]) -> dict[str, Any]:
    """The parameters in one spelling each, so that they can be compared; raises BadRequest."""
    asked: dict[str, Any] = {}
    for name in ("dry_run", "force_reprocess"):
        if name in given:
            asked[name] = flag(given, name)
    for name in ("start_date", "end_date"):
        if name in given:
            asked[name] = _day(name, given[name])
    for name in ("bucket", "s3_prefix"):
        if name in given:
            asked[name] = _text(name, given[name])
    if "section_id" in given:
        asked["section_id"] = _section(given["section_id"])
    return asked


def _section(value: Any) -> int:
    whole = isinstance(value, int | str) and re.fullmatch(r"[0-9]{1,19}", str(value), re.ASCII)
    if not whole:
        raise BadRequest(f"section_id is {shown(value)}: a whole number is needed")
    return int(value)


def _day(name: str, value: Any) -> str:
    right = isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value, re.ASCII)
    if not right or milliseconds(value) is None:
        raise BadRequest(f"{name} is {shown(value)}: a UTC day such as 2024-01-31 is needed")
    return str(value)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise BadRequest(f"{name} is {shown(value)}: text is needed")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadRequest(f"{name} is {shown(value)}: text that UTF-8 can write is needed") from None
    return value


def _prefix(given: str | None, default: str, section_id: int | None) -> str:
    """What to list: a folder, so that section/1 is not section/10 too."""
    prefix = (default if given is None else given).lstrip("/")
    if prefix and not prefix.endswith("/"):
        prefix += "/"
    if section_id is None:
        return prefix
    named = S3Object("", prefix).section_id
    if named not in (None, section_id):
        raise BadRequest(f"s3_prefix is of section {named}, section_id is {section_id}")
    return f"{prefix}{section_id}/" if f"/{prefix}".endswith("/section/") else prefix


def _read_token(token: Any) -> tuple[dict[str, Any], str]:
    try:
        carried = json.loads(base64.urlsafe_b64decode(token))
        after = _text("after", carried.pop("after"))
        if carried.keys() - set(PARAMETERS) - {"bucket"}:
            raise KeyError
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError):
        raise BadRequest(
            "continuation_token is not one that this function gave: repeat without it"
        ) from None
    return _checked(carried), after
