"""A bulk payload, checked: which objects it covers, and the token that continues it."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.errors import BadRequest
from xapi_etl_processor.base.telemetry import shown
from xapi_etl_processor.queues.payloads import LOAD_FLAGS
from xapi_etl_processor.run import Wanted
from xapi_etl_processor.s3.access import check_allowed
from xapi_etl_processor.s3.objects import MAX_SECTION_NUMBER, S3Object, holds_sections, section_id
from xapi_etl_processor.xapi.timestamps import instant, milliseconds
from xapi_etl_processor.xapi.values import MAX_SECTION_CHARACTERS

_VERIFY_FLAGS = ("verify", "content", "repair", "allow_empty")

FLAGS = (*LOAD_FLAGS, *_VERIFY_FLAGS, "continue")
"""The parameters that are true or false."""

PARAMETERS = (
    *("section_id", "categories", "start_date", "end_date", "s3_bucket", "s3_prefix"),
    *(*FLAGS, "engine", "min_age_minutes", "continuation_token"),
)
"""What makes a payload a bulk request, beside `mode`."""

FUNCTION, QUEUE = "function", "queue"
"""The values of `engine`: this invocation loads the objects, or those of the backfill queue do."""

MAX_AGE_MINUTES = 7 * 24 * 60
"""The largest `min_age_minutes`, a week. Our limit."""

ALL = "all"
"""The `section_id` of all sections. A folder with this name can be reached by `s3_prefix`."""

_OTHER_SPELLING = "bucket"
"""Of `s3_bucket`; on its own it does not make a payload a bulk request."""

_KNOWN = {*PARAMETERS, "mode", _OTHER_SPELLING}

_OPEN = ("", ":")
"""The days of a request without dates: texts before and after every day."""

_FOLDER = re.compile(rf"[^/\x00-\x1f\x7f]{{1,{MAX_SECTION_CHARACTERS}}}")


@dataclass(frozen=True)
class BulkRequest:
    """A checked bulk payload.

    `days` are the first and the last, which compare as text; None means all of them, as no
    `sections` and no `categories` do. `scope` holds the parameters, for a token. The request begins
    behind the key `after`; with `continues`, where the last such request ended.
    """

    bucket: str
    prefix: str
    sections: tuple[int | str, ...]
    categories: tuple[str, ...]
    days: tuple[str, str] | None
    wanted: Wanted
    engine: str
    verify: bool
    content: bool
    repair: bool
    min_age_minutes: int
    allow_empty: bool
    continues: bool
    after: str
    scope: dict[str, Any]

    @property
    def section_id(self) -> int | str | list[int | str] | None:
        """The sections as answers name them: one, a list of several, or None for all."""
        return self.sections[0] if len(self.sections) == 1 else list(self.sections) or None

    def covers(self, obj: S3Object) -> bool:
        """Whether the request is about this object."""
        return obj.is_bundle and self._spans(obj)

    def passes_over(self, obj: S3Object) -> bool:
        """Whether it would be about this object, were that a bundle and no folder's marker."""
        return not obj.is_bundle and not obj.key.endswith("/") and self._spans(obj)

    def _spans(self, obj: S3Object) -> bool:
        if self.sections and obj.section_id not in self.sections:
            return False
        if self.categories and obj.category not in self.categories:
            return False
        if not self.days:
            return True
        first, last = self.days
        written = obj.written_ms
        return written is not None and first <= instant(written).date().isoformat() <= last

    @property
    def identity(self) -> str:
        """What is the same for two requests that cover the same objects in the same way."""
        return f"s3://{self.bucket}/{self.prefix} {json.dumps(self.scope, sort_keys=True)}"

    def token_after(self, key: str) -> str:
        """A token that continues the same request after a key."""
        text = json.dumps({**self.scope, "after": key})
        return base64.urlsafe_b64encode(text.encode()).decode()


def read_request(payload: Mapping[str, Any], settings: Settings) -> BulkRequest:
    """The request in a payload, or in its continuation token, with which other parameters must
    agree. Raises BadRequest naming the parameter.
    """
    unknown = sorted(map(repr, payload.keys() - _KNOWN))
    if unknown:
        raise BadRequest(
            f"unknown parameters {', '.join(unknown)}: use {', '.join(sorted(_KNOWN))}"
        )
    if payload.get("mode", "bulk") != "bulk":
        raise BadRequest(f"mode is {shown(payload['mode'])}: with these parameters it is bulk")
    requested = _checked(payload)
    after = ""
    if payload.get("continuation_token") is not None:
        carried, after = _read_token(payload["continuation_token"])
        # A default that is spelled out is the same as one that is left out.
        defaults = {
            **dict.fromkeys(FLAGS, False),
            "engine": FUNCTION,
            "min_age_minutes": 0,
            "s3_bucket": settings.bucket,
        }
        named = {name for name in payload if payload[name] is not None} & {"section_id"}
        asked = {**dict.fromkeys(named), **requested}
        whole = {**defaults, **carried}
        differing = [name for name, value in asked.items() if value != whole.get(name)]
        if differing:
            raise BadRequest(
                f"continuation_token belongs to another request ({', '.join(differing)} differs):"
                " send the token alone, or the same parameters with it"
            )
        requested = carried
    _check_together(requested)
    # How to go on is no part of the request that a token carries.
    continues = requested.pop("continue", False)
    bucket = requested.get("s3_bucket", settings.bucket)
    section = requested.get("section_id")
    sections = tuple(section if isinstance(section, list) else [] if section is None else [section])
    prefix = _prefix(requested.get("s3_prefix"), settings.prefix, sections)
    check_allowed(settings, bucket, prefix)
    if not after.startswith(prefix if after else ""):
        raise BadRequest(
            f"continuation_token continues after a key that is not in {prefix}: was S3_XAPI_PREFIX"
            " changed? Repeat the request without the token"
        )
    days = requested.get("start_date", _OPEN[0]), requested.get("end_date", _OPEN[1])
    if days[0] > days[1]:
        raise BadRequest("start_date is after end_date: both are UTC days, both included")
    return BulkRequest(
        bucket=bucket,
        prefix=prefix,
        sections=sections,
        categories=tuple(requested.get("categories", ())),
        days=None if days == _OPEN else days,
        wanted=Wanted(*(requested.get(name, False) for name in LOAD_FLAGS)),
        engine=requested.get("engine", FUNCTION),
        min_age_minutes=requested.get("min_age_minutes", 0),
        continues=continues,
        after=after,
        scope=requested,
        **{name: requested.get(name, False) for name in _VERIFY_FLAGS},
    )


def flag(name: str, value: Any) -> bool:
    """A boolean parameter, False if absent; raises BadRequest for anything but true and false."""
    if value is None or isinstance(value, bool):
        return bool(value)
    raise BadRequest(f"{name} is {shown(value)}: use true or false, without quotes")


def _checked(given: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters, each in one spelling so that they can be compared; raises BadRequest."""
    readers: dict[str, Callable[[str, Any], Any]] = {
        **dict.fromkeys(FLAGS, flag),
        **dict.fromkeys(("start_date", "end_date"), _day),
        **dict.fromkeys(("s3_bucket", _OTHER_SPELLING, "s3_prefix"), _text),
        "min_age_minutes": _minutes,
        "section_id": _sections,
        "categories": _categories,
        "engine": _engine,
    }
    named = [name for name in readers if given.get(name) is not None]
    read = {name: readers[name](name, given[name]) for name in named}
    requested = {name: value for name, value in read.items() if value is not None}
    if _OTHER_SPELLING in requested:
        bucket = requested.pop(_OTHER_SPELLING)
        if requested.setdefault("s3_bucket", bucket) != bucket:
            raise BadRequest("s3_bucket and bucket name different buckets: send only s3_bucket")
    return requested


def _check_together(requested: Mapping[str, Any]) -> None:
    """Raises BadRequest for parameters that say nothing, or contradict each other, together."""
    verify, repair = requested.get("verify"), requested.get("repair")
    for name in ("content", "repair", "min_age_minutes", "allow_empty", "continue"):
        if requested.get(name) and not verify:
            raise BadRequest(f'{name} needs "verify": true beside it')
    for name in ("dry_run", "force_reprocess"):
        if requested.get(name) and verify:
            raise BadRequest(f"{name} does not go with verify, which loads only for repair")
    if requested.get("engine") == QUEUE and verify:
        raise BadRequest(
            'engine "queue" does not go with verify, which compares in this invocation'
        )
    if requested.get("replace") and verify and not repair:
        raise BadRequest('replace with verify needs "repair": true beside it')


def _minutes(name: str, value: Any) -> int:
    if type(value) is int and 0 <= value <= MAX_AGE_MINUTES:
        return value
    raise BadRequest(
        f"{name} is {shown(value)}: a whole number from 0 to {MAX_AGE_MINUTES} is needed"
    )


def _sections(name: str, value: Any) -> int | str | list[int | str] | None:
    """One section, several in order, each once, or None for all."""
    if not isinstance(value, list):
        value = [value]
    if not value:
        raise BadRequest(f"{name} is an empty list: name sections, or leave it out for all")
    if ALL in value:
        return None
    sections = sorted({_section(name, one) for one in value}, key=str)
    return sections[0] if len(sections) == 1 else sections


def _categories(name: str, value: Any) -> list[str]:
    folders = value if isinstance(value, list) and value else [value]
    for one in folders:
        if not isinstance(one, str) or not _FOLDER.fullmatch(_text(name, one)):
            raise BadRequest(
                f"{name} is {shown(value)}: a list of folder names below a section's is needed,"
                ' such as ["video"]'
            )
    return sorted(set(folders))


def _engine(name: str, value: Any) -> str:
    if value in (FUNCTION, QUEUE):
        return str(value)
    raise BadRequest(f'{name} is {shown(value)}: use "{FUNCTION}" or "{QUEUE}"')


def _section(name: str, value: Any) -> int | str:
    """A section as `S3Object.section_id` gives it; raises BadRequest for what cannot be one."""
    if isinstance(value, str) and value.strip() and _FOLDER.fullmatch(_text(name, value)):
        return section_id(value)
    if type(value) is int and 0 <= value <= MAX_SECTION_NUMBER:
        return value
    raise BadRequest(
        f"{name} is {shown(value)}: a number, or the name of a folder below section/, is needed"
    )


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
        raise BadRequest(f"{name} is {shown(value)}: valid Unicode text is needed") from None
    return value


def _prefix(given: str | None, default: str, sections: Sequence[int | str]) -> str:
    """What to list. It is a folder, so that section/1 does not match section/10."""
    prefix = (default if given is None else given).lstrip("/")
    if prefix and not prefix.endswith("/"):
        prefix += "/"
    named = S3Object("", prefix).section_id
    if sections and named is not None and named not in sections:
        wanted = ", ".join(map(str, sections))
        raise BadRequest(f"s3_prefix belongs to section {named}, but section_id is {wanted}")
    narrow = len(sections) == 1 and holds_sections(prefix)
    return f"{prefix}{sections[0]}/" if narrow else prefix


def _read_token(token: Any) -> tuple[dict[str, Any], str]:
    """The request that a token carries, and the key after which it continues."""
    try:
        carried = json.loads(base64.urlsafe_b64decode(token))
        after = _text("after", carried.pop("after"))
        if carried.keys() - set(PARAMETERS) - {_OTHER_SPELLING}:
            raise KeyError
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError, BadRequest):
        raise BadRequest(
            "continuation_token was not issued by this function: repeat the request without it"
        ) from None
    return _checked(carried), after
